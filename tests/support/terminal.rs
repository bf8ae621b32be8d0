//! Our program on a terminal.

use std::process::Command;

use super::BINARY;
use super::module::Module;
use super::run::{Run, tool};

/// Runs the program on a terminal of its own, of 90 columns unless `environment` sets `COLUMNS`.
pub(crate) fn on_terminal(module: &Module, environment: &str, arguments: &str) -> Run {
    let mut inner = Command::new(BINARY);
    module.prepare(&mut inner);
    let given = format!(
        "--config '{}' --rsyncd-conf '{}'",
        module.policy.display(),
        module.rsyncd_conf.display()
    );
    let mut script = tool("script");
    for (name, value) in inner.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    script.env_remove("NO_COLOR").env("TERM", "xterm").env("COLUMNS", "90");
    script.args([
        "-qec",
        &format!("env {environment} '{BINARY}' {given} {arguments}"),
        "/dev/null",
    ]);
    Run::of(&mut script)
}
