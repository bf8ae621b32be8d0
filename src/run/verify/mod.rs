//! Whether snapshots are still what they were: every inode in them is held against the catalogue.
//!
//! Four walks, of which the usual one is enough where nothing is wrong:
//!
//! 1. `survey`: each inode is looked at once. What differs from what is recorded is suspect, and so
//!    is what was touched at a time that is not ours.
//! 2. `touches`: only for the latter, which names it had before and after.
//! 3. `naming`: only for what is altered, all of its names in all snapshots, with a last look at
//!    it.
//! 4. `refresh`: what was never recorded is, and what is gone is taken out. Only this one needs the
//!    root's lock; what else disappears meanwhile is not reported.
//!
//! Nothing is opened but directories, and nothing is changed that the file system would note.

mod hashing;
mod naming;
mod refresh;
mod repair;
mod survey;
mod touches;

use std::collections::HashSet;
use std::ffi::CString;

use chrono::{DateTime, Utc};
use nix::errno::Errno;

use crate::decide::damage::{Change, Damage, Moment};
use crate::engine::inodes::{Name, walk};
use crate::module::target::Target;
use crate::run::hold::{Hold, Released};
use crate::run::request::Request;
use crate::store::dir::OwnedDir;
use crate::store::dir::names_in;
use crate::store::dir::{Dir, c_name};
use crate::store::inode_log::windows::Windows;
use crate::store::inode_log::{Catalogue, Position};
use crate::store::layout::Subdir;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::Catalog;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::system::syscalls::{Identity, stat_entry};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;

pub use hashing::hash_contents;
pub use refresh::{compact_if_outgrown, take_up};
pub use repair::{Repaired, repair};

/// What a verification found.
#[derive(Debug, Default)]
pub struct Verified {
    /// How many snapshots were looked at.
    pub snapshots: usize,
    /// How many inodes in them were held against the catalogue.
    pub inodes: u64,
    /// How many were never recorded, and are from now on.
    pub unknown: u64,
    /// How many were touched by others in a way that may have been a rename or a deletion: without
    /// a hash of their content this cannot be told.
    pub unprovable: u64,
    /// How many show another inode number each time they are looked at, so that nothing can be said
    /// of them.
    pub unstable: u64,
    /// Why the file system cannot be trusted with that, if a trial has shown it.
    pub file_system: Option<String>,
    /// Files and directories that could not be read; the log says which.
    pub unreadable: u64,
    /// Bytes of the catalogue that are damaged.
    pub lost_bytes: u64,
    /// Whether change times count: whether it is known when we made links ourselves.
    pub has_windows: bool,
    /// What was altered, by path.
    pub altered: Vec<Altered>,
    /// How many inodes that are.
    pub altered_inodes: HashSet<u64>,
}

/// A path in snapshots whose file has been altered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered {
    /// Relative to the snapshot.
    pub path: Vec<u8>,
    /// The inode's number.
    pub inode: u64,
    /// How it differs from what it was.
    pub changes: Vec<Change>,
    /// The snapshots that are damaged, oldest first.
    pub snapshots: Vec<String>,
}

impl Verified {
    /// Whether anything was altered.
    pub fn is_damaged(&self) -> bool {
        !self.altered.is_empty()
    }

    /// Whether there are files of which it cannot be told, for the file system does not keep what
    /// is needed.
    pub fn is_uncertain(&self) -> bool {
        self.unstable > 0 || self.file_system.is_some()
    }

    /// How many snapshots are damaged.
    pub fn damaged_snapshots(&self) -> usize {
        self.altered.iter().flat_map(|altered| &altered.snapshots).collect::<HashSet<_>>().len()
    }

    fn damage(&self, now: DateTime<Utc>, before: Option<Damage>) -> Option<Damage> {
        const FIRST: usize = 10;
        self.is_damaged().then(|| Damage {
            since: before.map_or(now, |before| before.since),
            files: self.altered_inodes.len() as u64,
            snapshots: self.damaged_snapshots() as u64,
            first: self.altered.iter().take(FIRST).map(|altered| escape(&altered.path)).collect(),
        })
    }
}

/// A snapshot.
struct Snapshot {
    name: String,
    c_name: CString,
    identity: Identity,
    /// Its place in the catalogue, if anything was recorded with it.
    position: Option<Position>,
    /// When its tree began to be linked, nanoseconds since 1970; by its name if nothing was
    /// recorded with it.
    began_ns: i64,
    /// Whether it is in `expired/`.
    is_retired: bool,
}

/// What a verification works on.
struct Case<'a> {
    root: &'a SnapshotRoot,
    inodes: OwnedDir,
    expired: OwnedDir,
    catalogue: Option<Catalogue>,
    /// The visible ones, oldest first.
    snapshots: Vec<Snapshot>,
    /// Those that are retired: nobody asks for them, but they tell which names an inode had.
    retired: Vec<Snapshot>,
}

impl<'a> Case<'a> {
    fn open(target: &Target, root: &'a SnapshotRoot) -> Result<Self> {
        // Before the visible ones: what is retired meanwhile is then in one of the lists at least.
        let inodes = root.subdir(Subdir::Inodes)?;
        let catalogue = Catalogue::read(inodes.dir())?;
        let expired = root.subdir(Subdir::Expired)?;
        let mut case =
            Case { root, inodes, expired, catalogue, snapshots: Vec::new(), retired: Vec::new() };
        for item in Catalog::read(root, &target.policy.time_zone)?.items {
            let by_name = item.name.time.timestamp_nanos_opt().unwrap_or(i64::MAX);
            case.snapshots.extend(case.find(item.name.text, by_name, false)?);
        }
        for name in retire::retired(root)? {
            case.retired.extend(case.find(name, i64::MAX, true)?);
        }
        Ok(case)
    }

