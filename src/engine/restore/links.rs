//! Which files of a selection are hard links of each other.
//!
//! Nearly every file of a snapshot has more than one link, since other snapshots share it. So the
//! number of links does not tell; the plan notes the inode numbers of the whole selection, eight
//! bytes for each, and keeps those that occur more than once.

use std::collections::{HashMap, HashSet};

use crate::system::identity::Identity;

#[derive(Debug, Default)]
pub(crate) struct LinkGroups {
    seen: Vec<u64>,
    /// Inodes with several names in the selection.
    groups: HashSet<u64>,
    /// Inodes of which the destination does not have each name as a link of the very inode of the
    /// snapshot.
    changed: Vec<u64>,
    /// By inode of the snapshot: its first counterpart that the verification has met.
    verified: HashMap<u64, Identity>,
}

impl LinkGroups {
    /// Notes a name of an inode with several links; `is_shared`: the destination has the very inode
    /// of the snapshot there.
    pub(crate) fn note(&mut self, inode: u64, is_shared: bool) {
        self.seen.push(inode);
        if !is_shared {
            self.changed.push(inode);
        }
    }

    /// Ends the plan.
    pub(crate) fn find_groups(&mut self) {
        let mut seen = std::mem::take(&mut self.seen);
        seen.sort_unstable();
        let repeated = seen.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        self.groups = repeated.collect();
        self.changed.retain(|inode| self.groups.contains(inode));
        self.changed.sort_unstable();
        self.changed.dedup();
        self.changed.shrink_to_fit();
    }

    /// Whether the inode has several names in the selection.
    pub(crate) fn is_group(&self, inode: u64) -> bool {
        self.groups.contains(&inode)
    }

    /// Whether the destination has all of these names as links of the inode in the snapshot.
    pub(crate) fn is_untouched(&self, inode: u64) -> bool {
        self.changed.binary_search(&inode).is_err()
    }

    /// Whether `counterpart` is a link of what the verification has met under other names of the
    /// inode.
    pub(crate) fn verify(&mut self, inode: u64, counterpart: Identity) -> bool {
        !self.is_group(inode) || *self.verified.entry(inode).or_insert(counterpart) == counterpart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_inodes_with_several_names_are_groups() {
        let mut links = LinkGroups::default();
        for (inode, is_shared) in [(7, true), (8, false), (9, true), (7, true), (9, false)] {
            links.note(inode, is_shared);
        }
        links.find_groups();
        assert_eq!([7, 8, 9].map(|inode| links.is_group(inode)), [true, false, true]);
        assert_eq!([7, 9].map(|inode| links.is_untouched(inode)), [true, false]);
        let at = |inode| Identity { device: 1, inode };
        assert!(links.verify(7, at(70)) && links.verify(7, at(70)) && !links.verify(7, at(71)));
        assert!(links.verify(8, at(80)) && links.verify(8, at(81)));
    }
}
