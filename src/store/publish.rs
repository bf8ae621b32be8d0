//! From the live tree to a visible snapshot.
//!
//! Order: retired snapshot, if one is recycled, into staging → clone into staging → attributes
//! bottom-up → record and inode log → `syncfs`, checked → rename without replacing →
//! fsync of the root. Before the rename a crash leaves only staging and a record without a
//! snapshot, which [`clean_up`] removes; at the rename everything in the tree is on disk, file
//! contents that rsync never synced included; after the fsync the name is, too. So a name in the
//! root is a complete, durable tree at every instant.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, fsync, syncfs, unlinkat};

use crate::decide::grade::Grade;
use crate::decide::partial_dirs::PartialDirs;
use crate::engine::baseline::{BaselineOrigin, Recording, baseline_of};
use crate::engine::baseline_bytes::BLOCK_BYTES;
use crate::engine::clone::{CloneContext, CloneOutcome, CloneTarget, clone_tree};
use crate::engine::compare::Comparison;
use crate::engine::copy::ORIGINALS;
use crate::engine::index::{DirectoryIndex, IndexPart};
use crate::engine::inodes::{InodeName, walk};
use crate::engine::listing::Listing;
use crate::engine::remove::remove_trees;
use crate::store::dir::{Dir, OwnedDir, TEMPORARY, c_name, names_in};
use crate::store::inode_log::in_place::InPlaceChanges;
use crate::store::inode_log::recorder::Recorder;
use crate::store::inode_log::windows::{LinkWindow, LinkWindows, wall_ns};
use crate::store::layout::Subdir;
use crate::store::lock::DirLock;
use crate::store::record::{CopyRecord, Record, SnapshotCost, file_name, snapshot_name};
use crate::store::root::SnapshotRoot;
use crate::store::{index_file, unremovable};
use crate::system::syscalls::{is_privileged, rename_no_replace, stat_entry};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;

/// Begins the names under which an unprivileged run stages beside the target.
const BESIDE: &str = ".rsyncd-snapshot-staging-";

const STAGED: &str = "snapshot";
const RECYCLED: &str = "recycled";

/// A tree in staging: complete, but neither durable nor visible.
pub struct StagedSnapshot {
    name: CString,
    beside: bool,
    dir: OwnedDir,
    /// What the clone did.
    pub cloned: CloneOutcome,
    /// The retired snapshot that it was made out of.
    pub recycled: Option<String>,
    /// Why it was made afresh although a retired snapshot was to be recycled.
    pub refusal: Option<Error>,
    parts: Vec<IndexPart>,
    evidence: InodeRecording,
}

/// Records the inodes that are new in a snapshot into the inode log.
struct InodeRecording {
    recorder: Result<Recorder>,
    /// When the tree began to be linked.
    began_ns: i64,
}

impl InodeRecording {
    /// An error of the recorder is returned when the snapshot is published.
    fn begin(root: &SnapshotRoot, inodes: Dir) -> Self {
        let recorder = root.subdir(Subdir::Expired).and_then(|expired| {
            let dirs = [root.directory(), expired.dir().directory];
            let is_known =
                |name: &str| dirs.iter().any(|dir| stat_entry(*dir, &c_name(name)).is_ok());
            Recorder::open(inodes, is_known)
        });
        InodeRecording { recorder, began_ns: wall_ns() }
    }
}

impl StagedSnapshot {
    /// The record of a new snapshot.
    pub fn record(&self, time: DateTime<Utc>, grade: Grade, comparison: &Comparison) -> Record {
        let StagedSnapshot { cloned, recycled, .. } = self;
        Record {
            entries: cloned.entries,
            added: comparison.added,
            changed: comparison.changed,
            removed: comparison.removed,
            vanished: cloned.vanished,
            attributes_lost: cloned.attributes_lost,
            skipped_mounts: cloned.skipped_mounts.iter().map(|path| escape(path)).collect(),
            temporaries: cloned.temporaries.count,
            temporary_files: cloned.temporaries.paths.iter().map(|path| escape(path)).collect(),
            copies: CopyRecord::of(&cloned.copies),
            work: Some(SnapshotCost {
                recycled: recycled.clone(),
                directories_read: comparison.directories_read + cloned.directories_read,
                linked: cloned.made,
                unlinked: cloned.removed,
            }),
            ..Record::bare(time, grade)
        }
    }

