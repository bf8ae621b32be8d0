//! Reads an index file block by block.
//!
//! Each worker has a reader of its own with a small cache of blocks. Nothing is believed before it
//! is checked: the checksum of each block, and of each record its name, its links, which lead
//! backwards only, and the order of the names in one directory. So even a forged index ends, and
//! leads nowhere but to names in the current directory.

use std::cell::RefCell;
use std::ffi::CStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::engine::index::block::{
    BLOCK_BYTES, BlockChecksums, CHECKSUM_BYTES, FIXED_BYTES, ROOT_BYTES, RecordLinks,
    RecordPosition, StoredRecord, header, is_name_of_child,
};
use crate::engine::index::{IndexRecord, Stamp};

/// How many blocks a reader keeps in memory. A walk goes back and forth between the records of a
/// directory's children and those of their children.
const CACHED_BLOCKS: usize = 8;

/// An index that is open for reading, with a flag for each directory: whether a comparison found
/// the live one unchanged.
pub struct DirectoryIndex {
    file: File,
    bytes: u32,
    checksums: BlockChecksums,
    first: RecordPosition,
    root: RecordPosition,
    /// A bit for each place at which a record can begin: no two begin closer to each other than
    /// [`FIXED_BYTES`].
    unchanged: Vec<AtomicU64>,
    /// Caches that no reader uses now. A worker makes a reader for each subtree that it takes.
    idle_caches: Mutex<Vec<BlockCache>>,
}

impl DirectoryIndex {
    /// The index in `file`; none unless it belongs to the snapshot `name` and its end is whole.
    pub fn open(file: File, name: &str) -> Option<Self> {
        // A larger one was not made by this program.
        let bytes = u32::try_from(file.metadata().ok()?.len()).ok()?;
        let root = (bytes as usize).checked_sub(CHECKSUM_BYTES + ROOT_BYTES)?;
        let first = header(name).len();
        let mut index = DirectoryIndex {
            file,
            bytes,
            checksums: BlockChecksums::new(name),
            first: RecordPosition::try_from(first).ok()?,
            root: RecordPosition::try_from(root).ok().filter(|root| *root as usize >= first)?,
            unchanged: Vec::new(),
            idle_caches: Mutex::default(),
        };
        let is_whole = index
            .reader()
            .with(index.root, |root| root.name() == Some(c"") && root.links.previous == 0);
        if is_whole != Some(true) {
            return None;
        }
        let places = bytes as usize / FIXED_BYTES + 1;
        index.unchanged.resize_with(places.div_ceil(BITS), AtomicU64::default);
        Some(index)
    }

    /// The tree's root.
    pub fn root(&self) -> RecordPosition {
        self.root
    }

    /// A reader for one worker.
    pub fn reader(&self) -> IndexReader<'_> {
        let idle = self.idle_caches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        IndexReader { index: self, cache: RefCell::new(idle.unwrap_or_default()) }
    }

    fn flag(&self, at: RecordPosition) -> Option<(&AtomicU64, u64)> {
        let place = at as usize / FIXED_BYTES;
        Some((self.unchanged.get(place / BITS)?, 1 << (place % BITS)))
    }
}

const BITS: usize = u64::BITS as usize;

/// Reads an index for one worker.
pub struct IndexReader<'a> {
    index: &'a DirectoryIndex,
    cache: RefCell<BlockCache>,
}

impl Drop for IndexReader<'_> {
    fn drop(&mut self) {
        let idle = self.index.idle_caches.lock();
        idle.unwrap_or_else(PoisonError::into_inner).push(self.cache.take());
    }
}

