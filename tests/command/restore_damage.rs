//! Snapshots that were altered or mutilated: `verify` says which one is damaged and of the others
//! nothing, and a restore out of it ends with an error.

use crate::support;

use std::fs::{self, FileTimes};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::module::{Module, NAME};
use support::run::{Run, tool};
use support::{may_recycle, tree};

/// Long enough for the kernel's clock to move on.
const TICK: Duration = Duration::from_millis(50);

/// A module with three snapshots of the same five files and two directories; `n` differs in each.
fn history() -> (Module, Vec<String>) {
    let module = Module::new();
    fs::create_dir(module.latest.join("sub")).expect("a directory");
    for file in ["a", "b", "sub/c", "sub/d"] {
        tree::write(&module.latest.join(file), file);
    }
    let mut names = Vec::new();
    for number in 0..3 {
        tree::write(&module.latest.join("n"), &number.to_string());
        names.push(module.expect_snapshot());
        sleep(TICK);
    }
    module.run(&["verify", NAME]).exits(&[0]);
    sleep(TICK);
    (module, names)
}

fn verify(module: &Module) -> (i32, Value) {
    let run = module.run(&["verify", "--json", NAME]);
    (run.code().expect("a status"), run.json())
}

fn restore(module: &Module, snapshot: &str, paths: &[&str]) -> Run {
    let to: PathBuf = module.directory.join("restored");
    let _ = fs::remove_dir_all(&to);
    let mut command = module.command(&["restore", NAME, snapshot, "--to"]);
    Run::of(command.arg(to).args(paths))
}

#[test]
fn what_a_snapshot_lacks_damages_that_snapshot_only() {
    slow!();
    only_hard_links!("changes of snapshots, which are read-only");
    for (number, lacking) in [(0, "oldest"), (1, "middle"), (2, "newest")] {
        let (module, names) = history();
        let name = &names[number];
        fs::remove_file(module.snapshot(name).join("a")).expect("removed");
        fs::remove_dir_all(module.snapshot(name).join("sub")).expect("removed");
        sleep(TICK);
        let (status, json) = verify(&module);
        assert_eq!((status, &json["altered_files"]), (1, &0.into()), "{lacking}: {json:#}");
        // The old files `n` were removed from the module.
        assert_eq!((&json["damaged_snapshots"], &json["unprovable"]), (&1.into(), &2.into()));
        let all = json["lacking"].as_array().expect("a list");
        assert_eq!(all.len(), 1, "{json:#}");
        assert_eq!(
            (&all[0]["snapshot"], &all[0]["lacks"], &all[0]["entries"]),
            (&name.as_str().into(), &4.into(), &6.into())
        );
        assert_eq!(all[0]["first"], serde_json::json!(["a", "sub/c", "sub/d"]), "{lacking}");
        let words = format!("{name} lacks 4 of 6 entries");
        module.run(&["verify", NAME]).exits(&[1]).says(&words).says("a, sub/c, sub/d ...");
        module.run(&["check", NAME]).exits(&[2]).says(&words).says("--damage");

        // A restore of it is not what was backed up; of the others, and of what is left, it is.
        restore(&module, name, &[]).exits(&[1]).says(&words).says("not everything");
        let run = restore(&module, name, &["--json"]).exits(&[1]).json();
        assert_eq!(run["damage_count"], 1, "{run:#}");
        restore(&module, name, &["-n"]).exits(&[1]).says(&words);
        restore(&module, name, &["b"]).exits(&[0]);
        let other = &names[(number + 1) % 3];
        restore(&module, other, &[]).exits(&[0]);

        // A file that was written to since is told beside it.
        fs::write(module.snapshot(other).join("b"), "other content").expect("written");
        sleep(TICK);
        let (_, json) = verify(&module);
        assert_eq!(json["altered"][0]["path"], "b", "{json:#}");

        let run = module.run(&["release", "--damage", NAME]).exits(&[0]);
        run.says(&format!("accepted that {words}"));
        let (status, json) = verify(&module);
        assert_eq!((status, &json["altered_files"]), (0, &0.into()), "{lacking}: {json:#}");
        module.run(&["check", NAME]).exits(&[0]);
        restore(&module, name, &[]).exits(&[0]);
        // The next snapshot is whole.
        tree::write(&module.latest.join("n"), "more");
        let next = module.expect_snapshot();
        module.assert_equals_module(&next);
        assert_eq!(verify(&module).0, 0, "{lacking}");
    }
}

