//! Makes a tree of hard links in staging that equals the live tree: afresh, or out of a retired
//! snapshot, in which most of it is there already.
//!
//! Every entry that is not a directory is the same inode; directories are the snapshot's own, with
//! the same owner, mode, times and attributes. In a recycled directory an equal name with an equal
//! inode number stays, whatever else is removed, what is missing is linked.
//!
//! The order is safe against the client: a directory's state is taken before its entries are read and
//! applied after they are in place, so a change in between leaves an older time, which the next
//! comparison notices. Until then each new directory is 0700 within a directory that only we may
//! enter, and so is a retired one as a whole. It is safe against crashes because all of this
//! happens in staging, which the next run empties: no name there is anybody's snapshot.
//!
//! With the indexes of the newest snapshot and of the recycled one ([`index`](super::index)) most
//! directories are not even opened: the live one is as it was when the retired one was made, and that
//! one is as it was made, so they are equal still. Along the way the new snapshot's index is made.
//!
//! Several workers share the walk. All subdirectories are made before any of them is visited, so
//! a directory's own attributes can be applied while another worker is still below it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::attributes;
use super::children::Children;
use super::copy::{self, Copier, Copies};
use super::descent::{Descent, Directory, Start};
use super::difference::{Comparer, Found, Side, differences};
use super::index::{Index, Line, Ordinal, Own, Part, Stamp, max_bytes, now_ns};
use super::listing::Listing;
use super::pool::{self, Pool};
use super::remove::remove_alone;
use super::syscalls::{is_mount_point, open_directory, stat_entry};
use crate::tell::error::{Error, Result};
use crate::tell::progress;

/// What a clone did.
#[derive(Debug, Default)]
pub struct Cloned {
    /// Entries in the tree, directories included, its root not.
    pub entries: u64,
    /// Of these, how many links and directories had to be made.
    pub made: u64,
    /// Entries of the recycled snapshot that had to go.
    pub removed: u64,
    /// Directories that had to be read, of either tree.
    pub directories_read: u64,
    /// Names that are copies.
    copied: u64,
    /// Inodes that were copied, since they could not be linked.
    pub copies: Copies,
    /// Mount points that were left out, relative to the module.
    pub skipped_mounts: Vec<Vec<u8>>,
    /// Directories or copies whose owner or security attributes could not be kept.
    pub attributes_lost: u64,
    /// Entries that disappeared or kept changing their type while they were read.
    pub vanished: u64,
}

impl Cloned {
    fn add(&mut self, other: Cloned) {
        // One worker may have counted what another found gone.
        self.entries = self.entries.wrapping_add(other.entries);
        self.made += other.made;
        self.removed += other.removed;
        self.directories_read += other.directories_read;
        for (pair, copied) in other.copies {
            let names = copied.names;
            self.copies.entry(pair).and_modify(|known| known.names += names).or_insert(copied);
        }
        self.skipped_mounts.extend(other.skipped_mounts);
        self.attributes_lost += other.attributes_lost;
        self.vanished += other.vanished;
    }
}

/// Where a clone is made.
pub struct Stage<'a> {
    /// The directory that holds it.
    pub parent: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a CStr,
    /// Whether a retired snapshot has that name; else the clone is made afresh.
    pub is_recycled: bool,
    /// Where copies start that become necessary.
    pub staging: BorrowedFd<'a>,
}

/// What is known before a clone.
#[derive(Clone, Copy, Default)]
pub struct Knowledge<'a> {
    /// The index that the live tree was compared by; what is noted in it as unchanged is.
    pub newest: Option<&'a Index>,
    /// The index of the snapshot that is recycled.
    pub retired: Option<&'a Index>,
    /// About how many entries the live tree has.
    pub entries: Option<u64>,
}

