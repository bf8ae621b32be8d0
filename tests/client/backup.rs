//! `rsync-system-backup` to a local directory. The scenarios of the original's `tests.py` are here,
//! in `disk.rs`, in `network.rs` and beside the code (destinations, and what makes no
//! sense).

use crate::support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use support::client::{BACKUP_BINARY, Machine, Stage};
use support::run::{Run, copy_program, tool};
use support::time::next_second;
use support::{BINARY, ORDINARY_USER, fingerprint, have, is_root, may_mount, root, tree};

fn has_rsync() -> bool {
    have(&["rsync"])
}

#[test]
fn usage_is_shown_without_arguments_and_on_request() {
    let machine = Machine::new();
    machine
        .backup(&[])
        .exits(&[2])
        .says("Usage: rsync-system-backup [OPTIONS] [SOURCE] DESTINATION");
    for option in ["-h", "--help"] {
        let run = machine.backup(&[option]).exits(&[0]);
        assert!(run.stdout().contains("Usage:"), "{run}");
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let machine = Machine::new();
    machine.backup(&["a", "b", "c"]).exits(&[2]).says("error");
    machine.backup(&["--ionice=foo", "/x"]).exits(&[2]).says("idle, best-effort and realtime");
    machine.backup(&["--no-such-option", "/x"]).exits(&[2]).says("--no-such-option");
    machine.backup(&[""]).exits(&[2]).says("is empty");
}

#[test]
fn a_simple_backup_makes_the_destination_and_one_snapshot() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    machine
        .back_up(&["--no-sudo", "--ionice=idle"])
        .exits(&[0])
        .says("1 file with 44 bytes transferred, 0 deletions");
    machine.verify(&machine.latest);
    let names = machine.snapshots();
    assert_eq!(names.len(), 1, "{names:?}");
    fingerprint::assert_same(&machine.latest, &machine.latest.with_file_name(&names[0]));
    let mode = fs::metadata(machine.latest.parent().expect("a parent")).expect("the root").mode();
    assert_eq!(mode & 0o777, 0o700, "what was missing is closed to other users");
}

#[test]
fn only_a_backup_that_changes_something_makes_a_snapshot() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    machine.back_up(&["-u"]).exits(&[0]);
    let first = machine.snapshots();
    machine.back_up(&["-u"]).exits(&[0]).says("nothing changed since");
    assert_eq!(machine.snapshots(), first);

    tree::write(&machine.source.join("new"), "new\n");
    fs::remove_file(machine.source.join("notes.txt")).expect("removed");
    next_second();
    machine.back_up(&["-u"]).exits(&[0]).says("1 file with 4 bytes transferred, 1 deletion");
    let names = machine.snapshots();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(machine.latest.with_file_name(&names[0]).join("notes.txt").exists());
    assert!(!machine.latest.with_file_name(&names[1]).join("notes.txt").exists());
}

#[test]
fn a_dry_run_changes_nothing_at_all() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    fs::create_dir_all(&machine.latest).expect("a destination");
    let before = fingerprint::of(machine.latest.parent().expect("a parent"));
    let run = machine.back_up(&["--dry-run", "--no-sudo"]).exits(&[0]);
    assert!(run.stdout().contains("notes.txt") && run.stdout().contains("DRY RUN"), "{run}");
    run.says("a snapshot of");
    let after = fingerprint::of(machine.latest.parent().expect("a parent"));
    fingerprint::assert_equal(&before, &after, "the destination before and after");

    // A destination that does not exist is not made either.
    let elsewhere = machine.directory.join("not/there/latest");
    machine.back_up_to(elsewhere.to_str().expect("UTF-8"), &["-n", "-u"]).exits(&[0]);
    assert!(!machine.directory.join("not").exists());

    // With history, it is told what rotation would do.
    machine.back_up(&["-u"]).exits(&[0]);
    let names = machine.snapshots();
    let run = machine.back_up(&["-n", "-u"]).exits(&[0]);
    assert!(run.stdout().contains(&names[0]), "{run}");
    assert_eq!(machine.snapshots(), names);
}

