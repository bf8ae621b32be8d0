//! A run that dies at any system call leaves every visible snapshot whole, and the next run
//! finishes its work; a run that fails publishes nothing.

mod support;

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::aftermath::{OLD, ROTATING, assert_nothing_is_half, assert_the_next_run_finishes, fingerprints};
use support::module::Module;
use support::run::Run;
use support::{fingerprint, have, tree};

/// How many system calls to die at in a normal run; `RSYNCD_SNAPSHOT_SWEEP=full` means each.
const DEATHS: usize = 120;

/// A module with changes to be snapshotted and old snapshots to be expired, so that one run
/// does everything that a run can do.
fn busy_module() -> Module {
    let module = Module::new();
    tree::small(&module.latest);
    tree::numbered(&module.latest, 3, 4);
    for name in OLD {
        module.make_old_snapshot(name);
    }
    module.write_policy(ROTATING);
    module
}

fn traced(module: &Module, expression: &str) -> Run {
    Run::of(&mut module.hook_through(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", expression]))
}

/// The system calls of a run, each as its name and how manieth of that name it is: strace
/// counts the calls of each name apart.
fn calls(module: &Module) -> Vec<(String, usize)> {
    let trace = module.directory.join("trace");
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().expect("UTF-8")];
    Run::of(&mut module.hook_through(&strace)).exits(&[0]);
    let mut counts = HashMap::new();
    let trace = fs::read_to_string(&trace).expect("a trace");
    // 1234 openat(AT_FDCWD, ...
    let names = trace.lines().filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('));
    let names =
        names.map(|(name, _)| name).filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
    let number = |name: &str| {
        let count = counts.entry(name.to_string()).or_insert(0);
        *count += 1;
        (name.to_string(), *count)
    };
    names.map(number).collect()
}

/// Kills runs over a module of `prepare`, each at another system call, in a few threads.
fn sweep(prepare: fn() -> Module) {
    let calls = calls(&prepare());
    assert!(calls.len() > 100, "only {} calls were traced", calls.len());
    // What goes before it touches the root is the loader's and the policy's.
    let first = calls.iter().position(|(name, _)| name == "flock").expect("a lock");
    let calls = &calls[first..];
    let full = std::env::var_os("RSYNCD_SNAPSHOT_SWEEP").is_some_and(|value| value == "full");
    let deaths = if full { calls.len() } else { DEATHS };

    let next = AtomicUsize::new(0);
    let killed = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= deaths {
                return;
            }
            let (name, count) = &calls[number * calls.len() / deaths];
            let what = format!("killed at {name} number {count}");
            let module = prepare();
            let before = fingerprints(&module);
            let run = traced(&module, &format!("inject={name}:signal=SIGKILL:when={count}"));
            if run.signal() == Some(9) {
                killed.fetch_add(1, Ordering::Relaxed);
            } else {
                assert_eq!(run.code(), Some(0), "{what}: {run}");
            }
            assert_nothing_is_half(&module, &before, &what);
            assert!(!module.snapshots().is_empty(), "{what}: every snapshot is gone");
            assert_the_next_run_finishes(&module, &what);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
    let killed = killed.into_inner();
    assert!(killed * 10 > deaths * 8, "only {killed} of {deaths} runs were killed");
}

#[test]
fn a_first_run_killed_at_any_call_leaves_no_half_snapshot() {
    if have(&["strace"]) {
        sweep(busy_module);
    }
}

/// The same with a recorded snapshot to compare with and to expire, retired ones to be recycled and
/// removed, and a torn mark to clear.
fn used_module() -> Module {
    let module = Module::new();
    tree::small(&module.latest);
    let name = module.expect_snapshot();
    let past = "2001-02-07T04-05-06Z";
    fs::rename(module.snapshot(&name), module.snapshot(past)).expect("renamed");
    let record = fs::read_to_string(module.private(&format!("records/{name}.toml"))).expect("a record");
    let time = module.record(&name)["time"].as_str().map(str::to_string).expect("a time");
    let record = record.replace(&time, "2001-02-07T04:05:06Z");
    fs::write(module.private(&format!("records/{past}.toml")), record).expect("a record");
    fs::remove_file(module.private(&format!("records/{name}.toml"))).expect("removed");
    module.run_hook_after(12).exits(&[0]);
    module.write_policy(ROTATING);
    // One to be removed and one to be recycled.
    OLD[1..3].iter().for_each(|name| module.make_old_snapshot(name));
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.left_over("expired"), 2);
    module.make_old_snapshot(OLD[0]);
    tree::write(&module.latest.join("repaired"), "x");
    module
}

#[test]
fn a_later_run_killed_at_any_call_leaves_no_half_snapshot() {
    if have(&["strace"]) {
        sweep(used_module);
    }
}

#[test]
fn a_removal_killed_in_the_middle_is_finished_by_the_next_run() {
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
    if !have(&["strace"]) {
        return;
    }
    for fault in [
        "linkat:error=EIO:when=3",
        "linkat:error=ENOSPC:when=5",
        "linkat:error=EDQUOT:when=1",
        "mkdirat:error=ENOSPC:when=8",
        "syncfs:error=EIO",
        "fchmod:error=EIO:when=2",
        "renameat2:error=EIO",
    ] {
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
fn a_file_with_too_many_links_is_copied_and_the_copy_is_no_change_later() {
    if !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    tree::numbered(&module.latest, 3, 4);
    traced(&module, "inject=linkat:error=EMLINK:when=2+3").exits(&[0, 4]);
    let name = module.snapshots().remove(0);
    assert_eq!(fingerprint::contents(&module.latest), fingerprint::contents(&module.snapshot(&name)));
    assert!(module.list()[0]["copies"].as_u64() > Some(2), "{:?}", module.list());

    module.expect_no_snapshot();
    tree::write(&module.latest.join("d0001/f0001"), "x");
    module.expect_snapshot();
}
