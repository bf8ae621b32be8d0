//! The bytes of an index file.
//!
//! The file is a sequence of blocks of equal size; only the last may be shorter. Each ends with a
//! checksum over a header, which names the format and the snapshot, over the block's number and
//! over its content. So a block of another index, or one in another place, is not believed. The
//! first block begins with the header. No record lies in two blocks, and the last one is that of
//! the tree's root.

use std::ffi::CStr;

use crate::engine::index::{IndexRecord, SnapshotStamp, Stamp};

pub(crate) const BLOCK_BYTES: usize = 16 << 10;

pub(crate) const CHECKSUM_BYTES: usize = 4;

/// What is left of a block for records.
pub(crate) const CONTENT_BYTES: usize = BLOCK_BYTES - CHECKSUM_BYTES;

/// Where a record begins in the file. No record begins at 0, where the header is.
pub(crate) type RecordPosition = u32;

/// The bytes of a record before its name.
pub(crate) const FIXED_BYTES: usize = 54;

/// A directory with a longer name gets no record, and its snapshot no index. No common file system
/// has names of a quarter of that.
pub(crate) const MAX_NAME_BYTES: usize = 4_096;

/// The bytes of the root's record, whose name is empty.
pub(crate) const ROOT_BYTES: usize = FIXED_BYTES + 1;

const OWN_AT: usize = 24;
const ENTRIES_AT: usize = 40;
const LAST_CHILD_AT: usize = 44;
const PREVIOUS_AT: usize = 48;
const NAME_LENGTH_AT: usize = 52;

const MAGIC: &str = "rsyncd-snapshot index ";

const FORMAT: u32 = 2;

/// The beginning of the index of the snapshot `name`.
pub(crate) fn header(name: &str) -> String {
    format!("{MAGIC}{FORMAT} {name}\n")
}

/// Whether the beginning of a file is that of an index that an earlier or a later version has
/// written for the snapshot `name`.
pub(crate) fn is_of_another_format(beginning: &[u8], name: &str) -> bool {
    let number = || {
        let rest = beginning.strip_prefix(MAGIC.as_bytes())?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = rest.split_at(digits);
        let rest = rest.strip_prefix(b" ")?.strip_prefix(name.as_bytes())?;
        rest.starts_with(b"\n").then_some(number)?;
        std::str::from_utf8(number).ok()?.parse::<u32>().ok()
    };
    number().is_some_and(|number| number != FORMAT)
}

/// Makes the checksums of the blocks of one snapshot's index.
pub(crate) struct BlockChecksums {
    begun: crc32fast::Hasher,
}

impl BlockChecksums {
    pub(crate) fn new(name: &str) -> Self {
        let mut begun = crc32fast::Hasher::new();
        begun.update(header(name).as_bytes());
        BlockChecksums { begun }
    }

    /// The checksum of the block with this number and content.
    pub(crate) fn of(&self, number: u32, content: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = self.begun.clone();
        hasher.update(&number.to_le_bytes());
        hasher.update(content);
        hasher.finalize().to_le_bytes()
    }
}

/// Where a record leads: 0 where there is no such directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RecordLinks {
    /// The last subdirectory, by name.
    pub(crate) last_child: RecordPosition,
    /// The directory before this one, by name, in the same parent.
    pub(crate) previous: RecordPosition,
}

/// A record as it lies in a block.
pub(crate) struct StoredRecord<'a> {
    pub(crate) record: IndexRecord,
    pub(crate) links: RecordLinks,
    /// With its NUL; empty but for that for the root.
    name: &'a [u8],
}

impl<'a> StoredRecord<'a> {
    pub(crate) fn new(record: IndexRecord, links: RecordLinks, name: &'a CStr) -> Self {
        StoredRecord { record, links, name: name.to_bytes_with_nul() }
    }

    /// The record that begins `bytes`, unless it is damaged. Its name is not checked yet.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED_BYTES>()?;
        let length = u16::from_le_bytes([fixed[NAME_LENGTH_AT], fixed[NAME_LENGTH_AT + 1]]);
        let name = rest.get(..usize::from(length))?;
        Some(StoredRecord {
            record: IndexRecord {
                entries: word(fixed, ENTRIES_AT),
                live: Stamp {
                    inode: long(fixed, 0).cast_unsigned(),
                    ctime_ns: long(fixed, 8),
                    mtime_ns: long(fixed, 16),
                },
                own: SnapshotStamp {
                    inode: long(fixed, OWN_AT).cast_unsigned(),
                    ctime_ns: long(fixed, OWN_AT + 8),
                },
            },
            links: RecordLinks {
                last_child: word(fixed, LAST_CHILD_AT),
                previous: word(fixed, PREVIOUS_AT),
            },
            name,
        })
    }

    /// The name, empty for the root; none if it is damaged.
    pub(crate) fn name(&self) -> Option<&'a CStr> {
        CStr::from_bytes_with_nul(self.name).ok()
    }

    /// Appends the record to `bytes`. Its name has at most [`MAX_NAME_BYTES`].
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        let IndexRecord { entries, live, own } = self.record;
        bytes.extend(live.inode.to_le_bytes());
        bytes.extend(live.ctime_ns.to_le_bytes());
        bytes.extend(live.mtime_ns.to_le_bytes());
        bytes.extend(own.inode.to_le_bytes());
        bytes.extend(own.ctime_ns.to_le_bytes());
        bytes.extend(entries.to_le_bytes());
        bytes.extend(self.links.last_child.to_le_bytes());
        bytes.extend(self.links.previous.to_le_bytes());
        bytes.extend(u16::try_from(self.name.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(self.name);
    }

    /// The bytes that [`encode`](Self::encode) appends.
    pub(crate) fn encoded_bytes(&self) -> usize {
        FIXED_BYTES + self.name.len()
    }
}

/// Whether a subdirectory can have this name: anything else would lead elsewhere.
pub(crate) fn is_name_of_child(name: &CStr) -> bool {
    !name.is_empty() && name != c"." && name != c".." && !name.to_bytes().contains(&b'/')
}

fn word(fixed: &[u8; FIXED_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
}

fn long(fixed: &[u8; FIXED_BYTES], at: usize) -> i64 {
    (i64::from(word(fixed, at + 4)) << 32) | i64::from(word(fixed, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_tells_another_format_from_damage() {
        assert!(!is_of_another_format(header("a").as_bytes(), "a"));
        for (beginning, expected) in [
            ("rsyncd-snapshot index 1 a\n\0\0", true),
            ("rsyncd-snapshot index 3 a\n", true),
            ("rsyncd-snapshot index 1 b\n", false),
            ("rsyncd-snapshot index 1 a", false),
            ("rsyncd-snapshot index  a\n", false),
            ("rsyncd-snapshot index x a\n", false),
            ("", false),
        ] {
            assert_eq!(is_of_another_format(beginning.as_bytes(), "a"), expected, "{beginning}");
        }
    }
}
