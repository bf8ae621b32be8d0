//! Trees that turned out not to be removable: an immutable file, a subvolume or a mount is in them.
//!
//! If such a tree stayed in staging, each later run would try to remove it and warn. So it is
//! renamed into `unremovable/` once. `check` reports it there until `rotate --purge` can remove it.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use crate::decide::obstacle::Obstacles;
use crate::engine::obstacle::{MAX_ENTRIES, obstacles_in};
use crate::engine::remove::Remains;
use crate::store::dir::{Dir, c_name, names_in};
use crate::store::inode_log::windows::LinkWindow;
use crate::store::layout::Subdir;
use crate::store::root::SnapshotRoot;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// Moves the remains of a tree out of `dir` if the next attempt to remove it would fail, too.
/// Returns the error to report.
pub(crate) fn set_aside(root: &SnapshotRoot, dir: Dir, remains: Remains) -> Error {
    if !remains.error.is_lasting() {
        return remains.error;
    }
    match move_away(root, dir, &remains.name) {
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
fn move_away(root: &SnapshotRoot, from: Dir, name: &CStr) -> Result<(String, Obstacles)> {
    let dir = root.subdir(Subdir::Unremovable)?;
    let base = name.to_string_lossy();
    let failed = |free: &str, cause| {
        Error::io_pair(
            "set aside",
            &from.path.join(base.as_ref()),
            &dir.dir().path.join(free),
            cause,
        )
    };
    for number in 0..1_000 {
        let free = if number == 0 { base.to_string() } else { format!("{base}.{number}") };
        match root.method().retire((from.directory, name), (dir.dir().directory, &c_name(&free))) {
            Ok(()) => {
                let path = escape_path(&dir.dir().path.join(&free));
                let obstacles =
                    obstacles_in(dir.dir().directory, &c_name(&free), &path, MAX_ENTRIES);
                return Ok((path, obstacles));
            }
            Err(nix::errno::Errno::EEXIST) => {}
            Err(cause) => return Err(failed(&free, cause)),
        }
    }
    Err(failed(base.as_ref(), nix::errno::Errno::EEXIST))
}

/// The names of the trees that were set aside.
pub(crate) fn names(root: &SnapshotRoot) -> Vec<String> {
    let mut names =
        root.subdir(Subdir::Unremovable).and_then(|dir| names_in(dir.dir())).unwrap_or_default();
    names.sort_unstable();
    names
}

/// What is in the way of removing the tree `name` that was set aside.
pub(crate) fn obstacles(root: &SnapshotRoot, name: &str) -> Result<Obstacles> {
    let dir = root.subdir(Subdir::Unremovable)?;
    let path = escape_path(&dir.dir().path.join(name));
    Ok(obstacles_in(dir.dir().directory, &c_name(name), &path, MAX_ENTRIES))
}

/// Tries again to remove what was set aside; returns for each that remains what is in the way.
pub(crate) fn remove_all(root: &SnapshotRoot) -> Result<Vec<String>> {
    let dir = root.subdir(Subdir::Unremovable)?;
    let trees: Vec<CString> = names(root).iter().map(|name| c_name(name)).collect();
    if trees.is_empty() {
        return Ok(Vec::new());
    }
    let _window = LinkWindow::open(root.subdir(Subdir::Inodes)?.dir())?;
    let Dir { directory, path } = dir.dir();
    let (_, remains) = root.method().remove(dir.dir(), &trees)?;
    let describe = |Remains { name, error }: Remains| {
        let path = escape_path(&path.join(OsStr::from_bytes(name.to_bytes())));
        describe_cause(&obstacles_in(directory, &name, &path, MAX_ENTRIES), &error)
    };
    Ok(remains.into_iter().map(describe).collect())
}
