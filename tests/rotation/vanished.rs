//! Snapshots that another program moved or removed, as the administrator does with `rm -rf` and
//! `mv`: each is told as that, its links raise no alarm, and a change that they do not explain
//! still does.

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::{sleep, spawn};
use std::time::Duration;

use serde_json::Value;
use support::module::{Module, NAME};
use support::run::{Run, tool};
use support::subvolumes::{copy_snapshot, move_snapshot, remove_snapshot};
use support::{have, is_root, tree};

const GONE: &str = "is gone, and no run of rsyncd-snapshot removed it";

/// Long enough for the kernel's clock to move on.
const TICK: Duration = Duration::from_millis(50);

/// A module with three snapshots. `old` is in all of them, `since 1` and `since 2` in the later
/// ones.
fn history() -> (Module, Vec<String>) {
    let module = Module::new();
    tree::small(&module.latest);
    let mut names = Vec::new();
    for number in 0..3 {
        tree::write(&module.latest.join(format!("since {number}")), "content");
        names.push(module.expect_snapshot());
        sleep(TICK);
    }
    (module, names)
}

fn remove(module: &Module, name: &str) {
    remove_snapshot(&module.snapshot(name));
    sleep(TICK);
}

/// `verify`, with its exit status.
fn verify(module: &Module) -> (i32, Value) {
    let run = module.run(&["verify", "--json", NAME]);
    (run.code().expect("a status"), run.json())
}

/// The paths that `verify` reports as altered, with what it says of each.
fn altered(module: &Module) -> Vec<String> {
    let (_, json) = verify(module);
    let texts = |value: &Value, key: &str| -> Vec<String> {
        let all = value.as_array().expect("a list").iter();
        all.map(|one| one[key].as_str().expect("text").to_string()).collect()
    };
    let all = json["altered"].as_array().expect("a list").iter();
    all.map(|one| {
        format!(
            "{}: {}",
            one["path"].as_str().expect("a path"),
            texts(&one["changes"], "what").join(" ")
        )
    })
    .collect()
}

#[track_caller]
fn assert_told(module: &Module, names: &[&str]) {
    let first = names[0];
    let check = module.run(&["check", NAME]).exits(&[1]).says(first).says("no run of rsyncd-");
    assert_eq!(check.stdout().matches("no run of rsyncd-snapshot").count(), 1, "{check}");
    let list = module.run(&["list", NAME]).exits(&[4]).says(first).says("release --vanished");
    assert_eq!(list.stderr().matches("no run of rsyncd-snapshot").count(), 1, "{list}");
    let (status, json) = verify(module);
    assert_eq!((status, &json["altered_files"]), (4, &0.into()), "{json:#}");
    for json in [&json, &module.json(&["list", "--json", NAME])] {
        let gone: Vec<&str> = json["vanished"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["name"].as_str().expect("a name"))
            .collect();
        assert_eq!(gone, names, "{json:#}");
    }
}

#[track_caller]
fn assert_quiet(module: &Module) {
    let (status, json) = verify(module);
    assert_eq!((status, &json["altered_files"]), (0, &0.into()), "{json:#}");
    module.run(&["check", NAME]).exits(&[0]);
    module.run(&["list", NAME]).exits(&[0]);
    module.run(&["plan", NAME]).exits(&[0]);
}

#[test]
fn what_came_back_and_was_pinned_or_held_is_missed_when_it_goes_again() {
    slow!();
    let (pin, hold) = (&["--reason", "keep"][..], &["--", "true"][..]);
    for (command, options, how) in
        [("pin", pin, "moved"), ("pin", pin, "removed"), ("hold", hold, "moved")]
    {
        let (module, names) = history();
        let (here, there) = (module.snapshot(&names[1]), module.directory.join("out"));
        move_snapshot(&here, &there);
        module.run(&["release", NAME, "--vanished"]).exits(&[0]).says(&names[1]);
        move_snapshot(&there, &here);
        module.run(&[&[command, NAME, &names[1]], options].concat()).exits(&[0]);
        assert_quiet(&module);
        match how {
            "moved" => move_snapshot(&here, &there),
            _ => remove(&module, &names[1]),
        }
        sleep(TICK);
        assert_told(&module, &[&names[1]]);
        let run = module.run(&["release", NAME, "--vanished"]).exits(&[0]);
        run.says(&format!("accepted as gone: {}", names[1]));
        assert_quiet(&module);
    }
}

