//! The directory index of a snapshot: for each directory, stamps of the live directory and of the
//! snapshot's directory when the snapshot was made.
//!
//! Each change of a directory's entries changes its ctime, which no client can set. So a live
//! directory whose inode number, ctime and mtime *equal* the index has the entries that it had
//! then. That holds for the snapshot's directory, too. Where it is not certain, the index stores a
//! live stamp that nothing equals:
//!
//! * A second change within one tick of the kernel's clock leaves the ctime as it is. So a
//!   directory that changed shortly before it was read (or after it, by a clock that was set back)
//!   does not count as settled.
//! * A directory with copies, with a mount point in it, or with files that look like temporary ones
//!   of rsync has to be read each time.
//!
//! The index is a chain of records in preorder, each with its depth; children are sorted by name.
//! It is used in the form that it has in the file, so memory holds only two more words for each
//! directory. A checksum and the snapshot's name protect it. If anything in it is wrong, it is not
//! used, and everything is compared.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use nix::time::{ClockId, clock_gettime};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

use crate::decide::clock_tick::SETTLED_AFTER_NS;
use crate::system::identity::{Identity, SysResult};
use crate::system::mounts;
use crate::system::syscalls::stat_entry;

/// [`SETTLED_AFTER_NS`] for file systems that store times in steps of one or two seconds.
const COARSE_SETTLED_AFTER_NS: i64 = 3_000_000_000;

const SECOND_NS: i64 = 1_000_000_000;

/// Tells one state of a live directory from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Inode number.
    pub inode: u64,
    /// Change time, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
}

impl Stamp {
    #[allow(clippy::useless_conversion, reason = "the width of the field differs by platform")]
    pub fn of(stat: &FileStat) -> Self {
        let nanoseconds =
            |seconds: i64, rest: i64| seconds.wrapping_mul(SECOND_NS).wrapping_add(rest);
        Stamp {
            inode: stat.st_ino.into(),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        }
    }

    /// The stamp of the entry `name`, which is not opened. None if it lies on another file system
    /// than `device`, or is a mount point, even of a bind mount of itself.
    pub fn of_entry(parent: BorrowedFd, name: &CStr, device: u64) -> SysResult<Option<Self>> {
        match mounts::open_place_if_mounts(parent, name) {
            Ok(Some(place)) => {
                let stat = fstat(&place)?;
                return Ok((Identity::of(&stat).device == device).then(|| Stamp::of(&stat)));
            }
            Ok(None) => {}
            Err(Errno::EXDEV) => return Ok(None),
            Err(cause) => return Err(cause),
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let statx = match rustix::fs::statx(parent, name, flags, StatxFlags::BASIC_STATS) {
            Ok(statx) => statx,
            // A kernel without statx, or a seccomp filter.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                let stat = stat_entry(parent, name)?;
                return Ok((Identity::of(&stat).device == device).then(|| Stamp::of(&stat)));
            }
            Err(error) => return Err(Errno::from_raw(error.raw_os_error())),
        };
        if statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
            || rustix::fs::makedev(statx.stx_dev_major, statx.stx_dev_minor) != device
        {
            return Ok(None);
        }
        let nanoseconds = |time: rustix::fs::StatxTimestamp| {
            time.tv_sec.wrapping_mul(SECOND_NS).wrapping_add(time.tv_nsec.into())
        };
        Ok(Some(Stamp {
            inode: statx.stx_ino,
            ctime_ns: nanoseconds(statx.stx_ctime),
            mtime_ns: nanoseconds(statx.stx_mtime),
        }))
    }

    /// A state that no directory has.
    pub const NEVER: Stamp = Stamp { inode: 0, ctime_ns: i64::MIN, mtime_ns: i64::MIN };

    /// This stamp if it was so old at `now_ns` that each later change gives another one.
    pub fn settled(self, now_ns: i64) -> Self {
        let margin =
            if self.ctime_ns % SECOND_NS == 0 { COARSE_SETTLED_AFTER_NS } else { SETTLED_AFTER_NS };
        if self.ctime_ns < now_ns.saturating_sub(margin) { self } else { Stamp::NEVER }
    }
}

/// Nanoseconds since 1970 by the wall clock, which the kernel stamps files with.
pub(crate) fn now_ns() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME)
        .map_or(i64::MIN, |now| now.tv_sec() * SECOND_NS + now.tv_nsec())
}

/// Tells one state of a snapshot's directory from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotStamp {
    /// Inode number.
    pub inode: u64,
    /// Change time, nanoseconds since 1970.
    pub ctime_ns: i64,
}

