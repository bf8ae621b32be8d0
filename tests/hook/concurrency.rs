//! Several runs on one module: one works, the others wait, leave because their work was done,
//! or give up and leave a mark.

use crate::support;

use std::fs::{self};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::module::Module;
use support::run::Run;
use support::subvolumes::{are_subvolumes, while_made};
use support::time::wait_until;
use support::{have, tree};

const IMPATIENT: &str = "[defaults]\nlock_wait = \"1s\"\n";

/// With this in the module a client says that its backup goes on.
const UNFINISHED: &str = ".rsync-system-backup-unfinished";

/// A run in the background; a test that fails waits for it all the same.
struct Background(Option<Child>);

impl Background {
    fn start(command: &mut Command) -> Background {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Background(Some(command.spawn().expect("it starts")))
    }

    fn id(&self) -> u32 {
        self.0.as_ref().expect("not finished").id()
    }

    #[track_caller]
    fn finish(mut self) -> Run {
        let child = self.0.take().expect("not finished");
        Run::from_output("a background run", child.wait_with_output().expect("it ends"))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// A hook that takes seconds over its links, and has scanned the module when this returns.
fn start_slow_hook(module: &Module) -> Background {
    tree::numbered(&module.latest.join("slow"), 1, 12);
    // A subvolume is made in one step, and waits to become visible.
    let delay = if are_subvolumes() { "delay_enter=2500000" } else { "delay_enter=150000" };
    let slow = while_made(delay);
    let slow = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &slow];
    let child = Background::start(&mut module.hook_through(&slow));
    wait_until("the slow hook makes the snapshot", || match are_subvolumes() {
        true => module.left_over("staging") > 0,
        false => has_a_link(module),
    });
    child
}

/// Whether something in the module has been linked into a snapshot that is being built.
fn has_a_link(module: &Module) -> bool {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(module.latest.join("slow/d0000")).expect("files");
    files.flatten().any(|file| file.metadata().is_ok_and(|metadata| metadata.nlink() > 1))
}

#[test]
fn many_hooks_at_once_make_one_snapshot() {
    slow!();
    let module = Module::new();
    tree::numbered(&module.latest, 60, 100);
    let hooks: Vec<_> = (0..6).map(|_| Background::start(&mut module.hook())).collect();
    for hook in hooks {
        hook.finish().exits(&[0]);
    }
    let names = module.snapshots();
    assert_eq!(names.len(), 1, "{names:?}");
    module.assert_equals_module(&names[0]);
    assert_eq!(module.left_over("staging"), 0);
    assert!(!module.is_marked("due"));
}

#[test]
fn runs_that_waited_for_one_whose_scan_began_later_are_covered_by_it() {
    let (module, _) = Module::with_snapshot();
    tree::write(&module.latest.join("new"), "x");
    let lock = module.hold_lock();
    let runs: Vec<_> = (0..3)
        .map(|_| Background::start(&mut module.command(&["snapshot", "data", "--json"])))
        .collect();
    // Until each has seen that the lock is busy; there is no sign of that from outside.
    std::thread::sleep(std::time::Duration::from_millis(500));
    drop(lock);
    let mut outcomes: Vec<Value> =
        runs.into_iter().map(|run| run.finish().exits(&[0]).json()["outcome"].clone()).collect();
    outcomes.sort_by_key(Value::to_string);
    assert_eq!(outcomes, ["covered", "covered", "published"]);
    assert_eq!(module.snapshots().len(), 2);
}

#[test]
fn a_run_that_came_after_the_scan_is_not_covered_by_it() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    let slow = start_slow_hook(&module);
    tree::write(&module.latest.join("documents/late"), "x");
    tree::write(&module.latest.join("late"), "x");

    let late = module.json(&["snapshot", "data", "--json"]);

    slow.finish().exits(&[0]);
    assert_ne!(late["outcome"], "covered", "{late}");
    let newest = module.snapshots().pop().expect("a snapshot");
    module.assert_equals_module(&newest);
}

