//! What differs between the live tree and a snapshot: names and inode numbers from directory
//! reads, and the directories' own attributes. No file is opened, and few are even looked at.
//!
//! Equal name and equal inode number mean the same file, because a snapshot's entries *are* the
//! live ones. Along the way the live tree's [`Fingerprint`] is taken, which tells later whether
//! anything in it was touched.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use serde::{Deserialize, Serialize};

use super::attributes;
use super::copy::{Copies, InodePair};
use super::descent::Descent;
use super::listing::{Entry, Listing};
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
}

/// A tree's root directory and its path for messages.
pub type Root<'a> = (BorrowedFd<'a>, &'a Path);

/// Compares `live` with `snapshot`, or with nothing.
pub fn compare_trees(live: Root, snapshot: Option<Root>, known: &Known) -> Result<Comparison> {
    let descent = |(root, path): Root| {
        Descent::new(root, path.to_path_buf()).map_err(|cause| Error::io("open", path, cause))
    };
    let mut walk = Walk {
        live: descent(live)?,
        snapshot: descent(snapshot.unwrap_or(live))?,
        known,
        frames: Vec::new(),
        comparison: Comparison::default(),
    };
    let live_stat = fstat(walk.live.directory()).map_err(|cause| walk.live.error("inspect", None, cause))?;
    match snapshot {
        Some(_) => {
            let stat = fstat(walk.snapshot.directory());
            let stat = stat.map_err(|cause| walk.snapshot.error("inspect", None, cause))?;
            walk.compare_directory(&live_stat, &stat)?;
        }
        None => walk.count_live_directory(&live_stat)?,
    }
    walk.run()?;
    Ok(walk.comparison)
}