#[test]
fn what_vanished_is_told_until_the_administrator_accepts_it() {
    slow!();
    for gone in [&[0][..], &[1], &[2], &[0, 2], &[0, 1, 2]] {
        let (module, names) = history();
        assert_quiet(&module);
        gone.iter().for_each(|index| remove(&module, &names[*index]));
        let gone: Vec<&str> = gone.iter().map(|index| names[*index].as_str()).collect();
        module.run(&["check", NAME]).exits(&[1]).says(gone[0]).says("no run of rsyncd-snapshot");
        module.run(&["list", NAME]).exits(&[4]).says(gone[0]).says("no run of rsyncd-snapshot");
        // In the second of a removed snapshot, the next one would get its name.
        sleep(Duration::from_secs(1));
        // A run notes it, tells it once in the log, and takes its snapshot as always.
        tree::write(&module.latest.join("new"), "x");
        let run = module.run_hook().exits(&[0]).says(gone[0]).says("no run of rsyncd-snapshot");
        let newest = module.snapshots().pop().unwrap_or_else(|| panic!("{run}"));
        module.assert_equals_module(&newest);
        assert_told(&module, &gone);
        let run = module.expect_no_snapshot();
        assert!(!run.stderr().contains("no run of"), "{run}");

        let accepted = module.run(&["release", NAME, "--vanished"]).exits(&[0]);
        gone.iter().for_each(|name| assert!(accepted.stdout().contains(name), "{accepted}"));
        assert_quiet(&module);
        module.run(&["release", NAME, "--vanished"]).exits(&[0]).says("no snapshot has vanished");
        // The links that went are still explained after a snapshot that links the files again.
        tree::write(&module.latest.join("new"), "y");
        module.expect_snapshot();
        assert_quiet(&module);
    }
}

#[test]
fn release_accepts_what_no_run_has_noted_yet() {
    let (module, names) = history();
    remove(&module, &names[1]);
    module.run(&["release", NAME, "--vanished"]).exits(&[0, 4]).says("accepted as gone");
    assert_quiet(&module);
    let run = module.expect_no_snapshot();
    assert!(!run.stderr().contains("no run of"), "{run}");
}

#[test]
fn rotate_and_verify_note_what_vanished_too() {
    slow!();
    for (arguments, status) in
        [(&["rotate", NAME][..], 4), (&["verify", NAME], 4), (&["expire", NAME], 4)]
    {
        let (module, names) = history();
        remove(&module, &names[1]);
        let mut arguments = arguments.to_vec();
        if arguments[0] == "expire" {
            arguments.extend([names[0].as_str(), "--below-min-keep"]);
        }
        module.run(&arguments).exits(&[status]).says(&names[1]).says(GONE);
        assert!(module.private("vanished.toml").is_file(), "{arguments:?}");
        assert_told(&module, &[&names[1]]);
    }
}

// -- Changes that a vanished snapshot does not explain --------------------------------------------

/// What another program does to a file of the module, and what `verify` says of it.
type InPlaceChange = (&'static str, fn(&Path), &'static str);

const CHANGES: [InPlaceChange; 3] = [
    ("another size", |path| fs::write(path, "longer content").expect("written"), "size mtime"),
    ("another mode", |path| tree::set_mode(path, 0o600), "mode"),
    (
        "the same size and time",
        |path| {
            let time = path.metadata().and_then(|metadata| metadata.modified()).expect("a time");
            fs::write(path, "CONTENT").expect("written");
            tree::set_mtime(path, time);
        },
        "touched",
    ),
];

