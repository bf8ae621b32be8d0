//! How modules and snapshots are named on the command line: every name that a module has, also when
//! it is no longer in `rsyncd.conf` or its directory is lost, and what names of snapshots begin
//! with.

use crate::support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use support::module::Module;
use support::subvolumes::{are_subvolumes, make_module_directory};
use support::tree;

const OLD: [&str; 3] = ["2020-01-01T10-00-00Z", "2020-01-01T12-00-00Z", "2020-02-01T10-00-00Z"];

fn with_history() -> (Module, String) {
    let (module, newest) = Module::with_snapshot();
    module.write_policy("[defaults]\ntime_zone = \"UTC\"\nmin_keep = 1\nmin_age = \"0s\"\n");
    OLD.iter().for_each(|name| module.make_old_snapshot(name));
    (module, newest)
}

fn text(path: &std::path::Path) -> String {
    path.to_str().expect("UTF-8").to_string()
}

#[test]
fn a_module_has_all_its_names_in_every_command() {
    slow!();
    let verified = match are_subvolumes() {
        true => "4 read-only snapshots of btrfs not compared",
        false => "in 4 snapshots looked at",
    };
    let (module, newest) = with_history();
    let section = module.rsyncd_conf_section("data", &module.latest);
    let shows = |path: &str| format!("[snapshots]\npath = {path}\nread only = yes\n");
    let (root, latest) = (text(&module.root), text(&module.latest));
    for (configured, names) in [
        (format!("{section}{}", shows(&root)), &["data", &root, &latest, "snapshots"][..]),
        // It was taken out of rsyncd.conf, and its history was kept.
        (shows(&root), &["data", &root, &latest, "snapshots"]),
        (String::new(), &["data", &root, &latest]),
    ] {
        module.write_rsyncd_conf(&configured);
        for name in names {
            module.run(&["list", name]).exits(&[0]).says("data: 4 snapshots in");
            module.run(&["plan", name]).exits(&[0]).says("data: ");
            module.run(&["verify", name]).exits(&[0]).says(verified);
            module.run(&["release", name, "--vanished"]).exits(&[0]).says("no snapshot has");
            module.run(&["pin", name, OLD[0]]).exits(&[0]).says("is pinned");
            module.run(&["unpin", name, OLD[0]]).exits(&[0]);
            module.run(&["expire", "-n", name, OLD[0]]).exits(&[0]).says("would be retired");
            module.run(&["hold", name, "newest", "--", "echo", "{}"]).exits(&[0]).says(&newest);
            let to = text(&module.directory.join("to"));
            module.run(&["restore", name, OLD[0], "sub", "--to", &to]).exits(&[0]);
            assert!(module.directory.join("to/sub/old").exists(), "{name}");
            fs::remove_dir_all(&to).expect("removed");
        }
        for name in names.iter().filter(|name| **name != "snapshots") {
            module.run(&["rotate", "-n", name]).exits(&[0]).says("data: ");
        }
    }
    assert_eq!(module.snapshots().len(), 4);
}

#[test]
fn a_restore_module_of_two_roots_means_neither() {
    let (module, _) = with_history();
    let second = module.directory.join("second");
    fs::create_dir_all(second.join("latest")).expect("a module");
    tree::set_mode(&second, 0o700);
    let directory = text(&module.directory);
    module.write_rsyncd_conf(&format!(
        "{}{}[all]\npath = {directory}\nread only = yes\n",
        module.rsyncd_conf_section("data", &module.latest),
        module.rsyncd_conf_section("second", &second.join("latest")),
    ));
    module.run(&["snapshot", "second"]).exits(&[0, 4]);
    for name in ["all", &directory] {
        let run = module.run(&["list", name]).exits(&[2]).says("may mean several modules");
        assert!(run.stderr().contains("data") && run.stderr().contains("second"), "{run}");
    }
    module.run(&["list", &text(&module.root.join(OLD[0]))]).exits(&[2]).says("is no module");
    module.run(&["snapshot", &text(&module.root.join(OLD[0]))]).exits(&[2]).says("is no module");
    module.run(&["list", "secnd"]).exits(&[2]).says("did you mean second?");
    module.write_rsyncd_conf("");
    module.run(&["list", "secnd"]).exits(&[2]).says("did you mean second?");
}

