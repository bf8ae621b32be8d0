//! What differs between the live tree and a snapshot: names and inode numbers from directory
//! reads, and the directories' own attributes. No file is opened, and few are even looked at.
//!
//! Equal name and equal inode number mean the same file, because a snapshot's entries *are* the
//! live ones. Along the way the live tree's [`Fingerprint`] is taken, which tells later whether
//! anything in it was touched. Several workers share the walk; what they found is added up.
//!
//! With the snapshot's [`Index`] a live directory that is as it was is neither read nor compared: one
//! call tells, and the snapshot's directory is not even opened. Every so often the index is put
//! to the proof instead: then everything is compared, and where it was wrong it is said so.

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
use super::index::{Index, Ordinal, Stamp};
use super::listing::Listing;
use super::pool::{self, Pool};
use super::syscalls::stat_entry;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;
use crate::tell::progress;

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
    /// Directories that the index wrongly called unchanged.
    pub index_errors: u64,
    /// Directories that had to be read, of either tree.
    pub directories_read: u64,
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
        self.index_errors += other.index_errors;
        self.directories_read += other.directories_read;
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

/// What is known of the snapshot that is compared with.
#[derive(Default)]
pub struct Knowledge<'a> {
    /// Differences that are none.
    pub known: Known,
    /// Its index, if it has one. What was found unchanged is noted in it.
    pub index: Option<&'a Index>,
    /// Whether everything is compared all the same, to prove the index.
    pub is_proof: bool,
    /// About how many entries it has.
    pub entries: Option<u64>,
}

/// Compares `live` with `snapshot`, or with nothing.
pub fn compare_trees(live: Root, snapshot: Option<Root>, knowledge: &Knowledge) -> Result<Comparison> {
    let start = |(root, path): Root| Start::root(root, path).map_err(|cause| Error::io("open", path, cause));
    let job = Job {
        live: start(live)?,
        snapshot: start(snapshot.unwrap_or(live))?,
        name: None,
        child: Child {
            side: if snapshot.is_some() { Side::Both } else { Side::Live },
            indexed: knowledge.index.map(|_| 0),
        },
    };
    progress::begin("comparing", knowledge.entries);
    let parts = Pool::run(pool::workers(knowledge.entries), vec![job], |job, pool| {
        compare_part(job, knowledge, pool).inspect_err(|_| pool.stop())
    });
    progress::end();
    let mut comparison = Comparison::default();
    for part in parts {
        comparison.add(&part?);
    }
    Ok(comparison)
}

/// A pair of subtrees to compare: `name` in both starts, or these themselves.
struct Job {
    live: Start,
    snapshot: Start,
    name: Option<CString>,
    child: Child,
}

/// What is known of a directory before it is visited.
#[derive(Clone, Copy)]
struct Child {
    side: Side,
    indexed: Option<Ordinal>,
}

fn compare_part(job: Job, knowledge: &Knowledge, pool: &Pool<Job>) -> Result<Comparison> {
    let descent = |start: Start| {
        let path = start.root_path.clone();
        Descent::new(start).map_err(|cause| Error::io("open", &path, cause))
    };
    let mut walk = Walk {
        live: descent(job.live)?,
        snapshot: descent(job.snapshot)?,
        knowledge,
        pool,
        comparer: Comparer::default(),
        listing: Listing::default(),
        frames: Vec::new(),
        base: usize::from(job.name.is_some()),
        comparison: Comparison::default(),
    };
    match job.name {
        Some(name) => walk.enter(&name, job.child)?,
        None => walk.enter_root(job.child)?,
    }
    walk.run()?;
    Ok(walk.comparison)
}

