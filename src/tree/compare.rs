//! What differs between the live tree and a snapshot: names and inode numbers from directory
//! reads, and the directories' own attributes. No file is opened, and few are even looked at.
//!
//! Equal name and equal inode number mean the same file, because a snapshot's entries *are* the
//! live ones. Along the way the live tree's [`Fingerprint`] is taken, which tells later whether
//! anything in it was touched. Several workers share the walk; what they found is added up.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use serde::{Deserialize, Serialize};

use super::attributes;
use super::children::Children;
use super::copy::{Copies, InodePair};
use super::descent::{Descent, Directory, Start};
use super::difference::{Comparer, Found, Side as Unread, differences};
use super::listing::Listing;
use super::pool::{self, Pool};
use super::syscalls::stat_entry;
use crate::tell::error::{Error, Result};

/// A summary of a live tree that any added, removed or renamed entry changes. Change times
/// are the kernel's: no client can set them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Directories, the root included.
    pub directories: u64,
    /// Entries, directories included, the root not.
    pub entries: u64,
    /// The sum of the directories' change times in nanoseconds, modulo 2⁶³.
    pub ctime_sum: i64,
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Of the live tree.
    pub fingerprint: Fingerprint,
    /// The newest change time of a live directory, in nanoseconds since 1970.
    pub newest_ctime_ns: i64,
    /// Entries that only the live tree has.
    pub added: u64,
    /// Entries of the same name that are other files, and directories with other attributes.
    pub changed: u64,
    /// Entries that only the snapshot has.
    pub removed: u64,
}

impl Comparison {
    /// Whether anything differs.
    pub fn differs(&self) -> bool {
        self.added + self.changed + self.removed > 0
    }

    fn add(&mut self, other: &Comparison) {
        self.fingerprint.directories += other.fingerprint.directories;
        self.fingerprint.entries += other.fingerprint.entries;
        // TOML holds no larger integers.
        self.fingerprint.ctime_sum =
            self.fingerprint.ctime_sum.wrapping_add(other.fingerprint.ctime_sum) & i64::MAX;
        self.newest_ctime_ns = self.newest_ctime_ns.max(other.newest_ctime_ns);
        self.added += other.added;
        self.changed += other.changed;
        self.removed += other.removed;
    }
}

/// Differences that the snapshot's record explains.
#[derive(Debug, Default)]
pub struct Known {
    copies: Copies,
    mounts: HashSet<Vec<u8>>,
}

impl Known {
    /// From what was recorded when the snapshot was made.
    pub fn new(copies: Copies, mounts: Vec<Vec<u8>>) -> Self {
        Known { copies, mounts: mounts.into_iter().collect() }
    }

    fn has_mount(&self, live: &Descent, name: &CStr) -> bool {
        !self.mounts.is_empty() && self.mounts.contains(&live.relative_path(Some(name)))
    }
}

/// A tree's root directory and its path for messages.
pub type Root<'a> = (BorrowedFd<'a>, &'a Path);

/// Compares `live`, of about `entries` entries, with `snapshot`, or with nothing.
pub fn compare_trees(
    live: Root,
    snapshot: Option<Root>,
    known: &Known,
    entries: Option<u64>,
) -> Result<Comparison> {
    let start = |(root, path): Root| Start::root(root, path).map_err(|cause| Error::io("open", path, cause));
    let job = Job {
        live: start(live)?,
        snapshot: start(snapshot.unwrap_or(live))?,
        child: None,
        side: if snapshot.is_some() { Side::Both } else { Side::Live },
    };
    let parts = Pool::run(pool::workers(entries), vec![job], |job, pool| {
        compare_part(job, known, pool).inspect_err(|_| pool.stop())
    });
    let mut comparison = Comparison::default();
    for part in parts {
        comparison.add(&part?);
    }
    Ok(comparison)
}

/// A pair of subtrees to compare: `child` of both starts, or these themselves.
struct Job {
    live: Start,
    snapshot: Start,
    child: Option<CString>,
    side: Side,
}