impl SnapshotStamp {
    pub fn of(stat: &FileStat) -> Self {
        let Stamp { inode, ctime_ns, .. } = Stamp::of(stat);
        SnapshotStamp { inode, ctime_ns }
    }
}

/// The index's record of one directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRecord<'a> {
    /// Levels below the tree's root.
    pub depth: u32,
    /// Number of its entries, subdirectories included.
    pub entries: u32,
    pub live: Stamp,
    pub own: SnapshotStamp,
    /// Empty for the root.
    pub name: &'a CStr,
}

const FIXED_BYTES: usize = 50;
const LIVE_AT: usize = 8;
const OWN_AT: usize = 32;
const NAME_LENGTH_AT: usize = 48;

/// A directory's number in an index.
pub(crate) type Ordinal = u32;

/// An index that was read, with a flag per directory: whether a comparison found the live one
/// unchanged.
pub struct DirectoryIndex {
    bytes: Vec<u8>,
    starts: Vec<u32>,
    ends: Vec<Ordinal>,
    unchanged: Vec<AtomicBool>,
}

/// How many bytes an index may take for a tree of `entries` entries, a million where that is
/// unknown. Only trees that hold little but directories need more; they get no index.
pub(crate) fn max_bytes(entries: Option<u64>) -> usize {
    let entries = entries.unwrap_or(1_000_000);
    usize::try_from(entries.saturating_mul(6)).unwrap_or(usize::MAX).saturating_add(4 << 20)
}

impl DirectoryIndex {
    /// The index in `file`; none unless it is whole and belongs to the snapshot `name`.
    pub fn parse(mut file: Vec<u8>, name: &str) -> Option<Self> {
        let checksum_at = file.len().checked_sub(4)?;
        if crc32fast::hash(&file[..checksum_at]).to_le_bytes() != file[checksum_at..] {
            return None;
        }
        file.truncate(checksum_at);
        if !file.starts_with(header(name).as_bytes()) {
            return None;
        }
        let mut index = DirectoryIndex {
            bytes: file,
            starts: Vec::new(),
            ends: Vec::new(),
            unchanged: Vec::new(),
        };
        let mut open: Vec<Ordinal> = Vec::new();
        let mut start = header(name).len();
        while start < index.bytes.len() {
            let line = decode(&index.bytes, start)?;
            let ordinal = Ordinal::try_from(index.starts.len()).ok()?;
            let depth = line.depth as usize;
            let next = start + FIXED_BYTES + line.name.to_bytes_with_nul().len();
            // There is one root, and no record is more than one level below the one before.
            if depth > open.len() || (depth == 0) != (ordinal == 0) || !is_name(line.name, depth) {
                return None;
            }
            for closed in open.drain(depth..) {
                index.ends[closed as usize] = ordinal;
            }
            open.push(ordinal);
            index.starts.push(u32::try_from(start).ok()?);
            index.ends.push(0);
            start = next;
        }
        let count = Ordinal::try_from(index.starts.len()).ok().filter(|count| *count > 0)?;
        for closed in open {
            index.ends[closed as usize] = count;
        }
        index.unchanged.resize_with(index.starts.len(), AtomicBool::default);
        Some(index)
    }

    /// The record of a directory.
    pub fn line(&self, ordinal: Ordinal) -> IndexRecord<'_> {
        // Every record was decoded once by parse().
        let never = IndexRecord {
            depth: 0,
            entries: 0,
            live: Stamp::NEVER,
            own: SnapshotStamp { inode: 0, ctime_ns: 0 },
            name: c"",
        };
        decode(&self.bytes, self.starts[ordinal as usize] as usize).unwrap_or(never)
    }

    /// Whether a directory has no subdirectories.
    pub fn is_leaf(&self, ordinal: Ordinal) -> bool {
        self.ends[ordinal as usize] == ordinal + 1
    }

    /// The subdirectories of a directory, sorted by name.
    pub fn children(&self, ordinal: Ordinal) -> impl Iterator<Item = Ordinal> {
        let end = self.ends[ordinal as usize];
        let first = Some(ordinal + 1).filter(|first| *first < end);
        std::iter::successors(first, move |child| {
            Some(self.ends[*child as usize]).filter(|next| *next < end)
        })
    }

    /// The directory `name` among `siblings`, which [`children`](Self::children) has returned.
    pub fn find(&self, siblings: &[Ordinal], name: &CStr) -> Option<Ordinal> {
        siblings
            .binary_search_by(|sibling| self.line(*sibling).name.cmp(name))
            .ok()
            .map(|at| siblings[at])
    }

    /// Notes that the live directory is as it was when the index was made.
    pub fn note_unchanged(&self, ordinal: Ordinal) {
        self.unchanged[ordinal as usize].store(true, Ordering::Relaxed);
    }

    /// The stamp of the live directory, if it was noted as unchanged.
    pub fn unchanged(&self, ordinal: Ordinal) -> Option<Stamp> {
        let is_unchanged = self.unchanged[ordinal as usize].load(Ordering::Relaxed);
        is_unchanged.then(|| self.line(ordinal).live)
    }
}

