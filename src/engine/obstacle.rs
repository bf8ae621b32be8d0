//! Recognises directories that cannot be moved away or removed like others, before that is tried.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags, statx};

use crate::decide::obstacle::Obstacle;

/// What keeps the directory `name` in `parent` from being removed. Only the directory itself is
/// looked at, with one call; what lies deeper in it shows when it is removed.
pub fn obstacle(parent: BorrowedFd, name: &CStr) -> Option<Obstacle> {
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
