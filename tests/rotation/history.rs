//! What the program knows of a module's past, and what it does without: records and a state that
//! cannot be read, dates that cannot be true, a root whose history is gone, names that are taken.

use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use chrono::TimeDelta;
use support::module::Module;
use support::run::Run;
use support::subvolumes::remove_snapshot;
use support::time::{name_of, name_of_age, now};
use support::{fingerprint, have, tree};

/// Expires all of [`OLD`].
const EXPIRING: &str =
    "[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\ngrace = \"0s\"\ntime_zone = \"UTC\"\n";

/// Adopted snapshots.
const OLD: [&str; 4] =
    ["2001-02-03T04-05-06Z", "2001-02-04T04-05-06Z", "2001-02-05T04-05-06Z", "2001-02-06 04:05:06"];

/// When a recorded snapshot of the past was taken.
const PAST: &str = "2001-02-05T16-00-00Z";

/// A module with old snapshots that wait to be expired, and one of now.
fn module_with_history() -> (Module, String) {
    let (module, newest) = Module::with_snapshot();
    for name in OLD {
        module.make_old_snapshot(name);
    }
    module.write_policy(EXPIRING);
    (module, newest)
}

/// Moves snapshot `name` with its record to the time in `new_name`.
fn redate(module: &Module, name: &str, new_name: &str) {
    let (date, time) = new_name.split_once('T').expect("a name of ours");
    let time = format!("{date}T{}", time.replace('-', ":"));
    let mut record = module.record(name);
    // As an older version recorded it: sequence and boot clock would contradict the date.
    record.remove("sequence");
    record.remove("taken_at");
    for key in ["time", "verified_until"] {
        record.insert(key.to_string(), toml::Value::String(time.clone()));
    }
    fs::write(module.private(&format!("records/{new_name}.toml")), record.to_string())
        .expect("a record");
    fs::remove_file(module.private(&format!("records/{name}.toml"))).expect("removed");
    fs::rename(module.snapshot(name), module.snapshot(new_name)).expect("renamed");
}

type Damage = fn(&[u8]) -> Vec<u8>;

/// Ways in which the text of a record or of the state can have become unreadable.
const DAMAGES: [Damage; 4] = [
    |text| text[..text.iter().position(|byte| *byte == b'"').expect("a string") + 3].to_vec(),
    |_| Vec::new(),
    |_| b"torn = [what\n".to_vec(),
    |_| b"format = 1\n\xff\xfe\0".to_vec(),
];

/// A record as a newer version might write it.
const NEWER: Damage = |text| {
    let newer = String::from_utf8_lossy(text).replace("format = 1", "format = 99");
    assert!(newer.contains("format = 99"), "{newer}");
    newer.into_bytes()
};

/// Damages the file at `path`; returns what it holds now.
fn apply(damage: Damage, path: &Path) -> Vec<u8> {
    let damaged = damage(&fs::read(path).expect("a file to damage"));
    fs::write(path, &damaged).expect("the damage");
    damaged
}

#[test]
fn a_snapshot_whose_record_cannot_be_read_never_expires_and_is_named() {
    slow!();
    for damage in DAMAGES.into_iter().chain([NEWER]) {
        let (module, first) = Module::with_snapshot();
        redate(&module, &first, PAST);
        tree::write(&module.latest.join("new"), "x");
        let newest = module.expect_snapshot();
        OLD.iter().for_each(|name| module.make_old_snapshot(name));
        module.write_policy(EXPIRING);
        let path = module.private(&format!("records/{PAST}.toml"));
        let damaged = apply(damage, &path);
        let what = String::from_utf8_lossy(&damaged);

        let (kept, expired) = module.verdicts(&["plan", "data", "--json"]);
        assert_eq!(
            (kept, expired),
            (vec![PAST.to_string(), newest.clone()], OLD.map(String::from).to_vec())
        );
        for arguments in
            [&["plan", "data"][..], &["list", "data"], &["rotate", "data", "--dry-run"]]
        {
            let run = module.run(arguments).exits(&[4]);
            assert!(run.stderr().contains(&format!("{PAST}.toml")), "{what}: not told: {run}");
        }
        for arguments in [&["rotate", "data"][..], &["rotate", "data", "--confirm"]] {
            module.run(arguments).exits(&[4]).says(&format!("{PAST}.toml"));
        }
        module.run_hook().exits(&[4]).says(&format!("{PAST}.toml"));
        assert_eq!(module.snapshots(), [PAST, &newest], "{what}");
        assert_eq!(fs::read(&path).expect("the record"), damaged, "the record is kept as it is");
        module.run(&["check", "data"]).exits(&[1]).says(PAST);
    }
}

