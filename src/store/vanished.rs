//! `vanished.toml`: the snapshots that [vanished](crate::decide::vanished).
//!
//! The run that first finds a snapshot missing writes its name here, durably, and only then removes
//! its record. So a run that is killed in between leaves the record, and the next run finds it once
//! more. An entry stays after the administrator has accepted it, because it goes on explaining
//! change times in older snapshots; it goes when there are none. For the same reason, `verify`
//! notes snapshots that have lost some of their entries: this program may remove the rest.
//!
//! This program's own removals are never taken for a snapshot that vanished. A removed snapshot
//! passes from the root to `expired/` and from there, under its name, to `staging/`. There its
//! record goes first, and its tree after that. `is_nowhere` looks in the same order (root,
//! `expired/`, `staging/`), so it finds a snapshot that is being moved meanwhile.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use serde::{Deserialize, Serialize};

use crate::decide::vanished::{
    EarlierRuns, RecordWithoutTree, VanishedSnapshot, vanished_line, was_visible,
};
use crate::store::dir::{self, Dir, names_in};
use crate::store::format::{self, FORMAT, to_toml};
use crate::store::layout::{Subdir, VANISHED_FILE};
use crate::store::leftovers::forget;
use crate::store::record::{Record, snapshot_name};
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf};
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::tell::error::{Error, Result};

/// What `vanished.toml` holds.
#[derive(Default, Serialize, Deserialize)]
struct VanishedFile {
    format: u32,
    #[serde(default, rename = "snapshot", skip_serializing_if = "Vec::is_empty")]
    snapshots: Vec<VanishedSnapshot>,
}

/// A root as one reading of it showed it.
#[derive(Clone, Copy)]
pub(crate) struct RootContent<'a> {
    pub root: &'a SnapshotRoot,
    pub state: &'a State,
    pub list: &'a SnapshotList,
    /// The names of the retired snapshots.
    pub retired: &'a [String],
}

impl RootContent<'_> {
    /// Whether the snapshot is visible or retired.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.list.items.iter().any(|item| item.name.text == name)
            || self.retired.iter().any(|retired| retired == name)
    }

    /// The message about the snapshots of `gone` that are not accepted and have not come back.
    pub(crate) fn message(&self, gone: &[VanishedSnapshot]) -> Option<String> {
        let told = self.unaccepted(gone);
        let has_pin = |one: &&VanishedSnapshot| self.state.pins.contains_key(&one.name);
        let pinned: Vec<&str> = told.iter().filter(has_pin).map(|one| one.name.as_str()).collect();
        vanished_line(&told, &pinned)
    }

    /// The snapshots of `gone` that the administrator has not accepted and that have not come back.
    pub(crate) fn unaccepted(&self, gone: &[VanishedSnapshot]) -> Vec<VanishedSnapshot> {
        gone.iter().filter(|one| !one.accepted && !self.has(&one.name)).cloned().collect()
    }
}

/// The snapshots that are noted as vanished.
///
/// # Errors
/// [`Error::Newer`] if a newer version wrote the file, which must not be written over.
pub(crate) fn noted(private: Dir) -> Result<Vec<VanishedSnapshot>> {
    let Some(text) = dir::read(private, VANISHED_FILE)? else { return Ok(Vec::new()) };
    match format::read::<VanishedFile>(&private.path.join(VANISHED_FILE), &text) {
        Ok(file) => Ok(file.snapshots),
        Err(error @ Error::Newer { .. }) => Err(error),
        Err(error) => {
            log::warn!("{error}; which snapshots had vanished is no longer known");
            Ok(Vec::new())
        }
    }
}

/// All snapshots that vanished, those among them that no run has noted yet. Changes nothing.
pub(crate) fn look(content: RootContent, now: DateTime<Utc>) -> Result<Vec<VanishedSnapshot>> {
    if !content.root.is_registered() {
        return Ok(Vec::new());
    }
    let fresh = missed(content, now)?;
    Ok(merged(noted(content.root.private())?, &fresh))
}

/// Notes the snapshots that have vanished, and removes their records. Returns those that were not
/// noted before. The caller holds the root's lock, and has not changed anything in the root yet.
pub(crate) fn note(content: RootContent, now: DateTime<Utc>) -> Result<Vec<VanishedSnapshot>> {
    let fresh = missed(content, now)?;
    let before = noted(content.root.private())?;
    let mut entries = merged(before.clone(), &fresh);
    for entry in &mut entries {
        entry.accepted |= content.has(&entry.name);
    }
    entries.retain(|entry| !entry.accepted || explains_something(content, entry));
    if entries != before {
        write(content.root.private(), entries)?;
    }
    for one in &fresh {
        forget(content.root, &one.name)?;
    }
    Ok(fresh.into_iter().filter(|one| !is_noted(&before, one)).collect())
}

/// Accepts that all of these snapshots are gone. The caller holds the root's lock, and has
/// [noted](note) what vanished.
pub(crate) fn accept(root: &SnapshotRoot) -> Result<()> {
    let mut entries = noted(root.private())?;
    if entries.iter().all(|entry| entry.accepted) {
        return Ok(());
    }
    entries.iter_mut().for_each(|entry| entry.accepted = true);
    write(root.private(), entries)
}

