//! The blocks of the inode log, each with its length and checksums.
//!
//! A reader goes from header to header. If a header is damaged, the reader searches for the next
//! one that is whole, and loses only the bytes in between.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// How each block begins; the last byte is the format.
const MAGIC: [u8; 8] = *b"RSinode\x01";

/// The format of a block that a newer version has written; `None` for any other bytes. The checksum
/// of the header, which each format has in the same place, tells such a block from a damaged one.
fn newer_format(header: &[u8; HEADER_BYTES]) -> Option<u8> {
    let (start, known) = (&MAGIC[..MAGIC.len() - 1], MAGIC[MAGIC.len() - 1]);
    let format = *header.strip_prefix(start)?.first()?;
    (format > known && is_whole(header)).then_some(format)
}

fn number(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(header[at..at + 4].try_into().unwrap_or_default())
}

/// Whether a header has the checksum that is in it.
fn is_whole(header: &[u8; HEADER_BYTES]) -> bool {
    number(header, 20) == crc32fast::hash(&header[..20])
}

/// Magic, kind, length, checksum of the payload, checksum of these four.
const HEADER_BYTES: usize = 24;

/// No block that this program writes has a longer payload.
const MAX_PAYLOAD_BYTES: u32 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// Baselines. They count once a commit follows.
    Baselines,
    /// The end of the baselines of one snapshot.
    Commit,
    /// Hashes of contents.
    Hashes,
}

impl BlockKind {
    fn code(self) -> u32 {
        match self {
            BlockKind::Baselines => 1,
            BlockKind::Commit => 2,
            BlockKind::Hashes => 3,
        }
    }

    fn of(code: u32) -> Option<Self> {
        [BlockKind::Baselines, BlockKind::Commit, BlockKind::Hashes]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// A block with an undamaged header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) kind: BlockKind,
    /// Where the payload begins in the file.
    pub(crate) start: u64,
    length: u32,
    checksum: u32,
}

impl Block {
    /// Where the next block begins.
    pub(crate) fn end(&self) -> u64 {
        self.start + u64::from(self.length)
    }

    /// None if the payload is damaged.
    pub(crate) fn payload(&self, file: &File) -> io::Result<Option<Vec<u8>>> {
        let mut payload = vec![0; self.length as usize];
        file.read_exact_at(&mut payload, self.start)?;
        Ok((crc32fast::hash(&payload) == self.checksum).then_some(payload))
    }
}

pub(crate) fn framed(kind: BlockKind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend(MAGIC);
    for number in [kind.code(), payload.len() as u32, crc32fast::hash(payload)] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// The blocks of a file, in order.
pub(crate) struct Blocks<'a> {
    file: &'a File,
    size: u64,
    at: u64,
    /// A part of the file, and where it begins.
    window: (u64, Vec<u8>),
    /// How many bytes were damaged so far.
    pub(crate) lost_bytes: u64,
    /// The error that ended reading, if there was one.
    pub(crate) failure: Option<io::Error>,
    /// The format of a block that a newer version has written, which ended reading.
    pub(crate) newer: Option<u8>,
}

impl<'a> Blocks<'a> {
    pub(crate) fn of(file: &'a File) -> io::Result<Self> {
        Ok(Blocks {
            file,
            size: file.metadata()?.len(),
            at: 0,
            window: (0, Vec::new()),
            lost_bytes: 0,
            failure: None,
            newer: None,
        })
    }

    /// The bytes of a header at `at`. A part of the file is kept in memory, so that one read serves
    /// many small blocks.
    fn header_bytes(&mut self, at: u64) -> Option<[u8; HEADER_BYTES]> {
        const WINDOW_BYTES: usize = 16 << 10;
        let (start, bytes) = &mut self.window;
        let is_within = at >= *start && at + HEADER_BYTES as u64 <= *start + bytes.len() as u64;
        if !is_within {
            bytes.resize(WINDOW_BYTES, 0);
            let read = self.file.read_at(bytes, at);
            bytes.truncate(read.as_ref().copied().unwrap_or(0));
            self.failure = self.failure.take().or(read.err());
            *start = at;
        }
        let from = usize::try_from(at - *start).ok()?;
        bytes.get(from..from + HEADER_BYTES)?.try_into().ok()
    }

    fn header_at(&mut self, at: u64) -> Option<Block> {
        let header = self.header_bytes(at)?;
        let number = |at| number(&header, at);
        let is_whole = header[..8] == MAGIC && is_whole(&header);
        let (kind, length, checksum) = (BlockKind::of(number(8)), number(12), number(16));
        let block = Block { kind: kind?, start: at + HEADER_BYTES as u64, length, checksum };
        (is_whole && length <= MAX_PAYLOAD_BYTES && block.end() <= self.size).then_some(block)
    }

    /// Whether a newer version has written the block at the present position. Such a block is not
    /// damaged, and must neither be skipped nor cut off.
    fn is_newer(&mut self) -> bool {
        self.newer = self.header_bytes(self.at).and_then(|header| newer_format(&header));
        self.newer.is_some()
    }

    /// The error if a newer version has written a part of the file at `path`.
    pub(crate) fn newer_error(&self, path: &Path) -> Option<Error> {
        let (known, format) = (MAGIC[MAGIC.len() - 1].into(), self.newer?.into());
        Some(Error::Newer { path: escape_path(path), format, known })
    }

