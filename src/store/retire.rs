//! Removes a visible snapshot in two steps, *retire* and *remove*. In between it can be brought
//! back.
//!
//! *Retire*: read the leases → note the time → rename all that go into `expired/` → fsync of the
//! root → fsync of `expired/`. The rename hides a snapshot as a whole, so no half tree is ever
//! visible, and what lies in `expired/` is a whole snapshot, too. All up to the rename happens
//! under the ledger's lock, so that no reader begins meanwhile; all of it under the state's short
//! lock, after the pins were read once more.
//!
//! *Remove*: read the leases → rename into staging → fsync of both → remove the record → unlink
//! entry by entry. The tree that is being removed is no longer in `expired/`, so no command can
//! bring half of it back, and the next run cleans up after a run that is killed. The record goes
//! before the tree does, so a record without a tree is never that of a snapshot which this program
//! removed.
//!
//! Between the two steps lies the `grace` of the policy. A program that reads a snapshot without a
//! [lease](crate::store::leases), such as a shell, has that time to finish. The newest retired
//! snapshot whose grace is over stays longer: the next snapshot is made out of it
//! ([`publish`](crate::store::publish)), which takes a fraction of the time of removing one and
//! making the other. What has to go before its grace is over is removed, and never made into
//! another snapshot: so a reader gets errors, and not files of two states.

use std::ffi::CString;

use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat};

use crate::decide::duration_text::DurationText;
use crate::decide::lease::SnapshotReader;
use crate::engine::obstacle::obstacle;
use crate::store::dir::{self, c_name};
use crate::store::inode_log::windows::LinkWindow;
use crate::store::layout::Subdir;
use crate::store::leases::{LeaseTerms, Leases, LockedLeases};
use crate::store::leftovers::forget;
use crate::store::lock::DirLock;
use crate::store::lost_links;
use crate::store::pin::Pin;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf, Slot};
use crate::store::snapshot_method::SnapshotMethod;
use crate::store::state::State;
use crate::store::unremovable;
use crate::system::identity::SysResult;
use crate::system::syscalls::{is_privileged, stat_entry};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;

/// What leases do to a run that retires or removes snapshots.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LeaseRule {
    /// What is being read stays.
    Hold(LeaseTerms),
    /// They hold nothing: the space is needed, or the administrator has asked for it.
    Override,
}

impl LeaseRule {
    fn holder(self, leases: &Leases, name: &str) -> Option<SnapshotReader> {
        match self {
            LeaseRule::Hold(terms) => leases.holder(name, terms),
            LeaseRule::Override => None,
        }
    }
}

/// What [`retire`] did.
#[derive(Debug, Default)]
pub(crate) struct Retirement {
    /// One for each snapshot that stays because of an error, and the error of a state that could
    /// not be written for lack of space.
    pub errors: Vec<Error>,
    /// The snapshots that stay because they are being read.
    pub read: Vec<(String, SnapshotReader)>,
}

/// Retires the snapshots `names`, durably. A snapshot that has been pinned meanwhile stays without
/// an error. The caller holds neither the ledger nor the state's lock.
pub(crate) fn retire(
    root: &SnapshotRoot,
    names: &[String],
    leases: LeaseRule,
    now: DateTime<Utc>,
) -> Result<Retirement> {
    let mut retirement = Retirement::default();
    if names.is_empty() {
        return Ok(retirement);
    }
    // The ledger's lock comes before the state's, as everywhere.
    let locked = LockedLeases::open(root)?;
    let held = locked.read()?;
    let (names, read): (Vec<String>, Vec<String>) =
        names.iter().cloned().partition(|name| leases.holder(&held, name).is_none());
    let reader = |name: String| leases.holder(&held, &name).map(|reader| (name, reader));
    retirement.read = read.into_iter().filter_map(reader).collect();
    if names.is_empty() {
        return Ok(retirement);
    }
    let names = &names;
    let guard = DirLock::on_directory(root.private())?;
    let expired = OpenShelf::open(root, Shelf::Expired)?;
    let errors = &mut retirement.errors;
    let state = match note_retirement(root, &guard, names, now) {
        // On a full disk, space is needed more than the time; a later run notes when the grace
        // begins.
        Err(error) if error.is_lack_of_space() => {
            errors.push(error);
            State::read(root.private())?
        }
        noted => noted?,
    };
    for name in names.iter().filter(|name| !state.pins.contains_key(*name)) {
        let from = root.visible(name);
        let to = expired.slot_of(&from, name);
        if let Err(cause) = move_to_expired(&from, &to) {
            errors.push(Error::io_pair("retire", &from.path(), &to.path(), cause));
        }
    }
    // From here on a reader finds that the name is gone.
    drop(locked);
    sync_move(root, &expired)?;
    Ok(retirement)
}

/// Which of the names that [`free_names`] was asked for are free, so that a snapshot can be retired
/// under them.
#[derive(Debug, Default)]
pub(crate) struct FreedNames {
    /// No retired snapshot has these names now.
    pub free: Vec<String>,
    /// Retired snapshots within their grace have these names.
    pub taken: Vec<String>,
    /// Why retired snapshots could not be removed.
    pub errors: Vec<Error>,
}

