//! What differs between the live tree and a snapshot: names and inode numbers from directory reads,
//! and the directories' own attributes. No file is opened except for copies, and nothing is
//! changed.
//!
//! An equal name with an equal inode number means an unchanged file, because a snapshot's entries
//! are links to the live inodes. Of two trees of one btrfs subvolume, the change times have to be
//! equal, too: no program can set them, and a snapshot keeps them. Of two trees on CephFS, where
//! inode numbers say nothing, sizes and attributes have to be equal beside the times. Along the way
//! the comparison takes the live tree's [`Fingerprint`], which shows later whether anything in the
//! tree was touched. Several workers share the walk, and their results are added.
//!
//! With the snapshot's [`DirectoryIndex`], an unchanged live directory is neither read nor
//! compared: one call shows that it is unchanged, and the snapshot's directory is not opened. From
//! time to time everything is compared to check the index, and each error of the index is logged.

mod entry;
mod indexed;
mod older;
pub(crate) mod unfinished;
mod walk;

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::sys::stat::FileStat;

use crate::decide::clock_tick::STAMP_LAG_NS;
use crate::decide::fingerprint::Fingerprint;
use crate::engine::children::PendingChildren;
use crate::engine::compare::unfinished::UnfinishedSearch;
use crate::engine::copied::{CopiedPair, Copies, InodePair};
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::difference::DirectoryComparer;
use crate::engine::frames::{Frame, FrameStack};
use crate::engine::index::Stamp;
use crate::engine::index::block::RecordPosition;
use crate::engine::index::reader::{DirectoryIndex, IndexReader};
use crate::engine::listing::Listing;
use crate::engine::listing_cache::ListingCache;
use crate::engine::pool::{self, Pool};
use crate::engine::synced_files::SyncedFiles;
use crate::system::cephfs::OTHER_CLOCKS_NS;
use crate::system::identity::Twins;
use crate::tell::error::{Error, Result};
use crate::tell::progress;

/// Counts of what differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Of the live tree.
    pub fingerprint: Fingerprint,
    /// The newest change time of a live directory, in nanoseconds since 1970.
    pub newest_ctime_ns: i64,
    /// Entries that only the live tree has.
    pub added: u64,
    /// Entries of the same name that are other files, and directories with other attributes.
    pub changed: u64,
    /// Entries that only the snapshot has.
    pub removed: u64,
    /// Directories that the index called unchanged and that differ.
    pub index_errors: u64,
    /// Directories that had to be read, of either tree.
    pub directories_read: u64,
}

impl Comparison {
    /// Whether anything differs.
    pub fn differs(&self) -> bool {
        self.added + self.changed + self.removed > 0
    }

    fn add(&mut self, other: &Comparison) {
        self.fingerprint.directories += other.fingerprint.directories;
        self.fingerprint.entries += other.fingerprint.entries;
        // TOML holds no larger integers.
        self.fingerprint.ctime_sum =
            self.fingerprint.ctime_sum.wrapping_add(other.fingerprint.ctime_sum) & i64::MAX;
        self.newest_ctime_ns = self.newest_ctime_ns.max(other.newest_ctime_ns);
        self.added += other.added;
        self.changed += other.changed;
        self.removed += other.removed;
        self.index_errors += other.index_errors;
        self.directories_read += other.directories_read;
    }
}

/// Differences that the snapshot's record explains: copies, and what was mounted.
#[derive(Debug, Default)]
pub struct ExplainedDifferences {
    copies: Copies,
    mounts: HashSet<Vec<u8>>,
    /// Whether a copy equals its original, once that was compared: a copy may have very many
    /// names.
    compared: Mutex<HashMap<InodePair, bool>>,
}

impl ExplainedDifferences {
    /// From the snapshot's record.
    pub fn new(copies: Copies, mounts: Vec<Vec<u8>>) -> Self {
        ExplainedDifferences {
            copies,
            mounts: mounts.into_iter().collect(),
            compared: Mutex::default(),
        }
    }

    /// Whether the snapshot's entry is a copy of the live one, which has not changed since.
    fn is_current_copy(&self, pair: CopiedPair) -> bool {
        let Some(copied) = self.copies.get(&pair.inodes) else { return false };
        let mut compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        *compared.entry(pair.inodes).or_insert_with(|| copied.is_current(pair))
    }

