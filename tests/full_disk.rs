//! A disk without free blocks or inodes: no snapshot, but none lost either, and all is well
//! again once there is space.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use support::aftermath::{OLD, ROTATING, assert_nothing_is_half, assert_the_next_run_finishes, fingerprints};
use support::file_system::{FileSystem, Kind};
use support::fingerprint::Fingerprint;
use support::module::Module;
use support::run::Run;
use support::tree;

/// Takes all the space there is; returns the files that hold it.
fn fill(directory: &Path) -> Vec<PathBuf> {
    let mut fillers = Vec::new();
    for size in [1 << 20, 1 << 16, 1 << 12, 1 << 10, 1] {
        let path = directory.join(format!("filler-{size}"));
        let mut file = File::create(&path).expect("a file");
        fillers.push(path);
        while file.write_all(&vec![b'x'; size]).and_then(|()| file.sync_data()).is_ok() {}
    }
    fillers
}

fn assert_a_full_disk_harms_nothing(module: &Module, before: &[(String, Fingerprint)]) {
    let run = module.run_hook().exits(&[1]);
    assert!(run.stderr().to_lowercase().contains("space"), "{run}");
    assert_eq!(module.snapshots(), OLD);
    assert_nothing_is_half(module, before, "a full disk");
    assert_eq!(module.left_over("staging"), 0, "staging is cleaned up at once");
    // And again, since a hook runs after every push.
    module.run_hook().exits(&[1]);
    assert_eq!(module.snapshots(), OLD);
    let check = module.run(&["check", "data"]);
    assert!(matches!(check.code(), Some(1 | 2)), "a failure has to show: {check}");
}

#[test]
fn a_failure_is_remembered_even_where_the_usual_place_for_that_is_full() {
    let Some(file_system) = FileSystem::with(Kind::Ext4, 16, &["-m", "0", "-b", "1024"]) else { return };
    let (module, _) = demanding_module(&file_system);
    let state = file_system.mount_point.join("state");
    fs::create_dir(&state).expect("a directory");
    fill(&file_system.mount_point);

    Run::of(module.hook().env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", &state)).exits(&[1]);

    let check = Run::of(module.command(&["check", "data"]).env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", &state));
    assert!(matches!(check.code(), Some(1 | 2)), "a failure has to show: {check}");
}

/// Directories cost blocks and inodes, files only names.
fn demanding_module(file_system: &FileSystem) -> (Module, Vec<(String, Fingerprint)>) {
    let module = Module::on(file_system);
    module.write_policy(ROTATING);
    for name in OLD {
        module.make_old_snapshot(name);
    }
    tree::numbered(&module.latest, 120, 1);
    let before = fingerprints(&module);
    (module, before)
}

#[test]
fn a_disk_without_free_blocks_harms_nothing_and_recovers() {
    let Some(file_system) = FileSystem::with(Kind::Ext4, 16, &["-m", "0", "-b", "1024"]) else { return };
    let (module, before) = demanding_module(&file_system);
    let fillers = fill(&file_system.mount_point);

    assert_a_full_disk_harms_nothing(&module, &before);

    for filler in fillers {
        fs::remove_file(filler).expect("removed");
    }
    assert_the_next_run_finishes(&module, "space is free again");
}

#[test]
fn a_disk_without_free_inodes_harms_nothing_and_recovers() {
    let Some(file_system) = FileSystem::with(Kind::Ext4, 16, &["-m", "0", "-N", "512"]) else { return };
    let (module, before) = demanding_module(&file_system);
    let fillers = file_system.mount_point.join("fillers");
    fs::create_dir(&fillers).expect("a directory");
    let made = (0..).take_while(|number| File::create(fillers.join(number.to_string())).is_ok()).count();
    // Enough for our own files, not for a hundred directories.
    for number in made - 40..made {
        fs::remove_file(fillers.join(number.to_string())).expect("removed");
    }

    assert_a_full_disk_harms_nothing(&module, &before);

    fs::remove_dir_all(&fillers).expect("removed");
    assert_the_next_run_finishes(&module, "inodes are free again");
}
