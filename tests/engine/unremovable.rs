//! Snapshots that cannot be removed: subvolumes of another program, immutable and append-only
//! files.

use crate::support;

use std::fs;
use std::path::Path;

use support::file_system::{FileSystem, Kind, Mount};
use support::module::Module;
use support::run::{Run, tool};
use support::simulated::{EXPIRING, Simulated, entries};
use support::{have, tree};

const ADOPTED: &str = "2019-08-02 12:00:00";

/// Sets or takes away a flag of a file; false, with the reason said, where the file system has
/// none.
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
fn an_adopted_subvolume_goes_as_a_whole() {
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
    fs::create_dir_all(path.join("d/e")).expect("directories");
    fs::write(path.join("d/e/f"), "x").expect("a file");
    let read_only = ["property", "set"].map(str::to_string);
    let made = tool("btrfs").args(read_only).arg(&path).args(["ro", "true"]).status();
    assert!(made.is_ok_and(|made| made.success()), "a read-only subvolume");
    for number in 0..3 {
        push(&module, &number.to_string(), &[0]);
    }
    assert!(!path.exists());
    let left = || {
        let mut left = entries(&module.root);
        left.retain(|name| name.starts_with(".rsyncd-snapshot-"));
        (left, entries(&module.private("staging")), entries(&module.private("unremovable")))
    };
    let assert_nothing_stays = || {
        assert_eq!(left(), Default::default());
        let check = module.server.run(&["check", "data"]);
        assert!(!check.stdout().contains("removed"), "{check}");
    };
    assert!(
        module.recycled(&module.name()).is_some(),
        "the snapshot was made out of a retired one"
    );
    assert_nothing_stays();

    // One with another subvolume in it is set aside, with the command that helps.
    assert!(subvolume(&path) && subvolume(&path.join("inner")), "subvolumes");
    fs::write(path.join("inner/f"), "x").expect("a file");
    push(&module, "more", &[0]);
    push(&module, "still more", &[0, 4]);
    let (in_root, staging, _) = left();
    assert_eq!((in_root.len(), staging.len()), (1, 0), "{in_root:?}");
    let told = module.server.run(&["check", "data"]).exits(&[1]);
    told.says("btrfs subvolume delete '/").says("unremovable-2019-08-02 12:00:00/inner'");
    let inner = module.root.join(&in_root[0]).join("inner");
    let gone = tool("btrfs").args(["-q", "subvolume", "delete"]).arg(&inner).status();
    assert!(gone.is_ok_and(|gone| gone.success()));
    module.server.run(&["rotate", "data", "--purge"]);
    assert_nothing_stays();

    // What an earlier version retired, and what stuck in staging, goes, too.
    for place in ["staging/recycled", "expired/2019-08-02 12:00:00"] {
        assert!(subvolume(&module.private(place)), "a subvolume");
    }
    push(&module, "at last", &[0]);
    push(&module, "really", &[0]);
    assert!(!module.private("expired/2019-08-02 12:00:00").exists());
    assert_nothing_stays();
}

#[test]
fn a_snapshot_with_an_immutable_file_is_set_aside_once() {
    only_hard_links!("a file of a snapshot cannot be removed");
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
    slow!();
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

/// A retired snapshot.
fn retired(module: &Simulated) -> std::path::PathBuf {
    push(module, "0", &[0]);
    let first = module.name();
    push(module, "1", &[0]);
    module.private("expired").join(first)
}

#[test]
fn everything_in_the_way_is_told_with_its_command() {
    slow!();
    only_hard_links!("what lies inside a snapshot, which is read-only");
    let module = Simulated::new(Module::new(), EXPIRING);
    let inside = retired(&module);
    for directory in ["mounted", "below"] {
        fs::create_dir(inside.join(directory)).expect("a directory");
    }
    for file in ["bound", "below/fixed", "below/also fixed"] {
        tree::write(&inside.join(file), "in this snapshot only");
    }
    let Some(directory) = Mount::tmpfs(&inside.join("mounted")) else { return };
    let Some(file) = Mount::bind(&inside.join("file"), &inside.join("bound")) else { return };
    let fixed = ["below/fixed", "below/also fixed"];
    if !fixed.iter().all(|file| flag(&inside.join(file), "+i")) {
        return;
    }
    let run = module.server.run(&["rotate", "data", "--purge"]).exits(&[4]);
    assert!(!run.stderr().contains("on one file system"), "a wrong cause: {run}");
    let set_aside = entries(&module.private("unremovable"));
    assert_eq!(set_aside.len(), 1, "{set_aside:?}");
    assert_eq!(entries(&module.private("staging")), [""; 0]);
    let tree = module.private("unremovable").join(&set_aside[0]);
    let again = module.server.run(&["rotate", "data", "--purge"]).exits(&[4]);
    let check = module.server.run(&["check", "data"]).exits(&[1]);
    for output in [run.stderr(), again.stderr(), check.stdout()] {
        for name in ["mounted", "bound"] {
            let command = format!("run `umount {}`", tree.join(name).display());
            assert!(output.contains(&command), "{command}: {output}");
        }
        let command = format!("run `chattr -R -i {}`", tree.display());
        assert!(output.contains(&command), "{command}: {output}");
        assert!(!output.contains("subvolume"), "{output}");
    }
    check.says("rotate data --purge");

    // What was told is enough.
    for name in ["mounted", "bound"] {
        Run::of(tool("umount").arg(tree.join(name))).exits(&[0]);
    }
    assert!(flag(&tree.join("below"), "-i") && fixed.iter().all(|f| flag(&tree.join(f), "-i")));
    module.server.run(&["rotate", "data", "--purge"]).exits(&[0, 4]);
    assert_eq!(entries(&module.private("unremovable")), [""; 0]);
    drop((directory, file));
}

#[test]
fn a_subvolume_inside_a_snapshot_is_told_as_that() {
    only_hard_links!("what lies inside a snapshot, which is read-only");
    let Some(file_system) = FileSystem::with(Kind::Btrfs, 160, &[]) else { return };
    if !have(&["btrfs"]) {
        return;
    }
    let module = Simulated::new(Module::on(&file_system), EXPIRING);
    let path = retired(&module).join("sub");
    Run::of(tool("btrfs").args(["-q", "subvolume", "create"]).arg(&path)).exits(&[0]);
    tree::write(&path.join("file"), "in the subvolume");
    let run = module.server.run(&["rotate", "data", "--purge"]).exits(&[4]);
    let run = run.says("sub: it is a btrfs subvolume; run `btrfs subvolume delete /");
    assert!(!run.stderr().contains("on one file system"), "a wrong cause: {run}");
}

#[test]
fn check_names_each_snapshot_that_stays_in_place() {
    slow!();
    let module = Simulated::new(Module::new(), EXPIRING);
    let mut fixed = Vec::new();
    for number in 0..3 {
        push(&module, &number.to_string(), &[0]);
        let path = module.snapshot(&module.name());
        if number < 2 && !flag(&path, "+i") {
            return;
        }
        fixed.push(path);
    }
    push(&module, "3", &[0]);
    let check = module.server.run(&["check", "data"]).exits(&[1]);
    for path in &fixed[..2] {
        let command = format!("run `chattr -R -i {}`", path.display());
        assert!(check.stdout().contains(&command), "{command}: {check}");
    }
    assert!(fixed[..2].iter().all(|path| flag(path, "-i")));
}
