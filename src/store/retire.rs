//! From a visible snapshot to nothing, in two steps between which it can be brought back.
//!
//! *Retire*: note when → rename all that go into `expired/` → fsync of the root → fsync of
//! `expired/`. After the rename a snapshot is out of sight as a whole, so no half tree is ever
//! visible, and what lies in `expired/` is a whole snapshot, too. All of it happens under the
//! state's short lock, after a last look at the pins.
//!
//! *Remove*: rename into staging → fsync of both → unlink entry by entry. What is being removed is
//! no longer in `expired/`, so no command can bring half of it back, and a run that is killed
//! leaves it where the next one cleans up.
//!
//! Between the two lies the grace that the policy gives, by default until the next run. The newest
//! one stays even longer: the next snapshot is made out of it ([`publish`](crate::store::publish)), which
//! costs a fraction of removing this one and making that one.

use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat};
use nix::unistd::fsync;

use crate::decide::duration_text::DurationText;
use crate::engine::obstacle::obstacle;
use crate::engine::remove::remove_trees;
use crate::store::dir::{Dir, OwnedDir, c_name, names_in};
use crate::store::inode_log::windows::LinkWindow;
use crate::store::layout::Subdir;
use crate::store::lock::DirLock;
use crate::store::pin::Pin;
use crate::store::publish::forget;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::store::unremovable;
use crate::system::identity::SysResult;
use crate::system::syscalls::{is_privileged, rename_no_replace, stat_entry};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;

/// Takes the snapshots `names` out of sight, durably; returns the errors of those that stay, and of
/// a state that could not be written for lack of space. One that has been pinned meanwhile stays
/// without a word.
pub(crate) fn retire(
    root: &SnapshotRoot,
    names: &[String],
    now: DateTime<Utc>,
) -> Result<Vec<Error>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let guard = DirLock::on_directory(root.private())?;
    let expired = root.subdir(Subdir::Expired)?;
    let mut errors = Vec::new();
    let state = match note_retirement(root, &guard, names, now) {
        // Somebody who wants room must get it, even if the grace begins a little later for it.
        Err(error) if error.is_lack_of_space() => {
            errors.push(error);
            State::read(root.private())?
        }
        noted => noted?,
    };
    for name in names.iter().filter(|name| !state.pins.contains_key(*name)) {
        if let Err(cause) = move_to_expired(root, expired.dir(), name) {
            let (from, to) = (root.path.join(name), expired.dir().path.join(name));
            errors.push(Error::io_pair("retire", &from, &to, cause));
        }
    }
    sync_move(root, &expired)?;
    Ok(errors)
}

/// What [`make_way`] found in the way of `names` that are about to be retired.
#[derive(Debug, Default)]
pub(crate) struct FreedNames {
    /// Those that can be retired.
    pub free: Vec<String>,
    /// Those whose names retired snapshots within their grace have.
    pub taken: Vec<String>,
    /// What kept a retired snapshot from being removed.
    pub errors: Vec<Error>,
}

/// Removes retired snapshots whose names are wanted: a person may have made another snapshot of
/// that name. One that can still be brought back stays: `past_grace` names those that may go.
pub(crate) fn make_way(
    root: &SnapshotRoot,
    names: &[String],
    past_grace: &[String],
) -> Result<FreedNames> {
    let retired = retired(root)?;
    let is_in_the_way = |name: &&String| retired.contains(name);
    let over: Vec<String> = names
        .iter()
        .filter(is_in_the_way)
        .filter(|name| past_grace.contains(name))
        .cloned()
        .collect();
    let mut way = FreedNames { errors: remove(root, &over)?.errors, ..FreedNames::default() };
    for name in names {
        let is_taken = retired.contains(name) && !over.contains(name);
        if is_taken { way.taken.push(name.clone()) } else { way.free.push(name.clone()) }
    }
    Ok(way)
}

/// Notes since when they are retired, and forgets that of snapshots that are gone.
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

/// Both sides of a move; the second also if the first one fails, whose error is kept.
fn sync_move(root: &SnapshotRoot, expired: &OwnedDir) -> Result<()> {
    let from = fsync(root.directory()).map_err(|cause| Error::io("sync", &root.path, cause));
    from.and(sync(expired))
}

fn sync(dir: &OwnedDir) -> Result<()> {
    let dir = dir.dir();
    fsync(dir.directory).map_err(|cause| Error::io("sync", dir.path, cause))
}

