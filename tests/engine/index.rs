//! The directory index saves work and is never believed where it might be wrong: whatever happens
//! to the live tree, to a snapshot or to the index itself, the next snapshot is the module as it
//! is.
//!
//! Nearly every change here is made in secret: the modification times of directories are as before.

#![allow(clippy::type_complexity)]

use crate::support;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};
use support::file_system::{FileSystem, Mount};
use support::fingerprint;
use support::module::Module;
use support::random::Random;
use support::run::{Run, tool};
use support::simulated::{EXPIRING, Simulated, entries, settle};
use support::{is_root, root, tree};

/// Directories in the modules of these tests, the root included.
const DIRECTORIES: u64 = 13;

/// Three directories that look alike, each with some below it.
fn fill(module: &Path) {
    for top in ["a", "b", "c"] {
        for below in ["", "deep", "deep/er", "empty"] {
            let directory = module.join(top).join(below);
            fs::create_dir_all(&directory).expect("a directory");
            if below != "empty" {
                for name in ["one", "two", "three"] {
                    fs::write(directory.join(name), format!("{top} {below} {name}"))
                        .expect("a file");
                }
            }
        }
    }
    fs::write(module.join("top"), "top").expect("a file");
}

/// Sets every directory below `top` to one time, the same on every call.
fn stop_time(top: &Path) {
    let mut directories = vec![top.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        directories.extend(entries.filter(is_directory).map(|entry| entry.path()));
        let time = UNIX_EPOCH + Duration::from_secs(1_500_000_000);
        if fs::metadata(&directory).and_then(|metadata| metadata.modified()).ok() != Some(time) {
            tree::set_mtime(&directory, time);
        }
    }
}

/// Edits a tree without letting the times of its directories tell.
fn in_secret(top: &Path, edit: impl FnOnce(&Path)) {
    edit(top);
    stop_time(top);
}

/// A module whose next snapshot can be recycled and has two indexes to go by: that of the newest
/// snapshot, and that of a retired one, which lacks the last change of `b`.
fn indexed_module(module: Module) -> Simulated {
    let module = Simulated::new(module, EXPIRING);
    in_secret(&module.latest, fill);
    module.publish_settled();
    in_secret(&module.latest, |live| tree::write(&live.join("b/one"), "changed"));
    module.publish_settled();
    module
}

fn indexed() -> Simulated {
    indexed_module(Module::new())
}

fn newest(module: &Simulated) -> String {
    module.snapshots().pop().expect("a snapshot")
}

fn index(module: &Simulated, name: &str) -> PathBuf {
    module.private("index").join(name)
}

/// Two changes that are not in `b`, and a snapshot after each: what was recycled in the first is
/// the retired snapshot at hand, in the second the one that is the newest now.
#[track_caller]
fn assert_next_two_are_right(module: &Simulated, codes: &[i32]) {
    for number in 0..2 {
        let text = format!("{number} after {}", newest(module));
        in_secret(&module.latest, |live| tree::write(&live.join("c/deep/two"), &text));
        module.publish_with(codes);
    }
    assert_eq!(module.left_over("staging"), 0);
}

#[test]
fn a_directory_that_did_not_change_is_not_read() {
    if !support::may_recycle() {
        return;
    }
    let module = indexed();
    let retired = entries(&module.private("expired"));
    for number in 0..3 {
        settle();
        in_secret(&module.latest, |live| {
            tree::write(&live.join("c/deep/two"), &number.to_string())
        });
        let name = module.publish_settled();
        assert!(module.recycled(&name).is_some(), "{name} is not made from {retired:?}");
        let read = module.figure(&name, "directories_read");
        // The root, renamed with the snapshot, and the one that changed; live and snapshot, twice.
        assert!(0 < read && read <= 8, "{read} directories were read where one has changed");
    }
}

// -- Changes in the tick of the clock in which the index was taken -----------------------------------

/// Ways to change directory `a` or what is below it.
const CHANGES: &[(&str, fn(&Path))] = &[
    ("replace a file", |live| tree::write(&live.join("a/one"), "x")),
    ("add a file", |live| fs::write(live.join("a/new"), "x").expect("a file")),
    ("remove a file", |live| fs::remove_file(live.join("a/new")).expect("removed")),
    ("rename a file", |live| fs::rename(live.join("a/two"), live.join("a/owt")).expect("renamed")),
    ("rename over a file", |live| {
        fs::rename(live.join("a/owt"), live.join("a/two")).expect("renamed")
    }),
    ("link a file", |live| fs::hard_link(live.join("b/one"), live.join("a/link")).expect("a link")),
    ("exchange two files", |live| exchange(&live.join("a/link"), &live.join("a/one"))),
    ("link over a file", |live| {
        fs::hard_link(live.join("b/two"), live.join("a/aside")).expect("a link");
        fs::rename(live.join("a/aside"), live.join("a/link")).expect("renamed");
    }),
    ("remove a link", |live| fs::remove_file(live.join("a/link")).expect("removed")),
    ("change a mode", |live| tree::set_mode(&live.join("a/deep"), 0o700)),
    ("change it back", |live| tree::set_mode(&live.join("a/deep"), 0o755)),
    ("exchange two directories", |live| exchange(&live.join("a/deep"), &live.join("b/deep"))),
    ("a file for a directory", |live| {
        fs::remove_dir(live.join("a/empty")).expect("removed");
        fs::write(live.join("a/empty"), "x").expect("a file");
    }),
    ("a directory for a file", |live| {
        fs::remove_file(live.join("a/empty")).expect("removed");
        fs::create_dir(live.join("a/empty")).expect("a directory");
    }),
    ("make a directory again", |live| {
        fs::remove_dir_all(live.join("a/deep/er")).expect("removed");
        fs::create_dir(live.join("a/deep/er")).expect("a directory");
        fs::write(live.join("a/deep/er/one"), "x").expect("a file");
    }),
];

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("exchanged");
}

