//! `expire`: the administrator deletes snapshots by name.

use crate::support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use serde_json::Value;
use support::file_system::{FileSystem, Kind};
use support::module::{Module, NAME, names_in};
use support::run::{Run, tool};
use support::time::wait_until;
use support::{fingerprint, have, is_root, tree};

const POLICY: &str = "[defaults]\nkeep = { yearly = \"always\" }\nmin_age = \"0s\"\n\
                      time_zone = \"UTC\"\nlock_wait = \"20s\"\n";

const OLD: [&str; 4] = [
    "2019-08-02 12:00:00",
    "2021-01-01T00-00-00Z",
    "2022-01-01T00-00-00Z",
    "2023-01-01T00-00-00Z-partial",
];

/// Four old snapshots, an adopted and a partial one among them, and a new one, which is returned.
fn history() -> (Module, String) {
    let module = Module::new();
    module.write_policy(POLICY);
    tree::small(&module.latest);
    OLD.iter().for_each(|name| module.make_old_snapshot(name));
    let newest = module.expect_snapshot();
    (module, newest)
}

/// Nothing is wrong with the module, and `visible` and `retired` are what is there.
#[track_caller]
fn assert_consistent(module: &Module, visible: &[&str], retired: &[&str]) {
    let listed: Vec<Value> = module.list().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(listed, visible);
    let expired = module.json(&["list", "--expired", "--json", NAME]);
    let expired = expired["expired"].as_array().expect("a list").iter();
    let expired: Vec<Value> = expired.map(|one| one["name"].clone()).collect();
    assert_eq!(expired, retired);
    module.run(&["check", NAME]).exits(&[0]);
    let verify = module.run(&["verify", "--json", NAME]).exits(&[0]).json();
    assert_eq!((&verify["altered_files"], &verify["vanished"]), (&0.into(), &Value::Array(vec![])));
    module.run(&["plan", NAME]).exits(&[0]);
    let records = fs::read_dir(module.private("records")).expect("records").count();
    assert_eq!(records, visible.len() + retired.len());
}

#[test]
fn an_expired_snapshot_is_retired_and_can_be_brought_back() {
    let (module, newest) = history();
    module
        .run(&["expire", NAME, OLD[1]])
        .exits(&[0])
        .says("2021-01-01T00-00-00Z is retired: `undelete` brings it back until 20");
    let left = [OLD[0], OLD[2], OLD[3], &newest];
    assert_consistent(&module, &left, &[OLD[1]]);
    // Once more, there is nothing to do.
    module.run(&["expire", OLD[1]]).exits(&[0]).says("was retired before").says("--now");
    assert_consistent(&module, &left, &[OLD[1]]);
    module.run(&["undelete", OLD[1]]).exits(&[0]);
    assert_consistent(&module, &[OLD[0], OLD[1], OLD[2], OLD[3], &newest], &[]);
    module.expect_no_snapshot();
    module.run(&["unpin", OLD[1]]).exits(&[0]);
    module.write_policy(&format!("{POLICY}grace = \"0s\"\n"));
    let run = module.run(&["expire", "-n", NAME, OLD[1]]).exits(&[0]);
    run.says("would be retired: `undelete` brings it back until a later run");
    let run = module.run(&["expire", OLD[1]]).exits(&[0]);
    run.says("is retired: `undelete` brings it back until a later run");
}

#[test]
fn the_grace_and_its_end_are_told() {
    let (module, _) = history();
    module.write_policy(&format!("{POLICY}grace = \"2d\"\n"));
    let json = module.json(&["expire", "--json", NAME, OLD[0], OLD[3]]);
    assert_eq!((&json["grace"], &json["dry_run"]), (&"2d".into(), &false.into()), "{json:#}");
    for (one, name) in json["snapshots"].as_array().expect("a list").iter().zip([OLD[0], OLD[3]]) {
        assert_eq!((&one["name"], &one["outcome"]), (&name.into(), &"retired".into()));
        let time = |key: &str| -> chrono::DateTime<chrono::Utc> {
            one[key].as_str().expect("a time").parse().expect("a time")
        };
        assert_eq!(time("until") - time("retired"), chrono::TimeDelta::days(2));
    }
    assert!(json["bytes_freed"].is_null(), "nothing is freed yet: {json:#}");
    let listed = module.json(&["list", "--expired", "--json", NAME]);
    assert_eq!(listed["expired"][0]["until"], json["snapshots"][0]["until"]);
}

