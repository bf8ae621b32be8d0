//! The walk over one tree that counts what is in it.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use crate::engine::children::{Budget, LEVEL_BYTES, PendingChildren};
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::listing::Listing;
use crate::engine::usage::{UsageCounter, UsageTree};
use crate::system::identity::SysResult;
use crate::system::syscalls::stat_entry;

/// Counts all of one tree; false if that became too much.
pub(crate) fn walk(tree: &UsageTree, count: &mut UsageCounter) -> bool {
    let descent = DescentStart::root(tree.parent, tree.parent_path).and_then(Descent::new);
    let Ok(descent) = descent else {
        count.usage.unreadable += 1;
        return true;
    };
    let mut walk = Walk {
        descent,
        pending: Vec::new(),
        budget: Budget::default(),
        listing: Listing::default(),
        count,
    };
    walk.enter(&tree.name);
    while let Some(children) = walk.pending.last_mut() {
        if !walk.count.is_within() {
            return false;
        }
        match (children.pop(), children.next()) {
            (Some((child, ())), _) => walk.enter(&child),
            (None, Some(rest)) => walk.read_again(rest),
            (None, None) => walk.leave(),
        }
    }
    walk.count.is_within()
}

struct Walk<'a> {
    descent: Descent,
    /// For each level of the descent its subdirectories that are still to be visited.
    pending: Vec<PendingChildren<()>>,
    budget: Budget,
    listing: Listing,
    count: &'a mut UsageCounter,
}

/// What a directory is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Its files are counted, its subdirectories become pending.
    First,
    /// Only the subdirectories that there was no room for.
    Again,
}

impl Walk<'_> {
    /// Goes down into a directory and counts what is in it.
    fn enter(&mut self, name: &CStr) {
        match self.descent.enter(name) {
            Ok(stat) => {
                self.count.add(&stat, true);
                self.read_into(PendingChildren::new(LEVEL_BYTES), Reading::First);
            }
            Err(cause) => self.note(cause),
        }
    }

    /// Goes on with the subdirectories of the directory at hand that there was no room for.
    fn read_again(&mut self, rest: PendingChildren<()>) {
        if let Some(mut done) = self.pending.pop() {
            self.budget.refund(&mut done);
        }
        self.read_into(rest, Reading::Again);
    }

    fn leave(&mut self) {
        if let Some(mut done) = self.pending.pop() {
            self.budget.refund(&mut done);
        }
        self.descent.leave();
    }

    /// Reads the directory at hand; its subdirectories become the lowest level.
    fn read_into(&mut self, mut children: PendingChildren<()>, reading: Reading) {
        let mut listing = std::mem::take(&mut self.listing);
        if let Err(cause) = self.read(&mut listing, &mut children, reading) {
            self.note(cause);
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
                match (entry.is_directory, reading) {
                    (true, _) => children.push(listing.name(entry), ()),
                    (false, Reading::First) => {
                        self.count_file(directory.as_fd(), listing.name(entry))
                    }
                    (false, Reading::Again) => {}
                }
            }
            if !self.count.is_within() || !listing.read_next(directory.as_fd())? {
                return Ok(());
            }
        }
    }

    fn count_file(&mut self, directory: BorrowedFd, name: &CStr) {
        match stat_entry(directory, name) {
            Ok(stat) if self.descent.is_on_same_device(&stat) => self.count.add(&stat, false),
            Ok(_) => {}
            Err(cause) => self.note(cause),
        }
    }

    /// What is gone, moved, replaced or mounted is none of the tree's.
    fn note(&mut self, cause: Errno) {
        let is_change = [Errno::ENOENT, Errno::ESTALE, Errno::ENOTDIR, Errno::ELOOP, Errno::EXDEV];
        if !is_change.contains(&cause) {
            self.count.usage.unreadable += 1;
        }
    }
}