fn assert_quick_changes_are_found(module: &Simulated, rounds: usize) {
    for round in 0..rounds {
        for (what, change) in CHANGES {
            in_secret(&module.latest, change);
            module.pass(1);
            let run = module.run().exits(&[0]);
            assert_eq!(
                newest(module),
                module.name(),
                "round {round}: {what}: nothing was found: {run}"
            );
            module.assert_equals_module(&module.name());
        }
    }
}

#[test]
fn a_change_right_after_a_run_is_found() {
    slow!();
    assert_quick_changes_are_found(&indexed(), 3);
}

#[test]
fn coarse_times_hide_no_change_right_after_a_run() {
    let Some(file_system) = FileSystem::whole_seconds() else { return };
    let module = indexed_module(Module::on(&file_system));
    // Some of them begin and end in one second, others not.
    assert_quick_changes_are_found(&module, 4);

    // Three seconds later the index is good there, too.
    std::thread::sleep(Duration::from_millis(3_200));
    for number in 0..3 {
        in_secret(&module.latest, |live| {
            tree::write(&live.join("c/deep/two"), &number.to_string())
        });
        let name = module.publish();
        let read = module.figure(&name, "directories_read");
        assert!(number < 2 || read < 2 * DIRECTORIES, "{read} directories were read");
    }
}

/// Starts a hook, makes a change some time later, and expects the next run at the latest to find
/// it.
fn assert_changes_at_any_moment_are_found(module: &Simulated, seed: u64, rounds: usize) {
    tree::numbered(&module.latest.join("many"), 150, 2);
    stop_time(&module.latest);
    module.publish();
    let mut random = Random::new(seed);
    for round in 0..rounds {
        let (what, change) = CHANGES[round % CHANGES.len()];
        // So that the run that is disturbed has something to do.
        in_secret(&module.latest, |live| {
            tree::write(&live.join("many/d0007/f0001"), &round.to_string())
        });
        module.pass(1);
        let mut hook = module.hook_through(&[]).spawn().expect("the hook");
        let wait = Duration::from_micros(random.below(30_000) as u64);
        std::thread::sleep(wait);
        in_secret(&module.latest, change);
        let disturbed = hook.wait().expect("its end");
        assert!(disturbed.success(), "{what} after {wait:?}: {disturbed}");

        module.pass(1);
        let run = module.run().exits(&[0]);
        let live = fingerprint::of(&module.latest);
        let snapshot = fingerprint::of(&module.snapshot(&newest(module)));
        fingerprint::assert_equal(&live, &snapshot, &format!("{what} after {wait:?}: {run}"));
    }
}

#[test]
fn a_change_at_any_moment_of_a_run_is_found_by_the_next() {
    std::thread::scope(|scope| {
        scope.spawn(|| assert_changes_at_any_moment_are_found(&indexed(), 1, 2 * CHANGES.len()));
        scope.spawn(|| {
            let Some(file_system) = FileSystem::whole_seconds() else { return };
            let module = indexed_module(Module::on(&file_system));
            assert_changes_at_any_moment_are_found(&module, 2, 2 * CHANGES.len());
        });
    });
}

#[test]
fn edits_during_runs_are_in_the_snapshot_of_the_first_quiet_one() {
    slow!();
    let module = indexed();
    // Nearly everything may be gone at once.
    module.write_policy(&format!("{EXPIRING}anomaly_share = \"100%\"\n"));
    for round in 0..6 {
        let (stop, live) = (AtomicBool::new(false), &module.latest);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                churn(live, round, &stop);
                // Before the quiet run.
                stop_time(live);
            });
            let _stopping = Raised(&stop);
            for _ in 0..4 {
                module.pass(1);
                module.run().exits(&[0, 4]);
            }
        });
        module.pass(1);
        let run = module.run().exits(&[0]);
        let live = fingerprint::of(&module.latest);
        let snapshot = fingerprint::of(&module.snapshot(&newest(&module)));
        fingerprint::assert_equal(&live, &snapshot, &format!("round {round}: {run}"));
    }
}

/// A flag that is raised at the end, be it that of a failure: no other code ends the threads that
/// wait for it.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Renames and makes files and directories as fast as it can until told to stop.
fn churn(live: &Path, seed: u64, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    let directories =
        ["a", "a/deep", "a/deep/er", "b", "b/deep", "c", "c/deep", "c/deep/er", "c/empty", ""];
    let names = ["one", "two", "three", "four", "deep", "five"];
    while !stop.load(Ordering::Relaxed) {
        let path = |random: &mut Random| {
            let directory = random.of(&directories).expect("directories");
            live.join(directory).join(random.of(&names).expect("names"))
        };
        let (one, other) = (path(&mut random), path(&mut random));
        // What is refused, is refused.
        let _ = match random.below(8) {
            0 | 1 => fs::write(&one, "x"),
            2 | 3 => fs::rename(&one, &other),
            4 => renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).map_err(Into::into),
            5 => fs::hard_link(&one, &other),
            6 => fs::remove_file(&one),
            _ => fs::create_dir(&one),
        };
    }
}