#[test]
fn a_change_in_place_after_the_removal_raises_the_alarm() {
    slow!();
    only_hard_links!("writes in place that change snapshots");
    for (what, change, said) in CHANGES {
        for noted_between in [false, true] {
            let (module, names) = history();
            remove(&module, &names[1]);
            if noted_between {
                module.run_hook().exits(&[0]).says(GONE);
                sleep(TICK);
            }
            change(&module.latest.join("since 0"));
            let expected = [format!("since 0: {said}")];
            assert_eq!(altered(&module), expected, "{what}, {noted_between}");
            // A run that notes the snapshot now must not hide it.
            module.run_hook().exits(&[0, 4]);
            assert_eq!(altered(&module), expected, "{what}, {noted_between}, after a run");
            module.run(&["check", NAME]).exits(&[2]).says("altered in place");
            module.run(&["release", NAME, "--vanished"]).exits(&[0, 4]).says("altered in place");
            assert_eq!(verify(&module).0, 1, "{what}");
        }
    }
}

#[test]
fn a_change_in_place_of_a_newer_file_raises_the_alarm() {
    slow!();
    only_hard_links!("writes in place that change snapshots");
    for (what, change, said) in CHANGES {
        let (module, names) = history();
        change(&module.latest.join("since 2"));
        sleep(TICK);
        // The second snapshot was made before this file was there.
        remove(&module, &names[1]);
        assert_eq!(altered(&module), [format!("since 2: {said}")], "{what}");
        module.run_hook().exits(&[0, 4]);
        assert_eq!(altered(&module), [format!("since 2: {said}")], "{what}, after a run");
    }
}

#[test]
fn other_attributes_are_compared_whenever_they_changed() {
    slow!();
    only_hard_links!("writes in place that change snapshots");
    for (what, change, said) in &CHANGES[..2] {
        let (module, names) = history();
        change(&module.latest.join("since 0"));
        sleep(TICK);
        remove(&module, &names[1]);
        assert_eq!(altered(&module), [format!("since 0: {said}")], "{what}");
    }
}

// -- What vanishes and comes back -----------------------------------------------------------------

#[test]
fn a_snapshot_that_is_moved_away_and_back_stays_what_it_was() {
    slow!();
    let (module, names) = history();
    let aside = module.directory.join("aside");
    let (from, record) = (module.snapshot(&names[1]), module.record(&names[1]));
    move_snapshot(&from, &aside);
    assert_told(&module, &[&names[1]]);
    move_snapshot(&aside, &from);
    // `verify` has noted it. It is back, and nothing is to be accepted.
    assert_quiet(&module);
    module.expect_no_snapshot();
    assert_quiet(&module);
    let listed = module.list();
    assert_eq!(listed.len(), 3, "{listed:?}");

    // Without a run in between, its record is as it was.
    let (from, record_of_first) = (module.snapshot(&names[0]), module.record(&names[0]));
    move_snapshot(&from, &aside);
    module.run(&["check", NAME]).exits(&[1]).says(&names[0]).says(GONE);
    move_snapshot(&aside, &from);
    module.expect_no_snapshot();
    assert_eq!(module.record(&names[0]), record_of_first);
    assert_ne!(record, record_of_first);
    assert_quiet(&module);
}

#[test]
fn a_name_that_is_used_again_is_another_snapshot() {
    slow!();
    let (module, names) = history();
    remove(&module, &names[1]);
    module.run_hook().exits(&[0]).says(GONE);
    // A copy of another one, under the name of that which vanished.
    let copy = |from: &str, to: &str| {
        let (from, to) = (module.snapshot(from), module.snapshot(to));
        Run::of(tool("cp").arg("-a").arg(from).arg(to)).exits(&[0]);
    };
    copy(&names[0], &names[1]);
    assert_quiet(&module);
    module.expect_no_snapshot();
    let origins: Vec<String> = module.list().iter().map(|one| one["origin"].to_string()).collect();
    assert_eq!(origins, ["\"recorded\"", "\"adopted\"", "\"recorded\""]);
    // It vanishes, too.
    remove(&module, &names[1]);
    assert_told(&module, &[&names[1]]);
    module.run(&["release", NAME, "--vanished"]).exits(&[0, 4]);
    assert_quiet(&module);
    // And a program retires and removes one of that name: that is no riddle.
    copy(&names[0], &names[1]);
    module.expect_no_snapshot();
    module.run(&["expire", NAME, &names[1], "--now", "--below-min-keep"]).exits(&[0]);
    assert_quiet(&module);
}

