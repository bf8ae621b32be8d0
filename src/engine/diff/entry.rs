//! One entry that is no directory, and differs by name or inode.

use std::ffi::CString;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use nix::fcntl::readlinkat;
use nix::sys::stat::FileStat;

use crate::decide::entry_changes::{EntryChange, changes};
use crate::decide::restore_step::EntryState;
use crate::engine::attributes::xattrs_differ;
use crate::engine::diff::{DiffWalk, Side, TreeDifference};
use crate::engine::index::Stamp;
use crate::engine::restore::compare::{
    CompareFailure, Depth, EntrySide, contents_differ, state_of,
};
use crate::system::identity::Identity;
use crate::system::syscalls::is_gone;

/// An entry to be compared; sorted by name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FoundEntry {
    pub name: CString,
    pub is_in_old: bool,
    pub is_in_new: bool,
}

impl DiffWalk<'_> {
    /// Reports how an entry of the current directories differs.
    pub(crate) fn compare_entry(&mut self, entry: &FoundEntry) -> ControlFlow<()> {
        let difference = match (entry.is_in_old, entry.is_in_new) {
            (true, true) => self.compare_both(entry),
            (true, false) => self.look_at(entry, Side::Old).map(TreeDifference::Removed),
            (false, _) => self.look_at(entry, Side::New).map(TreeDifference::Added),
        };
        let Some(difference) = difference else { return ControlFlow::Continue(()) };
        let path = self.new_or_old_path(entry);
        self.report.differs(&path, false, &difference)
    }

    fn new_or_old_path(&self, entry: &FoundEntry) -> Vec<u8> {
        let descent = if entry.is_in_new { &self.new } else { &self.old };
        descent.listed_path(Some(&entry.name))
    }

    /// The state of an entry of one tree, if the report wants it; the outer `None` if the entry is
    /// not to be reported.
    fn look_at(&mut self, entry: &FoundEntry, side: Side) -> Option<Option<EntryState>> {
        if !self.report.wants_states() {
            return Some(None);
        }
        match self.stat(side, &entry.name) {
            Ok(stat) => Some(Some(state_of(&stat))),
            Err(cause) if is_gone(cause) && side == Side::New => None,
            Err(cause) => {
                self.unread(side, Some(&entry.name), cause);
                None
            }
        }
    }

    fn compare_both(&mut self, entry: &FoundEntry) -> Option<TreeDifference> {
        let name = entry.name.as_c_str();
        let old = match self.stat(Side::Old, name) {
            Ok(stat) => stat,
            Err(cause) => {
                self.unread(Side::Old, Some(name), cause);
                return None;
            }
        };
        let new = match self.stat(Side::New, name) {
            Ok(stat) => stat,
            Err(cause) if is_gone(cause) => {
                return Some(TreeDifference::Removed(Some(state_of(&old))));
            }
            Err(cause) => {
                self.unread(Side::New, Some(name), cause);
                return None;
            }
        };
        let is_settled = Stamp::of(&new).ctime_ns < self.settled_ns;
        let is_twin = is_settled && self.twins.are_untouched(&old, &new);
        if Identity::of(&old) == Identity::of(&new) || is_twin {
            return None;
        }
        let (old_state, new_state) = (state_of(&old), state_of(&new));
        let mut what = changes(&old_state, &new_state);
        if !what.contains(&EntryChange::Kind) {
            match self.compare_inside(entry, &old, &new) {
                Ok(more) => what.extend(more),
                Err(CompareFailure::Destination(cause)) => {
                    self.unread(Side::Old, Some(name), cause);
                }
                // What changes while it is read has another content than before.
                Err(CompareFailure::Source(cause)) => match self.stat(Side::New, name) {
                    Ok(now) if Stamp::of(&now) == Stamp::of(&new) => {
                        self.unread(Side::New, Some(name), cause);
                    }
                    _ => what.push(EntryChange::Content),
                },
            }
        }
        what.sort_unstable();
        what.dedup();
        let difference = TreeDifference::Changed { old: old_state, new: new_state, what };
        Some(difference)
            .filter(|it| !matches!(it, TreeDifference::Changed { what, .. } if what.is_empty()))
    }

    /// In what two entries of one kind differ that no state tells.
    fn compare_inside(
        &mut self,
        entry: &FoundEntry,
        old: &FileStat,
        new: &FileStat,
    ) -> Result<Vec<EntryChange>, CompareFailure> {
        let name = entry.name.as_c_str();
        let old_directory = self.old.lookup_directory().map_err(CompareFailure::Destination)?;
        let new_directory = self.new.lookup_directory().map_err(CompareFailure::Source)?;
        let old_side = EntrySide { directory: old_directory.as_fd(), name, stat: old };
        let new_side = EntrySide { directory: new_directory.as_fd(), name, stat: new };
        let mut what = Vec::new();
        if xattrs_differ(new_side.xattrs(), old_side.xattrs()).map_err(CompareFailure::Source)? {
            what.push(EntryChange::Xattrs);
        }
        let state = state_of(old);
        if state.is_link() {
            let target = |side: EntrySide| readlinkat(side.directory, side.name);
            let old = target(old_side).map_err(CompareFailure::Destination)?;
            let new = target(new_side).map_err(CompareFailure::Source)?;
            if old != new {
                what.push(EntryChange::Target);
            }
        }
        let is_of_equal_size = state.is_regular() && old.st_size == new.st_size;
        if is_of_equal_size && contents_differ(new_side, old_side, Depth::Content)? {
            what.push(EntryChange::Content);
        }
        Ok(what)
    }
}
