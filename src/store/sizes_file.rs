//! `sizes.toml`: what `list --sizes` has counted.
//!
//! It only saves work: a file that is missing, damaged or of a newer version counts for nothing.
//! It names the neighbours of each snapshot, so that a later run can tell whether a number is still
//! exact. Nothing else depends on it, so it is written after the count and in no order with other
//! files; two counts at once write one after the other, under the state's short lock.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::snapshot_size::CountedSnapshot;
use crate::store::dir::{self, Dir};
use crate::store::format::{self, FORMAT, to_toml};
use crate::store::layout::SIZES_FILE;
use crate::store::lock::DirLock;
use crate::tell::error::{Error, Result};

/// What `sizes.toml` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CountedSizes {
    format: u32,
    /// When the count began.
    pub(crate) time: DateTime<Utc>,
    /// What the snapshots, the retired ones and the module took together.
    /// None if that is not known, as of btrfs snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) total_bytes: Option<u64>,
    /// How much of that the snapshots and retired ones took without the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) history_bytes: Option<u64>,
    #[serde(default, rename = "snapshot", skip_serializing_if = "Vec::is_empty")]
    pub(crate) snapshots: Vec<CountedSnapshot>,
}

impl CountedSizes {
    pub(crate) fn new(
        time: DateTime<Utc>,
        total_bytes: Option<u64>,
        history_bytes: Option<u64>,
        snapshots: Vec<CountedSnapshot>,
    ) -> Self {
        CountedSizes { format: FORMAT, time, total_bytes, history_bytes, snapshots }
    }

    /// Replaces what was counted before. A file of a newer version stays.
    pub(crate) fn write(&self, private: Dir) -> Result<()> {
        let _guard = DirLock::on_directory(private)?;
        if let Some(text) = dir::read(private, SIZES_FILE)?
            && let Err(newer @ Error::Newer { .. }) = Self::parse(private, &text)
        {
            return Err(newer);
        }
        dir::write_drafted(private, SIZES_FILE, &to_toml(self, private)?)
    }

    /// What was counted last; none if it is not known.
    pub(crate) fn read(private: Dir) -> Option<Self> {
        let text = dir::read(private, SIZES_FILE).ok().flatten()?;
        Self::parse(private, &text).ok()
    }

    fn parse(private: Dir, text: &str) -> Result<Self> {
        format::read(&private.path.join(SIZES_FILE), text)
    }
}
