//! The entries of one directory of a clone: each is linked, copied where the kernel refuses the
//! link, or removed. All of it happens in staging, which the next run empties after a crash.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::PoisonError;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use crate::decide::damage::FileTime;
use crate::engine::baseline::NeedsRecord;
use crate::engine::children::PendingChildren;
use crate::engine::clone::{CloneJob, DirectoryToClone, TreeCloner};
use crate::engine::copy::{self, CopyReason};
use crate::engine::descent::DirectoryFd;
use crate::engine::difference::{EntryInode, ReadSide, differences};
use crate::engine::listing::{CachedListing, Listing};
use crate::engine::remove::remove_alone;
use crate::engine::temporaries::Temporaries;
use crate::system::identity::SysResult;
use crate::system::mounts::{self, is_mount_point};
use crate::system::syscalls::{is_gone, stat_entry};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;

impl TreeCloner<'_, '_> {
    /// Links all entries into a new directory; returns how many the live one has.
    pub(crate) fn link_all(
        &mut self,
        directories: &(DirectoryFd, DirectoryFd),
        cached: Option<&CachedListing>,
        pending: &mut PendingChildren<DirectoryToClone>,
    ) -> Result<u64> {
        let mut listing = std::mem::take(&mut self.listing);
        let live = directories.0.as_fd();
        let mut entries = 0;
        let mut found = Temporaries::default();
        match cached {
            Some(cached) => listing.restore(cached),
            None => {
                listing.read_first(live).map_err(|cause| self.live.error("read", None, cause))?;
            }
        }
        loop {
            listing.sort_by_inode();
            entries += listing.entries().len() as u64;
            found.note_names(&listing);
            for entry in listing.entries() {
                self.add(directories, listing.name(entry), entry.is_directory, pending)?;
            }
            if !listing.read_next(live).map_err(|cause| self.live.error("read", None, cause))? {
                break;
            }
        }
        self.listing = listing;
        self.note_temporaries(found);
        Ok(entries)
    }

    /// Lists the subdirectories of the current live directory once more; false if it has gone.
    pub(crate) fn list_directories(
        &mut self,
        pending: &mut PendingChildren<DirectoryToClone>,
    ) -> Result<bool> {
        let directory = match self.live.directory() {
            // The directory has been moved away with all its entries.
            Err(cause) if is_gone(cause) => return Ok(false),
            directory => directory.map_err(|cause| self.live.error("return to", None, cause))?,
        };
        let failed = |clone: &Self, cause| clone.live.error("read", None, cause);
        let mut listing = std::mem::take(&mut self.listing);
        Listing::rewind(directory.as_fd()).map_err(|cause| failed(self, cause))?;
        listing.read_first(directory.as_fd()).map_err(|cause| failed(self, cause))?;
        loop {
            for entry in listing.entries().iter().filter(|entry| entry.is_directory) {
                pending.push(listing.name(entry), DirectoryToClone::default());
            }
            if !listing.read_next(directory.as_fd()).map_err(|cause| failed(self, cause))? {
                break;
            }
        }
        self.listing = listing;
        Ok(true)
    }

    /// Removes the entries of a recycled directory that differ, and links the missing ones; returns
    /// how many entries the live directory has.
    pub(crate) fn align(
        &mut self,
        directories: &(DirectoryFd, DirectoryFd),
        cached: Option<&CachedListing>,
        pending: &mut PendingChildren<DirectoryToClone>,
    ) -> Result<u64> {
        let mut comparer = std::mem::take(&mut self.comparer);
        self.cloned.directories_read += 1;
        let (live, staged) = (directories.0.as_fd(), directories.1.as_fd());
        if self.copies_files {
            self.remove_files(staged)?;
        }
        let mut different = 0;
        let aligned = differences(
            (live, staged),
            cached,
            &mut comparer,
            AlignFailure::Read,
            |name, found, present| {
                different += u64::from(found.is_some());
                match (found, present) {
                    (Some(live), Some(staged)) if live.is_directory && staged.is_directory => {
                        self.count(1);
                        pending.push(name, DirectoryToClone::default());
                        return Ok(());
                    }
                    (_, Some(_)) => self.remove_staged(staged, name)?,
                    (_, None) => {}
                }
                match found {
                    Some(EntryInode { is_directory, .. }) => {
                        Ok(self.add(directories, name, is_directory, pending)?)
                    }
                    None => Ok(()),
                }
            },
        );
        let listed = aligned.map_err(|failure| match failure {
            AlignFailure::Read(ReadSide::Live, cause) => self.live.error("read", None, cause),
            AlignFailure::Read(ReadSide::Snapshot, cause) => {
                self.staged.error("read the staged copy of", None, cause)
            }
            AlignFailure::Other(error) => error,
        })?;
        // Entries without a difference are there already.
        self.count(listed.saturating_sub(different));
        self.note_temporaries(std::mem::take(&mut comparer.temporaries));
        self.comparer = comparer;
        Ok(listed)
    }

