//! From the live tree to a visible snapshot.
//!
//! Order: retired snapshot, if one is recycled, into staging → clone into staging → attributes
//! bottom-up → record and catalogue of inodes → `syncfs`, checked → rename without replacing →
//! fsync of the root. Before the rename a crash leaves only staging and a record without a
//! snapshot, which [`clean_up`] removes; at the rename everything in the tree is on disk, file
//! contents that rsync never synced included; after the fsync the name is, too. So a name in the
//! root is a complete, durable tree at every instant.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, fsync, syncfs, unlinkat};

use crate::decide::partial_dirs::PartialDirs;
use crate::engine::baseline::{Origin, Recording, of_entry};
use crate::engine::baseline_bytes::BLOCK_BYTES;
use crate::engine::clone::{Cloned, Knowledge, Stage, clone_tree};
use crate::engine::copy::ORIGINALS;
use crate::engine::index::{Index, Part};
use crate::engine::inodes::{Name, walk};
use crate::engine::listing::Listing;
use crate::engine::remove::remove_trees;
use crate::store::dir::{DRAFTS, Place, TEMPORARY, c_name};
use crate::store::index_file;
use crate::store::inode_log;
use crate::store::inode_log::windows::{Window, Windows, wall_ns};
use crate::store::inode_log::{InPlaceChanges, Recorder};
use crate::store::lock::Guard;
use crate::store::record::{Record, file_name, snapshot_name};
use crate::store::root::{Room, SnapshotRoot};
use crate::store::snapshots::names_in;
use crate::store::unremovable;
use crate::system::syscalls::{is_privileged, rename_no_replace, stat_entry};
use crate::tell::error::{Error, Result};

/// Begins the names under which an unprivileged run stages beside the target.
const BESIDE: &str = ".rsyncd-snapshot-staging-";

const STAGED: &str = "snapshot";
const RECYCLED: &str = "recycled";

/// A tree in staging, complete but neither durable nor visible.
pub struct Staged {
    name: CString,
    beside: bool,
    room: Room,
    /// What the clone did.
    pub cloned: Cloned,
    /// The retired snapshot that it was made out of.
    pub recycled: Option<String>,
    /// Why it was not made out of the one that it should have been.
    pub refusal: Option<Error>,
    parts: Vec<Part>,
    evidence: Evidence,
}

/// What is recorded of the inodes that are new in a snapshot.
struct Evidence {
    recorder: Result<Recorder>,
    /// When the tree began to be linked.
    began_ns: i64,
}

impl Evidence {
    /// What nothing is recorded in is told when the snapshot is published.
    fn begin(root: &SnapshotRoot, inodes: Place) -> Self {
        let recorder = root.room("expired").and_then(|expired| {
            let places = [root.directory(), expired.place().directory];
            let is_known =
                |name: &str| places.iter().any(|place| stat_entry(*place, &c_name(name)).is_ok());
            Recorder::open(inodes, is_known)
        });
        Evidence { recorder, began_ns: wall_ns() }
    }
}