// -- Times that people set -------------------------------------------------------------------------

#[test]
fn a_directory_whose_time_is_set_to_anything_has_that_time_in_the_snapshot() {
    let module = indexed();
    let directory = module.latest.join("a/deep");
    let usual = fs::metadata(&directory).and_then(|metadata| metadata.modified()).expect("a time");
    let times: [SystemTime; 7] = [
        usual + Duration::from_nanos(1),
        usual,
        UNIX_EPOCH,
        UNIX_EPOCH - Duration::new(86_400, 5),
        SystemTime::now() + Duration::from_secs(86_400 * 365),
        SystemTime::now(),
        usual,
    ];
    for time in times {
        tree::set_mtime(&directory, time);
        module.publish_settled();
    }
    // Set to what it is: the change time alone moves, which is no change.
    tree::set_mtime(&directory, usual);
    module.expect_unchanged();
    settle();
    module.expect_unchanged();
    in_secret(&module.latest, |live| tree::write(&live.join("a/deep/two"), "x"));
    module.publish();
}

// -- Indexes that cannot be used -------------------------------------------------------------------

/// Damages the index of the newest and of the retired snapshot in turn by `damage`, which is given
/// the file and the number of the case, and expects nothing but right snapshots and no complaint.
fn assert_damage_does_no_harm(cases: usize, damage: impl Fn(&Path, usize) + Sync) {
    let threads = 2;
    let work = |first: usize| {
        let module = indexed();
        for number in (first..cases).step_by(threads) {
            let retired = module.retired();
            let retired = retired.file_name().expect("a name").to_string_lossy();
            let names = [newest(&module), retired.to_string()];
            for name in names.iter().skip(number % 3 % 2).take(1 + number % 3 / 2) {
                damage(&index(&module, name), number);
            }
            let text = number.to_string();
            in_secret(&module.latest, |live| tree::write(&live.join("c/deep/two"), &text));
            if number % 2 == 0 {
                in_secret(&module.latest, |live| tree::write(&live.join("a/two"), &text));
            }
            module.pass(1);
            let run = module.run().exits(&[0]);
            assert_eq!(run.stderr(), "", "case {number}: falling back to a comparison is no event");
            module.assert_equals_module(&module.name());
        }
    };
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || work(first));
        }
    });
}

fn full() -> bool {
    support::is_full_sweep()
}

#[test]
fn without_an_index_trees_are_compared() {
    if !support::may_recycle() {
        return;
    }
    assert_damage_does_no_harm(6, |index, _| {
        // One of the two may be gone since the case before.
        let _ = fs::remove_file(index);
    });

    let module = indexed();
    fs::remove_dir_all(module.private("index")).expect("all indexes");
    assert_next_two_are_right(&module, &[0]);
    settle();
    in_secret(&module.latest, |live| tree::write(&live.join("c/deep/two"), "x"));
    let name = module.publish();
    assert!(module.figure(&name, "directories_read") <= 8, "there is an index again");
}

#[test]
fn an_index_cut_short_is_not_used() {
    slow!();
    let cases = if full() { 400 } else { 24 };
    assert_damage_does_no_harm(cases, |index, number| {
        let length = fs::metadata(index).expect("an index").len();
        if length < 64 {
            return; // Cut in the case before.
        }
        let (number, cases) = (number as u64, cases as u64);
        // The last few bytes, the first few, and lengths between.
        let shorter = match number % 3 {
            0 => length - 1 - number / 3,
            1 => number / 3,
            _ => number * length / cases,
        };
        File::options()
            .write(true)
            .open(index)
            .and_then(|file| file.set_len(shorter))
            .expect("cut");
    });
}

#[test]
fn an_index_with_a_wrong_byte_is_not_used() {
    slow!();
    let cases = if full() { 3_000 } else { 60 };
    assert_damage_does_no_harm(cases, |index, number| {
        let mut bytes = fs::read(index).expect("an index");
        // Each byte once, if there are as many cases.
        let position = if full() { number } else { number * bytes.len() / cases };
        let length = bytes.len();
        bytes[position % length] ^= [0x01, 0x80, 0xff][number % 3];
        fs::write(index, bytes).expect("written");
    });
}

#[test]
fn an_index_that_is_something_else_is_not_used() {
    slow!();
    let garbage: [fn(Vec<u8>) -> Vec<u8>; 9] = [
        |_| Vec::new(),
        |_| b"\n".to_vec(),
        |_| b"format = 1\n".repeat(100),
        |index| vec![0; index.len()],
        |index| vec![0xff; index.len()],
        |index| index.repeat(2),
        |index| index.iter().rev().copied().collect(),
        |index| Random::new(1).bytes(index.len()),
        // The first part right, and then too much.
        |index| [&index[..index.len() / 2], &Random::new(2).bytes(100_000)].concat(),
    ];
    assert_damage_does_no_harm(garbage.len() * 3, |index, number| {
        let bytes = fs::read(index).expect("an index");
        fs::write(index, garbage[number / 3](bytes)).expect("written");
    });
}

