//! Makes a tree of hard links in staging that equals the live tree.
//!
//! Every entry that is not a directory is the same inode; directories are new, with the same
//! owner, mode, times and attributes. The order is safe against the client: a
//! directory's state is taken before its entries are read and applied after they are in place,
//! so a change in between leaves an older time, which the next comparison notices. Until
//! then each new directory is 0700 within a directory that only we may enter.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, Mode, fstat, mkdirat};
use nix::unistd::linkat;

use super::attributes;
use super::copy::{self, Copier, Copies};
use super::descent::Descent;
use super::listing::Listing;
use super::syscalls::{Answer, is_mount_point, open_directory};
use crate::tell::error::{Error, Result};

/// What a clone did.
#[derive(Debug, Default)]
pub struct Cloned {
    /// Entries in the tree, directories included, its root not.
    pub entries: u64,
    /// Inodes that were copied, since they could not be linked.
    pub copies: Copies,
    /// Mount points that were left out, relative to the module.
    pub skipped_mounts: Vec<Vec<u8>>,
    /// Directories or copies whose owner or security attributes could not be kept.
    pub attributes_lost: u64,
    /// Entries that disappeared or kept changing their type while they were read.
    pub vanished: u64,
}

/// Clones the tree at `live` into the new directory `name` of `parent`; copies that become
/// necessary start in `staging`.
///
/// # Errors
/// Whatever keeps the clone from being complete; what exists of it then stays in staging.
pub fn clone_tree(
    (live, live_path): (BorrowedFd, &Path),
    (parent, name): (BorrowedFd, &CStr),
    staging: BorrowedFd,
) -> Result<Cloned> {
    let start = |cause| Error::io("make the staging directory for", live_path, cause);
    mkdirat(parent, name, Mode::S_IRWXU).map_err(start)?;
    let staged = open_directory(parent, name).map_err(start)?;
    let mut clone = Clone {
        live: Descent::new(live, live_path.to_path_buf()).map_err(start)?,
        staged: Descent::new(staged.as_fd(), live_path.to_path_buf()).map_err(start)?,
        copier: Copier::new(staging),
        frames: Vec::new(),
        cloned: Cloned::default(),
    };
    clone.run()?;
    let Clone { copier, mut cloned, .. } = clone;
    cloned.attributes_lost += copier.attributes_lost;
    copier.finish().map_err(|cause| Error::io("clean up the copies for", live_path, cause))?;
    Ok(cloned)
}

struct Clone<'a> {
    live: Descent,
    staged: Descent,
    copier: Copier<'a>,
    frames: Vec<Frame>,
    cloned: Cloned,
}

/// A directory whose subdirectories are being cloned.
struct Frame {
    stat: FileStat,
    pending: Vec<CString>,
}

impl Clone<'_> {
    fn run(&mut self) -> Result<()> {
        let stat = fstat(self.live.directory()).map_err(|cause| self.live.error("inspect", None, cause))?;
        self.link_directory(stat)?;
        while let Some(frame) = self.frames.last_mut() {
            match frame.pending.pop() {
                Some(name) => self.clone_directory(&name)?,
                None => self.finish_directory()?,
            }
        }
        Ok(())
    }

    /// Links everything in the directory at hand but its subdirectories, which become pending.
    fn link_directory(&mut self, stat: FileStat) -> Result<()> {
        let listing =
            Listing::read(self.live.directory()).map_err(|cause| self.live.error("read", None, cause))?;
        let mut pending = Vec::new();
        for entry in listing.entries() {
            let name = listing.name(entry);
            if entry.is_directory || self.link_entry(name)? == Linked::IsDirectory {
                pending.push(name.to_owned());
            }
        }
        self.frames.push(Frame { stat, pending });
        Ok(())
    }

    fn link_entry(&mut self, name: &CStr) -> Result<Linked> {
        match linkat(self.live.directory(), name, self.staged.directory(), name, AtFlags::empty()) {
            Ok(()) => self.cloned.entries += 1,
            Err(Errno::ENOENT) => self.cloned.vanished += 1,
            // Some file systems list a name twice while it is renamed.
            Err(Errno::EEXIST) => {}
            Err(Errno::EXDEV) if is_mount_point(self.live.directory(), name) => self.skip_mount(name),
            Err(cause @ (Errno::EMLINK | Errno::EPERM)) => return self.copy_entry(name, cause),
            Err(cause) => return Err(self.live.error("link", Some(name), cause)),
        }
        Ok(Linked::Done)
    }

    /// Copies what could not be linked because of `refusal`.
    fn copy_entry(&mut self, name: &CStr, refusal: Errno) -> Result<Linked> {
        match self.copier.copy(self.live.directory(), name, self.staged.directory()) {
            Ok((pair, stat)) => {
                self.cloned.entries += 1;
                let live = &self.live;
                copy::remember(&mut self.cloned.copies, pair, &stat, || live.relative_path(Some(name)));
            }
            // It is a directory by now; linking one is refused with EPERM.
            Err(Errno::EISDIR) => return Ok(Linked::IsDirectory),
            Err(Errno::ENOENT | Errno::ESTALE | Errno::ELOOP) => self.cloned.vanished += 1,
            // A refused link and a refused copy: the first says more to the administrator.
            Err(Errno::EACCES | Errno::EPERM) => return Err(self.live.error("link", Some(name), refusal)),
            Err(cause) => return Err(self.live.error("copy", Some(name), cause)),
        }
        Ok(Linked::Done)
    }

    fn clone_directory(&mut self, name: &CStr) -> Result<()> {
        let stat = match self.live.enter(name) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => {
                self.cloned.vanished += 1;
                return Ok(());
            }
            Err(Errno::EXDEV) => {
                self.skip_mount(name);
                // As `cp --one-file-system` does: the place where something is mounted on restore.
                return self.make_directory(name).map(drop);
            }
            // No directory any more. Its second chance is its last: a client that keeps
            // swapping it must not keep us here.
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                if self.link_entry(name)? == Linked::IsDirectory {
                    self.cloned.vanished += 1;
                }
                return Ok(());
            }
            Err(cause) => return Err(self.live.error("open the directory", Some(name), cause)),
        };
        if !self.make_directory(name)? {
            return self.live.leave().map(drop).map_err(|cause| self.live.error("return to", None, cause));
        }
        self.staged.enter(name).map_err(|cause| self.live.error("open the staged copy of", None, cause))?;
        self.link_directory(stat)
    }

    /// Makes a directory in staging; false if the name is taken, having been listed twice.
    fn make_directory(&mut self, name: &CStr) -> Result<bool> {
        match mkdirat(self.staged.directory(), name, Mode::S_IRWXU) {
            Ok(()) => {
                self.cloned.entries += 1;
                Ok(true)
            }
            Err(Errno::EEXIST) => Ok(false),
            Err(cause) => Err(self.staged.error("make the staged copy of", Some(name), cause)),
        }
    }

    fn finish_directory(&mut self) -> Result<()> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let applied = attributes::apply(self.live.directory(), &frame.stat, self.staged.directory());
        if !applied.map_err(|cause| self.live.error("keep the attributes of", None, cause))? {
            self.cloned.attributes_lost += 1;
        }
        self.leave().map_err(|cause| self.live.error("return to", None, cause))
    }

    fn leave(&mut self) -> Answer<()> {
        self.live.leave()?;
        self.staged.leave().map(drop)
    }

    fn skip_mount(&mut self, name: &CStr) {
        self.cloned.skipped_mounts.push(self.live.relative_path(Some(name)));
    }
}

#[derive(PartialEq, Eq)]
enum Linked {
    Done,
    IsDirectory,
}