#[test]
fn now_removes_at_once_and_says_what_that_freed() {
    let Some(file_system) = FileSystem::new(Kind::Ext4) else { return };
    let module = Module::on(&file_system);
    module.write_policy(POLICY);
    tree::small(&module.latest);
    OLD.iter().for_each(|name| module.make_old_snapshot(name));
    let newest = module.expect_snapshot();
    let write = |name: &str, file: &str| {
        fs::write(module.snapshot(name).join(file), vec![7; 256 << 10]).expect("a file");
    };
    write(OLD[0], "alone");
    write(OLD[1], "shared");
    let (from, to) = (module.snapshot(OLD[1]), module.snapshot(OLD[2]));
    fs::hard_link(from.join("shared"), to.join("shared")).expect("a link");
    module.run(&["expire", NAME, OLD[1]]).exits(&[0]);
    let free = || {
        nix::unistd::sync();
        let statvfs = rustix::fs::statvfs(&file_system.mount_point).expect("statvfs");
        statvfs.f_bfree * statvfs.f_frsize
    };
    let before = free();
    // One is visible, one is retired; the file that both share goes with the second of them.
    let arguments = ["expire", "--now", "--json", "--below-min-keep", NAME, OLD[0], OLD[1], OLD[2]];
    let dry: Vec<&str> = arguments.iter().copied().chain(["-n"]).collect();
    let (promised, json) = (module.json(&dry), module.json(&arguments));
    assert_eq!(promised["bytes_freed"], json["bytes_freed"], "{promised:#}");
    let freed = json["bytes_freed"].as_u64().expect("bytes");
    let gained = free() - before;
    assert!(gained.abs_diff(freed) <= 32 << 10, "said {freed}, gained {gained}");
    assert!((512 << 10..600 << 10).contains(&freed), "{freed}");
    for one in json["snapshots"].as_array().expect("a list") {
        assert_eq!(one["outcome"], "removed", "{json:#}");
    }
    assert_consistent(&module, &[OLD[3], &newest], &[]);
    let run = module.run(&["expire", "--now", NAME, OLD[3]]).exits(&[0]);
    run.says("is removed for good").says("freed ").says(" bytes), 3 files and directories");
    assert_consistent(&module, &[&newest], &[]);
}

