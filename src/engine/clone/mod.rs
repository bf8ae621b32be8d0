//! Makes a tree of hard links in staging that equals the live tree: afresh, or out of a retired
//! snapshot, which holds most of the links already.
//!
//! Each entry that is not a directory is a link to the live inode. Directories are the snapshot's
//! own, with the owner, mode, times and attributes of the live ones. In a recycled directory an
//! entry with an equal name and an equal inode number stays; all others are removed, and missing
//! ones are linked.
//!
//! The order is safe against the client: a directory's state is read before its entries and applied
//! after they are in place. So a change in between leaves an older time, which the next comparison
//! notices. Until then each new directory has mode 0700, and staging is a directory that only this
//! program may enter. The order is safe against crashes because all of this happens in staging,
//! which the next run empties: nothing there counts as a snapshot.
//!
//! With the [indexes](crate::engine::index) of the newest snapshot and of the recycled one, most
//! directories are not even opened: if neither the live directory nor the retired one has changed
//! since the retired snapshot was made, they are still equal. Along the way the walk makes the new
//! snapshot's index. A directory that the comparison has read is not read again, as long as its
//! [cached listing](crate::engine::listing_cache) is true.
//!
//! In [partial directories](crate::decide::partial_dirs) files are copied, since rsync writes into
//! them in place. The index never lets a partial directory be kept: in a recycled one, which may
//! hold links that an earlier version made, all files are replaced by copies.
//!
//! Several workers share the walk. All subdirectories are made before any of them is visited, so
//! a directory's own attributes can be applied while another worker is still below it.

mod entries;
mod records;
mod walk;

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, fstat, mkdirat};

use crate::decide::lacking::EntriesByTime;
use crate::decide::partial_dirs::PartialDirs;
use crate::engine::baseline::Recording;
use crate::engine::children::PendingChildren;
use crate::engine::clone::records::{LinkedNames, Recorder, record_batch};
use crate::engine::copied::Copies;
use crate::engine::copy::Copier;
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::difference::DirectoryComparer;
use crate::engine::frames::{Frame, FrameStack};
use crate::engine::index::block::RecordPosition;
use crate::engine::index::changed_entries::rename_keeps_times;
use crate::engine::index::draft::{IndexDraft, IndexPart, PartId};
use crate::engine::index::reader::{DirectoryIndex, IndexReader};
use crate::engine::index::{IndexRecord, Stamp, now_ns};
use crate::engine::listing::Listing;
use crate::engine::listing_cache::ListingCache;
use crate::engine::pool::{self, Pool};
use crate::engine::temporaries::Temporaries;
use crate::system::syscalls::open_directory;
use crate::tell::error::{Error, Result};
use crate::tell::progress;

#[derive(Debug, Default)]
pub struct CloneOutcome {
    /// Entries in the tree, directories included, its root not.
    pub entries: u64,
    /// Links and directories among them that had to be made.
    pub made: u64,
    /// Entries of the recycled snapshot that were removed.
    pub removed: u64,
    /// Directories that had to be read, of either tree.
    pub directories_read: u64,
    /// Names of copies.
    copied: u64,
    /// Size of the files that are in no earlier snapshot and have one name in the module; of
    /// copies, too. 0 without a recording.
    pub new_bytes: u64,
    /// Inodes that were copied since they could not be linked or were in a partial directory.
    pub copies: Copies,
    pub partial: PartialDirCounts,
    /// Mount points that were left out, relative to the module.
    pub skipped_mounts: Vec<Vec<u8>>,
    /// Directories or copies whose owner or security attributes could not be kept.
    pub attributes_lost: u64,
    /// Files whose names look like rsync's temporary files; paths are relative to the module.
    pub temporaries: Temporaries,
    /// Entries that disappeared or kept changing their type while they were read.
    pub vanished: u64,
    /// When another program last changed the entries of a directory of the recycled snapshot, as
    /// far as the clone has met it, nanoseconds since 1970.
    pub last_other_change_ns: Option<i64>,
}

impl CloneOutcome {
    fn add(&mut self, other: CloneOutcome) {
        // One worker may count an entry that another worker finds gone, so a single count may be
        // below zero.
        self.entries = self.entries.wrapping_add(other.entries);
        self.made += other.made;
        self.removed += other.removed;
        self.directories_read += other.directories_read;
        self.new_bytes = self.new_bytes.saturating_add(other.new_bytes);
        for (pair, copied) in other.copies {
            let names = copied.names;
            self.copies.entry(pair).and_modify(|known| known.names += names).or_insert(copied);
        }
        self.partial.copied += other.partial.copied;
        self.partial.shared += other.partial.shared;
        self.skipped_mounts.extend(other.skipped_mounts);
        self.attributes_lost += other.attributes_lost;
        self.temporaries.add(other.temporaries);
        self.vanished += other.vanished;
        self.last_other_change_ns = self.last_other_change_ns.max(other.last_other_change_ns);
    }
}

