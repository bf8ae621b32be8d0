//! What one run leaves for the next: a torn mark, a snapshot that is due, a failure that is
//! remembered. The run that serves a mark makes of it what the run that left it could have made,
//! and no more.

use crate::support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use support::file_system::{FileSystem, Kind};
use support::module::Module;
use support::run::Run;
use support::subvolumes::are_subvolumes;
use support::time::{next_second, wait_until};
use support::tree;

/// Gives up on the lock at once.
const IMPATIENT: &str = "[defaults]\nlock_wait = \"0s\"\npartial_on_exit = [11]\n";

/// A module with a snapshot and a later change by a transfer that failed.
fn torn_module() -> (Module, String) {
    let (module, first) = Module::with_snapshot();
    module.write_policy(IMPATIENT);
    tree::write(&module.latest.join("half"), "x");
    module.run_hook_after(12).exits(&[0]);
    assert!(module.is_marked("torn"), "{:?}", module.state());
    (module, first)
}

fn serve_due(module: &Module) -> Value {
    module.json(&["snapshot", "data", "--due", "--json"])
}

#[track_caller]
fn assert_none_new_is_complete(module: &Module, first: &str) {
    let names = module.snapshots();
    assert!(names.iter().all(|name| name == first || name.ends_with("-partial")), "{names:?}");
    assert!(module.is_marked("torn"), "{:?}", module.state());
}

/// A push that ends well, gives up on the lock, and whose snapshot stays due.
fn push_while_the_lock_is_busy(module: &Module, text: &str) {
    let lock = module.hold_lock();
    // File systems count change times in ticks of a few milliseconds.
    std::thread::sleep(Duration::from_millis(50));
    tree::write(&module.latest.join("half"), text);
    module.run_hook().exits(&[3]);
    assert!(module.is_marked("due"), "{:?}", module.state());
    drop(lock);
}

#[test]
fn serving_a_manual_run_makes_no_torn_tree_complete() {
    slow!();
    for wait in ["0s", "1s"] {
        let servers: [fn(&Module); 4] = [
            |module| assert_eq!(serve_due(module)["outcome"], "published"),
            |module| drop(module.run(&["snapshot", "--all", "--due"]).exits(&[0])),
            |module| drop(module.run_hook().exits(&[0])),
            |module| drop(module.run_hook_after(11).exits(&[0])),
        ];
        for serve in servers {
            let (module, first) = torn_module();
            module.write_policy(&IMPATIENT.replace("0s", wait));
            let lock = module.hold_lock();
            module.run(&["snapshot", "data"]).exits(&[3]).says("due");
            assert!(module.is_marked("due"), "{:?}", module.state());
            drop(lock);

            serve(&module);
            assert_none_new_is_complete(&module, &first);
            // Whatever is still due is no more than that either.
            serve_due(&module);
            module.run_hook().exits(&[0]);
            assert_none_new_is_complete(&module, &first);
        }
    }
}

#[test]
fn serving_a_good_push_repairs_a_torn_module() {
    let servers: [fn(&Module) -> Value; 2] =
        [serve_due, |module| module.json(&["snapshot", "--all", "--due", "--json"])[0].clone()];
    for serve in servers {
        let (module, first) = torn_module();
        push_while_the_lock_is_busy(&module, "whole");
        assert!(module.is_marked("torn"), "nobody has looked yet: {:?}", module.state());

        let made = serve(&module);

        assert_eq!(made["outcome"], "published", "{made}");
        let names = module.snapshots();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0] == first && !names[1].ends_with("-partial"), "{names:?}");
        module.assert_equals_module(&names[1]);
        assert!(!module.is_marked("torn") && !module.is_marked("due"), "{:?}", module.state());
        module.run(&["check", "data"]).exits(&[0]);
    }
}