#[test]
fn a_write_in_place_is_told_where_a_snapshot_lacks_other_files() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, names) = history();
    fs::remove_file(module.snapshot(&names[1]).join("a")).expect("removed");
    sleep(TICK);
    // Size and modification time stay: only the change time shows the write.
    let path = module.latest.join("b");
    let before = fs::metadata(&path).expect("the file").modified().expect("a time");
    let mut file = fs::OpenOptions::new().write(true).open(&path).expect("open");
    file.write_all(b"B").expect("written");
    file.set_modified(before).expect("the time");
    drop(file);
    sleep(TICK);
    let (_, json) = verify(&module);
    assert_eq!(json["altered_files"], 1, "{json:#}");
    assert_eq!(json["altered"][0]["path"], "b", "{json:#}");
    assert_eq!(json["lacking"][0]["lacks"], 1, "{json:#}");
    // A restore names the file, also with its own time and size.
    restore(&module, &names[0], &["b"]).exits(&[1]).says("b was altered in");
    restore(&module, &names[0], &["a"]).exits(&[0]);
}

#[test]
fn a_restore_of_an_altered_file_names_it_and_fails() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, names) = history();
    let append = |path: &str| {
        let path = module.latest.join(path);
        let mut file = fs::OpenOptions::new().append(true).open(path).expect("open");
        file.write_all(b"evil").expect("written");
    };
    append("a");
    append("sub/c");
    sleep(TICK);
    module.run(&["verify", NAME]).exits(&[1]);
    let run = restore(&module, &names[0], &["a", "b"]).exits(&[1]);
    let run = run.says("a was altered in").says("size 1 -> 5");
    assert!(!run.stderr().contains("sub/c"), "{run}");
    let json = restore(&module, &names[0], &["--json"]).exits(&[1]).json();
    assert_eq!((&json["damage_count"], &json["error_count"]), (&2.into(), &2.into()), "{json:#}");
    restore(&module, &names[0], &["sub/."]).exits(&[1]).says("sub/c was altered");
    restore(&module, &names[0], &["sub/d"]).exits(&[0]);
    // In place it brings back what the snapshot has, ends with the error, and tears nothing.
    let mut command = module.command(&["restore", NAME, &names[0], "--in-place", "a"]);
    Run::of(&mut command).exits(&[1]).says("a was altered in");
    assert!(!module.is_marked("torn"), "{:?}", module.state());
    // Of damage that an earlier version found, the files are not known.
    fs::remove_file(module.private("damage.toml")).expect("removed");
    restore(&module, &names[0], &["b"]).exits(&[1]).says("run `verify`");
    module.run(&["release", "--damage", NAME]).exits(&[0]);
    restore(&module, &names[0], &[]).exits(&[0]);
}

#[test]
fn a_link_that_a_reader_adds_is_no_alarm() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, names) = history();
    let outside = module.directory.join("linked");
    fs::create_dir(&outside).expect("a directory");
    for file in ["a", "sub/c"] {
        let from = module.snapshot(&names[0]).join(file);
        fs::hard_link(from, outside.join(file.replace('/', " "))).expect("a link");
    }
    sleep(TICK);
    let (status, json) = verify(&module);
    assert_eq!((status, &json["altered_files"]), (0, &0.into()), "{json:#}");
    assert_eq!(json["unprovable"], 2 + 2, "{json:#}");
    // What is written through such a link is told by its size or time.
    fs::write(outside.join("a"), "other content").expect("written");
    assert_eq!(verify(&module).1["altered"][0]["path"], "a");
}

