//! Finds the files that would lose their last link, in bounded memory.
//!
//! A file with several links is remembered from the first link that is found until the last: 24
//! bytes and the overhead of a hash table. If too many are remembered at once, half of all inode
//! numbers are left for another walk over the trees, then half of the rest, and so on, down to a
//! thousandth of them. What was counted of the files that are left is forgotten. Therefore the sums
//! are kept apart for each half, quarter and so on: a few sums for each pair of trees, however many
//! files there are.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Inode numbers are divided into this many buckets, a power of two. A walk takes as many as memory
/// suffices for.
pub(crate) const BUCKETS: usize = 1_024;

/// The files with several links whose inode numbers are in some of the buckets.
pub(crate) struct LinkCounter {
    buckets: Range<usize>,
    /// Files of which some links have been found, by inode number.
    open: HashMap<u64, OpenFile>,
    /// Bytes of the files of which all links have been found, by share, first and last tree.
    bytes: BTreeMap<(Share, usize, usize), u64>,
    /// Size of the files in each tree, by share and tree.
    sizes: BTreeMap<(Share, usize), u64>,
    /// Buckets that are left for further walks.
    left: Vec<Range<usize>>,
    max_remembered: usize,
}

/// A part of the buckets that is left as a whole: the last half, the last half of the rest, and so
/// on. The number of bits of the bucket, counted from the first one.
type Share = u32;

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
    /// Remembers at most about `max_remembered` files at once, and twice as many sums, and leaves
    /// others for further walks.
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
        let share = self.share(bucket);
        let new = OpenFile { missing: file.links, first: number, last: u32::MAX };
        let open = self.open.entry(file.inode).or_insert(new);
        if open.last != number {
            open.last = number;
            *self.sizes.entry((share, tree)).or_default() += file.size;
        }
        open.missing = open.missing.saturating_sub(1);
        if open.missing == 0 {
            let first = open.first as usize;
            self.open.remove(&file.inode);
            *self.bytes.entry((share, first, tree)).or_default() += file.bytes;
        }
        while self.is_too_much() && self.buckets.len() > 1 {
            self.halve();
        }
    }

    /// Whether more is remembered than there is memory for. A walk takes hours where there are so
    /// many pairs of trees, and the sums are small, so there may be twice as many of them.
    fn is_too_much(&self) -> bool {
        self.open.len() > self.max_remembered
            || (self.bytes.len() + self.sizes.len()) / 2 > self.max_remembered
    }

    fn share(&self, bucket: usize) -> Share {
        usize::BITS - (bucket - self.buckets.start).leading_zeros()
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
        let left = self.share(middle);
        self.buckets = start..middle;
        self.left.push(middle..end);
        self.open.retain(|inode, _| bucket(*inode) < middle);
        self.bytes.retain(|(share, ..), _| *share < left);
        self.sizes.retain(|(share, _), _| *share < left);
    }
}

/// Consecutive inode numbers fall into different buckets.
fn bucket(inode: u64) -> usize {
    let mixed = inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    mixed as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREES: usize = 60;

    /// As many files as there are pairs of trees: each is in one of the pairs.
    fn count(max_remembered: usize) -> (BTreeMap<(usize, usize), u64>, BTreeMap<usize, u64>) {
        let (mut bytes, mut sizes) = (BTreeMap::new(), BTreeMap::new());
        let mut parts = Vec::from_iter(std::iter::once(0..BUCKETS));
        while let Some(part) = parts.pop() {
            let mut counter = LinkCounter::new(part, max_remembered);
            for tree in 0..TREES {
                for other in (0..TREES).filter(|other| *other != tree) {
                    let (first, last) = (tree.min(other), tree.max(other));
                    let inode = (first * TREES + last) as u64;
                    let file = LinkedFile { inode, links: 2, bytes: inode + 1, size: inode };
                    counter.count_link(tree, &file);
                    assert!(counter.buckets.len() == 1 || !counter.is_too_much());
                }
            }
            counter
                .bytes()
                .into_iter()
                .for_each(|(key, more)| *bytes.entry(key).or_default() += more);
            counter.sizes().for_each(|(key, more)| *sizes.entry(key).or_default() += more);
            parts.extend(counter.left());
        }
        (bytes, sizes)
    }

    #[test]
    fn the_answer_does_not_depend_on_how_many_sums_are_remembered() {
        let expected = count(usize::MAX);
        assert_eq!(expected.0.len(), TREES * (TREES - 1) / 2);
        for max_remembered in [1_500, 700, 100] {
            assert_eq!(count(max_remembered), expected, "{max_remembered}");
        }
    }

    #[test]
    fn a_share_is_left_as_a_whole() {
        let mut counter = LinkCounter::new(512..1_024, 1);
        for size in [256, 128, 64, 32, 16, 8, 4, 2, 1] {
            let left = counter.share(512 + size);
            assert!((0..size).all(|offset| counter.share(512 + offset) < left), "{size}");
            assert!((size..2 * size).all(|offset| counter.share(512 + offset) == left), "{size}");
            counter.halve();
            assert_eq!(counter.buckets, 512..512 + size);
        }
        assert_eq!(counter.left.iter().map(Range::len).sum::<usize>(), 511);
    }
}
