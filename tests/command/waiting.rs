//! A command that waits for another run says after a second for whom and for what it waits.

use crate::support;

use std::fs;
use std::process::{Child, Command, Stdio};

use support::module::Module;
use support::run::Run;
use support::time::wait_until;
use support::{have, tree};

use super::status::Connection;

/// A process that is waited for at last, so that it does not outlive its module.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

fn begin(command: &mut Command) -> Running {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    Running(quiet.spawn().expect("a process"))
}

fn holder(module: &Module) -> String {
    fs::read_to_string(module.private("lock")).unwrap_or_default()
}

/// A run that holds the lock for some seconds, when it does so.
pub(crate) fn begin_slow_snapshot(module: &Module) -> Running {
    begin_snapshot_with(module, "syncfs:delay_enter=6s", "writing to the disk")
}

/// A run whose system calls are delayed, once it is in a phase.
fn begin_snapshot_with(module: &Module, delay: &str, phase: &str) -> Running {
    let inject = format!("inject={delay}");
    let slow = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
    let run = begin(&mut module.command_through(&slow, &["snapshot", "data"]));
    wait_until(phase, || holder(module).contains(phase));
    run
}

#[test]
fn a_run_that_waits_for_the_lock_says_who_holds_it_and_what_that_run_does() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let (module, newest) = Module::with_snapshot();
    tree::write(&module.latest.join("more"), "x");
    for arguments in [
        &["rotate", "data"][..],
        &["snapshot", "data"],
        &["expire", "data", "--below-min-keep", &newest],
        &["verify", "data"],
    ] {
        let slow = begin_slow_snapshot(&module);
        let said = module.run(arguments).exits(&[0, 4]).stderr();
        let (root, line) = (module.root.display(), holder_pattern(&said));
        let told = format!("data: waits for up to 20s for the lock of {root}: held by process ");
        assert!(said.contains(&told), "{arguments:?}: {said}");
        assert!(line.contains(" for data (run by hand, writing to the disk) since 2"), "{said}");
        assert_eq!(said.matches("waits for up to").count(), 1, "{said}");
        drop(slow);
        tree::write(&module.latest.join("more"), arguments[0]);
    }
    let slow = begin_slow_snapshot(&module);
    let said = module.run(&["-q", "rotate", "data"]).exits(&[0]).stderr();
    assert_eq!(said, "");
    drop(slow);
    assert_eq!(holder(&module), "", "the last run has released the lock");
}

fn holder_pattern(said: &str) -> &str {
    said.lines().find(|line| line.contains("waits for up to")).unwrap_or_default()
}

/// Another program, such as `flock`, writes no text into the file.
#[test]
fn a_holder_that_says_nothing_is_unknown_and_a_free_lock_is_not_told() {
    let (module, _) = Module::with_snapshot();
    module.write_policy("[defaults]\nlock_wait = \"2s\"\n");
    let lock = module.hold_lock();
    module.run(&["rotate", "data"]).exits(&[3]).says("held by an unknown process");
    drop(lock);
    let said = module.run(&["rotate", "data"]).exits(&[0]).stderr();
    assert!(!said.contains("waits"), "{said}");
}

#[test]
fn a_job_that_waits_in_the_queue_says_which_jobs_are_before_it() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let (module, _) = Module::with_snapshot();
    module.write_policy("[defaults]\nlock_wait = \"20s\"\nmax_parallel = 1\n");
    let other = module.directory.join("second/latest");
    fs::create_dir_all(&other).expect("the other module");
    tree::set_mode(&module.directory.join("second"), 0o700);
    let sections = [
        module.rsyncd_conf_section("data", &module.latest),
        module.rsyncd_conf_section("second", &other),
    ];
    module.write_rsyncd_conf(&sections.concat());
    tree::write(&module.latest.join("more"), "x");
    let slow = begin_slow_snapshot(&module);
    let root = module.root.display();
    Run::of(&mut module.command(&["snapshot", "second"])).exits(&[0]).says(&format!(
        "second: waits for up to 20s in the job queue: 1 job before it (max_parallel 1), at work \
         on {root}"
    ));
    drop(slow);
}

#[test]
fn a_repair_that_waits_for_a_push_says_whose_it_is() {
    let (module, _) = Module::with_snapshot();
    module.write_policy("[defaults]\nlock_wait = \"2s\"\n");
    let connection = Connection::new();
    connection.begin(&module);
    let run = module.run(&["verify", "data", "--repair-attributes"]).exits(&[3]);
    run.says("data: waits for up to 2s for a push of address 192.0.2.7");
}

/// It waits at the gate, as a push does.
#[test]
fn a_restore_in_place_that_waits_for_a_run_says_for_which() {
    only_hard_links!("the phase in which a tree of links is made");
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let (module, newest) = Module::with_snapshot();
    tree::write(&module.latest.join("more"), "x");
    let delay = "linkat:delay_enter=4s:when=1";
    let slow = begin_snapshot_with(&module, delay, "making the snapshot");
    let arguments = ["restore", "data", &newest, "read me", "--in-place", "--overwrite"];
    let said = module.run(&arguments).exits(&[0, 4]).stderr();
    let told = "for a run that reads the module: process ";
    assert!(said.contains("data: waits for up to ") && said.contains(told), "{said}");
    assert!(said.contains(" for data (run by hand, making the snapshot) since 2"), "{said}");
    drop(slow);
}