impl IndexReader<'_> {
    /// What the index says of a directory; none if that is damaged.
    pub(crate) fn record(&self, at: RecordPosition) -> Option<IndexRecord> {
        self.with(at, |stored| stored.record)
    }

    /// What the index says of a directory if that has no subdirectories.
    pub(crate) fn leaf(&self, at: RecordPosition) -> Option<IndexRecord> {
        self.with(at, |stored| (stored.links.last_child == 0).then_some(stored.record))?
    }

    /// The subdirectories of a directory, to be looked up by name; none of a directory that is not
    /// in the index.
    pub(crate) fn children(&self, parent: Option<RecordPosition>) -> IndexChildren<'_> {
        let last = parent.and_then(|parent| self.with(parent, |stored| stored.links.last_child));
        let is_damaged = parent.is_some() && last.is_none();
        IndexChildren { reader: self, next: last.unwrap_or(0), name: Vec::new(), at: 0, is_damaged }
    }

    /// Calls `visit` for each subdirectory of a directory, in descending order of their names.
    /// False if not all of them could be read.
    pub fn for_each_child(
        &self,
        parent: RecordPosition,
        mut visit: impl FnMut(&CStr, RecordPosition),
    ) -> bool {
        let mut children = self.children(Some(parent));
        while children.go_on() {
            visit(children.name(), children.at);
        }
        !children.is_damaged
    }

    /// Notes that the live directory is as it was when the index was made.
    pub(crate) fn note_unchanged(&self, at: RecordPosition) {
        if let Some((flags, flag)) = self.index.flag(at) {
            flags.fetch_or(flag, Ordering::Relaxed);
        }
    }

    /// The stamp of the live directory, if it was noted as unchanged.
    pub(crate) fn unchanged(&self, at: RecordPosition) -> Option<Stamp> {
        let (flags, flag) = self.index.flag(at)?;
        let is_unchanged = flags.load(Ordering::Relaxed) & flag != 0;
        is_unchanged.then(|| self.record(at)).flatten().map(|record| record.live)
    }

    /// Reads a record; none if it is damaged.
    fn with<R>(&self, at: RecordPosition, read: impl FnOnce(&StoredRecord) -> R) -> Option<R> {
        let mut cache = self.cache.borrow_mut();
        let content = cache.block(self.index, at / BLOCK_BYTES as u32)?;
        let stored = StoredRecord::decode(content.get(at as usize % BLOCK_BYTES..)?)?;
        let RecordLinks { last_child, previous } = stored.links;
        let leads_back = |to| to == 0 || (self.index.first..at).contains(&to);
        (leads_back(last_child) && leads_back(previous)).then(|| read(&stored))
    }
}

/// A position among the subdirectories of one directory, which goes down the order of their names.
pub(crate) struct IndexChildren<'a> {
    reader: &'a IndexReader<'a>,
    next: RecordPosition,
    /// Of the subdirectory at `at`, with its NUL; empty before the first step.
    name: Vec<u8>,
    at: RecordPosition,
    is_damaged: bool,
}

impl IndexChildren<'_> {
    /// The subdirectory `name`. The names of successive calls descend.
    pub(crate) fn find(&mut self, name: &CStr) -> Option<RecordPosition> {
        let name = name.to_bytes_with_nul();
        while self.at == 0 || name < self.name.as_slice() {
            if !self.go_on() {
                return None;
            }
        }
        (name == self.name).then_some(self.at)
    }

    /// Whether the subdirectories up to here could be read. If so, one that was not found is not in
    /// the index.
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_damaged
    }

    /// Goes to the next subdirectory; false if there is none, or it is damaged.
    fn go_on(&mut self) -> bool {
        let at = std::mem::take(&mut self.next);
        if at == 0 {
            return false;
        }
        let last = &mut self.name;
        let previous = self.reader.with(at, |stored| {
            let name = stored.name()?;
            let is_below = last.is_empty() || name.to_bytes_with_nul() < last.as_slice();
            last.clear();
            last.extend_from_slice(name.to_bytes_with_nul());
            (is_below && is_name_of_child(name)).then_some(stored.links.previous)
        });
        match previous.flatten() {
            Some(previous) => {
                (self.next, self.at) = (previous, at);
                true
            }
            None => {
                (self.at, self.is_damaged) = (0, true);
                false
            }
        }
    }

    fn name(&self) -> &CStr {
        // Each name was stored with its NUL, so the default is only taken before the first step.
        CStr::from_bytes_with_nul(&self.name).unwrap_or_default()
    }
}

