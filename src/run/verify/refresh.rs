//! Keeps the inode log complete and small. The caller holds the root's lock.
//!
//! Inodes without a baseline are recorded as they are found, and baselines of inodes that are in no
//! snapshot any more are dropped. Retired snapshots count: `undelete` can bring them back, and the
//! next snapshot is made out of one of them. The rewritten file replaces the old one by a rename,
//! and appended baselines count only after their commit. So a crash at any moment leaves a whole
//! log.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::engine::baseline::{BaselineOrigin, baseline_of};
use crate::engine::baseline_bytes::BLOCK_BYTES;
use crate::engine::inodes::{InodeName, walk};
use crate::module::target::Target;
use crate::store::dir::{Dir, c_name};
use crate::store::inode_log::compact::{KeptBaselines, rewrite, size_bytes};
use crate::store::inode_log::reader::InodeLog;
use crate::store::inode_log::recorder::Recorder;
use crate::store::layout::Subdir;
use crate::store::leftovers::unlisted;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf};
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::tell::error::Result;

/// The inode log may grow to twice its size and this much more before it is rewritten.
const GROWTH_BYTES: u64 = 16 << 20;

/// Counts of what was recorded as it was found.
pub(crate) struct FoundInodes {
    /// Inodes that had no baseline.
    pub recorded: u64,
    /// Directories that could not be read. The first is in the log.
    pub unreadable_directories: u64,
}

/// Records the inodes in `snapshot` that have no baseline.
pub(crate) fn record_missing(root: &SnapshotRoot, snapshot: &str) -> Result<FoundInodes> {
    let dir = root.subdir(Subdir::Inodes)?;
    let inode_log = InodeLog::read(dir.dir())?;
    let stale = HashSet::new();
    let mut missing = MissingBaselines::new(dir.dir(), inode_log.as_ref(), &stale)?;
    missing.record(root.snapshots().directory, root.snapshots().path, &c_name(snapshot));
    missing.finish()
}

/// Rewrites the inode log if it has grown by much since it was last rewritten. Of the first
/// snapshot of a root, all baselines are needed, and the log is left as it is.
pub(crate) fn compact_if_outgrown(target: &Target, root: &SnapshotRoot) -> Result<()> {
    let before = State::read(root.private())?.inode_log_bytes;
    let bytes = size_bytes(root.subdir(Subdir::Inodes)?.dir())?;
    if bytes <= 2 * before.unwrap_or(0) + GROWTH_BYTES {
        return Ok(());
    }
    let has_one_snapshot = || {
        let list = SnapshotList::read(root, &target.policy.time_zone)?;
        Ok(list.items.len() == 1 && retire::retired(root)?.is_empty())
    };
    if before.is_none() && has_one_snapshot()? {
        let remember = |state: &mut State| state.inode_log_bytes = Some(bytes);
        return State::update(root.private(), remember).map(drop);
    }
    refresh(target, root, &HashSet::new(), &HashSet::new())
}

/// Drops baselines of inodes that have gone or are `accepted`, and records inodes without a
/// baseline. An inode whose number is in `stale` is recorded, too: its baselines belong to an
/// earlier file of that number.
pub(crate) fn refresh(
    target: &Target,
    root: &SnapshotRoot,
    stale: &HashSet<u64>,
    accepted: &HashSet<u64>,
) -> Result<()> {
    let (dir, expired) = (root.subdir(Subdir::Inodes)?, OpenShelf::open(root, Shelf::Expired)?);
    let visible: Vec<String> = SnapshotList::read(root, &target.policy.time_zone)?
        .items
        .into_iter()
        .map(|item| item.name.text)
        .collect();
    let retired = retire::retired(root)?;
    // A snapshot that a listing lacks must keep its baselines.
    let is_listed = unlisted(root, &visible, &retired)?.is_empty();
    let here = visible.iter().map(|name| root.visible(name));
    let slots = here.chain(retired.iter().map(|name| expired.slot(name)));
    let linked = slots.filter(|slot| !slot.is_sealed(root));
    let trees: Vec<(BorrowedFd, &Path, CString)> =
        linked.map(|slot| (slot.dir.directory, slot.dir.path, slot.name)).collect();
    if let Some(inode_log) = InodeLog::read(dir.dir())? {
        let mut present = vec![false; inode_log.len()];
        let mut unreadable = 0;
        for (parent, path, name) in &trees {
            unreadable += walk(*parent, path, name, &mut |name: &InodeName| {
                for index in inode_log.find(name.inode) {
                    present[index] = true;
                }
            });
        }
        let names = visible.iter().chain(&retired);
        let oldest = names.map(|name| inode_log.position(name).unwrap_or(0)).min().unwrap_or(0);
        // An inode may be in a directory that could not be read, so its baseline stays.
        let is_present = |index: usize| present[index] || unreadable > 0 || !is_listed;
        let keep = |index: usize| is_present(index) && !accepted.contains(&inode_log.inode(index));
        rewrite(dir.dir(), &inode_log, KeptBaselines { keep: &keep, oldest })?;
    }
    let inode_log = InodeLog::read(dir.dir())?;
    let mut missing = MissingBaselines::new(dir.dir(), inode_log.as_ref(), stale)?;
    for (parent, path, name) in &trees {
        missing.record(*parent, path, name);
    }
    missing.finish()?;
    let bytes = size_bytes(dir.dir())?;
    State::update(root.private(), |state| state.inode_log_bytes = Some(bytes)).map(drop)
}

/// Records inodes that have no baseline.
struct MissingBaselines<'a> {
    recorder: Recorder,
    inode_log: Option<&'a InodeLog>,
    stale: &'a HashSet<u64>,
    met: HashSet<u64>,
    unreadable_directories: u64,
    bytes: Vec<u8>,
}

impl<'a> MissingBaselines<'a> {
    fn new(dir: Dir, inode_log: Option<&'a InodeLog>, stale: &'a HashSet<u64>) -> Result<Self> {
        // All commits stay: under the lock, only baselines without a commit are unfinished.
        let recorder = Recorder::open(dir, |_| true)?;
        Ok(MissingBaselines {
            recorder,
            inode_log,
            stale,
            met: HashSet::new(),
            unreadable_directories: 0,
            bytes: Vec::new(),
        })
    }

    fn record(&mut self, parent: BorrowedFd, path: &Path, tree: &CString) {
        self.unreadable_directories += walk(parent, path, tree, &mut |name: &InodeName| {
            let is_known =
                self.inode_log.is_some_and(|inode_log| !inode_log.find(name.inode).is_empty());
            if is_known && !self.stale.contains(&name.inode) || !self.met.insert(name.inode) {
                return;
            }
            if let Some(baseline) =
                baseline_of(name.directory, name.name, BaselineOrigin::Found, None)
            {
                baseline.write(&mut self.bytes);
            }
            if self.bytes.len() > BLOCK_BYTES {
                self.recorder.append_baselines(&std::mem::take(&mut self.bytes));
            }
        });
    }

    fn finish(self) -> Result<FoundInodes> {
        if !self.met.is_empty() {
            self.recorder.append_baselines(&self.bytes);
            self.recorder.commit_found()?;
        }
        Ok(FoundInodes {
            recorded: self.met.len() as u64,
            unreadable_directories: self.unreadable_directories,
        })
    }
}