#[test]
fn a_later_manual_run_takes_nothing_from_a_good_push() {
    let (module, _) = torn_module();
    push_while_the_lock_is_busy(&module, "whole");
    let lock = module.hold_lock();
    module.run(&["snapshot", "data"]).exits(&[3]);
    drop(lock);
    assert_eq!(serve_due(&module)["outcome"], "published");
    let newest = module.snapshots().pop().expect("a snapshot");
    assert!(!newest.ends_with("-partial"), "{newest}");
    assert!(!module.is_marked("torn") && !module.is_marked("due"), "{:?}", module.state());
}

#[test]
fn a_failed_transfer_after_a_good_push_leaves_nothing_complete() {
    slow!();
    // Whether or not the failed one gets to look at the tree.
    for busy in [false, true] {
        let (module, first) = Module::with_snapshot();
        module.write_policy(IMPATIENT);
        push_while_the_lock_is_busy(&module, "whole");
        tree::write(&module.latest.join("half"), "half again");
        let lock = busy.then(|| module.hold_lock());
        module.run_hook_after(12).exits(&[if busy { 3 } else { 0 }]);
        drop(lock);

        serve_due(&module);
        module.run_hook().exits(&[0]);
        assert_none_new_is_complete(&module, &first);

        tree::write(&module.latest.join("half"), "whole again");
        let good = module.expect_snapshot();
        assert!(!good.ends_with("-partial") && !module.is_marked("torn"), "{:?}", module.state());
    }
}

