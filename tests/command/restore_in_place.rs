//! `restore --in-place`: new files for the module, an entry in the ledger, a snapshot afterwards;
//! snapshots keep what they share.

use crate::support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use support::daemon::{Daemon, GOOD, paired};
use support::exact;
use support::fingerprint::without_inodes;
use support::module::{Module, ledger};
use support::run::{Run, tool};
use support::time::{next_second, wait_until};
use support::{fingerprint, have, is_root, tree};

fn in_place(module: &Module, snapshot: &str, more: &[&str]) -> Run {
    let mut command = module.command(&["restore", "data", snapshot, "--in-place"]);
    Run::of(command.args(more))
}

/// A module with a snapshot, after which its client has spoiled much of it.
fn spoiled() -> (Module, String) {
    let module = Module::new();
    tree::every_type(&module.latest);
    let name = module.expect_snapshot();
    next_second();
    let latest = &module.latest;
    tree::write(&latest.join("read me"), "spoiled\n");
    tree::write(&latest.join("linked"), "spoiled\n");
    fs::remove_dir_all(latest.join("documents")).expect("removed");
    fs::remove_file(latest.join("fifo")).expect("removed");
    tree::set_mode(&latest.join("open"), 0o700);
    tree::write(&latest.join("new"), "by the client\n");
    (module, name)
}

#[track_caller]
fn assert_is_clean(module: &Module) {
    assert!(!module.is_marked("torn") && !module.is_marked("due"), "{:?}", module.state());
    assert_eq!(ledger(module), [""; 0]);
    assert_eq!(module.left_over("restoring"), 0);
    module.run(&["verify", "data"]).exits(&[0]).says("none altered");
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn the_whole_module_comes_back_and_gets_a_snapshot() {
    let (module, name) = spoiled();
    let snapshot = module.snapshot(&name);
    let before = fingerprint::of(&snapshot);
    in_place(&module, &name, &["."]).exits(&[1]).says("read me: what is there is newer");
    assert!(!module.latest.join("documents").exists());
    assert_eq!(module.snapshots(), [name.as_str()]);

    let run = in_place(&module, &name, &[".", "--overwrite", "--json"]).exits(&[0]).json();
    assert_eq!(run["snapshot_taken"]["outcome"], "published", "{run}");
    assert_eq!(run["in_place"], true, "{run}");
    fingerprint::assert_equal(&before, &fingerprint::of(&snapshot), "the snapshot");
    let newest = module.snapshots().pop().expect("a snapshot");
    module.assert_equals_module(&newest);
    assert_eq!(module.record(&newest)["grade"].as_str(), Some("complete"));
    assert_eq!(module.record(&newest)["client"]["user"].as_str(), Some("restore"));
    // Nothing is deleted.
    assert_eq!(fs::read_to_string(module.latest.join("new")).expect("a file"), "by the client\n");
    fs::remove_file(module.latest.join("new")).expect("removed");
    tree::set_mtime(&module.latest, snapshot.metadata().unwrap().modified().unwrap());
    exact::assert_same(&snapshot, &module.latest);
    assert_is_clean(&module);
}

#[test]
fn what_the_module_still_has_stays_shared() {
    let (module, name) = spoiled();
    in_place(&module, &name, &[".", "--overwrite"]).exits(&[0]);
    let inode = |path: &std::path::Path| fs::metadata(path).expect("a file").ino();
    let (latest, snapshot) = (&module.latest, module.snapshot(&name));
    let is_shared = |name: &str| inode(&latest.join(name)) == inode(&snapshot.join(name));
    assert!(is_shared("empty"), "it was as in the snapshot");
    assert!(!is_shared("read me") && !is_shared("documents/report"), "these are new files");
    let group = ["linked", "documents/linked again", "documents/letters/linked thrice"];
    let inodes = group.map(|name| inode(&latest.join(name)));
    assert!(inodes.iter().all(|inode| *inode == inodes[0]), "{inodes:?}");
}

#[test]
fn directories_above_a_path_are_made_as_they_were() {
    let (module, name) = spoiled();
    let before = fingerprint::of(&module.latest);
    in_place(&module, &name, &["documents/letters/to you"]).exits(&[0]);
    let (latest, snapshot) = (&module.latest, module.snapshot(&name));
    let (now, then) = (exact::of(latest), exact::of(&snapshot));
    for path in ["documents", "documents/letters", "documents/letters/to you"] {
        assert_eq!(now[path.as_bytes()], then[path.as_bytes()], "{path}");
    }
    assert!(!latest.join("documents/report").exists());
    let mut now = fingerprint::of(latest);
    now.retain(|path, _| !path.starts_with(b"documents"));
    let without_top = |mut it: fingerprint::Fingerprint| {
        it.remove(&b"."[..]);
        it
    };
    fingerprint::assert_equal(&without_top(before), &without_top(now), "all else stays");
    assert_is_clean(&module);
}

#[test]
fn nothing_to_do_makes_no_snapshot() {
    let (module, name) = Module::with_snapshot();
    let run = in_place(&module, "newest", &["documents", "--json"]).exits(&[0]).json();
    assert_eq!(run["snapshot_taken"]["outcome"], "unchanged", "{run}");
    assert_eq!(module.snapshots(), [name]);
    in_place(&module, "newest", &[]).exits(&[2]).says("`.` for the whole module");
    assert_is_clean(&module);
}

#[test]
fn a_dry_run_writes_nothing_and_enters_nothing() {
    let (module, name) = spoiled();
    let before = fingerprint::of(&module.root);
    let run = in_place(&module, &name, &["documents", "fifo", "-n"]).exits(&[0]);
    run.says("new      documents/report").says("new      fifo");
    fingerprint::assert_equal(&before, &fingerprint::of(&module.root), "the root");
}

/// Starts a restore in place that is killed as it makes its last file.
fn kill_half_way(module: &Module, snapshot: &str, paths: &[&str]) {
    let strace =
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=renameat2:signal=SIGKILL:when=3"];
    let mut command = module.command_through(&strace, &["restore", "data", snapshot, "--in-place"]);
    let run = Run::of(command.args(paths));
    assert_eq!(run.signal(), Some(9), "{run}");
}

#[test]
fn a_killed_restore_tears_until_it_is_repeated() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let (module, name) = spoiled();
    kill_half_way(&module, &name, &["documents"]);
    assert_eq!(ledger(&module).len(), 1);
    let run = module.run(&["snapshot", "data", "--due"]).exits(&[4]);
    run.says("restore").says("torn");
    assert!(module.is_marked("torn"), "{:?}", module.state());
    let again = format!("restore data {name} documents --in-place");
    module.run(&["check", "data"]).exits(&[1, 2]).says(&again).says("push of restore to data");
    // Another restore does not make up for it.
    in_place(&module, &name, &["fifo"]).exits(&[0, 4]);
    assert!(module.is_marked("torn"));

    in_place(&module, &name, &["documents"]).exits(&[0]);
    exact::assert_same(&module.snapshot(&name).join("documents"), &module.latest.join("documents"));
    let newest = module.snapshots().pop().expect("a snapshot");
    assert!(!newest.ends_with("-partial"), "{newest}");
    assert_is_clean(&module);
}

