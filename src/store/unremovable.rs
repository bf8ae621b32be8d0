//! Trees that turned out not to be removable: an immutable file, a subvolume or a mount is in them.
//!
//! In staging such a tree would be in the way of each later run, and cost it a walk and a warning.
//! So it is moved to `unremovable/`, once, where `check` tells of it until `rotate --purge` can
//! remove it.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use super::catalog::names_in;
use super::durable::{Place, c_name};
use super::inodes::{self, windows::Window};
use super::root::SnapshotRoot;
use crate::decide::obstacle::Obstacles;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;
use crate::tree::obstacle::obstacles_in;
use crate::tree::remove::{Remains, remove_trees};
use crate::tree::syscalls::rename_no_replace;

/// The room for them.
pub const ROOM: &str = "unremovable";

/// Moves what remains of a tree in `place` away from there, if it will not be removable the next
/// time either; returns what to tell.
pub(super) fn set_aside(root: &SnapshotRoot, place: Place, remains: Remains) -> Error {
    if !remains.error.is_lasting() {
        return remains.error;
    }
    match move_away(root, place, &remains.name) {
        Ok((path, obstacles)) => {
            let cause = told(&obstacles, &remains.error);
            Error::SetAside { path, cause }
        }
        // Where it cannot even be moved it stays, and is told of by the next run, too.
        Err(_) => remains.error,
    }
}

/// What is in the way; the error, if no more than that is known.
fn told(obstacles: &Obstacles, error: &Error) -> String {
    if obstacles.is_empty() { error.to_string() } else { obstacles.to_string() }
}

/// Returns where it is now, and what is in the way there.
fn move_away(root: &SnapshotRoot, place: Place, name: &CStr) -> Result<(String, Obstacles)> {
    let room = root.room(ROOM)?;
    let base = name.to_string_lossy();
    for number in 0..1_000 {
        let free = if number == 0 { base.to_string() } else { format!("{base}.{number}") };
        match rename_no_replace(place.directory, name, room.place().directory, &c_name(&free)) {
            Ok(()) => {
                let path = escape_path(&room.place().path.join(&free));
                let obstacles = obstacles_in(room.place().directory, &c_name(&free), &path);
                return Ok((path, obstacles));
            }
            Err(nix::errno::Errno::EEXIST) => {}
            Err(cause) => {
                return Err(Error::io("set aside", &place.path.join(base.as_ref()), cause));
            }
        }
    }
    Err(Error::io("set aside", &place.path.join(base.as_ref()), nix::errno::Errno::EEXIST))
}

/// The names of the trees that were set aside.
pub fn names(root: &SnapshotRoot) -> Vec<String> {
    let mut names = root.room(ROOM).and_then(|room| names_in(room.place())).unwrap_or_default();
    names.sort_unstable();
    names
}

/// What is in the way of removing the tree `name` that was set aside.
pub fn obstacles(root: &SnapshotRoot, name: &str) -> Result<Obstacles> {
    let room = root.room(ROOM)?;
    let path = escape_path(&room.place().path.join(name));
    Ok(obstacles_in(room.place().directory, &c_name(name), &path))
}

/// Tries again to remove what was set aside; returns what to tell of each that remains.
pub fn remove_all(root: &SnapshotRoot) -> Result<Vec<String>> {
    let room = root.room(ROOM)?;
    let trees: Vec<CString> = names(root).iter().map(|name| c_name(name)).collect();
    if trees.is_empty() {
        return Ok(Vec::new());
    }
    let _window = Window::open(root.room(inodes::ROOM)?.place())?;
    let Place { directory, path } = room.place();
    let (_, remains) = remove_trees(directory, path, &trees)?;
    let told = |Remains { name, error }: Remains| {
        let path = escape_path(&path.join(OsStr::from_bytes(name.to_bytes())));
        told(&obstacles_in(directory, &name, &path), &error)
    };
    Ok(remains.into_iter().map(told).collect())
}