/// Writes to a file at equal size, modification time and access time, as a program does that hides
/// it.
fn rewrite_unseen(path: &std::path::Path, accessed: SystemTime) {
    let before = fs::metadata(path).expect("the file").modified().expect("a time");
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("open");
    file.write_all(b"X").expect("written");
    file.set_times(FileTimes::new().set_accessed(accessed).set_modified(before)).expect("times");
    drop(file);
    sleep(TICK);
}

#[test]
fn a_write_to_a_file_that_was_read_since_it_was_linked_is_seen() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, names) = history();
    let hour_ago = SystemTime::now() - Duration::from_secs(3_600);
    let seconds = hour_ago.duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs();
    let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    // The kernel's time of a reading has nanoseconds; rsync sets one in whole seconds.
    rewrite_unseen(&module.latest.join("b"), whole + Duration::from_nanos(123_456_789));
    rewrite_unseen(&module.latest.join("sub/d"), whole);
    let (status, json) = verify(&module);
    assert_eq!((status, &json["altered_files"]), (1, &1.into()), "{json:#}");
    assert_eq!(json["altered"][0]["path"], "b", "{json:#}");
    assert_eq!(json["altered"][0]["snapshots"], serde_json::json!(names));
    // The next snapshot links the file again, and its records keep the evidence.
    tree::write(&module.latest.join("n"), "more");
    module.run_hook().exits(&[0, 4]);
    assert_eq!(verify(&module).1["altered"][0]["path"], "b", "{json:#}");
}

#[test]
fn a_write_to_what_only_older_snapshots_have_is_seen() {
    slow!();
    only_hard_links!("changes of snapshots, which are read-only");
    for number in [0, 1] {
        let (module, names) = history();
        let path = module.snapshot(&names[number]).join("n");
        let accessed = fs::metadata(&path).expect("the file").accessed().expect("a time");
        rewrite_unseen(&path, accessed);
        let (status, json) = verify(&module);
        assert_eq!((status, &json["altered_files"]), (1, &1.into()), "{json:#}");
        assert_eq!(json["altered"][0]["path"], "n", "{json:#}");
        assert_eq!(json["altered"][0]["snapshots"], serde_json::json!([names[number]]));
        restore(&module, &names[number], &["n"]).exits(&[1]).says("n was altered in");
        restore(&module, &names[number], &["a"]).exits(&[0]);
    }
}

#[test]
fn a_damaged_snapshot_that_is_removed_accuses_no_other() {
    slow!();
    only_hard_links!("changes of snapshots, which are read-only");
    let ways = ["--now", "retired", "purged", "never verified", "recycled"];
    for (number, how) in [(0, ways[0])].into_iter().chain(ways.map(|how| (1, how))) {
        if how == "recycled" && !may_recycle() {
            continue;
        }
        let (module, names) = history();
        module.write_policy("[defaults]\ngrace = \"0s\"\n");
        let name = &names[number];
        fs::remove_dir_all(module.snapshot(name).join("sub")).expect("removed");
        fs::remove_file(module.snapshot(name).join("a")).expect("removed");
        sleep(TICK);
        // What the module no longer has is linked by no later run.
        fs::remove_file(module.latest.join("sub/c")).expect("removed");
        sleep(TICK);
        let expire = ["expire", "--below-min-keep", NAME, name];
        match how {
            "--now" => {
                module.run(&["verify", NAME]).exits(&[1]).says("lacks 4 of 6 entries");
                module.run(&[&expire[..], &["--now"]].concat()).exits(&[0, 4]);
            }
            "retired" => {
                module.run(&expire).exits(&[0, 4]);
                assert_eq!(verify(&module).1["altered_files"], 0);
                module.run(&["expire", "--now", NAME, name]).exits(&[0, 4]);
            }
            "never verified" => {
                module.run(&[&expire[..], &["--now"]].concat()).exits(&[0, 4]);
            }
            "recycled" => {
                module.run(&expire).exits(&[0, 4]);
                let next = module.expect_snapshot();
                assert_eq!(module.record(&next)["work"]["recycled"].as_str(), Some(name.as_str()));
            }
            _ => {
                module.run(&["verify", NAME]).exits(&[1]);
                module.run(&expire).exits(&[0, 4]);
                module.run(&["rotate", "--purge", NAME]).exits(&[0, 4]);
            }
        }
        for _ in 0..2 {
            let (status, json) = verify(&module);
            assert_eq!((status, &json["altered_files"]), (0, &0.into()), "{how}: {json:#}");
        }
        module.run(&["check", NAME]).exits(&[0]);
        let run = module.run(&["release", "--damage", NAME]).exits(&[0]);
        assert!(!run.stdout().contains("accepted as found"), "{run}");
        assert_eq!(verify(&module).0, 0, "{how}");
        // What is written since is told all the same.
        let left = &names[(number + 1) % 3];
        sleep(TICK);
        fs::write(module.snapshot(left).join("b"), "other content").expect("written");
        sleep(TICK);
        assert_eq!(verify(&module).1["altered"][0]["path"], "b", "{how}");
    }
}