/// Removes retired snapshots that have the names of snapshots to be retired. Two can have one name
/// if the administrator has made a directory of the name again. A retired snapshot that can still
/// be brought back stays; `past_grace` names those that may go.
pub(crate) fn free_names(
    root: &SnapshotRoot,
    names: &[String],
    past_grace: &[String],
    leases: LeaseRule,
) -> Result<FreedNames> {
    let retired = retired(root)?;
    let is_in_the_way = |name: &&String| retired.contains(name);
    let over: Vec<String> = names
        .iter()
        .filter(is_in_the_way)
        .filter(|name| past_grace.contains(name))
        .cloned()
        .collect();
    let mut way =
        FreedNames { errors: remove(root, &over, leases)?.errors, ..FreedNames::default() };
    for name in names {
        let is_taken = retired.contains(name) && !over.contains(name);
        if is_taken { way.taken.push(name.clone()) } else { way.free.push(name.clone()) }
    }
    Ok(way)
}

/// Records that `names` are retired from `now` on, and drops the times of snapshots that are gone.
fn note_retirement(
    root: &SnapshotRoot,
    guard: &DirLock,
    names: &[String],
    now: DateTime<Utc>,
) -> Result<State> {
    let present = retired(root)?;
    let (state, ()) = State::update_guarded(root.private(), guard, |state| {
        state.retired.retain(|name, _| present.contains(name));
        for name in names.iter().filter(|name| !state.pins.contains_key(*name)) {
            state.retired.insert(name.clone(), now);
        }
    })?;
    Ok(state)
}

/// Syncs both directories of a move, the second also if the first one fails; returns the first
/// error.
fn sync_move(root: &SnapshotRoot, expired: &OpenShelf) -> Result<()> {
    let from = dir::sync(root.snapshots());
    from.and(dir::sync(expired.subdir()))
}

fn move_to_expired(from: &Slot, to: &Slot) -> SysResult<()> {
    match from.move_to(to) {
        // A directory moves to another parent only if its owner may write into it.
        Err(Errno::EACCES) if !is_privileged() => {
            let (parent, name) = (from.dir.directory, from.name.as_c_str());
            let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let writable = Mode::from_bits_truncate(stat.st_mode & 0o7777) | Mode::S_IWUSR;
            fchmodat(parent, name, writable, FchmodatFlags::NoFollowSymlink)?;
            from.move_to(to)
        }
        answer => answer,
    }
}

/// Brings the retired snapshot `name` back and pins it, so that the next rotation does not retire
/// it again.
///
/// # Errors
/// [`Error::Snapshot`] if there is none of that name, or a visible snapshot has the name.
pub(crate) fn undelete(root: &SnapshotRoot, name: &str, now: DateTime<Utc>) -> Result<()> {
    let guard = DirLock::on_directory(root.private())?;
    check_undelete(root, name)?;
    let expired = OpenShelf::open(root, Shelf::Expired)?;
    // The pin comes first, so that the snapshot is never visible without it.
    let (_, is_new) = State::update_guarded(root.private(), &guard, |state| {
        let is_new = !state.pins.contains_key(name);
        state
            .pins
            .entry(name.to_string())
            .or_insert_with(|| Pin::new(now, "brought back by undelete"));
        is_new
    })?;
    let from = expired.slot(name);
    if let Err(cause) = from.move_to(&root.visible(name)) {
        // Another run has removed or recycled it, so there is nothing to pin.
        if is_new {
            State::update_guarded(root.private(), &guard, |state| state.pins.remove(name))?;
        }
        return Err(Error::io("bring back the retired snapshot", &from.path(), cause));
    }
    sync_move(root, &expired)
}

/// Makes sure that [`undelete`] can bring the retired snapshot `name` back.
///
/// # Errors
/// [`Error::Snapshot`] if there is none of that name, or a visible snapshot has the name.
pub(crate) fn check_undelete(root: &SnapshotRoot, name: &str) -> Result<()> {
    if !retired(root)?.iter().any(|present| present == name) {
        return Err(Error::Snapshot {
            root: root.label(),
            problem: format!("no retired snapshot {}", escape(name.as_bytes())),
            remedy: "`list --expired` shows those that can be brought back",
        });
    }
    if root.visible(name).look().is_ok() {
        return Err(Error::Snapshot {
            root: root.label(),
            problem: format!("another snapshot {} is visible", escape(name.as_bytes())),
            remedy: "move that one away first",
        });
    }
    Ok(())
}

/// The names of the retired snapshots that are still there, oldest first.
pub(crate) fn retired(root: &SnapshotRoot) -> Result<Vec<String>> {
    let mut names = OpenShelf::open(root, Shelf::Expired)?.names()?;
    names.sort_unstable();
    Ok(names)
}

/// What [`past_grace`] found.
pub(crate) struct PastGrace {
    /// The retired snapshots whose grace is over, oldest first.
    pub names: Vec<String>,
    /// Why the beginning of the others' grace could not be recorded, for lack of space.
    pub unnoted: Option<Error>,
}

