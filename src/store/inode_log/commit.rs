//! The commits and hashes that a run appends to the inode log, as bytes; opens the file.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::store::dir::{Dir, c_name};
use crate::store::inode_log::block::Block;
use crate::tell::error::{Error, Result};

pub(crate) const FILE: &str = "catalogue";

/// The name in a commit of baselines that were not recorded when their files were linked, but found
/// in snapshots later.
pub(crate) const FOUND: &str = "";

/// Ends the baselines of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    /// When the run began to link the tree, nanoseconds since 1970.
    pub(crate) began_ns: i64,
    /// The snapshot's name, or [`FOUND`].
    pub(crate) name: String,
}

impl Commit {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.began_ns.to_le_bytes()[..], self.name.as_bytes()].concat()
    }

    /// The commit in `block`, unless it is damaged.
    pub(crate) fn of(file: &File, block: Block) -> std::io::Result<Option<Self>> {
        Ok(block.payload(file)?.and_then(|payload| Commit::read(&payload)))
    }

    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (began, name) = payload.split_first_chunk()?;
        Some(Commit {
            began_ns: i64::from_le_bytes(*began),
            name: String::from_utf8(name.to_vec()).ok()?,
        })
    }
}

/// Size of a commit with the longest name that a file can have.
pub(crate) const MAX_COMMIT_BYTES: u64 = 8 + 255;

pub(crate) const HASHED_BYTES: usize = 48;

/// The hash of an inode's content when a snapshot was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHash {
    /// The inode number.
    pub inode: u64,
    /// Time of birth, nanoseconds since 1970; 0 if the file system has none.
    pub birth_ns: i64,
    /// BLAKE3 of the content.
    pub hash: [u8; 32],
}

impl ContentHash {
    pub(crate) fn bytes(&self) -> [u8; HASHED_BYTES] {
        let mut bytes = [0; HASHED_BYTES];
        bytes[..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.birth_ns.to_le_bytes());
        bytes[16..].copy_from_slice(&self.hash);
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (inode, rest) = bytes.split_first_chunk()?;
        let (birth, hash) = rest.split_first_chunk()?;
        let (inode, birth_ns) = (u64::from_le_bytes(*inode), i64::from_le_bytes(*birth));
        Some(ContentHash { inode, birth_ns, hash: hash.try_into().ok()? })
    }
}

pub(crate) fn open(dir: Dir, flags: OFlag) -> Result<File> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opened =
        openat(dir.directory, c_name(FILE).as_c_str(), flags, Mode::from_bits_truncate(0o600));
    opened.map(File::from).map_err(|cause: Errno| Error::io("open", &dir.path.join(FILE), cause))
}