/// Counts of files in partial directories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartialDirCounts {
    pub copied: u64,
    /// Copied files that have other names in the module or in snapshots, and files that could only
    /// be linked.
    pub shared: u64,
}

/// Where a clone is made.
pub struct CloneTarget<'a> {
    /// The directory in which the clone is made.
    pub parent: BorrowedFd<'a>,
    /// The path of that directory, for messages.
    pub parent_path: &'a Path,
    /// The name of the clone there.
    pub name: &'a CStr,
    /// Whether a retired snapshot has that name. Otherwise the clone is made afresh.
    pub is_recycled: bool,
    /// The directory in which copies are written, and a large index as long as it is not finished.
    pub drafts: BorrowedFd<'a>,
}

/// What is known before a clone begins.
#[derive(Clone, Copy, Default)]
pub struct CloneContext<'a> {
    /// The index that the comparison used. Directories noted in it as unchanged are unchanged.
    pub newest: Option<&'a DirectoryIndex>,
    /// The index of the snapshot that is recycled.
    pub retired: Option<&'a DirectoryIndex>,
    /// About how many entries the live tree has.
    pub entries: Option<u64>,
    /// The directories in which files are copied.
    pub partial_dirs: Option<&'a PartialDirs>,
    /// Live directories that the comparison has read.
    pub(crate) cache: Option<&'a ListingCache>,
    /// How the inodes are recorded that are new in the clone.
    pub recording: Option<Recording<'a>>,
}

/// Makes the tree at `stage` equal the one at `live`. Returns its index, too.
///
/// # Errors
/// Any error that keeps the clone from being complete. What exists of it then stays in staging.
pub fn clone_tree(
    (live, live_path): (BorrowedFd, &Path),
    stage: &CloneTarget,
    knowledge: CloneContext,
) -> Result<(CloneOutcome, IndexDraft)> {
    let failed = |cause| Error::io("make the staging directory for", live_path, cause);
    if !stage.is_recycled {
        mkdirat(stage.parent, stage.name, Mode::S_IRWXU).map_err(failed)?;
    }
    let staged = open_directory(stage.parent, stage.name).map_err(failed)?;
    let directory = DirectoryToClone {
        is_new: !stage.is_recycled,
        newest: knowledge.newest.map(DirectoryIndex::root),
        retired: knowledge.retired.filter(|_| stage.is_recycled).map(DirectoryIndex::root),
    };
    let subtree = SubtreeToClone {
        live: DescentStart::root(live, live_path).map_err(failed)?,
        staged: DescentStart::root(staged, live_path).map_err(failed)?,
        name: None,
        directory,
        depth: 0,
        part: 0,
    };
    let shared = CloneShared {
        copier: Mutex::new(Copier::new(stage.drafts)),
        knowledge,
        staged_path: stage.parent_path.join(OsStr::from_bytes(stage.name.to_bytes())),
        index: IndexDraft::new(),
        drafts: stage.drafts,
    };
    let _phase = progress::begin("making the snapshot", knowledge.entries);
    let jobs = vec![CloneJob::Clone(subtree)];
    let results = Pool::run(pool::workers(knowledge.entries), jobs, |job, pool| match job {
        CloneJob::Clone(subtree) => clone_part(subtree, &shared, pool).inspect_err(|_| pool.stop()),
        CloneJob::Record(names) => {
            let new_bytes = record_batch(&names, knowledge.recording);
            Ok(CloneOutcome { new_bytes, ..CloneOutcome::default() })
        }
    });
    let mut cloned = CloneOutcome::default();
    for result in results {
        cloned.add(result?);
    }
    let copier = shared.copier.into_inner().unwrap_or_else(PoisonError::into_inner);
    cloned.attributes_lost += copier.attributes_lost;
    copier.finish().map_err(|cause| Error::io("clean up the copies for", live_path, cause))?;
    Ok((cloned, shared.index))
}

struct CloneShared<'a> {
    copier: Mutex<Copier<'a>>,
    knowledge: CloneContext<'a>,
    /// The path of the clone, for messages.
    staged_path: PathBuf,
    index: IndexDraft,
    drafts: BorrowedFd<'a>,
}

/// What a worker can do for another one.
enum CloneJob {
    Clone(SubtreeToClone),
    Record(LinkedNames),
}

/// `name` in both starts, or the starts themselves.
struct SubtreeToClone {
    live: DescentStart,
    staged: DescentStart,
    name: Option<CString>,
    directory: DirectoryToClone,
    /// Levels between the tree's root and this subtree's.
    depth: u32,
    /// Its part of the index.
    part: PartId,
}

/// What is known of a directory before it is visited.
#[derive(Default, Clone, Copy)]
struct DirectoryToClone {
    /// Whether the staged directory has just been made.
    is_new: bool,
    /// Its place in the index of the newest snapshot.
    newest: Option<RecordPosition>,
    /// Its place in the index of the retired snapshot.
    retired: Option<RecordPosition>,
}

