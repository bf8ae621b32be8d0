//! A run shows its progress on a terminal, and nowhere else.

use crate::support;

use support::have;
use support::module::Module;
use support::run::Run;
use support::terminal::script;
use support::tree;

#[test]
fn a_run_on_a_terminal_shows_its_progress_and_takes_it_away() {
    if !have(&["script"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    let program = env!("CARGO_BIN_EXE_rsyncd-snapshot");
    let policy = module.policy.display();
    let latest = module.latest.display();
    let run = |options: &str| {
        let command = format!("{program} --config {policy} {options} snapshot {latest}");
        Run::of(script(&module).args(["-qec", &command, "/dev/null"]))
    };
    let shown = run("").exits(&[0]).stdout();
    assert!(shown.contains("making the snapshot: ") && shown.contains("published"), "{shown:?}");
    assert!(
        shown.trim_end().ends_with(" s"),
        "the last line is the log's, not the bar's: {shown:?}"
    );

    tree::write(&module.latest.join("more"), "x");
    let quiet = run("-q").exits(&[0]).stdout();
    assert_eq!(quiet, "", "{quiet:?}");
}

#[test]
fn a_run_without_a_terminal_shows_none() {
    let module = Module::new();
    tree::small(&module.latest);
    let run = module.run(&["snapshot", &module.latest.display().to_string()]).exits(&[0]);
    assert!(!run.stderr().contains("making the snapshot"), "{run}");
}

#[test]
fn an_error_leaves_no_bar_behind() {
    if !have(&["script"]) {
        return;
    }
    let module = Module::new();
    let program = env!("CARGO_BIN_EXE_rsyncd-snapshot");
    let (policy, conf) = (module.policy.display(), module.server.rsyncd_conf.display());
    let command =
        format!("{program} --config {policy} --rsyncd-conf {conf} snapshot no-such-module");
    let shown = Run::of(script(&module).args(["-qec", &command, "/dev/null"])).exits(&[2]).stdout();
    assert!(shown.contains("error: ") && !shown.contains("0/0"), "{shown:?}");
}

/// Work that fails half-way takes its bar away before the error is told.
#[test]
fn a_failure_half_way_leaves_no_bar_behind() {
    if !have(&["script", "strace"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    let program = env!("CARGO_BIN_EXE_rsyncd-snapshot");
    let (policy, latest) = (module.policy.display(), module.latest.display());
    let command = format!(
        "strace -f -qq -o /dev/null -e inject=linkat:error=EIO:delay_enter=100000 {program} \
         --config {policy} snapshot {latest}"
    );
    let shown = Run::of(script(&module).args(["-qec", &command, "/dev/null"])).stdout();
    let (before, after) = shown.rsplit_once("error: ").expect("an error");
    assert!(before.contains("making the snapshot: "), "{shown:?}");
    assert!(after.trim_end().lines().count() == 1 && !after.contains(" a second"), "{shown:?}");
}