/// Makes `stage` equal the tree at `live`. Returns the parts of its index, too.
///
/// # Errors
/// Whatever keeps the clone from being complete; what exists of it then stays in staging.
pub fn clone_tree(
    (live, live_path): (BorrowedFd, &Path),
    stage: &Stage,
    knowledge: Knowledge,
) -> Result<(Cloned, Vec<Part>)> {
    let failed = |cause| Error::io("make the staging directory for", live_path, cause);
    if !stage.is_recycled {
        mkdirat(stage.parent, stage.name, Mode::S_IRWXU).map_err(failed)?;
    }
    let staged = open_directory(stage.parent, stage.name).map_err(failed)?;
    let child = Child {
        is_new: !stage.is_recycled,
        newest: knowledge.newest.map(|_| 0),
        retired: knowledge.retired.filter(|_| stage.is_recycled).map(|_| 0),
    };
    let job = Job {
        live: Start::root(live, live_path).map_err(failed)?,
        staged: Start::root(staged, live_path).map_err(failed)?,
        name: None,
        child,
        depth: 0,
        part: 0,
    };
    let shared = Shared {
        copier: Mutex::new(Copier::new(stage.staging)),
        knowledge,
        max_bytes: max_bytes(knowledge.entries.unwrap_or(0)),
        parts: AtomicUsize::new(1),
    };
    progress::begin("making the snapshot", knowledge.entries);
    let results = Pool::run(pool::workers(knowledge.entries), vec![job], |job, pool| {
        clone_part(job, &shared, pool).inspect_err(|_| pool.stop())
    });
    progress::end();
    let (mut cloned, mut parts) = (Cloned::default(), Vec::new());
    for result in results {
        let (some, part) = result?;
        cloned.add(some);
        parts.push(part);
    }
    let copier = shared.copier.into_inner().unwrap_or_else(PoisonError::into_inner);
    cloned.attributes_lost += copier.attributes_lost;
    copier.finish().map_err(|cause| Error::io("clean up the copies for", live_path, cause))?;
    Ok((cloned, parts))
}

/// What all workers share.
struct Shared<'a> {
    copier: Mutex<Copier<'a>>,
    knowledge: Knowledge<'a>,
    /// How large the index may become.
    max_bytes: usize,
    /// How many parts of the index have been begun.
    parts: AtomicUsize,
}

/// A subtree to clone: `name` in both starts, or these themselves.
struct Job {
    live: Start,
    staged: Start,
    name: Option<CString>,
    child: Child,
    /// Levels between the tree's root and this subtree's.
    depth: u32,
    /// The number of its part of the index.
    part: usize,
}

/// What is known of a directory before it is visited.
#[derive(Clone, Copy)]
struct Child {
    /// The staged directory has just been made.
    is_new: bool,
    newest: Option<Ordinal>,
    retired: Option<Ordinal>,
}

fn clone_part(job: Job, shared: &Shared, pool: &Pool<Job>) -> Result<(Cloned, Part)> {
    let descent = |start: Start| {
        let path = start.root_path.clone();
        Descent::new(start).map_err(|cause| Error::io("open", &path, cause))
    };
    let mut clone = Clone {
        live: descent(job.live)?,
        staged: descent(job.staged)?,
        shared,
        pool,
        comparer: Comparer::default(),
        listing: Listing::default(),
        part: Part::new(job.part),
        base: usize::from(job.name.is_some()),
        depth: job.depth,
        frames: Vec::new(),
        cloned: Cloned::default(),
    };
    match job.name {
        Some(name) => clone.enter(&name, job.child)?,
        None => {
            let now = now_ns();
            let stat = clone.live.directory().and_then(fstat);
            let stat = stat.map_err(|cause| clone.live.error("inspect", None, cause))?;
            clone.fill_directory(c"", &stat, now, job.child)?;
        }
    }
    clone.run()?;
    Ok((clone.cloned, clone.part))
}

struct Clone<'a, 's> {
    live: Descent,
    staged: Descent,
    shared: &'a Shared<'s>,
    pool: &'a Pool<Job>,
    comparer: Comparer,
    listing: Listing,
    part: Part,
    /// How many levels below the start the first frame is.
    base: usize,
    /// How many levels below the tree's root the first frame is.
    depth: u32,
    frames: Vec<Frame>,
    cloned: Cloned,
}

/// A directory whose subdirectories are being cloned.
struct Frame {
    pending: Children<Child>,
    /// Parts of the index that belong here, before those of what is pending.
    given: Vec<usize>,
    /// What has to be done at the end; none if everything is as it should be.
    unfinished: Option<Unfinished>,
}

