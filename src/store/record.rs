//! The record of a snapshot: `records/NAME.toml`.
//!
//! A record is written before its snapshot becomes visible. Later only `verified_until` changes.
//! Adopted snapshots get a record when they are first verified.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::boot_time::BootTime;
use crate::decide::client::Client;
use crate::decide::grade::Grade;
use crate::decide::partial_dirs::PartialDirs;
use crate::decide::transfer_reason::TransferReason;
use crate::engine::clone::{CloneOutcome, PartialDirCounts};
use crate::engine::compare::ExplainedDifferences;
use crate::engine::copied::{Copied, CopiedState, Copies, CopyCause, InodePair};
use crate::store::dir::{self, Dir};
use crate::store::format::{FORMAT, ParsedTexts, to_toml};
use crate::tell::error::Result;
use crate::tell::escape::{escape, unescape};

/// A record; all paths in it are escaped and relative to the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format number, at most [`FORMAT`].
    pub format: u32,
    /// When the snapshot was taken.
    pub time: DateTime<Utc>,
    /// When a run last found the module unchanged.
    pub verified_until: DateTime<Utc>,
    /// Complete or partial.
    pub grade: Grade,
    /// Whether another program made the snapshot and this one only verified it.
    #[serde(default)]
    pub adopted: bool,
    /// Its number in the order in which snapshots were taken; none for one that an older version
    /// made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// When it was taken by the boot clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<BootTime>,
    /// `RSYNC_EXIT_STATUS` of the transfer; none for a manual snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// Why it has its grade; none for one of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<TransferReason>,
    /// Entries in the snapshot.
    #[serde(default)]
    pub entries: u64,
    /// Entries that the previous snapshot did not have.
    #[serde(default)]
    pub added: u64,
    /// Entries that are other files than those of the same name in the previous snapshot.
    #[serde(default)]
    pub changed: u64,
    /// Entries that only the previous snapshot had.
    #[serde(default)]
    pub removed: u64,
    /// Size of the files that no earlier snapshot has, except those with several names in the
    /// module; none if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_bytes: Option<u64>,
    /// From the start of the scan until the tree was complete in staging, in seconds.
    #[serde(default)]
    pub duration_seconds: f64,
    /// Entries that disappeared while they were read.
    #[serde(default)]
    pub vanished: u64,
    /// Directories and copies whose owner or security attributes could not be kept.
    #[serde(default)]
    pub attributes_lost: u64,
    /// Mount points that were left out.
    #[serde(default)]
    pub skipped_mounts: Vec<String>,
    /// Directories that could not be read for the inode log, so that `verify` does not know all
    /// files of the snapshot.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unread_directories: u64,
    /// Whether a directory index was written with it; false for one of an earlier version, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_index: bool,
    /// Files that look like temporary ones of rsync.
    #[serde(default)]
    pub temporaries: u64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub temporary_files: Vec<String>,
    /// The client; none for a manual snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,
    /// What making the snapshot took; none for an adopted one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<SnapshotCost>,
    /// What was found in partial directories; none if an earlier version made the snapshot, which
    /// linked what was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial_dirs: Option<PartialDirsRecord>,
    /// When a btrfs snapshot began to be made, nanoseconds since 1970, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_ns: Option<String>,
    /// Inodes that were copied, since they could not be linked, or were in a partial directory.
    #[serde(default, rename = "copy", skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<CopyRecord>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Enough for a root with hundreds of snapshots.
static KNOWN: ParsedTexts<Record> = ParsedTexts::new(512, 8 << 10);

/// What was found in [partial directories](crate::decide::partial_dirs) when the snapshot was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialDirsRecord {
    /// The names of directories in which files were copied.
    pub names: Vec<String>,
    /// Files that were copied.
    #[serde(default)]
    pub copied: u64,
    /// Those of them that had other names then, in the module or in snapshots.
    #[serde(default)]
    pub shared: u64,
}

impl PartialDirsRecord {
    /// What a clone has found.
    pub fn of(partial_dirs: &PartialDirs, cloned: &CloneOutcome) -> Self {
        let PartialDirCounts { copied, shared } = cloned.partial;
        PartialDirsRecord { names: partial_dirs.names(), copied, shared }
    }

    /// Whether nothing in a partial directory was shared with a snapshot at that time.
    pub fn proves_unshared(&self, partial_dirs: &PartialDirs) -> bool {
        self.shared == 0 && partial_dirs.names().iter().all(|name| self.names.contains(name))
    }
}

/// What making a snapshot took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotCost {
    /// The retired snapshot that it was made out of; none if it was made afresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recycled: Option<String>,
    /// Directories that were read, of the module and of snapshots.
    pub directories_read: u64,
    /// Links and directories that were made.
    pub linked: u64,
    /// Links and directories of the retired snapshot that were removed.
    pub unlinked: u64,
}

impl fmt::Display for SnapshotCost {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let SnapshotCost { recycled, directories_read, linked, unlinked } = self;
        match recycled {
            Some(name) => write!(f, "out of {name}, ")?,
            None => write!(f, "afresh, ")?,
        }
        write!(f, "{directories_read} directories read, {linked} links made, {unlinked} removed")
    }
}

/// One copied inode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRecord {
    /// The first of its names.
    pub path: String,
    /// How many names share it.
    pub names: u64,
    /// Its inode in the live tree.
    pub live_inode: u64,
    copy_inode: u64,
    size_bytes: i64,
    /// As text, because nanoseconds since 1970 fit into TOML's integers only until 2262.
    mtime_ns: String,
    /// Why it could not be linked, as text.
    #[serde(default)]
    pub reason: String,
    /// Why it is a copy; missing in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<CopyCause>,
    /// What else the original looked like; missing in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original: Option<OriginalRecord>,
}

