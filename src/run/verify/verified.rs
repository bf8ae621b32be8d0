//! What a verification found.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use crate::decide::damage::{Damage, InodeChange};
use crate::tell::escape::escape;

/// What a verification found.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    /// How many snapshots were looked at.
    pub snapshots: usize,
    /// How many inodes in them were held against the inode log.
    pub inodes: u64,
    /// How many were never recorded, and are from now on.
    pub unknown: u64,
    /// How many were touched by others in a way that may have been a rename or a deletion: without
    /// a hash of their content this cannot be told.
    pub unprovable: u64,
    /// How many show another inode number each time they are looked at, so that nothing can be said
    /// of them.
    pub unstable: u64,
    /// Why the file system cannot be trusted with that, if a trial has shown it.
    pub file_system: Option<String>,
    /// Files and directories that could not be read; the log says which.
    pub unreadable: u64,
    /// Bytes of the inode log that are damaged.
    pub lost_bytes: u64,
    /// Whether change times count: whether it is known when we made links ourselves.
    pub has_windows: bool,
    /// What was altered, by path.
    pub altered: Vec<AlteredPath>,
    /// How many inodes that are.
    pub altered_inodes: HashSet<u64>,
}

/// A path in snapshots whose file has been altered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlteredPath {
    /// Relative to the snapshot.
    pub path: Vec<u8>,
    /// The inode's number.
    pub inode: u64,
    /// How it differs from what it was.
    pub changes: Vec<InodeChange>,
    /// The snapshots that are damaged, oldest first.
    pub snapshots: Vec<String>,
}

impl Verified {
    /// Whether anything was altered.
    pub(crate) fn is_damaged(&self) -> bool {
        !self.altered.is_empty()
    }

    /// Whether there are files of which it cannot be told, for the file system does not keep what
    /// is needed.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.unstable > 0 || self.file_system.is_some()
    }

    /// How many snapshots are damaged.
    pub(crate) fn damaged_snapshots(&self) -> usize {
        self.altered.iter().flat_map(|altered| &altered.snapshots).collect::<HashSet<_>>().len()
    }

    pub(crate) fn damage(&self, now: DateTime<Utc>, before: Option<Damage>) -> Option<Damage> {
        const FIRST: usize = 10;
        self.is_damaged().then(|| Damage {
            since: before.map_or(now, |before| before.since),
            files: self.altered_inodes.len() as u64,
            snapshots: self.damaged_snapshots() as u64,
            first: self.altered.iter().take(FIRST).map(|altered| escape(&altered.path)).collect(),
        })
    }
}
