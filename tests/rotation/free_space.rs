//! `free_space`: what goes, and what never does, when the disk gets full.

use crate::support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use support::file_system::{FileSystem, Kind};
use support::module::Module;
use support::run::Run;
use support::time::wait_until;
use support::{have, tree};

const MEBIBYTE: usize = 1 << 20;

/// Random enough that no file system stores it in less.
fn write_mebibytes(path: &Path, count: usize) {
    let mut random = support::random::Random::new(count as u64);
    let mut file = File::create(path).expect("a file");
    for _ in 0..count {
        file.write_all(&random.bytes(MEBIBYTE)).expect("written");
    }
    file.sync_all().expect("synced");
}

/// Old snapshots on a small disk, with so many MiB of their own each: ten days of 2020.
fn module(file_system: &FileSystem, policy: &str) -> (Module, Vec<String>) {
    let module = Module::on(file_system);
    module.write_policy(&format!("[defaults]\nmin_age = \"0s\"\ntime_zone = \"UTC\"\n{policy}"));
    let names: Vec<String> = (1..=8).map(|day| format!("2020-01-{day:02}T00-00-00Z")).collect();
    for name in &names {
        module.make_old_snapshot(name);
        write_mebibytes(&module.snapshot(name).join("data"), 4);
    }
    tree::small(&module.latest);
    (module, names)
}

fn free_mebibytes(path: &Path) -> u64 {
    let facts = rustix::fs::statvfs(path).expect("the file system");
    facts.f_bavail * facts.f_frsize / MEBIBYTE as u64
}

/// A policy that keeps every snapshot, but for `free_space`.
fn ask_for(module: &Module, free_space: &str) {
    module.write_policy(&format!(
        "[defaults]\n{ALL}min_age = \"0s\"\nfree_space = \"{free_space}\"\n"
    ));
}

/// Nine old snapshots with next to nothing of their own, on a small disk.
fn module_of_small_snapshots(file_system: &FileSystem) -> (Module, Vec<String>) {
    let module = Module::on(file_system);
    module.write_policy("[defaults]\nmin_age = \"0s\"\ntime_zone = \"UTC\"\n");
    let names: Vec<String> = (1..=9).map(|day| format!("2020-01-{day:02}T00-00-00Z")).collect();
    for name in &names {
        module.make_old_snapshot(name);
        tree::write(&module.snapshot(name).join("note"), name);
    }
    tree::small(&module.latest);
    (module, names)
}

const ALL: &str = "keep = { daily = \"always\" }\nmin_keep = 3\n";

#[test]
fn too_little_space_expires_the_oldest_first_with_warnings() {
    for kind in [Kind::Ext4.or_btrfs(), Kind::Btrfs] {
        let Some(file_system) = FileSystem::with(kind, 160, &[]) else { return };
        let (module, names) = module(&file_system, ALL);
        let free = free_mebibytes(&module.root);
        ask_for(&module, &format!("{}M", free / 2));
        module.run(&["rotate", "data"]).exits(&[0]);
        assert_eq!(module.snapshots(), names, "{kind:?}");

        let wanted = free + 6;
        ask_for(&module, &format!("{wanted}M"));
        let run = module.run(&["rotate", "data"]).exits(&[4]);
        let gone = names.len() - module.snapshots().len();
        assert!((1..=4).contains(&gone), "{kind:?}: {gone} of {}: {run}", names.len());
        assert_eq!(module.snapshots(), names[gone..], "{kind:?}: the oldest go first");
        for name in &names[..gone] {
            assert!(
                run.stderr().contains(&format!("{name} is expired although the policy keeps it")),
                "{run}"
            );
        }
        assert!(free_mebibytes(&module.root) >= wanted, "{kind:?}");
        assert_eq!(module.left_over("expired"), 0, "{kind:?}");
    }
}

#[test]
fn the_floors_pins_and_the_newest_hold_whatever_is_missing() {
    let Some(file_system) = FileSystem::with(Kind::Ext4.or_btrfs(), 96, &[]) else { return };
    let (module, names) = module(&file_system, ALL);
    module.run(&["rotate", "data"]).exits(&[0]);
    module.run(&["pin", "data", &names[1]]).exits(&[0]);
    ask_for(&module, "90%");
    for _ in 0..2 {
        module.run(&["rotate", "data"]).exits(&[4]).says("no snapshot may expire for it");
        let left = module.snapshots();
        assert!(left.contains(&names[1]) && left.contains(&names[7]), "{left:?}");
        assert_eq!(left.len(), 3, "min_keep: {left:?}");
    }
    module.run(&["check", "data"]).exits(&[1]).says("free_space");
}