struct Walk<'a> {
    live: Descent,
    snapshot: Descent,
    knowledge: &'a Knowledge<'a>,
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
    pending: Children<Child>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(frame) = self.frames.last_mut() {
            match frame.pending.pop() {
                Some((name, child)) => {
                    self.share();
                    self.enter(&name, child)?;
                }
                None => self.leave(),
            }
        }
        Ok(())
    }

    /// Gives a subtree away if somebody waits for one. Only from where both trees have the directory,
    /// since only there the two descents are at the same depth.
    fn share(&mut self) {
        if self.pool.is_stopped() {
            // Another worker has failed, and with it the comparison.
            self.frames.iter_mut().for_each(|frame| frame.pending = Children::new());
        }
        if !self.pool.is_hungry() {
            return;
        }
        let mut both = self.frames.iter().take_while(|frame| frame.side == Side::Both);
        let Some(index) = both.position(|frame| !frame.pending.is_empty()) else { return };
        let depth = self.base + index;
        let (Ok(live), Ok(snapshot)) = (self.live.start_at(depth), self.snapshot.start_at(depth)) else {
            return;
        };
        if let Some((name, child)) = self.frames[index].pending.pop() {
            self.pool.give(Job { live, snapshot, name: Some(name), child });
        }
    }

    fn enter_root(&mut self, child: Child) -> Result<()> {
        let (_, stat) = self.open_live()?;
        if let Some(ordinal) = self.unchanged(child, &stat) {
            return self.pass(ordinal);
        }
        self.visit(child)
    }

    /// Visits `name`, which is the next to be visited in the directories at hand.
    fn enter(&mut self, name: &CStr, child: Child) -> Result<()> {
        if self.is_unchanged_leaf(name, child) {
            return Ok(());
        }
        if child.side != Side::Snapshot {
            match self.live.enter(name) {
                Ok(stat) => {
                    if let Some(ordinal) = self.unchanged(child, &stat) {
                        self.snapshot.pass(name);
                        return self.pass(ordinal);
                    }
                }
                Err(Errno::EXDEV) => {
                    if !self.knowledge.known.has_mount(&self.live, name) {
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
        if child.side != Side::Live {
            match self.snapshot.enter(name) {
                Ok(_) => {}
                // The index knows it, but somebody has removed it from the snapshot.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ESTALE)
                    if child.side == Side::Both =>
                {
                    self.comparison.added += 1;
                    return self.visit(Child { side: Side::Live, ..child });
                }
                Err(cause) => return Err(self.snapshot.error("open the directory", Some(name), cause)),
            }
        }
        self.visit(child)
    }

    /// Whether `name` is a directory without subdirectories that is as the index says: for most
    /// directories of most trees this is the only call.
    fn is_unchanged_leaf(&mut self, name: &CStr, child: Child) -> bool {
        let Some(index) = self.knowledge.index.filter(|_| !self.knowledge.is_proof) else { return false };
        let Some(ordinal) = child.indexed.filter(|ordinal| index.is_leaf(*ordinal)) else { return false };
        let stat = self.live.directory().and_then(|parent| stat_entry(parent.as_fd(), name));
        match stat
            .ok()
            .filter(|stat| self.live.is_on_same_device(stat))
            .map(|stat| self.unchanged(child, &stat))
        {
            Some(Some(_)) => {
                self.note_unchanged(ordinal);
                true
            }
            _ => false,
        }
    }

    /// The directory's number in the index if it is as that says.
    fn unchanged(&self, child: Child, stat: &FileStat) -> Option<Ordinal> {
        let index = self.knowledge.index.filter(|_| !self.knowledge.is_proof)?;
        child.indexed.filter(|ordinal| index.line(*ordinal).live == Stamp::of(stat))
    }

    /// Goes on with the subdirectories of an unchanged directory.
    fn pass(&mut self, ordinal: Ordinal) -> Result<()> {
        self.note_unchanged(ordinal);
        let mut pending = Children::new();
        if let Some(index) = self.knowledge.index {
            for child in index.children(ordinal) {
                pending.push(index.line(child).name, Child { side: Side::Both, indexed: Some(child) });
            }
        }
        self.frames.push(Frame { side: Side::Both, pending });
        Ok(())
    }

    fn note_unchanged(&mut self, ordinal: Ordinal) {
        let Some(index) = self.knowledge.index else { return };
        index.note_unchanged(ordinal);
        let line = index.line(ordinal);
        self.note_live(line.live.ctime_ns, line.entries.into());
    }

    /// Compares or counts the directories at hand.
    fn visit(&mut self, child: Child) -> Result<()> {
        let mut pending = Children::new();
        self.comparison.directories_read += 1;
        match child.side {
            Side::Both => {
                self.comparison.directories_read += 1;
                self.compare_directory(child.indexed, &mut pending)?;
            }
            Side::Live => {
                let (directory, stat) = self.open_live()?;
                let entries = self.count(&directory, Side::Live, &mut pending)?;
                self.comparison.added += entries;
                self.note_live(Stamp::of(&stat).ctime_ns, entries);
            }
            Side::Snapshot => {
                let (directory, _) = self.open_snapshot()?;
                self.comparison.removed += self.count(&directory, Side::Snapshot, &mut pending)?;
            }
        }
        self.frames.push(Frame { side: child.side, pending });
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

    fn compare_directory(&mut self, indexed: Option<Ordinal>, pending: &mut Children<Child>) -> Result<()> {
        let before = self.comparison;
        let (live, live_stat) = self.open_live()?;
        let (snapshot, snapshot_stat) = self.open_snapshot()?;
        let differ = attributes::differ(live.as_fd(), &live_stat, snapshot.as_fd(), &snapshot_stat);
        if differ.map_err(|cause| self.live.error("compare the attributes of", None, cause))? {
            self.comparison.changed += 1;
        }
        let index = self.knowledge.index;
        let siblings = index.zip(indexed).map(|(index, ordinal)| index.children(ordinal).collect::<Vec<_>>());
        let Walk { comparer, live: live_descent, snapshot: snapshot_descent, knowledge, comparison, .. } =
            self;
        let failed = |side, cause| match side {
            Unread::Live => live_descent.error("read", None, cause),
            Unread::Snapshot => snapshot_descent.error("read", None, cause),
        };
        let mut entry = Entry {
            known: &knowledge.known,
            live: live_descent,
            directory: live.as_fd(),
            comparison,
            pending,
            index: index.zip(siblings.as_deref()),
        };
        let entries =
            differences((live.as_fd(), snapshot.as_fd()), comparer, failed, |name, live, snapshot| {
                entry.compare(name, live, snapshot);
                Ok(())
            })?;
        self.note_live(Stamp::of(&live_stat).ctime_ns, entries);
        self.prove(indexed, &live, &live_stat, &before);
        Ok(())
    }

    /// Holds the index against what a comparison of this directory found.
    fn prove(&mut self, indexed: Option<Ordinal>, live: &Directory, stat: &FileStat, before: &Comparison) {
        let Some((index, ordinal)) = self.knowledge.index.zip(indexed) else { return };
        let stamp = Stamp::of(stat);
        if index.line(ordinal).live != stamp {
            return;
        }
        let found = |comparison: &Comparison| comparison.added + comparison.changed + comparison.removed;
        // It may have changed between its state and its content.
        let is_still = || fstat(live).is_ok_and(|stat| Stamp::of(&stat) == stamp);
        if found(before) == found(&self.comparison) {
            index.note_unchanged(ordinal);
        } else if is_still() {
            self.comparison.index_errors += 1;
            let path = escape(&self.live.relative_path(None));
            log::error!(
                "the index calls the directory {path:?} unchanged, but it differs from the snapshot's"
            );
        }
    }

    /// Counts the entries of a directory that only one side has.
    fn count(&mut self, directory: &Directory, side: Side, pending: &mut Children<Child>) -> Result<u64> {
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
                pending.push(listing.name(entry), Child { side, indexed: None });
            }
            if !listing.read_next(directory.as_fd()).map_err(failed)? {
                break;
            }
        }
        self.listing = listing;
        Ok(entries)
    }

    fn note_live(&mut self, ctime_ns: i64, entries: u64) {
        progress::add(entries);
        let fingerprint = Fingerprint { directories: 1, entries, ctime_sum: ctime_ns & i64::MAX };
        self.comparison.add(&Comparison { fingerprint, newest_ctime_ns: ctime_ns, ..Comparison::default() });
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
    pending: &'a mut Children<Child>,
    index: Option<(&'a Index, &'a [Ordinal])>,
}

impl Entry<'_> {
    fn compare(&mut self, name: &CStr, live: Option<Found>, snapshot: Option<Found>) {
        match (live, snapshot) {
            (Some(live), Some(snapshot)) if live.is_directory && snapshot.is_directory => {
                let indexed = self.index.and_then(|(index, siblings)| index.find(siblings, name));
                self.pending.push(name, Child { side: Side::Both, indexed });
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
                        self.pending.push(name, Child { side: Side::Live, indexed: None });
                    }
                }
                if let Some(snapshot) = snapshot {
                    self.comparison.removed += 1;
                    if snapshot.is_directory {
                        self.pending.push(name, Child { side: Side::Snapshot, indexed: None });
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
