//! `rotate`, `plan` and the hook's own rotation, seen from outside: what is gone from disk.

use crate::support;

use std::fs;
use std::os::unix::fs::symlink;

use chrono::TimeDelta;
use support::file_system::{FileSystem, Kind};
use support::module::Module;
use support::run::{Run, tool};
use support::time::{name_of_age, now};
use support::{have, tree};

/// Keeps the first of each of the last three days.
const THREE_DAYS: &str = "[defaults]\nkeep = { daily = 3 }\nmin_keep = 1\ntime_zone = \"UTC\"\n";

const OLD: [&str; 5] = [
    "2001-02-03T04-05-06Z",
    "2001-02-04T04-05-06Z",
    "2001-02-05T04-05-06Z",
    "2001-02-06T04-05-06Z",
    "2001-02-07T04-05-06Z",
];

/// A module with a snapshot of now, recorded, and one for each of `names`, adopted.
fn module_with(names: &[impl AsRef<str>]) -> (Module, String) {
    let (module, newest) = Module::with_snapshot();
    for name in names {
        module.make_old_snapshot(name.as_ref());
    }
    (module, newest)
}

fn history() -> Vec<String> {
    let hours = (1..=8).flat_map(|day| [day * 24, day * 24 + 7]);
    hours.map(|hours| name_of_age(TimeDelta::hours(hours))).collect()
}

#[test]
fn a_dry_run_deletes_nothing_and_names_what_the_real_run_deletes() {
    let (module, _) = module_with(&history());
    module.write_policy(THREE_DAYS);
    let before = module.snapshots();

    let (kept, expired) = module.verdicts(&["rotate", "data", "--dry-run", "--json"]);
    assert!(expired.len() > 8 && kept.len() >= 3, "{kept:?} {expired:?}");
    assert_eq!(module.snapshots(), before, "a dry run deletes nothing");
    assert_eq!(module.left_over("expired"), 0);
    let planned = module.verdicts(&["plan", "data", "--json"]);
    assert_eq!(planned, (kept.clone(), expired.clone()));

    let real = module.verdicts(&["rotate", "data", "--json"]);
    assert_eq!(real, (kept.clone(), expired));
    assert_eq!(module.snapshots(), kept);
    let (_, again) = module.verdicts(&["rotate", "data", "--json"]);
    assert!(again.is_empty(), "rotation is idempotent: {again:?}");
}

#[test]
fn the_plan_gives_each_snapshot_a_reason_and_lists_oldest_first() {
    let (module, newest) = module_with(&history());
    module.write_policy(THREE_DAYS);
    let plan = module.json(&["plan", "data", "--json"]);
    assert_eq!(plan["module"], "data");
    assert_eq!(plan["snapshot_root"].as_str(), module.root.to_str());
    assert!(plan["pause"].is_null(), "{plan}");
    let snapshots = plan["snapshots"].as_array().expect("snapshots");
    let names: Vec<_> =
        snapshots.iter().map(|snapshot| snapshot["name"].as_str().expect("a name")).collect();
    assert_eq!(names, module.snapshots());
    for snapshot in snapshots {
        let reasons = snapshot["reasons"].as_array().expect("reasons");
        assert!(
            !reasons.is_empty() && reasons.iter().all(|reason| reason.as_str() != Some("")),
            "{snapshot}"
        );
        assert_eq!(snapshot["grade"], "complete");
        let time = snapshot["time"].as_str().expect("a time");
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    }
    let reasons = snapshots.last().expect("the newest")["reasons"].to_string();
    assert!(reasons.contains("newest"), "{reasons}");
    // The same for people.
    let text = module.run(&["plan", "data"]).exits(&[0]).stdout();
    assert!(text.contains(&newest) && text.contains("daily"), "{text}");
}