impl Staged {
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
        newest: Option<&Index>,
        entries: Option<u64>,
        partial_dirs: &PartialDirs,
    ) -> Result<Self> {
        let room = root.room("staging")?;
        let mut refusal = None;
        // Until the last link is made; should that fail, the tree is removed in another window.
        let inodes = root.room(inode_log::ROOM)?;
        let _window = Window::open(inodes.place())?;
        let evidence = Evidence::begin(root, inodes.place());
        let windows = Windows::read(inodes.place());
        // What may be older than all of them may never have been recorded.
        let is_ours = |changed_ns| windows.contain(changed_ns);
        let recorder = evidence.recorder.as_ref().ok();
        let keep = |baselines: &[u8]| recorder.iter().for_each(|recorder| recorder.keep(baselines));
        let recording = recorder.map(|_| Recording { is_ours: &is_ours, keep: &keep });
        let knowledge = Knowledge {
            newest,
            retired: None,
            entries,
            partial_dirs: Some(partial_dirs),
            recording,
        };
        if let Some(retired) = recycle {
            match recycle_into(root, &room, retired, knowledge) {
                Ok((cloned, parts)) => {
                    let name = c_name(RECYCLED);
                    return Ok(Staged {
                        name,
                        beside: false,
                        room,
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
        let parent = if beside { root.directory() } else { room.place().directory };
        let drafts = root.room(DRAFTS)?;
        let stage =
            Stage { parent, name: &name, is_recycled: false, drafts: drafts.place().directory };
        let cloned = clone_tree((root.module(), &root.module_path), &stage, knowledge);
        let (cloned, parts) = cloned.map_err(|error| root.explained(error))?;
        Ok(Staged { name, beside, room, cloned, parts, recycled: None, refusal, evidence })
    }

    /// Whether nothing has been recorded before of the inodes that snapshots share.
    pub fn begins_catalogue(&self) -> bool {
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
        let (parent, path) = match self.beside {
            true => (root.directory(), root.path.as_path()),
            false => (self.room.place().directory, self.room.place().path),
        };
        let (mut met, mut bytes) = (HashSet::new(), Vec::new());
        walk(parent, path, &self.name, &mut |name: &Name| {
            let Some(changed) = changes.changed_at(name.inode).filter(|_| met.insert(name.inode))
            else {
                return;
            };
            if let Some(baseline) =
                of_entry(name.directory, name.name, Origin::Linked, Some(changed))
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
        let path = root.path.join(name);
        record.write_before_syncfs(root.room("records")?.place(), name)?;
        index_file::write_before_syncfs(root, name, self.parts, self.cloned.entries)?;
        let began_ns = self.evidence.began_ns;
        let recorded = self.evidence.recorder.and_then(|recorder| recorder.commit(name, began_ns));
        // The descriptor is on the module's file system, whose data has to be durable.
        syncfs(root.directory())
            .map_err(|cause| Error::io("sync the file system of", &root.path, cause))?;
        let parent = if self.beside { root.directory() } else { self.room.place().directory };
        rename_no_replace(parent, &self.name, root.directory(), &c_name(name))
            .map_err(|cause| Error::io("publish", &path, cause))?;
        fsync(root.directory()).map_err(|cause| Error::io("sync", &root.path, cause))?;
        Ok(recorded.err())
    }
}

fn recycle_into(
    root: &SnapshotRoot,
    room: &Room,
    retired: &str,
    knowledge: Knowledge,
) -> Result<(Cloned, Vec<Part>)> {
    let index = knowledge.newest.and_then(|_| index_file::read(root, retired, knowledge.entries));
    take_for_recycling(root, room, retired)?;
    let drafts = root.room(DRAFTS)?;
    let drafts = drafts.place().directory;
    let stage = Stage {
        parent: room.place().directory,
        name: &c_name(RECYCLED),
        is_recycled: true,
        drafts,
    };
    let knowledge = Knowledge { retired: index.as_ref(), ..knowledge };
    clone_tree((root.module(), &root.module_path), &stage, knowledge)
}

/// Moves a retired snapshot to staging. The move is durable before anything in it changes: what
/// lies in `expired/` is always a whole snapshot, also after a crash.
fn take_for_recycling(root: &SnapshotRoot, staging: &Room, retired: &str) -> Result<()> {
    let expired = root.room("expired")?;
    let Place { directory, path } = expired.place();
    rename_no_replace(directory, &c_name(retired), staging.place().directory, &c_name(RECYCLED))
        .map_err(|cause| Error::io("recycle", &path.join(retired), cause))?;
    for place in [staging.place(), expired.place()] {
        fsync(place.directory).map_err(|cause| Error::io("sync", place.path, cause))?;
    }
    forget(root, retired)
}

/// Removes what is known of a snapshot that exists no longer.
pub fn forget(root: &SnapshotRoot, name: &str) -> Result<()> {
    let index = root.room(index_file::ROOM).and_then(|room| remove_file(room.place(), name));
    let record = root.room("records").and_then(|room| remove_file(room.place(), &file_name(name)));
    index.and(record).map(drop)
}

/// Removes what a killed run left in staging, its temporary files, and records of snapshots
/// that exist no longer. Returns whether there was anything, and goes on after errors.
pub fn clean_up(root: &SnapshotRoot, visible: &[String], retired: &[String]) -> (bool, Vec<Error>) {
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
    keep(remove_orphans(root, "records", alive().map(|name| file_name(name)).collect()));
    keep(remove_orphans(root, index_file::ROOM, alive().cloned().collect()));
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

/// Removes a tree that could not be published. Errors can wait: the next run cleans up again.
pub fn discard_staging(root: &SnapshotRoot) {
    if let Err(error) = clear_staging(root) {
        log::debug!("staging remains for the next run: {error}");
    }
}

/// Removes whatever is in staging, for a holder of the long lock; goes on after the first error.
pub fn clear_staging(root: &SnapshotRoot) -> Result<()> {
    empty_staging(root).and(remove_staged_beside(root)).map(drop)
}

fn empty_staging(root: &SnapshotRoot) -> Result<bool> {
    let found = remove_all(root, root.room("staging")?.place(), |_| true);
    let is_copies = |name: &[u8]| name == ORIGINALS.to_bytes();
    let copies = remove_all(root, root.room(DRAFTS)?.place(), is_copies);
    found.and_then(|found| Ok(found | copies?))
}

fn remove_staged_beside(root: &SnapshotRoot) -> Result<bool> {
    let place = Place { directory: root.directory(), path: &root.path };
    remove_all(root, place, |name| name.starts_with(BESIDE.as_bytes()))
}

/// Removes the trees in a place of `root` whose names are selected; the first error is kept.
fn remove_all(root: &SnapshotRoot, place: Place, selected: impl Fn(&[u8]) -> bool) -> Result<bool> {
    let Place { directory, path } = place;
    let listing = Listing::read(directory).map_err(|cause| Error::io("read", path, cause))?;
    let names = listing.entries().iter().map(|entry| listing.name(entry));
    let names: Vec<CString> =
        names.filter(|name| selected(name.to_bytes())).map(CStr::to_owned).collect();
    if names.is_empty() {
        return Ok(false);
    }
    let _window = Window::open(root.room(inode_log::ROOM)?.place())?;
    let (_, remaining) = remove_trees(directory, path, &names)?;
    let errors: Vec<Error> =
        remaining.into_iter().map(|remains| unremovable::set_aside(root, place, remains)).collect();
    errors.into_iter().next().map_or(Ok(true), Err)
}

fn remove_temporaries(root: &SnapshotRoot) -> Result<bool> {
    // Whoever writes there without the long lock holds this one.
    let _guard = Guard::on_directory(root.private())?;
    let (drafts, inodes) = (root.room(DRAFTS)?, root.room(inode_log::ROOM)?);
    let mut found = Ok(false);
    for place in [root.private(), drafts.place(), inodes.place()] {
        let is_temporary = |name: &String| name.ends_with(TEMPORARY);
        let removed = names_in(place)
            .and_then(|names| remove_files(place, names.into_iter().filter(is_temporary)));
        found = found.and_then(|found| Ok(found | removed?));
    }
    found
}

/// Snapshots with a record or an index that the listings of `visible` and `retired` ones lack,
/// though each is there by its name: a file system with a server may list a directory as it was
/// some seconds ago. One that cannot be looked up may be there, and comes with the reason.
pub fn unlisted(
    root: &SnapshotRoot,
    visible: &[String],
    retired: &[String],
) -> Result<Vec<(String, Option<Errno>)>> {
    let listed: HashSet<&String> = visible.iter().chain(retired).collect();
    let records = names_in(root.room("records")?.place())?;
    let records = records.iter().filter_map(|name| snapshot_name(name)).map(str::to_string);
    let indexes = names_in(root.room(index_file::ROOM)?.place())?;
    let mut names: Vec<String> =
        records.chain(indexes).filter(|name| !listed.contains(name)).collect();
    names.sort_unstable();
    names.dedup();
    let expired = root.room("expired")?;
    let places = [root.directory(), expired.place().directory];
    let look_up = |name: String| {
        let looks = places.map(|place| stat_entry(place, &c_name(&name)).map(drop));
        let cause =
            looks.iter().find_map(|look| look.err().filter(|cause| *cause != Errno::ENOENT));
        match looks.contains(&Ok(())) {
            true => Some((name, None)),
            false => cause.map(|cause| (name, Some(cause))),
        }
    };
    Ok(names.into_iter().filter_map(look_up).collect())
}

/// Removes the files in a room that belong to no snapshot.
fn remove_orphans(root: &SnapshotRoot, room: &'static str, owned: HashSet<String>) -> Result<bool> {
    let room = root.room(room)?;
    remove_files(
        room.place(),
        names_in(room.place())?.into_iter().filter(|name| !owned.contains(name)),
    )
}

/// Removes all that can be removed; whether there was any, or the first error.
fn remove_files(place: Place, names: impl Iterator<Item = String>) -> Result<bool> {
    let mut found = Ok(false);
    for name in names {
        let removed = remove_file(place, &name);
        found = found.and_then(|found| Ok(found | removed?));
    }
    found
}

/// Removes one file of ours; false if it was gone already.
pub fn remove_file(place: Place, name: &str) -> Result<bool> {
    match unlinkat(place.directory.as_fd(), c_name(name).as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(cause) => Err(Error::io("remove", &place.path.join(name), cause)),
    }
}
