//! `restore` where the rest of the program cannot work: a damaged or moved root, a broken policy, a
//! rescue system, an ordinary user, a read-only disk.

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::file_system::{FileSystem, Kind};
use support::module::Module;
use support::run::{Run, copy_program, tool};
use support::subvolumes::are_subvolumes;
use support::{AS_ORDINARY_USER, BINARY, ORDINARY_USER, exact, have, is_root, root, tree};

/// Restores everything out of `arguments` into a new directory, and compares.
#[track_caller]
fn assert_restores(module: &Module, snapshot: &Path, arguments: &[&str], code: i32) -> Run {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let to = module.directory.join(format!("restored {number}"));
    let mut command = module.command(&["restore"]);
    let run = Run::of(command.args(arguments).arg("--to").arg(&to)).exits(&[code]);
    exact::assert_same(snapshot, &to);
    run
}

fn full_module() -> (Module, String, PathBuf) {
    let module = Module::new();
    tree::every_type(&module.latest);
    let name = module.expect_snapshot();
    let snapshot = module.snapshot(&name);
    (module, name, snapshot)
}

#[test]
fn a_damaged_root_can_be_restored_from() {
    slow!();
    let (module, name, snapshot) = full_module();
    let path = snapshot.display().to_string();
    let ways = [&["data", &name][..], &["data", "newest"], &[&path]];
    let restore_all = || {
        for arguments in ways {
            let to = module.directory.join("restored");
            let _ = fs::remove_dir_all(&to);
            let mut command = module.command(&["restore"]);
            let run = Run::of(command.args(arguments).arg("--to").arg(&to));
            assert!(matches!(run.code(), Some(0 | 4)), "{arguments:?}: {run}");
            exact::assert_same(&snapshot, &to);
        }
    };
    fs::write(module.private("state.toml"), "no toml [").expect("damaged");
    restore_all();
    fs::remove_file(module.private(&format!("records/{name}.toml"))).expect("removed");
    let removed = fs::remove_file(module.private(&format!("index/{name}")));
    assert!(removed.is_ok() || are_subvolumes(), "only trees of hard links have an index");
    restore_all();
    fs::write(module.private("root.toml"), "\0\0\0").expect("damaged");
    restore_all();
    fs::remove_dir_all(module.private("records")).expect("removed");
    restore_all();
    fs::remove_dir_all(module.private("")).expect("removed");
    restore_all();
}

#[test]
fn a_broken_policy_does_not_hinder_a_restore() {
    slow!();
    let (module, name, snapshot) = full_module();
    module.write_policy("[defaults]\nkep = 3\n");
    for arguments in [&["data", &name][..], &["data", "newest"], &["data", "--at", "2100-01-01"]] {
        assert_restores(&module, &snapshot, arguments, 0);
    }
    fs::remove_file(&module.policy).expect("removed");
    assert_restores(&module, &snapshot, &["data", &name], 0);
}

#[test]
fn a_rescue_system_restores_from_a_moved_disk() {
    slow!();
    let (module, name, _) = full_module();
    // Mounted elsewhere, on a machine that knows neither the module nor the daemon.
    let moved = module.directory.join("mnt");
    fs::rename(&module.root, &moved).expect("moved");
    fs::remove_file(&module.rsyncd_conf).expect("removed");
    fs::remove_dir_all(module.state_directory()).expect("forgotten");
    let (root, latest) = (moved.display().to_string(), moved.join("latest").display().to_string());
    let snapshot = moved.join(&name);
    let path = snapshot.display().to_string();
    for arguments in [
        &[&*root, &name][..],
        &[&latest, &name],
        &[&root, "newest"],
        &[&path],
        &[&root, "--at", "2100-01-01"],
    ] {
        assert_restores(&module, &snapshot, arguments, 0);
    }
    let mut command = module.command(&["restore", &root, &name, "--in-place", "read me"]);
    Run::of(&mut command).exits(&[2]).says("restore with --to");
    // An ordinary user removes nothing from the directories of the tree that may not be written.
    // The files keep their modes, since the snapshot shares them.
    let directories = ["-type", "d", "-exec", "chmod", "u+rwx", "{}", ";"];
    Run::of(tool("find").arg(&latest).args(directories)).exits(&[0]);
    fs::remove_dir_all(&latest).expect("removed");
    assert_restores(&module, &snapshot, &[&latest, &name], 0);
}

#[test]
fn a_read_only_disk_can_be_restored_from() {
    let Some(file_system) = FileSystem::new(Kind::Ext4) else { return };
    let module = Module::on(&file_system);
    tree::every_type(&module.latest);
    let name = module.expect_snapshot();
    let mount = |options: &str| {
        Run::of(tool("mount").args(["-o", options]).arg(&file_system.mount_point)).exits(&[0]);
    };
    mount("remount,ro");
    assert_restores(&module, &module.snapshot(&name), &["data", &name], 0);
    mount("remount,rw");
}

/// Lets an ordinary user run the program and read the root. Returns a directory of that user.
pub(crate) fn open_to_an_ordinary_user(module: &mut Module) -> PathBuf {
    let program = module.directory.join("program");
    copy_program(Path::new(BINARY), &program);
    module.server.program = program;
    tree::set_mode(&module.root, 0o755);
    let own = module.directory.join("own");
    fs::create_dir(&own).expect("a directory");
    std::os::unix::fs::chown(&own, Some(ORDINARY_USER), Some(ORDINARY_USER)).expect("chown");
    own
}