#[test]
fn foreign_names_are_never_touched() {
    let (module, newest) = module_with(&OLD);
    module.write_policy(THREE_DAYS);
    let directories = [
        "20010203",
        "backup-20010203",
        "2001-02-03",
        "2001-02-03T04-05-06",
        "2001-02-03T04-05-06Z.old",
        "2001-02-30T04-05-06Z",
        "2001-13-03T04-05-06Z",
        "2001-02-03 04:05",
        " 2001-02-03 04:05:06",
        "lost+found",
    ];
    for name in directories {
        fs::create_dir(module.snapshot(name)).expect("a directory");
        tree::write(&module.snapshot(name).join("precious"), "x");
    }
    fs::write(module.snapshot("2001-03-01T00-00-00Z"), "a file").expect("a file");
    symlink(&module.latest, module.snapshot("2001-03-02T00-00-00Z")).expect("a symlink");
    symlink("20010203", module.snapshot("2001-03-03 00:00:00")).expect("a symlink");
    Run::of(tool("mkfifo").arg(module.snapshot("2001-03-04T00-00-00Z"))).exits(&[0]);

    module.run(&["rotate", "data"]).exits(&[0, 4]);
    tree::write(&module.latest.join("new"), "x");
    module.run_hook().exits(&[0, 4]);

    let left = module.snapshots();
    for name in directories {
        assert!(left.iter().any(|left| left == name), "{name} is gone");
        assert!(module.snapshot(name).join("precious").exists(), "{name} was emptied");
    }
    for name in [
        "2001-03-01T00-00-00Z",
        "2001-03-02T00-00-00Z",
        "2001-03-03 00:00:00",
        "2001-03-04T00-00-00Z",
    ] {
        assert!(left.iter().any(|left| left == name), "{name} is gone");
    }
    assert!(OLD.iter().all(|name| !left.iter().any(|left| left == name)), "{left:?}");
    let listed: Vec<_> = module.list().iter().map(|snapshot| snapshot["name"].clone()).collect();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(listed[0], newest.as_str());
}

#[test]
fn snapshots_of_the_python_program_are_adopted_and_rotated() {
    let python = |days| (now() - TimeDelta::days(days)).format("%Y-%m-%d %H:%M:%S").to_string();
    let names: Vec<_> = ["2019-08-02 12:00:00", "2019-08-03 12:00:00"]
        .map(String::from)
        .into_iter()
        .chain([40, 3, 1].map(python))
        .collect();
    let (module, newest) = module_with(&names);
    module.write_policy(
        "[defaults]\nkeep = { daily = 7, monthly = \"always\" }\ntime_zone = \"UTC\"\n",
    );
    let listed = module.list();
    assert_eq!(listed[0]["name"], "2019-08-02 12:00:00");
    assert_eq!(listed[0]["time"], "2019-08-02T12:00:00Z");
    assert_eq!(
        (&listed[0]["origin"], &listed[0]["grade"]),
        (&"adopted".into(), &"complete".into())
    );
    module.run(&["list", "data"]).exits(&[0]).says("complete, adopted");

    module.run(&["rotate", "data"]).exits(&[0]);

    let mut expected: Vec<_> =
        names.iter().filter(|name| *name != "2019-08-03 12:00:00").cloned().collect();
    expected.push(newest);
    expected.sort();
    assert_eq!(module.snapshots(), expected, "never renamed, one per month and day");
}

#[test]
fn adopted_names_dated_in_the_future_are_set_apart_and_stop_nothing() {
    let (module, newest) = module_with(&OLD);
    module.make_old_snapshot("2999-01-01T00-00-00Z");
    module.write_policy(THREE_DAYS);
    module.run(&["rotate", "data"]).exits(&[0, 4]);
    assert_eq!(module.snapshots(), [newest.as_str(), "2999-01-01T00-00-00Z"]);
    // Nor is it the newest that a change is told by.
    module.expect_no_snapshot();
    tree::write(&module.latest.join("new"), "x");
    module.expect_snapshot();
}

#[test]
fn a_recorded_snapshot_dated_in_the_future_pauses_expiry() {
    let (module, newest) = module_with(&OLD);
    module.write_policy(THREE_DAYS);
    let future = "2999-01-01T00-00-00Z";
    let record =
        fs::read_to_string(module.private(&format!("records/{newest}.toml"))).expect("a record");
    let time = module.record(&newest)["time"].as_str().map(str::to_string).expect("a time");
    fs::write(
        module.private(&format!("records/{future}.toml")),
        record.replace(&time, "2999-01-01T00:00:00Z"),
    )
    .expect("a record");
    fs::rename(module.snapshot(&newest), module.snapshot(future)).expect("renamed");
    tree::write(&module.latest.join("new"), "x");

    module.run_hook().exits(&[0, 4]);

    let names = module.snapshots();
    assert_eq!(names.len(), OLD.len() + 2, "a snapshot is taken, nothing expires: {names:?}");
    let plan = module.json(&["plan", "data", "--json"]);
    assert!(plan["pause"].is_string(), "{plan}");
    module.run(&["check", "data"]).exits(&[1, 2]);
}