fn header(name: &str) -> String {
    format!("rsyncd-snapshot index 1 {name}\n")
}

fn is_name(name: &CStr, depth: usize) -> bool {
    match depth {
        0 => name.is_empty(),
        _ => !name.is_empty() && name != c"." && name != c".." && !name.to_bytes().contains(&b'/'),
    }
}

fn decode(bytes: &[u8], start: usize) -> Option<IndexRecord<'_>> {
    let record = bytes.get(start..)?;
    let word = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(i64::from_le_bytes(record.get(at..at + 8)?.try_into().ok()?));
    let length = u16::from_le_bytes(record.get(NAME_LENGTH_AT..FIXED_BYTES)?.try_into().ok()?);
    let name = record.get(FIXED_BYTES..FIXED_BYTES + usize::from(length))?;
    Some(IndexRecord {
        depth: word(0)?,
        entries: word(4)?,
        live: Stamp {
            inode: long(LIVE_AT)?.cast_unsigned(),
            ctime_ns: long(LIVE_AT + 8)?,
            mtime_ns: long(LIVE_AT + 16)?,
        },
        own: SnapshotStamp { inode: long(OWN_AT)?.cast_unsigned(), ctime_ns: long(OWN_AT + 8)? },
        name: CStr::from_bytes_with_nul(name).ok()?,
    })
}

/// A part that is larger than this grows by this much at a time.
const GROWTH_BYTES: usize = 1 << 20;

/// Records of one worker's subtree, in preorder, with gaps for the subtrees that it gave away.
#[derive(Default)]
pub struct IndexPart {
    id: usize,
    bytes: Vec<u8>,
    gaps: Vec<(usize, usize)>,
    is_too_large: bool,
}

impl IndexPart {
    /// An empty part. Each has another `id`; the part with the root has 0.
    pub fn new(id: usize) -> Self {
        IndexPart { id, ..IndexPart::default() }
    }

    /// Adds a record and returns its position.
    pub fn push(&mut self, line: &IndexRecord, max_bytes: usize) -> usize {
        let at = self.bytes.len();
        let name = line.name.to_bytes_with_nul();
        let Ok(length) = u16::try_from(name.len()) else {
            self.is_too_large = true;
            return at;
        };
        if self.is_too_large || at + FIXED_BYTES + name.len() > max_bytes {
            *self = IndexPart { is_too_large: true, ..IndexPart::new(self.id) };
            return 0;
        }
        if self.bytes.len() > GROWTH_BYTES {
            // Doubling would take twice the memory that is needed.
            self.bytes.reserve_exact(if self.bytes.capacity() - at < 1_024 {
                GROWTH_BYTES
            } else {
                0
            });
        }
        self.bytes.extend(line.depth.to_le_bytes());
        self.bytes.extend(line.entries.to_le_bytes());
        self.bytes.extend(encode_stamp(line.live));
        self.bytes.extend(encode_own(line.own));
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(name);
        at
    }

    /// Completes the record at `at` once the snapshot's directory is finished.
    pub fn complete(&mut self, at: usize, live: Stamp, own: SnapshotStamp) {
        if let Some(record) = self.bytes.get_mut(at..at + FIXED_BYTES) {
            record[LIVE_AT..OWN_AT].copy_from_slice(&encode_stamp(live));
            record[OWN_AT..NAME_LENGTH_AT].copy_from_slice(&encode_own(own));
        }
    }

    /// Leaves a gap for the part `id` of another worker.
    pub fn leave_gap(&mut self, id: usize) {
        self.gaps.push((self.bytes.len(), id));
    }
}

fn encode_stamp(stamp: Stamp) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&stamp.inode.to_le_bytes());
    bytes[8..16].copy_from_slice(&stamp.ctime_ns.to_le_bytes());
    bytes[16..].copy_from_slice(&stamp.mtime_ns.to_le_bytes());
    bytes
}

fn encode_own(own: SnapshotStamp) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&own.inode.to_le_bytes());
    bytes[8..].copy_from_slice(&own.ctime_ns.to_le_bytes());
    bytes
}