#[test]
fn the_command_that_repeats_a_killed_restore_replaces_newer_files_again() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let (module, name) = spoiled();
    kill_half_way(&module, &name, &[".", "--overwrite"]);
    module.run(&["snapshot", "data", "--due"]).exits(&[4]).says("torn");
    let again = format!("restore data {name} . --in-place --overwrite");
    module.run(&["check", "data"]).exits(&[1, 2]).says(&again);
    in_place(&module, &name, &[".", "--overwrite"]).exits(&[0]);
    assert_is_clean(&module);
}

#[test]
fn a_push_that_covers_a_killed_restore_ends_the_torn_state() {
    if !have(&["strace", "rsync"]) {
        return;
    }
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &["--delete"]).exits(&[0]);
    assert_eq!(daemon.await_hooks(1), [GOOD]);
    let name = module.snapshots().remove(0);
    fs::remove_dir_all(module.latest.join("documents")).expect("removed");
    kill_half_way(&module, &name, &["."]);
    // A run finds the directory that the restore has not finished.
    module.run(&["snapshot", "data"]).exits(&[4]).says("the push of restore");
    // Without --delete, it could leave what the restore has brought back.
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(2);
    assert!(module.is_marked("torn"), "{:?}", module.state());
    daemon.push(&source, "data", &["--delete"]).exits(&[0]);
    daemon.await_hooks(3);
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn a_push_that_covers_a_killed_restore_makes_up_for_it_at_once() {
    if !have(&["strace", "rsync"]) {
        return;
    }
    let Some((module, source)) = paired() else { return };
    // rsync leaves the time of a directory alone that is right to the second.
    let mut old = tool("find");
    old.arg(&source).args(["-type", "d", "-exec", "touch", "-d", "2020-01-01", "{}", "+"]);
    Run::of(&mut old).exits(&[0]);
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &["--delete"]).exits(&[0]);
    assert_eq!(daemon.await_hooks(1), [GOOD]);
    let name = module.snapshots().remove(0);
    for (number, excluded) in [(1, false), (2, true)] {
        fs::remove_dir_all(module.latest.join("documents")).expect("removed");
        kill_half_way(&module, &name, &["."]);
        assert_eq!(ledger(&module).len(), 1, "no run has met it");
        // What a push excludes, it does not finish.
        if excluded {
            daemon.push(&source, "data", &["--delete", "--exclude=documents"]).exits(&[0]);
            daemon.await_hooks(2 * number - 1);
            assert!(module.is_marked("torn"), "{:?}", module.state());
        }
        daemon.push(&source, "data", &["--delete"]).exits(&[0]);
        daemon.await_hooks(if excluded { 4 } else { 2 });
        assert!(!module.is_marked("torn"), "{:?}", module.state());
        let newest = module.snapshots().pop().expect("a snapshot");
        assert!(!newest.ends_with("-partial"), "{newest}");
    }
}

