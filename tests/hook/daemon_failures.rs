//! The hook behind a real rsync daemon: transfers that end badly.

use crate::support;

use std::fs;
use std::process::Stdio;

use support::daemon::{Daemon, GOOD, client, source};
use support::module::Module;
use support::time::wait_until;
use support::{have, tree};

#[test]
fn a_killed_client_makes_the_root_torn_until_a_push_succeeds() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = source(&module);
    let daemon = Daemon::of_module(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    let before = module.snapshots();

    fs::write(source.join("zz big"), vec![b'x'; 8 << 20]).expect("a big file");
    tree::write(&source.join("arrives first"), "1");
    let mut killed = client()
        .args(["--archive", "--bwlimit=500", "--whole-file"])
        .arg(format!("{}/", source.display()))
        .arg(daemon.url("data/"))
        .stderr(Stdio::null())
        .spawn()
        .expect("a client");
    wait_until("the first file has arrived", || module.latest.join("arrives first").exists());
    killed.kill().expect("killed");
    killed.wait().expect("gone");
    let hook = daemon.await_last_hook(2);
    assert_ne!(hook.transfer, 0);
    assert_eq!(module.snapshots(), before, "a killed transfer makes no snapshot");
    assert!(module.is_marked("torn"), "{:?}", module.state());

    daemon.list("data").exits(&[0]);
    daemon.await_hooks(3);
    assert_eq!(module.snapshots(), before, "neither does a listing after it");
    assert!(module.is_marked("torn"), "{:?}", module.state());

    fs::remove_file(source.join("zz big")).expect("removed");
    daemon.push(&source, "data", &["--delete"]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(4).transfer, 0);
    // The file that made the difference may have arrived before the client was killed.
    tree::write(&source.join("arrives last"), "1");
    daemon.push(&source, "data", &["--delete"]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(5), GOOD);
    let newest = module.snapshots().pop().expect("a snapshot");
    module.assert_equals_module(&newest);
    assert!(!newest.ends_with("-partial") && !before.contains(&newest), "{newest}");
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn a_refused_option_makes_no_snapshot() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = source(&module);
    let daemon = Daemon::start(
        &module,
        &Daemon::section(&module, "data", &module.latest, "refuse options = inplace append*"),
    );
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    let before = module.snapshots();

    tree::write(&source.join("new"), "new");
    assert!(!daemon.push(&source, "data", &["--inplace"]).succeeded());
    assert_eq!(daemon.await_last_hook(2).transfer, 4);
    assert_eq!(module.snapshots(), before);

    daemon.push(&source, "data", &[]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(3), GOOD);
    assert_eq!(module.snapshots().len(), 2);
}

#[test]
fn a_push_to_a_read_only_module_makes_no_snapshot() {
    if !have(&["rsync"]) {
        return;
    }
    let (module, first) = Module::with_snapshot();
    let source = source(&module);
    tree::write(&source.join("new"), "new");
    let section = Daemon::section(&module, "data", &module.latest, "")
        .replace("read only = no", "read only = yes");
    let daemon = Daemon::start(&module, &section);

    assert!(!daemon.push(&source, "data", &[]).succeeded());

    assert_eq!(daemon.await_last_hook(1).transfer, 1);
    assert_eq!(module.snapshots(), [first]);
}
