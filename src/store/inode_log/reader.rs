//! Reads the inode log, for comparisons of inodes with their baselines.
//!
//! Memory holds only the inode number of each baseline and its position in the file. The rest is
//! read when a walk finds the inode. A baseline that cannot be read counts as missing;
//! [`InodeLog::check`] returns that error afterwards.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;

use crate::engine::baseline::Baseline;
use crate::engine::baseline_bytes::{length_of, number_of};
use crate::store::dir::Dir;
use crate::store::inode_log::block::{BlockKind, Blocks};
use crate::store::inode_log::commit::{Commit, ContentHash, FOUND, HASHED_BYTES};
use crate::tell::error::{Error, Result};

/// The place of a snapshot or a baseline in the order of commits.
pub(crate) type LogPosition = usize;

/// Where a baseline or a hash is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogOffset {
    pub inode: u64,
    pub(crate) offset: u64,
}

/// The inode log of one root, open for reading.
pub struct InodeLog {
    file: File,
    path: PathBuf,
    /// The first error of a read.
    failure: RefCell<Option<io::Error>>,
    /// Baselines by inode, then in the order in which they were recorded.
    known: Vec<LogOffset>,
    /// Hashes of contents, in the same order as `known`.
    hashes: Vec<LogOffset>,
    /// In the order in which they were recorded, each with its end in the file.
    commits: Vec<(u64, Commit)>,
    /// How many bytes are damaged.
    pub lost_bytes: u64,
}

impl InodeLog {
    /// Reads the inode log of a root; `None` if there is none.
    pub fn read(dir: Dir) -> Result<Option<Self>> {
        let file = match crate::store::inode_log::commit::open(dir, OFlag::O_RDONLY) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = dir.path.join(crate::store::inode_log::commit::FILE);
        let failed = |cause| Error::io("read", &path, cause);
        let mut blocks = Blocks::of(&file).map_err(failed)?;
        let mut inode_log = InodeLog {
            file: file.try_clone().map_err(failed)?,
            path: path.clone(),
            failure: RefCell::new(None),
            known: Vec::new(),
            hashes: Vec::new(),
            commits: Vec::new(),
            lost_bytes: 0,
        };
        let mut counted = 0;
        for block in blocks.by_ref() {
            let Some(payload) = block.payload(&file).map_err(failed)? else {
                inode_log.lost_bytes += block.end() - block.start;
                continue;
            };
            match block.kind {
                BlockKind::Baselines => inode_log.add(&payload, block.start),
                BlockKind::Commit => match Commit::read(&payload) {
                    Some(commit) => {
                        inode_log.commits.push((block.end(), commit));
                        counted = inode_log.known.len();
                    }
                    None => inode_log.lost_bytes += block.end() - block.start,
                },
                BlockKind::Hashes => inode_log.add_hashes(&payload, block.start),
            }
        }
        if let Some(newer) = blocks.newer_error(&path) {
            return Err(newer);
        }
        if let Some(cause) = blocks.failure {
            return Err(failed(cause));
        }
        // Baselines without a commit do not count: a run is still writing them, or was killed.
        inode_log.known.truncate(counted);
        inode_log.known.shrink_to_fit();
        inode_log.known.sort_unstable();
        inode_log.hashes.sort_unstable();
        inode_log.lost_bytes += blocks.lost_bytes;
        Ok(Some(inode_log))
    }

    fn add(&mut self, payload: &[u8], start: u64) {
        let mut at = 0;
        while at < payload.len() {
            let rest = &payload[at..];
            let length = length_of(rest).filter(|length| *length <= rest.len());
            let (Some(length), Some(inode)) = (length, number_of(rest)) else {
                self.lost_bytes += rest.len() as u64;
                return;
            };
            self.known.push(LogOffset { inode, offset: start + at as u64 });
            at += length;
        }
    }

    fn add_hashes(&mut self, payload: &[u8], start: u64) {
        for (index, bytes) in payload.chunks_exact(HASHED_BYTES).enumerate() {
            let offset = start + (index * HASHED_BYTES) as u64;
            self.hashes.extend(
                ContentHash::read(bytes).map(|hashed| LogOffset { inode: hashed.inode, offset }),
            );
        }
    }

    /// The hashes of the content of the inode with this number and time of birth, with their
    /// positions, oldest first.
    pub fn hashes(&self, inode: u64, birth_ns: i64) -> Vec<(LogPosition, [u8; 32])> {
        let start = self.hashes.partition_point(|known| known.inode < inode);
        let known = self.hashes[start..].iter().take_while(|known| known.inode == inode);
        let read = known.filter_map(|known| {
            let mut bytes = [0; HASHED_BYTES];
            self.read_exactly(&mut bytes, known.offset)?;
            // Hashes follow the commit of their snapshot.
            let position = self.position_of(known.offset).checked_sub(1)?;
            ContentHash::read(&bytes)
                .filter(|hashed| hashed.birth_ns == birth_ns)
                .map(|hashed| (position, hashed.hash))
        });
        read.collect()
    }