    /// Whether something was mounted over `name` when the snapshot was made. The caller checks
    /// whether it still is.
    fn has_mount(&self, live: &Descent, name: &CStr) -> bool {
        !self.mounts.is_empty() && self.mounts.contains(&live.relative_path(Some(name)))
    }
}

/// A tree's root directory and its path for messages.
pub(crate) type TreeRoot<'a> = (BorrowedFd<'a>, &'a Path);

/// What is known before a comparison begins.
#[derive(Default)]
pub(crate) struct CompareContext<'a> {
    /// Differences that do not count.
    pub known: ExplainedDifferences,
    /// The snapshot's index, if it has one. The comparison notes in it which directories are
    /// unchanged.
    pub index: Option<&'a DirectoryIndex>,
    /// Whether every directory is compared, even one that the index calls unchanged: the comparison
    /// then checks the index.
    pub is_index_check: bool,
    /// About how many entries the snapshot has.
    pub entries: Option<u64>,
    /// The search for directories that a failed push left unfinished, if there was one.
    pub unfinished: Option<&'a UnfinishedSearch>,
    /// Where the live directories that are read are cached for the clone.
    pub cache: Option<&'a ListingCache>,
    /// What shows that a file of the live tree is that of the snapshot.
    pub twins: Twins,
    /// Makes durable what is new in the live tree, if the snapshot that will be made needs that.
    pub new_files: Option<&'a SyncedFiles>,
    /// When the snapshot began to be made, nanoseconds since 1970. An equal change time proves
    /// nothing from then on: the file may have been written to while the snapshot was made. None if
    /// that is not known, as of a snapshot of another program; then it proves that all the same.
    pub frozen_ns: Option<i64>,
    /// Whether what has changed before that is taken for the same without a look at the snapshot.
    /// If the clock was set back since, that is wrong: then the counts are too low.
    pub trusts_clock: bool,
}

impl CompareContext<'_> {
    /// Whether the change times of files tell whether they changed.
    fn has_change_times(&self) -> bool {
        self.twins != Twins::Linked
    }

    /// Whether two trees that do not share inodes certainly have the same file at a name.
    fn is_untouched(&self, live: &FileStat, snapshot: &FileStat) -> bool {
        let settled_ns = self.frozen_ns.map_or(i64::MAX, |ns| ns - STAMP_LAG_NS);
        Stamp::of(live).ctime_ns < settled_ns && self.twins.are_untouched(live, snapshot)
    }

    /// Whether the snapshot has the same as the live tree at the name where that has `live`, by the
    /// clock alone. A name that came or went changed its directory.
    fn is_older(&self, live: &FileStat) -> bool {
        let lag_ns = match self.twins {
            Twins::OfCephFs => OTHER_CLOCKS_NS,
            Twins::Linked | Twins::OfSubvolumes => STAMP_LAG_NS,
        };
        let is_before = |ns| Stamp::of(live).ctime_ns < ns - lag_ns;
        self.has_change_times() && self.trusts_clock && self.frozen_ns.is_some_and(is_before)
    }
}

/// Compares `live` with `snapshot`; without one, all entries count as added.
pub(crate) fn compare_trees(
    live: TreeRoot,
    snapshot: Option<TreeRoot>,
    knowledge: &CompareContext,
) -> Result<Comparison> {
    let start = |(root, path): TreeRoot| {
        DescentStart::root(root, path).map_err(|cause| Error::io("open", path, cause))
    };
    let job = CompareJob {
        live: start(live)?,
        snapshot: start(snapshot.unwrap_or(live))?,
        name: None,
        directory: DirectoryToCompare {
            side: if snapshot.is_some() { PresentIn::Both } else { PresentIn::Live },
            is_replaced: false,
            indexed: knowledge.index.map(DirectoryIndex::root),
        },
    };
    let _phase = progress::begin("comparing", knowledge.entries);
    let parts = Pool::run(pool::workers(knowledge.entries), vec![job], |job, pool| {
        compare_part(job, knowledge, pool).inspect_err(|_| pool.stop())
    });
    let mut comparison = Comparison::default();
    for part in parts {
        comparison.add(&part?);
    }
    Ok(comparison)
}

/// A pair of subtrees to compare: `name` in both starts, or the starts themselves.
struct CompareJob {
    live: DescentStart,
    snapshot: DescentStart,
    name: Option<CString>,
    directory: DirectoryToCompare,
}

