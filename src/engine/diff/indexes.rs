//! What the indexes of two trees say of one directory.
//!
//! The index of a snapshot has, for each directory, a stamp of the module's directory that it was
//! made of. If both snapshots were made of one state of it, or if it still is in the state that the
//! snapshot was made of, both have the same names of the same inodes, and equal attributes. A
//! directory for which that is not certain has a stamp that nothing equals.
//!
//! Another program may have changed the snapshot's own directory since then, so that has to be in
//! the state that the index has of it.

use crate::engine::index::block::RecordPosition;
use crate::engine::index::reader::{DirectoryIndex, IndexReader};
use crate::engine::index::{IndexRecord, SnapshotStamp, Stamp};

/// Where the indexes of the two trees have a directory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IndexPlaces {
    pub old: Option<RecordPosition>,
    pub new: Option<RecordPosition>,
}

/// The indexes of the two trees.
#[derive(Clone, Copy)]
pub(crate) struct DiffIndexes<'a> {
    pub old: &'a DirectoryIndex,
    pub new: NewIndex<'a>,
}

/// What tells the state of the new tree's directories.
#[derive(Clone, Copy)]
pub(crate) enum NewIndex<'a> {
    /// It is the module itself.
    Live,
    Of(&'a DirectoryIndex),
}

/// The same, being read.
pub(crate) struct IndexReaders<'a> {
    pub(crate) old: IndexReader<'a>,
    pub(crate) new: Option<IndexReader<'a>>,
    pub(crate) root: IndexPlaces,
}

impl<'a> IndexReaders<'a> {
    pub(crate) fn new(indexes: DiffIndexes<'a>) -> Self {
        let new = match indexes.new {
            NewIndex::Live => None,
            NewIndex::Of(index) => Some(index),
        };
        IndexReaders {
            old: indexes.old.reader(),
            new: new.map(DirectoryIndex::reader),
            root: IndexPlaces { old: Some(indexes.old.root()), new: new.map(DirectoryIndex::root) },
        }
    }

    /// What the old tree's index has of a directory that was made of the same state as the new
    /// tree's.
    pub(crate) fn record(&self, places: IndexPlaces) -> Option<IndexRecord> {
        let record = self.old.record(places.old?).filter(|old| old.live != Stamp::NEVER)?;
        match &self.new {
            Some(new) => new.record(places.new?).filter(|new| new.live == record.live)?,
            None => record,
        };
        Some(record)
    }

    /// Whether both trees' directories, now in the states `old` and `new`, are as they were when
    /// the indexes were made.
    pub(crate) fn are_as_indexed(
        &self,
        record: &IndexRecord,
        places: IndexPlaces,
        old: Stamp,
        new: Stamp,
    ) -> bool {
        let own = |stamp: Stamp| SnapshotStamp { inode: stamp.inode, ctime_ns: stamp.ctime_ns };
        own(old) == record.own
            && match &self.new {
                Some(reader) => {
                    let record = places.new.and_then(|at| reader.record(at));
                    record.is_some_and(|record| own(new) == record.own)
                }
                None => new == record.live,
            }
    }

    pub(crate) fn is_leaf(&self, places: IndexPlaces) -> bool {
        places.old.is_some_and(|at| self.old.leaf(at).is_some())
    }
}
