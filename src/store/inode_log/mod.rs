//! The catalogue of inodes: what each file that snapshots share with the module looked like when it
//! was linked.
//!
//! One file, `inodes/catalogue`, to which a run appends: baselines of the inodes that are new in
//! its snapshot, then a commit with the snapshot's name. All of it is written before the snapshot's
//! `syncfs`, so it is durable with the snapshot. What no commit follows was left by a run that was
//! killed; the next one cuts it off, and so it does with the commit of a snapshot that never became
//! visible. What is damaged is skipped by those who read (`block`).
//!
//! The catalogue is evidence, not history: whatever goes wrong with it is told and costs no
//! snapshot.

mod block;
mod compact;
mod in_place;
mod reading;
pub mod windows;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

pub use compact::{Selection, rewrite, size_bytes};
pub use in_place::{InPlaceChanges, in_place_changes};
pub use reading::{Catalogue, Known, Position};

use crate::store::dir::{Dir, c_name};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;
use block::{Block, Blocks, Kind, framed};

const FILE: &str = "catalogue";

/// The name of a commit for what was found in snapshots later.
const FOUND: &str = "";

/// The end of what was recorded for one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Commit {
    /// When its tree began to be linked, nanoseconds since 1970.
    began_ns: i64,
    /// Its name.
    name: String,
}

impl Commit {
    fn bytes(&self) -> Vec<u8> {
        [&self.began_ns.to_le_bytes()[..], self.name.as_bytes()].concat()
    }

    /// That of a block, unless it is damaged.
    fn of(file: &File, block: Block) -> std::io::Result<Option<Self>> {
        Ok(block.payload(file)?.and_then(|payload| Commit::read(&payload)))
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let (began, name) = payload.split_first_chunk()?;
        Some(Commit {
            began_ns: i64::from_le_bytes(*began),
            name: String::from_utf8(name.to_vec()).ok()?,
        })
    }
}

/// Of a commit, with the longest name that a file can have.
const MAX_COMMIT_BYTES: u64 = 8 + 255;

const HASHED_BYTES: usize = 48;

/// The content of an inode, as it was when a snapshot was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    /// The inode's number.
    pub inode: u64,
    /// When it was made, nanoseconds since 1970; 0 if the file system does not tell.
    pub birth_ns: i64,
    /// BLAKE3 of the content.
    pub hash: [u8; 32],
}

impl Hashed {
    fn bytes(&self) -> [u8; HASHED_BYTES] {
        let mut bytes = [0; HASHED_BYTES];
        bytes[..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.birth_ns.to_le_bytes());
        bytes[16..].copy_from_slice(&self.hash);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (inode, rest) = bytes.split_first_chunk()?;
        let (birth, hash) = rest.split_first_chunk()?;
        let (inode, birth_ns) = (u64::from_le_bytes(*inode), i64::from_le_bytes(*birth));
        Some(Hashed { inode, birth_ns, hash: hash.try_into().ok()? })
    }
}

/// Appends to the catalogue, for a holder of the root's long lock.
pub struct Recorder {
    file: File,
    path: PathBuf,
    /// The first failure: what comes after it is not written, either.
    error: Mutex<Option<std::io::Error>>,
    is_new: bool,
}

impl Recorder {
    /// Opens the catalogue, cuts off what was not finished, and makes a new one if there is none.
    pub fn open(dir: Dir, is_known: impl Fn(&str) -> bool) -> Result<Self> {
        let path = dir.path.join(FILE);
        let failed = |cause: std::io::Error| Error::io("write", &path, cause);
        let file = open(dir, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_APPEND)?;
        let size = file.metadata().map_err(failed)?.len();
        let (end, lost_bytes) = finished(&file, is_known).map_err(failed)?;
        if end < size {
            file.set_len(end).map_err(failed)?;
        }
        if lost_bytes > 0 {
            log::warn!(
                "{}: {lost_bytes} bytes are damaged and count no longer",
                escape_path(&path)
            );
        }
        Ok(Recorder { file, path, error: Mutex::new(None), is_new: end == 0 })
    }

