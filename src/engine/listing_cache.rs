//! Live directories that a comparison has read, so that the clone after it need not read them
//! again.
//!
//! A cached listing is used only while the directory has the stamp that it had before it was read.
//! Each change of a directory's entries or attributes gives another stamp, so the listing is still
//! true then. A directory that changed so recently that a later change could give the same stamp is
//! not cached.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::stat::FileStat;

use crate::engine::attributes::has_no_xattrs;
use crate::engine::index::Stamp;
use crate::engine::listing::{CachedListing, Listing};

/// Memory for all cached listings of a run. Directories that do not fit are read twice.
const MAX_BYTES: usize = 8 << 20;

/// Cached directories by inode number; all workers share them.
#[derive(Default)]
pub(crate) struct ListingCache(Mutex<Cached>);

#[derive(Default)]
struct Cached {
    directories: HashMap<u64, CachedDirectory>,
    bytes: usize,
}

/// A live directory as it was read.
pub(crate) struct CachedDirectory {
    stamp: Stamp,
    pub listing: CachedListing,
    pub has_no_xattrs: bool,
}

impl ListingCache {
    /// Caches `listing`, which is all of `directory`. Its `stat` was read before the listing and
    /// after `before_ns`, nanoseconds since 1970.
    pub(crate) fn insert(
        &self,
        listing: &Listing,
        directory: BorrowedFd,
        stat: &FileStat,
        before_ns: i64,
    ) {
        let stamp = Stamp::of(stat);
        let bytes = listing.size_bytes() + size_of::<CachedDirectory>();
        if stamp.settled(before_ns) != stamp || self.cached().bytes + bytes > MAX_BYTES {
            return;
        }
        let has_no_xattrs = has_no_xattrs(directory);
        let directory = CachedDirectory { stamp, listing: listing.to_cached(), has_no_xattrs };
        let mut cached = self.cached();
        cached.bytes += bytes;
        cached.directories.insert(stamp.inode, directory);
    }

    /// Removes and returns what is cached of the directory whose state is `stat`, if it is still
    /// true.
    pub(crate) fn take(&self, stat: &FileStat) -> Option<CachedDirectory> {
        let stamp = Stamp::of(stat);
        let mut cached = self.cached();
        cached.directories.remove(&stamp.inode).filter(|directory| directory.stamp == stamp)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cached().directories.is_empty()
    }

    fn cached(&self) -> MutexGuard<'_, Cached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::stat::fstat;

    use super::*;
    use crate::engine::index::now_ns;

    /// A directory with one file, and its state.
    fn directory(scratch: &std::path::Path) -> (std::fs::File, FileStat) {
        std::fs::write(scratch.join("a"), "").expect("writable");
        let file = std::fs::File::open(scratch).expect("exists");
        let stat = fstat(&file).expect("open");
        (file, stat)
    }

    fn insert(cache: &ListingCache, (file, stat): &(std::fs::File, FileStat), before_ns: i64) {
        let listing = Listing::read(file.as_fd()).expect("readable");
        cache.insert(&listing, file.as_fd(), stat, before_ns);
    }

    #[test]
    fn a_changed_directory_is_not_in_the_cache() {
        let scratch = tempfile::tempdir().expect("scratch");
        let directory = directory(scratch.path());
        let long_after = now_ns() + 3_600_000_000_000;
        let cache = ListingCache::default();
        insert(&cache, &directory, long_after);
        let mut changed = directory.1;
        changed.st_ctime_nsec ^= 1;
        assert!(cache.take(&changed).is_none());
        assert!(cache.take(&directory.1).is_none(), "it was removed");
        insert(&cache, &directory, long_after);
        let cached = cache.take(&directory.1).expect("unchanged");
        let mut listing = Listing::default();
        listing.restore(&cached.listing);
        let names: Vec<_> =
            listing.entries().iter().map(|entry| listing.name(entry).to_owned()).collect();
        assert_eq!(names, [c"a".to_owned()]);
    }

    #[test]
    fn a_directory_that_has_just_changed_is_not_cached() {
        let scratch = tempfile::tempdir().expect("scratch");
        let directory = directory(scratch.path());
        let cache = ListingCache::default();
        insert(&cache, &directory, Stamp::of(&directory.1).ctime_ns);
        assert!(cache.take(&directory.1).is_none());
    }
}
