//! A run that dies at any system call leaves every visible snapshot whole, and the next run
//! finishes its work; a run that fails publishes nothing.

use crate::support;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::aftermath::{OLD, assert_nothing_is_half, assert_the_next_run_finishes, fingerprints};
use support::module::Module;
use support::run::Run;
use support::scene::{
    DUE, EXPIRE, EXPIRE_NOW, FIRST, GATE, LATER, PAIR, PIN, READ, ROTATE, SIZES, Scene, UNDELETE,
    busy_module,
};
use support::subvolumes::{are_subvolumes, snapshot_call};
use support::sweep::{Call, calls, spread};
use support::{fingerprint, have, is_full_sweep, tree};

fn traced(module: &Module, expression: &str) -> Run {
    Run::of(&mut module.hook_through(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", expression]))
}

/// Kills the command of `scene` at so many of its system calls; `RSYNCD_SNAPSHOT_SWEEP=full` means
/// each, and in each way to go on from there.
fn sweep(scene: &Scene, bound: usize, variants: usize) {
    if !have(&["strace"]) {
        return;
    }
    let calls = {
        let site = scene.prepare();
        calls(&site.module, |strace| scene.command(&site, strace))
    };
    let ways = if is_full_sweep() { variants } else { 1 };
    let deaths: Vec<(&Call, usize)> = calls
        .iter()
        .enumerate()
        .flat_map(|(n, call)| (n..n + ways).map(move |way| (call, way)))
        .collect();
    let killed = AtomicUsize::new(0);
    let tried = spread(&deaths, bound, |_, (call, way)| {
        let what =
            format!("{}, killed at {} number {}, way {way}", scene.name, call.name, call.number);
        let site = scene.prepare();
        let run = call.killed(|strace| scene.command(&site, strace));
        if run.signal() == Some(9) {
            killed.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!(run.code(), Some(0), "{what}: {run}");
        }
        assert_nothing_is_half(&site.module, &site.before, &what);
        assert!(!site.module.snapshots().is_empty(), "{what}: every snapshot is gone");
        scene.assert_the_next_run_finishes(&site, *way, &what);
    });
    let killed = killed.into_inner();
    println!("{}: killed {killed} times in {tried} runs at {} calls", scene.name, calls.len());
    assert!(killed * 10 >= tried * 9, "{}: only {killed} of {tried} runs were killed", scene.name);
}

#[test]
fn a_first_run_killed_at_any_call_leaves_no_half_snapshot() {
    slow!();
    sweep(&FIRST, 60, 1);
}

#[test]
fn a_later_run_killed_at_any_call_leaves_no_half_snapshot() {
    slow!();
    sweep(&LATER, 70, 1);
}

#[test]
fn a_pre_xfer_killed_at_any_call_is_told_later() {
    slow!();
    sweep(&GATE, 40, 3);
}

#[test]
fn a_pre_xfer_of_a_restore_killed_at_any_call_holds_nothing() {
    sweep(&READ, 30, 1);
}

#[test]
fn a_push_whose_hook_is_killed_gets_its_snapshot() {
    slow!();
    sweep(&PAIR, 40, 1);
}

#[test]
fn a_rotation_killed_at_any_call_is_finished_by_the_next_one() {
    slow!();
    sweep(&ROTATE, 30, 1);
}

#[test]
fn a_due_run_killed_at_any_call_stays_due() {
    slow!();
    sweep(&DUE, 30, 1);
}

#[test]
fn an_undelete_killed_at_any_call_leaves_the_snapshot_retired_or_back() {
    sweep(&UNDELETE, 20, 1);
}

#[test]
fn an_expiry_killed_at_any_call_costs_only_what_was_named() {
    slow!();
    sweep(&EXPIRE, 20, 1);
    sweep(&EXPIRE_NOW, 30, 1);
}

#[test]
fn a_pin_killed_at_any_call_is_there_or_not() {
    slow!();
    sweep(&PIN, 20, 1);
}

#[test]
fn a_count_of_sizes_killed_at_any_call_is_right_or_absent() {
    slow!();
    sweep(&SIZES, 30, 1);
}

#[test]
fn a_removal_killed_in_the_middle_is_finished_by_the_next_run() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    for call in [1, 2, 3, 7] {
        let module = busy_module();
        // Retires the old ones, which the next run removes.
        module.run_hook().exits(&[0]);
        let before = fingerprints(&module);
        let run = traced(&module, &format!("inject=unlinkat:signal=SIGKILL:when={call}"));
        assert_eq!(run.signal(), Some(9), "{run}");
        assert_nothing_is_half(&module, &before, "killed while removing");
        assert_the_next_run_finishes(&module, "killed while removing");
    }
}

/// A call that fails in a way that must stop the snapshot: nothing is published, nothing lost.
#[test]
fn a_failing_call_publishes_nothing_and_harms_nothing() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let of_links = [
        "linkat:error=EIO:when=3",
        "linkat:error=ENOSPC:when=5",
        "linkat:error=EDQUOT:when=2",
        "mkdirat:error=ENOSPC:when=20",
        "fchmod:error=EIO:when=2",
    ];
    let of_subvolumes = || {
        let call = snapshot_call(&busy_module());
        ["EIO", "ENOSPC", "EDQUOT"].map(|error| format!("ioctl:error={error}:when={call}"))
    };
    let faults = match are_subvolumes() {
        true => of_subvolumes().to_vec(),
        false => of_links.map(String::from).to_vec(),
    };
    let of_all = ["syncfs:error=EIO", "renameat2:error=EIO"].map(String::from);
    for fault in faults.iter().chain(&of_all) {
        let module = busy_module();
        let before = fingerprints(&module);
        let run = traced(&module, &format!("inject={fault}"));
        assert_eq!(run.code(), Some(1), "{fault}: {run}");
        assert_eq!(module.snapshots(), OLD, "{fault}: {run}");
        assert_nothing_is_half(&module, &before, fault);
        let check = module.run(&["check", "data"]);
        assert!(matches!(check.code(), Some(1 | 2)), "{fault}: a failure has to show: {check}");
        assert_the_next_run_finishes(&module, fault);
        module.run(&["check", "data"]).exits(&[0]);
    }
}

#[test]
fn an_interrupted_call_is_made_again() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    for call in ["linkat", "openat", "fsync", "getdents64"] {
        let module = busy_module();
        // In the program's own work, not while it is being loaded.
        traced(&module, &format!("inject={call}:error=EINTR:when=20")).exits(&[0, 1]);
        assert_the_next_run_finishes(&module, call);
    }
}

#[test]
fn a_copy_of_a_file_is_no_later_change() {
    only_hard_links!("copies of files that cannot be linked");
    if !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    tree::numbered(&module.latest, 3, 4);
    // Every other name is copied, so that two copies are of one file.
    for name in ["again", "and again", "once more"] {
        fs::hard_link(module.latest.join("read me"), module.latest.join(name)).expect("a link");
    }
    let run = traced(&module, "inject=linkat:error=EMLINK:when=2+3");
    // Which entry the first is depends on how the threads share the work.
    run.exits(&[4]).says(" could not be linked and were copied, the first is ");
    let name = module.snapshots().remove(0);
    assert_eq!(
        fingerprint::contents(&module.latest),
        fingerprint::contents(&module.snapshot(&name))
    );
    assert!(module.list()[0]["copies"].as_u64() > Some(2), "{:?}", module.list());

    module.expect_no_snapshot();
    tree::write(&module.latest.join("d0001/f0001"), "x");
    module.expect_snapshot();
}