/// What the original of a copy looked like besides its size and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OriginalRecord {
    mode: u32,
    uid: u32,
    gid: u32,
    #[serde(default)]
    device: u64,
    /// As text, like the other times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ctime_ns: Option<String>,
    /// A digest in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xattrs: Option<String>,
}

impl OriginalRecord {
    fn of(state: &CopiedState) -> Self {
        let CopiedState { mode, uid, gid, device, ctime_ns, xattrs } = state;
        OriginalRecord {
            mode: *mode,
            uid: *uid,
            gid: *gid,
            device: *device,
            ctime_ns: ctime_ns.map(|ns| ns.to_string()),
            xattrs: xattrs.map(|digest| format!("{:032x}", u128::from_be_bytes(digest))),
        }
    }

    /// A field that cannot be parsed counts as unknown, so that more is compared.
    fn read(&self) -> CopiedState {
        let OriginalRecord { mode, uid, gid, device, ctime_ns, xattrs } = self;
        let digest = |text: &String| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes);
        CopiedState {
            mode: *mode,
            uid: *uid,
            gid: *gid,
            device: *device,
            ctime_ns: ctime_ns.as_ref().and_then(|text| text.parse().ok()),
            xattrs: xattrs.as_ref().and_then(digest),
        }
    }
}

impl Record {
    /// The record of an adopted snapshot, of which only the name is known.
    pub fn adopted(time: DateTime<Utc>, grade: Grade) -> Self {
        Record { adopted: true, ..Record::bare(time, grade) }
    }

    /// How many entries the snapshot had; none if that is not known exactly, because another
    /// program made it, or a client changed the module while the run counted.
    pub(crate) fn exact_entries(&self) -> Option<u64> {
        (!self.adopted && self.vanished == 0).then_some(self.entries)
    }

    pub(crate) fn bare(time: DateTime<Utc>, grade: Grade) -> Self {
        Record {
            format: FORMAT,
            time,
            verified_until: time,
            grade,
            adopted: false,
            sequence: None,
            taken_at: None,
            status: None,
            because: None,
            entries: 0,
            added: 0,
            changed: 0,
            removed: 0,
            new_bytes: None,
            duration_seconds: 0.0,
            vanished: 0,
            attributes_lost: 0,
            skipped_mounts: Vec::new(),
            unread_directories: 0,
            has_index: false,
            temporaries: 0,
            temporary_files: Vec::new(),
            client: None,
            partial_dirs: None,
            work: None,
            frozen_ns: None,
            copies: Vec::new(),
        }
    }

    /// How many names in the snapshot are copies.
    pub fn copied_names(&self) -> u64 {
        self.copies.iter().map(|copy| copy.names).sum()
    }

    /// Differences between the live tree and the snapshot that copies and mount points explain, and
    /// that are no change of the module.
    pub fn known(&self) -> ExplainedDifferences {
        let copies = self.copies.iter().filter_map(CopyRecord::read).collect();
        let mounts = self.skipped_mounts.iter().filter_map(|path| unescape(path)).collect();
        ExplainedDifferences::new(copies, mounts)
    }

    /// Reads the record of the snapshot `name`; `None` if it has none.
    pub fn read(records: Dir, name: &str) -> Result<Option<Self>> {
        let file = file_name(name);
        let Some(text) = dir::read(records, &file)? else { return Ok(None) };
        KNOWN.read(&records.path.join(&file), &text).map(Some)
    }

    /// Replaces the record of the snapshot `name` for a caller who is about to sync `records`. A
    /// crash before that leaves the old record or the new one.
    pub fn write_before_sync(&self, records: Dir, name: &str) -> Result<()> {
        dir::write_before_sync(records, &file_name(name), &self.to_text(records)?)
    }

    /// Writes the record of the snapshot `name` for a caller who is about to sync the whole file
    /// system.
    pub fn write_before_syncfs(&self, records: Dir, name: &str) -> Result<()> {
        dir::write_before_syncfs(records, &file_name(name), self.to_text(records)?.as_bytes())
    }

    fn to_text(&self, records: Dir) -> Result<String> {
        to_toml(self, records)
    }
}

/// The file that holds the record of the snapshot `name`.
pub(crate) fn file_name(name: &str) -> String {
    format!("{name}.toml")
}

/// The snapshot whose record is in the file `name`.
pub(crate) fn snapshot_name(name: &str) -> Option<&str> {
    name.strip_suffix(".toml")
}

impl CopyRecord {
    pub(crate) fn of(copies: &Copies) -> Vec<Self> {
        let record = |(pair, copied): (&InodePair, &Copied)| CopyRecord {
            path: escape(&copied.path),
            names: copied.names,
            live_inode: pair.live,
            copy_inode: pair.copy,
            size_bytes: copied.size_bytes,
            mtime_ns: copied.mtime_ns.to_string(),
            reason: copied.reason.clone(),
            cause: copied.cause,
            original: copied.state.as_ref().map(OriginalRecord::of),
        };
        copies.iter().map(record).collect()
    }

    fn read(&self) -> Option<(InodePair, Copied)> {
        let pair = InodePair { live: self.live_inode, copy: self.copy_inode };
        let mtime_ns = self.mtime_ns.parse().ok()?;
        let path = unescape(&self.path)?;
        let CopyRecord { names, size_bytes, reason, cause, original, .. } = self.clone();
        let state = original.map(|original| original.read());
        Some((pair, Copied { path, names, size_bytes, mtime_ns, state, reason, cause }))
    }
}