#[test]
fn a_good_push_that_min_interval_put_off_is_complete() {
    let (module, first) = torn_module();
    module.write_policy("[defaults]\nmin_interval = \"1h\"\n");
    tree::write(&module.latest.join("half"), "whole");

    module.run_hook().exits(&[0]).says("min_interval");
    assert_eq!(module.snapshots(), [first.as_str()]);
    assert!(module.is_marked("due"), "{:?}", module.state());
    assert_eq!(serve_due(&module)["outcome"], "too-soon");
    module.run(&["check", "data"]).exits(&[1]).says("due");

    module.write_policy("[defaults]\nmin_interval = \"2s\"\n");
    wait_until("the interval is over", || serve_due(&module)["outcome"] != "too-soon");
    let names = module.snapshots();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(!names[1].ends_with("-partial"), "{names:?}");
    module.assert_equals_module(&names[1]);
    assert!(!module.is_marked("torn") && !module.is_marked("due"), "{:?}", module.state());
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn only_a_run_that_makes_the_tree_safe_makes_up_for_a_failure() {
    let (module, _) = Module::with_snapshot();
    tree::set_mode(&module.root, 0o777);
    module.run_hook().exits(&[2]).says("chmod go-w");
    tree::set_mode(&module.root, 0o700);
    let assert_remembered =
        || drop(module.run(&["check", "data"]).exits(&[2]).says("the last run failed"));
    assert_remembered();

    assert_eq!(serve_due(&module)["outcome"], "not-due");
    assert_remembered();
    module.run(&["rotate", "data"]).exits(&[0]);
    module.run(&["list", "data"]).exits(&[0]);
    assert_remembered();
    module.run_hook_after(12).exits(&[0]);
    assert_remembered();
    module.run_hook().exits(&[0]);
    assert!(module.is_marked("torn"), "{:?}", module.state());
    assert_remembered();

    tree::write(&module.latest.join("new"), "x");
    module.expect_snapshot();
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn an_unchanged_run_makes_up_for_a_failure() {
    for arguments in [None, Some(["snapshot", "data"])] {
        let (module, name) = Module::with_snapshot();
        tree::set_mode(&module.root, 0o777);
        module.run_hook().exits(&[2]);
        tree::set_mode(&module.root, 0o700);
        module.run(&["check", "data"]).exits(&[2]);
        match arguments {
            None => drop(module.expect_no_snapshot()),
            Some(arguments) => drop(module.run(&arguments).exits(&[0])),
        }
        assert_eq!(module.snapshots(), [name]);
        module.run(&["check", "data"]).exits(&[0]);
    }
}

#[test]
fn a_mistake_in_the_policy_is_told_by_every_hook_of_a_torn_module() {
    slow!();
    for policy in ["[defaults]\nkepp = 1\n", "[defaults\n", ""] {
        let (module, first) = torn_module();
        module.write_policy(policy);
        let mistake = if policy.is_empty() { "empty" } else { "policy.toml:" };
        for status in [12, 0, 12, 0] {
            let run = module.run_hook_after(status).exits(&[2]).says(mistake);
            assert!(run.stderr().contains("nothing expires"), "status {status}, {policy}: {run}");
            assert_none_new_is_complete(&module, &first);
            module.run(&["check", "data"]).exits(&[2]).says(mistake);
        }
    }
}

#[test]
fn a_torn_tree_that_equals_the_newest_complete_snapshot_keeps_it_current() {
    slow!();
    let (module, name) = Module::with_snapshot();
    module.run_hook_after(12).exits(&[0]);
    let verified_until =
        || module.list()[0]["verified_until"].as_str().expect("a verified-until").to_string();
    for arguments in [None, Some(["snapshot", "data"]), None] {
        let before = verified_until();
        next_second();
        match arguments {
            None => module.run_hook().exits(&[0]),
            Some(arguments) => module.run(&arguments).exits(&[0]),
        };
        let after = verified_until();
        assert!(after > before, "{arguments:?}: {after} is not after {before}");
        assert_eq!(module.snapshots(), [name.as_str()], "{arguments:?}");
        assert!(module.is_marked("torn"), "{arguments:?}: {:?}", module.state());
    }
}

/// Takes all the space there is with a file.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file");
    for size in [1 << 16, 1 << 10, 1] {
        while file.write_all(&vec![b'x'; size]).and_then(|()| file.sync_data()).is_ok() {}
    }
}

#[test]
fn a_transfer_that_fails_on_a_full_disk_tears_the_module_all_the_same() {
    let options = if are_subvolumes() { &[][..] } else { &["-m", "0", "-b", "1024"] };
    let file_system = FileSystem::with(Kind::Ext4.or_btrfs(), 16, options);
    let Some(file_system) = file_system else { return };
    let module = Module::on(&file_system);
    tree::small(&module.latest);
    let first = module.expect_snapshot();
    tree::write(&module.latest.join("half"), "x");
    let filler = file_system.mount_point.join("filler");
    fill(&filler);

    module.run_hook_after(11).exits(&[1]).says("space");
    module.run(&["check", "data"]).exits(&[2]).says("space");
    fs::remove_file(&filler).expect("removed");

    for run in [module.run_hook(), module.run(&["snapshot", "data"]), module.run_hook()] {
        run.exits(&[0]);
        assert_none_new_is_complete(&module, &first);
    }
    tree::write(&module.latest.join("half"), "whole");
    let good = module.expect_snapshot();
    assert!(
        !good.ends_with("-partial") && !module.is_marked("torn"),
        "{good}: {:?}",
        module.state()
    );
    module.run(&["check", "data"]).exits(&[0]);
    module.run(&["snapshot", "data"]).exits(&[0]);
    assert!(!module.is_marked("torn"), "the mark does not come back: {:?}", module.state());
    module.expect_no_snapshot();
}

#[test]
fn giving_up_names_no_run_that_has_ended() {
    let (module, _) = Module::with_snapshot();
    module.write_policy(IMPATIENT);
    let earlier =
        module.hook().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let id = earlier.id();
    assert!(Run::from_output("the hook", earlier.wait_with_output().expect("it ends")).succeeded());
    let _lock = module.hold_lock();
    for run in
        [module.run_hook(), module.run(&["snapshot", "data"]), module.run(&["rotate", "data"])]
    {
        let run = run.exits(&[3]).says("an unknown process");
        assert!(!run.stderr().contains(&format!("process {id} ")), "{id} has ended: {run}");
    }
}
