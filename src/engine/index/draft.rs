//! The records of a new index, from the workers that make them until the index file is written.
//!
//! Each worker appends the records of its subtree to a part, in postorder. Where it gives a subtree
//! away it leaves a gap, which names the other worker's part. A full part ends with a gap for the
//! part that continues it. The bytes of full and of finished parts go into one log. It is kept in
//! memory up to `MEMORY_BYTES`, which suffices for most trees; beyond that it goes into a file in
//! `drafts`, in large pieces.
//!
//! That file is nameless: its name is removed right after it was made. So the kernel frees it when
//! the process ends in whatever way, and if the process is killed in between, the next run's
//! clean-up finds a temporary name with nothing in it.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::engine::index::IndexRecord;
use crate::engine::index::block::{MAX_NAME_BYTES, RecordLinks, StoredRecord};
use crate::engine::index::writer::{IndexFailure, IndexWriter};

/// How much of the log is kept in memory.
const MEMORY_BYTES: usize = 1 << 20;

/// A part that is larger is continued in another one.
const PART_BYTES: usize = 64 << 10;

/// How much of a part is read at a time when the index is written: more than the longest item has.
const PIECE_BYTES: usize = 8 << 10;

/// The name of the file in `drafts`, for the moment in which it has one. The clean-up after a
/// killed run knows it by its end.
const SPILL_NAME: &CStr = c"index.tmp";

/// Stands for the depth in a gap.
const GAP: u32 = u32::MAX;

const WORD_BYTES: usize = 4;

/// Number of a part. The part with the root has 0.
pub(crate) type PartId = u32;

/// All parts of a new index.
#[derive(Default)]
pub struct IndexDraft {
    log: Mutex<PartLog>,
}

#[derive(Default)]
struct PartLog {
    /// Where the bytes of each part are in the log, by its number.
    parts: Vec<Range<u64>>,
    /// The beginning of the log, if it is too large for memory, and how long that is.
    spill: Option<File>,
    spilled_bytes: u64,
    /// The rest of the log.
    memory: Vec<u8>,
    /// Whether there will be no index, since a name is too long.
    is_given_up: bool,
    failure: Option<io::Error>,
}

impl IndexDraft {
    /// A draft with one part, which is still to be made.
    pub(crate) fn new() -> Self {
        let draft = IndexDraft::default();
        draft.new_part();
        draft
    }

    /// Reserves the number of a part.
    pub(crate) fn new_part(&self) -> PartId {
        let mut log = self.log();
        log.parts.push(0..0);
        PartId::try_from(log.parts.len() - 1).unwrap_or(PartId::MAX)
    }

    /// Writes the index of the snapshot `name`. False if it gets none; then what was written has no
    /// meaning.
    ///
    /// # Errors
    /// If a part could not be kept or the file not be written.
    pub(crate) fn write(self, name: &str, file: impl Write) -> io::Result<bool> {
        let mut log = self.log.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = log.failure.take() {
            return Err(failure);
        }
        let mut writer = IndexWriter::new(file, name);
        let written = if log.is_given_up { Err(IndexFailure::NoIndex) } else { Ok(()) };
        let written = written
            .and_then(|()| log.for_each(|depth, name, record| writer.push(depth, name, record)))
            .and_then(|()| writer.finish());
        match written {
            Ok(()) => Ok(true),
            Err(IndexFailure::NoIndex) => Ok(false),
            Err(IndexFailure::Io(cause)) => Err(cause),
        }
    }

    fn log(&self) -> MutexGuard<'_, PartLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartLog {
    fn keep(&mut self, id: PartId, bytes: &[u8], drafts: BorrowedFd) {
        if self.is_given_up || self.failure.is_some() {
            return;
        }
        if self.memory.len() + bytes.len() > MEMORY_BYTES
            && let Err(cause) = self.spill(drafts)
        {
            self.failure = Some(cause);
            self.memory = Vec::new();
            return;
        }
        let start = self.spilled_bytes + self.memory.len() as u64;
        if let Some(part) = self.parts.get_mut(id as usize) {
            *part = start..start + bytes.len() as u64;
        }
        self.memory.extend_from_slice(bytes);
    }

