//! What a comparison takes from the snapshot's index: directories that have not changed, with their
//! subdirectories. Where the index is damaged, nothing is taken from it, and the directories are
//! read.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::sys::stat::{FileStat, fstat};

use crate::engine::children::{LEVEL_BYTES, PendingChildren};
use crate::engine::compare::{
    CompareFrame, CompareWalk, Comparison, DirectoryToCompare, PresentIn,
};
use crate::engine::descent::DirectoryFd;
use crate::engine::index::block::RecordPosition;
use crate::engine::index::{IndexRecord, Stamp};
use crate::tell::escape::escape;

impl CompareWalk<'_> {
    /// Whether `name` is a directory without subdirectories, and equals its stamp in the index. For
    /// most directories of most trees this is the only call.
    pub(crate) fn is_unchanged_leaf(&mut self, name: &CStr, directory: DirectoryToCompare) -> bool {
        let index = self.index.as_ref().filter(|_| !self.knowledge.is_index_check);
        let Some((index, at)) = index.zip(directory.indexed) else { return false };
        let Some(record) = index.leaf(at) else { return false };
        let device = self.live.device();
        let live = self
            .live
            .lookup_directory()
            .and_then(|parent| Stamp::of_entry(parent.as_fd(), name, device));
        let is_unchanged = live.is_ok_and(|live| live == Some(record.live));
        if is_unchanged {
            self.note_unchanged(at, &record);
        }
        is_unchanged
    }

    /// Whether the index has a stamp for the directory that counts.
    pub(crate) fn may_be_unchanged(&self, directory: DirectoryToCompare) -> bool {
        directory.indexed.is_some() && !self.knowledge.is_index_check
    }

    /// The frame of a directory whose live state equals the index: its subdirectories are those of
    /// the index.
    pub(crate) fn unchanged(
        &mut self,
        directory: DirectoryToCompare,
        stat: &FileStat,
    ) -> Option<CompareFrame> {
        let index = self.index.as_ref().filter(|_| !self.knowledge.is_index_check)?;
        let at = directory.indexed?;
        let record = index.record(at).filter(|record| record.live == Stamp::of(stat))?;
        let mut pending = PendingChildren::new(LEVEL_BYTES);
        if !self.look_up_unchanged(directory, &mut pending) {
            return None;
        }
        self.note_unchanged(at, &record);
        Some(CompareFrame { directory, is_unchanged: true, pending })
    }

    /// The subdirectories of an unchanged directory; false if not all of them can be read from the
    /// index.
    pub(crate) fn look_up_unchanged(
        &self,
        parent: DirectoryToCompare,
        pending: &mut PendingChildren<DirectoryToCompare>,
    ) -> bool {
        let Some((index, at)) = self.index.as_ref().zip(parent.indexed) else { return false };
        index.for_each_child(at, |name, child| {
            pending.push(
                name,
                DirectoryToCompare {
                    side: PresentIn::Both,
                    indexed: Some(child),
                    is_replaced: false,
                },
            );
        })
    }

    /// Finds in the index the subdirectories of a directory that was read.
    pub(crate) fn look_up(
        &self,
        parent: DirectoryToCompare,
        pending: &mut PendingChildren<DirectoryToCompare>,
    ) {
        pending.ready();
        let Some(index) = self.index.as_ref().filter(|_| parent.indexed.is_some()) else { return };
        let mut children = index.children(parent.indexed);
        pending.update(|name, directory| {
            if directory.side == PresentIn::Both {
                directory.indexed = children.find(name);
            }
        });
    }

    pub(crate) fn note_unchanged(&mut self, at: RecordPosition, record: &IndexRecord) {
        let Some(index) = &self.index else { return };
        index.note_unchanged(at);
        self.note_live(record.live.ctime_ns, record.entries.into());
    }

    /// Checks what the index says about a directory against its comparison; logs and counts an
    /// error of the index.
    pub(crate) fn check_index(
        &mut self,
        directory: DirectoryToCompare,
        live: &DirectoryFd,
        stat: &FileStat,
        before: &Comparison,
    ) {
        let Some((index, at)) = self.index.as_ref().zip(directory.indexed) else { return };
        let stamp = Stamp::of(stat);
        if index.record(at).is_none_or(|record| record.live != stamp) {
            return;
        }
        let found =
            |comparison: &Comparison| comparison.added + comparison.changed + comparison.removed;
        // The directory may have changed after its stamp was read.
        let is_still = || fstat(live).is_ok_and(|stat| Stamp::of(&stat) == stamp);
        if found(before) == found(&self.comparison) {
            index.note_unchanged(at);
        } else if is_still() {
            self.comparison.index_errors += 1;
            let path = escape(&self.live.relative_path(None));
            log::error!(
                "the index calls the directory {path:?} unchanged, but it differs from the \
                 snapshot's"
            );
        }
    }
}