/// The blocks that a reader used last.
#[derive(Default)]
struct BlockCache {
    blocks: Vec<CachedBlock>,
    /// The block that was used last, among `blocks`.
    last: usize,
    uses: u64,
}

struct CachedBlock {
    number: u32,
    /// Empty if the block is damaged.
    content: Vec<u8>,
    last_use: u64,
}

impl BlockCache {
    /// The content of a block; none if it is damaged or cannot be read.
    fn block(&mut self, index: &DirectoryIndex, number: u32) -> Option<&[u8]> {
        self.uses += 1;
        if self.blocks.get(self.last).is_none_or(|block| block.number != number) {
            let found = self.blocks.iter().position(|block| block.number == number);
            self.last = found.unwrap_or_else(|| self.load(index, number));
        }
        let block = self.blocks.get_mut(self.last)?;
        block.last_use = self.uses;
        Some(&block.content).filter(|content| !content.is_empty()).map(Vec::as_slice)
    }

    /// Reads a block in the place of the one that was not used for the longest time.
    fn load(&mut self, index: &DirectoryIndex, number: u32) -> usize {
        if self.blocks.len() < CACHED_BLOCKS {
            self.blocks.push(CachedBlock { number, content: Vec::new(), last_use: 0 });
        }
        let oldest = self.blocks.iter().enumerate().min_by_key(|(_, block)| block.last_use);
        let place = oldest.map_or(0, |(place, _)| place);
        let block = &mut self.blocks[place];
        block.number = number;
        if read_block(index, number, &mut block.content).is_none() {
            block.content.clear();
        }
        place
    }
}

