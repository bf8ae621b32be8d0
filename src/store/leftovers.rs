//! Removes what a killed run left: trees in staging, temporary files, and the records and indexes
//! of snapshots that exist no longer.
//!
//! Only the holder of the root's lock does this, so nothing of it belongs to a run that is still
//! working. A record goes only if its snapshot can be found neither in a listing nor by its name: a
//! network file system may list a directory as it was some seconds ago. Before that,
//! [`vanished`](crate::store::vanished) has noted the snapshots that another program removed. The
//! clean-up may stop at any point; the next run removes the rest.

use std::collections::HashSet;
use std::ffi::{CStr, CString};

use nix::errno::Errno;

use crate::engine::copy::ORIGINALS;
use crate::engine::listing::Listing;
use crate::store::dir::{Dir, TEMPORARY, names_in, remove_file, text_name};
use crate::store::inode_log::windows::LinkWindow;
use crate::store::layout::Subdir;
use crate::store::lock::DirLock;
use crate::store::record::{file_name, snapshot_name};
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf};
use crate::store::{restore_staging, unremovable};
use crate::tell::error::{Error, Result};

/// Removes what a killed run left in staging, its temporary files, and records of snapshots
/// that exist no longer, unless `keeps_records`. Returns whether there was anything, and goes on
/// after errors.
pub(crate) fn clean_up(
    root: &SnapshotRoot,
    visible: &[String],
    retired: &[String],
    keeps_records: bool,
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
    keep(remove_restore_staging(root));
    if keeps_records {
        return (found, errors);
    }
    let unlisted = match unlisted(root, visible, retired) {
        Ok(unlisted) => unlisted,
        Err(error) => return (found, errors.into_iter().chain([error]).collect()),
    };
    let alive = || visible.iter().chain(retired).chain(unlisted.iter().map(|(name, _)| name));
    keep(remove_orphans(root, Subdir::Records, alive().map(|name| file_name(name)).collect()));
    keep(remove_orphans(root, Subdir::Index, alive().cloned().collect()));
    for (name, cause) in &unlisted {
        let failed = |cause: &Errno| Error::io("look up", &root.visible(name).path(), *cause);
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
        log::debug!(
            "the rest of an unfinished snapshot stays in .rsyncd-snapshot/staging, and the next \
             run removes it: {error}"
        );
    }
}

/// Empties staging; goes on after the first error. The caller holds the root's lock.
pub(crate) fn clear_staging(root: &SnapshotRoot) -> Result<()> {
    empty_staging(root).and(remove_staged_beside(root)).map(drop)
}

pub(crate) fn empty_staging(root: &SnapshotRoot) -> Result<bool> {
    let staging = root.subdir(Subdir::Staging)?;
    let names = selected_names(staging.dir(), |_| true)?;
    // A snapshot that is being removed keeps its name in staging until its record is gone. So a
    // record that is left without a tree shows that another program removed the snapshot.
    for name in names.iter().filter_map(|name| text_name(name)) {
        forget(root, name)?;
    }
    let found = remove_trees(root, staging.dir(), &names);
    let is_copies = |name: &[u8]| name == ORIGINALS.to_bytes();
    let copies = remove_all(root, root.subdir(Subdir::Drafts)?.dir(), is_copies);
    found.and_then(|found| Ok(found | copies?))
}

pub(crate) fn remove_staged_beside(root: &SnapshotRoot) -> Result<bool> {
    let own =
        |name: &[u8]| str::from_utf8(name).is_ok_and(|name| Shelf::Staging.own(name).is_some());
    let names = selected_names(root.snapshots(), own)?;
    for name in names.iter().filter_map(|name| Shelf::Staging.own(text_name(name)?)) {
        forget(root, name)?;
    }
    remove_trees(root, root.snapshots(), &names)
}

/// Removes the trees in `dir` whose names are selected; returns the first error.
pub(crate) fn remove_all(
    root: &SnapshotRoot,
    dir: Dir,
    selected: impl Fn(&[u8]) -> bool,
) -> Result<bool> {
    remove_trees(root, dir, &selected_names(dir, selected)?)
}

fn selected_names(dir: Dir, selected: impl Fn(&[u8]) -> bool) -> Result<Vec<CString>> {
    let Dir { directory, path } = dir;
    let listing = Listing::read(directory).map_err(|cause| Error::io("read", path, cause))?;
    let names = listing.entries().iter().map(|entry| listing.name(entry));
    Ok(names.filter(|name| selected(name.to_bytes())).map(CStr::to_owned).collect())
}

/// Removes the trees `names` in `dir`; returns whether there were any, or the first error.
fn remove_trees(root: &SnapshotRoot, dir: Dir, names: &[CString]) -> Result<bool> {
    if names.is_empty() {
        return Ok(false);
    }
    let _window = LinkWindow::open(root.subdir(Subdir::Inodes)?.dir())?;
    let (_, remaining) = root.remove(dir, names)?;
    let errors: Vec<Error> =
        remaining.into_iter().map(|remains| unremovable::set_aside(root, dir, remains)).collect();
    errors.into_iter().next().map_or(Ok(true), Err)
}

/// Removes what restores in place left that were killed. Snapshots may share those files by now, so
/// the change of their link counts is one of this program.
fn remove_restore_staging(root: &SnapshotRoot) -> Result<bool> {
    if root.method().is_instant()
        && let Ok(directory) = root.module()
    {
        return restore_staging::remove_leftovers(Dir { directory, path: &root.module_path });
    }
    let restoring = root.subdir(Subdir::Restoring)?;
    if names_in(restoring.dir())?.is_empty() {
        return Ok(false);
    }
    let _window = LinkWindow::open(root.subdir(Subdir::Inodes)?.dir())?;
    restore_staging::remove_leftovers(restoring.dir())
}

pub(crate) fn remove_temporaries(root: &SnapshotRoot) -> Result<bool> {
    // Programs that write without the root's lock hold this lock of the directory.
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
    let expired = OpenShelf::open(root, Shelf::Expired)?;
    let look_up = |name: String| {
        let looks = [root.visible(&name), expired.slot(&name)].map(|slot| slot.look().map(drop));
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
pub(crate) fn remove_orphans(
    root: &SnapshotRoot,
    subdir: Subdir,
    owned: HashSet<String>,
) -> Result<bool> {
    let dir = root.subdir(subdir)?;
    remove_files(dir.dir(), names_in(dir.dir())?.into_iter().filter(|name| !owned.contains(name)))
}

/// Removes all that can be removed; whether there was any, or the first error.
pub(crate) fn remove_files(dir: Dir, names: impl Iterator<Item = String>) -> Result<bool> {
    let mut found = Ok(false);
    for name in names {
        let removed = remove_file(dir, &name);
        found = found.and_then(|found| Ok(found | removed?));
    }
    found
}

/// Removes the index and the record of a snapshot that exists no longer.
pub(crate) fn forget(root: &SnapshotRoot, name: &str) -> Result<()> {
    let index = root.subdir(Subdir::Index).and_then(|dir| remove_file(dir.dir(), name));
    let record =
        root.subdir(Subdir::Records).and_then(|dir| remove_file(dir.dir(), &file_name(name)));
    index.and(record).map(drop)
}
