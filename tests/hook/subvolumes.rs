//! What read-only btrfs subvolumes promise beyond hard links, behind a real rsync daemon: no client
//! changes an old snapshot, and a push waits at the gate for an instant only.

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::daemon::{Daemon, GOOD, source};
use support::file_system::FileSystem;
use support::fingerprint::{self, Fingerprint};
use support::module::Module;
use support::run::{Run, tool};
use support::subvolumes::is_subvolume;
use support::time::wait_until;
use support::{have, tree};

/// A module that is a subvolume of a btrfs of its own, and what a client has. `None` where that
/// cannot be mounted, or rsync is missing.
fn on_btrfs() -> Option<(FileSystem, Module, PathBuf)> {
    if !have(&["rsync", "btrfs"]) {
        return None;
    }
    let file_system = FileSystem::for_subvolumes()?;
    let module = Module::subvolume_on(&file_system);
    let source = source(&module);
    Some((file_system, module, source))
}

/// Pushes what the client has, and returns the snapshot that is made of it, as it is then.
#[track_caller]
fn push(module: &Module, daemon: &Daemon, source: &Path) -> (String, Fingerprint) {
    let before = module.snapshots().len();
    daemon.push(source, "data", &[]).exits(&[0]);
    wait_until("its snapshot", || module.snapshots().len() == before + 1);
    let name = module.snapshots().pop().expect("a snapshot");
    assert!(is_subvolume(&module.snapshot(&name)), "{name}");
    module.assert_equals_module(&name);
    let taken = fingerprint::of(&module.snapshot(&name));
    (name, taken)
}

#[track_caller]
fn assert_as_taken(module: &Module, (name, taken): &(String, Fingerprint), after: &str) {
    fingerprint::assert_equal(taken, &fingerprint::of(&module.snapshot(name)), after);
}

#[test]
fn a_client_that_changes_attributes_changes_no_older_snapshot() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_pair(&module);
    let first = push(&module, &daemon, &source);
    for (number, mode) in [0o600, 0o755].into_iter().enumerate() {
        // The content and its time stay, so rsync changes the file that is there.
        tree::set_mode(&source.join("documents/report"), mode);
        push(&module, &daemon, &source);
        assert_eq!(daemon.await_last_hook(number + 2), GOOD);
        assert_as_taken(&module, &first, &format!("after mode {mode:o}"));
    }
    assert_eq!(module.snapshots().len(), 3);
}

#[test]
fn a_push_that_writes_in_place_is_let_in_and_changes_no_snapshot() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_pair(&module);
    let report = source.join("documents/report");
    let mut taken = vec![push(&module, &daemon, &source)];
    let in_place = [
        &["--inplace", "--no-whole-file"][..],
        &["--append"],
        &["--append-verify"],
        &["--partial-dir=elsewhere"],
        &["--delay-updates"],
    ];
    for (number, options) in in_place.into_iter().enumerate() {
        let text = fs::read_to_string(&report).expect("the report");
        // rsync appends only to what is shorter.
        tree::write(&report, &format!("{text}line {number}\n"));
        support::time::next_second();
        daemon.push(&source, "data", options).exits(&[0]);
        assert_eq!(daemon.await_last_hook(number + 2), GOOD, "{options:?}");
        let name = module.snapshots().pop().expect("a snapshot");
        assert_eq!(module.snapshots().len(), number + 2, "{options:?}");
        module.assert_equals_module(&name);
        let copy = fs::read_to_string(module.snapshot(&name).join("documents/report"));
        assert_eq!(
            copy.expect("its report"),
            fs::read_to_string(&report).expect("the report"),
            "{options:?}"
        );
        taken.iter().for_each(|one| assert_as_taken(&module, one, &format!("after {options:?}")));
        taken.push((name.clone(), fingerprint::of(&module.snapshot(&name))));
    }
}

#[test]
fn verify_says_that_nothing_has_to_be_compared() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_pair(&module);
    push(&module, &daemon, &source);
    // Where hard links would share the file, this is damage.
    fs::write(module.latest.join("documents/report"), "written in place").expect("written");
    let run = module.run(&["verify", "data"]).exits(&[0]);
    let run = run.says("1 read-only snapshot of btrfs not compared: nothing can be changed there");
    assert!(!run.stdout().contains("change times"), "{run}");
    let json = module.json(&["verify", "data", "--json"]);
    assert_eq!(json["altered_files"], 0, "{json:#}");
    module.run(&["check", "data"]).exits(&[0]).says("its snapshots are btrfs snapshots");
}

