//! Recognises files and directories that cannot be moved away or removed like others.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags, statx};

use crate::decide::obstacle::{Obstacle, Obstacles};
use crate::engine::listing::Listing;
use crate::system::identity::SysResult;
use crate::system::mounts;
use crate::system::syscalls::open_directory;
use crate::tell::escape::escape;

/// So many entries of a tree are looked at, and so deep: what remains of one that could not be
/// removed is little more than what is in the way.
const MAX_ENTRIES: usize = 20_000;
const MAX_DEPTH: usize = 200;

/// What keeps the file or directory `name` in `parent` from being removed. Only that itself is looked
/// at, with one call; what lies deeper in a directory shows when it is removed.
pub(crate) fn obstacle(parent: BorrowedFd, name: &CStr) -> Option<Obstacle> {
    // What the kernel knows by itself is enough: the server of a mount may not answer.
    let unasked = AtFlags::from_bits_retain(libc::AT_STATX_DONT_SYNC as u32);
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | unasked;
    let found = statx(parent, name, flags, StatxFlags::BASIC_STATS).ok()?;
    let above = statx(parent, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok()?;
    let has = |attribute| found.stx_attributes.contains(attribute);
    let device = |statx: &Statx| (statx.stx_dev_major, statx.stx_dev_minor);
    match () {
        () if has(StatxAttributes::MOUNT_ROOT) => Some(Obstacle::Mount),
        // Another device, and no mount: only subvolumes look like that.
        () if device(&found) != device(&above) => Some(Obstacle::Subvolume),
        () if has(StatxAttributes::IMMUTABLE) => Some(Obstacle::Immutable),
        () if has(StatxAttributes::APPEND) => Some(Obstacle::AppendOnly),
        () => None,
    }
}

/// What keeps the tree `name` in `parent`, which is at `path` (escaped), from being removed: all
/// that is in the way, as far as a bounded look finds it. Nothing mounted is entered or asked.
pub(crate) fn obstacles_in(parent: BorrowedFd, name: &CStr, path: &str) -> Obstacles {
    let mut survey = ObstacleSearch { found: Vec::new(), left: MAX_ENTRIES };
    survey.look_at(parent, name, path.to_string(), MAX_DEPTH);
    Obstacles::of_tree(path, survey.found)
}

struct ObstacleSearch {
    found: Vec<(String, Obstacle)>,
    left: usize,
}

impl ObstacleSearch {
    fn look_at(&mut self, parent: BorrowedFd, name: &CStr, path: String, depth: usize) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        // The kernel may ask a server for the state of a name on which something is mounted.
        let obstacle = match mounts::are_expected() && mounts::is_mount_point(parent, name) {
            true => Some(Obstacle::Mount),
            false => obstacle(parent, name),
        };
        let is_own_tree = !matches!(obstacle, Some(Obstacle::Mount | Obstacle::Subvolume));
        self.found.extend(obstacle.map(|obstacle| (path.clone(), obstacle)));
        if is_own_tree && depth > 0 {
            // What is no directory, or cannot be read, has nothing in it to tell of.
            let _ = self.look_into(parent, name, &path, depth - 1);
        }
    }

    fn look_into(
        &mut self,
        parent: BorrowedFd,
        name: &CStr,
        path: &str,
        depth: usize,
    ) -> SysResult<()> {
        let directory = open_directory(parent, name)?;
        let mut listing = Listing::default();
        listing.read_first(directory.as_fd())?;
        loop {
            for entry in listing.entries() {
                let name = listing.name(entry);
                let below = format!("{path}/{}", escape(name.to_bytes()));
                let depth = if entry.is_directory { depth } else { 0 };
                self.look_at(directory.as_fd(), name, below, depth);
            }
            if self.left == 0 || !listing.read_next(directory.as_fd())? {
                return Ok(());
            }
        }
    }
}
