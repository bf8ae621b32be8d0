//! `verify` and `release --damage`: a verification whose result is recorded in the state; and
//! `release --vanished`.
//!
//! `verify` records damage before it refreshes the inode log, and a refresh keeps the baselines of
//! altered inodes. `release --damage` clears the record after new baselines are durable. So a crash
//! in between hides no damage.

use std::collections::HashSet;

use crate::decide::vanished::VanishedSnapshot;
use crate::module::target::Target;
use crate::run::order::under_lock;
use crate::run::session::Session;
use crate::run::vanished;
use crate::run::verify::examine::examine;
use crate::run::verify::verified::{LackingSnapshot, Verified};
use crate::run::verify::{known_damage, refresh};
use crate::store;
use crate::store::dir::{self};
use crate::store::layout::Subdir;
use crate::store::record::Record;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf};
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::tell::error::Result;

/// Verifies all snapshots of a module, and records the result in the state.
///
/// # Errors
/// If the root, the inode log or the state cannot be read.
pub(crate) fn verify(target: &Target, clock: &Clock) -> Result<Verified> {
    let root = target.open_root()?;
    crate::system::priority::lower_priority(&target.policy);
    let (mut verified, stale) = examine(target, &root, clock.now())?;
    known_damage::add_known(&root, &mut verified)?;
    known_damage::keep(&root, &verified)?;
    // While a run is building a snapshot, an inode that it has just linked may look unaltered.
    let is_uncertain = !OpenShelf::open(&root, Shelf::Staging)?.names()?.is_empty();
    State::update(root.private(), |state| {
        let before = state.damage.take();
        state.damage =
            verified.damage(clock.now(), before.clone()).or(before.filter(|_| is_uncertain));
    })?;
    let session = Session { target, root: &root, clock };
    under_lock(session, || {
        // The command tells it of the verification.
        vanished::read_and_note(session)?;
        let partly = verified.lost_links.iter();
        let partly: Vec<VanishedSnapshot> =
            partly.map(|(name, lost)| VanishedSnapshot::partly(name, *lost, clock.now())).collect();
        store::vanished::note_partly(&root, &partly)?;
        refresh::refresh(target, &root, &stale, &HashSet::new())
    })?;
    Ok(verified)
}

/// Accepts altered files as they are: new baselines replace the old ones.
///
/// # Errors
/// As [`verify`]; [`Error::Busy`](crate::tell::error::Error::Busy) if a run holds the lock all the
/// time.
pub(crate) fn accept(target: &Target, clock: &Clock) -> Result<Verified> {
    let root = target.open_root()?;
    let (mut verified, stale) = examine(target, &root, clock.now())?;
    known_damage::add_known(&root, &mut verified)?;
    let accepted = verified.altered_inodes.union(&verified.explained_inodes).copied().collect();
    under_lock(Session { target, root: &root, clock }, || {
        refresh::refresh(target, &root, &stale, &accepted)?;
        accept_lacking(&root, &verified)
    })?;
    State::update(root.private(), |state| state.damage = None)?;
    Ok(verified)
}

/// Records how many entries the snapshots have that lack some, or have more. Removes their indexes,
/// which tell of the directories as they were, and indexes that cannot be read.
fn accept_lacking(root: &SnapshotRoot, verified: &Verified) -> Result<()> {
    let lost = verified.gaps.iter().filter(|one| one.is_of_entries && one.gap.is_loss);
    let lost: Vec<&String> = lost.map(|one| &one.snapshot).collect();
    if verified.lacking.is_empty() && lost.is_empty() {
        return Ok(());
    }
    let (records, indexes) = (root.subdir(Subdir::Records)?, root.subdir(Subdir::Index)?);
    for LackingSnapshot { name, lacks, added, .. } in &verified.lacking {
        if let Some(record) = Record::read(records.dir(), name)? {
            let entries = record.entries.saturating_sub(*lacks) + added;
            let record = Record { entries, has_index: false, ..record };
            record.write_before_sync(records.dir(), name)?;
        }
        dir::remove_file(indexes.dir(), name)?;
    }
    for name in lost {
        // `check` tells of a record that cannot be read.
        let Ok(record) = Record::read(records.dir(), name) else { continue };
        if let Some(record) = record {
            let record = Record { has_index: false, ..record };
            record.write_before_sync(records.dir(), name)?;
        }
        dir::remove_file(indexes.dir(), name)?;
    }
    dir::sync(indexes.dir())?;
    dir::sync(records.dir())
}

/// Accepts that snapshots vanished. Returns their names.
///
/// # Errors
/// [`Error::Busy`](crate::tell::error::Error::Busy) if a run holds the lock all the time.
pub(crate) fn accept_vanished(target: &Target, clock: &Clock) -> Result<Vec<String>> {
    let root = target.open_root()?;
    let session = Session { target, root: &root, clock };
    let mut names = Vec::new();
    under_lock(session, || {
        vanished::read_and_note(session)?;
        let state = State::read(root.private())?;
        let list = SnapshotList::read(&root, &target.policy.time_zone)?;
        let gone = vanished::look_at(&root, &state, &list)?.snapshots;
        names = gone.into_iter().map(|one| one.name).collect();
        store::vanished::accept(&root)
    })?;
    Ok(names)
}