    /// The last block of the file, if it is of this kind and has at most `payload_bytes`.
    pub(crate) fn at_end(&mut self, kind: BlockKind, payload_bytes: u64) -> Option<Block> {
        let (size, header_bytes) = (self.size, HEADER_BYTES as u64);
        let mut starts =
            size.saturating_sub(header_bytes + payload_bytes)..=size.checked_sub(header_bytes)?;
        starts.find_map(|at| {
            self.header_at(at).filter(|block| block.kind == kind && block.end() == size)
        })
    }

    /// The position of the next undamaged header.
    fn search(&mut self, mut at: u64) -> Option<u64> {
        let mut buffer = vec![0; 65_536];
        while at < self.size {
            let read = self.file.read_at(&mut buffer, at);
            let read = read
                .map_err(|cause| self.failure = Some(cause))
                .ok()
                .filter(|read| *read >= MAGIC.len())?;
            let found = buffer[..read]
                .windows(MAGIC.len())
                .enumerate()
                .filter(|(_, window)| *window == MAGIC);
            for start in found.map(|(index, _)| at + index as u64) {
                if self.header_at(start).is_some() {
                    return Some(start);
                }
            }
            at += (read - MAGIC.len() + 1) as u64;
        }
        None
    }
}

impl Iterator for Blocks<'_> {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        if self.at >= self.size {
            return None;
        }
        let start = match self.header_at(self.at) {
            Some(_) => self.at,
            None if self.is_newer() => return None,
            None => self.search(self.at + 1).unwrap_or(self.size),
        };
        if self.failure.is_some() {
            return None;
        }
        self.lost_bytes += start - self.at;
        self.at = start;
        let block = self.header_at(start)?;
        self.at = block.end();
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    fn read(bytes: &[u8]) -> (Vec<Option<Vec<u8>>>, u64) {
        let file = file(bytes);
        let mut blocks = Blocks::of(&file).expect("its size");
        let payloads = blocks.by_ref().map(|block| block.payload(&file).expect("read")).collect();
        (payloads, blocks.lost_bytes)
    }

    #[test]
    fn a_file_ends_with_a_small_block_or_does_not() {
        let at_end = |bytes: &[u8]| {
            let file = file(bytes);
            let mut blocks = Blocks::of(&file).expect("its size");
            let found = blocks.at_end(BlockKind::Commit, 30).map(|block| block.start);
            assert_eq!(
                blocks.next().map(|block| block.start),
                (!bytes.is_empty()).then_some(24),
                "from the start"
            );
            found
        };
        let baselines = framed(BlockKind::Baselines, &[1; 40_000]);
        for length in [0, 1, 30] {
            let commit = framed(BlockKind::Commit, &vec![2; length]);
            let bytes = [&baselines[..], &commit].concat();
            assert_eq!(
                at_end(&bytes),
                Some((baselines.len() + HEADER_BYTES) as u64),
                "{length} bytes"
            );
            assert_eq!(at_end(&commit), Some(HEADER_BYTES as u64), "nothing else");
            assert_eq!(at_end(&bytes[..bytes.len() - 1]), None, "torn");
            assert_eq!(at_end(&[&bytes[..], b"x"].concat()), None, "not at the end");
        }
        assert_eq!(
            at_end(&[&baselines[..], &framed(BlockKind::Commit, &[2; 31])].concat()),
            None,
            "too long"
        );
        assert_eq!(at_end(&baselines), None, "another kind");
        assert_eq!(at_end(b""), None);
    }

    #[test]
    fn a_block_of_a_newer_version_ends_reading_and_is_no_damage() {
        let mut newer = framed(BlockKind::Baselines, &[1; 10]);
        newer[7] = 2;
        let bytes = [framed(BlockKind::Commit, b"a"), newer.clone()].concat();
        let format = |bytes: &[u8]| {
            let file = file(bytes);
            let mut blocks = Blocks::of(&file).expect("its size");
            let count = blocks.by_ref().count();
            (count, blocks.newer, blocks.lost_bytes)
        };
        assert_eq!(format(&bytes), (1, None, 34), "a damaged byte");
        let checksum = crc32fast::hash(&newer[..20]).to_le_bytes();
        newer[20..24].copy_from_slice(&checksum);
        let bytes = [framed(BlockKind::Commit, b"a"), newer].concat();
        assert_eq!(format(&bytes), (1, Some(2), 0));
    }

    #[test]
    fn damage_costs_the_block_that_it_is_in_and_no_other() {
        let blocks = [vec![1; 100], vec![2; 3], Vec::new(), vec![4; 70_000]];
        let bytes: Vec<u8> =
            blocks.iter().flat_map(|payload| framed(BlockKind::Baselines, payload)).collect();
        let whole: Vec<Option<Vec<u8>>> = blocks.iter().cloned().map(Some).collect();
        assert_eq!(read(&bytes), (whole.clone(), 0));
        for at in (0..HEADER_BYTES + 100).step_by(5) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x40;
            let (payloads, _) = read(&bytes);
            assert_eq!(payloads[payloads.len() - 3..], whole[1..], "byte {at}");
        }
        let torn = &bytes[..bytes.len() - 1];
        assert_eq!(read(torn), (whole[..3].to_vec(), (HEADER_BYTES + 69_999) as u64));
        assert_eq!(read(&[7; 100]), (Vec::new(), 100));
        assert_eq!(read(b""), (Vec::new(), 0));
    }
}