    /// Counts the temporary files of the current live directory.
    fn note_temporaries(&mut self, names: Temporaries) {
        if names.count == 0 {
            return;
        }
        let directory =
            if self.cloned.temporaries.is_full() { None } else { self.live.usable_path() };
        self.cloned.temporaries.add(match directory {
            Some(path) if path.is_empty() => names,
            Some(path) => names.within(&[&path, &b"/"[..]].concat()),
            // The path is too long for rsync, too.
            None => Temporaries { paths: Vec::new(), ..names },
        });
    }

    /// Links an entry, or makes the directory for it.
    fn add(
        &mut self,
        directories: &(DirectoryFd, DirectoryFd),
        name: &CStr,
        is_directory: bool,
        pending: &mut PendingChildren<DirectoryToClone>,
    ) -> Result<()> {
        self.count(1);
        let (live, staged) = (directories.0.as_fd(), directories.1.as_fd());
        if !is_directory && self.link_entry(live, staged, name)? == Linked::Done {
            return Ok(());
        }
        match mkdirat(staged, name, Mode::S_IRWXU) {
            Ok(()) => {
                self.cloned.made += 1;
                pending
                    .push(name, DirectoryToClone { is_new: true, ..DirectoryToClone::default() });
            }
            // Some file systems list a name twice during a rename.
            Err(Errno::EEXIST) => self.uncount(),
            Err(cause) => {
                return Err(self.staged.error("make the staged copy of", Some(name), cause));
            }
        }
        Ok(())
    }

    /// Links an entry that has been counted.
    pub(crate) fn link_entry(
        &mut self,
        live: BorrowedFd,
        staged: BorrowedFd,
        name: &CStr,
    ) -> Result<Linked> {
        if self.copies_files && is_regular(live, name) {
            return self.copy_entry(live, staged, name, CopyReason::PartialDir);
        }
        self.link_or_copy(live, staged, name)
    }

    fn link_or_copy(
        &mut self,
        live: BorrowedFd,
        staged: BorrowedFd,
        name: &CStr,
    ) -> Result<Linked> {
        // Linking a mount point fails, but the kernel asks its server first.
        if mounts::are_expected() && is_mount_point(live, name) {
            self.uncount();
            self.skip_mount(name);
            return Ok(Linked::Done);
        }
        let recording = self.shared.knowledge.recording;
        let needs_record =
            recording.map_or(NeedsRecord::No, |recording| recording.needs_record(live, name));
        match self.link(live, staged, name) {
            Ok(()) => {
                self.cloned.made += 1;
                if let NeedsRecord::Yes(changed) = needs_record {
                    self.record(staged, name, changed)?;
                }
            }
            Err(Errno::ENOENT) => self.vanish(),
            // Some file systems list a name twice during a rename.
            Err(Errno::EEXIST) => self.uncount(),
            Err(Errno::EXDEV) if is_mount_point(live, name) => {
                self.uncount();
                self.skip_mount(name);
            }
            Err(cause @ (Errno::EMLINK | Errno::EPERM)) => {
                return self.copy_entry(live, staged, name, CopyReason::Refused(cause));
            }
            Err(cause) => return Err(self.pair_error("link", name, cause)),
        }
        Ok(Linked::Done)
    }

    /// Links an entry. If a client moves its directory out of the module, this process has no right
    /// to link it (EXDEV): the entry has gone. It may be back a moment later, hence the attempts.
    fn link(&self, live: BorrowedFd, staged: BorrowedFd, name: &CStr) -> SysResult<()> {
        const TRIES: usize = 64;
        for _ in 1..TRIES {
            match linkat(live, name, staged, name, AtFlags::empty()) {
                Err(Errno::EXDEV) if !is_mount_point(live, name) => {}
                answer => return answer,
            }
            if !self.live.holds(live) {
                return Err(Errno::ENOENT);
            }
        }
        linkat(live, name, staged, name, AtFlags::empty())
    }