#[test]
fn named_steps_are_the_only_ones() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    machine.back_up(&["--backup", "--no-sudo"]).exits(&[0]);
    machine.verify(&machine.latest);
    assert!(machine.snapshots().is_empty());

    let latest = machine.latest.to_str().expect("UTF-8");
    let root = machine.latest.parent().expect("a parent");
    for hour in 10..40 {
        let name = format!("2020-01-{:02}T{:02}-00-00Z", 1 + hour / 24, hour % 24);
        fs::create_dir(root.join(name)).expect("an old snapshot");
    }
    // Of a count that was exceeded long ago, nothing goes without --rotate.
    machine.backup(&["-s", "-u", latest]).exits(&[0]);
    assert_eq!(machine.snapshots().len(), 31);
    fs::write(machine.latest.join("by hand"), "x").expect("a change");
    next_second();
    machine.backup(&["-r", "-u", latest]).exits(&[0, 4]).says("expire");
    let names = machine.snapshots();
    assert!(names.len() < 31, "{names:?}");
    let newest = root.join(names.last().expect("a snapshot"));
    assert!(!newest.join("by hand").exists(), "--rotate alone makes no snapshot");
}

#[test]
fn excluded_files_are_left_out() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    tree::write(&machine.source.join("excluded.txt"), "This file should be excluded.\n");
    // The second pattern is of the token's own name: it must not be left out by that.
    machine.back_up(&["--backup", "--exclude=excluded.txt", "-x.*", "--no-sudo"]).exits(&[0]);
    assert!(machine.latest.join("notes.txt").is_file());
    assert!(!machine.latest.join("excluded.txt").exists());
}

#[test]
fn rsyncd_names_the_destination_and_the_transfer_when_it_runs_us() {
    let machine = Machine::new();
    fs::create_dir_all(&machine.latest).expect("a module");
    tree::small(&machine.latest);
    let hook = |status: &str| {
        let mut command = machine.backup_command(&["--snapshot", "--rotate"]);
        command.arg("--config").arg(&machine.policy);
        command.env("RSYNC_MODULE_PATH", &machine.latest).env("RSYNC_EXIT_STATUS", status);
        Run::of(&mut command)
    };
    // A transfer that failed made a snapshot with the original.
    hook("12").exits(&[0]);
    assert!(machine.snapshots().is_empty());
    tree::write(&machine.latest.join("more"), "more\n");
    hook("0").exits(&[0]);
    assert_eq!(machine.snapshots().len(), 1);
    // One step alone goes by the transfer's status, too.
    tree::write(&machine.latest.join("more"), "still more\n");
    let mut alone = machine.backup_command(&["--snapshot", "-u", "--config"]);
    alone
        .arg(&machine.policy)
        .env("RSYNC_MODULE_PATH", &machine.latest)
        .env("RSYNC_EXIT_STATUS", "12");
    Run::of(&mut alone).exits(&[0]);
    assert_eq!(machine.snapshots().len(), 1);
    tree::write(&machine.latest.join("more"), "more\n");
    hook("0").exits(&[0]);
    assert_eq!(machine.snapshots().len(), 2);
    // By hand, without a transfer, the variable is only the destination.
    let mut by_hand = machine.backup_command(&["-s", "-u", "--config"]);
    let run = Run::of(by_hand.arg(&machine.policy).env("RSYNC_MODULE_PATH", &machine.latest));
    run.exits(&[0]).says("nothing changed since");
}

#[test]
fn a_failure_of_rsync_is_a_failure_and_its_words_are_quoted() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    // No server listens there. It is the original's scenario of a failure.
    machine
        .back_up_to("0.0.0.0::module/directory", &["-u", "--retries=0"])
        .exits(&[1])
        .says("`rsync ")
        .says("ended with status 10")
        .says("Connection refused");
    assert!(!machine.latest.exists());
}

