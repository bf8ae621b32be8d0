//! From the live tree to a visible snapshot.
//!
//! A method that makes a snapshot at one instant makes it in staging ([`FrozenTree`]); all from the
//! record on is the same.
//!
//! Order: retired snapshot, if one is recycled, into staging → clone into staging → attributes
//! bottom-up → record and inode log → `syncfs`, checked → rename without replacing → fsync of the
//! root, which the caller does together with its next one, before anything relies on the name.
//! Before the rename a crash leaves only staging and a record without a snapshot, which
//! [`leftovers`](crate::store::leftovers) removes; at the rename everything in the tree is on disk,
//! file contents that rsync never synced included. So a name in the root is a complete tree at
//! every instant, also after a crash. After the fsync the name survives a crash, too.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::AsFd;

use chrono::{DateTime, Utc};
use nix::unistd::{fsync, syncfs};

use crate::decide::grade::Grade;
use crate::decide::partial_dirs::PartialDirs;
use crate::engine::baseline::{BaselineOrigin, Recording, baseline_of};
use crate::engine::baseline_bytes::BLOCK_BYTES;
use crate::engine::clone::{CloneContext, CloneOutcome, CloneTarget, clone_tree};
use crate::engine::compare::Comparison;
use crate::engine::frozen_survey::survey;
use crate::engine::index::draft::IndexDraft;
use crate::engine::index::reader::DirectoryIndex;
use crate::engine::inodes::{InodeName, walk};
use crate::engine::listing_cache::ListingCache;
use crate::store::dir::{self, Dir, OwnedDir, c_name};
use crate::store::frozen_tree::{FrozenTree, staged_beside};
use crate::store::index_file;
use crate::store::inode_log::changed_in_place::InPlaceChanges;
use crate::store::inode_log::recorder::Recorder;
use crate::store::inode_log::windows::{LinkWindow, LinkWindows, wall_ns};
use crate::store::layout::Subdir;
use crate::store::leases::LockedLeases;
use crate::store::leftovers::forget;
use crate::store::lost_links;
use crate::store::record::{CopyRecord, Record, SnapshotCost};
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, STAGED, Shelf, Slot};
use crate::store::vanished;
use crate::system::mounts::Mounts;
use crate::system::syscalls::is_privileged;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;
use crate::tell::progress;

/// A tree in staging: complete, but neither durable nor visible.
pub struct StagedSnapshot {
    name: CString,
    /// Whether it lies beside the snapshots: it is sealed, or an unprivileged run builds it.
    is_beside: bool,
    dir: OwnedDir,
    /// What the clone did.
    pub cloned: CloneOutcome,
    /// The retired snapshot that it was made out of.
    pub recycled: Option<String>,
    /// Why the retired snapshot that was to be recycled was not used.
    pub refusal: Option<Error>,
    /// None for a subvolume: the change times in it say all that an index says.
    index: Option<IndexDraft>,
    /// None for a subvolume, which shares no inode with the module.
    evidence: Option<InodeRecording>,
    /// When a subvolume began to be made.
    frozen_ns: Option<i64>,
}

/// What a comparison of the live tree with a snapshot has found out for the clone after it.
#[derive(Clone, Copy, Default)]
pub struct ComparedTree<'a> {
    /// The index of that snapshot. Without it, the index of the retired snapshot is not used
    /// either.
    pub index: Option<&'a DirectoryIndex>,
    /// How many entries the tree had.
    pub entries: Option<u64>,
    /// Directories that were read.
    pub(crate) cache: Option<&'a ListingCache>,
}

/// Records in the inode log the inodes that are new in a snapshot.
struct InodeRecording {
    recorder: Result<Recorder>,
    /// When the tree began to be linked.
    began_ns: i64,
}

