//! Runs over a module of which a snapshot can be made at one instant.
//!
//! Close the gate → ask whether anything has changed at all → make the snapshot in staging → read
//! the state and the client's word → open the gate → compare the snapshot with the newest one →
//! publish it, or remove it.
//!
//! The gate is closed for that instant only, and what is compared, judged and published is one tree
//! that nothing changes any more. The state is read before the gate opens: a push that begins
//! afterwards cannot have touched this tree, however it ends. Where a snapshot that turns out to be
//! equal could be removed only file by file, the module itself is compared first, behind the closed
//! gate. So it is on CephFS: the module is warm in the client's cache, a new snapshot of it is not,
//! and ceph-fuse has to be told file by file to write what is new.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::unistd::syncfs;

use crate::decide::clock_tick::TICK_NS;
use crate::decide::grade::Grade;
use crate::decide::verdict_facts::ClientCompletion;
use crate::run::attempt::{FrozenModule, Observation, SnapshotAttempt};
use crate::run::report::Report;
use crate::run::rotate::{self, SpaceNeed};
use crate::store::frozen_tree::FrozenTree;
use crate::store::leftovers::discard_staging;
use crate::store::snapshot_method::SnapshotMethod;
use crate::store::snapshots::ListedSnapshot;
use crate::store::state::State;
use crate::system::btrfs::Subvolume;
use crate::system::mounts::Mounts;
use crate::system::syscalls::open_directory;
use crate::tell::error::Result;

impl SnapshotAttempt<'_> {
    /// The newest snapshot of at least `grade` that the module can be compared with: of two trees
    /// that were made in different ways, no file is the same.
    pub(crate) fn newest_alike(&self, grade: Grade) -> Option<&ListedSnapshot> {
        let root = self.session.root;
        let is_alike = |item: &&ListedSnapshot| {
            root.visible(&item.name.text).is_sealed(root) == root.method().is_instant()
        };
        self.list.newest(grade, self.now).filter(is_alike)
    }

    /// Ends the attempt without a snapshot if the file system itself says that nothing has changed
    /// since the newest complete one. Returns whether it has.
    pub(crate) fn end_if_surely_unchanged(&self, report: &mut Report) -> Result<bool> {
        if !self.session.root.method().is_instant() {
            return Ok(false);
        }
        let Some(newest) = self.newest_alike(Grade::Complete) else { return Ok(false) };
        let Some(observation) = self.unchanged_since(newest) else { return Ok(false) };
        let verdict = self.judge(&observation);
        if verdict.snapshot.is_some() {
            return Ok(false);
        }
        self.keep_current(Some(newest), &observation, &verdict)?;
        self.end_without_snapshot(&verdict.because, report);
        let equal = report.snapshot.as_deref();
        self.remember(&observation, &verdict, equal, || self.sync_names())?;
        Ok(true)
    }

    /// What a comparison with `newest` would see, if nothing in the module has changed since that
    /// snapshot was made. Where a failed push may have left something unfinished, or no run has
    /// seen the tree, only a comparison tells.
    fn unchanged_since(&self, newest: &ListedSnapshot) -> Option<Observation> {
        let root = self.session.root;
        let last = self.before.last_run.as_ref().filter(|_| self.before.torn.is_none())?;
        // A write to a file that is there changes the number only once it is on its way to the
        // disk.
        syncfs(root.directory()).ok()?;
        let slot = root.visible(&newest.name.text);
        let snapshot = open_directory(slot.dir.directory, &slot.name).ok()?;
        let snapshot = Subvolume::of(snapshot.as_fd()).ok()??;
        snapshot.equals(&root.subvolume()?).then(|| Observation {
            // If the last run could not keep one, neither does this one.
            fingerprint: last.fingerprint.unwrap_or_default(),
            newest_ctime_ns: i64::MAX,
            unfinished: Vec::new(),
            ended: self.session.clock.exact_now(),
            is_settled: last.fingerprint.is_some(),
            unchanged_since: Some(last.scan_began.clone()),
            differs_from_complete: Some(false),
            differs_from_newest: Some(false),
        })
    }

    /// [`freeze`](Self::freeze) before the comparison, if that is worth it.
    pub(crate) fn freeze_to_compare(&self) -> Result<()> {
        let root = self.session.root;
        let can_discard =
            || Mounts::read().is_some_and(|mounts| mounts.may_remove_subvolumes(&root.path));
        match root.method() {
            SnapshotMethod::Subvolumes if can_discard() => self.freeze(),
            // What is new has to be found, and synced, before a snapshot of CephFS is made.
            _ => Ok(()),
        }
    }

    /// Makes the snapshot in staging, if the method does that at one instant and it is not made
    /// yet, and opens the gate.
    pub(crate) fn freeze(&self) -> Result<()> {
        let root = self.session.root;
        if !root.method().is_instant() || self.frozen.get().is_some() {
            return Ok(());
        }
        let tree = match FrozenTree::make(root) {
            Err(error) if error.is_snapshot_limit() => {
                // Retired snapshots count, too. Those within a grace that the policy sets stay.
                rotate::free_retired(self.session, SpaceNeed::FullDisk)?;
                FrozenTree::make(root).map_err(|_| error)?
            }
            made => made?,
        };
        let completion = ClientCompletion::of_module(tree.directory.as_fd());
        let completion = self.completion.worse(completion);
        let state = State::read(root.private())?;
        let _ = self.frozen.set(FrozenModule { tree, state, completion });
        // A change after this gets another change time than the last one in the snapshot.
        sleep(Duration::from_nanos(TICK_NS.unsigned_abs()));
        drop(self.gate.take());
        Ok(())
    }

    /// The tree that is compared and judged: the module, or what was made of it in an instant.
    pub(crate) fn tree_to_read(&self) -> Result<(BorrowedFd<'_>, &Path)> {
        match self.frozen.get() {
            Some(FrozenModule { tree, .. }) => Ok((tree.directory.as_fd(), &tree.path)),
            None => {
                let root = self.session.root;
                Ok((root.module()?, root.module_path.as_path()))
            }
        }
    }

    /// Removes the snapshot in staging that is not needed.
    pub(crate) fn discard_frozen(&self) {
        if self.frozen.get().is_some() {
            discard_staging(self.session.root);
        }
    }
}