#[test]
fn swapped_and_nested_directories_are_refused_before_anything_is_deleted() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_string();
    machine.back_up(&["-u"]).exits(&[0]);
    let source = text(&machine.source);
    let latest = text(&machine.latest);
    let before = fingerprint::of(&machine.directory.join("source"));
    let refused = |arguments: &[&str], part: &str| {
        machine
            .backup(&[&["-u", "--disable-notifications"], arguments].concat())
            .exits(&[2])
            .says(part);
    };
    refused(&[&latest, &source], "is a backup itself");
    refused(&[&source, "/"], "everything there that is not in the source would be deleted");
    refused(&[&source, &source], "would be deleted: are they swapped?");
    refused(&[&source, &text(&machine.directory)], "would be deleted: are they swapped?");
    refused(&["host:/x", &source], "swapped?");
    let inside = format!("{source}/backups/latest");
    refused(&[&source, &inside], "each backup would hold all earlier ones");
    // A directory that no backup went to, with things of its own.
    let other = machine.directory.join("other");
    tree::small(&other);
    refused(&[&source, &text(&other)], "no earlier backup went there");
    // The same through a link.
    let link = machine.directory.join("link");
    std::os::unix::fs::symlink(&machine.source, &link).expect("a link");
    refused(&[&source, &text(&link)], "would be deleted: are they swapped?");
    machine
        .backup(&["-u", &text(&machine.directory.join("nowhere")), &latest])
        .exits(&[1])
        .says("cannot find the source");
    fingerprint::assert_equal(
        &before,
        &fingerprint::of(&machine.source),
        "the source before and after",
    );
    assert!(other.join("read me").exists());

    // From a backup into an empty directory is a restore.
    let restored = machine.directory.join("restored");
    machine.backup(&["-b", "-u", "--disable-notifications", &latest, &text(&restored)]).exits(&[0]);
    machine.verify(&restored);

    // Left out by a pattern that names it, it may be inside; and what looks like the source may be
    // there.
    machine.back_up_to(&inside, &["-u", "--exclude=/backups"]).exits(&[0]);
    assert!(!machine.source.join("backups/latest/backups").exists());
}

#[test]
fn a_destination_with_two_dots_after_what_is_missing_is_refused() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    let before = fingerprint::of(&machine.source);
    let directory = machine.directory.to_str().expect("UTF-8");
    let other = machine.directory.join("other");
    tree::small(&other);
    for destination in ["source/missing/..", "missing/../source", "missing/../other"] {
        let destination = format!("{directory}/{destination}");
        machine
            .back_up_to(&destination, &["-b", "-u"])
            .exits(&[2])
            .says("there is a `..` in the path");
    }
    for destination in ["host:/srv/missing/../www", "host::module/../other"] {
        machine
            .back_up_to(destination, &["-b", "-u"])
            .exits(&[2])
            .says("there is a `..` in the path");
    }
    assert!(!machine.directory.join("missing").exists() && other.join("read me").exists());
    fingerprint::assert_equal(
        &before,
        &fingerprint::of(&machine.source),
        "the source before and after",
    );

    // At the beginning it is plain what is meant.
    let mut command = machine.backup_command(&["-b", "-u", "--disable-notifications"]);
    let run = Run::of(command.current_dir(&other).arg("../source").arg("../restored"));
    run.exits(&[0]);
    machine.verify(&machine.directory.join("restored"));
}

#[test]
fn an_empty_source_does_not_empty_the_backup() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    machine.back_up(&["-u"]).exits(&[0]);
    let unmounted = machine.directory.join("unmounted");
    fs::create_dir(&unmounted).expect("a directory");
    let latest = machine.latest.to_str().expect("UTF-8");
    let source = unmounted.to_str().expect("UTF-8");
    machine.backup(&["-u", source, latest]).exits(&[2]).says("is the source's disk mounted?");
    machine.verify(&machine.latest);
    // Nothing is lost where nothing is.
    let empty = machine.directory.join("empty");
    machine.backup(&["-b", "-u", source, empty.to_str().expect("UTF-8")]).exits(&[0]);
}

#[test]
fn what_rsyncd_runs_after_a_transfer_is_the_hook_whatever_its_options() {
    let machine = Machine::new();
    tree::small(&machine.latest);
    let before = support::fingerprint::contents(&machine.latest);
    let hook = |arguments: &[&str]| {
        let mut command = machine.backup_command(arguments);
        command.arg("--config").arg(&machine.policy);
        Run::of(command.env("RSYNC_MODULE_PATH", &machine.latest).env("RSYNC_EXIT_STATUS", "0"))
    };
    // Without options it would have been a backup of / into the module.
    hook(&["--no-sudo"]).exits(&[0]);
    assert_eq!(support::fingerprint::contents(&machine.latest), before);
    assert_eq!(machine.snapshots().len(), 1);
    // Of a module that is not whole, -s alone makes nothing.
    tree::write(&machine.latest.join(".rsync-system-backup-unfinished"), "unfinished\n");
    hook(&["-u", "-s"]).exits(&[0]);
    assert_eq!(machine.snapshots().len(), 1, "{:?}", machine.snapshots());
    hook(&["-u", "-b"]).exits(&[0]);
    assert!(machine.latest.join("read me").exists());
}

