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
    /// Files of which some links have been found, by inode number.
    open: HashMap<u64, OpenFile>,
    /// Bytes of the files of which all links have been found, by bucket, first and last tree.
    bytes: BTreeMap<(usize, usize, usize), u64>,
    /// Size of the files in each tree, by bucket and tree.
    sizes: BTreeMap<(usize, usize), u64>,
    /// Buckets that are left for further walks.
    left: Vec<Range<usize>>,
    max_remembered: usize,
}

/// A file of which some links are missing.
struct OpenFile {
    missing: u64,
    /// The first and the last tree in which it was found.
    first: u32,
    last: u32,
}

/// A file with several links, as it was found in one tree.
pub(crate) struct LinkedFile {
    pub inode: u64,
    pub links: u64,
    /// What it takes on disk.
    pub bytes: u64,
    /// Its size as its readers see it.
    pub size: u64,
}

impl LinkCounter {
    /// Remembers at most about `max_remembered` files at once, and leaves others for further walks.
    pub(crate) fn new(buckets: Range<usize>, max_remembered: usize) -> Self {
        LinkCounter {
            buckets,
            open: HashMap::new(),
            bytes: BTreeMap::new(),
            sizes: BTreeMap::new(),
            left: Vec::new(),
            max_remembered,
        }
    }

    /// Counts one of the links of a file, found in the tree with the number `tree`. Trees are
    /// walked in the order of their numbers.
    pub(crate) fn count_link(&mut self, tree: usize, file: &LinkedFile) {
        let bucket = bucket(file.inode);
        if !self.buckets.contains(&bucket) {
            return;
        }
        // No list of snapshots has so many.
        let number = u32::try_from(tree).unwrap_or(u32::MAX);
        let new = OpenFile { missing: file.links, first: number, last: u32::MAX };
        let open = self.open.entry(file.inode).or_insert(new);
        if open.last != number {
            open.last = number;
            *self.sizes.entry((bucket, tree)).or_default() += file.size;
        }
        open.missing = open.missing.saturating_sub(1);
        if open.missing == 0 {
            let first = open.first as usize;
            self.open.remove(&file.inode);
            *self.bytes.entry((bucket, first, tree)).or_default() += file.bytes;
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

    /// The size of the files in each tree, each counted once per tree.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (usize, u64)> {
        self.sizes.iter().map(|(&(_, tree), size)| (tree, *size))
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
        self.sizes.retain(|(bucket, _), _| *bucket < middle);
    }
}

/// Consecutive inode numbers fall into different buckets.
fn bucket(inode: u64) -> usize {
    let mixed = inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    mixed as usize % BUCKETS
}
