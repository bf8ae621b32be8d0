//! Finds the directories of a snapshot in which another program has added, removed, renamed or
//! replaced entries since the index was made.
//!
//! The index has the change time that each directory had when the snapshot was made. If that is
//! still the same, so are its entries. If not, [its times](crate::decide::lacking::DirectoryTimes)
//! tell whether entries were changed or only the directory's own attributes; and where they do not
//! tell that, the number of its entries does.
//!
//! The walk follows the index. So it asks once for the state of each directory, and reads hardly
//! any. A subdirectory that the index does not have is a change of the directory that it is in.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::decide::damage::FileTime;
use crate::decide::lacking::EntriesByTime;
use crate::engine::children::{LEVEL_BYTES, PendingChildren};
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::frames::{Frame, FrameStack, Step};
use crate::engine::index::block::RecordPosition;
use crate::engine::index::reader::{DirectoryIndex, IndexReader};
use crate::engine::index::{IndexRecord, SnapshotStamp, Stamp};
use crate::engine::listing::Listing;
use crate::system::identity::SysResult;
use crate::system::syscalls::is_gone;

/// How many directories are named.
const MAX_NAMED: usize = 10;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct ChangedEntries {
    /// How many directories have other entries.
    pub directories: u64,
    /// The paths of the first of them, from the snapshot's own directory on.
    pub first: Vec<Vec<u8>>,
    /// When one of them last changed, nanoseconds since 1970.
    pub last_change_ns: Option<i64>,
    /// How many directories could not be compared, since they or the index cannot be read.
    pub unread: u64,
    /// The path of the first directory that could not be read, from the snapshot's own directory
    /// on, and why.
    pub first_failure: Option<(Vec<u8>, Errno)>,
    /// Whether nothing was compared, since the snapshot is a copy: its directories are others than
    /// those of the index.
    pub is_copy: bool,
}

impl ChangedEntries {
    /// Of a snapshot whose own directory cannot be read.
    pub(crate) fn unreadable(cause: Errno) -> Self {
        match is_gone(cause) {
            true => ChangedEntries::default(),
            false => ChangedEntries {
                unread: 1,
                first_failure: Some((Vec::new(), cause)),
                ..ChangedEntries::default()
            },
        }
    }
}

/// Looks at what the `names` lead to from `start`, the snapshot's own directory; without names,
/// that is the whole snapshot. `counts`: whether the numbers of entries in the index are exact.
/// Nothing is found in a copy of the snapshot, whose directories are others than those of the
/// index.
pub(crate) fn changed_entries(
    start: DescentStart,
    names: &[CString],
    index: &DirectoryIndex,
    counts: bool,
) -> ChangedEntries {
    let mut descent = match Descent::new(start) {
        Ok(descent) => descent,
        Err(cause) => return ChangedEntries::unreadable(cause),
    };
    let top = descent.lookup_directory();
    let rename_keeps_times = top.is_ok_and(|top| rename_keeps_times(top.as_fd()));
    let mut walk = ChangeWalk {
        descent,
        index: index.reader(),
        frames: FrameStack::new(0),
        listing: Listing::default(),
        counts,
        rename_keeps_times,
        found: ChangedEntries::default(),
    };
    if let Err(cause) = walk.run(names, index.root()) {
        walk.note_failure(None, cause);
    }
    walk.found
}

struct ChangeWalk<'a> {
    descent: Descent,
    index: IndexReader<'a>,
    frames: FrameStack<IndexFrame>,
    listing: Listing,
    counts: bool,
    rename_keeps_times: bool,
    found: ChangedEntries,
}

/// A directory that the walk has entered.
struct IndexFrame {
    at: RecordPosition,
    pending: PendingChildren<RecordPosition>,
}

impl Frame for IndexFrame {
    type Directory = RecordPosition;

    fn pending(&self) -> &PendingChildren<RecordPosition> {
        &self.pending
    }

    fn pending_mut(&mut self) -> &mut PendingChildren<RecordPosition> {
        &mut self.pending
    }
}