impl InodeRecording {
    /// An error of the recorder is returned when the snapshot is published.
    fn begin(root: &SnapshotRoot, inodes: Dir) -> Self {
        let recorder = OpenShelf::open(root, Shelf::Expired).and_then(|expired| {
            // What was recorded with a snapshot that vanished stays evidence for the others.
            let has_vanished = |name: &str| {
                let noted = vanished::noted(root.private()).unwrap_or_default();
                noted.iter().any(|one| one.name == name)
            };
            let is_known = |name: &str| {
                let slots = [root.visible(name), expired.slot(name)];
                slots.iter().any(|slot| slot.look().is_ok()) || has_vanished(name)
            };
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
            new_bytes: self.recorder().map(|_| cloned.new_bytes),
            vanished: cloned.vanished,
            attributes_lost: cloned.attributes_lost,
            skipped_mounts: cloned.skipped_mounts.iter().map(|path| escape(path)).collect(),
            temporaries: cloned.temporaries.count,
            temporary_files: cloned.temporaries.paths.iter().map(|path| escape(path)).collect(),
            copies: CopyRecord::of(&cloned.copies),
            frozen_ns: self.frozen_ns.map(|ns| ns.to_string()),
            work: self.evidence.as_ref().map(|_| SnapshotCost {
                recycled: recycled.clone(),
                directories_read: comparison.directories_read + cloned.directories_read,
                linked: cloned.made,
                unlinked: cloned.removed,
            }),
            ..Record::bare(time, grade)
        }
    }

    /// Clones the module into staging: out of the retired snapshot `recycle` if that is given and
    /// can be used, else afresh. Files in `partial_dirs` are copied.
    ///
    /// Renaming a directory to another parent needs write permission on that directory itself,
    /// which an unprivileged run lacks where the module is read-only for it. It stages in the root,
    /// under a name that is no snapshot's, and recycles nothing.
    pub fn build(
        root: &SnapshotRoot,
        recycle: Option<&str>,
        compared: ComparedTree,
        partial_dirs: &PartialDirs,
    ) -> Result<Self> {
        let dir = root.subdir(Subdir::Staging)?;
        let mut refusal = None;
        // The window is open until the last link is made. If the clone fails, the tree is removed
        // in another window.
        let inodes = root.subdir(Subdir::Inodes)?;
        let has_earlier_windows = LinkWindows::read(inodes.dir()).are_known();
        let _window = LinkWindow::open(inodes.dir())?;
        let evidence = InodeRecording::begin(root, inodes.dir());
        let windows = LinkWindows::read(inodes.dir());
        // `contain` is false for times before the first window. Files of such a time may never have
        // been recorded, so they are recorded now.
        let is_ours = |changed_ns| windows.contain(changed_ns);
        let recorder = evidence.recorder.as_ref().ok();
        let append = |baselines: &[u8]| {
            recorder.iter().for_each(|recorder| recorder.append_baselines(baselines))
        };
        let recording = recorder.map(|_| Recording {
            is_ours: has_earlier_windows.then_some(&is_ours),
            append: &append,
        });
        let knowledge = CloneContext {
            newest: compared.index,
            retired: None,
            entries: compared.entries,
            cache: compared.cache,
            partial_dirs: Some(partial_dirs),
            recording,
        };
        if let Some(retired) = recycle {
            match recycle_into(root, &dir, retired, knowledge) {
                Ok((cloned, index)) => {
                    lost_links::note(root, retired, cloned.last_other_change_ns);
                    let name = c_name(retired);
                    return Ok(StagedSnapshot {
                        name,
                        is_beside: false,
                        dir,
                        cloned,
                        index: Some(index),
                        recycled: Some(retired.to_string()),
                        refusal,
                        evidence: Some(evidence),
                        frozen_ns: None,
                    });
                }
                Err(error) => refusal = Some(error),
            }
        }
        let is_beside = !is_privileged();
        let name = if is_beside { staged_beside() } else { c_name(STAGED) };
        let Dir { directory: parent, path: parent_path } = staging_parent(is_beside, &dir, root);
        let drafts = root.subdir(Subdir::Drafts)?;
        let stage = CloneTarget {
            parent,
            parent_path,
            name: &name,
            is_recycled: false,
            drafts: drafts.dir().directory,
        };
        let cloned = clone_tree((root.module()?, &root.module_path), &stage, knowledge);
        let (cloned, index) = cloned.map_err(|error| root.explained(error))?;
        Ok(StagedSnapshot {
            name,
            is_beside,
            dir,
            cloned,
            index: Some(index),
            recycled: None,
            refusal,
            evidence: Some(evidence),
            frozen_ns: None,
        })
    }

    /// The frozen module as a snapshot.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn of_frozen(root: &SnapshotRoot, frozen: &FrozenTree) -> Result<Self> {
        let mut cloned = survey(frozen.directory.as_fd(), &frozen.path)?;
        if let Some(mounts) = Mounts::read() {
            cloned.skipped_mounts.extend(mounts.below(&root.module_path));
        }
        Ok(StagedSnapshot {
            name: staged_beside(),
            is_beside: true,
            dir: root.subdir(Subdir::Staging)?,
            cloned,
            recycled: None,
            refusal: None,
            index: None,
            evidence: None,
            frozen_ns: Some(frozen.began_ns),
        })
    }

    fn recorder(&self) -> Option<&Recorder> {
        self.evidence.as_ref().and_then(|evidence| evidence.recorder.as_ref().ok())
    }

    /// Whether nothing has been recorded before of the inodes that snapshots share.
    pub fn begins_inode_log(&self) -> bool {
        self.recorder().is_some_and(Recorder::is_new)
    }