#[test]
fn a_grace_ends_early_before_anything_more_expires() {
    let Some(file_system) = FileSystem::with(Kind::Ext4.or_btrfs(), 96, &[]) else { return };
    let (module, names) = module(
        &file_system,
        "keep = { yearly = 1 }\nmin_keep = 1\nmax_expire = 3\ngrace = \"30d\"\n",
    );
    module.run(&["rotate", "data"]).exits(&[4]);
    assert_eq!(module.retired().len(), 3, "within their grace");
    let free = free_mebibytes(&module.root);
    let policy = format!(
        "[defaults]\n{ALL}min_age = \"0s\"\ngrace = \"30d\"\ntime_zone = \"UTC\"\nfree_space = \"{}M\"\n",
        free + 6
    );
    module.write_policy(&policy);
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.retired().len(), 1, "the two oldest make room for 6 MiB");
    assert_eq!(module.snapshots().len(), names.len() - 3);
}

#[test]
fn a_paused_expiry_makes_no_room_and_says_so() {
    let Some(file_system) = FileSystem::with(Kind::Ext4.or_btrfs(), 96, &[]) else { return };
    let (module, names) = module(&file_system, ALL);
    module.run(&["rotate", "data"]).exits(&[0]);
    ask_for(&module, "90%");
    fs::write(module.private("state.toml"), "damaged").expect("written");
    // The first run sets the damaged file aside, the second finds the pause that this left.
    module.run_hook().exits(&[0]);
    module.run(&["rotate", "data"]).exits(&[4]).says("but nothing expires");
    assert_eq!(module.snapshots(), names);
}

/// Young partial ones, which stay for their age, are no complete ones that others could go for.
#[test]
fn partial_snapshots_do_not_count_towards_min_keep() {
    let Some(file_system) = FileSystem::with(Kind::Ext4.or_btrfs(), 96, &[]) else { return };
    let (module, names) = module(&file_system, ALL);
    module.run(&["rotate", "data"]).exits(&[0]);
    let now = chrono::Utc::now();
    for minutes in 1..=3 {
        let name = support::time::name_of(now - chrono::TimeDelta::minutes(minutes));
        module.make_old_snapshot(&format!("{name}-partial"));
    }
    module.write_policy(&format!("[defaults]\n{ALL}min_age = \"1h\"\nfree_space = \"90%\"\n"));
    module.run(&["rotate", "data"]).exits(&[4]);
    let complete: Vec<_> =
        module.snapshots().into_iter().filter(|name| !name.ends_with("-partial")).collect();
    assert_eq!(complete, names[5..], "min_keep of the complete ones");
}

#[test]
fn no_warning_once_the_last_expiry_freed_enough() {
    let Some(file_system) = FileSystem::with(Kind::Ext4.or_btrfs(), 96, &[]) else { return };
    let (module, names) = module(&file_system, ALL);
    module.run(&["rotate", "data"]).exits(&[0]);
    let wanted = free_mebibytes(&module.root) + 2;
    module.write_policy(&format!(
        "[defaults]\n{ALL}min_age = \"0s\"\nmax_expire = 1\nfree_space = \"{wanted}M\"\n"
    ));
    let run = module.run(&["rotate", "data", "--json"]).exits(&[4]);
    assert_eq!(module.snapshots(), names[1..], "{run}");
    assert!(free_mebibytes(&module.root) >= wanted, "{run}");
    let warnings = run.stderr().matches("warning: ").count();
    assert_eq!(warnings, 1, "that it went, and no more: {run}");
}