struct Walk<'a> {
    live: Descent,
    snapshot: Descent,
    known: &'a Known,
    frames: Vec<Frame>,
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
    pending: Vec<(CString, Side)>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(frame) = self.frames.last_mut() {
            match frame.pending.pop() {
                Some((name, side)) => self.enter(&name, side)?,
                None => self.leave()?,
            }
        }
        Ok(())
    }

    fn enter(&mut self, name: &CStr, side: Side) -> Result<()> {
        let live = match side {
            Side::Snapshot => None,
            Side::Both | Side::Live => match self.live.enter(name) {
                Ok(stat) => Some(stat),
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
            },
        };
        let snapshot = match side {
            Side::Live => None,
            Side::Both | Side::Snapshot => {
                let entered = self.snapshot.enter(name);
                Some(entered.map_err(|cause| self.snapshot.error("open the directory", Some(name), cause))?)
            }
        };
        match (live, snapshot) {
            (Some(live), Some(snapshot)) => self.compare_directory(&live, &snapshot),
            (Some(live), None) => self.count_live_directory(&live),
            (None, _) => self.count_snapshot_directory(),
        }
    }

    fn leave(&mut self) -> Result<()> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        if frame.side != Side::Snapshot {
            self.live.leave().map_err(|cause| self.live.error("return to", None, cause))?;
        }
        if frame.side != Side::Live {
            self.snapshot.leave().map_err(|cause| self.snapshot.error("return to", None, cause))?;
        }
        Ok(())
    }

    fn compare_directory(&mut self, live_stat: &FileStat, snapshot_stat: &FileStat) -> Result<()> {
        let directories = (self.live.directory(), self.snapshot.directory());
        let differ = attributes::differ(directories.0, live_stat, directories.1, snapshot_stat);
        if differ.map_err(|cause| self.live.error("compare the attributes of", None, cause))? {
            self.comparison.changed += 1;
        }
        let mut live = self.read_live(live_stat)?;
        let mut snapshot = self.read_snapshot()?;
        live.sort();
        snapshot.sort();
        let mut pending = Vec::new();
        let (mut a, mut b) = (live.entries().iter().peekable(), snapshot.entries().iter().peekable());
        loop {
            let order = match (a.peek(), b.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => live.name(a).cmp(snapshot.name(b)),
            };
            let in_live = (order != Ordering::Greater).then(|| a.next()).flatten();
            let in_snapshot = (order != Ordering::Less).then(|| b.next()).flatten();
            let name =
                in_live.map(|entry| live.name(entry)).or(in_snapshot.map(|entry| snapshot.name(entry)));
            self.compare_entry(name.unwrap_or_default(), in_live, in_snapshot, &mut pending);
        }
        self.frames.push(Frame { side: Side::Both, pending });
        Ok(())
    }

    /// Compares one name that is in either directory or both.
    fn compare_entry(
        &mut self,
        name: &CStr,
        live: Option<&Entry>,
        snapshot: Option<&Entry>,
        pending: &mut Vec<(CString, Side)>,
    ) {
        match (live, snapshot) {
            (Some(live), Some(snapshot)) if live.is_directory && snapshot.is_directory => {
                pending.push((name.to_owned(), Side::Both));
            }
            (Some(live), Some(snapshot)) if !live.is_directory && !snapshot.is_directory => {
                if live.inode != snapshot.inode && !self.is_known_copy(name, live.inode, snapshot.inode) {
                    self.comparison.changed += 1;
                }
            }
            // One side only, or a directory that became something else or the other way round.
            (live, snapshot) => {
                if let Some(live) = live
                    && !self.is_known_mount(name)
                {
                    self.comparison.added += 1;
                    if live.is_directory {
                        pending.push((name.to_owned(), Side::Live));
                    }
                }
                if let Some(snapshot) = snapshot {
                    self.comparison.removed += 1;
                    if snapshot.is_directory {
                        pending.push((name.to_owned(), Side::Snapshot));
                    }
                }
            }
        }
    }

    fn count_live_directory(&mut self, stat: &FileStat) -> Result<()> {
        let listing = self.read_live(stat)?;
        self.comparison.added += listing.entries().len() as u64;
        self.push_directories(&listing, Side::Live);
        Ok(())
    }

    fn count_snapshot_directory(&mut self) -> Result<()> {
        let listing = self.read_snapshot()?;
        self.comparison.removed += listing.entries().len() as u64;
        self.push_directories(&listing, Side::Snapshot);
        Ok(())
    }

    fn push_directories(&mut self, listing: &Listing, side: Side) {
        let directories = listing.entries().iter().filter(|entry| entry.is_directory);
        let pending = directories.map(|entry| (listing.name(entry).to_owned(), side)).collect();
        self.frames.push(Frame { side, pending });
    }

    fn read_live(&mut self, stat: &FileStat) -> Result<Listing> {
        let listing =
            Listing::read(self.live.directory()).map_err(|cause| self.live.error("read", None, cause))?;
        let ctime_ns = stat.st_ctime.wrapping_mul(1_000_000_000).wrapping_add(stat.st_ctime_nsec);
        let Fingerprint { directories, entries, ctime_sum } = &mut self.comparison.fingerprint;
        *directories += 1;
        *entries += listing.entries().len() as u64;
        // TOML holds no larger integers.
        *ctime_sum = ctime_sum.wrapping_add(ctime_ns) & i64::MAX;
        self.comparison.newest_ctime_ns = self.comparison.newest_ctime_ns.max(ctime_ns);
        Ok(listing)
    }

    fn read_snapshot(&self) -> Result<Listing> {
        Listing::read(self.snapshot.directory()).map_err(|cause| self.snapshot.error("read", None, cause))
    }

    /// Whether the snapshot has a copy of the live inode, which has not been written since. The
    /// name does not matter: what counts is that the content is there under it.
    fn is_known_copy(&self, name: &CStr, live: u64, copy: u64) -> bool {
        let known = self.known.copies.get(&InodePair { live, copy });
        known.is_some_and(|known| {
            stat_entry(self.live.directory(), name).is_ok_and(|stat| known.is_current(&stat))
        })
    }

    fn is_known_mount(&self, name: &CStr) -> bool {
        !self.known.mounts.is_empty() && self.known.mounts.contains(&self.live.relative_path(Some(name)))
    }
}
