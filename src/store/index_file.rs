//! The index of a snapshot on disk: `index/NAME`.
//!
//! It is written before the snapshot becomes visible, and synced with it. It only saves work: where
//! it is missing or damaged, or of another version, the directories are compared, without a
//! message.

use std::io::{BufWriter, Write};

use crate::engine::index::draft::IndexDraft;
use crate::engine::index::reader::DirectoryIndex;
use crate::store::dir::{self, Dir};
use crate::store::layout::Subdir;
use crate::store::root::SnapshotRoot;
use crate::tell::error::Result;

/// How much is written at a time.
const WRITE_BYTES: usize = 256 << 10;

/// Opens the index of the snapshot `name`.
pub(crate) fn open(root: &SnapshotRoot, name: &str) -> Option<DirectoryIndex> {
    open_in(root.subdir(Subdir::Index).ok()?.dir(), name)
}

/// [`open`] in the directory of the indexes.
pub(crate) fn open_in(dir: Dir, name: &str) -> Option<DirectoryIndex> {
    let file = dir::open_to_read(dir, name).ok()??;
    DirectoryIndex::open(file, name)
}

/// Writes the index of the snapshot `name` for a caller who is about to sync the whole file system.
pub(crate) fn write_before_syncfs(
    root: &SnapshotRoot,
    name: &str,
    index: IndexDraft,
) -> Result<()> {
    dir::write_before_syncfs_by(root.subdir(Subdir::Index)?.dir(), name, |file| {
        let mut file = BufWriter::with_capacity(WRITE_BYTES, file);
        let is_written = index.write(name, &mut file)?;
        file.flush()?;
        Ok(is_written)
    })
}