/// The retired snapshots whose grace is over. If it is not recorded when a snapshot was retired,
/// its grace begins now.
pub(crate) fn past_grace(
    root: &SnapshotRoot,
    grace: DurationText,
    now: DateTime<Utc>,
) -> Result<PastGrace> {
    let mut past = PastGrace { names: retired(root)?, unnoted: None };
    let mut since = State::read(root.private())?.retired;
    if past.names.iter().any(|name| !since.contains_key(name)) {
        let noted = State::update(root.private(), |state| {
            for name in &past.names {
                state.retired.entry(name.clone()).or_insert(now);
            }
        });
        match noted {
            Ok(state) => since = state.retired,
            // Snapshots whose grace is over may go all the same, and free space.
            Err(error) if error.is_lack_of_space() => past.unnoted = Some(error),
            Err(error) => return Err(error),
        }
    }
    // A time in the future came from a wrong clock. The snapshot stays until that time: too long a
    // grace is better than none.
    past.names.retain(|name| since.get(name).is_some_and(|since| *since + grace.delta() <= now));
    Ok(past)
}

/// The retired snapshot that the next one is made from: the newest whose grace is over, which has
/// most in common with it. A snapshot that cannot be changed, such as a subvolume, is skipped, and
/// so is one that may still be read.
pub(crate) fn recyclable(
    root: &SnapshotRoot,
    grace: DurationText,
    now: DateTime<Utc>,
) -> Result<Option<String>> {
    if !is_privileged() || root.method() != SnapshotMethod::HardLinks {
        return Ok(None);
    }
    let expired = OpenShelf::open(root, Shelf::Expired)?;
    let leases = Leases::look(root)?;
    // Only trees of hard links are in this directory.
    let is_usable = |name: &String| {
        stat_entry(expired.subdir().directory, &c_name(name)).is_ok()
            && obstacle(expired.subdir().directory, &c_name(name)).is_none()
            && !leases.may_be_read(name)
    };
    Ok(past_grace(root, grace, now)?.names.into_iter().rfind(is_usable))
}

/// What [`remove`] did.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Whole snapshots.
    pub trees: usize,
    /// Files and directories in them.
    pub entries: u64,
    /// One for each snapshot of which something could not be removed.
    pub errors: Vec<Error>,
}

/// Removes the retired snapshots `names` for good, all at the same time. One that is being read
/// stays for a later run, unless `leases` says otherwise.
pub(crate) fn remove(root: &SnapshotRoot, names: &[String], leases: LeaseRule) -> Result<Removed> {
    let mut removed = Removed::default();
    if names.is_empty() {
        return Ok(removed);
    }
    let expired = OpenShelf::open(root, Shelf::Expired)?;
    let staging = OpenShelf::open(root, Shelf::Staging)?;
    let mut moved = Vec::new();
    let locked = LockedLeases::open(root)?;
    let held = locked.read()?;
    for name in names {
        if let Some(reader) = leases.holder(&held, name) {
            log::debug!("the retired snapshot {name} is not removed: {reader}");
            continue;
        }
        let from = expired.slot(name);
        let to = staging.slot_of(&from, name);
        match from.move_to(&to) {
            Ok(()) => moved.push((name, to)),
            // The administrator has brought it back.
            Err(Errno::ENOENT) => {}
            Err(cause) => {
                removed.errors.push(Error::io_pair("remove", &from.path(), &to.path(), cause));
            }
        }
    }
    drop(locked);
    // If the moves are not durable, nothing may be removed: after a crash half a tree might be in
    // `expired/`.
    let mut synced = dir::sync(staging.subdir()).and_then(|()| dir::sync(expired.subdir()));
    if moved.iter().any(|(_, to)| to.is_beside) {
        synced = synced.and_then(|()| dir::sync(root.snapshots()));
    }
    if let Err(error) = synced {
        removed.errors.push(error);
        return Ok(removed);
    }
    let linked: Vec<&String> =
        moved.iter().filter(|(_, to)| !to.is_beside).map(|(name, _)| *name).collect();
    lost_links::note_before_removal(root, staging.subdir(), &linked);
    let mut trees = Vec::new();
    for (name, to) in moved {
        match forget(root, name) {
            Ok(()) => trees.push(to),
            // The tree waits in staging for the next run.
            Err(error) => removed.errors.push(error),
        }
    }
    if trees.is_empty() {
        return Ok(removed);
    }
    // The window covers a removal that fails half-way, too.
    let _window = LinkWindow::open(root.subdir(Subdir::Inodes)?.dir())?;
    removed.trees = trees.len();
    let (beside, linked): (Vec<Slot>, Vec<Slot>) =
        trees.into_iter().partition(|slot| slot.is_beside);
    for (dir, slots) in [(staging.subdir(), linked), (root.snapshots(), beside)] {
        let names: Vec<CString> = slots.into_iter().map(|slot| slot.name).collect();
        let (entries, remaining) = root.remove(dir, &names)?;
        removed.entries += entries;
        removed.trees -= remaining.len();
        let set_aside = |remains| unremovable::set_aside(root, dir, remains);
        removed.errors.extend(remaining.into_iter().map(set_aside));
    }
    Ok(removed)
}