    /// Clones the module, which has about `entries` entries if that is known, into staging: out of
    /// the retired snapshot `recycle` if there is one and it can be used, else afresh. `newest` is
    /// the index by which the module was compared; without it the retired one's is not used either.
    /// Files in `partial_dirs` are copied.
    ///
    /// Renaming a directory to another parent needs write permission on that directory itself,
    /// which an unprivileged run lacks where the module is read-only for it. It stages in the root,
    /// under a name that is no snapshot's, and recycles nothing.
    pub fn build(
        root: &SnapshotRoot,
        recycle: Option<&str>,
        newest: Option<&DirectoryIndex>,
        entries: Option<u64>,
        partial_dirs: &PartialDirs,
    ) -> Result<Self> {
        let dir = root.subdir(Subdir::Staging)?;
        let mut refusal = None;
        // The window is open until the last link is made. If the clone fails, the tree is removed
        // in another window.
        let inodes = root.subdir(Subdir::Inodes)?;
        let _window = LinkWindow::open(inodes.dir())?;
        let evidence = InodeRecording::begin(root, inodes.dir());
        let windows = LinkWindows::read(inodes.dir());
        // What may be older than all of them may never have been recorded.
        let is_ours = |changed_ns| windows.contain(changed_ns);
        let recorder = evidence.recorder.as_ref().ok();
        let keep = |baselines: &[u8]| recorder.iter().for_each(|recorder| recorder.keep(baselines));
        let recording = recorder.map(|_| Recording { is_ours: &is_ours, keep: &keep });
        let knowledge = CloneContext {
            newest,
            retired: None,
            entries,
            partial_dirs: Some(partial_dirs),
            recording,
        };
        if let Some(retired) = recycle {
            match recycle_into(root, &dir, retired, knowledge) {
                Ok((cloned, parts)) => {
                    let name = c_name(RECYCLED);
                    return Ok(StagedSnapshot {
                        name,
                        beside: false,
                        dir,
                        cloned,
                        parts,
                        recycled: Some(retired.to_string()),
                        refusal,
                        evidence,
                    });
                }
                Err(error) => refusal = Some(error),
            }
        }
        let beside = !is_privileged();
        let name = c_name(&if beside { format!("{BESIDE}{STAGED}") } else { STAGED.to_string() });
        let parent = if beside { root.directory() } else { dir.dir().directory };
        let drafts = root.subdir(Subdir::Drafts)?;
        let stage =
            CloneTarget { parent, name: &name, is_recycled: false, drafts: drafts.dir().directory };
        let cloned = clone_tree((root.module(), &root.module_path), &stage, knowledge);
        let (cloned, parts) = cloned.map_err(|error| root.explained(error))?;
        Ok(StagedSnapshot { name, beside, dir, cloned, parts, recycled: None, refusal, evidence })
    }

    /// Whether nothing has been recorded before of the inodes that snapshots share.
    pub fn begins_inode_log(&self) -> bool {
        self.evidence.recorder.as_ref().is_ok_and(Recorder::is_new)
    }

    /// Records what was changed in place, as it is in this snapshot. A recycled directory keeps its
    /// links, and what keeps its link is not recorded otherwise: then the next look would find the
    /// change once more, and `verify` would blame it on this snapshot and on later ones, too. What
    /// earlier snapshots had is still recorded.
    pub fn record_in_place(&self, root: &SnapshotRoot, changes: &InPlaceChanges) {
        let Some(recorder) = self.evidence.recorder.as_ref().ok().filter(|_| changes.changed() > 0)
        else {
            return;
        };
        let Dir { directory: parent, path } = staging_parent(self.beside, &self.dir, root);
        let (mut met, mut bytes) = (HashSet::new(), Vec::new());
        walk(parent, path, &self.name, &mut |name: &InodeName| {
            let Some(changed) = changes.changed_at(name.inode).filter(|_| met.insert(name.inode))
            else {
                return;
            };
            if let Some(baseline) =
                baseline_of(name.directory, name.name, BaselineOrigin::Linked, Some(changed))
            {
                baseline.write(&mut bytes);
            }
            if bytes.len() > BLOCK_BYTES {
                recorder.keep(&std::mem::take(&mut bytes));
            }
        });
        if !bytes.is_empty() {
            recorder.keep(&bytes);
        }
    }

    /// Makes the staged tree durable, then visible as the snapshot `name`. Returns what keeps its
    /// inodes from being recorded; that costs no snapshot.
    pub fn publish(
        self,
        root: &SnapshotRoot,
        name: &str,
        record: &Record,
    ) -> Result<Option<Error>> {
        let StagedSnapshot { name: staged, beside, dir, cloned, parts, evidence, .. } = self;
        record.write_before_syncfs(root.subdir(Subdir::Records)?.dir(), name)?;
        index_file::write_before_syncfs(root, name, parts, cloned.entries)?;
        let InodeRecording { recorder, began_ns } = evidence;
        let recorded = recorder.and_then(|recorder| recorder.commit(name, began_ns));
        // The descriptor is on the module's file system, whose data has to be durable.
        syncfs(root.directory())
            .map_err(|cause| Error::io("sync the file system of", &root.path, cause))?;
        let parent = staging_parent(beside, &dir, root);
        rename_no_replace(parent.directory, &staged, root.directory(), &c_name(name)).map_err(
            |cause| {
                let from = parent.path.join(OsStr::from_bytes(staged.to_bytes()));
                Error::io_pair("publish", &from, &root.path.join(name), cause)
            },
        )?;
        fsync(root.directory()).map_err(|cause| Error::io("sync", &root.path, cause))?;
        Ok(recorded.err())
    }
}