#[test]
fn a_source_behind_a_link_is_backed_up_by_its_real_path() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    // What is left out is named from the root directory, and so it has to be when a link leads
    // there.
    let link = machine.directory.join("link");
    std::os::unix::fs::symlink("/var", &link).expect("a link");
    let restored = machine.directory.join("restored");
    let run = machine.backup(&[
        "-b",
        "-u",
        "-n",
        "--disable-notifications",
        "--exclude=/lib",
        "--exclude=/log",
        link.to_str().expect("UTF-8"),
        restored.to_str().expect("UTF-8"),
    ]);
    let run = run.exits(&[0, 4]);
    let is_listed = |name: &str| run.stdout().lines().any(|line| line == name);
    assert!(is_listed("spool/") && !is_listed("tmp/"), "{run}");
}

#[test]
fn only_the_directory_that_the_snapshots_beside_it_belong_to_is_known() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    machine.back_up(&["-u"]).exits(&[0]);
    let root = machine.latest.parent().expect("a parent").to_path_buf();
    let snapshot = root.join(&machine.snapshots()[0]);
    let website = root.join("www");
    tree::small(&website);
    let refused = |path: &std::path::Path, part: &str| {
        for options in [&["-u"][..], &["-u", "-b"], &["-u", "-n"]] {
            machine.back_up_to(path.to_str().expect("UTF-8"), options).exits(&[2]).says(part);
        }
    };
    let before = fingerprint::of(&root);
    refused(&website, "no earlier backup went there");
    refused(&snapshot, "a snapshot, or in one");
    refused(&snapshot.join("subdirectory"), "a snapshot, or in one");
    refused(&root.join("2026-11-26T03-12-56Z"), "a snapshot, or in one");
    refused(&root.join(".rsyncd-snapshot"), "keeps its records");
    refused(&root.join(".rsyncd-snapshot/records"), "keeps its records");
    refused(&root, "the directory that holds snapshots");
    fingerprint::assert_equal(&before, &fingerprint::of(&root), "the root before and after");

    // Its snapshots could not be made there: that shows before the transfer.
    let second = root.join("second");
    machine
        .back_up_to(second.to_str().expect("UTF-8"), &["-u"])
        .exits(&[1, 2])
        .says("is registered for");
    assert_eq!(fs::read_dir(&second).expect("the directory").count(), 0);
}

#[test]
fn an_earlier_backup_by_the_original_is_taken_over() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    tree::small(&machine.latest);
    let adopted = machine.latest.with_file_name("2019-08-02 12:00:00");
    tree::small(&adopted);
    machine.back_up(&["-u"]).exits(&[0]);
    machine.verify(&machine.latest);
    assert_eq!(
        machine.snapshots().len(),
        2,
        "the old one is among them: {:?}",
        machine.snapshots()
    );
    assert!(adopted.join("read me").exists());
}

#[test]
fn two_runs_to_one_destination_do_not_overlap() {
    if !may_mount() || !has_rsync() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    // The real one, when the test lets it.
    stage.script(
        "rsync",
        "while [ ! -e \"$stage/go\" ]; do sleep 0.05; done; exec /usr/bin/rsync \"$@\"",
    );
    let source = machine.source.to_str().expect("UTF-8");
    let latest = machine.latest.to_str().expect("UTF-8");
    let mut first = stage.backup_command(&["-u", "--disable-notifications", source, latest]);
    let mut first = first
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a run");
    support::time::wait_until("rsync runs", || stage.directory.join("log").exists());
    machine.back_up(&["-u"]).exits(&[3]).says("another run is at work").says("process ");
    // Another destination is free.
    machine
        .back_up_to(machine.directory.join("elsewhere/latest").to_str().expect("UTF-8"), &["-u"])
        .exits(&[0]);
    fs::write(stage.directory.join("go"), "").expect("the word");
    assert!(first.wait().expect("an end").success());
    machine.back_up(&["-u"]).exits(&[0]);
    assert_eq!(machine.snapshots().len(), 1);
}

