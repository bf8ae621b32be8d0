//! How the snapshots of a root are made. To add another way than hard links, change this file.
//!
//! A method is asked for five things: to compare the module with a snapshot, to build a snapshot in
//! staging, and to publish, retire and remove one. Each moves or changes one whole tree. The order
//! of these steps, the syncs between them, records, state, ledger and all decisions are the same
//! for each method and do not depend on it: see [`publish`](crate::store::publish) and
//! [`retire`](crate::store::retire).

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::engine::clone::{CloneContext, CloneOutcome, CloneTarget, clone_tree};
use crate::engine::compare::{CompareContext, Comparison, TreeRoot, compare_trees};
use crate::engine::index::draft::IndexDraft;
use crate::engine::remove::{Remains, remove_trees};
use crate::store::dir::Dir;
use crate::system::identity::SysResult;
use crate::system::syscalls::rename_no_replace;
use crate::tell::error::Result;

/// A way to make snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotMethod {
    /// A directory of its own for each directory of the module, with a hard link to each file.
    HardLinks,
}

impl SnapshotMethod {
    /// How the module at `live` differs from `snapshot`; if that is `None`, every entry counts as
    /// new.
    ///
    /// # Errors
    /// If a directory of either cannot be read.
    pub(crate) fn compare(
        self,
        live: TreeRoot,
        snapshot: Option<TreeRoot>,
        context: &CompareContext,
    ) -> Result<Comparison> {
        match self {
            SnapshotMethod::HardLinks => compare_trees(live, snapshot, context),
        }
    }

    /// Builds a snapshot of the module at `live` in `target`, which is in staging.
    ///
    /// # Errors
    /// If the snapshot could not be completed. What exists of it stays in staging.
    pub(crate) fn create(
        self,
        live: (BorrowedFd, &Path),
        target: &CloneTarget,
        context: CloneContext,
    ) -> Result<(CloneOutcome, IndexDraft)> {
        match self {
            SnapshotMethod::HardLinks => clone_tree(live, target, context),
        }
    }

    /// Makes a snapshot out of what was built as `staged` in `staging`, in one step, without
    /// replacing anything.
    ///
    /// # Errors
    /// `EEXIST` if `name` is taken.
    pub(crate) fn publish(
        self,
        (staging, staged): (Dir, &CStr),
        (root, name): (BorrowedFd, &CStr),
    ) -> SysResult<()> {
        match self {
            SnapshotMethod::HardLinks => rename_no_replace(staging.directory, staged, root, name),
        }
    }

    /// Moves the whole snapshot `name` from one directory of ours to another: out of sight, back
    /// again, or to where it is removed or recycled.
    ///
    /// # Errors
    /// `EEXIST` if its `new_name` is taken, `ENOENT` if it is gone.
    pub(crate) fn retire(
        self,
        (from, name): (BorrowedFd, &CStr),
        (to, new_name): (BorrowedFd, &CStr),
    ) -> SysResult<()> {
        match self {
            SnapshotMethod::HardLinks => rename_no_replace(from, name, to, new_name),
        }
    }

    /// Removes the trees `names` in `parent`. Returns the number of removed entries, and what
    /// remains.
    ///
    /// # Errors
    /// If `parent` cannot be opened.
    pub(crate) fn remove(self, parent: Dir, names: &[CString]) -> Result<(u64, Vec<Remains>)> {
        match self {
            SnapshotMethod::HardLinks => remove_trees(parent.directory, parent.path, names),
        }
    }
}
