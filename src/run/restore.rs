//! Restores out of a snapshot: the order of the steps, for a directory that the administrator
//! names.
//!
//! Lease → plan → staging directory → write → remove the staging directory → sync → verify → is the
//! snapshot still the same?
//!
//! * Before the plan has been made to its end, nothing is written. If it finds anything in the way,
//!   nothing is.
//! * Each entry gets its name in one step, so the destination has the old one or the new one at
//!   whatever instant the process dies. What is as in the snapshot already is left alone, so the
//!   same restore can be repeated until it ends well.
//! * The verification follows the sync, so it reads what is on the disk.

use std::collections::HashSet;
use std::fs::File;
use std::hash::RandomState;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::stat::{fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::syncfs;

use crate::decide::comparison_gap::ComparisonGap;
use crate::decide::restore_paths::RestorePath;
use crate::decide::restore_step::{RestoreObstacle, RestoreStep};
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::restore::compare::Depth;
use crate::engine::restore::links::LinkGroups;
use crate::engine::restore::outcome::{PassOutcome, RestoreConflict, Truncated};
use crate::engine::restore::pass_walk::{PlacedPath, RestorePass, TreeRestore};
use crate::engine::restore::write::EntryWriter;
use crate::module::target::Target;
use crate::run::report::Report;
use crate::run::restore_source::{SnapshotSource, name_of};
use crate::store::dir::Dir;
use crate::store::restore_staging::RestoreStaging;
use crate::system::identity::{Identity, SysResult};
use crate::system::mounts::note_mounts_below;
use crate::tell::counted;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;
use crate::tell::progress;

/// What is restored, and how.
#[derive(Clone, Copy)]
pub(crate) struct RestoreJob<'a> {
    pub source: &'a SnapshotSource,
    /// The module, if it is known.
    pub target: Option<&'a Target>,
    pub paths: &'a [RestorePath],
    /// What is newer than in the snapshot is replaced.
    pub overwrites: bool,
}

/// What a restore has done, or, in a dry run, would do.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// Of the pass that writes.
    pub written: PassOutcome,
    /// Names that were made as hard links of others.
    pub linked: u64,
    /// Files that share their blocks with the snapshot's.
    pub reflinked: u64,
    /// Symbolic links whose targets are as rsyncd stores them.
    pub munged_links: u64,
    /// Files without the set-user-ID or set-group-ID bits that they have in the snapshot.
    pub dropped_rights: u64,
    /// Entries that were compared after they were written.
    pub verified: u64,
    /// All that went wrong.
    pub errors: Truncated<Error>,
    /// What is known to be wrong with the snapshot in what was restored: the destination may be as
    /// in the snapshot all the same.
    pub damage: Truncated<Error>,
    /// What of the snapshot could not be compared with what was recorded when it was taken.
    pub gaps: Vec<ComparisonGap>,
    /// The run that took a snapshot after a restore in place.
    pub report: Option<Report>,
    /// Why there was no such run, or nothing was restored.
    pub run_error: Option<Error>,
}

impl Restored {
    /// Whether the destination is as in the snapshot.
    pub(crate) fn is_exact(&self) -> bool {
        self.errors.is_empty() && self.written.conflicts.is_empty()
    }
}