#[test]
fn a_backlog_is_worked_off_over_several_runs() {
    let (module, newest) = module_with(&OLD);
    module.write_policy(&format!("{THREE_DAYS}max_expire = 2\n"));
    let first = module.run(&["rotate", "data", "--json"]).exits(&[4]);
    assert_eq!(first.json()["deferred"], 3, "{first}");
    assert_eq!(module.snapshots(), [OLD[2], OLD[3], OLD[4], &newest], "the oldest go first");
    module.run(&["rotate", "data"]).exits(&[4]);
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.snapshots(), [newest]);
}

#[test]
fn floors_hold_whatever_the_rest_of_the_policy_says() {
    let (module, newest) = module_with(&OLD);
    let recent = name_of_age(TimeDelta::minutes(30));
    module.make_old_snapshot(&recent);
    module.write_policy(
        "[defaults]\nkeep = { yearly = 1 }\nprefer = \"newest\"\nmin_keep = 4\nmin_age = \"2h\"\n",
    );
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.snapshots(), [OLD[3], OLD[4], &recent, &newest], "min_keep");

    module.write_policy(
        "[defaults]\nkeep = { yearly = 1 }\nprefer = \"newest\"\nmin_keep = 1\nmin_age = \"2h\"\n",
    );
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.snapshots(), [recent.as_str(), &newest], "min_age");

    module.write_policy("[defaults]\nkeep = { yearly = 1 }\nmin_keep = 1\nmin_age = \"1m\"\n");
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.snapshots(), [recent, newest], "the oldest of the year, and the newest");
}

#[test]
fn partial_snapshots_stand_beside_the_complete_ones() {
    let (module, newest) = module_with(&OLD[..2]);
    for day in 10..15 {
        module.make_old_snapshot(&format!("2001-02-{day}T00-00-00Z-partial"));
    }
    module.write_policy(
        "[defaults]\nkeep = { daily = 9 }\nstrict = false\nmin_keep = 1\nkeep_partial = 2\n",
    );
    module.run(&["rotate", "data"]).exits(&[0]);
    let partial = ["2001-02-13T00-00-00Z-partial", "2001-02-14T00-00-00Z-partial"];
    assert_eq!(module.snapshots(), [OLD[0], OLD[1], partial[0], partial[1], &newest]);
}

#[test]
fn a_snapshot_that_cannot_be_removed_is_reported_and_removed_later() {
    let Some(file_system) = FileSystem::new(Kind::Ext4) else { return };
    if !have(&["chattr"]) {
        return;
    }
    let module = Module::on(&file_system);
    tree::small(&module.latest);
    let newest = module.expect_snapshot();
    for name in OLD {
        module.make_old_snapshot(name);
    }
    Run::of(tool("chattr").arg("+i").arg(module.snapshot(OLD[1]).join("sub/old"))).exits(&[0]);
    module.write_policy(THREE_DAYS);

    module.run(&["rotate", "data", "--purge"]).exits(&[4]).says("sub/old");
    assert_eq!(module.snapshots(), [newest.as_str()], "the others are gone all the same");
    module.run(&["check", "data"]).exits(&[1, 2]).says("unremovable");
    module.run_hook().exits(&[0]);
    let set_aside = module.private("unremovable");
    let retired =
        fs::read_dir(&set_aside).expect("the room").next().expect("one").expect("an entry");
    Run::of(tool("chattr").args(["-R", "-i"]).arg(retired.path())).exits(&[0]);
    module.run(&["rotate", "data", "--purge"]).exits(&[0]);
    assert_eq!(["staging", "expired", "unremovable"].map(|room| module.left_over(room)), [0; 3]);
}