#[test]
fn the_next_run_serves_one_that_gave_up() {
    slow!();
    let (module, _) = Module::with_snapshot();
    module.write_policy(IMPATIENT);
    tree::write(&module.latest.join("new"), "x");
    let lock = module.hold_lock();

    module.run_hook().exits(&[3]);
    assert_eq!(module.snapshots().len(), 1);
    assert!(module.is_marked("due"), "{:?}", module.state());
    module.run(&["snapshot", "data"]).exits(&[3]).says("lock");
    module.run(&["rotate", "data"]).exits(&[3]).says("lock");
    // Who only looks does not wait.
    module.run(&["list", "data"]).exits(&[0]);
    module.run(&["plan", "data"]).exits(&[0]);
    let check = module.run(&["check", "data"]).exits(&[1, 2]);
    assert!(check.stdout().contains("due"), "{check}");

    drop(lock);
    module.expect_snapshot();
    assert!(!module.is_marked("due"), "{:?}", module.state());
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn a_run_that_gives_up_names_the_holder() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    module.write_policy(IMPATIENT);
    let slow = start_slow_hook(&module);
    let tracer = slow.id().to_string();
    let run = module.run(&["snapshot", "data"]).exits(&[3]);
    let children =
        fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).expect("its children");
    let holder = children.trim();
    assert!(
        !holder.is_empty() && run.stderr().contains(holder),
        "process {holder} is not named: {run}"
    );
    slow.finish().exits(&[0]);
}

#[test]
fn the_holder_goes_once_more_for_a_run_that_gave_up() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    module.write_policy(IMPATIENT);
    let slow = start_slow_hook(&module);
    // In directories that were scanned before or after: together only a second run sees both.
    tree::write(&module.latest.join("documents/late"), "x");
    tree::write(&module.latest.join("slow/late"), "x");
    module.run_hook().exits(&[3]);

    slow.finish().exits(&[0]);

    let newest = module.snapshots().pop().expect("a snapshot");
    module.assert_equals_module(&newest);
    assert!(!module.is_marked("due"), "{:?}", module.state());
    module.run(&["check", "data"]).exits(&[0]);
}

/// A rotation by hand in which `faults`, options of strace, go wrong, and during which a hook gives
/// up; and the snapshot that there was before.
fn rotate_while_one_falls_due(faults: &[&str]) -> (Module, String, Run) {
    let (module, first) = Module::with_snapshot();
    module.make_old_snapshot("2001-02-03T04-05-06Z");
    module.write_policy("[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\nlock_wait = \"0s\"\n");
    let slow = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=unlinkat:delay_enter=2000000:when=1",
    ];
    let slow = [&slow[..], faults].concat();
    let rotation =
        Background::start(&mut module.command_through(&slow, &["rotate", "data", "--purge"]));
    wait_until("it removes", || module.left_over("staging") == 1);
    tree::write(&module.latest.join("late"), "x");
    module.run_hook().exits(&[3]);
    (module, first, rotation.finish())
}

#[test]
fn a_rotation_by_hand_takes_the_snapshot_that_fell_due_meanwhile() {
    if !have(&["strace"]) {
        return;
    }
    let (module, first, run) = rotate_while_one_falls_due(&[]);
    let run = run.exits(&[0]);
    let newest = module.snapshots().pop().expect("a snapshot");
    assert_ne!(newest, first, "{run}");
    module.assert_equals_module(&newest);
    assert!(!module.is_marked("due"), "{run}");
}

#[test]
fn a_rotation_that_fails_leaves_the_snapshot_due() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    // The record of a snapshot is synced, too.
    let (fault, told) = match are_subvolumes() {
        true => ("inject=syncfs:error=EIO", "and that snapshot failed: cannot sync"),
        false => ("inject=linkat:error=EIO", "and that snapshot failed: cannot link"),
    };
    let (module, first, run) = rotate_while_one_falls_due(&["-e", fault]);
    let run = run.exits(&[4]).says(told);
    assert_eq!(module.snapshots(), [first], "{run}");
    assert!(module.is_marked("due"), "{run}");
    module.run(&["check", "data"]).exits(&[1, 2]);
}

/// What `happens` while a snapshot is made makes it partial, which `says` why; a later good push is
/// complete.
fn assert_makes_it_partial(happens: impl Fn(&Module), says: &str) {
    let module = Module::new();
    tree::small(&module.latest);
    module.write_policy(IMPATIENT);
    let slow = start_slow_hook(&module);
    happens(&module);
    let run = slow.finish().exits(&[0]);
    let names = module.snapshots();
    if are_subvolumes() {
        // It came after the instant of the snapshot, which has nothing of it.
        assert!(names.len() == 1 && !names[0].ends_with("-partial"), "{names:?}: {run}");
        assert!(!module.snapshot(&names[0]).join(UNFINISHED).exists(), "{run}");
    } else {
        run.says(says);
        assert!(names.len() == 1 && names[0].ends_with("-partial"), "{names:?}");
    }

    let _ = fs::remove_file(module.latest.join(UNFINISHED));
    tree::write(&module.latest.join("rest"), "x");
    let newest = module.expect_snapshot();
    assert!(
        !newest.ends_with("-partial") && !module.is_marked("torn"),
        "{newest}: {:?}",
        module.state()
    );
}

