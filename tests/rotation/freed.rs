//! What `plan` promises to be free, against what becomes free.

use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::file_system::{FileSystem, Kind, Mount};
use support::history::write_record;
use support::module::Module;
use support::tree;

/// Keeps the first of each of the last three days.
const THREE_DAYS: &str = "[defaults]\nkeep = { daily = 3 }\nmin_keep = 1\ntime_zone = \"UTC\"\n";

/// Bytes that the file system has free.
fn free_bytes(file_system: &FileSystem) -> u64 {
    nix::unistd::sync();
    let statvfs = rustix::fs::statvfs(&file_system.mount_point).expect("statvfs");
    statvfs.f_bfree * statvfs.f_frsize
}

/// Files of this size tell a link that was counted wrongly from the blocks of our own small files.
const FILE_BYTES: usize = 256 << 10;

fn write_file(path: &Path) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, vec![7; FILE_BYTES]).expect("a file");
}

#[test]
fn the_bytes_that_the_plan_promises_become_free() {
    only_hard_links!("sizes by numbers of links");
    let Some(file_system) = FileSystem::new(Kind::Ext4) else { return };
    let module = Module::on(&file_system);
    tree::small(&module.latest);
    write_file(&module.latest.join("kept"));
    let newest = module.expect_snapshot();
    let old: Vec<String> = (1..=4).map(|day| format!("2001-02-0{day}T00-00-00Z")).collect();
    for name in &old {
        module.make_old_snapshot(name);
        write_file(&module.snapshot(name).join("alone"));
        fs::hard_link(module.snapshot(&newest).join("kept"), module.snapshot(name).join("kept"))
            .expect("a link");
    }
    let link = |from: &Path, to: &Path| fs::hard_link(from, to).expect("a link");
    // Shared only among what goes; five names, one file.
    write_file(&module.snapshot(&old[0]).join("among"));
    for name in &old[1..] {
        link(&module.snapshot(&old[0]).join("among"), &module.snapshot(name).join("among"));
    }
    link(&module.snapshot(&old[0]).join("among"), &module.snapshot(&old[0]).join("sub/twice"));
    // Shared with something beside the snapshots, by a link and by a symbolic link.
    let outside = file_system.mount_point.join("outside");
    write_file(&outside.join("linked"));
    write_file(&outside.join("pointed at"));
    link(&outside.join("linked"), &module.snapshot(&old[1]).join("linked outside"));
    symlink(outside.join("pointed at"), module.snapshot(&old[1]).join("a symlink"))
        .expect("a symlink");
    symlink(&outside, module.snapshot(&old[2]).join("a symlink to a directory"))
        .expect("a symlink");
    // Retired by a run that was killed.
    fs::rename(module.snapshot(&old[3]), module.private("expired").join(&old[3])).expect("retired");
    module.write_policy(THREE_DAYS);

    let plan = module.json(&["plan", "data", "--json"]);
    let promised = plan["bytes_freed"].as_u64().expect("bytes");
    assert_eq!((&plan["retired"], &plan["unreadable"]), (&1.into(), &0.into()));
    // Four directories with one below, "sub/old" in each, and what is linked above.
    assert_eq!(plan["entries_freed"], 4 * 3 + 4 * 3 + 1 + 3);
    let small = 20 * 4_096;
    let large = 5 * FILE_BYTES as u64;
    assert!((large..large + small).contains(&promised), "{promised}");
    module.run(&["plan", "data"]).exits(&[0]).says("3 snapshots and 1 retired one frees 1.2");

    let before = free_bytes(&file_system);
    module.run(&["rotate", "data", "--purge"]).exits(&[0]);
    let gained = free_bytes(&file_system) - before;
    assert_eq!(module.snapshots(), [newest.as_str()]);
    assert!(gained.abs_diff(promised) <= 32 << 10, "promised {promised}, gained {gained}");

    let nothing = module.json(&["plan", "data", "--json"]);
    assert_eq!((&nothing["bytes_freed"], &nothing["entries_freed"]), (&0.into(), &0.into()));
}

#[test]
fn large_trees_are_counted_only_when_asked_for() {
    only_hard_links!("sizes by numbers of links");
    let (module, _) = Module::with_snapshot();
    let old = "2001-02-03T04-05-06Z";
    module.make_old_snapshot(old);
    write_record(&module, old, 500_001);
    module.write_policy(THREE_DAYS);
    let plan = module.json(&["plan", "data", "--json"]);
    assert!(plan["bytes_freed"].is_null() && plan["entries_freed"].is_null(), "{plan}");
    assert_eq!(
        (&plan["snapshots"][0]["name"], &plan["snapshots"][0]["entries"]),
        (&old.into(), &500_001.into())
    );
    module.run(&["plan", "data"]).exits(&[0]).says("--sizes counts them");
    let plan = module.json(&["plan", "data", "--json", "--sizes"]);
    assert_eq!(plan["entries_freed"], 3, "{plan}");
    assert!(plan["bytes_freed"].as_u64() > Some(0), "{plan}");
    write_record(&module, old, 500_000);
    assert_eq!(module.json(&["plan", "data", "--json"])["entries_freed"], 3);
}

#[test]
fn a_tree_is_counted_up_to_its_mounts() {
    slow!();
    only_hard_links!("sizes by numbers of links");
    let (module, _) = Module::with_snapshot();
    let old = "2001-02-03T04-05-06Z";
    module.make_old_snapshot(old);
    tree::deep(&module.snapshot(old).join("deep"), 1_500, 200);
    let mount_point = module.snapshot(old).join("mounted");
    fs::create_dir(&mount_point).expect("a mount point");
    module.write_policy(THREE_DAYS);
    let entries = || module.json(&["plan", "data", "--json"])["entries_freed"].clone();
    // The tree with "sub/old" and the directories "deep" and "mounted", and two for each level.
    assert_eq!(entries(), 3 + 2 + 2 * 1_500);

    let Some(_mount) = Mount::tmpfs(&mount_point) else { return };
    fs::write(mount_point.join("elsewhere"), "x").expect("a file");
    assert_eq!(entries(), 3 + 1 + 2 * 1_500, "a mount point is none of the tree's");
    let plan = module.json(&["plan", "data", "--json"]);
    assert_eq!(plan["unreadable"], 0, "{plan}");
}