#[test]
fn an_ordinary_user_restores_what_may_be_read() {
    if !is_root() || !have(&["setpriv"]) {
        return;
    }
    let mut module = Module::new();
    tree::small(&module.latest);
    tree::set_mode(&module.latest.join("documents"), 0o555);
    tree::write(&module.latest.join("closed"), "x");
    tree::set_mode(&module.latest.join("closed"), 0o600);
    let name = module.expect_snapshot();
    let own = open_to_an_ordinary_user(&mut module);
    let restore = |more: &[&str]| {
        let mut command = module.command_through(&AS_ORDINARY_USER, &["restore"]);
        command.arg(module.snapshot(&name)).args(more).arg("--to").arg(own.join("new"));
        command.env_remove("HOME").env_remove("PATH");
        Run::of(&mut command)
    };
    let run = restore(&["documents", "read me"]);
    assert!(matches!(run.code(), Some(0 | 4)), "{run}");
    let text = fs::read_to_string(own.join("new/documents/letters/to you")).expect("a file");
    assert_eq!(text, "third\n");
    restore(&[]).exits(&[1]).says("closed").says("Permission denied");
    // A root that may be passed and not listed.
    tree::set_mode(&module.root, 0o711);
    fs::remove_dir_all(own.join("new")).expect("removed");
    let run = restore(&["documents", "read me"]);
    assert!(matches!(run.code(), Some(0 | 4)), "{run}");
    assert!(own.join("new/documents/letters/to you").exists());
    let missing = module.root.join("2001-01-01T00-00-00Z");
    let mut command = module.command_through(&AS_ORDINARY_USER, &["restore"]);
    Run::of(command.arg(missing).arg("--to").arg(own.join("other"))).exits(&[1, 2]);
}

#[test]
fn a_module_whose_directory_is_gone_is_restored_by_its_name() {
    slow!();
    let (module, name, snapshot) = full_module();
    let away = module.directory.join("away");
    fs::rename(&module.latest, &away).expect("moved");
    let later = ["data", "--at", "2100-01-01"];
    for arguments in [&["data", &name][..], &["data", "newest"], &later, &[&name]] {
        assert_restores(&module, &snapshot, arguments, 0);
    }
    let run = module.run(&["restore", "data", &name, ".", "--in-place"]).exits(&[1]);
    let told = run.stderr();
    let make = told.split('`').find(|part| part.contains("install -d ")).expect("a command");
    // What was the module is no place for a restore.
    let mut command = module.command(&["restore", "data", &name, "--to"]);
    Run::of(command.arg(&module.latest)).exits(&[2]).says("--in-place");
    Run::of(tool("sh").args(["-c", make])).exits(&[0]);
    module.run(&["restore", "data", &name, ".", "--in-place"]).exits(&[0, 4]);
    exact::assert_same(&snapshot, &module.latest);
}

#[test]
fn a_restore_in_place_without_records_says_what_to_do_first() {
    let (module, name, snapshot) = full_module();
    fs::remove_dir_all(module.private("")).expect("removed");
    let before = exact::of(&module.root);
    let order = ["restore", "data", &name, ".", "--in-place"];
    let run = module.run(&order).exits(&[2]).says("nothing was restored");
    run.says("snapshot data");
    assert_eq!(exact::of(&module.root), before);
    module.run(&["snapshot", "data"]).exits(&[0, 4]);
    fs::remove_file(module.latest.join("read me")).expect("removed");
    module.run(&order).exits(&[0, 4]);
    exact::assert_same(&snapshot, &module.latest);
}

#[test]
fn a_file_lends_no_rights_of_another_owner() {
    if !is_root() || !have(&["setpriv"]) {
        return;
    }
    let mut module = Module::new();
    let lending = |name: &str, owner: u32, group: u32, mode: u32| {
        let path = module.latest.join(name);
        tree::write(&path, name);
        std::os::unix::fs::chown(&path, Some(owner), Some(group)).expect("chown");
        tree::set_mode(&path, mode);
    };
    lending("both", 1_234, 1_234, 0o6_755);
    lending("own", ORDINARY_USER, ORDINARY_USER, 0o6_755);
    lending("group", ORDINARY_USER, 1_234, 0o6_755);
    fs::create_dir(module.latest.join("directory")).expect("a directory");
    tree::set_mode(&module.latest.join("directory"), 0o2_755);
    let name = module.expect_snapshot();
    let own = open_to_an_ordinary_user(&mut module);
    for expected in ["2", "0"] {
        let mut command = module.command_through(&AS_ORDINARY_USER, &["restore", "--json"]);
        command.arg(module.snapshot(&name)).arg("--to").arg(own.join("new"));
        let run = Run::of(&mut command).exits(&[0, 4]);
        assert_eq!(run.json()["dropped_rights"].to_string(), expected, "{run}");
        assert_eq!(run.stderr().contains("set-user-ID"), expected == "2", "{run}");
        let mode = |name: &str| {
            let metadata = fs::metadata(own.join("new").join(name)).expect("a file");
            std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7_777
        };
        assert_eq!([mode("both"), mode("own"), mode("group")], [0o755, 0o6_755, 0o4_755]);
    }
    // root gives each its owner.
    let to = module.directory.join("restored");
    let mut command = module.command(&["restore", "data", &name, "--to"]);
    Run::of(command.arg(&to)).exits(&[0]);
    exact::assert_same(&module.snapshot(&name), &to);
}

#[test]
fn a_restore_needs_no_home_no_path_and_no_syslog() {
    if !root() {
        return;
    }
    let (module, name, snapshot) = full_module();
    let to = module.directory.join("restored");
    let mut command = Command::new(&module.program);
    command.env_clear().current_dir("/").arg("--rsyncd-conf").arg(&module.rsyncd_conf);
    command.arg("--config").arg(&module.policy);
    command.env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", module.state_directory());
    Run::of(command.args(["restore", "data", &name, "--to"]).arg(&to)).exits(&[0]);
    exact::assert_same(&snapshot, &to);
}