fn move_to_expired(root: &SnapshotRoot, expired: Dir, name: &str) -> SysResult<()> {
    let name = c_name(name);
    match rename_no_replace(root.directory(), &name, expired.directory, &name) {
        // A directory that its owner may not write cannot change its parent.
        Err(Errno::EACCES) if !is_privileged() => {
            let stat = fstatat(root.directory(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let writable = Mode::from_bits_truncate(stat.st_mode & 0o7777) | Mode::S_IWUSR;
            fchmodat(root.directory(), name.as_c_str(), writable, FchmodatFlags::NoFollowSymlink)?;
            rename_no_replace(root.directory(), &name, expired.directory, &name)
        }
        answer => answer,
    }
}

/// Brings the retired snapshot `name` back, with a pin: else the next rotation would retire it
/// again.
///
/// # Errors
/// [`Error::Snapshot`] if there is none of that name, or a visible snapshot has the name.
pub(crate) fn undelete(root: &SnapshotRoot, name: &str, now: DateTime<Utc>) -> Result<()> {
    let guard = DirLock::on_directory(root.private())?;
    let expired = root.subdir(Subdir::Expired)?;
    if !retired(root)?.iter().any(|present| present == name) {
        return Err(Error::Snapshot {
            root: root.label(),
            problem: format!("no retired snapshot {}", escape(name.as_bytes())),
            remedy: "`list --expired` shows those that can be brought back",
        });
    }
    if stat_entry(root.directory(), &c_name(name)).is_ok() {
        return Err(Error::Snapshot {
            root: root.label(),
            problem: format!("another snapshot {} is visible", escape(name.as_bytes())),
            remedy: "move that one away first",
        });
    }
    // The pin first: in the moment that the snapshot is visible, it is pinned.
    let (_, is_new) = State::update_guarded(root.private(), &guard, |state| {
        let is_new = !state.pins.contains_key(name);
        state
            .pins
            .entry(name.to_string())
            .or_insert_with(|| Pin::new(now, "brought back by undelete"));
        is_new
    })?;
    let renamed =
        rename_no_replace(expired.dir().directory, &c_name(name), root.directory(), &c_name(name));
    if let Err(cause) = renamed {
        // A run that removes or recycles it was faster: then there is nothing to be pinned.
        if is_new {
            State::update_guarded(root.private(), &guard, |state| state.pins.remove(name))?;
        }
        let (from, to) = (expired.dir().path.join(name), root.path.join(name));
        return Err(Error::io_pair("bring back", &from, &to, cause));
    }
    sync_move(root, &expired)
}

/// The names of the retired snapshots that are still there, oldest first.
pub(crate) fn retired(root: &SnapshotRoot) -> Result<Vec<String>> {
    let mut names = names_in(root.subdir(Subdir::Expired)?.dir())?;
    names.sort_unstable();
    Ok(names)
}

/// What [`past_grace`] found.
pub(crate) struct PastGrace {
    /// The retired snapshots whose grace is over, oldest first.
    pub names: Vec<String>,
    /// Why the grace of others begins even later, for lack of space.
    pub unnoted: Option<Error>,
}

/// The retired snapshots whose grace is over. Without a grace that is all of them.
/// The grace of one of which it is not known since when begins now.
pub(crate) fn past_grace(
    root: &SnapshotRoot,
    grace: Option<DurationText>,
    now: DateTime<Utc>,
) -> Result<PastGrace> {
    let mut past = PastGrace { names: retired(root)?, unnoted: None };
    let Some(grace) = grace else { return Ok(past) };
    let mut since = State::read(root.private())?.retired;
    if past.names.iter().any(|name| !since.contains_key(name)) {
        let noted = State::update(root.private(), |state| {
            for name in &past.names {
                state.retired.entry(name.clone()).or_insert(now);
            }
        });
        match noted {
            Ok(state) => since = state.retired,
            // What is known to be past its grace may go all the same, and make room.
            Err(error) if error.is_lack_of_space() => past.unnoted = Some(error),
            Err(error) => return Err(error),
        }
    }
    // A time in the future was a wrong clock's, and is waited for: too long is better than not at
    // all.
    past.names.retain(|name| since.get(name).is_some_and(|since| *since + grace.delta() <= now));
    Ok(past)
}

/// The retired snapshot that the next one is made from: the newest whose grace is over, which
/// has most in common with it. One that cannot be changed, such as a subvolume, is passed over.
pub(crate) fn recyclable(
    root: &SnapshotRoot,
    grace: Option<DurationText>,
    now: DateTime<Utc>,
) -> Result<Option<String>> {
    if !is_privileged() {
        return Ok(None);
    }
    let expired = root.subdir(Subdir::Expired)?;
    let is_usable = |name: &String| obstacle(expired.dir().directory, &c_name(name)).is_none();
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

/// Removes the retired snapshots `names` for good, all at the same time.
pub(crate) fn remove(root: &SnapshotRoot, names: &[String]) -> Result<Removed> {
    let mut removed = Removed::default();
    if names.is_empty() {
        return Ok(removed);
    }
    let (expired, staging) = (root.subdir(Subdir::Expired)?, root.subdir(Subdir::Staging)?);
    let mut moved = Vec::new();
    for name in names {
        let renamed = rename_no_replace(
            expired.dir().directory,
            &c_name(name),
            staging.dir().directory,
            &c_name(name),
        );
        match renamed {
            Ok(()) => moved.push(name),
            // Somebody has brought it back.
            Err(Errno::ENOENT) => {}
            Err(cause) => {
                let (from, to) = (expired.dir().path.join(name), staging.dir().path.join(name));
                removed.errors.push(Error::io_pair("remove", &from, &to, cause));
            }
        }
    }
    // If that is not durable, nothing of them may be removed: half of one might be found in
    // `expired/` after a crash.
    let synced = sync(&staging).and_then(|()| sync(&expired));
    if let Err(error) = synced {
        removed.errors.push(error);
        return Ok(removed);
    }
    // Even if it fails half-way: what was removed was removed by us.
    let _window = if moved.is_empty() {
        None
    } else {
        Some(LinkWindow::open(root.subdir(Subdir::Inodes)?.dir())?)
    };
    let trees: Vec<_> = moved.iter().map(|name| c_name(name)).collect();
    let (entries, remaining) = remove_trees(staging.dir().directory, staging.dir().path, &trees)?;
    removed.entries = entries;
    removed.trees = trees.len() - remaining.len();
    let set_aside = |remains| unremovable::set_aside(root, staging.dir(), remains);
    removed.errors.extend(remaining.into_iter().map(set_aside));
    removed.errors.extend(moved.iter().filter_map(|name| forget(root, name).err()));
    Ok(removed)
}