#[test]
fn a_lost_directory_hides_no_snapshot() {
    let (module, newest) = with_history();
    let latest = text(&module.latest);
    let was = fs::metadata(&module.latest).expect("the directory");
    fs::rename(&module.latest, module.directory.join("away")).expect("moved");
    for name in ["data", &latest] {
        module.run(&["list", name]).exits(&[0]).says("data: 4 snapshots in");
        module.run(&["verify", name]).exits(&[0]).says("none altered");
        module.run(&["pin", name, "2020-02"]).exits(&[0]).says(OLD[2]);
        module.run(&["unpin", name, "2020-02"]).exits(&[0]);
        module.run(&["hold", name, "newest", "--", "echo", "{}"]).exits(&[0]).says(&newest);
        let to = text(&module.directory.join("to"));
        module.run(&["restore", name, "newest", "--to", &to]).exits(&[0]);
        let install = format!(
            "install -d -o {} -g {} -m {:04o} {latest}",
            was.uid(),
            was.gid(),
            was.mode() & 0o7777
        );
        module.run(&["snapshot", name]).exits(&[1]).says(&install);
        module.run(&["rotate", name]).exits(&[1]).says(&install);
        module.run(&["restore", name, "newest", ".", "--in-place"]).exits(&[1]).says(&install);
    }
    module.run(&["list"]).exits(&[0]).says("data: 4 snapshots in");
    module.run(&["check", "data"]).exits(&[2]).says("CRITICAL");
    module.run_hook().exits(&[1]);
    assert_eq!(module.snapshots().len(), 4);
    // As the message says.
    make_module_directory(&module.latest);
    tree::set_mode(&module.latest, was.mode() & 0o7777);
    module.run(&["restore", "data", "newest", ".", "--in-place"]).exits(&[0, 4]);
    assert!(fs::read_dir(&module.latest).expect("the directory").count() > 0);
}

#[test]
fn a_snapshot_is_named_by_what_only_its_name_begins_with() {
    let (module, newest) = with_history();
    let hold = |name: &str| module.run(&["hold", "data", name, "--", "echo", "{}"]);
    for (name, expected) in [
        ("2020-02", OLD[2]),
        ("2020-01-01T12", OLD[1]),
        // The newest of that day.
        ("2020-01-01", OLD[1]),
        ("newest", &newest),
    ] {
        hold(name).exits(&[0]).says(expected);
    }
    let both = format!("may mean several snapshots: {}, {}", OLD[0], OLD[1]);
    hold("2020-01").exits(&[2]).says(&both);
    hold("2020-02-02").exits(&[2]).says(&format!("(the nearest: {}", OLD[2]));
    hold("yesterday").exits(&[2]).says("has no snapshot yesterday");
    // What changes snapshots takes no day that has several.
    module.run(&["expire", "data", "2020-01-01"]).exits(&[2]).says(&both);
    module.run(&["expire", "data", "newest"]).exits(&[2]).says(&newest);
    let expired = module.run(&["expire", "data", "2020-01-01T10"]).exits(&[0]);
    expired.says(&format!("{} is retired", OLD[0]));
    assert_eq!(module.retired(), OLD[..1]);
    module.run(&["undelete", "2020-01-01T1"]).exits(&[0]).says(OLD[0]);
    module.run(&["unpin", "2020"]).exits(&[0]).says(OLD[0]);
    let path = text(&module.snapshot(OLD[1]));
    module.run(&["pin", &path]).exits(&[0]).says(OLD[1]);
    module.run(&["unpin", "data", &path]).exits(&[0]).says(OLD[1]);
    let to = text(&module.directory.join("to"));
    module.run(&["restore", "2020-02", "sub", "--to", &to]).exits(&[0]).says(OLD[2]);
    module.run(&["restore", "data", "2020-01", "--to", &to]).exits(&[2]).says(&both);
    module.run(&["restore", "data", "--at", "yesterday", "--to", &to]).exits(&[0]).says(OLD[2]);
}

#[test]
fn a_module_in_place_of_a_snapshot_is_told_so() {
    let (module, _) = with_history();
    for name in ["data", &text(&module.latest), &text(&module.root)] {
        let run = module.run(&["expire", name]).exits(&[2]);
        run.says(&format!("{name} is a module: name one of its snapshots"));
    }
    let other = module.directory.join("other");
    fs::create_dir(&other).expect("a directory");
    let run = module.run(&["expire", &text(&other)]).exits(&[2]);
    assert!(!run.stderr().contains("is a module"), "{run}");
    let gone = text(&module.snapshot("2020-01-01T11-00-00Z"));
    let run = module.run(&["expire", &gone]).exits(&[2]);
    assert!(!run.stderr().contains("is a module") && run.stderr().contains(OLD[0]), "{run}");
}

