//! What counts as a change, and that finding out opens no file.

use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use support::module::Module;
use support::run::Run;
use support::{have, tree};

/// A change of a module, by what it is called.
type Change = (&'static str, fn(&Path));

const CHANGES: &[Change] = &[
    ("a new file", |module| tree::write(&module.join("new"), "x")),
    ("a removed file", |module| fs::remove_file(module.join("file")).unwrap()),
    ("a file replaced by one of the same size", |module| tree::write(&module.join("file"), "fine")),
    ("a renamed file", |module| fs::rename(module.join("file"), module.join("elif")).unwrap()),
    ("two files swapped", |module| {
        fs::rename(module.join("file"), module.join("aside")).unwrap();
        fs::rename(module.join("directory/file"), module.join("file")).unwrap();
        fs::rename(module.join("aside"), module.join("directory/file")).unwrap();
    }),
    ("a hard link added", |module| {
        fs::hard_link(module.join("file"), module.join("directory/link")).unwrap()
    }),
    ("a replaced symlink", |module| {
        fs::remove_file(module.join("symlink")).unwrap();
        symlink("elif", module.join("symlink")).unwrap();
    }),
    ("a file turned into a directory", |module| {
        fs::remove_file(module.join("file")).unwrap();
        fs::create_dir(module.join("file")).unwrap();
    }),
    ("a directory turned into a file", |module| {
        fs::remove_dir(module.join("empty")).unwrap();
        tree::write(&module.join("empty"), "x");
    }),
    ("a new empty directory", |module| {
        fs::create_dir(module.join("directory/deeper/new")).unwrap()
    }),
    ("a removed empty directory", |module| fs::remove_dir(module.join("empty")).unwrap()),
    ("the mode of a directory", |module| tree::set_mode(&module.join("directory"), 0o700)),
    ("the time of a directory", |module| {
        tree::set_mtime(
            &module.join("directory/deeper"),
            UNIX_EPOCH + Duration::new(1_000_000_000, 1),
        );
    }),
    ("the mode of the module directory", |module| tree::set_mode(module, 0o700)),
    ("the time of the module directory", |module| tree::set_mtime(module, UNIX_EPOCH)),
];

/// A module with one snapshot, settled long enough for a nanosecond to tell times apart.
fn module() -> Module {
    let module = Module::new();
    fs::create_dir_all(module.latest.join("directory/deeper")).expect("directories");
    fs::create_dir(module.latest.join("empty")).expect("a directory");
    tree::write(&module.latest.join("file"), "file");
    tree::write(&module.latest.join("directory/file"), "FILE");
    symlink("file", module.latest.join("symlink")).expect("a symlink");
    module.expect_snapshot();
    module
}

/// Makes the change without letting the times of the directories around it tell: rsync sets
/// those to what the client has, so they may well be what they were.
fn apply_in_secret(change: fn(&Path), module: &Path) {
    let directories = ["", "directory", "directory/deeper"].map(|path| module.join(path));
    let times: Vec<_> =
        directories.iter().map(|path| fs::metadata(path).unwrap().modified().unwrap()).collect();
    change(module);
    for (path, time) in directories.iter().zip(times) {
        tree::set_mtime(path, time);
    }
}

#[test]
fn every_change_makes_a_snapshot_and_no_change_makes_none() {
    std::thread::scope(|scope| {
        for (what, change) in CHANGES {
            scope.spawn(move || {
                let module = module();
                module.expect_no_snapshot();
                change(&module.latest);
                let run = module.run_hook().exits(&[0]);
                assert_eq!(module.snapshots().len(), 2, "{what}: {run}");
                module.assert_equals_module(&module.snapshots()[1]);
                module.expect_no_snapshot();
            });
        }
    });
}

#[test]
fn changes_are_found_even_where_the_times_of_directories_do_not_tell() {
    std::thread::scope(|scope| {
        for (what, change) in CHANGES.iter().filter(|(what, _)| !what.starts_with("the time")) {
            scope.spawn(move || {
                let module = module();
                apply_in_secret(*change, &module.latest);
                let run = module.run_hook().exits(&[0]);
                assert_eq!(module.snapshots().len(), 2, "{what}: {run}");
                module.assert_equals_module(&module.snapshots()[1]);
            });
        }
    });
}

#[test]
fn an_attribute_of_a_directory_set_changed_or_removed_is_a_change() {
    slow!();
    let module = module();
    let directory = module.latest.join("directory");
    if !tree::set_attribute(&directory, "user.comment", b"one") {
        return;
    }
    module.expect_snapshot();
    module.expect_no_snapshot();
    tree::set_attribute(&directory, "user.comment", b"two");
    module.expect_snapshot();
    tree::set_attribute(&directory, "system.posix_acl_default", &tree::acl(0o7, 0o5, 1000));
    module.expect_snapshot();
    rustix::fs::removexattr(&directory, "user.comment").expect("removed");
    let name = module.expect_snapshot();
    module.assert_equals_module(&name);
    module.expect_no_snapshot();
}

#[test]
fn an_unchanged_run_moves_verified_until() {
    let (module, name) = Module::with_snapshot();
    let verified_until = |module: &Module| {
        let listed = module.list();
        assert_eq!(listed.len(), 1, "{listed:?}");
        listed[0]["verified_until"].as_str().expect("a time").to_string()
    };
    let first = verified_until(&module);
    support::time::next_second();

    module.expect_no_snapshot();

    let second = verified_until(&module);
    assert!(second > first, "{second} is not after {first}");
    assert_eq!(module.list()[0]["name"], name.as_str());
    let outcome = module.json(&["snapshot", "--json", "data"]);
    assert_eq!(outcome["outcome"], "unchanged", "{outcome}");
}

#[test]
fn the_newest_complete_snapshot_is_what_counts_not_an_older_state() {
    let (module, _) = Module::with_snapshot();
    let file = module.latest.join("read me");
    fs::rename(&file, module.latest.join("aside")).expect("renamed");
    module.expect_snapshot();
    // As it was at first: that is a change against the second snapshot.
    fs::rename(module.latest.join("aside"), &file).expect("renamed back");
    module.expect_snapshot();
    assert_eq!(module.snapshots().len(), 3);
}

#[test]
fn neither_snapshot_nor_comparison_opens_a_file() {
    if !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    for number in 0..300 {
        let directory = module.latest.join(format!("directory-{}", number % 7));
        fs::create_dir_all(&directory).expect("a directory");
        tree::write(&directory.join(format!("regular-{number}")), "x");
    }
    let trace = module.directory.join("trace");
    let wrapper = [
        "strace",
        "-f",
        "-qq",
        "-s",
        "4096",
        "-e",
        "trace=open,openat,openat2",
        "-o",
        trace.to_str().expect("UTF-8"),
    ];
    // Where nothing has changed no directory need be opened but the module's own.
    for expected in ["\"directory-0\"", "/latest\""] {
        Run::of(&mut module.hook_through(&wrapper)).exits(&[0]);
        assert_eq!(module.snapshots().len(), 1);
        let trace = fs::read_to_string(&trace).expect("a trace");
        assert!(trace.contains(expected), "nothing was traced: {trace}");
        let opened: Vec<_> = trace.lines().filter(|line| line.contains("regular-")).collect();
        assert!(opened.is_empty(), "{opened:?}");
    }
}

#[test]
fn thousands_of_files_in_one_directory_are_compared_and_linked() {
    slow!();
    let module = Module::new();
    tree::numbered(&module.latest, 1, 5000);
    let name = module.expect_snapshot();
    module.assert_equals_module(&name);
    module.expect_no_snapshot();
    tree::write(&module.latest.join("d0000/f4321"), "4321 0");
    module.expect_snapshot();
}