/// The index file of the snapshot `name` from all its parts; none if it would be too large.
pub(crate) fn join(mut parts: Vec<IndexPart>, name: &str, max_bytes: usize) -> Option<Vec<u8>> {
    let total: usize = parts.iter().map(|part| part.bytes.len()).sum();
    if parts.iter().any(|part| part.is_too_large) || total > max_bytes {
        return None;
    }
    parts.sort_unstable_by_key(|part| part.id);
    let mut file = header(name).into_bytes();
    file.reserve(total + 4);
    // Where to go on: part, byte, gap.
    let mut stack = vec![(0, 0, 0)];
    while let Some((id, from, gap)) = stack.pop() {
        let part: &IndexPart = parts.get(id).filter(|part| part.id == id)?;
        match part.gaps.get(gap) {
            Some((at, other)) => {
                file.extend(&part.bytes[from..*at]);
                stack.push((id, *at, gap + 1));
                stack.push((*other, 0, 0));
            }
            None => file.extend(&part.bytes[from..]),
        }
    }
    let checksum = crc32fast::hash(&file);
    file.extend(checksum.to_le_bytes());
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "2026-11-22T19-08-31Z";

    fn line(depth: u32, name: &CStr) -> IndexRecord<'_> {
        let live = Stamp { inode: 7 + u64::from(depth), ctime_ns: 8, mtime_ns: -9 };
        IndexRecord {
            depth,
            entries: 3,
            live,
            own: SnapshotStamp { inode: 10, ctime_ns: 11 },
            name,
        }
    }

    fn sample() -> Vec<u8> {
        let mut root = IndexPart::new(0);
        root.push(&line(0, c""), 1_000);
        root.push(&line(1, c"a"), 1_000);
        root.leave_gap(1);
        root.push(&line(1, c"c"), 1_000);
        let mut given = IndexPart::new(1);
        given.push(&line(1, c"b"), 1_000);
        given.push(&line(2, c"b\xff\n"), 1_000);
        join(vec![given, root], NAME, 1_000).expect("small")
    }

    #[test]
    fn parts_are_joined_in_preorder() {
        let index = DirectoryIndex::parse(sample(), NAME).expect("whole");
        let children: Vec<_> = index.children(0).map(|child| index.line(child).name).collect();
        assert_eq!(children, [c"a", c"b", c"c"]);
        let siblings: Vec<_> = index.children(0).collect();
        let b = index.find(&siblings, c"b").expect("there");
        assert_eq!(index.line(b), line(1, c"b"));
        assert!(!index.is_leaf(b) && index.is_leaf(b + 1) && index.find(&siblings, c"d").is_none());
    }

    #[test]
    fn an_index_that_is_not_perfect_is_no_index() {
        let whole = sample();
        assert!(DirectoryIndex::parse(whole.clone(), "2026-11-22T19-08-32Z").is_none());
        for length in 0..whole.len() {
            assert!(
                DirectoryIndex::parse(whole[..length].to_vec(), NAME).is_none(),
                "{length} bytes"
            );
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert!(DirectoryIndex::parse(damaged, NAME).is_none(), "byte {at}");
        }
    }

    #[test]
    fn a_forged_index_with_a_right_checksum_cannot_lead_elsewhere() {
        for (depth, name) in [(0, c""), (2, c"x"), (1, c".."), (1, c"."), (1, c"a/b"), (1, c"")] {
            let mut part = IndexPart::new(0);
            part.push(&line(0, c""), 1_000);
            part.push(&line(depth, name), 1_000);
            let file = join(vec![part], NAME, 1_000).expect("small");
            assert!(DirectoryIndex::parse(file, NAME).is_none(), "{depth} {name:?}");
        }
    }

    #[test]
    fn what_has_just_changed_or_will_have_is_not_settled() {
        let stamp = |ctime_ns| Stamp { inode: 1, ctime_ns, mtime_ns: 0 };
        let now = 1_000 * SECOND_NS + 5;
        assert_eq!(
            stamp(now - SETTLED_AFTER_NS - 1).settled(now),
            stamp(now - SETTLED_AFTER_NS - 1)
        );
        assert_eq!(stamp(now - SETTLED_AFTER_NS).settled(now), Stamp::NEVER);
        assert_eq!(stamp(now + SECOND_NS).settled(now), Stamp::NEVER);
        assert_eq!(stamp(998 * SECOND_NS).settled(now), Stamp::NEVER);
        assert_eq!(stamp(990 * SECOND_NS).settled(now), stamp(990 * SECOND_NS));
    }

    #[test]
    fn an_index_that_grows_too_large_is_given_up() {
        let mut part = IndexPart::new(0);
        part.push(&line(0, c""), 60);
        part.push(&line(1, c"a"), 60);
        assert!(join(vec![part], NAME, 60).is_none());
    }
}
