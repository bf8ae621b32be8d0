//! From the live tree to a visible snapshot.
//!
//! Order: retired snapshot, if one is recycled, into staging → clone into staging → attributes bottom-up → record → `syncfs`, checked → rename
//! without replacing → fsync of the root. Before the rename a crash leaves only staging and a record
//! without a snapshot, which [`clean_up`] removes; at the rename everything in the tree is on
//! disk, file contents that rsync never synced included; after the fsync the name is, too. So
//! a name in the root is a complete, durable tree at every instant.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, fsync, syncfs, unlinkat};

use super::catalog::names_in;
use super::durable::{DRAFTS, Place, TEMPORARY, c_name};
use super::index_file;
use super::lock::Guard;
use super::record::{Record, file_name};
use super::root::{Room, SnapshotRoot};
use crate::tell::error::{Error, Result};
use crate::tree::clone::{Cloned, Knowledge, Stage, clone_tree};
use crate::tree::copy::ORIGINALS;
use crate::tree::index::{Index, Part};
use crate::tree::listing::Listing;
use crate::tree::remove::remove_trees;
use crate::tree::syscalls::{is_privileged, rename_no_replace};

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
    parts: Vec<Part>,
}

impl Staged {
    /// Clones the module, which has about `entries` entries if that is known, into staging: out of the retired snapshot
    /// `recycle` if there is one and it can be used, else afresh. `newest` is the index by which the
    /// module was compared; without it the retired one's is not used either.
    ///
    /// Renaming a directory to another parent needs write permission on that directory itself,
    /// which an unprivileged run lacks where the module is read-only for it. It stages in the root, under
    /// a name that is no snapshot's, and recycles nothing.
    pub fn build(
        root: &SnapshotRoot,
        recycle: Option<&str>,
        newest: Option<&Index>,
        entries: Option<u64>,
    ) -> Result<Self> {
        let room = root.room("staging")?;
        let knowledge = Knowledge { newest, retired: None, entries };
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
                    });
                }
                Err(error) => {
                    log::warn!("{retired} cannot be recycled, the snapshot is made afresh: {error}");
                }
            }
        }
        let beside = !is_privileged();
        let name = c_name(&if beside { format!("{BESIDE}{STAGED}") } else { STAGED.to_string() });
        let parent = if beside { root.directory() } else { room.place().directory };
        let drafts = root.room(DRAFTS)?;
        let stage = Stage { parent, name: &name, is_recycled: false, drafts: drafts.place().directory };
        let (cloned, parts) = clone_tree((root.module(), &root.module_path), &stage, knowledge)?;
        Ok(Staged { name, beside, room, cloned, parts, recycled: None })
    }

    /// Makes the staged tree durable, then visible as the snapshot `name`.
    pub fn publish(self, root: &SnapshotRoot, name: &str, record: &Record) -> Result<()> {
        let path = root.path.join(name);
        record.write_before_syncfs(root.room("records")?.place(), name)?;
        index_file::write_before_syncfs(root, name, self.parts, self.cloned.entries)?;
        // The descriptor is on the module's file system, whose data has to be durable.
        syncfs(root.directory()).map_err(|cause| Error::io("sync the file system of", &root.path, cause))?;
        let parent = if self.beside { root.directory() } else { self.room.place().directory };
        rename_no_replace(parent, &self.name, root.directory(), &c_name(name))
            .map_err(|cause| Error::io("publish", &path, cause))?;
        fsync(root.directory()).map_err(|cause| Error::io("sync", &root.path, cause))
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
    let stage = Stage { parent: room.place().directory, name: &c_name(RECYCLED), is_recycled: true, drafts };
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
    remove_file(root.room(index_file::ROOM)?.place(), name)?;
    remove_file(root.room("records")?.place(), &file_name(name)).map(drop)
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
    let alive = || visible.iter().chain(retired);
    keep(remove_orphans(root, "records", alive().map(|name| file_name(name)).collect()));
    keep(remove_orphans(root, index_file::ROOM, alive().cloned().collect()));
    (found, errors)
}

/// Removes a tree that could not be published. Errors can wait: the next run cleans up again.
pub fn discard_staging(root: &SnapshotRoot) {
    for result in [empty_staging(root), remove_staged_beside(root)] {
        if let Err(error) = result {
            log::debug!("staging remains for the next run: {error}");
        }
    }
}

fn empty_staging(root: &SnapshotRoot) -> Result<bool> {
    let room = root.room("staging")?;
    let found = remove_all(room.place().directory, room.place().path, |_| true)?;
    let drafts = root.room(DRAFTS)?;
    let is_copies = |name: &[u8]| name == ORIGINALS.to_bytes();
    Ok(remove_all(drafts.place().directory, drafts.place().path, is_copies)? || found)
}

fn remove_staged_beside(root: &SnapshotRoot) -> Result<bool> {
    remove_all(root.directory(), &root.path, |name| name.starts_with(BESIDE.as_bytes()))
}

/// Removes the trees in `directory` whose names are selected; the first error is kept.
pub fn remove_all(directory: BorrowedFd, path: &Path, selected: impl Fn(&[u8]) -> bool) -> Result<bool> {
    let listing = Listing::read(directory).map_err(|cause| Error::io("read", path, cause))?;
    let names = listing.entries().iter().map(|entry| listing.name(entry));
    let names: Vec<CString> = names.filter(|name| selected(name.to_bytes())).map(CStr::to_owned).collect();
    let (_, errors) = remove_trees(directory, path, &names)?;
    errors.into_iter().next().map_or(Ok(!names.is_empty()), Err)
}

fn remove_temporaries(root: &SnapshotRoot) -> Result<bool> {
    // Whoever writes there without the long lock holds this one.
    let _guard = Guard::on_directory(root.private())?;
    let drafts = root.room(DRAFTS)?;
    let mut found = false;
    for place in [root.private(), drafts.place()] {
        for name in names_in(place)?.into_iter().filter(|name| name.ends_with(TEMPORARY)) {
            found |= remove_file(place, &name)?;
        }
    }
    Ok(found)
}

/// Removes the files in a room that belong to no snapshot.
fn remove_orphans(root: &SnapshotRoot, room: &'static str, owned: HashSet<String>) -> Result<bool> {
    let room = root.room(room)?;
    let mut found = false;
    for name in names_in(room.place())?.into_iter().filter(|name| !owned.contains(name)) {
        found |= remove_file(room.place(), &name)?;
    }
    Ok(found)
}

/// Removes one file of ours; false if it was gone already.
pub fn remove_file(place: Place, name: &str) -> Result<bool> {
    match unlinkat(place.directory.as_fd(), c_name(name).as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(cause) => Err(Error::io("remove", &place.path.join(name), cause)),
    }
}