/// A directory whose attributes are still to be applied.
struct Unfinished {
    stat: FileStat,
    /// Its state for the index.
    stamp: Stamp,
    /// Its place in the index.
    at: usize,
    /// Whether its attributes have to be applied without looking.
    is_touched: bool,
}

impl Clone<'_, '_> {
    fn run(&mut self) -> Result<()> {
        while let Some(frame) = self.frames.last_mut() {
            for part in frame.given.drain(..) {
                self.part.leave_gap(part);
            }
            match frame.pending.pop() {
                Some((name, child)) => {
                    self.share();
                    self.enter(&name, child)?;
                }
                None => self.finish_directory()?,
            }
        }
        Ok(())
    }

    /// Gives a subtree away if somebody waits for one: from as far up as there is one.
    fn share(&mut self) {
        if self.pool.is_stopped() {
            // Another worker has failed, and with it the clone.
            self.frames.iter_mut().for_each(|frame| frame.pending = Children::new());
        }
        if !self.pool.is_hungry() {
            return;
        }
        let Some(index) = self.frames.iter().position(|frame| !frame.pending.is_empty()) else { return };
        let depth = self.base + index;
        let (Ok(live), Ok(staged)) = (self.live.start_at(depth), self.staged.start_at(depth)) else { return };
        let frame = &mut self.frames[index];
        if let Some((name, child)) = frame.pending.pop() {
            let part = self.shared.parts.fetch_add(1, Ordering::Relaxed);
            frame.given.push(part);
            let depth = self.depth + u32::try_from(index).unwrap_or(u32::MAX) + 1;
            self.pool.give(Job { live, staged, name: Some(name), child, depth, part });
        }
    }

    fn enter(&mut self, name: &CStr, child: Child) -> Result<()> {
        if self.keep(name, child)? {
            return Ok(());
        }
        let now = now_ns();
        let stat = match self.live.enter(name) {
            Ok(stat) => stat,
            Err(cause @ (Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)) => return self.lose(name, cause),
            // As `cp --one-file-system` does: the place where something is mounted on restore.
            Err(Errno::EXDEV) => {
                self.skip_mount(name);
                self.note(name, 0, Stamp::NEVER);
                return self.leave_empty(name, child.is_new);
            }
            Err(cause) => return Err(self.live.error("open the directory", Some(name), cause)),
        };
        self.staged.enter(name).map_err(|cause| self.live.error("open the staged copy of", None, cause))?;
        self.fill_directory(name, &stat, now, child)
    }

    /// Keeps a directory of the recycled snapshot as it is if the live one has not changed since that
    /// was made, nor anybody has changed that; its subdirectories become pending. False if not so.
    fn keep(&mut self, name: &CStr, child: Child) -> Result<bool> {
        let Knowledge { newest, retired, .. } = self.shared.knowledge;
        let Some((index, ordinal)) = retired.zip(child.retired).filter(|_| !child.is_new) else {
            return Ok(false);
        };
        let line = index.line(ordinal);
        let known = newest.zip(child.newest).and_then(|(newest, ordinal)| newest.unchanged(ordinal));
        let live = match known {
            Some(stamp) => stamp,
            None => match self.live.directory().and_then(|parent| stat_entry(parent.as_fd(), name)) {
                Ok(stat) if self.live.is_on_same_device(&stat) => Stamp::of(&stat),
                _ => return Ok(false),
            },
        };
        if live != line.live {
            return Ok(false);
        }
        if index.is_leaf(ordinal) {
            let parent = self.open_staged()?;
            let is_intact = stat_entry(parent.as_fd(), name).is_ok_and(|stat| Own::of(&stat) == line.own);
            if is_intact {
                self.note_kept(name, &line);
            }
            return Ok(is_intact);
        }
        match self.staged.enter(name) {
            Ok(stat) if Own::of(&stat) == line.own => {}
            Ok(_) => {
                self.staged.leave();
                return Ok(false);
            }
            Err(_) => return Ok(false),
        }
        self.live.pass(name);
        self.note_kept(name, &line);
        let siblings: Vec<Ordinal> = newest
            .zip(child.newest)
            .map(|(newest, ordinal)| newest.children(ordinal).collect())
            .unwrap_or_default();
        let children: Vec<Ordinal> = index.children(ordinal).collect();
        let mut pending = Children::new();
        for retired in children.into_iter().rev() {
            let name = index.line(retired).name;
            let newest = newest.and_then(|newest| newest.find(&siblings, name));
            pending.push(name, Child { is_new: false, newest, retired: Some(retired) });
        }
        self.frames.push(Frame { pending, given: Vec::new(), unfinished: None });
        Ok(true)
    }