/// What is known of a directory before it is visited.
#[derive(Clone, Copy)]
struct DirectoryToCompare {
    side: PresentIn,
    /// Its place in the index of the snapshot.
    indexed: Option<RecordPosition>,
    /// Whether it, or a directory above it, is another one than the snapshot has at that name: a
    /// rename changes the time of the directory that moves, and of nothing in it. So no time in it
    /// tells whether the snapshot has the same.
    is_replaced: bool,
}

fn compare_part(
    job: CompareJob,
    knowledge: &CompareContext,
    pool: &Pool<CompareJob>,
) -> Result<Comparison> {
    let descent = |start: DescentStart| {
        let path = start.root_path.clone();
        Descent::new(start).map_err(|cause| Error::io("open", &path, cause))
    };
    let mut walk = CompareWalk {
        live: descent(job.live)?,
        snapshot: descent(job.snapshot)?,
        knowledge,
        index: knowledge.index.map(DirectoryIndex::reader),
        pool,
        comparer: DirectoryComparer::default(),
        listing: Listing::default(),
        frames: FrameStack::new(usize::from(job.name.is_some())),
        comparison: Comparison::default(),
    };
    // All names are told then, those of equal inode numbers, too.
    walk.comparer.are_apart = knowledge.has_change_times();
    match job.name {
        Some(name) => walk.enter(&name, job.directory)?,
        None => walk.enter_root(job.directory)?,
    }
    walk.run()?;
    Ok(walk.comparison)
}

struct CompareWalk<'a> {
    live: Descent,
    snapshot: Descent,
    knowledge: &'a CompareContext<'a>,
    /// Of the snapshot, if it has one.
    index: Option<IndexReader<'a>>,
    pool: &'a Pool<CompareJob>,
    comparer: DirectoryComparer,
    listing: Listing,
    frames: FrameStack<CompareFrame>,
    comparison: Comparison,
}

/// Which trees have a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PresentIn {
    Both,
    Live,
    Snapshot,
}

struct CompareFrame {
    directory: DirectoryToCompare,
    /// Whether nothing has changed, so that the subdirectories were taken from the index.
    is_unchanged: bool,
    pending: PendingChildren<DirectoryToCompare>,
}

impl Frame for CompareFrame {
    type Directory = DirectoryToCompare;

    fn pending(&self) -> &PendingChildren<DirectoryToCompare> {
        &self.pending
    }

    fn pending_mut(&mut self) -> &mut PendingChildren<DirectoryToCompare> {
        &mut self.pending
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::path::Path;
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;
    use crate::engine::index::now_ns;

    fn make(top: &Path) {
        for (directory, text) in [("A", "one"), ("B", "two")] {
            let below = top.join("p").join(directory).join("sub");
            fs::create_dir_all(&below).expect("a directory");
            fs::write(below.join("y"), text).expect("a file");
        }
    }

    /// How many files and directories differ, if the clock is trusted that the snapshot was made
    /// at `frozen_ns`.
    fn changed(live: &Path, snapshot: &Path, frozen_ns: i64) -> u64 {
        let (live_top, snapshot_top) =
            (File::open(live).expect("open"), File::open(snapshot).expect("open"));
        let context = CompareContext {
            twins: Twins::OfCephFs,
            frozen_ns: Some(frozen_ns),
            trusts_clock: true,
            ..CompareContext::default()
        };
        let trees = ((live_top.as_fd(), live), (snapshot_top.as_fd(), snapshot));
        compare_trees(trees.0, Some(trees.1), &context).expect("compared").changed
    }

    #[test]
    fn what_moved_with_a_directory_is_compared_although_its_own_times_are_old() {
        let scratch = tempfile::tempdir().expect("a directory");
        let (live, snapshot) = (scratch.path().join("live"), scratch.path().join("snapshot"));
        make(&live);
        make(&snapshot);
        sleep(Duration::from_millis(50));
        let frozen_ns = now_ns() + OTHER_CLOCKS_NS;
        sleep(Duration::from_millis(50));
        assert_eq!(changed(&live, &snapshot, frozen_ns), 0, "the clock is trusted");
        let at = |name: &str| live.join("p").join(name);
        for (from, to) in [("A", "t"), ("B", "A"), ("t", "B")] {
            fs::rename(at(from), at(to)).expect("renamed");
        }
        assert!(changed(&live, &snapshot, frozen_ns) >= 2, "both files are others now");
    }
}
