//! A `setup` that is killed at any system call: a daemon never serves a module that is not ready,
//! and the next `setup` does the rest.

use crate::support;

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::have;
use support::module::{Module, names_in};
use support::sweep::{calls, spread};

/// A server without rsyncd.conf and without the directory of the module.
fn prepare() -> Module {
    let module = Module::new();
    fs::remove_file(&module.rsyncd_conf).expect("removed");
    fs::remove_dir_all(&module.root).expect("removed");
    module
}

fn command(module: &Module, wrapper: &[&str]) -> Command {
    let root = module.root.to_str().expect("UTF-8");
    let words = ["setup", "laptop", "--path", root, "--user", "laptop", "--restore", "--write"];
    module.command_through(wrapper, &words)
}

#[test]
fn a_setup_killed_at_any_call_is_finished_by_the_next_one() {
    if !have(&["strace"]) {
        return;
    }
    let undisturbed = prepare();
    let calls = calls(&undisturbed, |strace| command(&undisturbed, strace));
    let killed = AtomicUsize::new(0);
    let tried = spread(&calls, 60, |_, call| {
        let what = format!("killed at {} number {}", call.name, call.number);
        let module = prepare();
        let run = call.killed(|strace| command(&module, strace));
        killed.fetch_add(usize::from(run.signal() == Some(9)), Ordering::Relaxed);
        let read = |name: &str| fs::read_to_string(module.directory.join(name)).unwrap_or_default();
        if read("rsyncd.d/laptop.conf").contains("[laptop]") {
            assert!(read("rsyncd.secrets").starts_with("laptop:"), "{what}");
            assert!(module.latest.is_dir(), "{what}");
        }
        if read("rsyncd.conf").contains("&include") {
            assert!(read("rsyncd.d/laptop.conf").contains("[laptop-snapshots]"), "{what}");
        }
        let next = support::run::Run::of(&mut command(&module, &[]));
        assert_eq!(next.code(), Some(0), "{what}: {next}");
        assert_eq!(read("rsyncd.secrets").lines().count(), 1, "{what}");
        assert_eq!(names_in(&module.directory.join("rsyncd.d")), ["laptop.conf"], "{what}");
        assert_eq!(read("rsyncd.d/laptop.conf").matches("[laptop]\n").count(), 1, "{what}");
        assert_eq!(read("rsyncd.conf").matches("&include").count(), 1, "{what}");
        let left = names_in(&module.directory);
        assert!(left.iter().all(|name| !name.ends_with(".tmp")), "{what}: {left:?}");
    });
    let killed = killed.into_inner();
    println!("setup: killed {killed} times in {tried} runs at {} calls", calls.len());
    assert!(killed * 2 >= tried, "only {killed} of {tried} runs were killed");
}
