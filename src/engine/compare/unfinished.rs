//! Directories that a push did not finish: those whose modification time is still the kernel's.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::decide::failed_push::UnfinishedDirectory;
use crate::engine::descent::Descent;
use crate::engine::index::Stamp;
use crate::tell::escape::escape;

/// So many of the latest are kept while all failed pushes are searched for.
const MAX_FOUND: usize = 1_024;

/// A search along a comparison's walk. Only directories that are visited are looked at: what the
/// index calls unchanged has not been written to since the newest complete snapshot.
#[derive(Debug)]
pub(crate) struct UnfinishedSearch {
    since_ns: i64,
    found: Mutex<BTreeSet<(i64, String)>>,
}

impl UnfinishedSearch {
    /// A search for directories that changed since then, in nanoseconds since 1970.
    pub(crate) fn new(since_ns: i64) -> Self {
        UnfinishedSearch { since_ns, found: Mutex::new(BTreeSet::new()) }
    }

    /// Notes the live directory at hand if it is one.
    pub(crate) fn note(&self, live: &Descent, stamp: &Stamp) {
        if stamp.mtime_ns != stamp.ctime_ns || stamp.ctime_ns < self.since_ns {
            return;
        }
        // A path that no rsync could have gone is not remembered.
        let Some(path) = live.usable_path() else { return };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.insert((stamp.mtime_ns, escape(&path)));
        if found.len() > MAX_FOUND {
            found.pop_first();
        }
    }

    /// What was found, the latest last.
    pub(crate) fn found(self) -> Vec<UnfinishedDirectory> {
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.into_iter().map(|(mtime_ns, path)| UnfinishedDirectory { path, mtime_ns }).collect()
    }
}
