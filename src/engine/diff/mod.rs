//! In which entries two trees differ: two snapshots of a module, or a snapshot and the module.
//!
//! Both trees are walked side by side. A name that leads to the same inode in both is unchanged,
//! and is not looked at: the directories list the inode numbers, and a snapshot's files are links
//! of the module's. Only names of two inodes are inspected, and content is read only where two
//! files are of equal size. So the time depends on the number of directories and on what changed.
//! A directory that the [indexes](crate::engine::index) of both trees call unchanged is not even
//! read ([`unchanged`]).
//!
//! A file that was changed in place is one inode in both trees, and does not differ; the inode log
//! is what shows it.
//!
//! A directory is read as a whole before any entry of it is reported, first its other entries, then
//! its subdirectories, each in the order of their names. A directory that differs in more entries
//! than [`MOST_AT_ONCE`] is reported in several parts, so memory is bounded.
//!
//! Nothing is changed. The trees are those of a client, who may change the module meanwhile: an
//! entry that has gone counts as not there, one that became something else as changed. What cannot
//! be read is reported, and the walk goes on.

mod entry;
pub(crate) mod indexes;
mod unchanged;
mod walk;

use std::ops::ControlFlow;
use std::os::fd::AsFd;

use crate::decide::entry_changes::EntryChange;
use crate::decide::path_patterns::{PathPatterns, PatternReach};
use crate::decide::restore_step::EntryState;
use crate::engine::children::PendingChildren;
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::diff::indexes::{DiffIndexes, IndexPlaces, IndexReaders};
use crate::engine::difference::DirectoryComparer;
use crate::engine::frames::{Frame, FrameStack};
use crate::engine::listing::Listing;
use crate::system::btrfs::Subvolume;
use crate::system::cephfs::{self, OTHER_CLOCKS_NS};
use crate::system::identity::SysResult;
use crate::system::identity::Twins;
use crate::tell::error::Error;
use crate::tell::progress::LongWork;

/// How many entries of a directory that differ are sorted at once.
pub(crate) const MOST_AT_ONCE: usize = 32_768;

/// Making a snapshot of a subvolume takes less time than this, once what was written before is on
/// its way to the disk.
const LONGEST_MAKING_NS: i64 = 10_000_000_000;

/// How an entry differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TreeDifference {
    /// Only the new tree has it. Its state is known if the report wants states.
    Added(Option<EntryState>),
    /// Only the old tree has it.
    Removed(Option<EntryState>),
    Changed {
        old: EntryState,
        new: EntryState,
        what: Vec<EntryChange>,
    },
}

/// Takes what a walk finds.
pub(crate) trait DiffReport {
    /// Whether states of entries that only one tree has are needed.
    fn wants_states(&self) -> bool;

    /// The entry at `path` differs. `Break` ends the walk.
    fn differs(
        &mut self,
        path: &[u8],
        is_directory: bool,
        difference: &TreeDifference,
    ) -> ControlFlow<()>;

    /// Something could not be compared.
    fn unread(&mut self, error: Error);
}

/// Reports how `new` differs from `old` in what `patterns` mean.
pub(crate) fn report_differences(
    old: DescentStart,
    new: DescentStart,
    indexes: Option<DiffIndexes>,
    twins: Twins,
    patterns: &PathPatterns,
    report: &mut dyn DiffReport,
) -> SysResult<()> {
    let (mut old, mut new) = (Descent::new(old)?, Descent::new(new)?);
    // On two file systems, an equal inode number means nothing.
    let indexes = indexes.filter(|_| old.device() == new.device());
    let mut comparer = DirectoryComparer::default();
    comparer.are_apart = old.device() != new.device() || twins == Twins::OfCephFs;
    let settled_ns = settled_ns([&mut old, &mut new], twins);
    let mut walk = DiffWalk {
        old,
        new,
        indexes: indexes.map(IndexReaders::new),
        twins,
        patterns,
        report,
        comparer,
        settled_ns,
        listing: Listing::default(),
        frames: FrameStack::new(0),
        work: LongWork::begin("comparing"),
    };
    // A report that has ended the walk knows that.
    let _ = walk.run();
    Ok(())
}

/// Change times before this, nanoseconds since 1970, prove that a file of two subvolumes, or of two
/// trees on CephFS, has not changed: it was not written to while one of them was made.
fn settled_ns(trees: [&mut Descent; 2], twins: Twins) -> i64 {
    if twins == Twins::OfCephFs {
        let made = trees.map(|tree| cephfs::snapshot_made_ns(tree.directory().ok()?.as_fd()));
        // The module itself was not made at one moment.
        let first = made.into_iter().flatten().min();
        return first.map_or(i64::MIN, |first| first.saturating_sub(OTHER_CLOCKS_NS));
    }
    let made = trees.map(|tree| {
        let root = tree.directory().ok()?;
        Some(Subvolume::of(root.as_fd()).ok()??.made_ns)
    });
    let [Some(one), Some(other)] = made else { return i64::MIN };
    one.min(other).saturating_sub(LONGEST_MAKING_NS)
}

/// Which trees have a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Both,
    Old,
    New,
}

/// A directory that the walk is going to enter.
#[derive(Clone, Copy)]
struct DirectoryToDiff {
    side: Side,
    /// Whether the other tree has another kind of entry of that name.
    is_replaced: bool,
    places: IndexPlaces,
}

struct DiffFrame {
    side: Side,
    reach: PatternReach,
    places: IndexPlaces,
    /// Whether its subdirectories are those of the index.
    is_unchanged: bool,
    pending: PendingChildren<DirectoryToDiff>,
}

impl Frame for DiffFrame {
    type Directory = DirectoryToDiff;

    fn pending(&self) -> &PendingChildren<DirectoryToDiff> {
        &self.pending
    }

    fn pending_mut(&mut self) -> &mut PendingChildren<DirectoryToDiff> {
        &mut self.pending
    }
}

struct DiffWalk<'a> {
    old: Descent,
    new: Descent,
    indexes: Option<IndexReaders<'a>>,
    patterns: &'a PathPatterns,
    report: &'a mut dyn DiffReport,
    comparer: DirectoryComparer,
    /// What shows that a file is the same in both.
    twins: Twins,
    /// See [`settled_ns`].
    settled_ns: i64,
    listing: Listing,
    frames: FrameStack<DiffFrame>,
    work: LongWork,
}