#[test]
fn one_bad_name_changes_nothing() {
    let (module, newest) = history();
    module.run(&["pin", NAME, OLD[2], "--reason", "audit"]).exits(&[0]);
    for (names, said) in [
        (&[OLD[0], &newest][..], "it is the newest complete snapshot"),
        (&[OLD[0], OLD[2]], "it is pinned (audit); run `unpin`"),
        (&[OLD[0], "2021-01-01T00-00-01Z"], "has no snapshot"),
        (&[OLD[0], "latest"], "has no snapshot"),
        (&[OLD[0], ".rsyncd-snapshot"], "has no snapshot"),
        (&[OLD[0], ".."], "has no snapshot"),
        (&[OLD[0], "a\nb\u{1b}[31m"], "has no snapshot a\\x0ab\\x1b[31m"),
        (&[OLD[0], OLD[1]], "only 2 complete snapshots would stay, and min_keep is 3"),
    ] {
        for more in [&[][..], &["--now"], &["-n"], &["--json"]] {
            let arguments = [&["expire", NAME], more, names].concat();
            let run = module.run(&arguments).exits(&[2]).says(said);
            assert!(!run.stderr().contains('\u{1b}'), "{run}");
            assert_eq!(module.snapshots().len(), 5, "{run}");
        }
    }
    let name = OsStr::from_bytes(b"2021-\xff");
    Run::of(module.command(&["expire", NAME]).arg(name)).exits(&[2]).says("2021-\\xff");
    module.run(&["expire", NAME]).exits(&[2]).says("is a module");
    module.run(&["expire"]).exits(&[2]);
    let all: Vec<&str> = OLD[..3].iter().copied().chain([OLD[3], &newest]).collect();
    assert_consistent(&module, &all, &[]);
    // The newest stays whatever is said.
    let run = module.run(&["expire", NAME, &newest, "--below-min-keep", "--now"]).exits(&[2]);
    run.says("it can expire once there is a newer complete one");
    module.run(&["expire", NAME, OLD[0], OLD[1], "--below-min-keep"]).exits(&[0]);
    assert_consistent(&module, &[OLD[2], OLD[3], &newest], &[OLD[0], OLD[1]]);
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would_go() {
    only_hard_links!("sizes by numbers of links");
    let (module, newest) = history();
    let before = fs::read(module.private("state.toml")).expect("the state");
    module.run(&["expire", "-n", NAME, OLD[1]]).exits(&[0]).says("would be retired");
    let run = module.run(&["expire", "-n", "--now", NAME, OLD[1]]).exits(&[0]);
    run.says("would be removed for good").says("would free");
    assert_eq!(fs::read(module.private("state.toml")).expect("the state"), before);
    assert_consistent(&module, &[OLD[0], OLD[1], OLD[2], OLD[3], &newest], &[]);
}

#[test]
fn an_order_waits_for_the_lock_and_gives_up() {
    let (module, newest) = history();
    module.write_policy(&POLICY.replace("20s", "0s"));
    let lock = module.hold_lock();
    module.run(&["expire", NAME, OLD[1]]).exits(&[3]).says("nothing was done");
    // What may not go anyway is told without waiting.
    module.run(&["expire", NAME, &newest]).exits(&[2]).says("newest");
    module.run(&["expire", "-n", NAME, OLD[1]]).exits(&[0]);
    drop(lock);
    module.run(&["expire", NAME, OLD[1]]).exits(&[0]);
}

#[test]
fn two_orders_at_once_remove_each_snapshot_once() {
    let (module, newest) = history();
    let start = |names: &[&str]| {
        let arguments = [&["expire", "--now", "--below-min-keep", NAME], names].concat();
        let mut command = module.command(&arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let orders = [start(&[OLD[0], OLD[1]]), start(&[OLD[2], OLD[3]])];
    for order in orders {
        Run::from_output("expire", order.wait_with_output().expect("it ends")).exits(&[0]);
    }
    assert_consistent(&module, &[&newest], &[]);
}

#[test]
fn without_a_usable_policy_nothing_is_expired() {
    let (module, _) = history();
    for text in ["[defaults]\nmin_keep = \"x\"\n", ""] {
        module.write_policy(text);
        for more in [&[][..], &["--now", "--below-min-keep"], &["-n"]] {
            let arguments = [&["expire", NAME, OLD[1]], more].concat();
            let run = module.run(&arguments).exits(&[2]).says("policy.toml");
            assert_eq!(module.snapshots().len(), 5, "{run}");
        }
    }
}

#[test]
fn an_order_holds_while_expiry_is_paused_and_says_so() {
    only_hard_links!("writes in place that change snapshots");
    let (module, newest) = history();
    fs::write(module.private("state.toml"), "damaged").expect("written");
    module.run_hook().exits(&[0, 4]);
    module
        .run(&["expire", NAME, OLD[1]])
        .exits(&[4])
        .says("expiry is paused; the named snapshots were expired all the same")
        .says("state.toml was damaged");
    assert_eq!(module.retired(), [OLD[1]]);
    module.run(&["rotate", NAME, "--confirm"]).exits(&[0, 4]);
    tree::set_mode(&module.latest.join("read me"), 0o600);
    module.run(&["verify", NAME]).exits(&[1]);
    let json = module.run(&["expire", NAME, "--json", OLD[3]]).exits(&[4]).json();
    let warning = json["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("they may hold the last good state"), "{json:#}");
    assert!(json["pause"].as_str().is_some_and(|pause| pause.contains("altered")), "{json:#}");
    assert!(module.snapshots().contains(&newest));
}

#[test]
fn the_snapshot_before_a_large_change_needs_a_release() {
    let module = Module::new();
    module.write_policy(&format!("{POLICY}anomaly_share = \"50%\"\n"));
    tree::numbered(&module.latest, 30, 40);
    let good = module.expect_snapshot();
    (0..25).for_each(|number| {
        fs::remove_dir_all(module.latest.join(format!("d{number:04}"))).expect("removed");
    });
    module.run_hook().exits(&[0, 4]);
    let arguments = ["expire", NAME, &good, "--below-min-keep"];
    module.run(&arguments).exits(&[2]).says("run `release`");
    module.run(&["release", NAME]).exits(&[0]).says(&good);
    module.run(&arguments).exits(&[0]);
}

#[test]
fn wrong_dates_keep_no_snapshot_from_going() {
    let (module, newest) = history();
    let future = "2037-01-01T00-00-00Z";
    module.make_old_snapshot(future);
    module.run(&["expire", NAME, future]).exits(&[0]);
    module.run(&["expire", NAME, future, "--now"]).exits(&[0]);
    assert_consistent(&module, &[OLD[0], OLD[1], OLD[2], OLD[3], &newest], &[]);
}

#[test]
fn names_of_several_modules_go_together_or_not_at_all() {
    let (module, _) = history();
    let other = module.directory.join("other/latest");
    fs::create_dir_all(&other).expect("a module");
    tree::set_mode(other.parent().expect("the root"), 0o700);
    tree::small(&other);
    module.write_rsyncd_conf(
        &(module.rsyncd_conf_section(NAME, &module.latest)
            + &module.rsyncd_conf_section("other", &other)),
    );
    module.run(&["snapshot", "other"]).exits(&[0]);
    let [old, same] = ["2020-02-02T00-00-00Z", OLD[1]].map(|name| {
        let directory = other.with_file_name(name);
        fs::create_dir(&directory).expect("an old snapshot");
        directory
    });
    let names = [OLD[2], "2020-02-02T00-00-00Z"];
    // The pins of both, too.
    module.run(&[&["pin"], &names[..]].concat()).exits(&[0]).says("data: ").says("other: ");
    module.run(&[&["pin"], &names[..1], &[OLD[1]]].concat()).exits(&[2]).says("several modules");
    module.run(&[&["expire", "--below-min-keep"], &names[..]].concat()).exits(&[2]).says("unpin");
    module.run(&[&["unpin"], &names[..1]].concat()).exits(&[0]);
    module.run(&[&["expire", "--below-min-keep"], &names[..]].concat()).exits(&[2]).says("unpin");
    assert!(old.is_dir() && same.is_dir() && module.snapshot(OLD[2]).is_dir());
    module.run(&[&["unpin"], &names[1..]].concat()).exits(&[0]);
    let json = module.json(&[&["expire", "--json", "--below-min-keep"], &names[..]].concat());
    assert_eq!(json.as_array().map(Vec::len), Some(2), "{json:#}");
    assert!(!old.exists() && !module.snapshot(OLD[2]).exists());
    module.run(&["expire", OLD[1]]).exits(&[2]).says("several modules have");
    module.run(&["expire", "other", OLD[1], "--below-min-keep"]).exits(&[0]);
    assert!(!same.exists() && module.snapshot(OLD[1]).is_dir());
}

#[test]
fn an_order_that_was_killed_while_it_removed_can_be_repeated() {
    for now in [&["--now"][..], &[]] {
        let (module, newest) = history();
        // The removal begins with a rename into staging, and then the record goes.
        let staged = module.private("staging").join(OLD[1]);
        fs::rename(module.snapshot(OLD[1]), &staged).expect("renamed");
        fs::remove_file(module.private("records").join(format!("{}.toml", OLD[1])))
            .expect("removed");
        let order = [&["expire", NAME, OLD[1]][..], now].concat();
        let run = module.run(&[&order[..], &["-n"]].concat()).exits(&[0]);
        run.says("2021-01-01T00-00-00Z would be removed for good");
        assert!(staged.is_dir());
        module.run(&order).exits(&[0]).says("2021-01-01T00-00-00Z is removed for good");
        assert!(!staged.exists());
        assert_consistent(&module, &[OLD[0], OLD[2], OLD[3], &newest], &[]);
        module.run(&order).exits(&[2]).says("has no snapshot 2021-01-01T00-00-00Z");
        module.run(&["expire", NAME, ""]).exits(&[2]).says("a name is empty");
        module.run(&["pin", NAME, &format!("{}/", OLD[2])]).exits(&[0]).says(OLD[2]);
    }
}

#[test]
fn two_snapshots_of_one_name_go_only_together() {
    let (module, newest) = history();
    module.run(&["expire", NAME, OLD[1]]).exits(&[0]);
    module.make_old_snapshot(OLD[1]);
    let run = module.run(&["expire", NAME, OLD[1]]).exits(&[2]);
    run.says("a retired snapshot has the same name").says("--now");
    assert_eq!(module.retired(), [OLD[1]]);
    module.run(&["expire", NAME, OLD[1], "--now"]).exits(&[0]);
    assert_consistent(&module, &[OLD[0], OLD[2], OLD[3], &newest], &[]);
}

#[test]
fn what_cannot_be_moved_is_refused_with_the_command_that_helps() {
    if !is_root() || !have(&["chattr"]) {
        return;
    }
    let Some(file_system) = FileSystem::new(Kind::Ext4) else { return };
    let module = Module::on(&file_system);
    module.write_policy(POLICY);
    tree::small(&module.latest);
    OLD.iter().for_each(|name| module.make_old_snapshot(name));
    module.expect_snapshot();
    let flag = |what: &str| {
        Run::of(tool("chattr").arg(what).arg(module.snapshot(OLD[1]))).exits(&[0]);
    };
    flag("+i");
    module.run(&["expire", NAME, OLD[0], OLD[1]]).exits(&[2]).says("chattr -R -i");
    assert_eq!(module.snapshots().len(), 5);
    flag("-i");
    // What is immutable further below keeps it from being removed, not from being retired.
    let below = module.snapshot(OLD[1]).join("sub/old");
    Run::of(tool("chattr").arg("+i").arg(&below)).exits(&[0]);
    let before = fingerprint::of(&module.snapshot(OLD[1]));
    let order = ["expire", NAME, OLD[0], OLD[1], "--now"];
    let run =
        module.run(&order).exits(&[2]).says("2021-01-01T00-00-00Z stays").says("chattr -R -i");
    assert!(!run.stdout().contains("removed"), "{run}");
    assert_eq!(module.snapshots().len(), 5);
    fingerprint::assert_equal(&before, &fingerprint::of(&module.snapshot(OLD[1])), "all of it");
    module.run(&["expire", NAME, OLD[1]]).exits(&[0]);
    module.run(&["expire", NAME, OLD[1], "--now"]).exits(&[2]).says("expired/2021");
    let run = module.run(&["rotate", NAME, "--purge"]).exits(&[4]);
    run.says("cannot be removed and was moved to");
    Run::of(tool("chattr").args(["-R", "-i"]).arg(module.private("unremovable"))).exits(&[0]);
    module.run(&["rotate", NAME, "--purge"]).exits(&[0]);
    module.run(&["check", NAME]).exits(&[0]);
}

#[test]
fn a_mount_in_a_snapshot_keeps_all_of_it() {
    if !support::may_mount() {
        return;
    }
    let (module, _) = history();
    let below = module.snapshot(OLD[1]).join("sub");
    Run::of(tool("mount").args(["-t", "tmpfs", "none"]).arg(&below)).exits(&[0]);
    let run = module.run(&["expire", NAME, OLD[1], "--now"]);
    let names = names_in(&module.snapshot(OLD[1]));
    Run::of(tool("umount").arg(&below)).exits(&[0]);
    run.exits(&[2]).says("nothing was expired").says("umount");
    assert_eq!(names, names_in(&module.snapshot(OLD[2])));
    module.run(&["expire", NAME, OLD[1], "--now"]).exits(&[0]).says("is removed for good");
}

#[test]
fn what_is_being_read_stays_and_its_reader_is_named() {
    let (module, newest) = history();
    module.run(&["expire", NAME, OLD[0]]).exits(&[0]);
    let mut reader = module
        .command(&["hold", NAME, OLD[1], "--", "sleep", "1000"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_until("it holds", || !names_in(&module.private("leases")).is_empty());
    for more in [&[][..], &["--now"], &["--now", "--below-min-keep"]] {
        let arguments = [&["expire", NAME, OLD[3], OLD[1]], more].concat();
        let run = module.run(&arguments).exits(&[2]);
        run.says("2021-01-01T00-00-00Z stays: `hold sleep` (process ")
            .says("has been reading it since");
    }
    module.run(&["release", NAME]).exits(&[0]).says("does not expire as long as it is read");
    module.run(&["expire", NAME, OLD[3]]).exits(&[0]);
    reader.kill().expect("killed");
    reader.wait().expect("gone");
    module.run(&["expire", NAME, OLD[1], "--below-min-keep"]).exits(&[0]);
    assert_consistent(&module, &[OLD[2], &newest], &[OLD[0], OLD[1], OLD[3]]);
}

#[test]
fn a_missing_root_or_one_without_snapshots_is_told() {
    let module = Module::new();
    module.run(&["expire", NAME, OLD[1]]).exits(&[2]).says("has no snapshot");
    module.run(&["expire", OLD[1]]).exits(&[2]).says("no module has a snapshot");
    module.run(&["expire", "nothing", OLD[1]]).exits(&[2]).says("nothing");
    fs::remove_dir_all(&module.root).expect("removed");
    let run = module.run(&["expire", NAME, OLD[1]]);
    assert!(matches!(run.code(), Some(1 | 2)), "{run}");
}

#[test]
fn undelete_says_that_a_visible_snapshot_was_not_deleted() {
    let (module, name) = Module::with_snapshot();
    for words in [&["undelete", "data", &name][..], &["undelete", &name]] {
        let run = module.run(words).exits(&[2]).says("retired snapshot");
        run.says(&format!("{name} is visible and was not deleted"));
    }
}
