//! Looks up one path in a tree, name by name from the tree's top down.
//!
//! A client may have made the tree. So no symbolic link is followed, no mount and no btrfs
//! subvolume is entered, and a path may have any number of levels: only one directory of it is open
//! at a time.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::stat::fstat;

use crate::engine::baseline::{Inode, inspect_entry};
use crate::system::identity::{Identity, SysResult};
use crate::system::syscalls::open_for_lookups;

/// How far the names of a path lead.
pub(crate) struct Descended {
    /// The last directory that was reached, open for lookups.
    pub directory: OwnedFd,
    /// How many names lead there.
    pub depth: usize,
    /// Why the next name leads no further; none if all names were followed.
    pub stopped: Option<Errno>,
}

/// Follows `names`, all of which should be directories.
///
/// # Errors
/// If the start cannot be inspected.
pub(crate) fn descend(top: BorrowedFd, names: &[Vec<u8>]) -> SysResult<Descended> {
    let mut directory = open_for_lookups(top, c".")?;
    let device = device_of(directory.as_fd())?;
    for (depth, name) in names.iter().enumerate() {
        let enter = |name: &CString| {
            let entered = open_for_lookups(directory.as_fd(), name)?;
            match device_of(entered.as_fd())? == device {
                true => Ok(entered),
                false => Err(Errno::EXDEV),
            }
        };
        match c_name(name).and_then(|name| enter(&name)) {
            Ok(entered) => directory = entered,
            Err(cause) => return Ok(Descended { directory, depth, stopped: Some(cause) }),
        }
    }
    Ok(Descended { directory, depth: names.len(), stopped: None })
}

/// An entry of a tree, by its name in an open directory.
pub(crate) struct EntryPlace {
    pub directory: OwnedFd,
    pub name: CString,
}

impl EntryPlace {
    /// The place of the entry at `names`; without names, of the top itself.
    ///
    /// # Errors
    /// `ENOENT` or another error that [`is_gone`](crate::system::syscalls::is_gone) knows if its
    /// directory does not exist; otherwise what keeps this process from looking.
    pub(crate) fn find(top: BorrowedFd, names: &[Vec<u8>]) -> SysResult<Self> {
        let (above, name) = match names.split_last() {
            Some((last, above)) => (above, c_name(last)?),
            None => (names, c".".to_owned()),
        };
        match descend(top, above)? {
            Descended { stopped: Some(cause), .. } => Err(cause),
            Descended { directory, .. } => Ok(EntryPlace { directory, name }),
        }
    }

    /// The entry as it is now.
    pub(crate) fn inspect(&self) -> SysResult<Inode> {
        inspect_entry(self.directory.as_fd(), &self.name)
    }

    /// The device of the directory that the entry is in.
    pub(crate) fn device(&self) -> SysResult<u64> {
        device_of(self.directory.as_fd())
    }

    /// Where the entry leads, if it is a symbolic link.
    pub(crate) fn link_target(&self) -> Option<Vec<u8>> {
        link_target(self.directory.as_fd(), &self.name)
    }
}

fn link_target(directory: BorrowedFd, name: &CString) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    readlinkat(directory, name.as_c_str()).ok().map(OsStringExt::into_vec)
}

impl Descended {
    /// Where the next name leads, if it is a symbolic link.
    pub(crate) fn next_link(&self, names: &[Vec<u8>]) -> Option<Vec<u8>> {
        link_target(self.directory.as_fd(), &c_name(names.get(self.depth)?).ok()?)
    }
}

/// A name as the system calls take it; too long a one is the name of nothing.
pub(crate) fn c_name(name: &[u8]) -> SysResult<CString> {
    CString::new(name).map_err(|_| Errno::ENOENT)
}

fn device_of(directory: BorrowedFd) -> SysResult<u64> {
    fstat(directory).map(|stat| Identity::of(&stat).device)
}