/// Where a restore writes.
#[derive(Clone, Copy)]
pub(crate) enum RestorePlace<'a> {
    /// A directory; none in a dry run if it does not exist.
    Directory(Option<Dir<'a>>),
    /// The module's directory.
    InPlace(Dir<'a>),
}

/// Finds out what a restore would do, and calls `on_step` for each entry.
///
/// # Errors
/// If a directory cannot be opened.
pub(crate) fn dry_run(
    job: RestoreJob,
    to: RestorePlace,
    on_step: &mut dyn FnMut(RestoreStep, &[u8]),
) -> Result<Restored> {
    let placed = placed_paths(job.paths, to)?;
    let mut tree = tree(job, to, &placed)?;
    let _phase = progress::begin("comparing", None);
    let mut written = tree.pass(RestorePass::DryRun, on_step);
    let errors = std::mem::take(&mut written.errors);
    Ok(Restored { written, errors, ..Restored::default() })
}

/// Restores into a directory. If anything is in the way, nothing is written.
///
/// # Errors
/// If the directory or the snapshot cannot be opened, or no file can be made.
pub(crate) fn into_directory(job: RestoreJob, directory: Dir) -> Result<Restored> {
    let to = RestorePlace::Directory(Some(directory));
    let placed = placed_paths(job.paths, to)?;
    let mut tree = tree(job, to, &placed)?;
    let plan = match plan(&mut tree, directory) {
        Ok(plan) => plan,
        Err(refused) => return Ok(*refused),
    };
    let staging = RestoreStaging::open(directory)?;
    Ok(write(job, &mut tree, plan, staging, directory))
}

/// Where each path lands.
pub(crate) fn placed_paths(paths: &[RestorePath], to: RestorePlace) -> Result<Vec<PlacedPath>> {
    let names = |path: &RestorePath| -> Result<Vec<_>> {
        path.names.iter().map(|name| name_of(name)).collect()
    };
    paths
        .iter()
        .map(|path| {
            let source = names(path)?;
            let target = match to {
                RestorePlace::InPlace(_) => source.clone(),
                RestorePlace::Directory(_) if path.is_content => Vec::new(),
                RestorePlace::Directory(_) => source.last().cloned().into_iter().collect(),
            };
            Ok(PlacedPath { source, target })
        })
        .collect()
}

pub(crate) fn tree<'a>(
    job: RestoreJob,
    to: RestorePlace,
    paths: &'a [PlacedPath],
) -> Result<TreeRestore<'a>> {
    let (directory, is_in_place) = match to {
        RestorePlace::Directory(directory) => (directory, false),
        RestorePlace::InPlace(directory) => (Some(directory), true),
    };
    let start = |dir: Dir| {
        note_mounts_below(&[dir.path]);
        let opened = DescentStart::root(dir.directory, dir.path);
        opened.map_err(|cause| Error::io("open", dir.path, cause))
    };
    let identity = |directory: BorrowedFd| fstat(directory).map(|stat| Identity::of(&stat)).ok();
    let mut closed: Vec<Identity> = identity(job.source.root()).into_iter().collect();
    if let Some(target) = job.target.filter(|_| !is_in_place) {
        let module = File::open(&target.module_path).ok();
        closed.extend(module.and_then(|module| identity(module.as_fd())));
    }
    Ok(TreeRestore {
        source: job.source.start()?,
        destination: directory.map(start).transpose()?,
        paths,
        closed,
        overwrites: job.overwrites,
        is_in_place,
        links: LinkGroups::default(),
        failed: HashSet::new(),
        hasher: RandomState::new(),
    })
}

/// Finds out what is in the way, before anything is written.
///
/// # Errors
/// What the restore comes to if anything is: nothing is restored.
pub(crate) fn plan(
    tree: &mut TreeRestore,
    destination: Dir,
) -> std::result::Result<PassOutcome, Box<Restored>> {
    let _phase = progress::begin("comparing", None);
    let mut plan = tree.pass(RestorePass::Plan, &mut |_, _| ());
    if plan.conflicts.is_empty() {
        tree.failed.clear();
        return Ok(plan);
    }
    let conflicts = std::mem::take(&mut plan.conflicts);
    let run_error = Some(in_the_way(&conflicts, destination));
    let written = PassOutcome { entries: plan.entries, conflicts, ..PassOutcome::default() };
    Err(Box::new(Restored { written, run_error, ..Restored::default() }))
}