#[test]
fn as_many_added_as_removed_entries_are_told() {
    slow!();
    only_hard_links!("changes of snapshots, which are read-only");
    type Change = fn(&Path);
    let changes: [(&str, Change, &str); 5] = [
        (
            "exchanged",
            |sub| {
                fs::remove_file(sub.join("c")).expect("removed");
                tree::write(&sub.join("e"), "new");
            },
            "sub",
        ),
        ("renamed", |sub| fs::rename(sub.join("c"), sub.join("e")).expect("renamed"), "sub"),
        (
            "replaced",
            |sub| {
                tree::write(&sub.join("new"), "new");
                fs::rename(sub.join("new"), sub.join("c")).expect("renamed");
            },
            "sub",
        ),
        (
            "moved away and made again",
            |sub| {
                fs::rename(sub, sub.with_extension("old")).expect("renamed");
                fs::create_dir(sub).expect("made");
                fs::remove_dir_all(sub.with_extension("old")).expect("removed");
                fs::create_dir(sub.join("c")).expect("made");
                fs::create_dir(sub.join("d")).expect("made");
            },
            "its own directory, sub",
        ),
        (
            "moved with its time set back",
            |sub| {
                let time = fs::metadata(sub).expect("it").modified().expect("a time");
                fs::rename(sub.join("c"), sub.with_file_name("c")).expect("renamed");
                let directory = fs::File::open(sub).expect("it");
                directory.set_modified(time).expect("a time");
            },
            "its own directory, sub",
        ),
    ];
    for (what, change, told) in changes {
        // Of which snapshot it is, does not matter to the other ways.
        let numbers = if what == "exchanged" { 0..3 } else { 1..2 };
        for number in numbers {
            let (module, names) = history();
            let name = &names[number];
            change(&module.snapshot(name).join("sub"));
            sleep(TICK);
            let words = format!("{name} has other entries than when it was taken, in {told}");
            // A restore tells it before any verification.
            restore(&module, name, &[]).exits(&[1]).says(&words);
            restore(&module, name, &["-n"]).exits(&[1]).says(&words);
            let of_sub = format!("{name} has other entries than when it was taken, in sub: ");
            restore(&module, name, &["sub"]).exits(&[1]).says(&of_sub);
            restore(&module, name, &["b"]).exits(&[0]);
            let other = &names[(number + 1) % 3];
            restore(&module, other, &[]).exits(&[0]);

            let (status, json) = verify(&module);
            assert_eq!((status, &json["altered_files"]), (1, &0.into()), "{what}: {json:#}");
            assert_eq!(json["lacking"][0]["snapshot"], **name, "{what}: {json:#}");
            assert_eq!(json["lacking"].as_array().expect("a list").len(), 1, "{what}: {json:#}");
            let run = module.run(&["verify", NAME]).exits(&[1]).says(&words);
            run.says("none altered, but entries were exchanged in 1 snapshot");
            module.run(&["check", NAME]).exits(&[2]).says(&words).says("--damage");
            let run = module.run(&["release", "--damage", NAME]).exits(&[0]);
            run.says(&format!("accepted that {words}"));
            assert_eq!(verify(&module).0, 0, "{what}");
            module.run(&["check", NAME]).exits(&[0]);
            restore(&module, name, &[]).exits(&[0]);
            tree::write(&module.latest.join("n"), "more");
            let next = module.expect_snapshot();
            module.assert_equals_module(&next);
            assert_eq!(verify(&module).0, 0, "{what}");
        }
    }
}

