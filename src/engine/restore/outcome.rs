//! What a pass of a restore has found or done.

use crate::decide::restore_step::RestoreObstacle;
use crate::tell::error::Error;

/// How many paths are remembered for messages; all are counted.
pub(crate) const MAX_KEPT: usize = 100;

/// A limited list of what went wrong, and how much of it there was.
#[derive(Debug)]
pub(crate) struct Truncated<T> {
    pub first: Vec<T>,
    pub count: u64,
}

impl<T> Default for Truncated<T> {
    fn default() -> Self {
        Truncated { first: Vec::new(), count: 0 }
    }
}

impl<T> Truncated<T> {
    pub(crate) fn note(&mut self, one: T) {
        self.count += 1;
        if self.first.len() < MAX_KEPT {
            self.first.push(one);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn append(&mut self, other: Truncated<T>) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.truncate(MAX_KEPT);
    }
}

/// What is in the way of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RestoreConflict {
    /// The path in the snapshot.
    pub path: Vec<u8>,
    pub obstacle: RestoreObstacle,
}

/// What a pass has done, or, in a plan, what the next one would do.
#[derive(Debug, Default)]
pub(crate) struct PassOutcome {
    /// All entries of the selection.
    pub entries: u64,
    /// Entries made where nothing was; directories do not count.
    pub made: u64,
    pub replaced: u64,
    /// Entries that are as in the snapshot already; directories do not count.
    pub kept: u64,
    /// Directories made.
    pub directories: u64,
    /// Bytes of the regular files that were made or replaced.
    pub bytes: u64,
    pub conflicts: Truncated<RestoreConflict>,
    pub errors: Truncated<Error>,
    /// The pass ended early, since the disk or a quota is full.
    pub is_out_of_space: bool,
    /// Of name, inode, mode, size and modification time of each entry in the snapshot.
    pub digest: u64,
}