    /// Puts a directory that was kept into the index.
    fn note_kept(&mut self, name: &CStr, line: &Line) {
        self.count(line.entries.into());
        progress::add(line.entries.into());
        let depth = self.depth_at_hand();
        self.part.push(&Line { depth, name, ..*line }, self.shared.max_bytes);
    }

    /// Puts a directory into the index whose snapshot is not finished; returns its place.
    fn note(&mut self, name: &CStr, entries: u64, live: Stamp) -> usize {
        let (entries, live) = match u32::try_from(entries) {
            Ok(entries) => (entries, live),
            Err(_) => (u32::MAX, Stamp::NEVER),
        };
        let line =
            Line { depth: self.depth_at_hand(), entries, live, own: Own { inode: 0, ctime_ns: 0 }, name };
        self.part.push(&line, self.shared.max_bytes)
    }

    /// The depth below the tree's root of the directory whose frame comes next.
    fn depth_at_hand(&self) -> u32 {
        self.depth + u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// It is no directory any more. Its second chance is its last: a client that keeps swapping it
    /// must not keep us here.
    fn lose(&mut self, name: &CStr, cause: Errno) -> Result<()> {
        self.uncount();
        let staged = self.open_staged()?;
        self.remove_staged(staged.as_fd(), name)?;
        self.touch();
        if cause == Errno::ENOENT {
            self.cloned.vanished += 1;
            return Ok(());
        }
        let live = self.open_live()?;
        self.count(1);
        if self.link_entry(live.as_fd(), staged.as_fd(), name)? == Linked::IsDirectory {
            self.uncount();
            self.cloned.vanished += 1;
        }
        Ok(())
    }

    /// Makes the staged directory at hand equal to the live one, of which `stat` was taken after `now`,
    /// but for its subdirectories, which become pending, and its attributes, which come last.
    fn fill_directory(&mut self, name: &CStr, stat: &FileStat, now: i64, child: Child) -> Result<()> {
        let directories = (self.open_live()?, self.open_staged()?);
        let mut pending = Children::new();
        let changes = |cloned: &Cloned| cloned.made + cloned.removed;
        let doubts = |cloned: &Cloned| (cloned.copied, cloned.skipped_mounts.len());
        let before = (changes(&self.cloned), doubts(&self.cloned));
        self.cloned.directories_read += 1;
        let entries = match child.is_new {
            true => self.link_all(&directories, &mut pending)?,
            false => self.align(&directories, &mut pending)?,
        };
        progress::add(entries);
        let is_certain = before.1 == doubts(&self.cloned);
        let stamp = if is_certain { Stamp::of(stat).settled(now) } else { Stamp::NEVER };
        let unfinished = Unfinished {
            stat: *stat,
            stamp,
            at: self.note(name, entries, stamp),
            is_touched: child.is_new || before.0 != changes(&self.cloned),
        };
        self.look_up(&mut pending, child);
        self.frames.push(Frame { pending, given: Vec::new(), unfinished: Some(unfinished) });
        Ok(())
    }

    /// Puts the subdirectories of `parent` in the order of the index, with what the indexes know of each.
    fn look_up(&self, pending: &mut Children<Child>, parent: Child) {
        let Knowledge { newest, retired, .. } = self.shared.knowledge;
        let siblings = |index: Option<&Index>, ordinal: Option<Ordinal>| -> Vec<Ordinal> {
            index.zip(ordinal).map(|(index, ordinal)| index.children(ordinal).collect()).unwrap_or_default()
        };
        let newest_siblings = siblings(newest, parent.newest);
        let retired_siblings = siblings(retired, parent.retired);
        pending.sort();
        pending.update(|name, child| {
            child.newest = newest.and_then(|index| index.find(&newest_siblings, name));
            child.retired = retired.and_then(|index| index.find(&retired_siblings, name));
        });
    }

    /// Links everything into a new directory; returns how many entries the live one has.
    fn link_all(
        &mut self,
        directories: &(Directory, Directory),
        pending: &mut Children<Child>,
    ) -> Result<u64> {
        let mut listing = std::mem::take(&mut self.listing);
        let live = directories.0.as_fd();
        let mut entries = 0;
        listing.read_first(live).map_err(|cause| self.live.error("read", None, cause))?;
        loop {
            listing.sort_by_inode();
            entries += listing.entries().len() as u64;
            for entry in listing.entries() {
                self.add(directories, listing.name(entry), entry.is_directory, pending)?;
            }
            if !listing.read_next(live).map_err(|cause| self.live.error("read", None, cause))? {
                break;
            }
        }
        self.listing = listing;
        Ok(entries)
    }

    /// Removes what differs from a recycled directory, and links what is missing in it; returns how
    /// many entries the live one has.
    fn align(&mut self, directories: &(Directory, Directory), pending: &mut Children<Child>) -> Result<u64> {
        let mut comparer = std::mem::take(&mut self.comparer);
        self.cloned.directories_read += 1;
        let path = self.live.path(None);
        let failed = |side, cause| match side {
            Side::Live => Error::io_bytes("read", &path, cause),
            Side::Snapshot => Error::io_bytes("read the staged copy of", &path, cause),
        };
        let (live, staged) = (directories.0.as_fd(), directories.1.as_fd());
        let mut different = 0;
        let listed = differences((live, staged), &mut comparer, failed, |name, found, present| {
            different += u64::from(found.is_some());
            match (found, present) {
                (Some(live), Some(staged)) if live.is_directory && staged.is_directory => {
                    self.count(1);
                    pending.push(name, Child { is_new: false, newest: None, retired: None });
                    return Ok(());
                }
                (_, Some(_)) => self.remove_staged(staged, name)?,
                (_, None) => {}
            }
            match found {
                Some(Found { is_directory, .. }) => self.add(directories, name, is_directory, pending),
                None => Ok(()),
            }
        })?;
        // What made no difference is there already.
        self.count(listed.saturating_sub(different));
        self.comparer = comparer;
        Ok(listed)
    }

    /// Links an entry, or makes the directory for it.
    fn add(
        &mut self,
        directories: &(Directory, Directory),
        name: &CStr,
        is_directory: bool,
        pending: &mut Children<Child>,
    ) -> Result<()> {
        self.count(1);
        let (live, staged) = (directories.0.as_fd(), directories.1.as_fd());
        if !is_directory && self.link_entry(live, staged, name)? == Linked::Done {
            return Ok(());
        }
        match mkdirat(staged, name, Mode::S_IRWXU) {
            Ok(()) => {
                self.cloned.made += 1;
                pending.push(name, Child { is_new: true, newest: None, retired: None });
            }
            // Some file systems list a name twice while it is renamed.
            Err(Errno::EEXIST) => self.uncount(),
            Err(cause) => return Err(self.staged.error("make the staged copy of", Some(name), cause)),
        }
        Ok(())
    }

    /// Links an entry that has been counted.
    fn link_entry(&mut self, live: BorrowedFd, staged: BorrowedFd, name: &CStr) -> Result<Linked> {
        match linkat(live, name, staged, name, AtFlags::empty()) {
            Ok(()) => self.cloned.made += 1,
            Err(Errno::ENOENT) => self.vanish(),
            // Some file systems list a name twice while it is renamed.
            Err(Errno::EEXIST) => self.uncount(),
            Err(Errno::EXDEV) if is_mount_point(live, name) => {
                self.uncount();
                self.skip_mount(name);
            }
            Err(cause @ (Errno::EMLINK | Errno::EPERM)) => return self.copy_entry(live, staged, name, cause),
            Err(cause) => return Err(self.live.error("link", Some(name), cause)),
        }
        Ok(Linked::Done)
    }

    /// Copies what could not be linked because of `refusal`.
    fn copy_entry(
        &mut self,
        live: BorrowedFd,
        staged: BorrowedFd,
        name: &CStr,
        refusal: Errno,
    ) -> Result<Linked> {
        let copied =
            self.shared.copier.lock().unwrap_or_else(PoisonError::into_inner).copy(live, name, staged);
        match copied {
            Ok((pair, stat)) => {
                self.cloned.made += 1;
                self.cloned.copied += 1;
                let live = &self.live;
                copy::remember(&mut self.cloned.copies, pair, &stat, || live.relative_path(Some(name)));
            }
            // It is a directory by now; linking one is refused with EPERM.
            Err(Errno::EISDIR) => return Ok(Linked::IsDirectory),
            Err(Errno::ENOENT | Errno::ESTALE | Errno::ELOOP) => self.vanish(),
            // A refused link and a refused copy: the first says more to the administrator.
            Err(Errno::EACCES | Errno::EPERM) => return Err(self.live.error("link", Some(name), refusal)),
            Err(cause) => return Err(self.live.error("copy", Some(name), cause)),
        }
        Ok(Linked::Done)
    }

    fn count(&mut self, entries: u64) {
        self.cloned.entries = self.cloned.entries.wrapping_add(entries);
    }

    fn uncount(&mut self) {
        self.cloned.entries = self.cloned.entries.wrapping_sub(1);
    }

    /// The directory at hand has changed after it was filled.
    fn touch(&mut self) {
        if let Some(unfinished) = self.frames.last_mut().and_then(|frame| frame.unfinished.as_mut()) {
            unfinished.is_touched = true;
        }
    }

    fn vanish(&mut self) {
        self.uncount();
        self.cloned.vanished += 1;
    }

    fn leave_empty(&mut self, name: &CStr, is_new: bool) -> Result<()> {
        if is_new {
            return Ok(());
        }
        let staged = self.open_staged()?;
        self.remove_staged(staged.as_fd(), name)?;
        self.touch();
        mkdirat(&staged, name, Mode::S_IRWXU)
            .map_err(|cause| self.staged.error("make the staged copy of", Some(name), cause))
    }

    /// Removes an entry of the staged directory at hand, a whole subtree if need be.
    fn remove_staged(&mut self, staged: BorrowedFd, name: &CStr) -> Result<()> {
        match unlinkat(staged, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => self.cloned.removed += 1,
            Err(Errno::EISDIR) => {
                let start = self.staged.start_at(self.staged.depth());
                let start =
                    start.map_err(|cause| self.staged.error("return to the staged copy of", None, cause))?;
                self.cloned.removed += remove_alone(start, name)?;
            }
            Err(Errno::ENOENT) => {}
            Err(cause) => return Err(self.staged.error("remove the staged copy of", Some(name), cause)),
        }
        Ok(())
    }

    fn finish_directory(&mut self) -> Result<()> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        if let Some(unfinished) = frame.unfinished {
            self.apply_attributes(&unfinished)?;
        }
        self.live.leave();
        self.staged.leave();
        Ok(())
    }