#[test]
fn other_attributes_of_a_directory_are_no_other_entries() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, names) = history();
    for name in &names {
        let sub = module.snapshot(name).join("sub");
        fs::set_permissions(&sub, fs::Permissions::from_mode(0o700)).expect("a mode");
        fs::set_permissions(module.snapshot(name), fs::Permissions::from_mode(0o711)).expect("it");
    }
    // Retired and brought back.
    module.run(&["expire", "--below-min-keep", NAME, &names[0]]).exits(&[0]);
    module.run(&["undelete", NAME, &names[0]]).exits(&[0]);
    assert_eq!(verify(&module).0, 0);
    restore(&module, &names[1], &[]).exits(&[0]);
    // A copy on another disk has other directories than the index tells of.
    let copy = module.directory.join("copy");
    Run::of(tool("cp").arg("-a").arg(module.snapshot(&names[2])).arg(&copy)).exits(&[0]);
    fs::remove_dir_all(module.snapshot(&names[2])).expect("removed");
    fs::rename(&copy, module.snapshot(&names[2])).expect("renamed");
    let json = verify(&module).1;
    assert_eq!(json["lacking"].as_array().expect("a list").len(), 0, "{json:#}");
}

#[test]
fn a_directory_is_compared_with_what_was_recorded_before_any_verification() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, names) = history();
    fs::remove_file(module.snapshot(&names[1]).join("sub/c")).expect("removed");
    let words = format!("{} has other entries than when it was taken, in sub", names[1]);
    restore(&module, &names[1], &["sub"]).exits(&[1]).says(&words).says("compare it with another");
    restore(&module, &names[1], &["sub", "-n"]).exits(&[1]).says(&words);
    restore(&module, &names[1], &["a", "sub/d"]).exits(&[0]);
    restore(&module, &names[0], &["sub"]).exits(&[0]);
}

#[test]
fn what_was_added_to_a_snapshot_is_told() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, names) = history();
    tree::write(&module.snapshot(&names[1]).join("sub/added"), "evil");
    sleep(TICK);
    let words = format!("{} has 1 more than its 6 entries", names[1]);
    restore(&module, &names[1], &[]).exits(&[1]).says("1 more than the 6 entries");
    let run = module.run(&["verify", NAME]).exits(&[1]).says(&format!("{words}: sub/added"));
    run.says("none altered, but entries were added to 1 snapshot");
    let json = verify(&module).1;
    assert_eq!(
        (&json["lacking"][0]["added"], &json["lacking"][0]["lacks"]),
        (&1.into(), &0.into())
    );
    module.run(&["check", NAME]).exits(&[2]).says(&words).says("--damage");
    restore(&module, &names[1], &["sub"]).exits(&[1]).says(&words);
    restore(&module, &names[1], &["b"]).exits(&[0]);
    restore(&module, &names[0], &[]).exits(&[0]);
    module.run(&["release", "--damage", NAME]).exits(&[0]).says(&format!("accepted that {words}"));
    assert_eq!(verify(&module).0, 0);
    restore(&module, &names[1], &[]).exits(&[0]);
}

