//! Trees that turned out not to be removable: an immutable file, a subvolume or a mount is in them.
//!
//! If such a tree stayed in staging, each later run would try to remove it and warn. So it is
//! renamed into `unremovable/` once. `check` reports it there until `rotate --purge` can remove it.

use std::ffi::CString;
use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::decide::obstacle::Obstacles;
use crate::engine::obstacle::{MAX_ENTRIES, obstacles_in};
use crate::engine::remove::Remains;
use crate::store::dir::Dir;
use crate::store::inode_log::windows::LinkWindow;
use crate::store::layout::Subdir;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf, Slot};
use crate::system::syscalls::open_directory;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// Moves the remains of a tree out of `dir` if the next attempt to remove it would fail, too.
/// Returns the error to report. A subvolume that the kernel keeps while it is being sent stays:
/// later runs try again.
pub(crate) fn set_aside(root: &SnapshotRoot, dir: Dir, remains: Remains) -> Error {
    let slot =
        Slot { dir, name: remains.name.clone(), is_beside: dir.path == root.snapshots().path };
    let is_busy = remains.error.is_busy() && slot.is_sealed(root);
    if !remains.error.is_lasting() || is_busy {
        return remains.error;
    }
    match move_away(root, &slot) {
        Ok((path, obstacles)) => {
            let cause = describe_cause(&obstacles, &remains.error);
            Error::SetAside { path, cause }
        }
        // A tree that cannot be moved stays, and the next run reports it again.
        Err(_) => remains.error,
    }
}

/// What keeps a tree from being removed, for a message: the obstacles, or the error if none was
/// found.
fn describe_cause(obstacles: &Obstacles, error: &Error) -> String {
    if obstacles.is_empty() { error.to_string() } else { obstacles.to_string() }
}

/// Moves a tree to `unremovable/`. Returns where it is now, and what keeps it from being removed.
fn move_away(root: &SnapshotRoot, from: &Slot) -> Result<(String, Obstacles)> {
    let shelf = OpenShelf::open(root, Shelf::Unremovable)?;
    let base = from.name.to_string_lossy();
    let base = base.strip_prefix(Shelf::Staging.prefix()).unwrap_or(&base);
    let mut last = Errno::EEXIST;
    for number in 0..1_000 {
        let free = if number == 0 { base.to_string() } else { format!("{base}.{number}") };
        let to = shelf.slot_of(from, &free);
        match from.move_to(&to) {
            Ok(()) => {
                return Ok((escape_path(&to.path()), obstacles_in_slot(root, &to, MAX_ENTRIES)));
            }
            Err(Errno::EEXIST) => last = Errno::EEXIST,
            Err(cause) => last = cause,
        }
        if last != Errno::EEXIST {
            break;
        }
    }
    let to = shelf.slot_of(from, base);
    Err(Error::io_pair("set aside", &from.path(), &to.path(), last))
}

/// The names of the trees that were set aside.
pub(crate) fn names(root: &SnapshotRoot) -> Vec<String> {
    let shelf = OpenShelf::open(root, Shelf::Unremovable);
    let mut names = shelf.and_then(|shelf| shelf.names()).unwrap_or_default();
    names.sort_unstable();
    names
}

/// Where the tree `name` that was set aside is, and what is in the way of removing it.
pub(crate) fn obstacles(root: &SnapshotRoot, name: &str) -> Result<(String, Obstacles)> {
    let shelf = OpenShelf::open(root, Shelf::Unremovable)?;
    let slot = shelf.slot(name);
    Ok((escape_path(&slot.path()), obstacles_in_slot(root, &slot, MAX_ENTRIES)))
}

/// What keeps the tree at `slot` from being removed, as far as `max_entries` show it. That the tree
/// itself is sealed does not.
pub(crate) fn obstacles_in_slot(root: &SnapshotRoot, slot: &Slot, max_entries: usize) -> Obstacles {
    let path = escape_path(&slot.path());
    match slot.is_sealed(root) {
        false => obstacles_in(slot.dir.directory, &slot.name, &path, max_entries),
        true => match open_directory(slot.dir.directory, &slot.name) {
            Ok(directory) => obstacles_in(directory.as_fd(), c".", &path, max_entries),
            Err(_) => Obstacles::default(),
        },
    }
}

/// Tries again to remove what was set aside; returns for each that remains what is in the way.
pub(crate) fn remove_all(root: &SnapshotRoot) -> Result<Vec<String>> {
    let shelf = OpenShelf::open(root, Shelf::Unremovable)?;
    let names = names(root);
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let _window = LinkWindow::open(root.subdir(Subdir::Inodes)?.dir())?;
    let (beside, linked): (Vec<Slot>, Vec<Slot>) =
        names.iter().map(|name| shelf.slot(name)).partition(|slot| slot.is_beside);
    let mut left = Vec::new();
    for (dir, slots) in [(shelf.subdir(), linked), (root.snapshots(), beside)] {
        let names: Vec<CString> = slots.into_iter().map(|slot| slot.name).collect();
        let (_, remains) = root.remove(dir, &names)?;
        left.extend(remains.into_iter().map(|Remains { name, error }| {
            let slot = Slot { dir, name, is_beside: false };
            describe_cause(&obstacles_in_slot(root, &slot, MAX_ENTRIES), &error)
        }));
    }
    Ok(left)
}
