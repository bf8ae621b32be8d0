//! The result of a verification.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use crate::decide::comparison_gap::ComparisonGap;
use crate::decide::damage::{Damage, InodeChange};
use crate::decide::lacking::LostLinks;
use crate::run::vanished::UnacceptedSnapshots;
use crate::tell::escape::escape;

#[derive(Debug, Default)]
pub(crate) struct Verified {
    /// How many snapshots were examined.
    pub snapshots: usize,
    /// How many more are subvolumes, of which nothing is compared.
    pub subvolumes: usize,
    /// How many more were made by CephFS, of which nothing is compared.
    pub cephfs_snapshots: usize,
    /// Those of them that are or were writable, so that they may have been changed.
    pub changed_subvolumes: Vec<String>,
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
    /// Whether that was recorded once, and is lost.
    pub lost_windows: bool,
    pub vanished: UnacceptedSnapshots,
    /// Sorted by path.
    pub altered: Vec<AlteredPath>,
    /// The inodes of the altered paths.
    pub altered_inodes: HashSet<u64>,
    /// Snapshots in which another program removed, added or exchanged entries, oldest first.
    pub lacking: Vec<LackingSnapshot>,
    /// Inodes whose change times the removal of these entries has moved.
    pub explained_inodes: HashSet<u64>,
    /// The snapshots whose lost links moved these times.
    pub lost_links: Vec<(String, LostLinks)>,
    /// What could not be compared with what was recorded.
    pub gaps: Vec<SnapshotGap>,
}

/// Something of a snapshot that could not be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotGap {
    pub snapshot: String,
    pub gap: ComparisonGap,
    /// Whether its entries could not be compared, rather than its files.
    pub is_of_entries: bool,
}

/// A snapshot that has fewer, more or other entries than recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LackingSnapshot {
    pub name: String,
    /// How many entries its record has.
    pub recorded: u64,
    /// How many it lacks of them.
    pub lacks: u64,
    /// How many it has more.
    pub added: u64,
    /// If it has as many as recorded: how many directories have others, and the first of these.
    pub changed: u64,
    pub changed_first: Vec<Vec<u8>>,
    /// The first files that it lacks, as far as a later tree shows them, or that were added.
    pub first: Vec<Vec<u8>>,
    /// What an earlier verification said of it, if only that found it.
    pub known: Option<String>,
}

impl LackingSnapshot {
    /// One of which only an earlier verification found this.
    pub(crate) fn known(name: String, text: String) -> Self {
        LackingSnapshot {
            name,
            recorded: 0,
            lacks: 0,
            added: 0,
            changed: 0,
            changed_first: Vec::new(),
            first: Vec::new(),
            known: Some(text),
        }
    }

    /// What it lacks or has more, for messages.
    pub(crate) fn text(&self) -> String {
        if let Some(known) = &self.known {
            return known.clone();
        }
        let LackingSnapshot { name, recorded, lacks, added, .. } = self;
        match (lacks, added) {
            (0, 0) => other_entries_text(name, self.changed, &self.changed_first),
            (_, 0) => format!("{name} lacks {lacks} of {recorded} entries"),
            _ => format!("{name} has {added} more than its {recorded} entries"),
        }
    }
}

/// A directory of a snapshot in a message, by its path from the snapshot's own directory on.
pub(crate) fn directory_text(path: &[u8]) -> String {
    match path.is_empty() {
        true => "its own directory".to_string(),
        false => escape(path),
    }
}

/// The message about a snapshot in which another program changed entries of `directories`, of which
/// these are the `first`.
pub(crate) fn other_entries_text(name: &str, directories: u64, first: &[Vec<u8>]) -> String {
    const TOLD: usize = 3;
    let told: Vec<String> = first.iter().take(TOLD).map(|path| directory_text(path)).collect();
    let more = match directories.saturating_sub(told.len() as u64) {
        0 => String::new(),
        1 => " and 1 more directory".to_string(),
        more => format!(" and {more} more directories"),
    };
    format!(
        "{name} has other entries than when it was taken, in {}{more}: another program added, \
         removed or renamed some, or set the time of the directory",
        told.join(", ")
    )
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
    /// Whether anything was altered, or entries are missing or were added.
    pub(crate) fn is_damaged(&self) -> bool {
        !self.altered.is_empty() || !self.lacking.is_empty()
    }

    /// Whether some files cannot be checked, since the file system has no stable inode numbers.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.unstable > 0 || self.file_system.is_some()
    }

    /// How many snapshots are damaged.
    pub(crate) fn damaged_snapshots(&self) -> usize {
        let altered = self.altered.iter().flat_map(|altered| &altered.snapshots);
        let lacking = self.lacking.iter().map(|lacking| &lacking.name);
        altered.chain(lacking).collect::<HashSet<_>>().len()
    }

    pub(crate) fn damage(&self, now: DateTime<Utc>, before: Option<Damage>) -> Option<Damage> {
        const FIRST: usize = 10;
        let altered = self.altered.iter().map(|altered| escape(&altered.path));
        let lacking = self.lacking.iter().map(LackingSnapshot::text);
        self.is_damaged().then(|| Damage {
            since: before.map_or(now, |before| before.since),
            files: self.altered_inodes.len() as u64,
            snapshots: self.damaged_snapshots() as u64,
            first: altered.chain(lacking).take(FIRST).collect(),
        })
    }
}
