//! The fingerprint of a live tree: a later run compares it to see whether the tree has changed.

use serde::{Deserialize, Serialize};

/// A summary of a live tree that any added, removed or renamed entry changes. Change times
/// are the kernel's: no client can set them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Directories, the root included.
    pub directories: u64,
    /// Entries, directories included, the root not.
    pub entries: u64,
    /// The sum of the directories' change times in nanoseconds, modulo 2⁶³.
    pub ctime_sum: i64,
}
