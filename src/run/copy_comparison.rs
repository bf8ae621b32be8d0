//! Tells whether two inodes at one path of a history are copies of each other: a snapshot holds a
//! copy where no link could be made. Nothing is changed.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use crate::decide::path_versions::EntryKind;
use crate::engine::baseline::{Inode, xattrs};
use crate::engine::content::{HashLimit, HashResult, content_hash};
use crate::engine::path_lookup::EntryPlace;
use crate::run::path_history::PathHistory;
use crate::system::identity::SysResult;

/// Compares entries at one path that look alike, though they have two inodes.
pub(crate) struct CopyComparison<'a> {
    pub history: &'a PathHistory,
    pub path: &'a [Vec<u8>],
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
        let xattrs_of = |place: &EntryPlace| xattrs(place.directory.as_fd(), &place.name);
        if xattrs_of(&first) != xattrs_of(&second) || first.link_target() != second.link_target() {
            return false;
        }
        let is_file = |inode: Inode| EntryKind::of(inode.attributes.mode) == EntryKind::File;
        if !first.inspect().is_ok_and(is_file) {
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

    fn place_in(&self, tree: usize) -> SysResult<EntryPlace> {
        let top = self.history.open_tree(&self.history.trees[tree])?;
        EntryPlace::find(top.as_fd(), self.path)
    }

    fn hash(&mut self, tree: usize, place: &EntryPlace) -> HashResult {
        if let Some(known) = self.hashes.get(&tree) {
            return *known;
        }
        let hash = match place.inspect() {
            Ok(inode) => content_hash(place.directory.as_fd(), &place.name, &inode, self.limit),
            Err(_) => HashResult::None,
        };
        self.hashes.insert(tree, hash);
        hash
    }
}