fn clone_part(
    job: SubtreeToClone,
    shared: &CloneShared,
    pool: &Pool<CloneJob>,
) -> Result<CloneOutcome> {
    let descent = |start: DescentStart| {
        let path = start.root_path.clone();
        Descent::new(start).map_err(|cause| Error::io("open", &path, cause))
    };
    let mut clone = TreeCloner {
        live: descent(job.live)?,
        staged: descent(job.staged)?,
        shared,
        pool,
        newest: shared.knowledge.newest.map(DirectoryIndex::reader),
        retired: shared.knowledge.retired.map(DirectoryIndex::reader),
        comparer: DirectoryComparer::default(),
        listing: Listing::default(),
        part: IndexPart::new(&shared.index, shared.drafts, job.part),
        depth: job.depth,
        frames: FrameStack::new(usize::from(job.name.is_some())),
        cloned: CloneOutcome::default(),
        copies_files: false,
        recorder: Recorder::new(shared.knowledge.recording),
    };
    match job.name {
        Some(name) => clone.enter(&name, job.directory)?,
        None => {
            let now = now_ns();
            let stat = clone.live.directory().and_then(fstat);
            let stat = stat.map_err(|cause| clone.live.error("inspect", None, cause))?;
            if let Ok(staged) = clone.staged.directory()
                && rename_keeps_times(staged.as_fd())
                && let Ok(own) = fstat(&staged)
            {
                clone.note_other_change(job.directory, &own);
            }
            clone.fill_directory(c"", &stat, now, job.directory)?;
        }
    }
    clone.run()?;
    clone.recorder.flush(0);
    clone.cloned.new_bytes = clone.recorder.new_bytes;
    clone.part.finish();
    Ok(clone.cloned)
}

struct TreeCloner<'a, 's> {
    live: Descent,
    staged: Descent,
    shared: &'a CloneShared<'s>,
    pool: &'a Pool<CloneJob>,
    /// The index that the comparison used.
    newest: Option<IndexReader<'a>>,
    /// The index of the snapshot that is recycled.
    retired: Option<IndexReader<'a>>,
    comparer: DirectoryComparer,
    listing: Listing,
    part: IndexPart<'a>,
    /// How many levels below the tree's root the first frame is.
    depth: u32,
    frames: FrameStack<CloneFrame>,
    cloned: CloneOutcome,
    /// Whether the current directory is a partial directory, in which files are copied.
    copies_files: bool,
    recorder: Recorder<'a>,
}

impl TreeCloner<'_, '_> {
    /// Notes it if another program has changed the entries of a directory of the recycled snapshot,
    /// whose state is `own`.
    pub(crate) fn note_other_change(&mut self, directory: DirectoryToClone, own: &FileStat) {
        let place = self.retired.as_ref().zip(directory.retired);
        let record = place.and_then(|(index, at)| index.record(at));
        let own = Stamp::of(own);
        if record.is_some_and(|record| record.entries_by_time(own) == EntriesByTime::Changed) {
            let last = &mut self.cloned.last_other_change_ns;
            *last = (*last).max(Some(own.ctime_ns));
        }
    }

    /// The failure to link or copy the live entry `name` to the current staged directory.
    fn pair_error(&self, operation: &'static str, name: &CStr, cause: Errno) -> Error {
        let from = self.live.path(Some(name));
        let to = self.staged.relative_path(Some(name));
        let to = self.shared.staged_path.join(OsStr::from_bytes(&to));
        Error::io_pair(operation, Path::new(OsStr::from_bytes(&from)), &to, cause)
    }
}

/// A directory whose subdirectories are being cloned.
struct CloneFrame {
    directory: DirectoryToClone,
    /// Its record in the new index, which is added when the directory is finished.
    record: IndexRecord,
    /// Whether it is unchanged, so that its subdirectories were taken from the retired snapshot's
    /// index.
    is_kept: bool,
    pending: PendingChildren<DirectoryToClone>,
    /// Parts of the index that belong here, before those of the pending subdirectories.
    given: Vec<PartId>,
    /// None if the staged directory has its attributes already.
    unfinished: Option<DirectoryToFinish>,
}

impl Frame for CloneFrame {
    type Directory = DirectoryToClone;

    fn pending(&self) -> &PendingChildren<DirectoryToClone> {
        &self.pending
    }

    fn pending_mut(&mut self) -> &mut PendingChildren<DirectoryToClone> {
        &mut self.pending
    }
}

/// A directory whose attributes are still to be applied.
struct DirectoryToFinish {
    stat: FileStat,
    /// Whether the attributes have to be applied without a comparison.
    is_touched: bool,
    /// Whether the live directory is known to have no extended attributes.
    has_no_xattrs: bool,
}