    fn apply_attributes(&mut self, unfinished: &Unfinished) -> Result<()> {
        let Unfinished { stat, stamp, at, is_touched } = unfinished;
        let (live, staged) = (self.open_live()?, self.open_staged()?);
        let is_due = match is_touched {
            true => Ok(true),
            false => {
                fstat(&staged).and_then(|own| attributes::differ(live.as_fd(), stat, staged.as_fd(), &own))
            }
        };
        let applied = is_due.and_then(|is_due| match is_due {
            true => attributes::apply(live.as_fd(), stat, staged.as_fd()),
            false => Ok(true),
        });
        if !applied.map_err(|cause| self.live.error("keep the attributes of", None, cause))? {
            self.cloned.attributes_lost += 1;
        }
        let own =
            fstat(&staged).map_err(|cause| self.staged.error("inspect the staged copy of", None, cause))?;
        self.part.complete(*at, *stamp, Own::of(&own));
        Ok(())
    }

    fn open_live(&mut self) -> Result<Directory> {
        self.live.directory().map_err(|cause| self.live.error("return to", None, cause))
    }

    fn open_staged(&mut self) -> Result<Directory> {
        self.staged
            .directory()
            .map_err(|cause| self.staged.error("return to the staged copy of", None, cause))
    }

    fn skip_mount(&mut self, name: &CStr) {
        self.cloned.skipped_mounts.push(self.live.relative_path(Some(name)));
    }
}

#[derive(PartialEq, Eq)]
enum Linked {
    Done,
    IsDirectory,
}
