//! A module, its snapshots and other volumes within one another: by name, through symbolic links,
//! as subvolumes. What would snapshot snapshots or expire the live tree is refused.

use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use support::file_system::{FileSystem, Kind};
use support::module::{Module, NAME, visible};
use support::run::{Run, tool};
use support::{fingerprint, have, tree};

/// Keeps nothing that it need not keep.
const GREEDY: &str = "[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\nmin_age = \"0s\"\n";

/// Names that snapshots have: ours, a partial one, one of the Python program.
const SNAPSHOT_NAMES: [&str; 3] =
    ["2020-01-01T00-10-00Z", "2020-01-01T00-10-00Z-partial", "2020-01-01 00:10:00"];

/// A module whose directory is called `name`, beside an old snapshot.
fn module_called(name: &str) -> Module {
    let mut module = Module::new();
    let path = module.root.join(name);
    fs::rename(&module.latest, &path).expect("renamed");
    module.latest = path;
    module.write_rsyncd_conf(&module.rsyncd_conf_section(NAME, &module.latest));
    tree::small(&module.latest);
    module.make_old_snapshot("2001-02-03T04-05-06Z");
    module.write_policy(GREEDY);
    module
}

#[test]
fn a_module_that_is_called_like_a_snapshot_is_refused_and_left_alone() {
    for name in SNAPSHOT_NAMES {
        let module = module_called(name);
        let before = fingerprint::of(&module.root);
        let path = module.latest.to_str().expect("UTF-8");

        for run in [
            module.run_hook(),
            module.run_hook_after(12),
            module.run(&["snapshot", "data"]),
            module.run(&["rotate", "data"]),
            module.run(&["rotate", "data", "--confirm"]),
            module.run(&["rotate", path]),
            module.run(&["plan", "data"]),
        ] {
            run.exits(&[2]).says(name).says("call the module's directory something else");
        }

        fingerprint::assert_equal(&before, &fingerprint::of(&module.root), "the refused root");
        module.run(&["check", "data"]).exits(&[2]).says("something else");
    }
}

#[test]
fn a_module_named_like_a_snapshot_needs_another_root() {
    for name in SNAPSHOT_NAMES {
        let module = module_called(name);
        let before = fingerprint::of(&module.root);
        let elsewhere = module.directory.join("elsewhere");
        module.write_policy(&format!("{GREEDY}snapshot_root = \"{}\"\n", elsewhere.display()));
        for text in ["a", "b"] {
            tree::write(&module.latest.join("new"), text);
            module.run_hook().exits(&[0]);
            module.run(&["rotate", "data"]).exits(&[0]);
        }
        let newest = visible(&elsewhere).pop().expect("a snapshot");
        fingerprint::assert_same(&module.latest, &elsewhere.join(newest));
        fs::remove_file(module.latest.join("new")).expect("removed");
        assert_eq!(
            before.len(),
            fingerprint::of(&module.root).len(),
            "nothing beside the module is touched"
        );
    }
}

/// How often `name` occurs below `directory`: a tree that is cloned into itself has it often.
fn occurrences(directory: &Path, name: &str) -> usize {
    let entries =
        fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    let count = |entry: fs::DirEntry| {
        let below = match entry.file_type().expect("a type").is_dir() {
            true => occurrences(&entry.path(), name),
            false => 0,
        };
        below + usize::from(entry.file_name() == name)
    };
    entries.map(count).sum()
}

#[test]
fn a_snapshot_root_that_leads_into_the_module_through_a_link_is_refused() {
    // Where the link points in the module, and the snapshot root by way of the link.
    let ways: [(&str, &str); 6] = [
        ("", "link"),
        ("", "link/"),
        ("documents", "link"),
        ("", "link/documents"),
        ("", "link/not there yet"),
        ("documents/letters", "link/not there yet"),
    ];
    for (target, way) in ways {
        let module = Module::new();
        tree::small(&module.latest);
        symlink(module.latest.join(target), module.directory.join("link")).expect("a link");
        expect_refusal_of(&module, &module.directory.join(way), &[2]).says("inside the module");
    }
}

#[test]
fn a_snapshot_root_that_is_a_dangling_link_is_refused() {
    let module = Module::new();
    tree::small(&module.latest);
    let link = module.directory.join("link");
    symlink(module.latest.join("not there yet"), &link).expect("a link");
    expect_refusal_of(&module, &link, &[2]);
    assert!(!module.latest.join("not there yet").exists());
}

