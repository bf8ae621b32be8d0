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
//! Several workers share the walk. All subdirectories are made before any of them is visited, so
//! a directory's own attributes can be applied while another worker is still below it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
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
use super::listing::Listing;
use super::pool::{self, Pool};
use super::remove::remove_alone;
use super::syscalls::{is_mount_point, open_directory};
use crate::tell::error::{Error, Result};

/// What a clone did.
#[derive(Debug, Default)]
pub struct Cloned {
    /// Entries in the tree, directories included, its root not.
    pub entries: u64,
    /// Of these, how many links and directories had to be made.
    pub made: u64,
    /// Entries of the recycled snapshot that had to go.
    pub removed: u64,
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

/// Makes `stage` equal the tree at `live`, which has about `entries` entries.
///
/// # Errors
/// Whatever keeps the clone from being complete; what exists of it then stays in staging.
pub fn clone_tree(
    (live, live_path): (BorrowedFd, &Path),
    stage: &Stage,
    entries: Option<u64>,
) -> Result<Cloned> {
    let failed = |cause| Error::io("make the staging directory for", live_path, cause);
    if !stage.is_recycled {
        mkdirat(stage.parent, stage.name, Mode::S_IRWXU).map_err(failed)?;
    }
    let staged = open_directory(stage.parent, stage.name).map_err(failed)?;
    let job = Job {
        live: Start::root(live, live_path).map_err(failed)?,
        staged: Start::root(staged, live_path).map_err(failed)?,
        child: None,
        is_new: !stage.is_recycled,
    };
    let copier = Mutex::new(Copier::new(stage.staging));
    let parts = Pool::run(pool::workers(entries), vec![job], |job, pool| {
        clone_part(job, &copier, pool).inspect_err(|_| pool.stop())
    });
    let mut cloned = Cloned::default();
    for part in parts {
        cloned.add(part?);
    }
    let copier = copier.into_inner().unwrap_or_else(PoisonError::into_inner);
    cloned.attributes_lost += copier.attributes_lost;
    copier.finish().map_err(|cause| Error::io("clean up the copies for", live_path, cause))?;
    Ok(cloned)
}

/// A subtree to clone: `child` of both starts, or these themselves.
struct Job {
    live: Start,
    staged: Start,
    child: Option<CString>,
    is_new: bool,
}

fn clone_part(job: Job, copier: &Mutex<Copier>, pool: &Pool<Job>) -> Result<Cloned> {
    let descent = |start: Start| {
        let path = start.root_path.clone();
        Descent::new(start).map_err(|cause| Error::io("open", &path, cause))
    };
    let mut clone = Clone {
        live: descent(job.live)?,
        staged: descent(job.staged)?,
        copier,
        pool,
        comparer: Comparer::default(),
        listing: Listing::default(),
        base: usize::from(job.child.is_some()),
        frames: Vec::new(),
        cloned: Cloned::default(),
    };
    match job.child {
        Some(name) => clone.enter(&name, job.is_new)?,
        None => {
            let stat = clone
                .live
                .directory()
                .and_then(fstat)
                .map_err(|cause| clone.live.error("inspect", None, cause))?;
            clone.fill_directory(stat, job.is_new)?;
        }
    }
    clone.run()?;
    Ok(clone.cloned)
}

struct Clone<'a, 'c> {
    live: Descent,
    staged: Descent,
    copier: &'a Mutex<Copier<'c>>,
    pool: &'a Pool<Job>,
    comparer: Comparer,
    listing: Listing,
    /// How many levels below the start the first frame is.
    base: usize,
    frames: Vec<Frame>,
    cloned: Cloned,
}

/// A directory whose subdirectories are being cloned; of each is known whether it is new.
struct Frame {
    stat: FileStat,
    pending: Children<bool>,
    /// Whether its attributes have to be applied without looking.
    is_touched: bool,
}

impl Clone<'_, '_> {
    fn run(&mut self) -> Result<()> {
        while let Some(frame) = self.frames.last_mut() {
            match frame.pending.pop() {
                Some((name, is_new)) => {
                    self.share();
                    self.enter(&name, is_new)?;
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
            self.frames.clear();
        }
        if !self.pool.is_hungry() {
            return;
        }
        let Some(index) = self.frames.iter().position(|frame| !frame.pending.is_empty()) else { return };
        let depth = self.base + index;
        let (Ok(live), Ok(staged)) = (self.live.start_at(depth), self.staged.start_at(depth)) else { return };
        if let Some((name, is_new)) = self.frames[index].pending.pop() {
            self.pool.give(Job { live, staged, child: Some(name), is_new });
        }
    }

    fn enter(&mut self, name: &CStr, is_new: bool) -> Result<()> {
        let stat = match self.live.enter(name) {
            Ok(stat) => stat,
            Err(cause @ (Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)) => {
                return self.lose(name, cause);
            }
            // As `cp --one-file-system` does: the place where something is mounted on restore.
            Err(Errno::EXDEV) => {
                self.skip_mount(name);
                return self.leave_empty(name, is_new);
            }
            Err(cause) => return Err(self.live.error("open the directory", Some(name), cause)),
        };
        self.staged.enter(name).map_err(|cause| self.live.error("open the staged copy of", None, cause))?;
        self.fill_directory(stat, is_new)
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

    /// Makes the staged directory at hand equal to the live one but for its subdirectories, which
    /// become pending, and its attributes, which come last.
    fn fill_directory(&mut self, stat: FileStat, is_new: bool) -> Result<()> {
        let directories = (self.open_live()?, self.open_staged()?);
        let mut pending = Children::new();
        let made_before = self.cloned.made + self.cloned.removed;
        match is_new {
            true => self.link_all(&directories, &mut pending)?,
            false => self.align(&directories, &mut pending)?,
        }
        let is_touched = is_new || made_before != self.cloned.made + self.cloned.removed;
        self.frames.push(Frame { stat, pending, is_touched });
        Ok(())
    }

    fn link_all(&mut self, directories: &(Directory, Directory), pending: &mut Children<bool>) -> Result<()> {
        let mut listing = std::mem::take(&mut self.listing);
        let live = directories.0.as_fd();
        listing.read_first(live).map_err(|cause| self.live.error("read", None, cause))?;
        loop {
            listing.sort_by_inode();
            for entry in listing.entries() {
                self.add(directories, listing.name(entry), entry.is_directory, pending)?;
            }
            if !listing.read_next(live).map_err(|cause| self.live.error("read", None, cause))? {
                break;
            }
        }
        self.listing = listing;
        Ok(())
    }

    /// Removes what differs from a recycled directory, and links what is missing in it.
    fn align(&mut self, directories: &(Directory, Directory), pending: &mut Children<bool>) -> Result<()> {
        let mut comparer = std::mem::take(&mut self.comparer);
        // Told by the paths, which the live tree and the staged one share.
        let start = self.live.start_at(self.live.depth());
        let start = start.map_err(|cause| self.live.error("return to", None, cause))?;
        let failed = |side, cause| {
            let path = start.root_path.join(std::ffi::OsStr::from_bytes(&start.relative));
            match side {
                Side::Live => Error::io("read", &path, cause),
                Side::Snapshot => Error::io("read the staged copy of", &path, cause),
            }
        };
        let (live, staged) = (directories.0.as_fd(), directories.1.as_fd());
        let mut same = 0;
        let listed = differences((live, staged), &mut comparer, failed, |name, found, present| {
            same += 1;
            match (found, present) {
                (Some(live), Some(staged)) if live.is_directory && staged.is_directory => {
                    self.count(1);
                    pending.push(name, false);
                    return Ok(());
                }
                (_, Some(_)) => self.remove_staged(staged, name)?,
                (_, None) => {}
            }
            match found {
                Some(Found { is_directory, .. }) => self.add(directories, name, is_directory, pending),
                None => {
                    same -= 1;
                    Ok(())
                }
            }
        })?;
        // What caused no event is there already.
        self.count(listed.saturating_sub(same));
        self.comparer = comparer;
        Ok(())
    }

    /// Links an entry, or makes the directory for it.
    fn add(
        &mut self,
        directories: &(Directory, Directory),
        name: &CStr,
        is_directory: bool,
        pending: &mut Children<bool>,
    ) -> Result<()> {
        self.count(1);
        let (live, staged) = (directories.0.as_fd(), directories.1.as_fd());
        if !is_directory && self.link_entry(live, staged, name)? == Linked::Done {
            return Ok(());
        }
        match mkdirat(staged, name, Mode::S_IRWXU) {
            Ok(()) => {
                self.cloned.made += 1;
                pending.push(name, true);
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
        let copied = self.copier.lock().unwrap_or_else(PoisonError::into_inner).copy(live, name, staged);
        match copied {
            Ok((pair, stat)) => {
                self.cloned.made += 1;
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
        if let Some(frame) = self.frames.last_mut() {
            frame.is_touched = true;
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
        let (live, staged) = (self.open_live()?, self.open_staged()?);
        let is_due = match frame.is_touched {
            true => Ok(true),
            false => fstat(&staged)
                .and_then(|stat| attributes::differ(live.as_fd(), &frame.stat, staged.as_fd(), &stat)),
        };
        let applied = is_due.and_then(|is_due| match is_due {
            true => attributes::apply(live.as_fd(), &frame.stat, staged.as_fd()),
            false => Ok(true),
        });
        if !applied.map_err(|cause| self.live.error("keep the attributes of", None, cause))? {
            self.cloned.attributes_lost += 1;
        }
        self.live.leave();
        self.staged.leave();
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
