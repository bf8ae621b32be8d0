//! The result of a verification.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use crate::decide::damage::{Damage, InodeChange};
use crate::run::vanished::UnacceptedSnapshots;
use crate::tell::escape::escape;

#[derive(Debug, Default)]
pub(crate) struct Verified {
    /// How many snapshots were examined.
    pub snapshots: usize,
    /// How many inodes in them were compared with the inode log.
    pub inodes: u64,
    /// How many inodes had no baseline.
    pub unknown: u64,
    /// How many inodes other programs touched in a way that may have been a rename or a deletion:
    /// without a hash of the content, this cannot be decided.
    pub unprovable: u64,
    /// How many files show another inode number at each call, so that nothing is known of them.
    pub unstable: u64,
    /// Why inode numbers of the file system are unreliable, if a trial has shown it.
    pub file_system: Option<String>,
    /// Files and directories that could not be read; the log names them.
    pub unreadable: u64,
    /// Bytes of the inode log that are damaged.
    pub lost_bytes: u64,
    /// Whether change times count: whether it is recorded when runs made links.
    pub has_windows: bool,
    pub vanished: UnacceptedSnapshots,
    /// Sorted by path.
    pub altered: Vec<AlteredPath>,
    /// The inodes of the altered paths.
    pub altered_inodes: HashSet<u64>,
}

/// A path in snapshots whose file has been altered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlteredPath {
    /// Relative to the snapshot.
    pub path: Vec<u8>,
    /// The inode's number.
    pub inode: u64,
    /// How it differs from its records.
    pub changes: Vec<InodeChange>,
    /// The snapshots that are damaged, oldest first.
    pub snapshots: Vec<String>,
}

impl Verified {
    /// Whether anything was altered.
    pub(crate) fn is_damaged(&self) -> bool {
        !self.altered.is_empty()
    }

    /// Whether some files cannot be checked, since the file system has no stable inode numbers.
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