#[test]
fn a_restore_compares_with_what_was_recorded_before_any_verification() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, names) = history();
    let append = |path: PathBuf| {
        let mut file = fs::OpenOptions::new().append(true).open(path).expect("open");
        file.write_all(b"evil").expect("written");
    };
    append(module.snapshot(&names[1]).join("sub/c"));
    for paths in [&["sub"][..], &["sub/c"], &[]] {
        let run = restore(&module, &names[1], paths).exits(&[1]);
        run.says("sub/c was altered in").says("size 5 -> 9");
    }
    restore(&module, &names[1], &["a", "sub/d"]).exits(&[0]);
    // What `verify` has found, too, is told once.
    module.run(&["verify", NAME]).exits(&[1]);
    let json = restore(&module, &names[1], &["sub", "--json"]).exits(&[1]).json();
    assert_eq!(json["damage_count"], 1, "{json:#}");
}

#[test]
fn a_directory_of_a_snapshot_that_lacks_entries_is_not_surely_whole() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, names) = history();
    fs::remove_file(module.snapshot(&names[1]).join("sub/c")).expect("removed");
    sleep(TICK);
    module.run(&["verify", NAME]).exits(&[1]);
    let words = format!("{} lacks 1 of 6 entries", names[1]);
    restore(&module, &names[1], &["sub"]).exits(&[1]).says(&words).says("compare it with another");
    restore(&module, &names[1], &["a", "sub/d"]).exits(&[0]);
    restore(&module, &names[0], &["sub"]).exits(&[0]);
}

#[test]
fn a_damaged_snapshot_may_expire_before_its_damage_is_accepted() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, names) = history();
    fs::remove_dir_all(module.snapshot(&names[0]).join("sub")).expect("removed");
    fs::remove_file(module.snapshot(&names[0]).join("a")).expect("removed");
    sleep(TICK);
    module.run(&["verify", NAME]).exits(&[1]);
    module.run(&["expire", "--below-min-keep", NAME, &names[0]]).exits(&[0, 4]);
    let (status, json) = verify(&module);
    assert_eq!((status, &json["altered_files"]), (0, &0.into()), "{json:#}");
    let run = module.run(&["release", "--damage", NAME]).exits(&[0]);
    assert!(!run.stdout().contains("accepted as found"), "{run}");
    module.run(&["rotate", "--purge", NAME]).exits(&[0, 4]);
    let (status, json) = verify(&module);
    assert_eq!((status, &json["altered_files"]), (0, &0.into()), "{json:#}");
}

/// What restore and verify say cannot be compared: the first reason of each, and both statuses.
fn not_compared(
    module: &Module,
    snapshot: &str,
    paths: &[&str],
) -> (Option<i32>, i32, Value, Value) {
    let arguments: Vec<&str> = paths.iter().copied().chain(["--json"]).collect();
    let run = restore(module, snapshot, &arguments);
    let (restored, (status, verified)) = (run.json()["not_compared"].clone(), verify(module));
    (run.code(), status, restored, verified["not_compared"].clone())
}

#[test]
fn a_restore_and_verify_say_that_an_index_cannot_be_read() {
    slow!();
    only_hard_links!("the index of directories");
    type Spoil = fn(&Path);
    let spoil: [(Spoil, &str); 4] = [
        (|path| fs::remove_file(path).expect("removed"), "its directory index is missing"),
        (|path| fs::write(path, "").expect("emptied"), "its directory index cannot be read"),
        (|path| fs::write(path, "x".repeat(500)).expect("written"), "cannot be read"),
        (
            |path| {
                let bytes = fs::read(path).expect("an index");
                fs::write(path, &bytes[..bytes.len() / 2]).expect("cut off");
            },
            "its directory index cannot be read",
        ),
    ];
    for (spoil, words) in spoil {
        let (module, names) = history();
        assert_eq!(
            not_compared(&module, &names[1], &[]),
            (Some(0), 0, Value::Array(vec![]), Value::Array(vec![]))
        );
        spoil(&module.private(&format!("index/{}", names[1])));
        let (restored, verified, of_restore, of_verify) = not_compared(&module, &names[1], &[]);
        assert_eq!((restored, verified), (Some(4), 4), "{of_restore} {of_verify}");
        for gaps in [&of_restore, &of_verify] {
            assert_eq!(gaps.as_array().map(Vec::len), Some(1), "{gaps}");
            assert_eq!(gaps[0]["lost"], true, "{gaps}");
            let why = gaps[0]["why"].as_str().expect("a reason");
            assert!(why.contains(words) && why.contains("renamed files"), "{why}");
        }
        assert_eq!(of_verify[0]["snapshots"][0], names[1], "{of_verify}");
        restore(&module, &names[1], &[]).exits(&[4]).says(words);
        // A file alone is not compared with the index, and other snapshots have theirs.
        restore(&module, &names[1], &["sub/c"]).exits(&[0]);
        restore(&module, &names[0], &[]).exits(&[0]);
        module.run(&["verify", NAME]).exits(&[4]).says(words).says("release data --damage");
        module.run(&["release", "--damage", NAME]).exits(&[0]);
        let (restored, verified, of_restore, of_verify) = not_compared(&module, &names[1], &[]);
        assert_eq!((restored, verified), (Some(0), 0), "{of_restore} {of_verify}");
        assert_eq!(of_restore[0]["lost"], false, "{of_restore}");
        restore(&module, &names[1], &[]).exits(&[0]).says("it has no directory index");
    }
}