    /// Whether nothing had been recorded before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Appends baselines that follow each other. A failure is told with the commit.
    pub fn keep(&self, baselines: &[u8]) {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if error.is_none() {
            *error = (&self.file).write_all(&framed(Kind::Baselines, baselines)).err();
        }
    }

    /// Makes what was kept count, for the snapshot `name`, the tree of which began to be linked at
    /// `began_ns`. For a caller who is about to sync the whole file system.
    pub fn commit(&self, name: &str, began_ns: i64) -> Result<()> {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match error.take() {
            Some(cause) => Err(cause),
            None => {
                let commit = Commit { began_ns, name: name.to_string() };
                (&self.file).write_all(&framed(Kind::Commit, &commit.bytes()))
            }
        };
        result.map_err(|cause| Error::io("write", &self.path, cause))
    }

    /// Appends hashes of contents of the snapshot that was committed last, durably.
    pub fn keep_hashes(&self, hashes: &[Hashed]) -> Result<()> {
        let failed = |cause| Error::io("write", &self.path, cause);
        let bytes: Vec<u8> = hashes.iter().flat_map(|hashed| hashed.bytes()).collect();
        (&self.file).write_all(&framed(Kind::Hashes, &bytes)).map_err(failed)?;
        self.file.sync_data().map_err(failed)
    }

    /// The same for what was found in snapshots later.
    pub fn commit_found(&self) -> Result<()> {
        self.commit(FOUND, windows::wall_ns())?;
        self.file.sync_data().map_err(|cause| Error::io("sync", &self.path, cause))
    }
}

fn open(dir: Dir, flags: OFlag) -> Result<File> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opened =
        openat(dir.directory, c_name(FILE).as_c_str(), flags, Mode::from_bits_truncate(0o600));
    opened.map(File::from).map_err(|cause: Errno| Error::io("open", &dir.path.join(FILE), cause))
}

/// Where the last commit ends that is one of a snapshot that is known, and how much before that was
/// found to be damaged. Nearly always the file ends with it, and then nothing else is read: years
/// of snapshots are no work, nor are millions of inodes. What only looks like a commit there,
/// because a client has set an attribute to such bytes, could at most let baselines of a run that
/// was killed count for the next snapshot, and those were true when they were written.
fn finished(file: &File, is_known: impl Fn(&str) -> bool) -> std::io::Result<(u64, u64)> {
    let counts = |commit: Commit| commit.name == FOUND || is_known(&commit.name);
    let mut blocks = Blocks::of(file)?;
    if let Some(block) = blocks.at_end(Kind::Commit, MAX_COMMIT_BYTES)
        && Commit::of(file, block)?.is_some_and(counts)
    {
        return Ok((block.end(), 0));
    }
    let mut ends: Vec<End> = Vec::new();
    while let Some(block) = blocks.next() {
        match (block.kind, ends.last_mut()) {
            (Kind::Commit, _) => {
                ends.push(End {
                    commit: block,
                    offset: block.end(),
                    lost_bytes: blocks.lost_bytes,
                });
            }
            (Kind::Hashes, Some(last)) => last.offset = block.end(),
            _ => {}
        }
    }
    if let Some(cause) = blocks.failure {
        return Err(cause);
    }
    for End { commit, offset, lost_bytes } in ends.into_iter().rev() {
        // What a damaged one was for is not known: those who read take the next for it.
        if Commit::of(file, commit)?.is_none_or(counts) {
            return Ok((offset, lost_bytes));
        }
    }
    Ok((0, 0))
}

/// Where a commit ends, with the hashes that follow it, and how much before that is damaged.
struct End {
    commit: Block,
    offset: u64,
    lost_bytes: u64,
}