    /// The snapshot `name`, unless it has gone since.
    fn find(&self, name: String, named_ns: i64, is_retired: bool) -> Result<Option<Snapshot>> {
        let c_name = c_name(&name);
        let Dir { directory, path } = self.parent(is_retired);
        let identity = match stat_entry(directory, &c_name) {
            Ok(stat) => Identity::of(&stat),
            Err(Errno::ENOENT) => return Ok(None),
            Err(cause) => return Err(Error::io("inspect", &path.join(&name), cause)),
        };
        let recorded = self.catalogue.as_ref().and_then(|catalogue| {
            let position = catalogue.position(&name)?;
            Some((position, catalogue.began_ns(position)))
        });
        let began_ns = recorded.map_or(named_ns, |(_, began_ns)| began_ns);
        let position = recorded.map(|(position, _)| position);
        Ok(Some(Snapshot { name, c_name, identity, position, began_ns, is_retired }))
    }

    fn dir(&self, snapshot: &Snapshot) -> Dir<'_> {
        self.parent(snapshot.is_retired)
    }

    fn parent(&self, is_retired: bool) -> Dir<'_> {
        match is_retired {
            true => self.expired.dir(),
            false => Dir { directory: self.root.directory(), path: &self.root.path },
        }
    }

    /// Whether a snapshot is still where it was; else another may have been made out of it
    /// meanwhile.
    fn is_still_there(&self, snapshot: &Snapshot) -> bool {
        let Dir { directory, path } = self.dir(snapshot);
        match stat_entry(directory, &snapshot.c_name) {
            Ok(stat) => Identity::of(&stat) == snapshot.identity,
            Err(Errno::ENOENT) => false,
            Err(cause) => {
                log::warn!("{}", Error::io("inspect", &path.join(&snapshot.name), cause));
                true
            }
        }
    }

    /// Visits all names in a snapshot; returns how many directories could not be read.
    fn walk(&self, snapshot: &Snapshot, visit: &mut dyn FnMut(&Name)) -> u64 {
        let Dir { directory, path } = self.dir(snapshot);
        walk(directory, path, &snapshot.c_name, visit)
    }
}

/// An inode that was touched by others at some time, though nothing of it differs.
#[derive(Debug, Clone, Copy)]
struct Touch {
    inode: u64,
    at: Moment,
    /// The snapshot that it was recorded with, if it is not what the inode itself says.
    recorded: Option<Position>,
}

/// Verifies all snapshots of a module, and remembers the result.
///
/// # Errors
/// If root, catalogue or state cannot be read.
pub fn verify(target: &Target, clock: &Clock) -> Result<Verified> {
    let root = target.open_root()?;
    crate::system::priority::lower_priority(&target.policy);
    let (verified, stale) = look(target, &root)?;
    // What a run has linked anew, and not yet recorded, looks as if it were its own doing.
    let is_uncertain = !names_in(root.subdir(Subdir::Staging)?.dir())?.is_empty();
    State::update(root.private(), |state| {
        let before = state.damage.take();
        state.damage =
            verified.damage(clock.now(), before.clone()).or(before.filter(|_| is_uncertain));
    })?;
    locked(target, &root, clock, || refresh::refresh(target, &root, &stale, &HashSet::new()))?;
    Ok(verified)
}

/// Accepts what was altered: from now on it is to be as it is.
///
/// # Errors
/// As [`verify`]; [`Error::Busy`] if a run holds the lock all the time.
pub fn accept(target: &Target, clock: &Clock) -> Result<Verified> {
    let root = target.open_root()?;
    let (verified, stale) = look(target, &root)?;
    locked(target, &root, clock, || {
        refresh::refresh(target, &root, &stale, &verified.altered_inodes)
    })?;
    State::update(root.private(), |state| state.damage = None)?;
    Ok(verified)
}

/// Looks at all snapshots without remembering anything. Returns also which inode numbers are
/// recorded for files that are no more.
fn look(target: &Target, root: &SnapshotRoot) -> Result<(Verified, HashSet<u64>)> {
    let case = Case::open(target, root)?;
    let survey = survey::survey(&case);
    // Now, so that what was linked while we looked lies in a window.
    let windows = Windows::read(case.inodes.dir());
    let touches = touches::confirmed(&case, &windows, survey.touches)?;
    let mut verified = Verified {
        snapshots: case.snapshots.len(),
        inodes: survey.inodes,
        unknown: survey.unknown,
        unprovable: touches.unprovable,
        unstable: survey.unstable,
        file_system: root.inode_number_warning(),
        unreadable: survey.unreadable,
        lost_bytes: case.catalogue.as_ref().map_or(0, |catalogue| catalogue.lost_bytes),
        has_windows: windows.are_known(),
        ..Verified::default()
    };
    verified.altered = naming::named(&case, &survey.altered, &touches.in_place);
    case.catalogue.as_ref().map_or(Ok(()), Catalogue::check)?;
    verified.altered_inodes = verified.altered.iter().map(|altered| altered.inode).collect();
    Ok((verified, survey.stale))
}

/// Works under the root's long lock.
fn locked(
    target: &Target,
    root: &SnapshotRoot,
    clock: &Clock,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let request = Request::rotation();
    let is_covered = || Error::Usage("a verification cannot be covered by another run".to_string());
    let hold = Hold::acquire(target, root, &request, clock)?.ok_or_else(is_covered)?;
    let result = work();
    if let Released::Due { mark, held } = hold.release_unless_due(root)?
        && let Err(error) =
            crate::run::order::work_and_hash(target, root, Request::owed(&mark), clock, held)
    {
        log::warn!("{}: the snapshot that fell due meanwhile failed: {error}", target.label());
    }
    result
}
