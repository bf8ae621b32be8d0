//! Modules and snapshots that are btrfs subvolumes, for the same tests that run over hard links.
//!
//! With `RSYNCD_SNAPSHOT_TEST_METHOD=btrfs` and a temporary directory on btrfs, the module
//! directory of a test is a subvolume, and so its snapshots are. A snapshot is read-only then, so a
//! test that removes, moves, copies or edits one does that by a function of this file, which works
//! for both methods. `tests/run` runs the tests in both ways.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::module::Module;
use super::run::{Run, tool};

/// The inode number of the root of each subvolume.
const ROOT_INODE: u64 = 256;

/// What `statfs` tells of btrfs.
const BTRFS_MAGIC: i128 = 0x9123_683e;

/// Ends a test that makes sense over hard links only, and says so:
/// `only_hard_links!("recycling")`. A run of the tests over subvolumes lists it as skipped.
#[allow(unused_macros, reason = "not every test program has such tests")]
macro_rules! only_hard_links {
    ($what:expr) => {
        if $crate::support::subvolumes::are_subvolumes() {
            eprintln!("skipped: tries hard links: {}", $what);
            return;
        }
    };
}

/// Whether the modules of this run of the tests are btrfs subvolumes. Then the temporary directory
/// is on btrfs: see `tests/run`.
pub(crate) fn are_subvolumes() -> bool {
    std::env::var_os("RSYNCD_SNAPSHOT_TEST_METHOD").is_some_and(|method| method == "btrfs")
}

/// Whether `path` is the root of a subvolume.
pub(crate) fn is_subvolume(path: &Path) -> bool {
    let is_root = path.symlink_metadata().is_ok_and(|it| it.is_dir() && it.ino() == ROOT_INODE);
    is_root && is_on_btrfs(path)
}

fn is_on_btrfs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|facts| i128::from(facts.f_type) == BTRFS_MAGIC)
}

fn btrfs(arguments: &[&str]) -> Command {
    let mut command = tool("btrfs");
    command.args(arguments);
    command
}

/// Makes the directory of a module: a subvolume if modules are subvolumes and its file system has
/// them. It may be there already.
pub(crate) fn make_module_directory(path: &Path) {
    let parent = path.parent().expect("a parent");
    fs::create_dir_all(parent).expect("the root");
    match are_subvolumes() && !path.exists() && is_on_btrfs(parent) {
        true => make_subvolume(path),
        false => fs::create_dir_all(path).expect("the module"),
    }
}

/// Makes an empty subvolume.
pub(crate) fn make_subvolume(path: &Path) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("the root");
    Run::of(btrfs(&["-q", "subvolume", "create"]).arg(path)).exits(&[0]);
}

/// Makes `path` an empty directory for a snapshot that looks like one of the module at `latest`: a
/// subvolume, made out of that of the module, if that is one. It can be written to.
pub(crate) fn make_snapshot_directory(latest: &Path, path: &Path) {
    if !is_subvolume(latest) || path.exists() {
        return make_module_directory(path);
    }
    Run::of(btrfs(&["-q", "subvolume", "snapshot"]).arg(latest).arg(path)).exits(&[0]);
    for entry in fs::read_dir(path).expect("a snapshot") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("a type").is_dir() {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        }
        .expect("removed");
    }
    super::tree::set_mode(path, 0o755);
}

/// Removes a snapshot, or any other tree, as the administrator does.
#[track_caller]
pub(crate) fn remove_snapshot(path: &Path) {
    match is_subvolume(path) {
        true => drop(Run::of(btrfs(&["-q", "subvolume", "delete"]).arg(path)).exits(&[0])),
        false => fs::remove_dir_all(path).expect("removed"),
    }
}

/// Removes a root with all snapshots in it, or any other tree with subvolumes.
#[track_caller]
pub(crate) fn remove_root(path: &Path) {
    let entries =
        fs::read_dir(path).expect("the root").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| is_subvolume(path)).for_each(|path| remove_snapshot(&path));
    fs::remove_dir_all(path).expect("removed");
}

/// Moves a snapshot, also to another directory, as the administrator does.
#[track_caller]
pub(crate) fn move_snapshot(from: &Path, to: &Path) {
    // Only a directory that can be written to can get another parent.
    let moved = |path: &Path| fs::rename(path, to).expect("moved");
    match from.parent() == to.parent() {
        true => moved(from),
        false => as_writable(from, to, moved),
    }
}

/// Lets `edit` change what is in a snapshot, as only the administrator can.
#[track_caller]
pub(crate) fn edit_snapshot<T>(path: &Path, edit: impl FnOnce(&Path) -> T) -> T {
    as_writable(path, path, edit)
}

/// Copies a snapshot within its file system: another snapshot of it, or hard links to its files.
/// The copy can be written to if `from` can.
#[track_caller]
pub(crate) fn copy_snapshot(from: &Path, to: &Path) {
    let mut copy = match is_subvolume(from) {
        true => btrfs(&["-q", "subvolume", "snapshot"]),
        false => tool("cp"),
    };
    if is_read_only(from) {
        copy.arg("-r");
    } else if !is_subvolume(from) {
        copy.arg("-al");
    }
    Run::of(copy.arg(from).arg(to)).exits(&[0]);
}

/// Whether `path` is a subvolume that cannot be written to.
pub(crate) fn is_read_only(path: &Path) -> bool {
    let get = || Run::of(btrfs(&["property", "get", "-ts"]).arg(path).arg("ro")).exits(&[0]);
    is_subvolume(path) && get().stdout().contains("ro=true")
}

/// Does `work` with `path` while that can be written to. After it, the same tree is `path_after`.
fn as_writable<T>(path: &Path, path_after: &Path, work: impl FnOnce(&Path) -> T) -> T {
    let is_read_only = is_read_only(path);
    let set = |path: &Path, value: &str| {
        Run::of(btrfs(&["property", "set", "-ts"]).arg(path).args(["ro", value])).exits(&[0]);
    };
    if is_read_only {
        set(path, "false");
    }
    let done = work(path);
    if is_read_only {
        set(path_after, "true");
    }
    done
}

/// An option of strace with which `what` happens while a snapshot is made, after the module was
/// scanned, and before anything is visible: `delay_enter=150000`, `error=EIO`, `signal=KILL`. Over
/// hard links it happens with each link.
pub(crate) fn while_made(what: &str) -> String {
    let call = if are_subvolumes() { "renameat2" } else { "linkat" };
    format!("inject={call}:{what}")
}

/// Which `ioctl` of the hook makes the snapshot, counted from 1; `module` gets a snapshot.
pub(crate) fn snapshot_call(module: &Module) -> usize {
    let trace = module.directory.join("trace");
    let strace = ["strace", "-f", "-qq", "-e", "trace=ioctl", "-o"];
    let strace = [&strace[..], &[trace.to_str().expect("UTF-8")]].concat();
    // This process serves the client, which pre-xfer may have seen.
    let connection = std::process::id().to_string();
    Run::of(module.hook_through(&strace).env("RSYNC_PID", connection)).exits(&[0]);
    let calls = fs::read_to_string(&trace).expect("a trace");
    calls.lines().position(|call| call.contains("SNAP_CREATE")).expect("it is made") + 1
}