#[test]
fn links_do_not_hide_a_root_inside_the_module() {
    let mut module = Module::new();
    tree::small(&module.latest);
    let (real, link) = (module.latest.clone(), module.directory.join("link"));
    symlink(&real, &link).expect("a link");
    module.latest = link;
    for root in [real.join("snapshots"), real.clone(), module.latest.join("documents")] {
        expect_refusal_of(&module, &root, &[2]).says("inside the module");
    }
}

/// The hook must refuse `root` with one of `codes`, within seconds and without a trace.
#[track_caller]
fn expect_refusal_of(module: &Module, root: &Path, codes: &[i32]) -> Run {
    module.write_policy(&format!("[defaults]\nsnapshot_root = \"{}\"\n", root.display()));
    let before = fingerprint::of(&module.root);
    let run = Run::of(&mut module.hook_through(&["timeout", "-s", "KILL", "20"]));
    assert_eq!(occurrences(&module.root, "read me"), 1, "cloned into itself: {run}");
    fingerprint::assert_equal(
        &before,
        &fingerprint::of(&module.root),
        &format!("the module: {run}"),
    );
    let check = module.run(&["check", "data"]);
    assert_eq!(check.code(), Some(2), "a refusal has to show: {check}");
    run.exits(codes)
}

/// Makes a subvolume at `path`; false, with the reason said, without the tool for that.
fn make_subvolume(path: &Path) -> bool {
    if !have(&["btrfs"]) {
        return false;
    }
    Run::of(tool("btrfs").args(["subvolume", "create"]).arg(path)).exits(&[0]);
    true
}

fn btrfs_module() -> Option<(FileSystem, Module)> {
    let file_system = FileSystem::new(Kind::Btrfs)?;
    let module = Module::on(&file_system);
    tree::small(&module.latest);
    Some((file_system, module))
}

/// The paths in snapshot `name`.
fn paths(module: &Module, name: &str) -> Vec<PathBuf> {
    fingerprint::contents(&module.snapshot(name)).into_keys().collect()
}

#[test]
fn a_subvolume_inside_the_module_is_left_out() {
    let Some((_file_system, module)) = btrfs_module() else { return };
    let nested = module.latest.join("documents/volume");
    if !make_subvolume(&nested) {
        return;
    }
    tree::write(&nested.join("not backed up"), "x");

    let run = module.run_hook().exits(&[4]).says("left out").says("documents/volume");

    let names = module.snapshots();
    assert_eq!(names.len(), 1, "{run}");
    let found = paths(&module, &names[0]);
    assert!(!found.iter().any(|path| path.ends_with("not backed up")), "{found:?}");
    for there in ["read me", "documents/report", "documents/letters/to you"] {
        assert!(found.iter().any(|path| path.ends_with(there)), "no {there}: {found:?}");
    }
    assert_eq!(module.list()[0]["skipped_mounts"], serde_json::json!(["documents/volume"]));

    // Nor is what happens in it.
    for text in ["more", "and more"] {
        tree::write(&nested.join(text), text);
        let made = module.json(&["snapshot", "data", "--json"]);
        assert_eq!(
            (&made["outcome"], &made["name"]),
            (&"unchanged".into(), &names[0].as_str().into())
        );
        module.expect_no_snapshot();
    }
    // Beside it a change is one, and the subvolume is told of again.
    tree::write(&module.latest.join("documents/new"), "x");
    module.run_hook().exits(&[4]).says("documents/volume");
    assert_eq!(module.snapshots().len(), 2);
    assert!(nested.join("not backed up").exists());
}

#[test]
fn a_subvolume_that_appears_or_goes_is_a_change() {
    let Some((_file_system, module)) = btrfs_module() else { return };
    module.expect_snapshot();
    let nested = module.latest.join("volume");
    if !make_subvolume(&nested) {
        return;
    }
    module.run_hook().exits(&[4]).says("volume");
    assert_eq!(module.snapshots().len(), 2);
    Run::of(tool("btrfs").args(["subvolume", "delete"]).arg(&nested)).exits(&[0]);
    module.expect_snapshot();
    module.expect_no_snapshot();
}
