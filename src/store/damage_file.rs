//! `damage.toml`: which files of which snapshots a verification found altered, and which snapshots
//! lack entries, for a restore that reads them.
//!
//! The state says whether there is damage. The verification writes this file first and the state
//! after it, so a crash in between leaves a file that counts for nothing, or the old pair.

use serde::{Deserialize, Serialize};

use crate::store::dir::{self, Dir};
use crate::store::format::{self, FORMAT, to_toml};
use crate::store::layout::DAMAGE_FILE;
use crate::tell::error::Result;

/// What `damage.toml` holds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct DamageList {
    format: u32,
    /// More files were altered than are listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_cut: bool,
    #[serde(default, rename = "file", skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<DamagedFile>,
    #[serde(default, rename = "entries", skip_serializing_if = "Vec::is_empty")]
    pub(crate) entries: Vec<DifferingEntries>,
}

/// A snapshot that has fewer or more entries than recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DifferingEntries {
    pub(crate) snapshot: String,
    /// How its entries differ, as text that begins with its name.
    pub(crate) text: String,
}

/// A file that was altered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DamagedFile {
    /// Its path in the snapshots, escaped.
    pub(crate) path: String,
    /// How it differs from what was recorded of it, as text.
    pub(crate) change: String,
    /// The snapshots that it is altered in.
    pub(crate) snapshots: Vec<String>,
    /// Its inode number; 0 if an earlier version wrote this.
    #[serde(default)]
    pub(crate) inode: u64,
    /// If only its change time shows that, this time in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) touched_ns: Option<i64>,
}

impl DamageList {
    /// Replaces the list.
    pub(crate) fn write(
        private: Dir,
        files: Vec<DamagedFile>,
        is_cut: bool,
        entries: Vec<DifferingEntries>,
    ) -> Result<()> {
        let list = DamageList { format: FORMAT, is_cut, files, entries };
        dir::write_drafted(private, DAMAGE_FILE, &to_toml(&list, private)?)
    }

    /// The list; none if it is missing.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub(crate) fn read(private: Dir) -> Result<Option<Self>> {
        let Some(text) = dir::read(private, DAMAGE_FILE)? else { return Ok(None) };
        format::read(&private.path.join(DAMAGE_FILE), &text).map(Some)
    }
}
