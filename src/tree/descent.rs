//! The way from a tree's root down to the directory at hand, by descriptors.
//!
//! A client can make a tree that is tens of thousands of levels deep, deeper than any path
//! can say or any descriptor table hold. So only the last `WINDOW` levels and the root
//! stay open. Coming back up to a closed level goes through `..`, and because somebody may have moved
//! the child elsewhere meanwhile, what `..` gave is used only if it is the very directory that
//! we came through; otherwise the way is walked again from an open level above, name by name,
//! and checked again. Failing that, the walk ends with `ESTALE`: it never goes on elsewhere.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use super::syscalls::{Answer, Identity, open_directory, open_parent};
use crate::tell::error::Error;

/// How many of the deepest levels stay open besides the root. Two descents and the few other
/// descriptors of a run fit into a limit of 64.
const WINDOW: usize = 16;

/// A position in a directory tree.
pub struct Descent {
    root_path: PathBuf,
    root: OwnedFd,
    device: u64,
    levels: Vec<Level>,
}

struct Level {
    name: CString,
    identity: Identity,
    directory: Option<OwnedFd>,
}

impl Descent {
    /// Starts at `root`; `root_path` only serves to name things in messages.
    pub fn new(root: BorrowedFd, root_path: PathBuf) -> Answer<Self> {
        let root = root.try_clone_to_owned().map_err(|_| Errno::last())?;
        let device = Identity::of(&fstat(&root)?).device;
        Ok(Descent { root_path, root, device, levels: Vec::new() })
    }

    /// The directory at hand.
    pub fn directory(&self) -> BorrowedFd<'_> {
        // The deepest level is open: enter() opens it and leave() reopens it.
        let deepest = self.levels.last().and_then(|level| level.directory.as_ref());
        deepest.unwrap_or(&self.root).as_fd()
    }

    /// How many levels below the root the directory at hand is.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Goes down into `name` and returns its state at that moment.
    ///
    /// # Errors
    /// `EXDEV` if it is on another file system or mount; `ELOOP` or `ENOTDIR` if it is no directory.
    pub fn enter(&mut self, name: &CStr) -> Answer<FileStat> {
        let directory = open_directory(self.directory(), name)?;
        let stat = fstat(&directory)?;
        // A btrfs subvolume is no mount, but links end at it all the same.
        if Identity::of(&stat).device != self.device {
            return Err(Errno::EXDEV);
        }
        if let Some(beyond) = self.levels.len().checked_sub(WINDOW) {
            self.levels[beyond].directory = None;
        }
        self.levels.push(Level {
            name: name.to_owned(),
            identity: Identity::of(&stat),
            directory: Some(directory),
        });
        Ok(stat)
    }

    /// Goes up one level and returns the name of the directory left; at the root it stays there.
    ///
    /// # Errors
    /// `ESTALE` if the way back was moved or removed.
    pub fn leave(&mut self) -> Answer<CString> {
        let Some(Level { name, directory, .. }) = self.levels.pop() else { return Ok(CString::default()) };
        let closed = self.levels.last().filter(|level| level.directory.is_none());
        if let (Some(closed), Some(child)) = (closed, directory) {
            let parent = self.verified(open_parent(child.as_fd()), closed.identity);
            let reopened = parent.or_else(|_| self.walk_again())?;
            if let Some(level) = self.levels.last_mut() {
                level.directory = Some(reopened);
            }
        }
        Ok(name)
    }

    /// Opens the deepest level anew from the nearest open one above it.
    fn walk_again(&self) -> Answer<OwnedFd> {
        let open = self.levels.iter().rposition(|level| level.directory.is_some());
        let start = open.and_then(|index| self.levels[index].directory.as_ref()).unwrap_or(&self.root);
        let mut directory = start.try_clone().map_err(|_| Errno::last())?;
        for level in &self.levels[open.map_or(0, |index| index + 1)..] {
            directory = self.verified(open_directory(directory.as_fd(), &level.name), level.identity)?;
        }
        Ok(directory)
    }

    fn verified(&self, opened: Answer<OwnedFd>, expected: Identity) -> Answer<OwnedFd> {
        let directory = opened.map_err(|_| Errno::ESTALE)?;
        match Identity::of(&fstat(&directory)?) == expected {
            true => Ok(directory),
            false => Err(Errno::ESTALE),
        }
    }

    /// The path from the root to the directory at hand or to `name` in it.
    pub fn relative_path(&self, name: Option<&CStr>) -> Vec<u8> {
        let names: Vec<&[u8]> =
            self.levels.iter().map(|level| level.name.as_c_str()).chain(name).map(CStr::to_bytes).collect();
        names.join(&b'/')
    }

    /// The failure of `operation` on the directory at hand or on `name` in it.
    pub fn error(&self, operation: &'static str, name: Option<&CStr>, cause: Errno) -> Error {
        let mut path = self.root_path.as_os_str().as_bytes().to_vec();
        path.push(b'/');
        path.extend(self.relative_path(name));
        Error::io_bytes(operation, &path, cause)
    }
}
