//! Trees that turned out not to be removable: an immutable file or a subvolume is in them.
//!
//! In staging such a tree would be in the way of each later run, and cost it a walk and a warning.
//! So it is moved to `unremovable/`, once, where `check` tells of it until `rotate --purge` can
//! remove it.

use std::ffi::{CStr, CString};

use crate::engine::remove::{Remains, remove_trees};
use crate::store::dir::{Dir, c_name, names_in};
use crate::store::inode_log::windows::Window;
use crate::store::layout::Subdir;
use crate::store::root::SnapshotRoot;
use crate::system::syscalls::rename_no_replace;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// Moves what remains of a tree in `place` away from there, if it will not be removable the next
/// time either; returns what to tell.
pub(crate) fn set_aside(root: &SnapshotRoot, dir: Dir, remains: Remains) -> Error {
    if !remains.error.is_lasting() {
        return remains.error;
    }
    match move_away(root, dir, &remains.name) {
        Ok(path) => Error::SetAside { path, cause: remains.error.to_string() },
        // Where it cannot even be moved it stays, and is told of by the next run, too.
        Err(_) => remains.error,
    }
}

fn move_away(root: &SnapshotRoot, from: Dir, name: &CStr) -> Result<String> {
    let dir = root.subdir(Subdir::Unremovable)?;
    let base = name.to_string_lossy();
    for number in 0..1_000 {
        let free = if number == 0 { base.to_string() } else { format!("{base}.{number}") };
        match rename_no_replace(from.directory, name, dir.dir().directory, &c_name(&free)) {
            Ok(()) => return Ok(escape_path(&dir.dir().path.join(free))),
            Err(nix::errno::Errno::EEXIST) => {}
            Err(cause) => {
                return Err(Error::io("set aside", &from.path.join(base.as_ref()), cause));
            }
        }
    }
    Err(Error::io("set aside", &from.path.join(base.as_ref()), nix::errno::Errno::EEXIST))
}

/// The names of the trees that were set aside.
pub fn names(root: &SnapshotRoot) -> Vec<String> {
    let mut names =
        root.subdir(Subdir::Unremovable).and_then(|dir| names_in(dir.dir())).unwrap_or_default();
    names.sort_unstable();
    names
}

/// Tries again to remove what was set aside; returns an error for each that remains.
pub fn remove_all(root: &SnapshotRoot) -> Result<Vec<Error>> {
    let dir = root.subdir(Subdir::Unremovable)?;
    let trees: Vec<CString> = names(root).iter().map(|name| c_name(name)).collect();
    if trees.is_empty() {
        return Ok(Vec::new());
    }
    let _window = Window::open(root.subdir(Subdir::Inodes)?.dir())?;
    let (_, remains) = remove_trees(dir.dir().directory, dir.dir().path, &trees)?;
    Ok(remains.into_iter().map(|remains| remains.error).collect())
}
