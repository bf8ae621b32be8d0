//! Tells whether two inodes at one path of a history are copies of each other: a snapshot holds a
//! copy where no link could be made. Nothing is changed.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::decide::path_versions::{EntryKind, Sighting};
use crate::engine::baseline::{Inode, xattrs};
use crate::engine::content::{HashLimit, HashResult, content_hash};
use crate::engine::path_lookup::EntryPlace;
use crate::run::path_history::PathHistory;
use crate::system::identity::SysResult;

/// Compares entries at one path that look alike, though they have two inodes.
pub(crate) struct CopyComparison<'a> {
    pub history: &'a PathHistory,
    pub path: &'a [Vec<u8>],
    /// What was seen in each tree.
    pub sightings: &'a [Sighting],
    pub limit: &'a mut HashLimit,
    /// The hashes of the trees that have one.
    pub hashes: BTreeMap<usize, HashResult>,
    /// Whether a content could not be read, or not in time, and counts as equal all the same.
    pub is_uncertain: bool,
}

impl CopyComparison<'_> {
    /// Whether the entries of two trees equal each other in what their attributes do not tell.
    pub(crate) fn is_copy(&mut self, one: usize, two: usize) -> bool {
        let (Ok(first), Ok(second)) = (self.place_in(one), self.place_in(two)) else {
            self.is_uncertain = true;
            return true;
        };
        let xattrs_of = |(place, _): &Seen| xattrs(place.directory.as_fd(), &place.name);
        let target_of = |(place, _): &Seen| place.link_target();
        if xattrs_of(&first) != xattrs_of(&second) || target_of(&first) != target_of(&second) {
            return false;
        }
        if EntryKind::of(first.1.attributes.mode) != EntryKind::File {
            return true;
        }
        match (self.hash(one, &first), self.hash(two, &second)) {
            (HashResult::Hash(first), HashResult::Hash(second)) => first == second,
            _ => {
                self.is_uncertain = true;
                true
            }
        }
    }

    /// The entry in a tree, if it is still the one that was seen.
    fn place_in(&self, tree: usize) -> SysResult<Seen> {
        let top = self.history.open_tree(&self.history.trees[tree])?;
        let place = EntryPlace::find(top.as_fd(), self.path)?;
        let inode = place.inspect()?;
        match self.sightings.get(tree) {
            Some(Sighting::Present(seen)) if seen.inode == inode.number => Ok((place, inode)),
            _ => Err(Errno::ESTALE),
        }
    }

    fn hash(&mut self, tree: usize, (place, inode): &Seen) -> HashResult {
        if let Some(known) = self.hashes.get(&tree) {
            return *known;
        }
        let hash = content_hash(place.directory.as_fd(), &place.name, inode, self.limit);
        self.hashes.insert(tree, hash);
        hash
    }
}

/// An entry and its state.
type Seen = (EntryPlace, Inode);