// -- Which snapshot -------------------------------------------------------------------------------

#[test]
fn an_adopted_snapshot_that_vanishes_is_told_as_well() {
    let (module, newest) = Module::with_snapshot();
    let old = "2019-08-02 12:00:00";
    copy_snapshot(&module.snapshot(&newest), &module.snapshot(old));
    module.run(&["release", NAME, "--damage"]).exits(&[0]);
    module.expect_no_snapshot();
    assert_quiet(&module);
    sleep(TICK);
    remove(&module, old);
    tree::write(&module.latest.join("new"), "x");
    module.run_hook().exits(&[0]).says(old).says(GONE);
    assert_told(&module, &[old]);
    module.run(&["release", NAME, "--vanished"]).exits(&[0]).says(old);
    assert_quiet(&module);
}

#[test]
fn the_pin_of_a_vanished_snapshot_stays_and_is_told() {
    slow!();
    let (module, names) = history();
    module.run(&["pin", NAME, &names[0], "--reason", "audit"]).exits(&[0]);
    let aside = module.directory.join("aside");
    move_snapshot(&module.snapshot(&names[0]), &aside);
    module
        .run(&["check", NAME])
        .exits(&[1])
        .says(GONE)
        .says(&format!("the pin of {} stays until `unpin`", names[0]));
    module.run_hook().exits(&[0]);
    move_snapshot(&aside, &module.snapshot(&names[0]));
    assert_eq!(module.list()[0]["pinned"], "audit");
    remove(&module, &names[0]);
    module.run(&["unpin", NAME, &names[0]]).exits(&[0]);
    let check = module.run(&["check", NAME]).exits(&[1]).says(GONE);
    assert!(!check.stdout().contains("the pin of"), "{check}");
}

#[test]
fn a_pin_whose_snapshot_is_accepted_as_gone_is_listed() {
    let (module, names) = history();
    module.run(&["pin", NAME, &names[0]]).exits(&[0]);
    remove(&module, &names[0]);
    module.run(&["release", NAME, "--vanished"]).exits(&[0]).says("the pin of");
    let line = format!("{} is pinned, but there is no such snapshot: ", names[0]);
    module.run(&["list", NAME]).exits(&[0]).says(&line);
    assert_eq!(module.json(&["list", NAME, "--json"])["pins_without_snapshot"][0], *names[0]);
    let unpin = format!("`rsyncd-snapshot unpin data {} --config", names[0]);
    module.run(&["check", NAME, "-v"]).exits(&[0]).says(&line).says(&unpin);
    module.run(&["unpin", NAME, &names[0]]).exits(&[0]);
    let quiet = module.run(&["list", NAME]).exits(&[0]);
    assert!(!quiet.stdout().contains("no such snapshot"), "{quiet}");
    assert!(!module.run(&["check", NAME]).exits(&[0]).stdout().contains("no such snapshot"));
}

#[test]
fn a_retired_snapshot_that_is_removed_by_hand_raises_no_alarm() {
    let (module, names) = history();
    module.run(&["expire", NAME, &names[0], "--below-min-keep"]).exits(&[0]);
    assert_quiet(&module);
    sleep(TICK);
    remove_snapshot(&module.retired_snapshot(&names[0]));
    assert_told(&module, &[&names[0]]);
    module.run(&["release", NAME, "--vanished"]).exits(&[0, 4]);
    assert_quiet(&module);
}

#[test]
fn the_next_run_compares_with_what_is_left() {
    let (module, names) = history();
    remove(&module, &names[2]);
    // The module equals no snapshot any more, so there is a new one, though nothing changed.
    let name = module.expect_snapshot();
    let record = module.record(&name);
    assert_eq!(record["added"].as_integer(), Some(1), "against the second: {record:?}");
    for name in [&names[0], &names[1], &name] {
        remove(&module, name);
    }
    let name = module.expect_snapshot();
    module.assert_equals_module(&name);
    assert_eq!(module.snapshots(), [name]);
}

