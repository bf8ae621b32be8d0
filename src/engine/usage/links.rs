//! Finds the files that would lose their last link, in bounded memory.
//!
//! A file with several links is remembered from the first link that is found until the last: 24
//! bytes and the overhead of a hash table. If too many are remembered at once, half of all inode
//! numbers are left for another walk over the trees, then half of the rest, and so on, down to a
//! thousandth of them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Inode numbers are divided into this many buckets. A walk takes as many as memory suffices for.
pub(crate) const BUCKETS: usize = 1_024;

/// The files with several links whose inode numbers are in some of the buckets.
pub(crate) struct LinkCounter {
    buckets: Range<usize>,
    /// Files of which some links have been found: number of missing links, and the first tree.
    open: HashMap<u64, (u64, usize)>,
    /// Bytes of the files of which all links have been found, by bucket, first and last tree.
    bytes: BTreeMap<(usize, usize, usize), u64>,
    /// Buckets that are left for further walks.
    left: Vec<Range<usize>>,
    max_remembered: usize,
}

impl LinkCounter {
    /// Remembers at most about `max_remembered` files at once, and leaves others for further walks.
    pub(crate) fn new(buckets: Range<usize>, max_remembered: usize) -> Self {
        LinkCounter {
            buckets,
            open: HashMap::new(),
            bytes: BTreeMap::new(),
            left: Vec::new(),
            max_remembered,
        }
    }

    /// Counts one of the `links` of a file that takes `bytes`, found in the tree with the number
    /// `tree`. Trees are walked in the order of their numbers.
    pub(crate) fn count_link(&mut self, tree: usize, inode: u64, links: u64, bytes: u64) {
        let bucket = bucket(inode);
        if !self.buckets.contains(&bucket) {
            return;
        }
        let (missing, first) = self.open.entry(inode).or_insert((links, tree));
        *missing = missing.saturating_sub(1);
        if *missing == 0 {
            let first = *first;
            self.open.remove(&inode);
            *self.bytes.entry((bucket, first, tree)).or_default() += bytes;
        } else if self.open.len() > self.max_remembered && self.buckets.len() > 1 {
            self.halve();
        }
    }

    /// Bytes of the files of which all links have been found, by first and last tree.
    pub(crate) fn bytes(&self) -> BTreeMap<(usize, usize), u64> {
        let mut by_trees = BTreeMap::new();
        for (&(_, first, last), bytes) in &self.bytes {
            *by_trees.entry((first, last)).or_default() += bytes;
        }
        by_trees
    }

    /// The buckets for further walks.
    pub(crate) fn left(self) -> Vec<Range<usize>> {
        self.left
    }

    /// Leaves half of the buckets for another walk, and forgets what was counted of them.
    fn halve(&mut self) {
        let Range { start, end } = self.buckets;
        let middle = start + (end - start) / 2;
        self.buckets = start..middle;
        self.left.push(middle..end);
        self.open.retain(|inode, _| bucket(*inode) < middle);
        self.bytes.retain(|(bucket, ..), _| *bucket < middle);
    }
}

/// Consecutive inode numbers fall into different buckets.
fn bucket(inode: u64) -> usize {
    let mixed = inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    mixed as usize % BUCKETS
}