#[test]
fn an_unchanged_run_keeps_a_record_that_cannot_be_read() {
    slow!();
    for damage in DAMAGES.into_iter().chain([NEWER]) {
        let (module, newest) = Module::with_snapshot();
        let path = module.private(&format!("records/{newest}.toml"));
        let damaged = apply(damage, &path);
        let what = String::from_utf8_lossy(&damaged);

        module.run_hook().exits(&[4]).says(&newest);
        module.run(&["snapshot", "data"]).exits(&[4]).says(&newest);
        module.run_hook_after(12);
        module.run_hook();
        module.run(&["snapshot", "data"]).says(&newest);

        assert_eq!(
            module.snapshots(),
            [newest.as_str()],
            "nothing changed, whatever the record says"
        );
        assert_eq!(fs::read(&path).expect("the record"), damaged, "{what}");
        tree::write(&module.latest.join("new"), "x");
        module.run_hook().exits(&[4]);
        assert_eq!(module.snapshots().len(), 2);
    }
}

/// A torn module with [`OLD`] and a tree that no snapshot shows.
fn torn_module() -> (Module, Vec<String>) {
    let (module, _) = module_with_history();
    tree::write(&module.latest.join("half"), "x");
    module.run_hook_after(12).exits(&[0]);
    assert!(module.is_marked("torn"));
    let names = module.snapshots();
    (module, names)
}

#[test]
fn a_state_that_cannot_be_read_is_set_aside_and_taken_for_the_worst() {
    slow!();
    for damage in DAMAGES {
        let (module, names) = torn_module();
        let path = module.private("state.toml");
        let damaged = apply(damage, &path);

        assert_the_state_is_lost(&module, &names);
        assert_eq!(fs::read(module.private("state.toml.damaged")).expect("set aside"), damaged);
    }
}

/// The next good listing publishes nothing, and nothing expires until a person confirms; a push
/// that repairs the module is a snapshot.
#[track_caller]
fn assert_the_state_is_lost(module: &Module, names: &[String]) {
    let run = module.run_hook();
    assert!(matches!(run.code(), Some(0 | 4)), "{run}");
    assert_eq!(module.snapshots(), names, "a mixture is no snapshot, and nothing expires: {run}");
    assert!(module.is_marked("torn"), "{:?}", module.state());
    for _ in 0..2 {
        module.run(&["rotate", "data"]).exits(&[4]).says("--confirm");
        module.run_hook();
        assert_eq!(module.snapshots(), names);
    }
    let plan = module.json(&["plan", "data", "--json"]);
    assert!(plan["pause"].as_str().is_some_and(|pause| pause.contains("--confirm")), "{plan}");
    module.run(&["check", "data"]).exits(&[1, 2]).says("--confirm");

    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert_eq!(module.snapshots(), names[names.len() - 1..]);
    assert!(module.is_marked("torn"), "a person vouches for the list, not for the tree");
    module.expect_no_snapshot();
    tree::write(&module.latest.join("half"), "whole");
    let good = module.expect_snapshot();
    assert!(
        !good.ends_with("-partial") && !module.is_marked("torn"),
        "{good}: {:?}",
        module.state()
    );
}

#[test]
fn a_lost_state_stays_lost_until_it_is_replaced() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    for fault in [
        "openat:error=ENOSPC",
        "write:error=ENOSPC",
        "fsync:error=EIO",
        "renameat:error=EIO",
        "write:signal=9",
    ] {
        let (module, names) = torn_module();
        fs::write(module.private("state.toml"), "torn = [what\n").expect("the damage");
        let temporary = module.private("drafts/state.toml.tmp");
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", "state.toml.tmp", "-P"];
        let inject = format!("inject={fault}");
        let strace = [&strace[..], &[temporary.to_str().expect("UTF-8"), "-e", &inject]].concat();
        for _ in 0..2 {
            let run = Run::of(&mut module.hook_through(&strace));
            assert!(run.code() == Some(1) || run.signal() == Some(9), "{fault}: {run}");
            assert_eq!(module.snapshots(), names, "{fault}: {run}");
        }
        assert_the_state_is_lost(&module, &names);
    }
}

