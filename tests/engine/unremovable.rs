//! Snapshots that cannot be removed: subvolumes of another program, immutable and append-only
//! files.

use crate::support;

use std::fs;
use std::path::Path;

use support::file_system::{FileSystem, Kind};
use support::module::Module;
use support::run::{Run, tool};
use support::simulated::{EXPIRING, Simulated, entries};
use support::{have, tree};

const ADOPTED: &str = "2019-08-02 12:00:00";

/// Sets or takes away a flag of a file; false, with the reason said, where the file system has none.
fn flag(path: &Path, change: &str) -> bool {
    if !have(&["chattr"]) {
        return false;
    }
    let run = Run::of(tool("chattr").arg(change).arg(path));
    if !run.succeeded() {
        skipped!("needs the right to set flags of files: {}", run.stderr().trim());
    }
    run.succeeded()
}

fn push(module: &Simulated, text: &str, codes: &[i32]) {
    tree::write(&module.latest.join("file"), text);
    module.publish_with(codes);
}

#[test]
fn an_adopted_subvolume_stays_in_place_and_blocks_nothing() {
    let Some(file_system) = FileSystem::with(Kind::Btrfs, 160, &[]) else { return };
    if !have(&["btrfs"]) {
        return;
    }
    let module = Simulated::new(Module::on(&file_system), EXPIRING);
    let path = module.snapshot(ADOPTED);
    let subvolume = |path: &Path| {
        tool("btrfs")
            .args(["-q", "subvolume", "create"])
            .arg(path)
            .status()
            .is_ok_and(|made| made.success())
    };
    assert!(subvolume(&path), "a subvolume");
    for number in 0..5 {
        push(&module, &number.to_string(), &[0]);
    }
    assert!(path.is_dir());
    assert_eq!(entries(&module.private("staging")), [""; 0]);
    assert!(
        module.recycled(&module.name()).is_some(),
        "the snapshot was made out of a retired one"
    );
    module.server.run(&["check", "data"]).exits(&[1]).says("btrfs subvolume delete '");
    module.server.run(&["plan", "data"]).says("left in place");

    // What an earlier version retired, and what stuck in staging, is out of the way after one run.
    fs::remove_dir(&path).expect("an empty subvolume");
    for place in ["staging/recycled", "expired/2019-08-02 12:00:00"] {
        assert!(subvolume(&module.private(place)), "a subvolume");
    }
    push(&module, "more", &[4]);
    push(&module, "still more", &[0, 4]);
    push(&module, "at last", &[0]);
    assert_eq!(entries(&module.private("staging")), [""; 0]);
    assert!(module.recycled(&module.name()).is_some(), "recycling works again");
    module.server.run(&["check", "data"]).exits(&[1]).says("unremovable");
}

#[test]
fn a_snapshot_with_an_immutable_file_is_set_aside_once() {
    let module = Simulated::new(Module::new(), EXPIRING);
    push(&module, "0", &[0]);
    let first = module.name();
    let inside = module.snapshot(&first).join("own");
    tree::write(&inside, "in this snapshot only");
    if !flag(&inside, "+i") {
        return;
    }
    push(&module, "1", &[0]);
    // It is retired, then used for the next snapshot, which fails, or removed.
    for (number, codes) in [(2, &[0, 4][..]), (3, &[0, 4]), (4, &[0, 4]), (5, &[0]), (6, &[0])] {
        push(&module, &number.to_string(), codes);
    }
    assert_eq!(entries(&module.private("staging")), [""; 0]);
    assert!(module.recycled(&module.name()).is_some(), "recycling works again");
    let set_aside = entries(&module.private("unremovable"));
    assert_eq!(set_aside.len(), 1, "{set_aside:?}");
    let check = module.server.run(&["check", "data"]).exits(&[1]);
    check.says("chattr");
    assert!(flag(&module.private("unremovable").join(&set_aside[0]).join("own"), "-i"));
    module.server.run(&["rotate", "data", "--purge"]);
    assert_eq!(entries(&module.private("unremovable")), [""; 0]);
    let check = module.server.run(&["check", "data"]);
    assert!(!check.stdout().contains("unremovable"), "{check}");
}

#[test]
fn an_immutable_snapshot_stays_in_place_and_the_others_go() {
    let module = Simulated::new(Module::new(), EXPIRING);
    push(&module, "0", &[0]);
    let first = module.name();
    if !flag(&module.snapshot(&first), "+i") {
        return;
    }
    for number in 1..4 {
        push(&module, &number.to_string(), &[0]);
    }
    let left = module.snapshots();
    assert_eq!(left, [first.clone(), module.name()], "the others went");
    module.server.run(&["check", "data"]).exits(&[1]).says("chattr -R -i");
    assert!(flag(&module.snapshot(&first), "-i"));
    push(&module, "4", &[0]);
    assert_eq!(module.snapshots(), [module.name()]);
}