#[test]
fn a_restore_and_verify_say_that_a_record_cannot_be_read() {
    only_hard_links!("the log of inodes");
    let (module, names) = history();
    let record = module.private(&format!("records/{}.toml", names[1]));
    let text = fs::read_to_string(&record).expect("a record");
    fs::write(&record, text.replace("format = 1", "format = 9")).expect("written");
    let (restored, verified, of_restore, of_verify) = not_compared(&module, &names[1], &[]);
    assert_eq!((restored, verified), (Some(4), 4), "{of_restore} {of_verify}");
    restore(&module, &names[1], &[]).exits(&[4]).says("its record cannot be read");
    fs::remove_file(&record).expect("removed");
    let run = restore(&module, &names[1], &[]).exits(&[4]);
    run.says("its record is missing, so its entries are not counted");
}

#[test]
fn a_restore_and_verify_say_that_the_inode_log_is_missing_or_damaged() {
    only_hard_links!("the log of inodes");
    let (module, names) = history();
    let log = module.private("inodes/catalogue");
    let bytes = fs::read(&log).expect("the inode log");
    let mut damaged = bytes.clone();
    damaged[40] ^= 1;
    for (content, words) in
        [(None, "the inode log is missing"), (Some(damaged), "bytes of the inode log are damaged")]
    {
        match content {
            None => fs::remove_file(&log).expect("removed"),
            Some(bytes) => fs::write(&log, bytes).expect("written"),
        }
        restore(&module, &names[1], &["a"]).exits(&[4]).says(words);
        module.run(&["verify", NAME]).exits(&[4]).says(words);
        // That has recorded the files anew.
        module.run(&["verify", NAME]).exits(&[0]);
        restore(&module, &names[1], &[]).exits(&[0]);
        fs::write(&log, &bytes).expect("written");
    }
}

#[test]
fn a_restore_says_that_what_verify_found_cannot_be_read() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, names) = history();
    fs::remove_file(module.snapshot(&names[1]).join("sub/c")).expect("removed");
    sleep(TICK);
    module.run(&["verify", NAME]).exits(&[1]);
    fs::write(module.private("damage.toml"), "format = 9\n").expect("written");
    restore(&module, &names[0], &["a"])
        .exits(&[4])
        .says("what `verify` found in it cannot be read");
}

#[test]
fn nothing_is_lost_of_a_snapshot_of_another_program() {
    only_hard_links!("the log of inodes");
    let (module, _) = history();
    let name = "2019-08-02T12-00-00Z";
    module.make_old_snapshot(name);
    module.run(&["verify", NAME]).exits(&[0]).says("another program made it or moved it back");
    for _ in 0..2 {
        let (restored, verified, of_restore, of_verify) = not_compared(&module, name, &[]);
        assert_eq!((restored, verified), (Some(0), 0), "{of_restore} {of_verify}");
        for gaps in [of_restore, of_verify] {
            assert_eq!(gaps.as_array().map(Vec::len), Some(1), "{gaps}");
            assert_eq!(gaps[0]["lost"], false, "{gaps}");
        }
    }
    restore(&module, name, &[]).exits(&[0]).says("another program made it or moved it back");
}