    /// Records the files that were changed in place, as they are in this snapshot. Otherwise a file
    /// that keeps its link in a recycled directory would not be recorded: the next run would find
    /// the change once more, and `verify` would report this snapshot and later ones as damaged,
    /// too. The baselines of earlier snapshots stay in the log. Returns how many directories could
    /// not be read; the first is in the log.
    pub fn record_in_place(&self, root: &SnapshotRoot, changes: &InPlaceChanges) -> u64 {
        let Some(recorder) = self.recorder().filter(|_| changes.changed() > 0) else {
            return 0;
        };
        let Dir { directory: parent, path } = staging_parent(self.is_beside, &self.dir, root);
        let (mut met, mut bytes) = (HashSet::new(), Vec::new());
        let unreadable = walk(parent, path, &self.name, &mut |name: &InodeName| {
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
                recorder.append_baselines(&std::mem::take(&mut bytes));
            }
        });
        if !bytes.is_empty() {
            recorder.append_baselines(&bytes);
        }
        unreadable
    }

    /// Makes the staged tree durable, then visible as the snapshot `name`; the name is durable once
    /// the caller has synced the root. Returns the error if its inodes could not be recorded, which
    /// does not prevent the snapshot.
    pub fn publish(
        self,
        root: &SnapshotRoot,
        name: &str,
        record: &Record,
    ) -> Result<Option<Error>> {
        let StagedSnapshot { name: staged, is_beside, dir, index, evidence, .. } = self;
        let has_index = match index {
            Some(index) => index_file::write_before_syncfs(root, name, index)?,
            None => false,
        };
        let record = Record { has_index, ..record.clone() };
        let records = root.subdir(Subdir::Records)?;
        match root.has_only_sealed() {
            // ceph-fuse does not pass `syncfs` on.
            true => {
                record.write_before_sync(records.dir(), name)?;
                dir::sync(records.dir())?;
            }
            false => record.write_before_syncfs(records.dir(), name)?,
        }
        let recorded = evidence.map_or(Ok(()), |InodeRecording { recorder, began_ns }| {
            recorder.and_then(|recorder| recorder.commit(name, began_ns))
        });
        // The root is on the module's file system, so this also makes the module's files durable.
        progress::enter("writing to the disk");
        syncfs(root.directory())
            .map_err(|cause| Error::io("sync the file system of", &root.path, cause))?;
        let parent = staging_parent(is_beside, &dir, root);
        let (from, to) = (Slot { dir: parent, name: staged, is_beside }, root.visible(name));
        from.move_to(&to)
            .map_err(|cause| Error::io_pair("publish", &from.path(), &to.path(), cause))?;
        Ok(recorded.err())
    }
}

/// The directory that a staged tree is in.
fn staging_parent<'a>(is_beside: bool, staging: &'a OwnedDir, root: &'a SnapshotRoot) -> Dir<'a> {
    match is_beside {
        true => root.snapshots(),
        false => staging.dir(),
    }
}

fn recycle_into(
    root: &SnapshotRoot,
    dir: &OwnedDir,
    retired: &str,
    knowledge: CloneContext,
) -> Result<(CloneOutcome, IndexDraft)> {
    let index = knowledge.newest.and_then(|_| index_file::open(root, retired));
    take_for_recycling(root, dir, retired)?;
    let drafts = root.subdir(Subdir::Drafts)?;
    let drafts = drafts.dir().directory;
    let stage = CloneTarget {
        parent: dir.dir().directory,
        parent_path: dir.dir().path,
        name: &c_name(retired),
        is_recycled: true,
        drafts,
    };
    let knowledge = CloneContext { retired: index.as_ref(), ..knowledge };
    clone_tree((root.module()?, &root.module_path), &stage, knowledge)
}

/// Moves a retired snapshot to staging, unless it may still be read. The move is durable before
/// anything in it changes, so `expired/` holds only whole snapshots, also after a crash. It keeps
/// its name, by which a later run sees that its record is to be removed.
fn take_for_recycling(root: &SnapshotRoot, staging: &OwnedDir, retired: &str) -> Result<()> {
    let expired = root.subdir(Subdir::Expired)?;
    let locked = LockedLeases::open(root)?;
    if locked.read()?.may_be_read(retired) {
        return Err(Error::Snapshot {
            root: root.label(),
            problem: format!("{retired} is being read"),
            remedy: "a later run recycles or removes it",
        });
    }
    let [from, to] = [expired.dir(), staging.dir()].map(|dir| Slot {
        dir,
        name: c_name(retired),
        is_beside: false,
    });
    from.move_to(&to)
        .map_err(|cause| Error::io_pair("recycle", &from.path(), &to.path(), cause))?;
    drop(locked);
    for dir in [staging.dir(), expired.dir()] {
        fsync(dir.directory).map_err(|cause| Error::io("sync", dir.path, cause))?;
    }
    forget(root, retired)
}
