//! Rewrites the inode log without the baselines that no snapshot needs any more.
//!
//! The new file is written beside the old one, synced, and renamed over it, so a crash leaves one
//! of the two whole. The order of the baselines stays, so each still applies to the snapshots that
//! it applied to.

use std::fs::File;
use std::io::{BufWriter, Write};

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::fsync;

use crate::engine::baseline_bytes::BLOCK_BYTES;
use crate::store::dir::{Dir, TEMPORARY, c_name};
use crate::store::inode_log::block::{BlockKind, framed};
use crate::store::inode_log::commit::{Commit, FILE, FOUND, HASHED_BYTES};
use crate::store::inode_log::reader::{InodeLog, LogPosition};
use crate::tell::error::{Error, Result};

/// Which baselines stay in the inode log.
pub struct KeptBaselines<'a> {
    /// Whether the baseline with this index stays.
    pub keep: &'a dyn Fn(usize) -> bool,
    /// The position of the oldest snapshot. Of the baselines of an inode up to it, only the last
    /// one counts.
    pub oldest: LogPosition,
}

/// Size of the inode log in bytes; 0 if there is none.
pub(crate) fn size_bytes(dir: Dir) -> Result<u64> {
    match crate::store::inode_log::commit::open(dir, OFlag::O_RDONLY) {
        Ok(file) => {
            let size = file.metadata().map(|metadata| metadata.len());
            size.map_err(|cause| Error::io("inspect", &dir.path.join(FILE), cause))
        }
        Err(error) if error.is_not_found() => Ok(0),
        Err(error) => Err(error),
    }
}

/// Rewrites the inode log. The caller holds the root's lock.
pub fn rewrite(dir: Dir, inode_log: &InodeLog, selection: KeptBaselines) -> Result<()> {
    let path = dir.path.join(FILE);
    let failed = |cause: std::io::Error| Error::io("write", &path, cause);
    let temporary = c_name(&format!("{FILE}{TEMPORARY}"));
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened =
        openat(dir.directory, temporary.as_c_str(), flags, Mode::from_bits_truncate(0o600));
    let mut file = BufWriter::new(File::from(opened.map_err(|cause| failed(cause.into()))?));
    copy(inode_log, selection, &mut file).map_err(failed)?;
    inode_log.check()?;
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    renameat(dir.directory, temporary.as_c_str(), dir.directory, c_name(FILE).as_c_str())
        .map_err(|cause| failed(cause.into()))?;
    fsync(dir.directory).map_err(|cause| Error::io("sync", dir.path, cause))
}

fn copy(
    inode_log: &InodeLog,
    selection: KeptBaselines,
    file: &mut impl Write,
) -> std::io::Result<()> {
    let mut order = inode_log.in_order().into_iter().peekable();
    let mut hashes = inode_log.hashes_in_order().into_iter().peekable();
    let commits = inode_log.commits();
    for (position, (end, commit)) in commits.iter().enumerate() {
        let next_end = commits.get(position + 1).map_or(u64::MAX, |(end, _)| *end);
        let mut kept_hashes = Vec::new();
        while let Some(known) = hashes.next_if(|known| known.offset < next_end) {
            if inode_log.find(known.inode).any(|index| (selection.keep)(index)) {
                kept_hashes.extend(inode_log.hash_bytes(known).into_iter().flatten());
            }
        }
        let mut bytes = Vec::new();
        let mut has_any = false;
        while let Some((index, offset)) = order.next_if(|(_, offset)| offset < end) {
            let is_outdated =
                || inode_log.position_after(index).is_some_and(|next| next <= selection.oldest);
            if !(selection.keep)(index) || is_outdated() {
                continue;
            }
            bytes.extend(inode_log.bytes(offset).unwrap_or_default());
            has_any = true;
            if bytes.len() > BLOCK_BYTES {
                file.write_all(&framed(BlockKind::Baselines, &bytes))?;
                bytes.clear();
            }
        }
        if !bytes.is_empty() {
            file.write_all(&framed(BlockKind::Baselines, &bytes))?;
        }
        // Of a snapshot that is older than all that exist, only the baselines are kept.
        let is_needed = has_any
            || !kept_hashes.is_empty()
            || position >= selection.oldest && commit.name != FOUND;
        let commit = if position < selection.oldest {
            Commit { name: FOUND.to_string(), ..commit.clone() }
        } else {
            commit.clone()
        };
        if is_needed {
            file.write_all(&framed(BlockKind::Commit, &commit.bytes()))?;
        }
        for some in kept_hashes.chunks(HASHED_BYTES * 1_000) {
            file.write_all(&framed(BlockKind::Hashes, some))?;
        }
    }
    file.flush()
}