#[test]
fn a_restore_with_an_error_tears_as_a_failed_push_does() {
    if !have(&["strace"]) {
        return;
    }
    let (module, name) = spoiled();
    let strace =
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=renameat2:error=EIO:when=3"];
    let mut command =
        module.command_through(&strace, &["restore", "data", &name, "--in-place", "documents"]);
    let run = Run::of(&mut command).exits(&[1]).says("Input/output error");
    run.says("not everything is as in the snapshot").says("status 23");
    assert!(module.is_marked("torn"), "{:?}", module.state());
    assert_eq!(ledger(&module), [""; 0]);
    in_place(&module, &name, &["documents"]).exits(&[0]);
    assert_is_clean(&module);
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process")
}

#[test]
fn a_restore_and_a_push_wait_at_the_gate_together() {
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    assert_eq!(daemon.await_hooks(1), [GOOD]);
    let name = module.snapshots().remove(0);
    fs::remove_file(module.latest.join("read me")).expect("removed");
    next_second();

    let staging = fs::File::open(module.private("staging")).expect("staging");
    fs2::FileExt::lock_exclusive(&staging).expect("the gate is closed");
    let mut restore =
        start(&mut module.command(&["restore", "data", &name, "--in-place", "read me"]));
    tree::write(&source.join("pushed"), "x");
    let mut push = daemon.push_slowly(&source, "data");
    sleep(Duration::from_millis(700));
    assert!(restore.try_wait().expect("a status").is_none(), "the restore waits");
    assert!(!module.latest.join("read me").exists() && !module.latest.join("pushed").exists());
    fs2::FileExt::unlock(&staging).expect("the gate is open");
    assert!(restore.wait().expect("a status").success());
    assert!(push.wait().expect("a status").success());
    daemon.await_hooks(2);
    wait_until("the module has a snapshot of both", || {
        let newest = module.snapshots().pop().expect("a snapshot");
        let has = |path: &str| module.snapshot(&newest).join(path).exists();
        has("read me") && has("pushed") && ledger(&module).is_empty()
    });
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn a_gate_that_stays_closed_lets_nothing_be_written() {
    let (module, name) = spoiled();
    module.write_policy("[defaults]\npush_wait = \"1s\"\n");
    let before = without_inodes(&fingerprint::of(&module.latest));
    let staging = fs::File::open(module.private("staging")).expect("staging");
    fs2::FileExt::lock_exclusive(&staging).expect("the gate is closed");
    let run = in_place(&module, &name, &["documents"]).exits(&[3]).says("nothing was restored");
    assert!(!run.stderr().contains("torn"), "{run}");
    fs2::FileExt::unlock(&staging).expect("the gate is open");
    fingerprint::assert_equal(&before, &without_inodes(&fingerprint::of(&module.latest)), "it");
    assert_eq!(ledger(&module), [""; 0]);
}

#[test]
fn the_owner_of_the_module_cannot_lead_it_elsewhere() {
    if !is_root() {
        return;
    }
    let (module, name) = Module::with_snapshot();
    let outside = module.directory.join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::remove_dir_all(module.latest.join("documents")).expect("removed");
    std::os::unix::fs::symlink(&outside, module.latest.join("documents")).expect("a link");
    for more in [&["documents/report"][..], &["documents"]] {
        in_place(&module, &name, more).exits(&[1]).says("nothing was restored");
    }
    in_place(&module, &name, &["documents", "--overwrite"]).exits(&[0]);
    exact::assert_same(&module.snapshot(&name).join("documents"), &module.latest.join("documents"));
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0);
}