fn compare_part(job: Job, known: &Known, pool: &Pool<Job>) -> Result<Comparison> {
    let descent = |start: Start| {
        let path = start.root_path.clone();
        Descent::new(start).map_err(|cause| Error::io("open", &path, cause))
    };
    let mut walk = Walk {
        live: descent(job.live)?,
        snapshot: descent(job.snapshot)?,
        known,
        pool,
        comparer: Comparer::default(),
        listing: Listing::default(),
        frames: Vec::new(),
        base: usize::from(job.child.is_some()),
        comparison: Comparison::default(),
    };
    match job.child {
        Some(name) => walk.enter(&name, job.side)?,
        None => walk.visit(job.side)?,
    }
    walk.run()?;
    Ok(walk.comparison)
}

struct Walk<'a> {
    live: Descent,
    snapshot: Descent,
    known: &'a Known,
    pool: &'a Pool<Job>,
    comparer: Comparer,
    listing: Listing,
    frames: Vec<Frame>,
    /// How many levels below the start the first frame is.
    base: usize,
    comparison: Comparison,
}

/// Which trees have a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Both,
    Live,
    Snapshot,
}

struct Frame {
    side: Side,
    pending: Children<Side>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(frame) = self.frames.last_mut() {
            match frame.pending.pop() {
                Some((name, side)) => {
                    self.share()?;
                    self.enter(&name, side)?;
                }
                None => self.leave(),
            }
        }
        Ok(())
    }

    /// Gives a subtree away if somebody waits for one. Only from where both trees have the directory,
    /// since only there the two descents are at the same depth.
    fn share(&mut self) -> Result<()> {
        if self.pool.is_stopped() {
            self.frames.clear();
            return Ok(());
        }
        if !self.pool.is_hungry() {
            return Ok(());
        }
        let both = self.frames.iter().take_while(|frame| frame.side == Side::Both);
        let Some(index) = both.take(self.frames.len()).position(|frame| !frame.pending.is_empty()) else {
            return Ok(());
        };
        let depth = self.base + index;
        let (Ok(live), Ok(snapshot)) = (self.live.start_at(depth), self.snapshot.start_at(depth)) else {
            return Ok(());
        };
        if let Some((name, side)) = self.frames[index].pending.pop() {
            self.pool.give(Job { live, snapshot, child: Some(name), side });
        }
        Ok(())
    }

    fn enter(&mut self, name: &CStr, side: Side) -> Result<()> {
        if side != Side::Snapshot {
            match self.live.enter(name) {
                Ok(_) => {}
                Err(Errno::EXDEV) => {
                    if !self.is_known_mount(name) {
                        self.comparison.changed += 1;
                    }
                    return Ok(());
                }
                // It is gone or something else by now: a change in any case.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                    self.comparison.changed += 1;
                    return Ok(());
                }
                Err(cause) => return Err(self.live.error("open the directory", Some(name), cause)),
            }
        }
        if side != Side::Live {
            let entered = self.snapshot.enter(name);
            entered.map_err(|cause| self.snapshot.error("open the directory", Some(name), cause))?;
        }
        self.visit(side)
    }

    /// Compares or counts the directories at hand.
    fn visit(&mut self, side: Side) -> Result<()> {
        let mut pending = Children::new();
        match side {
            Side::Both => self.compare_directory(&mut pending)?,
            Side::Live => {
                let (directory, stat) = self.open_live()?;
                let entries = self.count(&directory, Side::Live, &mut pending)?;
                self.comparison.added += entries;
                self.note_live(&stat, entries);
            }
            Side::Snapshot => {
                let (directory, _) = self.open_snapshot()?;
                self.comparison.removed += self.count(&directory, Side::Snapshot, &mut pending)?;
            }
        }
        self.frames.push(Frame { side, pending });
        Ok(())
    }

    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if frame.side != Side::Snapshot {
            self.live.leave();
        }
        if frame.side != Side::Live {
            self.snapshot.leave();
        }
    }

    fn open_live(&mut self) -> Result<(Directory, FileStat)> {
        open_with_state(&mut self.live)
    }

    fn open_snapshot(&mut self) -> Result<(Directory, FileStat)> {
        open_with_state(&mut self.snapshot)
    }

    fn compare_directory(&mut self, pending: &mut Children<Side>) -> Result<()> {
        let (live, live_stat) = self.open_live()?;
        let (snapshot, snapshot_stat) = self.open_snapshot()?;
        let differ = attributes::differ(live.as_fd(), &live_stat, snapshot.as_fd(), &snapshot_stat);
        if differ.map_err(|cause| self.live.error("compare the attributes of", None, cause))? {
            self.comparison.changed += 1;
        }
        let Walk { comparer, live: live_descent, snapshot: snapshot_descent, known, comparison, .. } = self;
        let failed = |side, cause| match side {
            Unread::Live => live_descent.error("read", None, cause),
            Unread::Snapshot => snapshot_descent.error("read", None, cause),
        };
        let mut entry = Entry { known, live: live_descent, directory: live.as_fd(), comparison, pending };
        let entries =
            differences((live.as_fd(), snapshot.as_fd()), comparer, failed, |name, live, snapshot| {
                entry.compare(name, live, snapshot);
                Ok(())
            })?;
        self.note_live(&live_stat, entries);
        Ok(())
    }

    /// Counts the entries of a directory that only one side has.
    fn count(&mut self, directory: &Directory, side: Side, pending: &mut Children<Side>) -> Result<u64> {
        let mut entries = 0;
        let mut listing = std::mem::take(&mut self.listing);
        let failed = |cause| match side {
            Side::Snapshot => self.snapshot.error("read", None, cause),
            Side::Both | Side::Live => self.live.error("read", None, cause),
        };
        listing.read_first(directory.as_fd()).map_err(failed)?;
        loop {
            entries += listing.entries().len() as u64;
            for entry in listing.entries().iter().filter(|entry| entry.is_directory) {
                pending.push(listing.name(entry), side);
            }
            if !listing.read_next(directory.as_fd()).map_err(failed)? {
                break;
            }
        }
        self.listing = listing;
        Ok(entries)
    }

    fn note_live(&mut self, stat: &FileStat, entries: u64) {
        let ctime_ns = stat.st_ctime.wrapping_mul(1_000_000_000).wrapping_add(stat.st_ctime_nsec);
        let fingerprint = Fingerprint { directories: 1, entries, ctime_sum: ctime_ns & i64::MAX };
        self.comparison.add(&Comparison { fingerprint, newest_ctime_ns: ctime_ns, ..Comparison::default() });
    }

    fn is_known_mount(&self, name: &CStr) -> bool {
        self.known.has_mount(&self.live, name)
    }
}