#[test]
fn a_snapshot_pinned_at_the_last_moment_stays() {
    let Some(file_system) = FileSystem::with(Kind::Ext4.or_btrfs(), 96, &[]) else { return };
    if !have(&["strace"]) {
        return;
    }
    let (module, names) = module(&file_system, ALL);
    module.run(&["rotate", "data"]).exits(&[0]);
    let wanted = free_mebibytes(&module.root) + 2;
    ask_for(&module, &format!("{wanted}M"));

    // It looks at the disk, and once more before each that goes; at that moment it is held up.
    let trace = module.directory.join("trace");
    let strace =
        ["strace", "-f", "-qq", "-o", trace.to_str().expect("UTF-8"), "-e", "trace=syncfs"];
    let slow = [&strace[..], &["-e", "inject=syncfs:delay_enter=2000000:when=2"]].concat();
    let mut rotation = module.command_through(&slow, &["rotate", "data"]);
    let rotation =
        rotation.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    wait_until("it has decided", || {
        fs::read_to_string(&trace).is_ok_and(|calls| calls.contains("= 0"))
    });
    module.run(&["pin", "data", &names[0]]).exits(&[0]);

    let run = Run::from_output("rotate", rotation.wait_with_output().expect("it ends")).exits(&[4]);
    assert_eq!(module.snapshots(), [&names[..1], &names[2..]].concat(), "{run}");
    assert!(run.stderr().contains(&format!("{} is expired although", names[1])), "{run}");
    assert!(free_mebibytes(&module.root) >= wanted, "{run}");
}

/// The space is taken by what is no snapshot's: to expire all of them would be in vain.
#[test]
fn nothing_goes_where_all_that_may_go_is_no_help() {
    only_hard_links!("sizes by numbers of links");
    let Some(file_system) = FileSystem::with(Kind::Ext4.or_btrfs(), 96, &[]) else { return };
    let (module, names) = module_of_small_snapshots(&file_system);
    write_mebibytes(&file_system.mount_point.join("foreign"), 50);
    let wanted = free_mebibytes(&module.root) + 20;
    ask_for(&module, &format!("{wanted}M"));
    let run = module.run(&["rotate", "data"]).exits(&[4]).says("would free");
    assert_eq!(module.snapshots(), names, "{run}");
    module.run(&["check", "data"]).exits(&[1]).says("free_space");
}

/// Only one of them holds what is missing, and it is not the first that may go.
#[test]
fn the_one_goes_that_frees_what_is_missing() {
    only_hard_links!("sizes by numbers of links");
    let Some(file_system) = FileSystem::with(Kind::Ext4.or_btrfs(), 96, &[]) else { return };
    let (module, names) = module_of_small_snapshots(&file_system);
    write_mebibytes(&module.snapshot(&names[3]).join("data"), 10);
    let wanted = free_mebibytes(&module.root) + 5;
    ask_for(&module, &format!("{wanted}M"));
    let run = module.run(&["rotate", "data"]).exits(&[4]);
    assert_eq!(module.snapshots(), [&names[..3], &names[4..]].concat(), "{run}");
}

/// Another module on the disk has to make room first.
#[test]
fn a_module_that_has_not_grown_waits_for_its_neighbours() {
    only_hard_links!("sizes by numbers of links");
    let Some(file_system) = FileSystem::with(Kind::Ext4.or_btrfs(), 96, &[]) else { return };
    let (module, names) = module(&file_system, ALL);
    module.run(&["rotate", "data"]).exits(&[0]);
    let other = file_system.mount_point.join("other");
    fs::create_dir_all(other.join(".rsyncd-snapshot")).expect("another root");
    let memory = module.state_directory().join("other.toml");
    let path = other.to_str().expect("UTF-8");
    let text = format!(
        "module_path = \"{path}/latest\"\nsnapshot_root = \"{path}\"\nupdated = \"2025-01-01T00:00:00Z\"\n"
    );
    fs::write(memory, text).expect("what is remembered of it");
    let wanted = free_mebibytes(&module.root) + 12;
    ask_for(&module, &format!("{wanted}M"));
    let run = module.run(&["rotate", "data"]).exits(&[4]).says("other modules are on that disk");
    assert_eq!(module.snapshots(), names, "{run}");

    // It has grown itself: the newest state alone takes as much.
    write_mebibytes(&module.latest.join("new"), 5);
    let wanted = free_mebibytes(&module.root) + 12;
    ask_for(&module, &format!("{wanted}M"));
    let run = module.run(&["rotate", "data"]).exits(&[4]);
    assert!(module.snapshots().len() < names.len(), "{run}");
}