#[test]
fn a_copied_root_is_told_and_can_be_accepted() {
    only_hard_links!("a root that was copied by cp");
    let (module, names) = history();
    let moved = module.directory.join("moved");
    Run::of(tool("cp").arg("-a").arg(&module.root).arg(&moved)).exits(&[0]);
    fs::rename(&module.root, module.directory.join("old")).expect("moved away");
    fs::rename(&moved, &module.root).expect("in its place");
    let words = "it is a copy: its directories are others than those of its index";
    restore(&module, &names[1], &[]).exits(&[4]).says(words);
    let run = restore(&module, &names[1], &["a"]).exits(&[4]);
    run.says("1 file is not in the inode log, as in a copy of a snapshot root");
    let (status, json) = verify(&module);
    assert_eq!((status, &json["damaged_snapshots"]), (4, &0.into()), "{json:#}");
    assert_eq!(json["not_compared"][0]["snapshots"].as_array().map(Vec::len), Some(3), "{json:#}");
    module.run(&["check", NAME]).exits(&[0]);
    module.run(&["verify", NAME]).exits(&[4]).says(words).says("release data --damage");
    module.run(&["release", "--damage", NAME]).exits(&[0]).says("accepted that snapshots cannot");
    assert_eq!(verify(&module).0, 0);
    restore(&module, &names[1], &[]).exits(&[0]);
    tree::write(&module.latest.join("n"), "more");
    let next = module.expect_snapshot();
    module.assert_equals_module(&next);
    assert_eq!(verify(&module).0, 0);
    restore(&module, &next, &[]).exits(&[0]);
    module.run(&["check", NAME]).exits(&[0]);
}

#[test]
fn known_damage_stays_until_it_is_released_or_the_snapshot_is_gone() {
    slow!();
    only_hard_links!("changes of snapshots, which are read-only");
    for is_released in [true, false] {
        let (module, names) = history();
        let sub = module.snapshot(&names[1]).join("sub");
        let time = fs::metadata(&sub).expect("it").modified().expect("a time");
        fs::rename(sub.join("c"), sub.join("cc")).expect("renamed");
        sleep(TICK);
        let told = format!("{} has other entries than when it was taken, in sub", names[1]);
        module.run(&["verify", NAME]).exits(&[1]).says(&told);
        // That hides it.
        fs::rename(sub.join("cc"), sub.join("c")).expect("renamed back");
        fs::File::open(&sub).expect("it").set_modified(time).expect("a time");
        for _ in 0..2 {
            module.run(&["verify", NAME]).exits(&[1]).says(&told);
            module.run(&["check", NAME]).exits(&[2]);
        }
        match is_released {
            true => module.run(&["release", "--damage", NAME]).exits(&[0]).says(&told),
            false => module.run(&["expire", "--below-min-keep", NAME, &names[1]]).exits(&[0, 4]),
        };
        let json = verify(&module).1;
        assert_eq!(json["lacking"].as_array().map(Vec::len), Some(0), "{json:#}");
    }
}

#[test]
fn verify_warns_until_change_times_count_again() {
    slow!();
    only_hard_links!("the log of inodes");
    for content in [None, Some("damaged")] {
        let (module, _) = history();
        let windows = module.private("inodes/windows");
        match content {
            None => fs::remove_file(&windows).expect("removed"),
            Some(text) => fs::write(&windows, text).expect("written"),
        }
        let words = "change times count only from the next snapshot on";
        module.run(&["verify", NAME]).exits(&[4]).says(words);
        tree::write(&module.latest.join("n"), "more");
        module.expect_snapshot();
        module.run(&["verify", NAME]).exits(&[0]);
    }
}
