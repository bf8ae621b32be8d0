//! The index of a snapshot on disk: `index/NAME`.
//!
//! It is written before the snapshot becomes visible, and synced with it. It only saves work: if it
//! is missing, damaged or too large, the whole trees are compared, without a message.

use crate::engine::index::{DirectoryIndex, IndexPart, join, max_bytes};
use crate::store::dir;
use crate::store::layout::Subdir;
use crate::store::root::SnapshotRoot;
use crate::tell::error::Result;

/// Reads the index of the snapshot `name`, which has about `entries` entries.
pub(crate) fn read(
    root: &SnapshotRoot,
    name: &str,
    entries: Option<u64>,
) -> Option<DirectoryIndex> {
    let dir = root.subdir(Subdir::Index).ok()?;
    let file = dir::read_bytes(dir.dir(), name, max_bytes(entries) as u64 + 1_024).ok()??;
    DirectoryIndex::parse(file, name)
}

/// Writes the index of the snapshot `name` for a caller who is about to sync the whole file system.
pub(crate) fn write_before_syncfs(
    root: &SnapshotRoot,
    name: &str,
    parts: Vec<IndexPart>,
    entries: u64,
) -> Result<()> {
    match join(parts, name, max_bytes(Some(entries))) {
        Some(file) => dir::write_before_syncfs(root.subdir(Subdir::Index)?.dir(), name, &file),
        None => Ok(()),
    }
}