    fn spill(&mut self, drafts: BorrowedFd) -> io::Result<()> {
        let file = match &mut self.spill {
            Some(file) => file,
            none => none.insert(nameless_file(drafts)?),
        };
        file.write_all(&self.memory)?;
        self.spilled_bytes += self.memory.len() as u64;
        self.memory.clear();
        Ok(())
    }

    /// Visits all records in the order of the index.
    fn for_each(
        &self,
        mut visit: impl FnMut(u32, &CStr, IndexRecord) -> Result<(), IndexFailure>,
    ) -> Result<(), IndexFailure> {
        // What is still to be read of each part that a gap has interrupted.
        let mut interrupted = vec![self.part(0)?];
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        while let Some(mut rest) = interrupted.pop() {
            while !rest.is_empty() {
                self.read(&rest, &mut piece)?;
                let mut at = 0;
                let mut gap = None;
                while let Some((item, length)) = PartItem::decode(&piece[at..]) {
                    at += length;
                    match item {
                        PartItem::Directory { depth, name, record } => visit(depth, name, record)?,
                        PartItem::Gap(id) => {
                            gap = Some(id);
                            break;
                        }
                    }
                }
                if at == 0 {
                    return Err(IndexFailure::NoIndex);
                }
                rest.start += at as u64;
                if let Some(id) = gap {
                    if !rest.is_empty() {
                        interrupted.push(rest);
                    }
                    rest = self.part(id)?;
                }
            }
        }
        Ok(())
    }

    fn part(&self, id: PartId) -> Result<Range<u64>, IndexFailure> {
        self.parts.get(id as usize).cloned().ok_or(IndexFailure::NoIndex)
    }

    /// Reads the beginning of a range of the log. A part lies as a whole either in the file or in
    /// memory.
    fn read(&self, range: &Range<u64>, piece: &mut Vec<u8>) -> io::Result<()> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let length = length.min(PIECE_BYTES);
        piece.clear();
        match range.start.checked_sub(self.spilled_bytes) {
            Some(start) => {
                let rest = usize::try_from(start).ok().and_then(|start| self.memory.get(start..));
                piece.extend_from_slice(rest.and_then(|rest| rest.get(..length)).unwrap_or(&[]));
                Ok(())
            }
            None => {
                piece.resize(length, 0);
                match &self.spill {
                    Some(file) => file.read_exact_at(piece, range.start),
                    None => Err(io::ErrorKind::NotFound.into()),
                }
            }
        }
    }
}

/// A new file without a name.
fn nameless_file(drafts: BorrowedFd) -> io::Result<File> {
    let flags =
        OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(drafts, SPILL_NAME, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    unlinkat(drafts.as_fd(), SPILL_NAME, UnlinkatFlags::NoRemoveDir)?;
    Ok(File::from(file))
}

enum PartItem<'a> {
    Directory { depth: u32, name: &'a CStr, record: IndexRecord },
    Gap(PartId),
}

impl<'a> PartItem<'a> {
    /// The item that begins `bytes`, and its length; none if it is cut off.
    fn decode(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (depth, rest) = bytes.split_first_chunk::<WORD_BYTES>()?;
        match u32::from_le_bytes(*depth) {
            GAP => {
                let id = PartId::from_le_bytes(*rest.first_chunk()?);
                Some((PartItem::Gap(id), 2 * WORD_BYTES))
            }
            depth => {
                let stored = StoredRecord::decode(rest)?;
                let length = WORD_BYTES + stored.encoded_bytes();
                let (name, record) = (stored.name()?, stored.record);
                Some((PartItem::Directory { depth, name, record }, length))
            }
        }
    }
}

/// One part of a draft, which one worker makes.
pub(crate) struct IndexPart<'a> {
    draft: &'a IndexDraft,
    /// The directory for the draft's file.
    drafts: BorrowedFd<'a>,
    id: PartId,
    bytes: Vec<u8>,
}

impl<'a> IndexPart<'a> {
    pub(crate) fn new(draft: &'a IndexDraft, drafts: BorrowedFd<'a>, id: PartId) -> Self {
        IndexPart { draft, drafts, id, bytes: Vec::new() }
    }

