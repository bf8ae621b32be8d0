//! The index of a snapshot on disk: `index/NAME`.
//!
//! It is written before the snapshot becomes visible, and synced with it. A run only saves work by
//! it: where it is missing or damaged, or of another version, the directories are compared, without
//! a message. `verify` and a restore compare a snapshot with it, and say if they cannot.

use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use crate::engine::index::block::is_of_another_format;
use crate::engine::index::draft::IndexDraft;
use crate::engine::index::reader::DirectoryIndex;
use crate::store::dir::{self, Dir};
use crate::store::layout::Subdir;
use crate::store::root::SnapshotRoot;
use crate::tell::error::{Error, Result};

/// The beginning of an index with the name of its snapshot is shorter.
const MAX_HEADER_BYTES: usize = 512;

/// How much is written at a time.
const WRITE_BYTES: usize = 256 << 10;

/// Opens the index of the snapshot `name`.
pub(crate) fn open(root: &SnapshotRoot, name: &str) -> Option<DirectoryIndex> {
    read(root.subdir(Subdir::Index).ok()?.dir(), name).ok()?
}

/// The index of the snapshot `name` in the directory of the indexes; none if it is missing.
///
/// # Errors
/// If it cannot be read, is damaged, or is of another version.
pub(crate) fn read(dir: Dir, name: &str) -> Result<Option<DirectoryIndex>> {
    let Some(file) = dir::open_to_read(dir, name)? else { return Ok(None) };
    let damaged = || {
        let cause = io::Error::new(io::ErrorKind::InvalidData, "damaged, or of another version");
        Error::io("read", &dir.path.join(name), cause)
    };
    DirectoryIndex::open(file, name).ok_or_else(damaged).map(Some)
}

/// Whether an earlier or a later version of the program has written the index of the snapshot
/// `name`, so that this one cannot use it.
pub(crate) fn is_of_another_version(dir: Dir, name: &str) -> bool {
    let mut beginning = [0; MAX_HEADER_BYTES];
    let read = dir::open_to_read(dir, name).ok().flatten().and_then(|file| {
        let length = file.read_at(&mut beginning, 0).ok()?;
        Some(is_of_another_format(&beginning[..length], name))
    });
    read == Some(true)
}

/// Writes the index of the snapshot `name` for a caller who is about to sync the whole file system.
/// False if the snapshot gets none.
pub(crate) fn write_before_syncfs(
    root: &SnapshotRoot,
    name: &str,
    index: IndexDraft,
) -> Result<bool> {
    dir::write_before_syncfs_by(root.subdir(Subdir::Index)?.dir(), name, |file| {
        let mut file = BufWriter::with_capacity(WRITE_BYTES, file);
        let is_written = index.write(name, &mut file)?;
        file.flush()?;
        Ok(is_written)
    })
}