    /// Copies an entry that could not be linked, or must not be.
    fn copy_entry(
        &mut self,
        live: BorrowedFd,
        staged: BorrowedFd,
        name: &CStr,
        why: CopyReason,
    ) -> Result<Linked> {
        let copied = self
            .shared
            .copier
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .copy(live, name, staged);
        match copied {
            Ok((pair, original)) => {
                self.cloned.made += 1;
                self.cloned.copied += 1;
                if why == CopyReason::PartialDir {
                    self.cloned.partial.copied += 1;
                    self.cloned.partial.shared += u64::from(original.is_shared());
                }
                let live = &self.live;
                let path = || live.relative_path(Some(name));
                copy::remember(&mut self.cloned.copies, pair, &original, why, path);
                self.record(staged, name, None)?;
            }
            // It is a directory by now; the kernel refuses to link one with EPERM.
            Err(Errno::EISDIR) => return Ok(Linked::IsDirectory),
            Err(Errno::ENOENT | Errno::ESTALE | Errno::ELOOP) => self.vanish(),
            // Link and copy were refused: the first error helps the administrator more.
            Err(cause @ (Errno::EACCES | Errno::EPERM)) => {
                let CopyReason::Refused(refusal) = why else {
                    // If this user cannot read the file, a daemon of this user cannot resume it.
                    log::debug!(
                        "{}: linked, since it cannot be read: {cause}",
                        escape(&self.live.path(Some(name)))
                    );
                    self.cloned.partial.shared += 1;
                    return self.link_or_copy(live, staged, name);
                };
                return Err(self.pair_error("link", name, refusal));
            }
            Err(cause) => return Err(self.pair_error("copy", name, cause)),
        }
        Ok(Linked::Done)
    }

    /// Records an inode that has just been linked, now or with others.
    fn record(&mut self, staged: BorrowedFd, name: &CStr, touched: Option<FileTime>) -> Result<()> {
        self.recorder.note(name, touched);
        if !self.recorder.has_batch() {
            return Ok(());
        }
        if self.pool.has_idle_worker() {
            let directory = self.open_staged()?;
            self.pool.give(CloneJob::Record(self.recorder.take_batch(directory)));
        } else {
            self.recorder.record_waiting(staged);
        }
        Ok(())
    }

    pub(crate) fn count(&mut self, entries: u64) {
        self.cloned.entries = self.cloned.entries.wrapping_add(entries);
    }

    pub(crate) fn uncount(&mut self) {
        self.cloned.entries = self.cloned.entries.wrapping_sub(1);
    }

    pub(crate) fn vanish(&mut self) {
        self.uncount();
        self.cloned.vanished += 1;
    }

    pub(crate) fn leave_empty(&mut self, name: &CStr, is_new: bool) -> Result<()> {
        if is_new {
            return Ok(());
        }
        let staged = self.open_staged()?;
        self.remove_staged(staged.as_fd(), name)?;
        self.touch()?;
        mkdirat(&staged, name, Mode::S_IRWXU)
            .map_err(|cause| self.staged.error("make the staged copy of", Some(name), cause))
    }

    /// Removes all files of the current staged directory.
    fn remove_files(&mut self, staged: BorrowedFd) -> Result<()> {
        let listing = Listing::read(staged)
            .map_err(|cause| self.staged.error("read the staged copy of", None, cause))?;
        let files = listing.entries().iter().filter(|entry| !entry.is_directory);
        files
            .map(|entry| listing.name(entry))
            .try_for_each(|name| self.remove_staged(staged, name))?;
        Listing::rewind(staged)
            .map_err(|cause| self.staged.error("read the staged copy of", None, cause))
    }

    /// Removes an entry of the current staged directory, with the subtree below it.
    pub(crate) fn remove_staged(&mut self, staged: BorrowedFd, name: &CStr) -> Result<()> {
        match unlinkat(staged, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => self.cloned.removed += 1,
            Err(Errno::EISDIR) => {
                let start = self.staged.start_at(self.staged.depth());
                let start = start.map_err(|cause| {
                    self.staged.error("return to the staged copy of", None, cause)
                })?;
                self.cloned.removed += remove_alone(start, name)?;
            }
            Err(Errno::ENOENT) => {}
            Err(cause) => {
                return Err(self.staged.error("remove the staged copy of", Some(name), cause));
            }
        }
        Ok(())
    }
}

fn is_regular(directory: BorrowedFd, name: &CStr) -> bool {
    stat_entry(directory, name)
        .is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits())
}

/// Why two directories could not be aligned. The paths of a deep tree are long, so the message is
/// made only when it is needed.
enum AlignFailure {
    Read(ReadSide, Errno),
    Other(Error),
}

impl From<Error> for AlignFailure {
    fn from(error: Error) -> Self {
        AlignFailure::Other(error)
    }
}

#[derive(PartialEq, Eq)]
pub(crate) enum Linked {
    Done,
    IsDirectory,
}
