//! Recognises files and directories that cannot be moved or removed: mount points, subvolumes,
//! immutable and append-only files. It changes nothing.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};

use crate::decide::obstacle::{Obstacle, Obstacles};
use crate::engine::listing::Listing;
use crate::system::identity::SysResult;
use crate::system::mounts;
use crate::system::syscalls::open_directory;
use crate::tell::escape::escape;

/// A search of what remains examines at most so many entries. What remains of a tree that could not
/// be removed is little more than the obstacles and the directories above them.
pub(crate) const MAX_ENTRIES: usize = 20_000;
const MAX_DEPTH: usize = 200;

/// The number of a device, in two parts.
pub(crate) type Device = (u32, u32);

/// The device that a directory is on; none if the kernel does not tell.
pub(crate) fn device_of(directory: BorrowedFd) -> Option<Device> {
    let found = statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok()?;
    Some((found.stx_dev_major, found.stx_dev_minor))
}

/// [`obstacle_on`] for a single entry of a directory.
pub(crate) fn obstacle(parent: BorrowedFd, name: &CStr) -> Option<Obstacle> {
    obstacle_on(device_of(parent)?, parent, name)
}

/// What keeps the file or directory `name` in `parent`, a directory on `device`, from being
/// removed. The entry itself is examined, with one call, and nothing below it.
pub(crate) fn obstacle_on(device: Device, parent: BorrowedFd, name: &CStr) -> Option<Obstacle> {
    // The server of a mount may not answer, so only the kernel's own knowledge is asked for.
    let unasked = AtFlags::from_bits_retain(libc::AT_STATX_DONT_SYNC as u32);
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | unasked;
    let found = statx(parent, name, flags, StatxFlags::BASIC_STATS).ok()?;
    let has = |attribute| found.stx_attributes.contains(attribute);
    match () {
        () if has(StatxAttributes::MOUNT_ROOT) => Some(Obstacle::Mount),
        // Only a subvolume has another device and is no mount.
        () if (found.stx_dev_major, found.stx_dev_minor) != device => Some(Obstacle::Subvolume),
        () if has(StatxAttributes::IMMUTABLE) => Some(Obstacle::Immutable),
        () if has(StatxAttributes::APPEND) => Some(Obstacle::AppendOnly),
        () => None,
    }
}

/// All obstacles in the tree `name` in `parent`, which is at `path` (escaped), as far as a bounded
/// search of `max_entries` finds them. No mount is entered, and no server is asked.
pub(crate) fn obstacles_in(
    parent: BorrowedFd,
    name: &CStr,
    path: &str,
    max_entries: usize,
) -> Obstacles {
    let mut survey = ObstacleSearch { found: Vec::new(), left: max_entries };
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
            // An entry that is no directory, or cannot be read, has no entries to examine.
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