#[test]
fn a_snapshot_that_vanishes_while_a_run_reads_it_costs_no_other() {
    slow!();
    let module = Module::new();
    tree::numbered(&module.latest, 40, 40);
    for round in 0..6 {
        tree::write(&module.latest.join("new"), &format!("{round} 0"));
        let name = module.expect_snapshot();
        tree::write(&module.latest.join("new"), &format!("{round} 1"));
        let path = module.snapshot(&name);
        let remover = spawn(move || {
            sleep(Duration::from_millis(3 * round));
            remove_snapshot(&path);
        });
        let run = module.run_hook();
        remover.join().expect("it ends");
        if run.code() != Some(0) {
            // It may not find what it was about to open, and says so.
            assert!(run.stderr().contains("cannot "), "{run}");
        }
        module.run_hook().exits(&[0, 4]);
        let newest = module.snapshots().pop().expect("a snapshot");
        module.assert_equals_module(&newest);
        let (_, json) = verify(&module);
        assert_eq!(json["altered_files"], 0, "{json:#}");
    }
}

// -- What is not known ----------------------------------------------------------------------------

#[test]
fn the_record_of_a_killed_run_is_no_vanished_snapshot() {
    if !have(&["strace"]) {
        return;
    }
    let (module, _) = history();
    tree::write(&module.latest.join("new"), "x");
    let records = || fs::read_dir(module.private("records")).expect("records").count();
    // The rename that makes the snapshot visible.
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=renameat2:signal=KILL"];
    let run = Run::of(&mut module.hook_through(&strace));
    assert_eq!((run.signal(), module.snapshots().len(), records()), (Some(9), 3, 4), "{run}");
    let list = module.run(&["list", NAME]).exits(&[0]);
    assert!(!list.to_string().contains("no run of"), "{list}");
    let run = module.run_hook().exits(&[0]);
    assert!(!run.stderr().contains("no run of"), "{run}");
    assert_eq!((module.snapshots().len(), records()), (4, 4));
    assert_quiet(&module);
}

#[test]
fn a_damaged_or_newer_note_loses_no_snapshot() {
    slow!();
    let (module, names) = history();
    remove(&module, &names[0]);
    module.run_hook().exits(&[0]);
    let file = module.private("vanished.toml");
    fs::write(&file, "\u{1b}[31m damaged").expect("written");
    let run = module.run(&["list", NAME]).exits(&[4]).says("vanished.toml");
    assert!(!run.stderr().contains('\u{1b}'), "{run}");
    module.run_hook().exits(&[0, 4]);
    fs::write(&file, "format = 99\nother = 1\n").expect("written");
    module.run(&["list", NAME]).exits(&[4]).says("newer version");
    module.run(&["check", NAME]).exits(&[1]).says("newer version");
    remove(&module, &names[1]);
    tree::write(&module.latest.join("new"), "x");
    let run = module.run_hook();
    assert_eq!(module.snapshots().len(), 2, "{run}");
    assert_eq!(fs::read_to_string(&file).expect("the file"), "format = 99\nother = 1\n");
    // Once it can be read again, the snapshot that vanished meanwhile is noted.
    fs::remove_file(&file).expect("removed");
    module.run_hook().exits(&[0]).says(&names[1]).says(GONE);
}

#[test]
fn an_ordinary_user_is_told_the_same() {
    if is_root() {
        return;
    }
    let (module, names) = history();
    let mode = module.root.metadata().expect("the root").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    remove(&module, &names[1]);
    assert_told(&module, &[&names[1]]);
}

#[test]
fn what_was_moved_back_vanishes_once_more_as_itself() {
    let (module, names) = history();
    let gone = names[1].as_str();
    let (here, away) = (module.snapshot(gone), module.directory.join("away"));
    let there_and_back = |meanwhile: &[&str]| {
        move_snapshot(&here, &away);
        sleep(TICK);
        module.run(meanwhile);
        move_snapshot(&away, &here);
        sleep(TICK);
    };
    // No run takes a snapshot in between.
    there_and_back(&["verify", NAME]);
    assert_quiet(&module);
    there_and_back(&["release", "--vanished", NAME]);
    assert_quiet(&module);
    remove(&module, gone);
    assert_told(&module, &[gone]);
    module.run(&["release", NAME, "--vanished"]).exits(&[0]).says(gone);
    assert_quiet(&module);
}