impl ChangeWalk<'_> {
    fn run(&mut self, names: &[CString], root: RecordPosition) -> SysResult<()> {
        let (mut at, mut stat) = (root, fstat(self.descent.lookup_directory()?)?);
        let Some(record) = self.index.record(root) else {
            self.found.unread += 1;
            return Ok(());
        };
        // In a copy on another disk, a directory may have the same number.
        let is_later = birth_ns(self.descent.lookup_directory()?.as_fd())
            .is_some_and(|birth| birth > record.own.ctime_ns);
        if record.own.inode != Stamp::of(&stat).inode || is_later {
            self.found.is_copy = record.own != SnapshotStamp::UNKNOWN;
            return Ok(());
        }
        for name in names {
            stat = self.descent.enter_for_lookups(name)?;
            let mut children = self.index.children(Some(at));
            at = match (children.find(name), children.is_whole()) {
                (Some(at), _) => at,
                (None, true) => {
                    self.note(Stamp::of(&stat));
                    return Ok(());
                }
                (None, false) => {
                    self.found.unread += 1;
                    return Ok(());
                }
            };
        }
        self.visit(at, &stat);
        while let Some(step) = self.frames.next_step() {
            match step {
                Step::Enter(name, at) => self.enter(&name, at),
                Step::ReadAgain(rest) => {
                    if let Some(frame) = self.frames.pop() {
                        self.push(frame.at, rest);
                    }
                }
                Step::Leave => {
                    self.frames.pop();
                    self.descent.leave();
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, name: &CStr, at: RecordPosition) {
        if self.is_unchanged_leaf(name, at) {
            return;
        }
        // One that has gone, or was replaced, is a change of the directory that it was in.
        match self.descent.enter_for_lookups(name) {
            Ok(stat) => self.visit(at, &stat),
            Err(cause) => self.note_failure(Some(name), cause),
        }
    }

    /// Notes that the current directory, or `name` in it, cannot be read. What is gone, or is no
    /// directory, is not known.
    fn note_failure(&mut self, name: Option<&CStr>, cause: Errno) {
        if is_gone(cause) {
            return;
        }
        self.found.unread += 1;
        if self.found.first_failure.is_none() {
            self.found.first_failure = Some((self.descent.listed_path(name), cause));
        }
    }

    /// Whether `name` is a directory without subdirectories, and as the index has it.
    fn is_unchanged_leaf(&mut self, name: &CStr, at: RecordPosition) -> bool {
        let Some(record) = self.index.leaf(at) else { return false };
        let device = self.descent.device();
        let parent = self.descent.lookup_directory();
        let stamp = parent.and_then(|parent| Stamp::of_entry(parent.as_fd(), name, device));
        stamp.is_ok_and(|stamp| stamp.is_some_and(|stamp| own_stamp(stamp) == record.own))
    }

    /// Looks at the current directory; its subdirectories become pending, unless it is another
    /// directory than that of the index.
    fn visit(&mut self, at: RecordPosition, stat: &FileStat) {
        let (stamp, pending) = (Stamp::of(stat), PendingChildren::new(LEVEL_BYTES));
        let record = self.index.record(at);
        self.found.unread += u64::from(record.is_none());
        let known = record.filter(|record| record.own != SnapshotStamp::UNKNOWN);
        let is_another = known.is_some_and(|record| record.own.inode != stamp.inode);
        if is_another || known.is_some_and(|record| self.is_changed(&record, stamp)) {
            self.note(stamp);
        }
        match is_another {
            true => self.frames.push(IndexFrame { at, pending }),
            false => self.push(at, pending),
        }
    }

    /// Notes that the current directory has other entries.
    fn note(&mut self, stamp: Stamp) {
        self.found.directories += 1;
        self.found.last_change_ns = self.found.last_change_ns.max(Some(stamp.ctime_ns));
        if self.found.first.len() < MAX_NAMED {
            self.found.first.push(self.descent.listed_path(None));
        }
    }

    fn push(&mut self, at: RecordPosition, mut pending: PendingChildren<RecordPosition>) {
        let is_whole = self.index.for_each_child(at, |name, child| pending.push(name, child));
        self.found.unread += u64::from(!is_whole);
        pending.ready();
        self.frames.push(IndexFrame { at, pending });
    }

    fn is_changed(&mut self, record: &IndexRecord, stamp: Stamp) -> bool {
        // A snapshot's own directory is moved when the snapshot is published or retired.
        let by_time = match self.descent.depth() == 0 && !self.rename_keeps_times {
            true => EntriesByTime::Unclear,
            false => record.entries_by_time(stamp),
        };
        match by_time {
            EntriesByTime::Unchanged => false,
            EntriesByTime::Changed => true,
            EntriesByTime::Unclear => {
                let is_counted = self.counts && record.entries < u32::MAX;
                is_counted
                    && match self.count() {
                        Ok(count) => count != u64::from(record.entries),
                        Err(cause) => {
                            self.note_failure(None, cause);
                            false
                        }
                    }
            }
        }
    }

    /// The number of entries in the current directory.
    fn count(&mut self) -> SysResult<u64> {
        let directory = self.descent.directory()?;
        Listing::rewind(directory.as_fd())?;
        self.listing.read_first(directory.as_fd())?;
        let mut count = 0;
        loop {
            count += self.listing.entries().len() as u64;
            if !self.listing.read_next(directory.as_fd())? {
                return Ok(count);
            }
        }
    }
}

/// When the directory was made, nanoseconds since 1970; none if the file system does not tell.
fn birth_ns(directory: BorrowedFd) -> Option<i64> {
    let statx = statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    let is_known = statx.stx_mask & StatxFlags::BTIME.bits() != 0;
    let (seconds, nanoseconds) = (statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec);
    is_known.then(|| FileTime { seconds, nanoseconds }.as_ns())
}

/// Whether the file system leaves the modification time of a directory as it is if that is moved to
/// another directory. F2FS sets it, and a program behind FUSE may.
pub(crate) fn rename_keeps_times(directory: BorrowedFd) -> bool {
    const OTHERS: [u32; 2] = [0xf2f5_2010, 0x6573_5546];
    rustix::fs::fstatfs(directory)
        .is_ok_and(|facts| u32::try_from(facts.f_type).is_ok_and(|kind| !OTHERS.contains(&kind)))
}

fn own_stamp(stamp: Stamp) -> SnapshotStamp {
    SnapshotStamp { inode: stamp.inode, ctime_ns: stamp.ctime_ns }
}
