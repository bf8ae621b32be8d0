//! The walk over both trees.
//!
//! The two descents are in the same directory where both trees have it. Below a directory that only
//! one tree has, the other descent stays where it is.

use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use crate::decide::entry_changes::{EntryChange, changes};
use crate::decide::path_patterns::PatternReach;
use crate::engine::attributes::{XattrSource, directory_xattrs_differ};
use crate::engine::children::{LEVEL_BYTES, PendingChildren};
use crate::engine::descent::{Descent, DirectoryFd};
use crate::engine::diff::entry::FoundEntry;
use crate::engine::diff::indexes::IndexPlaces;
use crate::engine::diff::{
    DiffFrame, DiffWalk, DirectoryToDiff, MOST_AT_ONCE, Side, TreeDifference,
};
use crate::engine::difference::{EntryInode, ReadSide, differences};
use crate::engine::frames::Step;
use crate::engine::listing::Listing;
use crate::engine::restore::compare::state_of;
use crate::engine::walk::DirectoryPass;
use crate::system::identity::{Identity, SysResult};
use crate::system::syscalls::{is_gone, stat_entry};

/// Why a directory was not read to its end.
enum Unfinished {
    /// The report has ended the walk.
    Ended,
    Unread(ReadSide, Errno),
}

impl DiffWalk<'_> {
    pub(crate) fn run(&mut self) -> ControlFlow<()> {
        let reach = self.patterns.root();
        if reach == PatternReach::Inside {
            self.compare_directories()?;
        }
        let places = self.indexes.as_ref().map(|indexes| indexes.root).unwrap_or_default();
        self.visit(Side::Both, reach, places)?;
        while let Some(step) = self.frames.next_step() {
            match step {
                Step::Enter(name, directory) => self.enter(&name, directory)?,
                Step::ReadAgain(rest) => self.read_again(rest)?,
                Step::Leave => self.leave(),
            }
        }
        ControlFlow::Continue(())
    }

    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if frame.side != Side::Old {
            self.new.leave();
        }
        if frame.side != Side::New {
            self.old.leave();
        }
    }

    fn descent(&mut self, side: Side) -> &mut Descent {
        if side == Side::Old { &mut self.old } else { &mut self.new }
    }

    pub(crate) fn unread(&mut self, side: Side, name: Option<&CStr>, cause: Errno) {
        let error = self.descent(side).error("read", name, cause);
        self.report.unread(error);
    }

    fn enter(&mut self, name: &CStr, directory: DirectoryToDiff) -> ControlFlow<()> {
        let above = self.frames.last_mut().map(|frame| &frame.reach);
        let reach =
            above.map_or(PatternReach::Outside, |above| self.patterns.step(above, name.to_bytes()));
        match (&reach, directory.side) {
            (PatternReach::Outside, _) => ControlFlow::Continue(()),
            (_, Side::Both) => self.enter_both(name, directory, reach),
            (_, side) => self.enter_one(name, side, directory.is_replaced, reach),
        }
    }

    fn enter_both(
        &mut self,
        name: &CStr,
        directory: DirectoryToDiff,
        reach: PatternReach,
    ) -> ControlFlow<()> {
        if self.is_unchanged_leaf(name, directory) {
            return ControlFlow::Continue(());
        }
        // Most directories are unchanged, and nothing is read of those.
        let enter = match self.may_be_unchanged(directory) {
            true => Descent::enter_for_lookups,
            false => Descent::enter,
        };
        let new = match enter(&mut self.new, name) {
            Ok(stat) => stat,
            Err(cause) if is_gone(cause) => return self.enter_lost(name, reach),
            Err(cause) => {
                self.unread(Side::New, Some(name), cause);
                return ControlFlow::Continue(());
            }
        };
        let old = match enter(&mut self.old, name) {
            // One directory is in both trees.
            Ok(old) if Identity::of(&old) == Identity::of(&new) => {
                self.new.leave();
                self.old.leave();
                return ControlFlow::Continue(());
            }
            Ok(stat) => stat,
            Err(cause) => {
                self.new.leave();
                self.unread(Side::Old, Some(name), cause);
                return ControlFlow::Continue(());
            }
        };
        let (side, places) = (Side::Both, directory.places);
        let mut pending = PendingChildren::new(LEVEL_BYTES);
        if self.unchanged(directory, (&old, &new), &mut pending) {
            self.push(DiffFrame { side, reach, places, is_unchanged: true, pending });
            return ControlFlow::Continue(());
        }
        if reach == PatternReach::Inside {
            self.compare_directories()?;
        }
        self.visit(side, reach, places)
    }

    fn push(&mut self, mut frame: DiffFrame) {
        self.look_up(&mut frame);
        self.frames.push(frame);
    }

    /// Goes on in a directory that the new tree has lost since it was listed.
    fn enter_lost(&mut self, name: &CStr, reach: PatternReach) -> ControlFlow<()> {
        let now = self.stat(Side::New, name);
        match now {
            Err(cause) if is_gone(cause) => self.enter_one(name, Side::Old, false, reach),
            // It became a directory again, or the directory above has gone.
            Ok(stat) if state_of(&stat).is_directory() => {
                self.unread(Side::New, Some(name), Errno::ESTALE);
                ControlFlow::Continue(())
            }
            Ok(_) => self.enter_one(name, Side::Old, true, reach),
            Err(cause) => {
                self.unread(Side::New, Some(name), cause);
                ControlFlow::Continue(())
            }
        }
    }

    fn enter_one(
        &mut self,
        name: &CStr,
        side: Side,
        is_replaced: bool,
        reach: PatternReach,
    ) -> ControlFlow<()> {
        let stat = match self.descent(side).enter(name) {
            Ok(stat) => stat,
            // It has gone since it was listed, and so there is nothing to report.
            Err(cause) if is_gone(cause) && side == Side::New => {
                return ControlFlow::Continue(());
            }
            Err(cause) => {
                self.unread(side, Some(name), cause);
                return ControlFlow::Continue(());
            }
        };
        if reach == PatternReach::Inside {
            let path = self.descent(side).listed_path(None);
            let own = state_of(&stat);
            let other = if side == Side::New { Side::Old } else { Side::New };
            let replaced = if is_replaced { self.stat(other, name).ok() } else { None };
            let what = vec![EntryChange::Kind];
            let difference = match (side, replaced.as_ref().map(state_of)) {
                (Side::Old, Some(new)) => TreeDifference::Changed { old: own, new, what },
                (_, Some(old)) => TreeDifference::Changed { old, new: own, what },
                (Side::Old, None) => TreeDifference::Removed(Some(own)),
                (_, None) => TreeDifference::Added(Some(own)),
            };
            self.report.differs(&path, true, &difference)?;
        }
        self.visit(side, reach, IndexPlaces::default())
    }

    /// The state of `name` in the current directory of one tree.
    pub(crate) fn stat(&mut self, side: Side, name: &CStr) -> SysResult<FileStat> {
        let directory = self.descent(side).lookup_directory()?;
        stat_entry(directory.as_fd(), name)
    }

    /// Reports whether the current directories themselves differ.
    fn compare_directories(&mut self) -> ControlFlow<()> {
        let (old, new) = match self.opened() {
            Ok(opened) => opened,
            Err((side, cause)) => {
                self.unread(side, None, cause);
                return ControlFlow::Continue(());
            }
        };
        let states = fstat(&old).and_then(|old| Ok((state_of(&old), state_of(&fstat(&new)?))));
        let (old_state, new_state) = match states {
            Ok(states) => states,
            Err(cause) => {
                self.unread(Side::New, None, cause);
                return ControlFlow::Continue(());
            }
        };
        let mut what = changes(&old_state, &new_state);
        match directory_xattrs_differ(XattrSource::Of(new.as_fd()), old.as_fd()) {
            Ok(true) => what.push(EntryChange::Xattrs),
            Ok(false) => {}
            Err(cause) => self.unread(Side::New, None, cause),
        }
        if what.is_empty() {
            return ControlFlow::Continue(());
        }
        let path = self.new.listed_path(None);
        let difference = TreeDifference::Changed { old: old_state, new: new_state, what };
        self.report.differs(&path, true, &difference)
    }

    /// The current directories of both trees, open for reading.
    fn opened(&mut self) -> Result<(DirectoryFd, DirectoryFd), (Side, Errno)> {
        let old = self.old.directory().map_err(|cause| (Side::Old, cause))?;
        let new = self.new.directory().map_err(|cause| (Side::New, cause))?;
        Ok((old, new))
    }

    fn visit(&mut self, side: Side, reach: PatternReach, places: IndexPlaces) -> ControlFlow<()> {
        let pending = PendingChildren::new(LEVEL_BYTES);
        self.read(
            DiffFrame { side, reach, places, is_unchanged: false, pending },
            DirectoryPass::First,
        )
    }

    /// Goes on with the subdirectories that did not fit into memory.
    fn read_again(&mut self, mut pending: PendingChildren<DirectoryToDiff>) -> ControlFlow<()> {
        let Some(frame) = self.frames.pop() else { return ControlFlow::Continue(()) };
        if frame.is_unchanged && self.list_unchanged(frame.places, &mut pending) {
            self.push(DiffFrame { pending, ..frame });
            return ControlFlow::Continue(());
        }
        // Where the index cannot be read any more, the directories are.
        pending.restart();
        self.read(DiffFrame { pending, is_unchanged: false, ..frame }, DirectoryPass::Later)
    }

    /// Reads the current directories, and pushes their frame.
    fn read(&mut self, mut frame: DiffFrame, pass: DirectoryPass) -> ControlFlow<()> {
        let mut found = Vec::new();
        let done = match frame.side {
            Side::Both => self.read_both(&mut frame, pass, &mut found),
            side => self.read_one(&mut frame, side, pass, &mut found),
        };
        match done {
            Ok(()) => {}
            Err(Unfinished::Ended) => return ControlFlow::Break(()),
            Err(Unfinished::Unread(side, cause)) => {
                let side = if side == ReadSide::Snapshot { Side::Old } else { Side::New };
                // A directory of the module that was removed meanwhile has no entries.
                if !(is_gone(cause) && frame.side == Side::New) {
                    self.unread(side, None, cause);
                }
            }
        }
        self.report_found(&mut found)?;
        self.push(frame);
        ControlFlow::Continue(())
    }

    fn read_both(
        &mut self,
        frame: &mut DiffFrame,
        pass: DirectoryPass,
        found: &mut Vec<FoundEntry>,
    ) -> Result<(), Unfinished> {
        let sided = |(side, cause)| match side {
            Side::Old => Unfinished::Unread(ReadSide::Snapshot, cause),
            _ => Unfinished::Unread(ReadSide::Live, cause),
        };
        let (old, new) = self.opened().map_err(sided)?;
        if pass == DirectoryPass::Later {
            Listing::rewind(new.as_fd()).map_err(|cause| sided((Side::New, cause)))?;
            Listing::rewind(old.as_fd()).map_err(|cause| sided((Side::Old, cause)))?;
        }
        let mut comparer = std::mem::take(&mut self.comparer);
        let directories = (new.as_fd(), old.as_fd());
        let entries =
            differences(directories, None, &mut comparer, Unfinished::Unread, |name, new, old| {
                self.note(frame, pass, FoundNames { name, old, new }, found)
            });
        self.comparer = comparer;
        self.work.add(entries?);
        Ok(())
    }

    fn read_one(
        &mut self,
        frame: &mut DiffFrame,
        side: Side,
        pass: DirectoryPass,
        found: &mut Vec<FoundEntry>,
    ) -> Result<(), Unfinished> {
        let read_side = if side == Side::Old { ReadSide::Snapshot } else { ReadSide::Live };
        let failed = |cause| Unfinished::Unread(read_side, cause);
        let directory = self.descent(side).directory().map_err(failed)?;
        if pass == DirectoryPass::Later {
            Listing::rewind(directory.as_fd()).map_err(failed)?;
        }
        let mut listing = std::mem::take(&mut self.listing);
        let mut read = || {
            listing.read_first(directory.as_fd()).map_err(failed)?;
            loop {
                self.work.add(listing.entries().len() as u64);
                for entry in listing.entries() {
                    let name = listing.name(entry);
                    let inode = Some(EntryInode::from(entry));
                    let (old, new) = if side == Side::Old { (inode, None) } else { (None, inode) };
                    self.note(frame, pass, FoundNames { name, old, new }, found)?;
                }
                if !listing.read_next(directory.as_fd()).map_err(failed)? {
                    return Ok(());
                }
            }
        };
        let done = read();
        self.listing = listing;
        done
    }

    /// Notes a name that differs, or is a directory: to be entered, or to be reported.
    fn note(
        &mut self,
        frame: &mut DiffFrame,
        pass: DirectoryPass,
        names: FoundNames,
        found: &mut Vec<FoundEntry>,
    ) -> Result<(), Unfinished> {
        let FoundNames { name, old, new } = names;
        let is_directory = |entry: Option<EntryInode>| entry.is_some_and(|it| it.is_directory);
        let side = match (is_directory(old), is_directory(new)) {
            (true, true) => Some(Side::Both),
            (true, false) => Some(Side::Old),
            (false, true) => Some(Side::New),
            (false, false) => None,
        };
        if let Some(side) = side {
            let is_replaced = side != Side::Both && old.is_some() && new.is_some();
            let places = IndexPlaces::default();
            frame.pending.push(name, DirectoryToDiff { side, is_replaced, places });
            return Ok(());
        }
        let is_meant = || match &frame.reach {
            PatternReach::Inside => true,
            above => self.patterns.step(above, name.to_bytes()) == PatternReach::Inside,
        };
        if pass == DirectoryPass::Later || !is_meant() {
            return Ok(());
        }
        let (is_in_old, is_in_new) = (old.is_some(), new.is_some());
        found.push(FoundEntry { name: CString::from(name), is_in_old, is_in_new });
        if found.len() < MOST_AT_ONCE || self.report_found(found).is_continue() {
            Ok(())
        } else {
            Err(Unfinished::Ended)
        }
    }

    fn report_found(&mut self, found: &mut Vec<FoundEntry>) -> ControlFlow<()> {
        found.sort_unstable();
        for entry in found.drain(..) {
            self.compare_entry(&entry)?;
        }
        ControlFlow::Continue(())
    }
}

/// A name with its entries in the two trees.
#[derive(Clone, Copy)]
struct FoundNames<'a> {
    name: &'a CStr,
    old: Option<EntryInode>,
    new: Option<EntryInode>,
}