    /// Adds a directory that is finished, `depth` levels below the tree's root. All below it was
    /// added before, or has a gap.
    pub(crate) fn push(&mut self, depth: u32, name: &CStr, record: IndexRecord) {
        if name.count_bytes() >= MAX_NAME_BYTES || depth == GAP {
            self.draft.log().is_given_up = true;
            return;
        }
        self.bytes.extend(depth.to_le_bytes());
        StoredRecord::new(record, RecordLinks::default(), name).encode(&mut self.bytes);
        self.continue_if_full();
    }

    /// Leaves a gap for the part `id` of another worker.
    pub(crate) fn leave_gap(&mut self, id: PartId) {
        self.bytes.extend(GAP.to_le_bytes());
        self.bytes.extend(id.to_le_bytes());
        self.continue_if_full();
    }

    /// Hands over what has not been handed over yet.
    pub(crate) fn finish(self) {
        self.draft.log().keep(self.id, &self.bytes, self.drafts);
    }

    fn continue_if_full(&mut self) {
        if self.bytes.len() < PART_BYTES {
            return;
        }
        let next = self.draft.new_part();
        self.bytes.extend(GAP.to_le_bytes());
        self.bytes.extend(next.to_le_bytes());
        self.draft.log().keep(self.id, &self.bytes, self.drafts);
        self.bytes.clear();
        self.id = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::index::Stamp;

    #[test]
    fn only_a_large_draft_is_written_to_a_file_and_that_has_no_name() {
        for (directories, has_file) in [(100, false), (30_000, true)] {
            let scratch = tempfile::tempdir().expect("a directory");
            let drafts = File::open(scratch.path()).expect("it");
            let draft = IndexDraft::new();
            let mut part = IndexPart::new(&draft, drafts.as_fd(), 0);
            for number in 0..directories {
                let name = std::ffi::CString::new(format!("{number:06}")).expect("no NUL");
                part.push(1, &name, IndexRecord::unfinished(number, Stamp::NEVER));
            }
            part.push(0, c"", IndexRecord::unfinished(directories, Stamp::NEVER));
            part.finish();
            assert_eq!(draft.log().spill.is_some(), has_file);
            assert!(draft.log().memory.len() <= MEMORY_BYTES);
            assert_eq!(std::fs::read_dir(scratch.path()).expect("it").count(), 0);
            assert!(draft.write("a", io::sink()).expect("written"));
        }
    }

    #[test]
    fn a_draft_that_cannot_be_kept_is_an_error() {
        let scratch = tempfile::tempdir().expect("a directory");
        let no_directory = File::create(scratch.path().join("file")).expect("a file");
        let draft = IndexDraft::new();
        let mut part = IndexPart::new(&draft, no_directory.as_fd(), 0);
        for _ in 0..30_000 {
            part.push(1, c"name", IndexRecord::unfinished(0, Stamp::NEVER));
        }
        part.push(0, c"", IndexRecord::unfinished(0, Stamp::NEVER));
        part.finish();
        assert!(draft.write("a", io::sink()).is_err());
    }

    #[test]
    fn a_name_that_is_too_long_for_a_record_means_no_index() {
        let scratch = tempfile::tempdir().expect("a directory");
        let drafts = File::open(scratch.path()).expect("it");
        for (length, is_written) in [(MAX_NAME_BYTES - 1, true), (MAX_NAME_BYTES, false)] {
            let draft = IndexDraft::new();
            let mut part = IndexPart::new(&draft, drafts.as_fd(), 0);
            let name = std::ffi::CString::new(vec![b'x'; length]).expect("no NUL");
            part.push(1, &name, IndexRecord::unfinished(0, Stamp::NEVER));
            part.push(0, c"", IndexRecord::unfinished(0, Stamp::NEVER));
            part.finish();
            assert_eq!(draft.write("a", io::sink()).expect("no error"), is_written);
        }
    }

    #[test]
    fn records_that_make_no_tree_mean_no_index() {
        let scratch = tempfile::tempdir().expect("a directory");
        let drafts = File::open(scratch.path()).expect("it");
        for depths in [&[][..], &[1], &[2, 0], &[0, 0, 1], &[0, 1]] {
            let draft = IndexDraft::new();
            let mut part = IndexPart::new(&draft, drafts.as_fd(), 0);
            for depth in depths {
                part.push(*depth, c"a", IndexRecord::unfinished(0, Stamp::NEVER));
            }
            part.finish();
            assert!(!draft.write("a", io::sink()).expect("no error"), "{depths:?}");
        }
    }
}
