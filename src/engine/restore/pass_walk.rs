//! The state of one pass of a restore: the open directories of both sides, and the counts,
//! conflicts and errors that were found so far.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::decide::restore_step::{EntryDifference, RestoreObstacle, RestoreStep};
use crate::engine::copied::mtime_ns;
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::restore::compare::{Depth, state_of};
use crate::engine::restore::links::LinkGroups;
use crate::engine::restore::outcome::{PassOutcome, RestoreConflict};
use crate::engine::restore::write::EntryWriter;
use crate::system::identity::Identity;
use crate::system::syscalls::stat_entry;
use crate::tell::error::Error;
use crate::tell::escape::escape;
use crate::tell::progress;

/// A selected path and where it lands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacedPath {
    /// The names from the snapshot's own directory on.
    pub source: Vec<CString>,
    /// The names from the destination on; none if the content of the selected directory lands in
    /// the destination itself.
    pub target: Vec<CString>,
}

/// What a pass does.
pub(crate) enum RestorePass<'p, 'w> {
    /// Finds what is in the way, and files that are hard links of each other.
    Plan,
    /// The same, and compares contents where only they can differ.
    DryRun,
    /// Makes and replaces entries.
    Write(&'p mut EntryWriter<'w>),
    /// Compares everything.
    Verify(Depth),
}

/// Called with each step that is taken, or would be, and the path in the snapshot.
pub(crate) type OnStep<'a> = &'a mut dyn FnMut(RestoreStep, &[u8]);

/// A snapshot, a destination, and what the passes learn about them.
pub(crate) struct TreeRestore<'a> {
    /// The snapshot's own directory.
    pub source: DescentStart,
    /// None in a dry run if the directory does not exist.
    pub destination: Option<DescentStart>,
    pub paths: &'a [PlacedPath],
    /// Directories that nothing is restored into.
    pub closed: Vec<Identity>,
    pub overwrites: bool,
    /// Whether the destination is the module, whose files are links of those in the snapshot.
    pub is_in_place: bool,
    pub links: LinkGroups,
    /// Paths in the snapshot that could not be restored.
    pub failed: HashSet<Vec<u8>>,
    pub hasher: RandomState,
}

/// A directory of the snapshot that the walk is in.
pub(crate) struct Level {
    /// Its state when the walk entered it.
    pub stat: FileStat,
    pub place: LevelPlace,
}

/// A directory of the snapshot at the destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LevelPlace {
    /// The descent at the destination is in it. Its attributes become those of the snapshot.
    There,
    /// The same, but its attributes stay as they are: it only leads to a selected path.
    LeadsThrough,
    /// It is missing, and so is all below it.
    Missing,
}

/// One pass, on its way.
pub(crate) struct PassWalk<'r, 'a, 'p, 'w, 's> {
    pub restore: &'r mut TreeRestore<'a>,
    pub pass: RestorePass<'p, 'w>,
    pub levels: Vec<Level>,
    pub destination: Option<Descent>,
    pub on_step: OnStep<'s>,
    pub outcome: PassOutcome,
}

impl PassWalk<'_, '_, '_, '_, '_> {
    /// Notes an entry of the snapshot.
    pub(crate) fn note(&mut self, name: &CStr, stat: &FileStat) {
        progress::add(1);
        self.outcome.entries += 1;
        // The change time and the number of links change with each new snapshot.
        let size = if state_of(stat).is_directory() { 0 } else { stat.st_size };
        let seen = (name, Identity::of(stat).inode, stat.st_mode, size, mtime_ns(stat));
        let hash = self.restore.hasher.hash_one(seen);
        self.outcome.digest = self.outcome.digest.wrapping_add(hash);
    }

    pub(crate) fn fail(&mut self, error: Error) {
        self.outcome.is_out_of_space |= error.is_lack_of_space();
        if matches!(self.pass, RestorePass::Write(_)) {
            log::debug!("{error}");
        }
        self.outcome.errors.note(error);
    }

    /// Notes the failure of `operation` on `name` in the current directory of the destination, or
    /// on that directory, and that its counterpart in the snapshot, at `path`, is not restored.
    pub(crate) fn fail_at_target(
        &mut self,
        path: Vec<u8>,
        name: Option<&CStr>,
        operation: &'static str,
        cause: Errno,
    ) -> ControlFlow<()> {
        let target = self.target_path(name).unwrap_or_else(|| path.clone());
        self.restore.failed.insert(path);
        self.fail(Error::io_bytes(operation, &target, cause));
        if self.outcome.is_out_of_space {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    pub(crate) fn refuse(&mut self, path: Vec<u8>, obstacle: RestoreObstacle) {
        (self.on_step)(RestoreStep::Refuse(obstacle), &path);
        self.restore.failed.insert(path.clone());
        self.outcome.conflicts.note(RestoreConflict { path, obstacle });
    }

    pub(crate) fn mismatch(
        &mut self,
        path: Vec<u8>,
        name: Option<&CStr>,
        difference: EntryDifference,
    ) {
        let path = escape(&self.target_path(name).unwrap_or(path));
        self.fail(Error::NotAsInSnapshot { path, difference: difference.to_string() });
    }

    /// The path of `name` in the current directory of the destination, or of that directory.
    pub(crate) fn target_path(&self, name: Option<&CStr>) -> Option<Vec<u8>> {
        self.destination.as_ref().filter(|_| !self.is_missing()).map(|it| it.path(name))
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.destination.is_none()
            || self.levels.last().is_some_and(|level| level.place == LevelPlace::Missing)
    }

    /// The state of `name` at the destination; none if there is nothing.
    pub(crate) fn target_stat(&mut self, name: &CStr) -> Result<Option<FileStat>, Errno> {
        if self.is_missing() {
            return Ok(None);
        }
        let Some(destination) = &mut self.destination else { return Ok(None) };
        match stat_entry(destination.lookup_directory()?.as_fd(), name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    pub(crate) fn tell(&mut self, step: RestoreStep, path: impl FnOnce() -> Vec<u8>) {
        if matches!(self.pass, RestorePass::DryRun) {
            (self.on_step)(step, &path());
        }
    }

    /// Whether the writing pass has failed on this entry, so that there is nothing to verify.
    pub(crate) fn has_failed(&self, path: &[u8]) -> bool {
        !self.restore.failed.is_empty() && self.restore.failed.contains(path)
    }
}