#[test]
fn a_quiet_check_prints_nothing_that_is_well() {
    let (module, _) = with_history();
    module.run(&["check", "data"]).exits(&[0]).says("OK - data");
    assert_eq!(module.run(&["-q", "check", "data"]).exits(&[0]).stdout(), "");
    fs::rename(&module.latest, module.directory.join("away")).expect("moved");
    let run = module.run(&["check", "-q"]).exits(&[2]);
    assert!(run.stdout().lines().all(|line| line.starts_with("CRITICAL")), "{run}");
}

#[test]
fn a_mistyped_module_is_answered_by_the_module_in_every_command() {
    let (module, _) = with_history();
    let to = text(&module.directory.join("to"));
    for (arguments, code) in [
        (&["snapshot", "dat"][..], 2),
        (&["rotate", "dat"], 2),
        (&["plan", "dat"], 2),
        (&["list", "dat"], 2),
        (&["list", "dat", "--expired"], 2),
        (&["pin", "dat", "newest"], 2),
        (&["unpin", "dat", "newest"], 2),
        (&["expire", "dat", "newest"], 2),
        (&["undelete", "dat", "newest"], 2),
        (&["hold", "dat", "newest", "--", "true"], 2),
        (&["diff", "dat", "newest"], 2),
        (&["restore", "dat", "newest", "--to", &to], 2),
        (&["restore", "dat", "--at", "yesterday", "--to", &to], 2),
        (&["versions", "dat", "sub"], 2),
        (&["verify", "dat"], 2),
        (&["release", "dat"], 2),
        (&["status", "dat"], 2),
        (&["check", "dat"], 3),
        (&["complete", "dat"], 2),
    ] {
        module.run(arguments).exits(&[code]).says("did you mean data?");
    }
}

#[test]
fn a_mistyped_word_is_answered_by_the_word_in_every_command() {
    let (module, _) = with_history();
    module.run(&["expire", "data", OLD[0]]).exits(&[0]);
    let to = text(&module.directory.join("to"));
    for words in [&["data", "newst"][..], &["newst"]] {
        for (command, rest) in [
            ("pin", &[][..]),
            ("unpin", &[]),
            ("expire", &[]),
            ("undelete", &[]),
            ("hold", &["--", "true"]),
            ("diff", &[]),
            ("restore", &["--to", &to]),
        ] {
            let run = module.run(&[&[command], words, rest].concat()).exits(&[2]);
            run.says("newst").says("did you mean newest?");
        }
    }
    module.run(&["diff", "data", "newest", "lve"]).exits(&[2]).says("did you mean live?");
    module.run(&["diff", "data", "newest", "newst"]).exits(&[2]).says("did you mean newest?");
    module.run(&["diff", "data", "yesteday"]).exits(&[2]).says("did you mean yesterday?");
}

/// Two modules, so that a name without a module may be that of either.
#[test]
fn what_no_module_has_is_answered_by_the_nearest_of_all() {
    let (module, _) = with_history();
    let second = module.directory.join("second");
    fs::create_dir_all(second.join("latest")).expect("a module");
    tree::set_mode(&second, 0o700);
    module.write_rsyncd_conf(&format!(
        "{}{}",
        module.rsyncd_conf_section("data", &module.latest),
        module.rsyncd_conf_section("second", &second.join("latest")),
    ));
    module.run(&["snapshot", "second"]).exits(&[0, 4]);
    fs::create_dir(second.join("2020-02-01T11-00-00Z")).expect("a snapshot");
    let to = text(&module.directory.join("to"));
    for (command, rest) in [
        ("pin", &[][..]),
        ("expire", &[]),
        ("hold", &["--", "true"]),
        ("diff", &[]),
        ("restore", &["--to", &to]),
    ] {
        let run = module.run(&[&[command, "2020-02-01T10-30"], rest].concat()).exits(&[2]);
        run.says("(the nearest: 2020-02-01T1").says(OLD[2]).says("2020-02-01T11-00-00Z");
    }
    // Of many modules, only the nearest are told.
    let sections: Vec<String> = (0..40)
        .map(|number| format!("[m{number:02}]\npath = {}/{number}\n", module.directory.display()))
        .collect();
    module.write_rsyncd_conf(&sections.concat());
    let run = module.run(&["list", "m3"]).exits(&[2]).says("it has 40, the nearest are 'm3");
    assert_eq!(run.stderr().matches("'m").count(), 4, "{run}");
}
