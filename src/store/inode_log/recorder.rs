//! Appends to the inode log, for the run that holds the root's lock.
//!
//! Nothing that is appended counts before its commit follows. So a run that is killed leaves a tail
//! that the next run cuts off before it appends.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::OFlag;

use crate::store::dir::Dir;
use crate::store::inode_log::block::{Block, BlockKind, Blocks, framed};
use crate::store::inode_log::commit::{Commit, ContentHash, FILE, FOUND, MAX_COMMIT_BYTES, open};
use crate::store::inode_log::windows;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// The inode log, open for appending.
pub struct Recorder {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    /// The first error. Nothing is written after it.
    pub(crate) error: Mutex<Option<std::io::Error>>,
    pub(crate) is_new: bool,
}

impl Recorder {
    /// Opens the inode log, or makes a new one. Cuts off baselines without a commit, and commits of
    /// snapshots that are not `is_known`.
    pub fn open(dir: Dir, is_known: impl Fn(&str) -> bool) -> Result<Self> {
        let path = dir.path.join(FILE);
        let failed = |cause: std::io::Error| Error::io("write", &path, cause);
        let file = open(dir, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_APPEND)?;
        let size = file.metadata().map_err(failed)?.len();
        let (end, lost_bytes) = finished(&file, &path, is_known)?;
        if end < size {
            file.set_len(end).map_err(failed)?;
        }
        if lost_bytes > 0 {
            log::warn!(
                "{}: {lost_bytes} bytes are damaged and are ignored from now on",
                escape_path(&path)
            );
        }
        Ok(Recorder { file, path, error: Mutex::new(None), is_new: end == 0 })
    }

    /// Whether nothing was recorded before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Appends one or more baselines. [`commit`](Self::commit) returns the error, if there is one.
    pub fn append_baselines(&self, baselines: &[u8]) {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if error.is_none() {
            *error = (&self.file).write_all(&framed(BlockKind::Baselines, baselines)).err();
        }
    }

    /// Appends the commit that makes the baselines before it count, for the snapshot `name`, whose
    /// tree the run began to link at `began_ns`. All of that becomes durable when the caller syncs
    /// the whole file system.
    pub fn commit(&self, name: &str, began_ns: i64) -> Result<()> {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match error.take() {
            Some(cause) => Err(cause),
            None => {
                let commit = Commit { began_ns, name: name.to_string() };
                (&self.file).write_all(&framed(BlockKind::Commit, &commit.bytes()))
            }
        };
        result.map_err(|cause| Error::io("write", &self.path, cause))
    }

    /// Appends hashes of contents for the snapshot that was committed last, and syncs them.
    pub fn append_hashes(&self, hashes: &[ContentHash]) -> Result<()> {
        let failed = |cause| Error::io("write", &self.path, cause);
        let bytes: Vec<u8> = hashes.iter().flat_map(|hashed| hashed.bytes()).collect();
        (&self.file).write_all(&framed(BlockKind::Hashes, &bytes)).map_err(failed)?;
        self.file.sync_data().map_err(failed)
    }

    /// Appends a commit for baselines of files that were found in existing snapshots, and syncs it.
    pub fn commit_found(&self) -> Result<()> {
        self.commit(FOUND, windows::wall_ns())?;
        self.file.sync_data().map_err(|cause| Error::io("sync", &self.path, cause))
    }
}

/// Where the last commit of a known snapshot ends, and how many damaged bytes were found before it.
///
/// Nearly always the file ends with that commit, and then nothing else is read, however large the
/// file is. A client can set an extended attribute to bytes that look like a commit. At worst,
/// baselines of a killed run then count for the next snapshot; they were true when they were
/// written.
///
/// # Errors
/// [`Error::Newer`] if a newer version has written a part of the file.
pub(crate) fn finished(
    file: &File,
    path: &Path,
    is_known: impl Fn(&str) -> bool,
) -> Result<(u64, u64)> {
    let failed = |cause: std::io::Error| Error::io("read", path, cause);
    let counts = |commit: Commit| commit.name == FOUND || is_known(&commit.name);
    let mut blocks = Blocks::of(file).map_err(failed)?;
    if let Some(block) = blocks.at_end(BlockKind::Commit, MAX_COMMIT_BYTES)
        && Commit::of(file, block).map_err(failed)?.is_some_and(counts)
    {
        return Ok((block.end(), 0));
    }
    let mut ends: Vec<CommitEnd> = Vec::new();
    while let Some(block) = blocks.next() {
        match (block.kind, ends.last_mut()) {
            (BlockKind::Commit, _) => {
                ends.push(CommitEnd {
                    commit: block,
                    offset: block.end(),
                    lost_bytes: blocks.lost_bytes,
                });
            }
            (BlockKind::Hashes, Some(last)) => last.offset = block.end(),
            _ => {}
        }
    }
    if let Some(newer) = blocks.newer_error(path) {
        return Err(newer);
    }
    if let Some(cause) = blocks.failure {
        return Err(failed(cause));
    }
    for CommitEnd { commit, offset, lost_bytes } in ends.into_iter().rev() {
        // The snapshot of a damaged commit is unknown: a reader uses the next commit instead.
        if Commit::of(file, commit).map_err(failed)?.is_none_or(counts) {
            return Ok((offset, lost_bytes));
        }
    }
    Ok((0, 0))
}

/// A commit, the end of the hashes that follow it, and the number of damaged bytes before it.
pub(crate) struct CommitEnd {
    pub(crate) commit: Block,
    pub(crate) offset: u64,
    pub(crate) lost_bytes: u64,
}
