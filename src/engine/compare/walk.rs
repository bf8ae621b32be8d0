//! The walk of a comparison: enters each directory of either tree, except for those that the index
//! shows to be unchanged.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use crate::decide::fingerprint::Fingerprint;
use crate::engine::attributes::{self, AttributeSource, XattrSource};
use crate::engine::children::{LEVEL_BYTES, PendingChildren};
use crate::engine::compare::entry::EntryComparison;
use crate::engine::compare::{
    CompareFrame, CompareJob, CompareWalk, Comparison, DirectoryToCompare, PresentIn,
};
use crate::engine::descent::{Descent, DirectoryFd};
use crate::engine::difference::{ReadSide as Unread, differences};
use crate::engine::frames::Step;
use crate::engine::index::{Stamp, now_ns};
use crate::engine::listing::Listing;
use crate::system::cephfs::is_one_number as is_one_number_on_cephfs;
use crate::system::identity::Twins;
use crate::system::syscalls::is_gone;
use crate::tell::error::Result;
use crate::tell::progress;

impl CompareWalk<'_> {
    pub(crate) fn run(&mut self) -> Result<()> {
        while let Some(step) = self.frames.next_step() {
            match step {
                Step::Enter(name, directory) => {
                    self.share();
                    self.enter(&name, directory)?;
                }
                Step::ReadAgain(rest) => self.read_again(rest)?,
                Step::Leave => self.leave(),
            }
        }
        Ok(())
    }

    /// Gives a subtree away if a worker waits for one. Only from where both trees have the
    /// directory, since only there the two descents are at the same depth.
    fn share(&mut self) {
        if self.pool.is_stopped() {
            // Another worker has failed, and with it the comparison.
            self.frames.abandon();
        }
        if !self.pool.has_idle_worker() {
            return;
        }
        let in_both = |depth, frame: &CompareFrame| {
            frame.directory.side == PresentIn::Both && self.snapshot.is_near(depth)
        };
        let Some(depth) = self.frames.depth_to_share(&self.live, in_both) else { return };
        let (Ok(live), Ok(snapshot)) = (self.live.start_at(depth), self.snapshot.start_at(depth))
        else {
            return;
        };
        let frame = self.frames.down_to(depth).last_mut();
        if let Some((name, directory)) = frame.and_then(|frame| frame.pending.pop()) {
            self.pool.give(CompareJob { live, snapshot, name: Some(name), directory });
        }
    }

    pub(crate) fn enter_root(&mut self, directory: DirectoryToCompare) -> Result<()> {
        let (_, stat) = self.open_live()?;
        if let Some(frame) = self.unchanged(directory, &stat) {
            self.push(frame);
            return Ok(());
        }
        self.visit(directory)
    }

    /// Visits `name`, which is the next to be visited in the current directories.
    pub(crate) fn enter(&mut self, name: &CStr, directory: DirectoryToCompare) -> Result<()> {
        if self.is_unchanged_leaf(name, directory) {
            return Ok(());
        }
        let mut directory = directory;
        let mut number = None;
        if directory.side != PresentIn::Snapshot {
            // Most directories are unchanged, and nothing is read of those.
            let entered = match self.may_be_unchanged(directory) {
                true => self.live.enter_for_lookups(name),
                false => self.live.enter(name),
            };
            match entered {
                Ok(stat) => {
                    number = Some(stat.st_ino);
                    if let Some(frame) = self.unchanged(directory, &stat) {
                        self.snapshot.pass(name);
                        self.push(frame);
                        return Ok(());
                    }
                    if directory.side == PresentIn::Both
                        && !directory.is_replaced
                        && self.knowledge.is_older(&stat)
                    {
                        self.snapshot.pass(name);
                        return self.visit_older(directory, &stat);
                    }
                }
                Err(Errno::EXDEV) => {
                    if !self.knowledge.known.has_mount(&self.live, name) {
                        self.comparison.changed += 1;
                    }
                    return Ok(());
                }
                // It has gone, or is no directory any more: a change in any case.
                Err(cause) if is_gone(cause) => {
                    self.comparison.changed += 1;
                    return Ok(());
                }
                Err(cause) => return Err(self.live.error("open the directory", Some(name), cause)),
            }
        }
        if directory.side != PresentIn::Live {
            match self.snapshot.enter(name) {
                Ok(stat) => {
                    directory.is_replaced |= number.is_some_and(|live| {
                        self.knowledge.twins == Twins::OfCephFs
                            && !is_one_number_on_cephfs(live, stat.st_ino)
                    });
                }
                // The index lists it, but it was removed from the snapshot.
                Err(cause) if is_gone(cause) && directory.side == PresentIn::Both => {
                    self.comparison.added += 1;
                    return self.visit(DirectoryToCompare { side: PresentIn::Live, ..directory });
                }
                // An empty directory that stands for a subvolume of the module. That one has gone.
                Err(Errno::EXDEV) => {
                    if directory.side == PresentIn::Both {
                        self.comparison.changed += 1;
                        let side = PresentIn::Live;
                        return self.visit(DirectoryToCompare { side, ..directory });
                    }
                    return Ok(());
                }
                Err(cause) => {
                    return Err(self.snapshot.error("open the directory", Some(name), cause));
                }
            }
        }
        self.visit(directory)
    }

    pub(super) fn push(&mut self, mut frame: CompareFrame) {
        frame.pending.ready();
        self.frames.push(frame);
    }

    /// Goes on with the subdirectories that did not fit into memory. The entries of the current
    /// directories are not counted a second time.
    fn read_again(&mut self, mut pending: PendingChildren<DirectoryToCompare>) -> Result<()> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        if !frame.is_unchanged
            && frame.directory.side != PresentIn::Snapshot
            && self.live.directory().is_err_and(is_gone)
        {
            // The directory has been moved away with its remaining entries.
            self.comparison.changed += 1;
            self.push(CompareFrame { pending: PendingChildren::new(LEVEL_BYTES), ..frame });
            return Ok(());
        }
        if frame.is_unchanged && self.look_up_unchanged(frame.directory, &mut pending) {
            self.push(CompareFrame { pending, ..frame });
            return Ok(());
        }
        // Where the index cannot be read any more, the directories are.
        pending.restart();
        match frame.directory.side {
            PresentIn::Both => {
                let before = self.comparison;
                let directories =
                    (self.rewind(PresentIn::Live)?, self.rewind(PresentIn::Snapshot)?);
                self.compare_entries(&directories, frame.directory, &mut pending)?;
                self.comparison = before;
            }
            side => {
                let directory = self.rewind(side)?;
                self.count(&directory, side, &mut pending)?;
            }
        }
        self.push(CompareFrame { pending, is_unchanged: false, ..frame });
        Ok(())
    }

    /// Compares or counts the current directories.
    fn visit(&mut self, directory: DirectoryToCompare) -> Result<()> {
        let mut pending = PendingChildren::new(LEVEL_BYTES);
        self.comparison.directories_read += 1;
        match directory.side {
            PresentIn::Both => {
                self.comparison.directories_read += 1;
                self.compare_directory(directory, &mut pending)?;
            }
            PresentIn::Live => {
                let before_ns = now_ns();
                let (directory, stat) = self.open_live()?;
                let entries = self.count(&directory, PresentIn::Live, &mut pending)?;
                if let Some(cache) = self.knowledge.cache
                    && entries == self.listing.entries().len() as u64
                {
                    cache.insert(&self.listing, directory.as_fd(), &stat, before_ns);
                }
                if let Some(files) = self.knowledge.new_files {
                    files.sync_directory(&self.live, directory.as_fd());
                }
                self.comparison.added += entries;
                self.note_visited(&Stamp::of(&stat), entries);
            }
            PresentIn::Snapshot => {
                let (directory, _) = self.open_snapshot()?;
                self.comparison.removed +=
                    self.count(&directory, PresentIn::Snapshot, &mut pending)?;
            }
        }
        self.push(CompareFrame { directory, is_unchanged: false, pending });
        Ok(())
    }

    /// The current directory of one tree, to be read from its start.
    fn rewind(&mut self, side: PresentIn) -> Result<DirectoryFd> {
        let descent = if side == PresentIn::Snapshot { &mut self.snapshot } else { &mut self.live };
        let (directory, _) = open_with_state(descent)?;
        Listing::rewind(directory.as_fd()).map_err(|cause| descent.error("read", None, cause))?;
        Ok(directory)
    }

    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if frame.directory.side != PresentIn::Snapshot {
            self.live.leave();
        }
        if frame.directory.side != PresentIn::Live {
            self.snapshot.leave();
        }
    }

    pub(super) fn open_live(&mut self) -> Result<(DirectoryFd, FileStat)> {
        open_with_state(&mut self.live)
    }

    fn open_snapshot(&mut self) -> Result<(DirectoryFd, FileStat)> {
        open_with_state(&mut self.snapshot)
    }

    fn compare_directory(
        &mut self,
        directory: DirectoryToCompare,
        pending: &mut PendingChildren<DirectoryToCompare>,
    ) -> Result<()> {
        let before = self.comparison;
        let before_ns = now_ns();
        let (live, live_stat) = self.open_live()?;
        let (snapshot, snapshot_stat) = self.open_snapshot()?;
        let xattrs = XattrSource::Of(live.as_fd());
        let original = AttributeSource { stat: &live_stat, xattrs };
        if !self.knowledge.is_untouched(&live_stat, &snapshot_stat) {
            let differ = attributes::differ(original, snapshot.as_fd(), &snapshot_stat);
            if differ.map_err(|cause| self.live.error("compare the attributes of", None, cause))? {
                self.comparison.changed += 1;
            }
        }
        let entries = self.compare_entries(&(live.clone(), snapshot), directory, pending)?;
        if let Some((cache, listing)) = self.knowledge.cache.zip(self.comparer.live_listing()) {
            cache.insert(listing, live.as_fd(), &live_stat, before_ns);
        }
        if let Some(files) = self.knowledge.new_files.filter(|_| self.comparison != before) {
            files.sync_directory(&self.live, live.as_fd());
        }
        self.note_visited(&Stamp::of(&live_stat), entries);
        self.check_index(directory, &live, &live_stat, &before);
        Ok(())
    }

    /// Compares the entries of two directories; returns how many the live one has.
    fn compare_entries(
        &mut self,
        (live, snapshot): &(DirectoryFd, DirectoryFd),
        directory: DirectoryToCompare,
        pending: &mut PendingChildren<DirectoryToCompare>,
    ) -> Result<u64> {
        let CompareWalk {
            comparer,
            live: live_descent,
            snapshot: snapshot_descent,
            knowledge,
            comparison,
            ..
        } = self;
        let failed = |side, cause| match side {
            Unread::Live => live_descent.error("read", None, cause),
            Unread::Snapshot => snapshot_descent.error("read", None, cause),
        };
        let mut entry = EntryComparison {
            knowledge,
            live: live_descent,
            directory: live.as_fd(),
            snapshot: snapshot.as_fd(),
            comparison,
            pending,
            is_replaced: directory.is_replaced,
        };
        let directories = (live.as_fd(), snapshot.as_fd());
        let entries = differences(directories, None, comparer, failed, |name, live, snapshot| {
            entry.compare(name, live, snapshot);
            Ok(())
        })?;
        self.look_up(directory, pending);
        Ok(entries)
    }

    /// Counts the entries of a directory that only one tree has.
    fn count(
        &mut self,
        directory: &DirectoryFd,
        side: PresentIn,
        pending: &mut PendingChildren<DirectoryToCompare>,
    ) -> Result<u64> {
        let mut entries = 0;
        let mut listing = std::mem::take(&mut self.listing);
        let failed = |cause| match side {
            PresentIn::Snapshot => self.snapshot.error("read", None, cause),
            PresentIn::Both | PresentIn::Live => self.live.error("read", None, cause),
        };
        listing.read_first(directory.as_fd()).map_err(failed)?;
        loop {
            entries += listing.entries().len() as u64;
            for entry in listing.entries() {
                let name = listing.name(entry);
                match (entry.is_directory, self.knowledge.new_files) {
                    (true, _) => {
                        let below = DirectoryToCompare { side, indexed: None, is_replaced: false };
                        pending.push(name, below);
                    }
                    (false, Some(files)) if side != PresentIn::Snapshot => {
                        files.sync(&self.live, directory.as_fd(), name);
                    }
                    (false, _) => {}
                }
            }
            if !listing.read_next(directory.as_fd()).map_err(failed)? {
                break;
            }
        }
        self.listing = listing;
        Ok(entries)
    }

    pub(super) fn note_visited(&mut self, stamp: &Stamp, entries: u64) {
        if let Some(search) = self.knowledge.unfinished {
            search.note(&self.live, stamp);
        }
        self.note_live(stamp.ctime_ns, entries);
    }

    pub(crate) fn note_live(&mut self, ctime_ns: i64, entries: u64) {
        progress::add(entries);
        let fingerprint = Fingerprint { directories: 1, entries, ctime_sum: ctime_ns & i64::MAX };
        self.comparison.add(&Comparison {
            fingerprint,
            newest_ctime_ns: ctime_ns,
            ..Comparison::default()
        });
    }
}

fn open_with_state(descent: &mut Descent) -> Result<(DirectoryFd, FileStat)> {
    let directory = descent.directory().map_err(|cause| descent.error("open", None, cause))?;
    let stat = fstat(&directory).map_err(|cause| descent.error("inspect", None, cause))?;
    Ok((directory, stat))
}