/// The directory that a staged tree is in.
fn staging_parent<'a>(beside: bool, staging: &'a OwnedDir, root: &'a SnapshotRoot) -> Dir<'a> {
    match beside {
        true => Dir { directory: root.directory(), path: &root.path },
        false => staging.dir(),
    }
}

fn recycle_into(
    root: &SnapshotRoot,
    dir: &OwnedDir,
    retired: &str,
    knowledge: CloneContext,
) -> Result<(CloneOutcome, Vec<IndexPart>)> {
    let index = knowledge.newest.and_then(|_| index_file::read(root, retired, knowledge.entries));
    take_for_recycling(root, dir, retired)?;
    let drafts = root.subdir(Subdir::Drafts)?;
    let drafts = drafts.dir().directory;
    let stage = CloneTarget {
        parent: dir.dir().directory,
        name: &c_name(RECYCLED),
        is_recycled: true,
        drafts,
    };
    let knowledge = CloneContext { retired: index.as_ref(), ..knowledge };
    clone_tree((root.module(), &root.module_path), &stage, knowledge)
}

/// Moves a retired snapshot to staging. The move is durable before anything in it changes, so
/// `expired/` holds only whole snapshots, also after a crash.
fn take_for_recycling(root: &SnapshotRoot, staging: &OwnedDir, retired: &str) -> Result<()> {
    let expired = root.subdir(Subdir::Expired)?;
    let Dir { directory, path } = expired.dir();
    rename_no_replace(directory, &c_name(retired), staging.dir().directory, &c_name(RECYCLED))
        .map_err(|cause| {
            let to = staging.dir().path.join(RECYCLED);
            Error::io_pair("recycle", &path.join(retired), &to, cause)
        })?;
    for dir in [staging.dir(), expired.dir()] {
        fsync(dir.directory).map_err(|cause| Error::io("sync", dir.path, cause))?;
    }
    forget(root, retired)
}

/// Removes the index and the record of a snapshot that exists no longer.
pub(crate) fn forget(root: &SnapshotRoot, name: &str) -> Result<()> {
    let index = root.subdir(Subdir::Index).and_then(|dir| remove_file(dir.dir(), name));
    let record =
        root.subdir(Subdir::Records).and_then(|dir| remove_file(dir.dir(), &file_name(name)));
    index.and(record).map(drop)
}

/// Removes what a killed run left in staging, its temporary files, and records of snapshots
/// that exist no longer. Returns whether there was anything, and goes on after errors.
pub(crate) fn clean_up(
    root: &SnapshotRoot,
    visible: &[String],
    retired: &[String],
) -> (bool, Vec<Error>) {
    let mut errors = Vec::new();
    let mut found = false;
    let mut keep = |result: Result<bool>| match result {
        Ok(some) => found |= some,
        Err(error) => errors.push(error),
    };
    keep(empty_staging(root));
    keep(remove_staged_beside(root));
    keep(remove_temporaries(root));
    let unlisted = match unlisted(root, visible, retired) {
        Ok(unlisted) => unlisted,
        Err(error) => return (found, errors.into_iter().chain([error]).collect()),
    };
    let alive = || visible.iter().chain(retired).chain(unlisted.iter().map(|(name, _)| name));
    keep(remove_orphans(root, Subdir::Records, alive().map(|name| file_name(name)).collect()));
    keep(remove_orphans(root, Subdir::Index, alive().cloned().collect()));
    for (name, cause) in &unlisted {
        let failed = |cause: &Errno| Error::io("look up", &root.path.join(name), *cause);
        errors.extend(cause.as_ref().map(failed));
    }
    let late: Vec<&String> =
        unlisted.iter().filter(|(_, cause)| cause.is_none()).map(|(name, _)| name).collect();
    errors.extend(
        crate::store::snapshots::late_listing(&late)
            .map(|problem| Error::Damaged { path: root.label(), problem }),
    );
    (found, errors)
}

/// Removes a tree that could not be published. Errors are only logged: the next run cleans up
/// again.
pub(crate) fn discard_staging(root: &SnapshotRoot) {
    if let Err(error) = clear_staging(root) {
        log::debug!("staging remains for the next run: {error}");
    }
}

/// Empties staging, for a holder of the long lock; goes on after the first error.
pub(crate) fn clear_staging(root: &SnapshotRoot) -> Result<()> {
    empty_staging(root).and(remove_staged_beside(root)).map(drop)
}