/// Reads the content of a block, unless it is damaged.
fn read_block(index: &DirectoryIndex, number: u32, content: &mut Vec<u8>) -> Option<()> {
    let start = u64::from(number) * BLOCK_BYTES as u64;
    let rest = u64::from(index.bytes).checked_sub(start)?;
    let length = rest.min(BLOCK_BYTES as u64) as usize;
    content.resize(length, 0);
    index.file.read_exact_at(content, start).ok()?;
    let content_bytes = length.checked_sub(CHECKSUM_BYTES)?;
    let checksum = index.checksums.of(number, &content[..content_bytes]);
    let is_whole = content[content_bytes..] == checksum;
    content.truncate(content_bytes);
    is_whole.then_some(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::CString;
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;
    use crate::engine::index::SnapshotStamp;
    use crate::engine::index::block::CONTENT_BYTES;
    use crate::engine::index::draft::{IndexDraft, IndexPart};

    const NAME: &str = "2026-11-22T19-08-31Z";

    fn record(number: u64) -> IndexRecord {
        let live = Stamp { inode: number, ctime_ns: 8, mtime_ns: -9 };
        IndexRecord { entries: 3, live, own: SnapshotStamp { inode: 10, ctime_ns: 11 } }
    }

    /// The index of a root with `tops` directories, each with `below` directories in it. Every
    /// third of the former is another worker's.
    fn sample(tops: u64, below: u64) -> Vec<u8> {
        let scratch = tempfile::tempdir().expect("a directory");
        let drafts = File::open(scratch.path()).expect("it");
        let draft = IndexDraft::new();
        let name = |number: u64| {
            let digits = format!("{number:06}");
            CString::new([digits.as_bytes(), b"\xff\n"].concat()).expect("no NUL")
        };
        let push = |part: &mut IndexPart, top: u64| {
            let number = |below: u64| top * 1_000 + below;
            (0..below).for_each(|below| part.push(2, &name(below), record(number(below + 1))));
            part.push(1, &name(top), record(number(0)));
        };
        let mut root = IndexPart::new(&draft, drafts.as_fd(), 0);
        for top in 0..tops {
            if top % 3 == 1 {
                let id = draft.new_part();
                let mut given = IndexPart::new(&draft, drafts.as_fd(), id);
                push(&mut given, top);
                given.finish();
                root.leave_gap(id);
            } else {
                push(&mut root, top);
            }
        }
        root.push(0, c"", record(u64::MAX));
        root.finish();
        assert_eq!(std::fs::read_dir(scratch.path()).expect("it").count(), 0, "no name is left");
        let mut bytes = Vec::new();
        assert!(draft.write(NAME, &mut bytes).expect("in memory"));
        bytes
    }

    fn open(bytes: &[u8], name: &str) -> Option<DirectoryIndex> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        DirectoryIndex::open(file, name)
    }

    /// The inode numbers by path of all directories below the root; none of a directory whose
    /// subdirectories cannot all be read.
    fn tree(index: &DirectoryIndex) -> BTreeMap<Vec<u8>, u64> {
        let reader = index.reader();
        let (mut found, mut stack) = (BTreeMap::new(), vec![(Vec::new(), index.root())]);
        while let Some((path, at)) = stack.pop() {
            let mut children = Vec::new();
            if reader.for_each_child(at, |name, child| children.push((name.to_owned(), child))) {
                for (name, child) in children {
                    let path = [&path, &b"/"[..], name.to_bytes()].concat();
                    if let Some(record) = reader.record(child) {
                        found.insert(path.clone(), record.live.inode);
                        stack.push((path, child));
                    }
                }
            }
        }
        found
    }

    #[test]
    fn each_directory_is_found_below_its_parent() {
        // One block, several blocks, several parts of a worker, and more than is kept in memory.
        for (tops, below) in [(0, 0), (1, 0), (4, 3), (3, 900), (30, 999)] {
            let bytes = sample(tops, below);
            let index = open(&bytes, NAME).expect("whole");
            let found = tree(&index);
            assert_eq!(found.len() as u64, tops * (1 + below));
            for (path, inode) in found {
                let digits = |name: &[u8]| -> u64 {
                    std::str::from_utf8(&name[..6]).expect("digits").parse().expect("a number")
                };
                let mut names = path.split(|byte| *byte == b'/').skip(1);
                let top = digits(names.next().expect("a name"));
                let below = names.next().map_or(0, |name| digits(name) + 1);
                assert_eq!(inode, top * 1_000 + below);
            }
            assert_eq!(index.reader().record(index.root()), Some(record(u64::MAX)));
        }
    }

    #[test]
    fn names_are_found_in_descending_order() {
        let index = open(&sample(5, 2), NAME).expect("whole");
        let reader = index.reader();
        let mut children = reader.children(Some(index.root()));
        for (name, inode) in [
            (c"x", None),
            (c"000004\xff\n", Some(4_000)),
            (c"000003\xff\x0b", None),
            (c"000001\xff\n", Some(1_000)),
            (c"0", None),
            (c"", None),
        ] {
            let found = children.find(name).and_then(|at| reader.record(at));
            assert_eq!(found.map(|record| record.live.inode), inode, "{name:?}");
        }
        assert_eq!(reader.children(None).find(c"000004\xff\n"), None);
    }

    #[test]
    fn a_flag_concerns_one_directory() {
        let index = open(&sample(40, 40), NAME).expect("whole");
        let reader = index.reader();
        let mut positions = vec![index.root()];
        for_all(&index, |at| positions.push(at));
        for at in positions.iter().step_by(2) {
            reader.note_unchanged(*at);
        }
        for (number, at) in positions.iter().enumerate() {
            let stamp = reader.record(*at).map(|record| record.live);
            assert_eq!(reader.unchanged(*at), stamp.filter(|_| number % 2 == 0));
        }
    }

    fn for_all(index: &DirectoryIndex, mut visit: impl FnMut(RecordPosition)) {
        let (reader, mut stack) = (index.reader(), vec![index.root()]);
        while let Some(at) = stack.pop() {
            assert!(reader.for_each_child(at, |_, child| stack.push(child)));
            if at != index.root() {
                visit(at);
            }
        }
    }

    #[test]
    fn a_short_index_that_is_not_perfect_is_no_index() {
        let whole = sample(3, 1);
        assert!(open(&whole, "2026-11-22T19-08-32Z").is_none());
        for length in 0..whole.len() {
            assert!(open(&whole[..length], NAME).is_none(), "{length} bytes");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert!(open(&damaged, NAME).is_none(), "byte {at}");
        }
        assert!(open(&whole.repeat(2), NAME).is_none());
    }

    #[test]
    fn nothing_in_a_damaged_block_is_believed() {
        let whole = sample(20, 100);
        let right = tree(&open(&whole, NAME).expect("whole"));
        for at in (0..whole.len()).step_by(997) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            let Some(index) = open(&damaged, NAME) else { continue };
            let found = tree(&index);
            assert!(found.len() < right.len(), "byte {at}: the damage is seen");
            assert!(found.iter().all(|(path, inode)| right.get(path) == Some(inode)), "byte {at}");
        }
        // A block in the place of another.
        let mut exchanged = whole.clone();
        exchanged.copy_within(BLOCK_BYTES..2 * BLOCK_BYTES, 2 * BLOCK_BYTES);
        let found = tree(&open(&exchanged, NAME).expect("its end is whole"));
        assert!(found.len() < right.len());
        assert!(found.iter().all(|(path, inode)| right.get(path) == Some(inode)));
    }

    /// One block with a right checksum: a root and before it one other record, with these links.
    fn forged(name: &CStr, links: RecordLinks, of_root: RecordLinks) -> Vec<u8> {
        let mut bytes = header(NAME).into_bytes();
        StoredRecord::new(record(1), links, name).encode(&mut bytes);
        StoredRecord::new(record(2), of_root, c"").encode(&mut bytes);
        let checksum = BlockChecksums::new(NAME).of(0, &bytes);
        bytes.extend(checksum);
        bytes
    }

    #[test]
    fn a_forged_index_with_right_checksums_cannot_lead_elsewhere() {
        let none = RecordLinks::default();
        let first = header(NAME).len() as u32;
        let leads_to = |last_child| RecordLinks { last_child, ..none };
        assert_eq!(
            tree(&open(&forged(c"a", none, leads_to(first)), NAME).expect("whole")).len(),
            1
        );
        for name in [c"..", c".", c"a/b", c"/", c""] {
            let index = open(&forged(name, none, leads_to(first)), NAME).expect("whole");
            assert!(!index.reader().for_each_child(index.root(), |_, _| panic!("{name:?}")));
        }
        let root = first + FIXED_BYTES as u32 + 2;
        for to in [1, first - 1, first, root, root + 1, CONTENT_BYTES as u32, u32::MAX] {
            for links in [leads_to(to), RecordLinks { previous: to, ..none }] {
                let index = open(&forged(c"a", links, leads_to(first)), NAME).expect("whole");
                assert!(!index.reader().for_each_child(index.root(), |_, _| panic!("{to}")));
            }
            if to != first {
                assert!(open(&forged(c"a", none, leads_to(to)), NAME).is_none_or(|index| {
                    !index.reader().for_each_child(index.root(), |_, _| panic!("{to}"))
                }));
            }
        }
        // The root has no directory before it.
        let previous = RecordLinks { previous: first, ..none };
        assert!(open(&forged(c"a", none, previous), NAME).is_none());
    }

    #[test]
    fn a_forged_order_of_names_ends_the_list() {
        let mut bytes = header(NAME).into_bytes();
        let mut previous = 0;
        for name in [c"a", c"c", c"b"] {
            let links = RecordLinks { previous, ..RecordLinks::default() };
            previous = bytes.len() as u32;
            StoredRecord::new(record(1), links, name).encode(&mut bytes);
        }
        let links = RecordLinks { last_child: previous, ..RecordLinks::default() };
        StoredRecord::new(record(2), links, c"").encode(&mut bytes);
        let checksum = BlockChecksums::new(NAME).of(0, &bytes);
        bytes.extend(checksum);
        let index = open(&bytes, NAME).expect("whole");
        let mut seen = Vec::new();
        assert!(!index.reader().for_each_child(index.root(), |name, _| seen.push(name.to_owned())));
        assert_eq!(seen, [c"b".to_owned()]);
        let reader = index.reader();
        let mut children = reader.children(Some(index.root()));
        assert_eq!(children.find(c"c"), None);
        assert_eq!(children.find(c"a"), None);
    }
}
