//! Removes a whole tree that has been retired.
//!
//! The tree is in a directory that only we may enter, but its content came from a client:
//! so again single names by descriptor, no symbolic link followed, no mount crossed. The first error is kept and
//! the work goes on, because half a tree removed is space gained; what was removed stays
//! removed, so a run that is killed leaves less for the next one.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::descent::Descent;
use super::listing::Listing;
use super::syscalls::{Answer, is_privileged};
use crate::tell::error::{Error, Result};

/// Removes `name` and everything below it from `parent`; returns how many entries that were.
///
/// # Errors
/// The first one; everything else that could be removed is gone then, too.
pub fn remove_tree(parent: BorrowedFd, parent_path: &Path, name: &CStr) -> Result<u64> {
    let descent = Descent::new(parent, parent_path.to_path_buf());
    let descent = descent.map_err(|cause| Error::io("open", parent_path, cause))?;
    let mut removal = Removal { descent, frames: Vec::new(), removed: 0, first_error: None };
    removal.enter_or_remove(name);
    while let Some(pending) = removal.frames.last_mut() {
        match pending.pop() {
            Some(child) => removal.enter_or_remove(&child),
            None => removal.remove_directory()?,
        }
    }
    removal.first_error.map_or(Ok(removal.removed), Err)
}

struct Removal {
    descent: Descent,
    /// Per open directory, its subdirectories that are still to be removed.
    frames: Vec<Vec<CString>>,
    removed: u64,
    first_error: Option<Error>,
}

impl Removal {
    /// Goes down into a directory and removes the files in it; removes anything else.
    fn enter_or_remove(&mut self, name: &CStr) {
        match self.enter(name) {
            Ok(()) => self.empty_directory(),
            Err(Errno::ENOTDIR | Errno::ELOOP) => self.remove_file(name),
            Err(Errno::ENOENT) => {}
            Err(cause) => self.keep_error("open the directory", Some(name), cause),
        }
    }

    fn remove_file(&mut self, name: &CStr) {
        match self.unlink(name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => self.removed += 1,
            Err(Errno::ENOENT) => {}
            Err(cause) => self.keep_error("remove", Some(name), cause),
        }
    }

    fn enter(&mut self, name: &CStr) -> Answer<()> {
        let stat = match self.descent.enter(name) {
            // A user without privileges has to allow itself in; the tree is its own.
            Err(Errno::EACCES) if !is_privileged() => {
                fchmodat(self.descent.directory(), name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
                self.descent.enter(name)?
            }
            answer => answer?,
        };
        if !is_privileged() && stat.st_mode & 0o700 != 0o700 {
            fchmod(self.descent.directory(), Mode::S_IRWXU)?;
        }
        Ok(())
    }

    /// Removes what is no directory from the directory at hand; subdirectories become pending.
    fn empty_directory(&mut self) {
        let mut pending = Vec::new();
        match Listing::read(self.descent.directory()) {
            Ok(listing) => {
                for entry in listing.entries() {
                    match entry.is_directory {
                        true => pending.push(listing.name(entry).to_owned()),
                        false => self.remove_file(listing.name(entry)),
                    }
                }
            }
            Err(cause) => self.keep_error("read", None, cause),
        }
        self.frames.push(pending);
    }

    /// Removes the directory at hand, which is as empty as it gets, and goes up.
    fn remove_directory(&mut self) -> Result<()> {
        self.frames.pop();
        let name = self.descent.leave().map_err(|cause| self.descent.error("return to", None, cause))?;
        match self.unlink(&name, UnlinkatFlags::RemoveDir) {
            Ok(()) => self.removed += 1,
            Err(Errno::ENOENT) => {}
            // Something in it could not be removed, and that error is kept already.
            Err(Errno::ENOTEMPTY | Errno::EEXIST) if self.first_error.is_some() => {}
            Err(cause) => self.keep_error("remove the directory", Some(&name), cause),
        }
        Ok(())
    }

    fn unlink(&self, name: &CStr, flags: UnlinkatFlags) -> Answer<()> {
        unlinkat(self.descent.directory(), name, flags)
    }

    fn keep_error(&mut self, operation: &'static str, name: Option<&CStr>, cause: Errno) {
        if self.first_error.is_none() {
            self.first_error = Some(self.descent.error(operation, name, cause));
        }
    }
}