#[test]
fn two_runs_that_reach_one_directory_by_two_paths_do_not_overlap() {
    if !may_mount() || !has_rsync() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    stage.script(
        "rsync",
        "while [ ! -e \"$stage/go\" ]; do sleep 0.05; done; exec /usr/bin/rsync \"$@\"",
    );
    let source = machine.source.to_str().expect("UTF-8");
    let latest = machine.latest.to_str().expect("UTF-8");
    let mut first = stage.backup_command(&["-u", "--disable-notifications", source, latest]);
    let mut first = first
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a run");
    support::time::wait_until("rsync runs", || stage.directory.join("log").exists());
    let link = machine.directory.join("link");
    std::os::unix::fs::symlink(&machine.latest, &link).expect("a link");
    machine
        .back_up_to(link.to_str().expect("UTF-8"), &["-u", "-b"])
        .exits(&[3])
        .says("by another path");
    fs::write(stage.directory.join("go"), "").expect("the word");
    assert!(first.wait().expect("an end").success());
    machine.back_up_to(link.to_str().expect("UTF-8"), &["-u", "-b"]).exits(&[0]);
}

#[test]
fn a_destination_made_anew_is_not_taken_for_known() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    machine.back_up(&["-u", "-b"]).exits(&[0]);
    let notes = machine.source.join("notes.txt");
    fs::remove_file(&notes).expect("removed");
    machine.back_up(&["-u", "-b", "-n"]).exits(&[0]);
    machine.back_up(&["-u", "-b"]).exits(&[0]);
    assert!(!machine.latest.join("notes.txt").exists());

    // Another directory of that name, as where another disk is mounted.
    fs::rename(&machine.latest, machine.directory.join("moved")).expect("moved");
    tree::small(&machine.latest);
    machine.back_up(&["-u", "-b"]).exits(&[2]).says("no earlier backup went there");
    assert!(machine.latest.join("read me").exists());
}

/// rsync that does its work and then ends with the status in a file.
const HONEST_RSYNC: &str = "/usr/bin/rsync \"$@\" || exit; case \"$*\" in *--stats*) exit \"$(cat \"$stage/status\" 2>/dev/null || echo 0)\" ;; esac";

#[test]
fn vanished_files_make_a_complete_snapshot_and_unreadable_ones_a_partial_one() {
    if !may_mount() || !has_rsync() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    stage.script("rsync", HONEST_RSYNC);
    let status =
        |status: &str| fs::write(stage.directory.join("status"), status).expect("a status");
    let source = machine.source.to_str().expect("UTF-8");
    let latest = machine.latest.to_str().expect("UTF-8");
    let back_up = || {
        next_second();
        stage.backup(&["-u", "--disable-notifications", source, latest])
    };
    status("24");
    back_up().exits(&[0]).says("files vanished");
    let names = machine.snapshots();
    assert!(names.len() == 1 && names[0].ends_with('Z'), "{names:?}");

    tree::write(&machine.source.join("more"), "more\n");
    status("23");
    back_up().exits(&[4]).says("not everything could be transferred");
    let names = machine.snapshots();
    assert!(names.len() == 2 && names[1].ends_with("Z-partial"), "{names:?}");
    assert!(machine.latest.join(".rsync-system-backup-partial").exists());
    assert!(!machine.latest.join(".rsync-system-backup-unfinished").exists());
    // The same once more is not worth another one.
    back_up().exits(&[4]);
    assert_eq!(machine.snapshots(), names);

    // The next one that ends well is complete, though rsync had nothing to transfer.
    status("0");
    back_up().exits(&[0]);
    let names = machine.snapshots();
    assert!(names.len() == 3 && names[2].ends_with('Z'), "{names:?}");
    machine.verify(&machine.latest);

    // Who lists 23 as good wants complete ones.
    machine.write_policy("[defaults]\nsnapshot_on_exit = [0, 23, 24]\n");
    tree::write(&machine.source.join("still more"), "more\n");
    status("23");
    back_up().exits(&[4]);
    let names = machine.snapshots();
    assert!(names.len() == 4 && names[3].ends_with('Z'), "{names:?}");
}