#[test]
fn a_transfer_that_fails_while_a_snapshot_is_made_makes_it_partial() {
    slow!();
    if have(&["strace"]) {
        let fails = |module: &Module| drop(module.run_hook_after(12).exits(&[3]));
        assert_makes_it_partial(fails, "a transfer failed meanwhile; the snapshot is partial");
    }
}

#[test]
fn a_backup_that_begins_while_a_snapshot_is_made_makes_it_partial() {
    slow!();
    if have(&["strace"]) {
        let begins = |module: &Module| tree::write(&module.latest.join(UNFINISHED), "");
        assert_makes_it_partial(begins, "a backup began meanwhile; the snapshot is partial");
    }
}

#[test]
fn snapshot_due_works_only_for_a_root_that_is_marked() {
    let (module, _) = Module::with_snapshot();
    module.write_policy(IMPATIENT);
    tree::write(&module.latest.join("new"), "x");
    assert_eq!(module.json(&["snapshot", "data", "--due", "--json"])["outcome"], "not-due");
    assert_eq!(module.snapshots().len(), 1);

    let lock = module.hold_lock();
    module.run_hook().exits(&[3]);
    drop(lock);

    let made = module.json(&["snapshot", "data", "--due", "--json"]);
    assert_eq!(made["outcome"], "published", "{made}");
    assert_eq!(made["name"].as_str(), module.snapshots().last().map(String::as_str));
    assert_eq!(module.json(&["snapshot", "--all", "--due", "--json"])[0]["outcome"], "not-due");
}

#[test]
fn pushes_within_min_interval_leave_one_snapshot_due() {
    slow!();
    let (module, _) = Module::with_snapshot();
    module.write_policy("[defaults]\nmin_interval = \"3s\"\n");
    tree::write(&module.latest.join("soon"), "x");

    module.expect_no_snapshot();
    assert!(module.is_marked("due"), "{:?}", module.state());
    assert_eq!(module.json(&["snapshot", "data", "--due", "--json"])["outcome"], "too-soon");
    wait_until("a snapshot is due", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        module.json(&["snapshot", "data", "--due", "--json"])["outcome"] == "published"
    });
    assert!(!module.is_marked("due"), "{:?}", module.state());
    assert_eq!(module.snapshots().len(), 2);

    // A person who asks for a snapshot gets one.
    tree::write(&module.latest.join("by hand"), "x");
    assert_eq!(module.json(&["snapshot", "data", "--json"])["outcome"], "published");
}

#[test]
fn a_failed_transfer_marks_the_root_torn_even_while_the_lock_is_busy() {
    let (module, first) = Module::with_snapshot();
    module.write_policy(IMPATIENT);
    let lock = module.hold_lock();
    tree::write(&module.latest.join("half"), "x");
    module.run_hook_after(12).exits(&[3]);
    assert!(module.is_marked("torn"), "{:?}", module.state());
    drop(lock);

    module.run_hook().exits(&[0]);
    assert_eq!(module.snapshots(), [first], "a listing after a failed push");
    tree::write(&module.latest.join("half"), "whole");
    let second = module.expect_snapshot();
    assert!(!second.ends_with("-partial"));
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn a_good_push_beside_a_failed_one_is_complete() {
    let (module, first) = Module::with_snapshot();
    let lock = module.hold_lock();
    let mut failed = module.hook().env("RSYNC_EXIT_STATUS", "12").spawn().expect("the hook");
    wait_until("the root is torn", || module.is_marked("torn"));
    // A tick of the clock that the kernel stamps changes with.
    std::thread::sleep(std::time::Duration::from_millis(20));
    tree::write(&module.latest.join("from the good push"), "x");
    drop(lock);
    assert!(failed.wait().expect("its end").success());
    assert_eq!(module.snapshots(), [first], "the failed one publishes nothing");

    let second = module.expect_snapshot();
    assert!(!second.ends_with("-partial"), "{second}");
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}
