//! One name that differs between the two directories of a comparison.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use super::{Child, Comparison, Known, Side};
use crate::tree::children::Children;
use crate::tree::copy::{CopiedPair, InodePair};
use crate::tree::descent::Descent;
use crate::tree::difference::Found;
use crate::tree::index::{Index, Ordinal};
use crate::tree::mounts::is_mount_point;

/// What is needed to judge one name that differs.
pub(super) struct Entry<'a> {
    pub(super) known: &'a Known,
    pub(super) live: &'a Descent,
    pub(super) directory: BorrowedFd<'a>,
    pub(super) snapshot: BorrowedFd<'a>,
    pub(super) comparison: &'a mut Comparison,
    pub(super) pending: &'a mut Children<Child>,
    pub(super) index: Option<(&'a Index, &'a [Ordinal])>,
}

impl Entry<'_> {
    pub(super) fn compare(&mut self, name: &CStr, live: Option<Found>, snapshot: Option<Found>) {
        match (live, snapshot) {
            (Some(live), Some(snapshot)) if live.is_directory && snapshot.is_directory => {
                let indexed = self.index.and_then(|(index, siblings)| index.find(siblings, name));
                self.pending.push(name, Child { side: Side::Both, indexed });
            }
            (Some(live), Some(snapshot)) if !live.is_directory && !snapshot.is_directory => {
                if !self.is_known_copy(name, live.inode, snapshot.inode) {
                    self.comparison.changed += 1;
                }
            }
            // One side only, or a directory that became something else or the other way round.
            (live, snapshot) => {
                if let Some(live) = live
                    && !self.is_left_out(name, live)
                {
                    self.comparison.added += 1;
                    if live.is_directory {
                        self.pending.push(name, Child { side: Side::Live, indexed: None });
                    }
                }
                if let Some(snapshot) = snapshot {
                    self.comparison.removed += 1;
                    if snapshot.is_directory {
                        self.pending.push(name, Child { side: Side::Snapshot, indexed: None });
                    }
                }
            }
        }
    }

    /// Whether the snapshot lacks `name` because something was mounted over that file, and still
    /// is. A directory that was mounted over has an empty one in the snapshot, so one that the
    /// snapshot lacks is new.
    fn is_left_out(&self, name: &CStr, live: Found) -> bool {
        !live.is_directory
            && self.known.has_mount(self.live, name)
            && is_mount_point(self.directory, name)
    }

    /// Whether the snapshot has a copy of the live inode, which has not changed since. The name
    /// does not matter: what counts is that the content is there under it.
    fn is_known_copy(&self, name: &CStr, live: u64, copy: u64) -> bool {
        let inodes = InodePair { live, copy };
        let pair = CopiedPair { live: self.directory, snapshot: self.snapshot, name, inodes };
        self.known.is_current_copy(pair)
    }
}
