//! Our program on a terminal.

use std::process::Command;

use super::BINARY;
use super::module::Module;
use super::run::{Run, tool};

/// `script`, which runs a command on a terminal of its own, in the environment of the module's
/// server.
pub(crate) fn script(module: &Module) -> Command {
    let mut inner = Command::new(BINARY);
    module.prepare(&mut inner);
    let mut script = tool("script");
    for (name, value) in inner.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    script.env_remove("NO_COLOR").env("TERM", "xterm");
    script
}

/// Runs the program on a terminal of its own, of 90 columns unless `environment` sets `COLUMNS`.
pub(crate) fn on_terminal(module: &Module, environment: &str, arguments: &str) -> Run {
    let given = format!(
        "--config '{}' --rsyncd-conf '{}'",
        module.policy.display(),
        module.rsyncd_conf.display()
    );
    let command = format!("env {environment} '{BINARY}' {given} {arguments}");
    Run::of(script(module).env("COLUMNS", "90").args(["-qec", &command, "/dev/null"]))
}
