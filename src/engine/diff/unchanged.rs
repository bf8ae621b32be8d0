//! Directories that need not be read, because the [indexes](crate::engine::diff::indexes) show that
//! both trees have them alike. Where an index is damaged or missing, directories are read.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::sys::stat::FileStat;

use crate::engine::children::PendingChildren;
use crate::engine::descent::Descent;
use crate::engine::diff::indexes::IndexPlaces;
use crate::engine::diff::{DiffFrame, DiffWalk, DirectoryToDiff, Side};
use crate::engine::index::Stamp;

impl DiffWalk<'_> {
    /// Whether the index knows the state of a directory well enough to ask for it.
    pub(crate) fn may_be_unchanged(&self, directory: DirectoryToDiff) -> bool {
        self.indexes.as_ref().is_some_and(|indexes| indexes.record(directory.places).is_some())
    }

    /// Whether `name` is a directory without subdirectories that both trees have alike.
    pub(crate) fn is_unchanged_leaf(&mut self, name: &CStr, directory: DirectoryToDiff) -> bool {
        let Some(indexes) = &self.indexes else { return false };
        let places = directory.places;
        let Some(record) = indexes.record(places).filter(|_| indexes.is_leaf(places)) else {
            return false;
        };
        let stamp = |descent: &mut Descent| {
            let parent = descent.lookup_directory().ok()?;
            Stamp::of_entry(parent.as_fd(), name, descent.device()).ok()?
        };
        let (Some(old), Some(new)) = (stamp(&mut self.old), stamp(&mut self.new)) else {
            return false;
        };
        let is_unchanged = indexes.are_as_indexed(&record, places, old, new);
        if is_unchanged {
            self.work.add(record.entries.into());
        }
        is_unchanged
    }

    /// The subdirectories of the current directories, if both trees have these alike.
    pub(crate) fn unchanged(
        &mut self,
        directory: DirectoryToDiff,
        (old, new): (&FileStat, &FileStat),
        pending: &mut PendingChildren<DirectoryToDiff>,
    ) -> bool {
        let Some(indexes) = &self.indexes else { return false };
        let places = directory.places;
        let Some(record) = indexes.record(places) else { return false };
        if !indexes.are_as_indexed(&record, places, Stamp::of(old), Stamp::of(new)) {
            return false;
        }
        self.work.add(record.entries.into());
        self.list_unchanged(places, pending)
    }

    /// Adds the subdirectories that the index has; false if not all of them can be read.
    pub(crate) fn list_unchanged(
        &self,
        places: IndexPlaces,
        pending: &mut PendingChildren<DirectoryToDiff>,
    ) -> bool {
        let Some((indexes, at)) = self.indexes.as_ref().zip(places.old) else { return false };
        indexes.old.for_each_child(at, |name, _| {
            let places = IndexPlaces::default();
            pending.push(name, DirectoryToDiff { side: Side::Both, is_replaced: false, places });
        })
    }

    /// Finds in the indexes the subdirectories of a directory.
    pub(crate) fn look_up(&self, frame: &mut DiffFrame) {
        frame.pending.ready();
        let Some(indexes) = self.indexes.as_ref().filter(|_| frame.side == Side::Both) else {
            return;
        };
        let mut old = indexes.old.children(frame.places.old);
        let mut new = indexes.new.as_ref().map(|new| new.children(frame.places.new));
        frame.pending.update(|name, directory| {
            if directory.side == Side::Both {
                let new = new.as_mut().and_then(|new| new.find(name));
                directory.places = IndexPlaces { old: old.find(name), new };
            }
        });
    }
}