fn empty_staging(root: &SnapshotRoot) -> Result<bool> {
    let found = remove_all(root, root.subdir(Subdir::Staging)?.dir(), |_| true);
    let is_copies = |name: &[u8]| name == ORIGINALS.to_bytes();
    let copies = remove_all(root, root.subdir(Subdir::Drafts)?.dir(), is_copies);
    found.and_then(|found| Ok(found | copies?))
}

fn remove_staged_beside(root: &SnapshotRoot) -> Result<bool> {
    let dir = Dir { directory: root.directory(), path: &root.path };
    remove_all(root, dir, |name| name.starts_with(BESIDE.as_bytes()))
}

/// Removes the trees in `dir` whose names are selected; returns the first error.
fn remove_all(root: &SnapshotRoot, dir: Dir, selected: impl Fn(&[u8]) -> bool) -> Result<bool> {
    let Dir { directory, path } = dir;
    let listing = Listing::read(directory).map_err(|cause| Error::io("read", path, cause))?;
    let names = listing.entries().iter().map(|entry| listing.name(entry));
    let names: Vec<CString> =
        names.filter(|name| selected(name.to_bytes())).map(CStr::to_owned).collect();
    if names.is_empty() {
        return Ok(false);
    }
    let _window = LinkWindow::open(root.subdir(Subdir::Inodes)?.dir())?;
    let (_, remaining) = remove_trees(directory, path, &names)?;
    let errors: Vec<Error> =
        remaining.into_iter().map(|remains| unremovable::set_aside(root, dir, remains)).collect();
    errors.into_iter().next().map_or(Ok(true), Err)
}

fn remove_temporaries(root: &SnapshotRoot) -> Result<bool> {
    // Writers without the long lock hold this one.
    let _guard = DirLock::on_directory(root.private())?;
    let (drafts, inodes) = (root.subdir(Subdir::Drafts)?, root.subdir(Subdir::Inodes)?);
    let mut found = Ok(false);
    for dir in [root.private(), drafts.dir(), inodes.dir()] {
        let is_temporary = |name: &String| name.ends_with(TEMPORARY);
        let removed = names_in(dir)
            .and_then(|names| remove_files(dir, names.into_iter().filter(is_temporary)));
        found = found.and_then(|found| Ok(found | removed?));
    }
    found
}

/// Snapshots with a record or an index that the listings of `visible` and `retired` ones lack,
/// although each can be looked up by its name: a network file system may list a directory as it was
/// some seconds ago. A snapshot whose look-up fails may be there; it is returned with the error.
pub(crate) fn unlisted(
    root: &SnapshotRoot,
    visible: &[String],
    retired: &[String],
) -> Result<Vec<(String, Option<Errno>)>> {
    let listed: HashSet<&String> = visible.iter().chain(retired).collect();
    let records = names_in(root.subdir(Subdir::Records)?.dir())?;
    let records = records.iter().filter_map(|name| snapshot_name(name)).map(str::to_string);
    let indexes = names_in(root.subdir(Subdir::Index)?.dir())?;
    let mut names: Vec<String> =
        records.chain(indexes).filter(|name| !listed.contains(name)).collect();
    names.sort_unstable();
    names.dedup();
    let expired = root.subdir(Subdir::Expired)?;
    let dirs = [root.directory(), expired.dir().directory];
    let look_up = |name: String| {
        let looks = dirs.map(|dir| stat_entry(dir, &c_name(&name)).map(drop));
        let cause =
            looks.iter().find_map(|look| look.err().filter(|cause| *cause != Errno::ENOENT));
        match looks.contains(&Ok(())) {
            true => Some((name, None)),
            false => cause.map(|cause| (name, Some(cause))),
        }
    };
    Ok(names.into_iter().filter_map(look_up).collect())
}

/// Removes the files in a subdirectory that belong to no snapshot.
fn remove_orphans(root: &SnapshotRoot, subdir: Subdir, owned: HashSet<String>) -> Result<bool> {
    let dir = root.subdir(subdir)?;
    remove_files(dir.dir(), names_in(dir.dir())?.into_iter().filter(|name| !owned.contains(name)))
}

/// Removes all that can be removed; whether there was any, or the first error.
fn remove_files(dir: Dir, names: impl Iterator<Item = String>) -> Result<bool> {
    let mut found = Ok(false);
    for name in names {
        let removed = remove_file(dir, &name);
        found = found.and_then(|found| Ok(found | removed?));
    }
    found
}

/// Removes one file of ours; false if it was gone already.
pub(crate) fn remove_file(dir: Dir, name: &str) -> Result<bool> {
    match unlinkat(dir.directory.as_fd(), c_name(name).as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(cause) => Err(Error::io("remove", &dir.path.join(name), cause)),
    }
}
