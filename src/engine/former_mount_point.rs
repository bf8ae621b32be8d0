//! Finds out what lies at a path where something was mounted when a snapshot was made, without a
//! call that asks the server of a mount.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};

use crate::engine::listing::Listing;
use crate::system::identity::Identity;
use crate::system::syscalls::open_directory;

/// What is at a path where something was mounted when a snapshot was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormerMountPoint {
    /// A mount, the same one or another.
    Mount,
    /// No entry, or an empty directory: nothing that a snapshot could lack.
    Nothing,
    /// Anything else.
    Content,
}

/// What is at `path` below `directory`. Where that cannot be found out, it counts as content.
pub(crate) fn inspect_former_mount_point(directory: BorrowedFd, path: &[u8]) -> FormerMountPoint {
    let mut parent: Option<OwnedFd> = None;
    let names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    for (index, name) in names.iter().enumerate() {
        let here = parent.as_ref().map_or(directory, |parent| parent.as_fd());
        let Ok(name) = CString::new(*name) else { return FormerMountPoint::Content };
        match open_directory(here, &name) {
            Ok(next) if is_on_same_device(here, next.as_fd()) => parent = Some(next),
            Ok(_) | Err(Errno::EXDEV) => return FormerMountPoint::Mount,
            Err(Errno::ENOENT) => return FormerMountPoint::Nothing,
            // The last one may be a file on which another file is mounted.
            Err(Errno::ENOTDIR | Errno::ELOOP) if index + 1 == names.len() => {
                return file_at_place(here, &name);
            }
            Err(_) => return FormerMountPoint::Content,
        }
    }
    match parent.map(|directory| Listing::read(directory.as_fd())) {
        Some(Ok(listing)) if listing.entries().is_empty() => FormerMountPoint::Nothing,
        _ => FormerMountPoint::Content,
    }
}

fn file_at_place(parent: BorrowedFd, name: &std::ffi::CStr) -> FormerMountPoint {
    if crate::system::mounts::is_mount_point(parent, name) {
        return FormerMountPoint::Mount;
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => FormerMountPoint::Nothing,
        _ => FormerMountPoint::Content,
    }
}

fn is_on_same_device(one: BorrowedFd, other: BorrowedFd) -> bool {
    let device = |directory| fstat(directory).map(|stat| Identity::of(&stat).device);
    device(one).is_ok_and(|one| device(other).is_ok_and(|other| one == other))
}