fn in_the_way(conflicts: &Truncated<RestoreConflict>, destination: Dir) -> Error {
    let are_all_told = conflicts.count == conflicts.first.len() as u64;
    let are_all = |is_one: fn(RestoreObstacle) -> bool| {
        are_all_told && conflicts.first.iter().all(|conflict| is_one(conflict.obstacle))
    };
    let count = usize::try_from(conflicts.count).unwrap_or(usize::MAX);
    let remedy = if are_all(RestoreObstacle::is_overwritable) {
        "see with --dry-run what would be replaced, then restore with --overwrite, or into an \
         empty directory"
    } else if are_all(|obstacle| obstacle == RestoreObstacle::Mounted) {
        "restore each directory that is mounted there by itself, and name the other paths"
    } else {
        "move away what is there, or restore into an empty directory; --overwrite replaces what is \
         newer"
    };
    Error::InTheWay {
        problem: format!(
            "{} in {} {} {}",
            counted(count, "file"),
            escape_path(destination.path),
            if count == 1 { "is" } else { "are" },
            match are_all(|obstacle| obstacle == RestoreObstacle::Newer) {
                true => "newer than in the snapshot",
                false => "in the way",
            }
        ),
        remedy: remedy.to_string(),
    }
}

/// Writes, syncs and verifies, after a plan that has found nothing in the way.
pub(crate) fn write(
    job: RestoreJob,
    tree: &mut TreeRestore,
    plan: PassOutcome,
    staging: RestoreStaging,
    destination: Dir,
) -> Restored {
    let mut restored = Restored::default();
    let mut has_copied = false;
    {
        let _phase = progress::begin("restoring", Some(plan.entries));
        let mut writer = EntryWriter::new(staging.dir().directory);
        restored.written = tree.pass(RestorePass::Write(&mut writer), &mut |_, _| ());
        (restored.linked, restored.reflinked) = (writer.linked, writer.reflinked);
        restored.munged_links = writer.munged_links;
        restored.dropped_rights = writer.dropped_rights;
        has_copied |= writer.has_copied;
    }
    restored.errors = std::mem::take(&mut restored.written.errors);
    if restored.errors.is_empty() {
        // What the plan could not look at may be a hard link of another file.
        restored.errors = plan.errors;
    }
    if let Err(error) = staging.close() {
        restored.errors.note(error);
    }
    if let Err(error) = restore_times(tree, destination) {
        restored.errors.note(error);
    }
    if let Err(cause) = syncfs(destination.directory) {
        restored.errors.note(Error::io("sync the file system of", destination.path, cause));
    }
    if restored.written.is_out_of_space {
        return restored;
    }
    // Where all blocks are those of the snapshot, there is no copy to compare. What was there
    // already has been compared.
    let depth = if has_copied { Depth::ContentOnDisk } else { Depth::Attributes };
    let verified = {
        let _phase = progress::begin("verifying", Some(plan.entries));
        tree.pass(RestorePass::Verify(depth), &mut |_, _| ())
    };
    restored.verified = verified.entries;
    let digests = [plan.digest, restored.written.digest, verified.digest];
    let is_steady = digests.iter().all(|digest| *digest == plan.digest);
    restored.errors.append(verified.errors);
    if !job.source.is_still_there() || restored.is_exact() && !is_steady {
        restored.errors.note(Error::SnapshotChanged { path: escape_path(&job.source.path()) });
    }
    restored
}

/// Gives the destination itself its times again, if it is the counterpart of a directory of the
/// snapshot: the removal of the staging directory has changed them.
fn restore_times(tree: &TreeRestore, destination: Dir) -> Result<()> {
    let Some(path) = tree.paths.iter().find(|path| path.target.is_empty()) else { return Ok(()) };
    let restore = || -> SysResult<()> {
        let mut descent = Descent::new(tree.source.anew()?)?;
        for name in &path.source {
            descent.enter(name)?;
        }
        let stat = fstat(descent.directory()?)?;
        futimens(
            destination.directory,
            &TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
            &TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
        )
    };
    restore().map_err(|cause| Error::io("set the times of", destination.path, cause))
}
