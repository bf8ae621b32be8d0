//! Walks a tree for the inodes that its names stand for; nothing but its directories is opened.
//!
//! The trees are those of a client, and may be changed or removed meanwhile: single names by
//! descriptor, no symbolic link followed, no mount crossed, and what is gone is not visited.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;

use crate::engine::children::{Budget, LEVEL_BYTES, PendingChildren};
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::listing::Listing;
use crate::system::identity::SysResult;
use crate::tell::error::Error;

/// One name of an inode that is no directory.
pub(crate) struct InodeName<'a> {
    /// The directory that it is in.
    pub directory: BorrowedFd<'a>,
    /// The name there.
    pub name: &'a CStr,
    /// The inode's number.
    pub inode: u64,
    descent: &'a Descent,
    skip: usize,
}

impl InodeName<'_> {
    /// The path from the tree's root.
    pub(crate) fn path(&self) -> Vec<u8> {
        let path = self.descent.relative_path(Some(self.name));
        path.get(self.skip..).map(<[u8]>::to_vec).unwrap_or_default()
    }
}

/// Visits every name in the tree `name` of `parent`; returns how many directories could not be
/// read, and logs the first.
pub(crate) fn walk(
    parent: BorrowedFd,
    parent_path: &Path,
    name: &CStr,
    visit: &mut dyn FnMut(&InodeName),
) -> u64 {
    let descent = match DescentStart::root(parent, parent_path).and_then(Descent::new) {
        Ok(descent) => descent,
        Err(cause) => {
            log::warn!("{}", Error::io("read", parent_path, cause));
            return 1;
        }
    };
    let mut walk = Walk {
        descent,
        pending: Vec::new(),
        budget: Budget::default(),
        listing: Listing::default(),
        unreadable: 0,
        skip: name.to_bytes().len() + 1,
        visit,
    };
    walk.enter(name);
    while let Some(children) = walk.pending.last_mut() {
        match (children.pop(), children.next()) {
            (Some((child, ())), _) => walk.enter(&child),
            (None, Some(rest)) => {
                walk.forget();
                walk.read_into(rest, Reading::Again);
            }
            (None, None) => {
                walk.forget();
                walk.descent.leave();
            }
        }
    }
    walk.unreadable
}

struct Walk<'a> {
    descent: Descent,
    /// For each level of the descent its subdirectories that are still to be visited.
    pending: Vec<PendingChildren<()>>,
    budget: Budget,
    listing: Listing,
    unreadable: u64,
    /// How much of each path is the tree's own name.
    skip: usize,
    visit: &'a mut dyn FnMut(&InodeName),
}

/// What a directory is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Its files are visited, its subdirectories become pending.
    First,
    /// Only the subdirectories that there was no room for.
    Again,
}

impl Walk<'_> {
    fn enter(&mut self, name: &CStr) {
        match self.descent.enter(name) {
            Ok(_) => self.read_into(PendingChildren::new(LEVEL_BYTES), Reading::First),
            Err(cause) => self.note(Some(name), cause),
        }
    }

    fn forget(&mut self) {
        if let Some(mut done) = self.pending.pop() {
            self.budget.refund(&mut done);
        }
    }

    /// Reads the directory at hand; its subdirectories become the lowest level.
    fn read_into(&mut self, mut children: PendingChildren<()>, reading: Reading) {
        let mut listing = std::mem::take(&mut self.listing);
        if let Err(cause) = self.read(&mut listing, &mut children, reading) {
            self.note(None, cause);
        }
        self.listing = listing;
        children.ready();
        self.budget.charge(&mut children, self.pending.iter_mut());
        self.pending.push(children);
    }

    fn read(
        &mut self,
        listing: &mut Listing,
        children: &mut PendingChildren<()>,
        reading: Reading,
    ) -> SysResult<()> {
        let directory = self.descent.directory()?;
        if reading == Reading::Again {
            Listing::rewind(directory.as_fd())?;
        }
        listing.read_first(directory.as_fd())?;
        loop {
            listing.sort_by_inode();
            for entry in listing.entries() {
                let name = listing.name(entry);
                match (entry.is_directory, reading) {
                    (true, _) => children.push(name, ()),
                    (false, Reading::First) => {
                        let (descent, skip) = (&self.descent, self.skip);
                        let directory = directory.as_fd();
                        (self.visit)(&InodeName {
                            directory,
                            name,
                            inode: entry.inode,
                            descent,
                            skip,
                        });
                    }
                    (false, Reading::Again) => {}
                }
            }
            if !listing.read_next(directory.as_fd())? {
                return Ok(());
            }
        }
    }

    /// What is gone, moved, replaced or mounted is none of the tree's.
    fn note(&mut self, name: Option<&CStr>, cause: Errno) {
        let is_change = [Errno::ENOENT, Errno::ESTALE, Errno::ENOTDIR, Errno::ELOOP, Errno::EXDEV];
        if is_change.contains(&cause) {
            return;
        }
        let level = if self.unreadable == 0 { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "{}", self.descent.error("read", name, cause));
        self.unreadable += 1;
    }
}
