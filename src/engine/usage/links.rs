//! Which files lose the last of their links, in bounded memory.
//!
//! A file with several links is remembered from the first that is met until the last: 24 bytes and
//! what a hash table adds. If too many are open at once, half of all inode numbers are left for
//! another walk over the same trees, and again half of what remains, down to a thousandth of them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Inode numbers are divided into so many parts, of which a walk takes as many as it can remember.
pub(crate) const BUCKETS: usize = 1_024;

/// The files with several links whose inode numbers are in some of the buckets.
pub(crate) struct LinkCounter {
    buckets: Range<usize>,
    /// Files of which some links have been met, with how many have not, and the tree of the first
    /// one.
    open: HashMap<u64, (u64, usize)>,
    /// What those take of which all have been met, by bucket and the first and the last tree that
    /// holds them.
    bytes: BTreeMap<(usize, usize, usize), u64>,
    /// Buckets that are left for further walks.
    left: Vec<Range<usize>>,
    max_remembered: usize,
}

impl LinkCounter {
    /// None met yet; of more than `max_remembered` at once some are left for further walks.
    pub(crate) fn new(buckets: Range<usize>, max_remembered: usize) -> Self {
        LinkCounter {
            buckets,
            open: HashMap::new(),
            bytes: BTreeMap::new(),
            left: Vec::new(),
            max_remembered,
        }
    }

    /// One of the `links` of a file that takes `bytes` has been met in the tree with this number;
    /// trees are walked in the order of their numbers.
    pub(crate) fn meet(&mut self, tree: usize, inode: u64, links: u64, bytes: u64) {
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

    /// What the files take of which all links have been met, by the first and the last tree that
    /// holds them.
    pub(crate) fn bytes(&self) -> BTreeMap<(usize, usize), u64> {
        let mut by_trees = BTreeMap::new();
        for (&(_, first, last), bytes) in &self.bytes {
            *by_trees.entry((first, last)).or_default() += bytes;
        }
        by_trees
    }

    /// The buckets that further walks have to begin anew with.
    pub(crate) fn left(self) -> Vec<Range<usize>> {
        self.left
    }

    /// Leaves half of the buckets for another walk, which begins anew with them.
    fn halve(&mut self) {
        let Range { start, end } = self.buckets;
        let middle = start + (end - start) / 2;
        self.buckets = start..middle;
        self.left.push(middle..end);
        self.open.retain(|inode, _| bucket(*inode) < middle);
        self.bytes.retain(|(bucket, ..), _| *bucket < middle);
    }
}

/// Inode numbers that follow each other fall into different buckets.
fn bucket(inode: u64) -> usize {
    let mixed = inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    mixed as usize % BUCKETS
}
