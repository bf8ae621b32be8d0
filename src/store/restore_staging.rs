//! The staging directory of a restore: a directory in which only this program makes files, until
//! they get their names.
//!
//! It is locked for as long as its restore runs, and the kernel releases the lock of a restore that
//! was killed. So the next restore into the same directory, or the next run on the root, sees which
//! staging directories are left over, and removes them.
//!
//! A user who owns the directory above can give any directory the name of a staging directory. So
//! only what could be one is removed: entries with the names that a restore gives, and no directory
//! that holds anything, in a directory of this process's user that is closed to others.

use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::engine::listing::Listing;
use crate::store::dir::{Dir, OwnedDir};
use crate::store::lock::DirLock;
use crate::system::identity::{Identity, SysResult};
use crate::system::syscalls::{open_directory, stat_entry};
use crate::tell::error::{Error, Result};

/// How the name of each staging directory begins; sixteen hexadecimal digits follow.
pub(crate) const PREFIX: &str = ".rsyncd-snapshot-restore-";

/// A leftover may be removed between the making of a staging directory and its lock.
const ATTEMPTS: usize = 8;

/// A staging directory in use.
pub(crate) struct RestoreStaging {
    own: OwnedDir,
    _lock: DirLock,
    parent: OwnedFd,
    name: CString,
}

impl RestoreStaging {
    /// Removes staging directories that are left over in `parent`, and makes a new one there.
    pub(crate) fn open(parent: Dir) -> Result<Self> {
        remove_leftovers(parent)?;
        for attempt in 0..ATTEMPTS {
            match RestoreStaging::try_open(parent, attempt) {
                Ok(Some(staging)) => return Ok(staging),
                Ok(None) => {}
                Err(error) => {
                    // The directory that was just made; if it stays, the next restore removes it.
                    if let Err(error) = remove_leftovers(parent) {
                        log::debug!("{error}");
                    }
                    return Err(error);
                }
            }
        }
        Err(Error::io("make a directory for new files in", parent.path, Errno::EEXIST))
    }

    fn try_open(parent: Dir, attempt: usize) -> Result<Option<Self>> {
        let token = RandomState::new().hash_one((std::process::id(), attempt));
        let name = format!("{PREFIX}{token:016x}");
        let path = parent.path.join(&name);
        let failed = |cause| Error::io("make", &path, cause);
        let name = CString::new(name).unwrap_or_default();
        mkdirat(parent.directory, name.as_c_str(), Mode::S_IRWXU).map_err(failed)?;
        let directory = match open_directory(parent.directory, &name) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(None),
            Err(cause) => return Err(failed(cause)),
        };
        let dir = Dir { directory: directory.as_fd(), path: &path };
        let Some(lock) = DirLock::try_on_directory(dir)? else { return Ok(None) };
        let own = fstat(&directory).map_err(failed)?;
        let is_there = match stat_entry(parent.directory, &name) {
            Ok(stat) => Identity::of(&stat) == Identity::of(&own),
            Err(Errno::ENOENT) => false,
            Err(cause) => return Err(failed(cause)),
        };
        if !is_there || !is_closed(&own) {
            return Ok(None);
        }
        let parent = open_directory(parent.directory, c".").map_err(failed)?;
        Ok(Some(RestoreStaging { own: OwnedDir { directory, path }, _lock: lock, parent, name }))
    }

    /// The directory in which files are made.
    pub(crate) fn dir(&self) -> Dir<'_> {
        self.own.dir()
    }

    /// Removes it and what is in it.
    pub(crate) fn close(self) -> Result<()> {
        let removed = empty(self.dir())
            .and_then(|_| unlinkat(&self.parent, self.name.as_c_str(), UnlinkatFlags::RemoveDir));
        removed.map_err(|cause| Error::io("remove", &self.own.path, cause))
    }
}

/// Removes the staging directories in `parent` of restores that were killed. Returns whether there
/// was one.
pub(crate) fn remove_leftovers(parent: Dir) -> Result<bool> {
    let listing =
        Listing::read(parent.directory).map_err(|cause| Error::io("read", parent.path, cause))?;
    let names = listing.entries().iter().map(|entry| listing.name(entry));
    let mut found = false;
    for name in names.filter(|name| is_name(name.to_bytes())) {
        let path: PathBuf = parent.path.join(String::from_utf8_lossy(name.to_bytes()).as_ref());
        let failed = |cause| Error::io("remove", &path, cause);
        let Ok(directory) = open_directory(parent.directory, name) else { continue };
        let dir = Dir { directory: directory.as_fd(), path: &path };
        if !fstat(&directory).is_ok_and(|stat| is_closed(&stat)) {
            continue;
        }
        let Some(_lock) = DirLock::try_on_directory(dir)? else { continue };
        if empty(dir).map_err(failed)? {
            match unlinkat(parent.directory, name, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => found = true,
                Err(cause) => return Err(failed(cause)),
            }
        }
    }
    Ok(found)
}

/// Removes what a restore leaves; false, and nothing is removed, if anything else is there.
fn empty(dir: Dir) -> SysResult<bool> {
    let listing = Listing::read(dir.directory)?;
    let is_ours = |name: &CStr| {
        let name = name.to_bytes();
        let number = name.strip_prefix(b"linked-");
        name == b"new" || number.is_some_and(|number| number.iter().all(u8::is_ascii_digit))
    };
    let entries = listing.entries();
    if !entries.iter().all(|entry| is_ours(listing.name(entry))) {
        return Ok(false);
    }
    for entry in entries {
        // A directory is empty until it gets its name; one that is not stays.
        let flags = match entry.is_directory {
            true => UnlinkatFlags::RemoveDir,
            false => UnlinkatFlags::NoRemoveDir,
        };
        match unlinkat(dir.directory, listing.name(entry), flags) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => return Ok(false),
            Err(cause) => return Err(cause),
        }
    }
    Ok(true)
}

fn is_name(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX.as_bytes())
        .is_some_and(|token| token.len() == 16 && token.iter().all(u8::is_ascii_hexdigit))
}

/// Whether a directory belongs to this process's user and no other user may enter it.
fn is_closed(stat: &FileStat) -> bool {
    let is_directory = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    is_directory && stat.st_mode & 0o077 == 0 && stat.st_uid == geteuid().as_raw()
}