#[test]
fn a_backup_that_is_broken_off_is_never_complete() {
    if !may_mount() || !has_rsync() {
        return;
    }
    let machine = Machine::new();
    machine.back_up(&["-u"]).exits(&[0]);
    let stage = Stage::new(&machine);
    // As if the machine had died: the client, too.
    stage.script("rsync", "/usr/bin/rsync \"$@\"; kill -KILL $PPID; sleep 5");
    tree::write(&machine.source.join("more"), "more\n");
    let source = machine.source.to_str().expect("UTF-8");
    let latest = machine.latest.to_str().expect("UTF-8");
    let run = stage.backup(&["-u", "--disable-notifications", source, latest]);
    assert_eq!(run.signal(), Some(9), "{run}");
    assert!(machine.latest.join(".rsync-system-backup-unfinished").exists());
    next_second();
    machine.run(&["snapshot", latest]).exits(&[0]);
    let names = machine.snapshots();
    assert!(names.len() == 2 && names[1].ends_with("Z-partial"), "{names:?}");
    next_second();
    machine.back_up(&["-u"]).exits(&[0]);
    let names = machine.snapshots();
    assert!(names.len() == 3 && names[2].ends_with('Z'), "{names:?}");
    machine.verify(&machine.latest);
}

#[test]
fn nothing_is_deleted_before_the_destination_says_that_it_is_unfinished() {
    if !may_mount() || !has_rsync() {
        return;
    }
    let machine = Machine::new();
    machine.back_up(&["-u"]).exits(&[0]);
    let stage = Stage::new(&machine);
    // The main transfer dies before it has begun; what it finds is what a killed one would have
    // deleted in.
    stage.script(
        "rsync",
        "case \"$*\" in *--delete*) kill -KILL $PPID; sleep 5 ;; esac; exec /usr/bin/rsync \"$@\"",
    );
    let source = machine.source.to_str().expect("UTF-8");
    let latest = machine.latest.to_str().expect("UTF-8");
    assert_eq!(stage.backup(&["-u", "--disable-notifications", source, latest]).signal(), Some(9));
    assert!(machine.latest.join(".rsync-system-backup-unfinished").exists());
    machine.back_up(&["-u"]).exits(&[0]).says("0 files with 0 bytes transferred, 0 deletions");
    machine.verify(&machine.latest);
}

#[test]
fn a_source_restored_from_an_unfinished_backup_is_refused() {
    if !has_rsync() {
        return;
    }
    let machine = Machine::new();
    for token in [".rsync-system-backup-unfinished", ".rsync-system-backup-partial"] {
        let token = machine.source.join(token);
        tree::write(&token, "left over\n");
        machine.back_up(&["-u"]).exits(&[2]).says("left by a restore");
        machine
            .back_up_to("127.0.0.1::module", &["-u", "--retries=0"])
            .exits(&[2])
            .says("left by a restore");
        fs::remove_file(&token).expect("removed");
    }
    machine.back_up(&["-u"]).exits(&[0]);
    assert_eq!(machine.snapshots().len(), 1);

    // Of what is there already, a snapshot alone may be less than was wanted.
    tree::write(&machine.latest.join(".rsync-system-backup-unfinished"), "left over\n");
    next_second();
    let [policy, latest] =
        [&machine.policy, &machine.latest].map(|path| path.to_str().expect("UTF-8"));
    machine.backup(&["-s", "-u", "--config", policy, latest]).exits(&[4]);
    assert!(machine.snapshots().pop().expect("a snapshot").ends_with("-partial"));
}

#[test]
fn a_backup_whose_end_cannot_be_noted_makes_no_snapshot() {
    if !may_mount() || !has_rsync() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    stage.script(
        "rsync",
        "case \"$*\" in *--no-recursive*) exit 23 ;; esac; exec /usr/bin/rsync \"$@\"",
    );
    let source = machine.source.to_str().expect("UTF-8");
    let latest = machine.latest.to_str().expect("UTF-8");
    stage
        .backup(&["-u", "--disable-notifications", source, latest])
        .exits(&[1])
        .says("counts as unfinished");
    assert!(machine.snapshots().is_empty());
    machine.back_up(&["-u"]).exits(&[0]);
    assert_eq!(machine.snapshots().len(), 1);
}