    /// The hashes as they are in the file, oldest first.
    pub(crate) fn hashes_in_order(&self) -> Vec<LogOffset> {
        let mut order = self.hashes.clone();
        order.sort_unstable_by_key(|known| known.offset);
        order
    }

    pub(crate) fn hash_bytes(&self, known: LogOffset) -> Option<[u8; HASHED_BYTES]> {
        let mut bytes = [0; HASHED_BYTES];
        self.read_exactly(&mut bytes, known.offset).map(|()| bytes)
    }

    /// The inodes that were recorded with the snapshot at `position`.
    pub fn recorded_with(&self, position: LogPosition) -> Vec<u64> {
        let with = self.known.iter().filter(|known| self.position_of(known.offset) == position);
        with.map(|known| known.inode).collect()
    }

    /// How many baselines there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The indexes of the baselines of an inode, oldest first.
    pub fn find(&self, inode: u64) -> std::ops::Range<usize> {
        let start = self.known.partition_point(|known| known.inode < inode);
        let count = self.known[start..].iter().take_while(|known| known.inode == inode).count();
        start..start + count
    }

    /// The inode number of the baseline at `index`.
    pub fn inode(&self, index: usize) -> u64 {
        self.known[index].inode
    }

    /// The baseline at `index`, with its position.
    pub fn baseline(&self, index: usize) -> Option<(LogPosition, Baseline)> {
        let offset = self.known[index].offset;
        let bytes = self.bytes(offset)?;
        Some((self.position_of(offset), Baseline::read(&bytes)?))
    }

    pub(crate) fn bytes(&self, offset: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 192];
        let read = self.noting(self.file.read_at(&mut bytes, offset))?;
        bytes.truncate(read);
        let length = length_of(&bytes)?;
        if length > bytes.len() {
            bytes.resize(length, 0);
            self.read_exactly(&mut bytes, offset)?;
        }
        bytes.truncate(length);
        Some(bytes)
    }

    fn read_exactly(&self, bytes: &mut [u8], offset: u64) -> Option<()> {
        self.noting(self.file.read_exact_at(bytes, offset))
    }

    fn noting<T>(&self, answer: io::Result<T>) -> Option<T> {
        answer.map_err(|cause| self.failure.borrow_mut().get_or_insert(cause).kind()).ok()
    }

    /// Returns the first error of a read since the last call.
    pub fn check(&self) -> Result<()> {
        self.failure.take().map_or(Ok(()), |cause| Err(Error::io("read", &self.path, cause)))
    }

    /// The baselines of the inode with this number and time of birth, with their positions, oldest
    /// first.
    pub fn baselines(&self, inode: u64, birth_ns: i64) -> Vec<(LogPosition, Baseline)> {
        let found = self.find(inode).filter_map(|index| self.baseline(index));
        found.filter(|(_, baseline)| baseline.inode.birth_ns == birth_ns).collect()
    }

    /// The position of the snapshot `name`; none if nothing was recorded with it.
    pub fn position(&self, name: &str) -> Option<LogPosition> {
        self.commits.iter().rposition(|(_, commit)| commit.name == name && name != FOUND)
    }

    /// When the run began to link the tree of the snapshot at `position`, nanoseconds since 1970.
    pub fn began_ns(&self, position: LogPosition) -> i64 {
        self.commits[position].1.began_ns
    }

    /// When the run began that recorded a baseline at `position` as it linked the inode; none if a
    /// later run found the inode in a snapshot, or the commit is older than all snapshots.
    pub fn linked_ns(&self, position: LogPosition) -> Option<i64> {
        let (_, commit) = self.commits.get(position)?;
        (commit.name != FOUND).then_some(commit.began_ns)
    }

    /// Whether no snapshot was recorded between those at the two positions.
    pub fn is_followed_by(&self, before: LogPosition, after: LogPosition) -> bool {
        let between = self.commits.get(before + 1..after);
        between.is_some_and(|between| between.iter().all(|(_, commit)| commit.name == FOUND))
    }

    /// The commits of all snapshots, oldest first, each with its end in the file.
    pub(crate) fn commits(&self) -> &[(u64, Commit)] {
        &self.commits
    }

    /// Index and offset of each baseline, in the order of the file.
    pub(crate) fn in_order(&self) -> Vec<(usize, u64)> {
        let mut order: Vec<(usize, u64)> =
            self.known.iter().enumerate().map(|(index, known)| (index, known.offset)).collect();
        order.sort_unstable_by_key(|(_, offset)| *offset);
        order
    }

    /// The position of the next baseline of the same inode as the one at `index`.
    pub(crate) fn position_after(&self, index: usize) -> Option<LogPosition> {
        let next =
            self.known.get(index + 1).filter(|next| next.inode == self.known[index].inode)?;
        Some(self.position_of(next.offset))
    }

    fn position_of(&self, offset: u64) -> LogPosition {
        self.commits.partition_point(|(end, _)| *end <= offset)
    }
}