#[test]
fn a_recorded_snapshot_of_the_future_pauses_expiry() {
    let (module, newest) = module_with_history();
    let future = "2036-02-03T04-05-06Z";
    redate(&module, &newest, future);
    tree::write(&module.latest.join("new"), "x");

    module.run_hook().exits(&[4]).says("2036").says("--confirm");
    let names = module.snapshots();
    assert_eq!(names.len(), OLD.len() + 2, "a snapshot is taken, nothing expires: {names:?}");
    let newest = names[OLD.len()].clone();
    module.run(&["rotate", "data"]).exits(&[4]).says("2036");
    assert_eq!(module.snapshots(), names);
    let plan = module.json(&["plan", "data", "--json"]);
    let pause = plan["pause"].as_str().expect("a pause");
    assert!(pause.contains(future) && pause.contains("--confirm"), "{pause}");
    module.run(&["check", "data"]).exits(&[1]).says(future);

    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert_eq!(module.snapshots(), [newest.as_str(), future]);
    assert!(module.json(&["plan", "data", "--json"])["pause"].is_null());
    module.run(&["check", "data"]).exits(&[0]);
    // It is not the newest of any slot, and what was confirmed is not asked again.
    module.expect_no_snapshot();
    tree::write(&module.latest.join("new"), "y");
    let made = module.expect_snapshot();
    assert!(module.snapshots().contains(&future.to_string()), "{made}: {:?}", module.snapshots());

    // Another one is.
    redate(&module, &made, "2037-02-03T04-05-06Z");
    assert!(module.json(&["plan", "data", "--json"])["pause"].is_string());
}

#[test]
fn a_root_whose_history_is_gone_is_told_of_and_begins_anew_once() {
    let (module, _) = Module::with_snapshot();
    let gone = "was used before, but holds no history now";
    for entry in fs::read_dir(&module.root).expect("the root") {
        let path = entry.expect("an entry").path();
        if path != module.latest {
            remove_snapshot(&path);
        }
    }

    for arguments in [&["check", "data"][..], &["check"]] {
        module.run(arguments).exits(&[2]).says("CRITICAL").says(gone);
    }
    for arguments in [&["snapshot", "--all"][..], &["rotate", "--all"], &["list"]] {
        module.run(arguments).exits(&[1, 2]).says(gone);
    }
    assert!(!module.private(".").exists() && module.snapshots().is_empty());

    let gone = "is gone, and this push began a new one";
    let run = module.run_hook().exits(&[4]);
    assert_eq!(run.stderr().matches(gone).count(), 1, "{run}");
    let name = module.snapshots().pop().expect("a snapshot");
    module.assert_equals_module(&name);
    module.run(&["check", "data"]).exits(&[1]).says(gone);

    let run = module.expect_no_snapshot();
    assert!(!run.stderr().contains(gone), "{run}");
    module.run(&["snapshot", "--all"]).exits(&[0]);
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn a_person_who_begins_a_new_history_gets_no_alert_of_it() {
    let (module, name) = Module::with_snapshot();
    fs::remove_dir_all(module.private("")).expect("removed");
    remove_snapshot(&module.snapshot(&name));
    module.run(&["check", "data"]).exits(&[2]).says("holds no history now");
    module.run(&["snapshot", "data"]).exits(&[0]).says("a new one begins");
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn snapshots_without_what_was_known_of_them_do_not_expire() {
    let (module, _) = Module::with_snapshot();
    for hours in [30, 31, 32] {
        module.make_old_snapshot(&name_of_age(TimeDelta::hours(hours)));
    }
    module.write_policy(
        "[defaults]\nkeep = { yearly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\n",
    );
    let before = module.snapshots();
    fs::remove_dir_all(module.private("")).expect("removed");
    for arguments in [&["snapshot", "data"][..], &["snapshot", "--all"], &["rotate", "data"]] {
        module.run(arguments).exits(&[4]).says("rotate --confirm`");
        assert!(before.iter().all(|name| module.snapshots().contains(name)), "{arguments:?}");
    }
    module.run(&["check", "data"]).exits(&[1, 2]).says("rotate data --confirm");
    module.run(&["rotate", "data", "--confirm"]).exits(&[0, 4]);
    assert!(module.snapshots().len() < before.len());
}

#[test]
fn foreign_files_that_hold_the_next_names_only_delay_a_snapshot() {
    slow!();
    let module = Module::new();
    tree::small(&module.latest);
    let begin = now();
    let names: Vec<String> =
        (0..4).map(|second| name_of(begin + TimeDelta::seconds(second))).collect();
    fs::write(module.snapshot(&names[0]), "foreign").expect("a file");
    fs::write(module.snapshot(&format!("{}-partial", names[1])), "foreign").expect("a file");
    symlink("nowhere", module.snapshot(&names[2])).expect("a link");
    fs::write(module.snapshot(&names[3]), "foreign").expect("a file");
    let taken = module.snapshots();

    let name = module.expect_snapshot();

    assert!(name > names[3], "{name} of {taken:?}");
    module.assert_equals_module(&name);
    assert_eq!(module.snapshots()[..4], taken);
    assert_eq!(fs::read(module.snapshot(&names[0])).expect("the file"), b"foreign");
    assert_eq!(module.list().len(), 1, "files and links are no snapshots");
    fingerprint::assert_same(&module.latest, &module.snapshot(&name));
}