#[test]
fn an_ordinary_user_uses_sudo_unless_told_not_to() {
    if !may_mount() || !has_rsync() || !have(&["sudo", "setpriv"]) {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    // Without the first line, root's programs would use the memory of this machine.
    stage.write(
        "sudoers",
        "Defaults env_file=/etc/sudo_environment\nnobody ALL=(ALL) NOPASSWD: ALL\n",
    );
    let (state, runtime) = (machine.state_directory(), machine.runtime_directory());
    stage.write(
        "sudo_environment",
        &format!(
            "RSYNCD_SNAPSHOT_STATE_DIRECTORY={}\nRSYNCD_SNAPSHOT_RUNTIME_DIRECTORY={}\n",
            state.display(),
            runtime.display()
        ),
    );
    fs::create_dir_all(stage.directory.join("etc/pam.d")).expect("a directory");
    stage.write(
        "pam.d/sudo",
        "auth sufficient pam_permit.so\naccount sufficient pam_permit.so\nsession sufficient pam_permit.so\n",
    );
    tree::set_mode(&stage.directory.join("etc/sudoers"), 0o440);
    let home = machine.directory.join("home");
    fs::create_dir(&home).expect("a home");
    std::os::unix::fs::chown(&home, Some(ORDINARY_USER), Some(ORDINARY_USER)).expect("chown");
    copy_program(BACKUP_BINARY.as_ref(), &machine.directory.join("rsync-system-backup"));
    copy_program(BINARY.as_ref(), &machine.directory.join("rsyncd-snapshot"));
    // Readable by root alone.
    tree::write(&machine.source.join("secret"), "secret\n");
    tree::set_mode(&machine.source.join("secret"), 0o600);
    let run = |options: &[&str], latest: &std::path::Path| {
        let mut command = stage.enter();
        command.env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", home.join("state"));
        command.env("RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY", home.join("run"));
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .arg(machine.directory.join("rsync-system-backup"))
            .args(options)
            .arg("--disable-notifications");
        Run::of(command.arg(&machine.source).arg(latest))
    };
    let latest = machine.directory.join("by root/latest");
    run(&[], &latest).exits(&[0]);
    assert_eq!(fs::read_to_string(latest.join("secret")).expect("the secret"), "secret\n");
    assert_eq!(fs::metadata(latest.join("secret")).expect("the secret").uid(), 0);
    assert_eq!(support::module::visible(&latest.with_file_name("")).len(), 1);

    let latest = home.join("own/latest");
    run(&["--no-sudo"], &latest).exits(&[4]).says("secret");
    assert!(!latest.join("secret").exists() && latest.join("notes.txt").exists());
    let names = support::module::visible(&latest.with_file_name(""));
    assert!(names.len() == 1 && names[0].ends_with("-partial"), "{names:?}");
}

#[test]
fn progress_is_shown_on_a_terminal_and_only_there() {
    if !has_rsync() || !have(&["script"]) {
        return;
    }
    let machine = Machine::new();
    fs::write(machine.source.join("large"), vec![7; 5 << 20]).expect("a large file");
    let line = format!(
        "{} -u --disable-notifications {} {}",
        support::client::BACKUP_BINARY,
        machine.source.display(),
        machine.latest.display()
    );
    let mut command = tool("script");
    machine.prepare_backup(&mut command);
    let run =
        Run::of(command.args(["--quiet", "--return", "--command", &line, "/dev/null"])).exits(&[0]);
    assert!(run.stdout().contains("(xfr#2, to-chk="), "{run}");
    assert!(!run.stdout().contains("Number of files"), "{run}");
    run.says("done in");

    let again = machine.back_up(&["-u"]).exits(&[0]);
    assert_eq!(again.stdout(), "");
}

#[test]
fn extended_attributes_hard_links_and_every_type_of_file_arrive() {
    if !has_rsync() || !root() {
        return;
    }
    assert!(is_root());
    let machine = Machine::new();
    tree::every_type(&machine.source);
    machine.age_source();
    machine.back_up(&[]).exits(&[0]);
    // rsync would say if it had anything left to do.
    let [source, latest] =
        [&machine.source, &machine.latest].map(|path| format!("{}/", path.display()));
    let options = [
        "-ni",
        "--archive",
        "--acls",
        "--xattrs",
        "--hard-links",
        "--numeric-ids",
        "--checksum",
        "--delete",
    ];
    let run = Run::of(tool("rsync").args(options).args([&source, &latest])).exits(&[0]);
    assert_eq!(run.stdout(), "");
    assert!(
        fs::symlink_metadata(machine.latest.join("disk"))
            .is_ok_and(|metadata| metadata.rdev() != 0)
    );
}
