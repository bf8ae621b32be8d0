//! What differs between the live tree and a snapshot: names and inode numbers from directory
//! reads, and the directories' own attributes. No file is opened, and few are even looked at.
//!
//! Equal name and equal inode number mean the same file, because a snapshot's entries *are* the
//! live ones. Along the way the live tree's [`Fingerprint`] is taken, which tells later whether
//! anything in it was touched. Several workers share the walk; what they found is added up.
//!
//! With the snapshot's [`DirectoryIndex`] a live directory that is as it was is neither read nor compared:
//! one call tells, and the snapshot's directory is not even opened. Every so often the index is put
//! to the proof instead: then everything is compared, and where it was wrong it is said so.

mod entry;
pub(crate) mod unfinished;
mod walk;

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::decide::fingerprint::Fingerprint;
use crate::engine::children::PendingChildren;
use crate::engine::compare::unfinished::UnfinishedSearch;
use crate::engine::copy::{CopiedPair, Copies, InodePair};
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::difference::DirectoryComparer;
use crate::engine::frames::{Frame, FrameStack};
use crate::engine::index::{DirectoryIndex, Ordinal};
use crate::engine::listing::Listing;
use crate::engine::pool::{self, Pool};
use crate::tell::error::{Error, Result};
use crate::tell::progress;

/// What a comparison found.
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
    /// Directories that the index wrongly called unchanged.
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

/// Differences that the snapshot's record explains.
#[derive(Debug, Default)]
pub struct ExplainedDifferences {
    copies: Copies,
    mounts: HashSet<Vec<u8>>,
    /// Which copies were found to be what their originals are, or not: one may have very many
    /// names.
    compared: Mutex<HashMap<InodePair, bool>>,
}

impl ExplainedDifferences {
    /// From what was recorded when the snapshot was made.
    pub fn new(copies: Copies, mounts: Vec<Vec<u8>>) -> Self {
        ExplainedDifferences {
            copies,
            mounts: mounts.into_iter().collect(),
            compared: Mutex::default(),
        }
    }

    /// Whether the one is a copy of the other, and still what that is.
    fn is_current_copy(&self, pair: CopiedPair) -> bool {
        let Some(copied) = self.copies.get(&pair.inodes) else { return false };
        let mut compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        *compared.entry(pair.inodes).or_insert_with(|| copied.is_current(pair))
    }

    /// Whether something was mounted over `name` when the snapshot was made. Whether it still is
    /// the caller has to ask.
    fn has_mount(&self, live: &Descent, name: &CStr) -> bool {
        !self.mounts.is_empty() && self.mounts.contains(&live.relative_path(Some(name)))
    }
}

/// A tree's root directory and its path for messages.
pub(crate) type TreeRoot<'a> = (BorrowedFd<'a>, &'a Path);

/// What is known of the snapshot that is compared with.
#[derive(Default)]
pub(crate) struct CompareContext<'a> {
    /// Differences that are none.
    pub known: ExplainedDifferences,
    /// Its index, if it has one. What was found unchanged is noted in it.
    pub index: Option<&'a DirectoryIndex>,
    /// Whether everything is compared all the same, to prove the index.
    pub is_proof: bool,
    /// About how many entries it has.
    pub entries: Option<u64>,
    /// What a failed push left unfinished is searched for along the way.
    pub unfinished: Option<&'a UnfinishedSearch>,
}

/// Compares `live` with `snapshot`, or with nothing.
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
        child: CompareChild {
            side: if snapshot.is_some() { PresentIn::Both } else { PresentIn::Live },
            indexed: knowledge.index.map(|_| 0),
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

/// A pair of subtrees to compare: `name` in both starts, or these themselves.
struct CompareJob {
    live: DescentStart,
    snapshot: DescentStart,
    name: Option<CString>,
    child: CompareChild,
}

/// What is known of a directory before it is visited.
#[derive(Clone, Copy)]
struct CompareChild {
    side: PresentIn,
    indexed: Option<Ordinal>,
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
        pool,
        comparer: DirectoryComparer::default(),
        listing: Listing::default(),
        frames: FrameStack::new(usize::from(job.name.is_some())),
        comparison: Comparison::default(),
    };
    match job.name {
        Some(name) => walk.enter(&name, job.child)?,
        None => walk.enter_root(job.child)?,
    }
    walk.run()?;
    Ok(walk.comparison)
}

struct CompareWalk<'a> {
    live: Descent,
    snapshot: Descent,
    knowledge: &'a CompareContext<'a>,
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
    child: CompareChild,
    /// Whether the subdirectories are those of the index, since nothing has changed.
    is_unchanged: bool,
    pending: PendingChildren<CompareChild>,
}

impl Frame for CompareFrame {
    type Child = CompareChild;

    fn pending(&self) -> &PendingChildren<CompareChild> {
        &self.pending
    }

    fn pending_mut(&mut self) -> &mut PendingChildren<CompareChild> {
        &mut self.pending
    }
}