/// Notes snapshots of which another program has removed some entries, so that this explains change
/// times in other snapshots when they are gone, too. The caller holds the root's lock.
pub(crate) fn note_partly(root: &SnapshotRoot, partly: &[VanishedSnapshot]) -> Result<()> {
    if partly.is_empty() {
        return Ok(());
    }
    let before = noted(root.private())?;
    let mut entries = before.clone();
    for one in partly {
        let is_of_it = |entry: &VanishedSnapshot| entry.partly && entry.name == one.name;
        if entries.iter().any(|entry| is_of_it(entry) && entry.gone_by >= one.gone_by) {
            continue;
        }
        entries.retain(|entry| !is_of_it(entry));
        entries.push(one.clone());
    }
    if entries == before { Ok(()) } else { write(root.private(), entries) }
}

fn write(private: Dir, snapshots: Vec<VanishedSnapshot>) -> Result<()> {
    let file = VanishedFile { format: FORMAT, snapshots };
    dir::write_drafted(private, VANISHED_FILE, &to_toml(&file, private)?)
}

/// Whether a snapshot is left that was taken before the entry's links were removed.
fn explains_something(content: RootContent, entry: &VanishedSnapshot) -> bool {
    // A retired snapshot can be brought back.
    !content.retired.is_empty()
        || content.list.items.iter().any(|item| item.name.time <= entry.gone_by)
}

fn is_noted(noted: &[VanishedSnapshot], one: &VanishedSnapshot) -> bool {
    noted.iter().any(|entry| entry.name == one.name && !entry.accepted)
}

fn merged(mut noted: Vec<VanishedSnapshot>, fresh: &[VanishedSnapshot]) -> Vec<VanishedSnapshot> {
    // A run that was killed may have noted a snapshot and not removed its record.
    let new: Vec<VanishedSnapshot> =
        fresh.iter().filter(|one| !is_noted(&noted, one)).cloned().collect();
    noted.extend(new);
    noted
}

/// The snapshots that vanished and still have a record, oldest first.
fn missed(content: RootContent, now: DateTime<Utc>) -> Result<Vec<VanishedSnapshot>> {
    let RootContent { root, state, list, .. } = content;
    let records = match root.subdir(Subdir::Records) {
        Ok(records) => records,
        // `RootAccess::Look` does not make the directory again.
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let files = names_in(records.dir())?;
    let names: BTreeSet<&str> = files.iter().filter_map(|file| snapshot_name(file)).collect();
    let absent: Vec<&str> = names.into_iter().filter(|name| !content.has(name)).collect();
    if absent.is_empty() {
        return Ok(Vec::new());
    }
    let gone_by = last_change(root)?;
    let present: HashSet<u64> =
        list.items.iter().filter_map(|item| item.record.as_ref()?.sequence).collect();
    let last_run = state.last_run.as_ref().map(|run| run.time);
    let sequence = state.sequence.max(list.sequence());
    let runs = EarlierRuns { sequence, present: &present, last_run };
    let mut gone = Vec::new();
    for name in absent {
        if !is_nowhere(root, name)? {
            continue;
        }
        // A record that cannot be read may be one that a crash left.
        let Ok(Some(record)) = Record::read(records.dir(), name) else { continue };
        let Record { adopted, sequence, time, .. } = record;
        if was_visible(&RecordWithoutTree { adopted, sequence, time }, &runs) {
            gone.push(VanishedSnapshot {
                name: name.to_string(),
                taken: time,
                last_seen: last_run.unwrap_or(time),
                gone_by,
                noticed: now,
                accepted: false,
                partly: false,
            });
        }
    }
    Ok(gone)
}

/// Whether the snapshot is at no place of its way from the root to its removal.
fn is_nowhere(root: &SnapshotRoot, name: &str) -> Result<bool> {
    let expired = OpenShelf::open(root, Shelf::Expired)?;
    let staging = OpenShelf::open(root, Shelf::Staging)?;
    // `undelete` may take it back to the root meanwhile.
    let slots = [root.visible(name), expired.slot(name), staging.slot(name), root.visible(name)];
    for slot in slots {
        match slot.look() {
            Ok(_) => return Ok(false),
            Err(Errno::ENOENT) => {}
            Err(cause) => return Err(Error::io("look up", &slot.path(), cause)),
        }
    }
    Ok(true)
}

/// When the directories that snapshots are in were last changed.
fn last_change(root: &SnapshotRoot) -> Result<DateTime<Utc>> {
    let expired = root.subdir(Subdir::Expired)?;
    let time = |stat: FileStat| {
        let nanoseconds = u32::try_from(stat.st_ctime_nsec).unwrap_or(0);
        DateTime::from_timestamp(stat.st_ctime, nanoseconds).unwrap_or(DateTime::<Utc>::MAX_UTC)
    };
    let of = |dir: Dir| {
        fstat(dir.directory).map(time).map_err(|cause| Error::io("inspect", dir.path, cause))
    };
    Ok(of(root.snapshots())?.max(of(expired.dir())?))
}
