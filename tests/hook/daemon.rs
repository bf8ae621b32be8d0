//! The hook behind a real rsync daemon: which transfers make which snapshots.

use crate::support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use support::daemon::{Daemon, GOOD, await_snapshots, client, source};
use support::module::{Module, visible};
use support::{fingerprint, have, tree};

#[test]
fn a_push_becomes_a_snapshot_that_equals_the_tree() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = source(&module);
    tree::numbered(&source, 20, 20);
    let daemon = Daemon::of_module(&module);

    daemon.push(&source, "data", &[]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(1), GOOD);

    let names = module.snapshots();
    assert_eq!(names.len(), 1, "{names:?}");
    module.assert_equals_module(&names[0]);
    assert_eq!(fingerprint::contents(&source), fingerprint::contents(&module.snapshot(&names[0])));
    let listed = module.list();
    assert_eq!(listed.len(), 1, "{listed:?}");
    let snapshot = &listed[0];
    assert_eq!(snapshot["name"], names[0].as_str());
    assert_eq!(snapshot["grade"], "complete");
    assert_eq!(snapshot["origin"], "recorded");
    assert_eq!(snapshot["status"], 0);
    assert_eq!(snapshot["client"]["address"], "127.0.0.1");
    // 20 directories with 20 files each; then 2 directories, 3 files and a link.
    assert_eq!(snapshot["entries"], 20 + 400 + 2 + 3 + 1);
    assert_eq!(module.record(&names[0])["format"].as_integer(), Some(1));
}

#[test]
fn each_changing_push_adds_a_snapshot() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = source(&module);
    let daemon = Daemon::of_module(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    let first = module.snapshots().remove(0);
    let fingerprint_of_first = fingerprint::of(&module.snapshot(&first));

    tree::write(&source.join("documents/report"), "a report of another length\n");
    tree::write(&source.join("documents/new"), "new\n");
    daemon.push(&source, "data", &["--delete"]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(2), GOOD);
    let names = module.snapshots();
    assert_eq!(names.len(), 2, "{names:?}");
    module.assert_equals_module(&names[1]);
    let unchanged =
        |name: &String| fs::metadata(module.snapshot(name).join("read me")).expect("a file").ino();
    assert_eq!(
        unchanged(&names[0]),
        unchanged(&names[1]),
        "an unchanged file is one inode in both"
    );

    fs::remove_file(source.join("read me")).expect("removed");
    fs::remove_dir_all(source.join("documents/letters")).expect("removed");
    daemon.push(&source, "data", &["--delete"]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(3), GOOD);
    let names = module.snapshots();
    assert_eq!(names.len(), 3, "{names:?}");
    module.assert_equals_module(&names[2]);
    assert!(!module.snapshot(&names[2]).join("read me").exists());

    fingerprint::assert_equal(
        &fingerprint_of_first,
        &fingerprint::of(&module.snapshot(&first)),
        "the first snapshot then and now",
    );
    let report =
        fs::read_to_string(module.snapshot(&first).join("documents/report")).expect("a report");
    assert_eq!(report, "second\n");
}

#[test]
fn pushes_pulls_and_listings_that_change_nothing_make_no_snapshot() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = source(&module);
    let daemon = Daemon::of_module(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    let names = module.snapshots();
    let verified = module.record(&names[0])["verified_until"].clone();
    support::time::next_second();

    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(2);
    daemon.list("data").exits(&[0]);
    daemon.await_hooks(3);
    daemon.pull("data/", &module.directory.join("pulled/")).exits(&[0]);
    assert_eq!(daemon.await_hooks(4), [GOOD; 4]);

    assert_eq!(module.snapshots(), names);
    assert_ne!(
        module.record(&names[0])["verified_until"],
        verified,
        "verified-until moves instead"
    );
}