#[test]
fn an_index_grown_out_of_all_proportion_costs_no_memory() {
    slow!();
    let module = indexed();
    for name in
        [newest(&module), module.retired().file_name().expect("a name").to_string_lossy().into()]
    {
        let file = File::options().append(true).open(index(&module, &name)).expect("an index");
        file.set_len(6 << 30).expect("a hole");
    }
    in_secret(&module.latest, |live| tree::write(&live.join("c/deep/two"), "x"));
    module.pass(1);
    let limited = ["sh", "-c", "ulimit -v 2097152; exec \"$0\" \"$@\""];
    Run::of(&mut module.hook_through(&limited)).exits(&[0]);
    module.assert_equals_module(&module.name());
}

#[test]
fn an_index_of_another_snapshot_or_module_is_not_used() {
    type Swap = fn(&Path, &Path, &Path);
    let swaps: [(&str, Swap); 5] = [
        ("the newest one's for the retired one", |newest, retired, _| put(newest, retired)),
        ("the retired one's for the newest", |newest, retired, _| put(retired, newest)),
        ("each other's", |newest, retired, _| exchange(newest, retired)),
        ("another module's for the newest", |newest, _, other| put(other, newest)),
        ("another module's for the retired one", |_, retired, other| put(other, retired)),
    ];
    let other = indexed();
    let other_index = index(&other, &newest(&other));
    for (what, swap) in swaps {
        let module = indexed();
        let retired = module.retired();
        let retired = index(&module, &retired.file_name().expect("a name").to_string_lossy());
        swap(&index(&module, &newest(&module)), &retired, &other_index);
        println!("{what}");
        assert_next_two_are_right(&module, &[0]);
    }
}

/// Puts a copy of the file `from` in the place of `to`, as old as that was.
fn put(from: &Path, to: &Path) {
    let time = fs::metadata(to).and_then(|metadata| metadata.modified()).expect("a time");
    fs::copy(from, to).expect("a copy");
    tree::set_mtime(to, time);
}

#[test]
fn an_index_that_is_no_file_is_neither_followed_nor_waited_for() {
    slow!();
    type Replace = fn(&Path, &Path);
    let mut replacements: Vec<(&str, Replace)> = vec![
        ("a link to it", |index, aside| {
            fs::rename(index, aside).expect("moved");
            symlink(aside, index).expect("a link");
        }),
        ("a link to an endless file", |index, _| {
            fs::remove_file(index).expect("removed");
            symlink("/dev/zero", index).expect("a link");
        }),
        ("a link to nothing", |index, aside| {
            fs::remove_file(index).expect("removed");
            symlink(aside, index).expect("a link");
        }),
        ("a directory", |index, _| {
            fs::remove_file(index).expect("removed");
            fs::create_dir_all(index.join("with/something")).expect("directories");
        }),
        ("a FIFO", |index, _| make_node(index, FileType::Fifo, 0)),
        ("a socket", |index, _| make_node(index, FileType::Socket, 0)),
    ];
    if is_root() {
        replacements.push(("an endless device", |index, _| {
            make_node(index, FileType::CharacterDevice, makedev(1, 5))
        }));
    } else {
        skipped!("needs root, to make an endless device");
    }
    std::thread::scope(|scope| {
        for (what, replace) in replacements {
            scope.spawn(move || {
                let module = indexed();
                let (newest, retired) = (newest(&module), module.retired());
                let retired = retired.file_name().expect("a name").to_string_lossy().into_owned();
                for name in [&newest, &retired] {
                    replace(&index(&module, name), &module.directory.join(name));
                }
                let asides: Vec<_> =
                    [&newest, &retired].map(|name| module.directory.join(name)).to_vec();
                let before: Vec<_> = asides.iter().map(|aside| fs::read(aside).ok()).collect();
                for number in 0..3 {
                    let text = number.to_string();
                    in_secret(&module.latest, |live| tree::write(&live.join("c/deep/two"), &text));
                    module.pass(1);
                    let run = Run::of(&mut module.hook_through(&["timeout", "60"])).exits(&[0, 4]);
                    assert_eq!(module.snapshots(), [module.name()], "{what}: {run}");
                    module.assert_equals_module(&module.name());
                }
                let after: Vec<_> = asides.iter().map(|aside| fs::read(aside).ok()).collect();
                assert!(before == after, "{what}: something outside was written or removed");
            });
        }
    });
}

fn make_node(index: &Path, kind: FileType, device: u64) {
    fs::remove_file(index).expect("removed");
    mknodat(CWD, index, kind, Mode::from_raw_mode(0o600), device).expect("a special file");
}

// -- Retired snapshots that were changed --------------------------------------------------------------