fn open_with_state(descent: &mut Descent) -> Result<(Directory, FileStat)> {
    let directory = descent.directory().map_err(|cause| descent.error("return to", None, cause))?;
    let stat = fstat(&directory).map_err(|cause| descent.error("inspect", None, cause))?;
    Ok((directory, stat))
}

/// What is needed to judge one name that differs.
struct Entry<'a> {
    known: &'a Known,
    live: &'a Descent,
    directory: BorrowedFd<'a>,
    comparison: &'a mut Comparison,
    pending: &'a mut Children<Side>,
}

impl Entry<'_> {
    fn compare(&mut self, name: &CStr, live: Option<Found>, snapshot: Option<Found>) {
        match (live, snapshot) {
            (Some(live), Some(snapshot)) if live.is_directory && snapshot.is_directory => {
                self.pending.push(name, Side::Both);
            }
            (Some(live), Some(snapshot)) if !live.is_directory && !snapshot.is_directory => {
                if !self.is_known_copy(name, live.inode, snapshot.inode) {
                    self.comparison.changed += 1;
                }
            }
            // One side only, or a directory that became something else or the other way round.
            (live, snapshot) => {
                if let Some(live) = live
                    && !self.known.has_mount(self.live, name)
                {
                    self.comparison.added += 1;
                    if live.is_directory {
                        self.pending.push(name, Side::Live);
                    }
                }
                if let Some(snapshot) = snapshot {
                    self.comparison.removed += 1;
                    if snapshot.is_directory {
                        self.pending.push(name, Side::Snapshot);
                    }
                }
            }
        }
    }

    /// Whether the snapshot has a copy of the live inode, which has not been written since. The
    /// name does not matter: what counts is that the content is there under it.
    fn is_known_copy(&self, name: &CStr, live: u64, copy: u64) -> bool {
        let known = self.known.copies.get(&InodePair { live, copy });
        known.is_some_and(|known| stat_entry(self.directory, name).is_ok_and(|stat| known.is_current(&stat)))
    }
}