#[test]
fn two_modules_keep_their_snapshots_apart() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = source(&module);
    let other_root = module.directory.join("other root");
    let other = other_root.join("current state");
    fs::create_dir_all(&other).expect("the other module");
    let sections = [
        Daemon::section(&module, "data", &module.latest, ""),
        Daemon::section(&module, "other module", &other, "comment = spaces in name and path"),
    ];
    let daemon = Daemon::start(&module, &sections.concat());

    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    tree::write(&source.join("only in the other"), "x");
    daemon.push(&source, "other module", &[]).exits(&[0]);
    assert_eq!(daemon.await_hooks(2), [GOOD; 2]);

    assert_eq!(module.snapshots().len(), 1);
    let names: Vec<_> =
        visible(&other_root).into_iter().filter(|name| name != "current state").collect();
    assert_eq!(names.len(), 1, "{names:?}");
    fingerprint::assert_same(&other, &other_root.join(&names[0]));
    let everything = module.json(&["list", "--json", "--all"]);
    let listed: Vec<_> =
        everything.as_array().expect("an array").iter().map(|root| &root["module"]).collect();
    assert_eq!(listed, ["data", "other module"]);
}

#[test]
fn file_names_of_any_bytes_reach_the_snapshot() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = module.directory.join("source");
    tree::odd_names(&source);
    fs::write(source.join(OsStr::from_bytes(b"new\nline \xff")), "x").expect("a file");
    let daemon = Daemon::of_module(&module);

    daemon.push(&source, "data", &[]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(1), GOOD);

    let name = module.snapshots().remove(0);
    module.assert_equals_module(&name);
    assert_eq!(fingerprint::contents(&source), fingerprint::contents(&module.snapshot(&name)));
}

#[test]
fn the_record_knows_who_pushed_when_users_have_to_authenticate() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = source(&module);
    let secrets = module.directory.join("secrets");
    fs::write(&secrets, "alice:wonderland\n").expect("secrets");
    tree::set_mode(&secrets, 0o600);
    let more = format!("auth users = alice\n    secrets file = {}", secrets.display());
    let daemon = Daemon::start(&module, &Daemon::section(&module, "data", &module.latest, &more));

    daemon.push(&source, "data", &[]).exits(&[5]);
    let status = client()
        .env("RSYNC_PASSWORD", "wonderland")
        .arg("--archive")
        .arg(format!("{}/", source.display()))
        .arg(daemon.url("data/").replace("rsync://", "rsync://alice@"))
        .status();
    assert!(status.expect("a client").success());
    assert_eq!(daemon.await_last_hook(1), GOOD, "no hook for a client without a password");

    let name = module.snapshots().remove(0);
    assert_eq!(module.record(&name)["client"]["user"].as_str(), Some("alice"));
    assert_eq!(module.list()[0]["client"]["user"], "alice");
}

#[test]
fn a_snapshot_restores_through_a_read_only_module() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = source(&module);
    let sections = format!(
        "{}[restore]\n    path = {}\n    read only = yes\n    exclude = /.rsyncd-snapshot\n",
        Daemon::section(&module, "data", &module.latest, ""),
        module.root.display()
    );
    let daemon = Daemon::start(&module, &sections);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    let name = module.snapshots().remove(0);
    let lost = fingerprint::contents(&source);
    fs::remove_dir_all(source.join("documents")).expect("removed");
    daemon.push(&source, "data", &["--delete"]).exits(&[0]);
    daemon.await_hooks(2);

    let restored = module.directory.join("restored");
    daemon.pull(&format!("restore/{name}/"), &restored).exits(&[0]);

    assert_eq!(fingerprint::contents(&restored), lost);
    assert!(!daemon.list("restore").exits(&[0]).stdout().contains(".rsyncd-snapshot"));
}

#[test]
fn the_bare_program_is_the_whole_hook() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = source(&module);
    let hook = format!(
        "{} --config {} --rsyncd-conf {}",
        support::BINARY,
        module.policy.display(),
        module.rsyncd_conf.display()
    );
    let sections = format!(
        "[data]\n    path = {}\n    read only = no\n    post-xfer exec = {hook}\n",
        module.latest.display()
    );
    let daemon = Daemon::start(&module, &sections);

    daemon.push(&source, "data", &[]).exits(&[0]);

    let names = await_snapshots(&module.root, 1);
    module.assert_equals_module(&names[0]);
}
