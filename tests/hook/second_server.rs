//! A second server copies the newest snapshot through the restore module, by the script in
//! `contrib/second-server`, and keeps a history of its own.

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::daemon::{Daemon, program};
use support::module::Module;
use support::run::{Run, tool};
use support::time::wait_until;
use support::{fingerprint, have, tree};

const SCRIPT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/second-server/rsyncd-snapshot-pull");

/// The first server shows the snapshots of `module`, and serves it.
fn serve(module: &Module) -> Daemon<'_> {
    let hooks = format!("pre-xfer exec = {0} pre-xfer\npost-xfer exec = {0}\n", program(module));
    let sections = format!(
        "[data]\npath = {}\nread only = no\n{hooks}[data-snapshots]\npath = {}\nread only = yes\n\
         exclude = /.rsyncd-snapshot\n{hooks}",
        module.latest.display(),
        module.root.display()
    );
    Daemon::start(module, &sections)
}

/// Runs the script on the `second` server.
fn copy(second: &Module, daemon: &Daemon, to: &Path) -> Run {
    let programs = second.directory.join("programs");
    fs::create_dir_all(&programs).expect("a directory");
    let wrapper = programs.join("rsyncd-snapshot");
    let (state, runtime) = (second.state_directory(), second.runtime_directory());
    let text = format!(
        "#!/bin/sh\nexport RSYNCD_SNAPSHOT_STATE_DIRECTORY='{}'\n\
         export RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY='{}'\nexec {} \"$@\"\n",
        state.display(),
        runtime.display(),
        program(second)
    );
    fs::write(&wrapper, text).expect("a wrapper");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("a mode");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display());
    let mut command = tool(SCRIPT);
    command.env("PATH", path).arg(daemon.url("data-snapshots")).arg(to);
    Run::of(&mut command)
}

#[test]
fn a_second_server_keeps_its_own_history_of_the_newest_snapshots() {
    slow!();
    if !have(&["flock", "setfacl"]) {
        return;
    }
    let (first, second) = (Module::new(), Module::new());
    let daemon = serve(&first);
    let run = copy(&second, &daemon, &second.latest);
    assert_eq!(run.code(), Some(1), "there is no snapshot yet: {run}");
    assert!(run.stderr().contains("shows no complete snapshot"), "{run}");
    assert!(second.snapshots().is_empty());

    let source = first.directory.join("source");
    fs::create_dir_all(source.join("etc")).expect("a directory");
    for number in 1..=3 {
        // Of the same size, and often within the same second.
        tree::write(&source.join("etc/fstab"), &format!("state {number}"));
        tree::write(&source.join(format!("of {number} \u{fc}")), "same");
        let _ = fs::remove_file(source.join("other"));
        fs::hard_link(source.join("etc/fstab"), source.join("other")).expect("a link");
        daemon.push(&source, "data", &["--delete", "--hard-links"]).exits(&[0]);
        wait_until("the push has its snapshot", || first.snapshots().len() == number);
        // What comes later is in no snapshot, so it is not copied.
        tree::write(&first.latest.join("later"), "not yet");
        copy(&second, &daemon, &second.latest).exits(&[0]);
        let copied = second.snapshots();
        assert_eq!(copied.len(), number, "{copied:?}");
        let newest = first.snapshot(first.snapshots().last().expect("a snapshot"));
        fingerprint::assert_equal(
            &fingerprint::without_inodes(&fingerprint::of(&newest)),
            &fingerprint::without_inodes(&fingerprint::of(&second.snapshot(&copied[number - 1]))),
            "the copy",
        );
        let run = copy(&second, &daemon, &second.latest).exits(&[0]);
        assert_eq!(second.snapshots(), copied, "nothing new: {run}");
    }
    let copied = second.latest.to_str().expect("UTF-8");
    for arguments in [&["check", copied][..], &["check"]] {
        second.run(arguments).exits(&[0, 1]).says("3 snapshots");
    }
}

#[test]
fn a_copy_that_fails_makes_no_snapshot() {
    let (first, second) = (Module::with_snapshot().0, Module::new());
    let daemon = serve(&first);
    let nowhere = second.directory.join("nowhere");
    assert_ne!(copy(&second, &daemon, &nowhere).code(), Some(0), "no such directory");
    assert!(!nowhere.exists());
    let lock = fs::File::open(&second.latest).expect("the module");
    fs2::FileExt::lock_exclusive(&lock).expect("a lock");
    let run = copy(&second, &daemon, &second.latest).exits(&[3]);
    assert!(run.stderr().contains("another copy"), "{run}");
    assert!(second.snapshots().is_empty());
}
