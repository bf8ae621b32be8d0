//! Finds directories that a failed push left unfinished.
//!
//! rsync sets a directory's modification time when it has finished the directory. Until then that
//! time is the kernel's and equals the change time.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::decide::failed_push::UnfinishedDirectory;
use crate::engine::descent::Descent;
use crate::engine::index::Stamp;
use crate::tell::escape::escape;

/// How many of the latest are kept, for all failed pushes together.
const MAX_FOUND: usize = 1_024;

/// A search along the walk of a comparison. It examines only the directories that the walk reads:
/// those that the index calls unchanged have not been written to since the newest complete
/// snapshot.
#[derive(Debug)]
pub(crate) struct UnfinishedSearch {
    since_ns: i64,
    found: Mutex<BTreeSet<(i64, String)>>,
}

impl UnfinishedSearch {
    /// Searches for directories that changed at or after `since_ns`, nanoseconds since 1970.
    pub(crate) fn new(since_ns: i64) -> Self {
        UnfinishedSearch { since_ns, found: Mutex::new(BTreeSet::new()) }
    }

    /// Notes the current live directory if it is unfinished.
    pub(crate) fn note(&self, live: &Descent, stamp: &Stamp) {
        if stamp.mtime_ns != stamp.ctime_ns || stamp.ctime_ns < self.since_ns {
            return;
        }
        // rsync cannot have used a path that is too long.
        let Some(path) = live.usable_path() else { return };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.insert((stamp.mtime_ns, escape(&path)));
        if found.len() > MAX_FOUND {
            found.pop_first();
        }
    }

    /// The directories found, the latest last.
    pub(crate) fn found(self) -> Vec<UnfinishedDirectory> {
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.into_iter().map(|(mtime_ns, path)| UnfinishedDirectory { path, mtime_ns }).collect()
    }
}