/// What a person may do to a snapshot in `expired/`; the second argument is a directory outside.
const TAMPERINGS: &[(&str, fn(&Path, &Path))] = &[
    ("remove a file", |snapshot, _| fs::remove_file(snapshot.join("a/one")).expect("removed")),
    ("remove a file deep down", |snapshot, _| {
        fs::remove_file(snapshot.join("a/deep/er/one")).expect("removed")
    }),
    ("remove a file at the top", |snapshot, _| {
        fs::remove_file(snapshot.join("top")).expect("removed")
    }),
    ("add a file", |snapshot, _| fs::write(snapshot.join("a/new"), "x").expect("a file")),
    ("add a FIFO", |snapshot, _| {
        mknodat(CWD, snapshot.join("a/new"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .expect("a FIFO");
    }),
    ("rename a file", |snapshot, _| {
        fs::rename(snapshot.join("a/one"), snapshot.join("a/eno")).expect("renamed")
    }),
    ("replace a file", |snapshot, _| tree::write(&snapshot.join("a/one"), "x")),
    ("exchange two files", |snapshot, _| {
        exchange(&snapshot.join("a/one"), &snapshot.join("a/two"))
    }),
    ("exchange files of two directories", |snapshot, _| {
        exchange(&snapshot.join("a/one"), &snapshot.join("b/two"))
    }),
    ("change a mode", |snapshot, _| tree::set_mode(&snapshot.join("a/deep"), 0o700)),
    ("change the mode of all", |snapshot, _| tree::set_mode(snapshot, 0o700)),
    ("set an attribute", |snapshot, _| {
        tree::set_attribute(&snapshot.join("a/deep"), "user.comment", b"x");
    }),
    ("set an ACL", |snapshot, _| {
        let acl = tree::acl(0o7, 0o5, 1000);
        tree::set_attribute(&snapshot.join("a/deep"), "system.posix_acl_default", &acl);
    }),
    ("change an owner", |snapshot, _| {
        if is_root() {
            std::os::unix::fs::chown(snapshot.join("a/deep"), Some(1000), Some(1000))
                .expect("chown");
        } else {
            skipped!("needs root, to change an owner");
        }
    }),
    ("remove a directory", |snapshot, _| {
        fs::remove_dir_all(snapshot.join("a/deep")).expect("removed")
    }),
    ("add a directory", |snapshot, _| fs::create_dir_all(snapshot.join("a/new/er")).expect("made")),
    ("make a directory again", |snapshot, _| {
        fs::remove_dir(snapshot.join("a/empty")).expect("removed");
        fs::create_dir(snapshot.join("a/empty")).expect("made");
        fs::write(snapshot.join("a/empty/new"), "x").expect("a file");
    }),
    ("put a copy in the place of a directory", |snapshot, outside| {
        let (directory, aside) = (snapshot.join("a/deep"), outside.join("deep"));
        fs::rename(&directory, &aside).expect("moved");
        Run::of(tool("cp").args(["-al"]).arg(&aside).arg(&directory)).exits(&[0]);
        fs::remove_file(directory.join("er/two")).expect("removed");
    }),
    ("a file for a directory", |snapshot, _| {
        fs::remove_dir(snapshot.join("a/empty")).expect("removed");
        fs::write(snapshot.join("a/empty"), "x").expect("a file");
    }),
    ("exchange two directories", |snapshot, _| exchange(&snapshot.join("a"), &snapshot.join("b"))),
    ("exchange two directories deep down", |snapshot, _| {
        exchange(&snapshot.join("a/deep/er"), &snapshot.join("b/deep/er"))
    }),
    ("exchange a directory with one above", |snapshot, _| {
        exchange(&snapshot.join("a/deep/er"), &snapshot.join("b"))
    }),
    ("a link for a directory", |snapshot, outside| {
        fs::remove_dir_all(snapshot.join("a/deep")).expect("removed");
        symlink(outside, snapshot.join("a/deep")).expect("a link");
    }),
    ("move a directory out and link to it", |snapshot, outside| {
        fs::rename(snapshot.join("a/deep"), outside.join("deep")).expect("moved");
        symlink(outside.join("deep"), snapshot.join("a/deep")).expect("a link");
    }),
    ("move a directory out and back", |snapshot, outside| {
        fs::rename(snapshot.join("a/deep"), outside.join("deep")).expect("moved");
        fs::remove_file(outside.join("deep/er/one")).expect("removed");
        fs::rename(outside.join("deep"), snapshot.join("a/deep")).expect("moved");
    }),
    ("remove everything", |snapshot, _| {
        fs::remove_dir_all(snapshot).expect("removed");
        fs::create_dir(snapshot).expect("made");
    }),
    ("put a copy in the place of all", |snapshot, outside| {
        let aside = outside.join("all");
        fs::rename(snapshot, &aside).expect("moved");
        Run::of(tool("cp").args(["-al"]).arg(&aside).arg(snapshot)).exits(&[0]);
        fs::remove_file(snapshot.join("a/one")).expect("removed");
    }),
    ("a link to it for all", |snapshot, outside| {
        fs::rename(snapshot, outside.join("all")).expect("moved");
        symlink(outside.join("all"), snapshot).expect("a link");
    }),
    ("a file for all", |snapshot, _| {
        fs::remove_dir_all(snapshot).expect("removed");
        fs::write(snapshot, "x").expect("a file");
    }),
    ("a FIFO for all", |snapshot, _| {
        fs::remove_dir_all(snapshot).expect("removed");
        mknodat(CWD, snapshot, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a FIFO");
    }),
    ("another one beside it", |snapshot, _| {
        let beside = snapshot.with_file_name("2025-02-28T00-17-00Z");
        Run::of(tool("cp").args(["-al"]).arg(snapshot).arg(beside)).exits(&[0]);
    }),
    ("something else beside it", |snapshot, outside| {
        fs::write(snapshot.with_file_name("9 note"), "x").expect("a file");
        symlink(outside, snapshot.with_file_name("9 link")).expect("a link");
        fs::create_dir(snapshot.with_file_name("9 directory")).expect("made");
    }),
    ("its name is another's", |snapshot, _| {
        fs::rename(snapshot, snapshot.with_file_name("2025-02-28T00-17-00Z")).expect("renamed");
    }),
];

#[test]
fn a_retired_snapshot_that_was_changed_is_recycled_correctly() {
    slow!();
    // At once, and after a while.
    for wait in [false, true] {
        for part in TAMPERINGS.chunks(6) {
            std::thread::scope(|scope| {
                for (what, tamper) in part {
                    scope.spawn(move || assert_tampering_does_no_harm(what, tamper, wait));
                }
            });
        }
    }
}

fn assert_tampering_does_no_harm(what: &str, tamper: &fn(&Path, &Path), wait: bool) {
    println!("{what}");
    let module = indexed();
    let outside = module.directory.join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("sentinel"), "untouched").expect("a file");
    if wait {
        settle();
    }
    let retired = module.retired();
    tamper(&retired, &outside);
    if retired.is_dir() && !retired.is_symlink() {
        stop_time(&retired);
    }
    if wait {
        settle();
    }
    let before = fingerprint::of(&outside);

    in_secret(&module.latest, |live| tree::write(&live.join("c/deep/two"), what));
    module.pass(1);
    let run = Run::of(&mut module.hook_through(&["timeout", "60"])).exits(&[0, 4]);

    assert_eq!(module.snapshots(), [module.name()], "{what}: {run}");
    let live = fingerprint::of(&module.latest);
    fingerprint::assert_equal(
        &live,
        &fingerprint::of(&module.snapshot(&module.name())),
        &format!("{what}: {run}"),
    );
    fingerprint::assert_equal(&before, &fingerprint::of(&outside), &format!("{what}: outside"));
    for number in 0..2 {
        in_secret(&module.latest, |live| {
            tree::write(&live.join("c/deep/two"), &number.to_string())
        });
        // Of nothing else is there a warning than of what cannot be recycled.
        module.pass(1);
        let run = module.run().exits(&[0, 4]);
        assert_eq!(
            run.code() == Some(4),
            run.stderr().contains("cannot be recycled"),
            "{what}: {run}"
        );
        assert_eq!(
            run.stderr().matches("warning:").count(),
            usize::from(run.code() == Some(4)),
            "{what}: {run}"
        );
        module.assert_equals_module(&module.name());
    }
}

// -- The newest snapshot changed: what only a full comparison shows ----------------------------------

const WEEK_HOURS: i64 = 7 * 24;

#[test]
fn a_full_comparison_every_week_says_so_if_the_index_was_wrong() {
    let module = indexed();
    let old = newest(&module);
    settle();
    in_secret(&module.snapshot(&old), |snapshot| {
        fs::remove_file(snapshot.join("a/deep/one")).expect("removed")
    });
    module.pass(WEEK_HOURS + 1);

    let run = module.run().exits(&[4]).says("the index");

    assert!(run.stderr().contains("error"), "{run}");
    assert_eq!(newest(&module), module.name(), "{run}");
    module.assert_equals_module(&module.name());
    module.expect_unchanged();
    assert_next_two_are_right(&module, &[0]);
}

#[test]
fn a_full_comparison_says_so_as_well_if_something_else_has_changed() {
    slow!();
    let module = indexed();
    let old = newest(&module);
    settle();
    in_secret(&module.snapshot(&old), |snapshot| tree::write(&snapshot.join("a/one"), "other"));
    in_secret(&module.latest, |live| tree::write(&live.join("c/deep/two"), "x"));
    module.pass(WEEK_HOURS + 1);
    module.run().exits(&[4]).says("the index");
    module.assert_equals_module(&module.name());
}

#[test]
fn a_full_comparison_that_finds_the_index_right_says_nothing() {
    let module = indexed();
    for number in 0..3 {
        module.pass(WEEK_HOURS);
        module.expect_unchanged();
        module.pass(WEEK_HOURS);
        in_secret(&module.latest, |live| {
            tree::write(&live.join("c/deep/two"), &number.to_string())
        });
        module.publish_settled();
    }
}

#[test]
fn a_change_that_the_index_shows_raises_no_complaint() {
    let module = indexed();
    let old = newest(&module);
    settle();
    // The same directory in the live tree and in the snapshot.
    in_secret(&module.snapshot(&old), |snapshot| tree::write(&snapshot.join("a/one"), "other"));
    in_secret(&module.latest, |live| tree::write(&live.join("a/two"), "x"));
    module.pass(WEEK_HOURS + 1);
    let run = module.run().exits(&[0]);
    assert!(!run.stderr().contains("the index"), "{run}");
    module.assert_equals_module(&module.name());
}

#[test]
fn the_policy_says_how_often_everything_is_compared() {
    slow!();
    let module = indexed();
    module.write_policy(&format!("{EXPIRING}full_comparison = \"5h\"\n"));
    in_secret(&module.latest, |live| tree::write(&live.join("c/deep/two"), "x"));
    let old = module.publish_settled();
    settle();
    in_secret(&module.snapshot(&old), |snapshot| {
        fs::remove_file(snapshot.join("a/one")).expect("removed")
    });
    module.pass(6);
    module.run().exits(&[4]).says("the index");
    module.assert_equals_module(&module.name());
}

// -- A live tree that the administrator has moved or restored ----------------------------------------

/// Ways to put a live tree in another's place; the second argument is a directory outside, the
/// third the newest snapshot.
const RESTORATIONS: &[(&str, fn(&Path, &Path, &Path))] = &[
    ("moved away and copied back", |live, outside, _| {
        fs::rename(live, outside.join("aside")).expect("moved");
        cp("-a", &outside.join("aside"), live);
    }),
    ("moved away and linked back", |live, outside, _| {
        fs::rename(live, outside.join("aside")).expect("moved");
        cp("-al", &outside.join("aside"), live);
    }),
    ("moved away and back", |live, outside, _| {
        fs::rename(live, outside.join("aside")).expect("moved");
        fs::rename(outside.join("aside"), live).expect("moved");
    }),
    ("moved away, changed, and moved back", |live, outside, _| {
        fs::rename(live, outside.join("aside")).expect("moved");
        in_secret(&outside.join("aside"), |live| {
            fs::remove_file(live.join("a/deep/one")).expect("removed")
        });
        fs::rename(outside.join("aside"), live).expect("moved");
    }),
    ("restored by a copy of the snapshot", |live, _, snapshot| {
        fs::remove_dir_all(live).expect("removed");
        cp("-a", snapshot, live);
    }),
    ("restored by links to the snapshot", |live, _, snapshot| {
        fs::remove_dir_all(live).expect("removed");
        cp("-al", snapshot, live);
    }),
    ("restored in part", |live, _, snapshot| {
        fs::remove_dir_all(live.join("a")).expect("removed");
        cp("-a", &snapshot.join("a"), &live.join("a"));
    }),
    ("a directory moved out and back", |live, outside, _| {
        fs::rename(live.join("a"), outside.join("a")).expect("moved");
        fs::rename(outside.join("a"), live.join("a")).expect("moved");
    }),
    ("a directory moved out, changed deep down and moved back", |live, outside, _| {
        fs::rename(live.join("a"), outside.join("a")).expect("moved");
        tree::write(&outside.join("a/deep/er/one"), "x");
        fs::rename(outside.join("a"), live.join("a")).expect("moved");
    }),
    ("a directory moved out, and a copy in its place", |live, outside, _| {
        fs::rename(live.join("a"), outside.join("a")).expect("moved");
        cp("-al", &outside.join("a"), &live.join("a"));
        fs::remove_file(live.join("a/deep/er/one")).expect("removed");
    }),
    ("two that look alike exchanged", |live, _, _| exchange(&live.join("a"), &live.join("b"))),
    ("two that look alike exchanged deep down", |live, _, _| {
        exchange(&live.join("a/deep/er"), &live.join("b/deep/er"))
    }),
    ("one put in the place of another", |live, _, _| {
        fs::rename(live.join("a/deep"), live.join("c/empty/was in a")).expect("moved");
        fs::rename(live.join("b/deep"), live.join("a/deep")).expect("moved");
    }),
    ("a directory exchanged with one above", |live, _, _| {
        exchange(&live.join("a/deep/er"), &live.join("b"))
    }),
];

fn cp(how: &str, from: &Path, to: &Path) {
    Run::of(tool("cp").arg(how).arg(from).arg(to)).exits(&[0]);
}

#[test]
fn the_next_snapshot_shows_a_tree_that_was_restored() {
    slow!();
    for part in RESTORATIONS.chunks(7) {
        std::thread::scope(|scope| {
            for (what, restore) in part {
                scope.spawn(move || assert_restoration_is_seen(what, restore));
            }
        });
    }
}

fn assert_restoration_is_seen(what: &str, restore: &fn(&Path, &Path, &Path)) {
    println!("{what}");
    let module = indexed();
    let outside = module.directory.join("outside");
    fs::create_dir(&outside).expect("a directory");
    settle();
    let old = module.snapshot(&newest(&module));
    in_secret(&module.latest, |live| restore(live, &outside, &old));
    for settled in [true, false] {
        if settled {
            settle();
        }
        // Whether that is a change or not.
        module.pass(1);
        let run = module.run().exits(&[0]);
        let live = fingerprint::of(&module.latest);
        let snapshot = fingerprint::of(&module.snapshot(&newest(&module)));
        fingerprint::assert_equal(&live, &snapshot, &format!("{what}: {run}"));
    }
    assert_next_two_are_right(&module, &[0]);
}

#[test]
fn a_directory_that_comes_back_after_a_snapshot_without_it_is_in_the_next() {
    let module = indexed();
    let outside = module.directory.join("a");
    for path in ["a", "a/deep", "a/deep/er"] {
        for _ in 0..2 {
            in_secret(&module.latest, |live| fs::rename(live.join(path), &outside).expect("moved"));
            module.publish_settled();
            in_secret(&module.latest, |live| {
                fs::rename(&outside, live.join(path)).expect("moved back")
            });
            module.publish_settled();
        }
    }
}

// -- Mounts ----------------------------------------------------------------------------------------

#[test]
fn what_a_mount_hid_comes_back_after_it() {
    if !root() {
        return;
    }
    let module = indexed();
    let outside = module.directory.join("outside");
    fill(&outside);
    let mount_point = module.latest.join("a/deep");
    // In place of a directory: as another one of the same file system, as itself, as a file system.
    type Make = fn(&Path, &Path) -> Option<Mount>;
    let makes: [(&str, Make); 3] = [
        ("another directory", |outside, mount_point| Mount::bind(outside, mount_point)),
        ("itself", |_, mount_point| Mount::bind(mount_point, mount_point)),
        ("a file system", |_, mount_point| Mount::tmpfs(mount_point)),
    ];
    for (what, make) in makes {
        settle();
        let Some(mount) = make(&outside, &mount_point) else { return };
        for number in 0..3 {
            if number > 0 {
                in_secret(&module.latest.join("c"), |c| {
                    tree::write(&c.join("two"), &number.to_string())
                });
            }
            module.pass(1);
            let run = module.run().exits(&[0, 4]);
            let snapshot = module.snapshot(&newest(&module));
            let found = entries(&snapshot.join("a/deep"));
            let hidden_is_there = found == ["er", "one", "three", "two"];
            assert!(
                found.is_empty() || (what == "itself" && hidden_is_there),
                "{what}: {found:?}, {run}"
            );
            assert_eq!(
                entries(&snapshot.join("c")),
                entries(&module.latest.join("c")),
                "{what}: {run}"
            );
            let record = module.record(&newest(&module));
            let skipped = record["skipped_mounts"].as_array().expect("a list");
            assert!(hidden_is_there || *skipped == ["a/deep".into()], "{what}: {skipped:?}, {run}");
        }
        drop(mount);
        // Nothing tells that it is gone but that it is gone.
        for _ in 0..2 {
            module.pass(1);
            let run = module.run().exits(&[0]);
            let live = fingerprint::of(&module.latest);
            let snapshot = fingerprint::of(&module.snapshot(&newest(&module)));
            fingerprint::assert_equal(&live, &snapshot, &format!("{what} is gone: {run}"));
        }
        assert_next_two_are_right(&module, &[0]);
    }
}

/// What can be mounted over, and whether it is a directory. None lies below another, but for
/// `a/deep/er`.
const MOUNT_POINTS: [(&str, bool); 5] =
    [("a/one", false), ("a/deep/er", true), ("b", true), ("c/two", false), ("c/empty", true)];

/// Fails unless the snapshot shows whatever of the live tree is not mounted over, and nothing else.
fn assert_shows(live: &Path, snapshot: &Path, mounted: &[PathBuf], what: &str) {
    let mut names: Vec<String> = entries(live).into_iter().chain(entries(snapshot)).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (live, snapshot) = (live.join(&name), snapshot.join(&name));
        if mounted.contains(&live) {
            continue;
        }
        let state = |path: &Path| {
            let metadata = fs::symlink_metadata(path).unwrap_or_else(|error| {
                panic!("{what}: {}: {error}", path.display());
            });
            (metadata.is_dir(), if metadata.is_dir() { 0 } else { metadata.ino() })
        };
        assert_eq!(state(&live), state(&snapshot), "{what}: {}", live.display());
        if live.is_dir() {
            assert_shows(&live, &snapshot, mounted, what);
        }
    }
}

/// Mounts over directories and files come and go between pushes, and what they hide changes
/// meanwhile.
#[test]
fn mounts_that_come_and_go_hide_no_change() {
    if !support::may_mount() {
        return;
    }
    for seed in 0..support::by_sweep(1, 2, 40) {
        let module = indexed();
        let outside = module.directory.join("outside");
        fill(&outside);
        let mut random = Random::new(seed);
        let mut mounts: Vec<(PathBuf, Mount)> = Vec::new();
        for round in 0..25 {
            let (path, is_directory) = random.of(&MOUNT_POINTS).copied().expect("one");
            let point = module.latest.join(path);
            let mut what = format!("seed {seed}, round {round}: {path}");
            if let Some(at) = mounts.iter().position(|(mounted, _)| *mounted == point) {
                what += " unmounted";
                drop(mounts.remove(at));
                if random.below(2) == 0 {
                    what += " and changed";
                    let file = if is_directory { point.join("two") } else { point };
                    in_secret(&module.latest, |_| tree::write(&file, &what));
                }
            } else if random.below(4) == 0 {
                what += " changed";
                let file = if is_directory { point.join("one") } else { point };
                in_secret(&module.latest, |_| tree::write(&file, &what));
            } else {
                let mount = match random.below(3) {
                    0 if is_directory => Mount::tmpfs(&point),
                    1 => Mount::bind(&point, &point),
                    _ if is_directory => Mount::bind(&outside.join("a"), &point),
                    _ => Mount::bind(&outside.join("top"), &point),
                };
                what += " mounted over";
                mounts.extend(mount.map(|mount| (point, mount)));
            }
            match random.below(4) {
                0 => in_secret(&module.latest.join("a/deep"), |deep| {
                    tree::write(&deep.join("two"), &what)
                }),
                1 => fs::remove_dir_all(module.private("index")).expect("the indexes"),
                _ => {}
            }
            let is_full = random.below(3) == 0;
            let full = if is_full { "full_comparison = \"0s\"\n" } else { "" };
            module.write_policy(&format!("{EXPIRING}{full}"));
            settle();
            let mounted: Vec<PathBuf> = mounts.iter().map(|(point, _)| point.clone()).collect();
            for _ in 0..2 {
                module.pass(1);
                let run = module.run().exits(&[0, 4]);
                let what = format!("{what}; mounted: {mounted:?}; full: {is_full}: {run}");
                assert_shows(&module.latest, &module.snapshot(&newest(&module)), &mounted, &what);
            }
            let last = newest(&module);
            settle();
            module.pass(1);
            let run = module.run().exits(&[0, 4]);
            assert_eq!(
                newest(&module),
                last,
                "{what}: nothing has changed since: {mounted:?}: {run}"
            );
        }
    }
}
