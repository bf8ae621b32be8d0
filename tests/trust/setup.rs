//! A `setup` that is killed, or gets an error, at any change: a daemon never serves a module that
//! is not ready, and the next `setup` does the rest.

use crate::support;

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::have;
use support::module::{Module, names_in};
use support::run::Run;
use support::sweep::{Call, calls};

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

/// Whether the call changes a file or a directory.
fn changes(call: &Call) -> bool {
    const CHANGING: [&str; 13] = [
        "mkdir",
        "mkdirat",
        "rename",
        "renameat",
        "renameat2",
        "unlink",
        "unlinkat",
        "fsync",
        "fchmod",
        "chmod",
        "fchmodat",
        "write",
        "fchown",
    ];
    call.creates() || CHANGING.contains(&call.name.as_str())
}

/// A module that a client would reach has its directory and its secret, and no file is half.
fn assert_ready_if_served(module: &Module, what: &str) {
    let read = |name: &str| fs::read_to_string(module.directory.join(name)).unwrap_or_default();
    if !read("rsyncd.d/laptop.conf").is_empty() {
        assert!(read("rsyncd.d/laptop.conf").contains("[laptop-snapshots]"), "{what}");
        assert!(read("rsyncd.secrets").starts_with("laptop:"), "{what}");
        assert!(module.latest.is_dir(), "{what}");
    }
    if module.rsyncd_conf.exists() {
        assert!(read("rsyncd.conf").ends_with("/rsyncd.d\n"), "{what}");
        assert!(!read("rsyncd.d/laptop.conf").is_empty(), "{what}");
    }
}

/// The next `setup` leaves the same as one that nothing disturbs.
fn assert_the_next_one_finishes(module: &Module, what: &str) {
    let read = |name: &str| fs::read_to_string(module.directory.join(name)).unwrap_or_default();
    let next = Run::of(&mut command(module, &[]));
    assert_eq!(next.code(), Some(0), "{what}: {next}");
    assert_ready_if_served(module, what);
    assert_eq!(read("rsyncd.secrets").lines().count(), 1, "{what}");
    assert_eq!(names_in(&module.directory.join("rsyncd.d")), ["laptop.conf"], "{what}");
    assert_eq!(read("rsyncd.d/laptop.conf").matches("[laptop]\n").count(), 1, "{what}");
    assert_eq!(read("rsyncd.conf").matches("&include").count(), 1, "{what}");
    let left = names_in(&module.directory);
    assert!(left.iter().all(|name| !name.ends_with(".tmp")), "{what}: {left:?}");
}

#[test]
fn a_setup_killed_or_failed_at_any_change_is_finished_by_the_next_one() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let undisturbed = prepare();
    let mut calls = calls(&undisturbed, |strace| command(&undisturbed, strace));
    calls.retain(changes);
    let (killed, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let disturb = |call: &Call| {
        let what = format!("killed at {} number {}", call.name, call.number);
        let module = prepare();
        let run = call.killed(|strace| command(&module, strace));
        killed.fetch_add(usize::from(run.signal() == Some(9)), Ordering::Relaxed);
        assert_ready_if_served(&module, &what);
        assert_the_next_one_finishes(&module, &what);
        for error in call.errors() {
            let what = format!("{error} at {} number {}", call.name, call.number);
            let module = prepare();
            let run = call.failed(error, |strace| command(&module, strace));
            failed.fetch_add(usize::from(!run.succeeded()), Ordering::Relaxed);
            assert_ready_if_served(&module, &what);
            assert_the_next_one_finishes(&module, &what);
        }
    };
    std::thread::scope(|scope| {
        for some in calls.chunks(calls.len().div_ceil(8)) {
            scope.spawn(|| some.iter().for_each(disturb));
        }
    });
    let (killed, failed) = (killed.into_inner(), failed.into_inner());
    println!("setup: killed {killed} times, failed {failed} times at {} calls", calls.len());
    assert!(killed > 20 && failed > 20, "killed {killed} times, failed {failed} times");
}