#[test]
fn root_itself_cannot_write_to_a_snapshot() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_pair(&module);
    let first = push(&module, &daemon, &source);
    let snapshot = module.snapshot(&first.0);
    for words in [
        &["touch", "new"][..],
        &["chmod", "0600", "documents/report"],
        &["rm", "documents/report"],
        &["mv", "documents", "elsewhere"],
        &["chmod", "0700", "."],
    ] {
        let run = Run::of(tool(words[0]).args(&words[1..]).current_dir(&snapshot));
        assert!(!run.succeeded() && run.stderr().contains("Read-only file system"), "{run}");
    }
    assert_as_taken(&module, &first, "after all of these");
}

#[test]
fn a_push_begins_while_the_snapshot_of_an_earlier_one_is_compared() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    if !have(&["strace"]) {
        return;
    }
    let slow = "strace -f -qq -o /dev/null -e inject=renameat2:delay_enter=4000000 '";
    let section = Daemon::pair_section(&module, "data", &module.latest, "")
        .replace("post-xfer exec = '", &format!("post-xfer exec = {slow}"));
    let daemon = Daemon::start(&module, &section);
    daemon.push(&source, "data", &[]).exits(&[0]);
    wait_until("the snapshot is made", || module.left_over("staging") > 0);

    tree::write(&source.join("documents/second"), "2");
    let began = Instant::now();
    daemon.push(&source, "data", &[]).exits(&[0]);
    assert!(module.latest.join("documents/second").exists());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?} at the gate", began.elapsed());
    assert_eq!(module.snapshots(), [""; 0], "the first snapshot is not visible yet");

    daemon.await_hooks(2);
    let names = module.snapshots();
    assert!(names.len() == 2 && names.iter().all(|name| !name.ends_with("-partial")), "{names:?}");
    assert!(!module.snapshot(&names[0]).join("documents/second").exists(), "it came later");
    module.assert_equals_module(&names[1]);
}

#[test]
fn an_unchanged_push_makes_no_snapshot_to_compare() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    if !have(&["strace"]) {
        return;
    }
    let daemon = Daemon::of_module(&module);
    push(&module, &daemon, &source);
    // The first comparison is what later runs rely on.
    module.expect_no_snapshot();
    let trace = module.directory.join("trace");
    let made = || {
        let trace_path = trace.to_str().expect("UTF-8");
        let strace = ["strace", "-f", "-qq", "-e", "trace=ioctl", "-o", trace_path];
        Run::of(&mut module.hook_through(&strace)).exits(&[0]);
        let calls = fs::read_to_string(&trace).expect("a trace");
        calls.lines().filter(|call| call.contains("SNAP_CREATE")).count()
    };
    assert_eq!(made(), 0, "nothing has changed");
    // A change back to what it was is seen, and compared.
    let report = module.latest.join("documents/report");
    let mode = |mode| tree::set_mode(&report, mode);
    mode(0o600);
    mode(0o644);
    assert_eq!(made(), 1, "something has changed");
}

#[test]
fn snapshots_lie_in_another_subvolume_of_the_same_btrfs() {
    let Some((file_system, module, source)) = on_btrfs() else { return };
    let elsewhere = file_system.mount_point.join("elsewhere");
    Run::of(tool("btrfs").args(["-q", "subvolume", "create"]).arg(&elsewhere)).exits(&[0]);
    tree::set_mode(&elsewhere, 0o700);
    module.write_policy(&format!(
        "[module.data]\nsnapshot_root = \"{}\"\nlock_wait = \"20s\"\n",
        elsewhere.display()
    ));
    let module = Module { root: elsewhere, ..module };
    let daemon = Daemon::of_pair(&module);
    let first = push(&module, &daemon, &source);
    tree::write(&source.join("documents/report"), "another\n");
    push(&module, &daemon, &source);
    assert_as_taken(&module, &first, "after another push");
    let expire = ["expire", "data", &first.0, "--below-min-keep", "--now"];
    module.run(&expire).exits(&[0]);
    assert_eq!(module.snapshots().len(), 1);
    assert_eq!((module.left_over("staging"), module.retired().len()), (0, 0));
}
