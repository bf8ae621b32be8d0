//! One name that differs between the two directories of a comparison.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use crate::engine::children::PendingChildren;
use crate::engine::compare::{CompareContext, Comparison, DirectoryToCompare, PresentIn};
use crate::engine::copied::{CopiedPair, InodePair};
use crate::engine::descent::Descent;
use crate::engine::difference::EntryInode;
use crate::system::cephfs::is_one_number as is_one_number_on_cephfs;
use crate::system::identity::Twins;
use crate::system::mounts::is_mount_point;
use crate::system::syscalls::stat_entry;

pub(crate) struct EntryComparison<'a> {
    pub(crate) knowledge: &'a CompareContext<'a>,
    pub(crate) live: &'a Descent,
    pub(crate) directory: BorrowedFd<'a>,
    pub(crate) snapshot: BorrowedFd<'a>,
    pub(crate) comparison: &'a mut Comparison,
    pub(crate) pending: &'a mut PendingChildren<DirectoryToCompare>,
    /// Whether the two directories are not one.
    pub(crate) is_replaced: bool,
}

impl EntryComparison<'_> {
    pub(crate) fn compare(
        &mut self,
        name: &CStr,
        live: Option<EntryInode>,
        snapshot: Option<EntryInode>,
    ) {
        match (live, snapshot) {
            (Some(live), Some(snapshot)) if live.is_directory && snapshot.is_directory => {
                // It is looked up in the index once all names are known.
                let below = self.below(PresentIn::Both);
                self.pending.push(name, below);
            }
            (Some(live), Some(snapshot)) if !live.is_directory && !snapshot.is_directory => {
                let is_same = match self.knowledge.twins {
                    Twins::OfCephFs => {
                        is_one_number_on_cephfs(live.inode, snapshot.inode)
                            && self.is_untouched(name)
                    }
                    Twins::Linked | Twins::OfSubvolumes => {
                        live == snapshot && self.is_untouched(name)
                    }
                };
                if !is_same && !self.is_known_copy(name, live.inode, snapshot.inode) {
                    self.comparison.changed += 1;
                    self.sync(name);
                }
            }
            // In one tree only, or a directory in one tree and another kind of entry in the other.
            (live, snapshot) => {
                if let Some(live) = live
                    && !self.is_left_out(name, live)
                {
                    self.comparison.added += 1;
                    match live.is_directory {
                        true => self.pending.push(name, self.below(PresentIn::Live)),
                        false => self.sync(name),
                    }
                }
                if let Some(snapshot) = snapshot {
                    self.comparison.removed += 1;
                    if snapshot.is_directory {
                        self.pending.push(name, self.below(PresentIn::Snapshot));
                    }
                }
            }
        }
    }

    fn below(&self, side: PresentIn) -> DirectoryToCompare {
        DirectoryToCompare { side, indexed: None, is_replaced: self.is_replaced }
    }

    fn sync(&self, name: &CStr) {
        if let Some(files) = self.knowledge.new_files {
            files.sync(self.live, self.directory, name);
        }
    }

    /// Whether the snapshot lacks the file `name` because something was mounted over it, and still
    /// is. For a directory with a mount the snapshot has an empty one, so a directory that the
    /// snapshot lacks is new.
    fn is_left_out(&self, name: &CStr, live: EntryInode) -> bool {
        !live.is_directory
            && self.knowledge.known.has_mount(self.live, name)
            && is_mount_point(self.directory, name)
    }

    /// Whether the file `name` has the same change time in two trees that do not share inodes.
    fn is_untouched(&self, name: &CStr) -> bool {
        if !self.knowledge.has_change_times() {
            return false;
        }
        stat_entry(self.directory, name).is_ok_and(|live| {
            !self.is_replaced && self.knowledge.is_older(&live)
                || stat_entry(self.snapshot, name)
                    .is_ok_and(|snapshot| self.knowledge.is_untouched(&live, &snapshot))
        })
    }

    /// Whether the snapshot has a copy of the live inode, which has not changed since. It may have
    /// been recorded under another name.
    fn is_known_copy(&self, name: &CStr, live: u64, copy: u64) -> bool {
        let inodes = InodePair { live, copy };
        let pair = CopiedPair { live: self.directory, snapshot: self.snapshot, name, inodes };
        self.knowledge.known.is_current_copy(pair)
    }
}
