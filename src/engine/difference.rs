//! What differs between a live directory and its counterpart in a snapshot, by name and inode
//! number alone.
//!
//! The live directory is read into a table of hashes. Then the snapshot's directory is read and
//! each entry is looked up in the table. A second reading of the live directory finds the entries
//! that the snapshot lacks. Neither directory is sorted, and neither has to fit into memory with
//! its names: sixteen bytes for each live entry suffice.
//!
//! The hash has another key in each process, so no client can make two names collide. If two
//! collide by chance, an entry counts as unchanged only if both are links to one inode.

use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::engine::listing::{CachedListing, Listing, ListingEntry};
use crate::engine::temporaries::Temporaries;
use crate::system::identity::SysResult;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryInode {
    pub inode: u64,
    pub is_directory: bool,
}

impl From<&ListingEntry> for EntryInode {
    fn from(entry: &ListingEntry) -> Self {
        EntryInode { inode: entry.inode, is_directory: entry.is_directory }
    }
}

/// Which directory could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadSide {
    Live,
    Snapshot,
}

/// Memory for comparing directories one after the other.
#[derive(Default)]
pub(crate) struct DirectoryComparer {
    live: Listing,
    snapshot: Listing,
    /// Whether `live` holds all of the live directory compared last.
    is_live_whole: bool,
    slots: Vec<LiveSlot>,
    hashes: RandomState,
    /// Whether the directories lie on two file systems, so that an equal inode number means
    /// nothing.
    pub are_apart: bool,
    /// Files of the live directory compared last whose names look like rsync's temporary files.
    pub temporaries: Temporaries,
}

/// A live entry: the hash of its name, whose two lowest bits are replaced by flags.
#[derive(Clone, Copy)]
struct LiveSlot {
    hash_and_flags: u64,
    inode: u64,
}

/// What is called with a name that differs, its live entry and the snapshot's.
pub(crate) trait OnDifference<E>:
    FnMut(&CStr, Option<EntryInode>, Option<EntryInode>) -> Result<(), E>
{
}

impl<E, F> OnDifference<E> for F where
    F: FnMut(&CStr, Option<EntryInode>, Option<EntryInode>) -> Result<(), E>
{
}

const DIRECTORY: u64 = 1;
/// The snapshot has an entry of that name, too.
const IN_SNAPSHOT: u64 = 2;
const HASH: u64 = !(DIRECTORY | IN_SNAPSHOT);

/// Compares the live directory with the snapshot's, both just opened. Calls `on_difference` for
/// each name that is a directory on both sides, or not the same file on both, with the live entry
/// and the snapshot's; returns how many entries the live directory has. `on_difference` may remove
/// entries from the snapshot's directory and add to it. With a `cached` listing the live directory
/// is not read, and need not be open for reading.
///
/// # Errors
/// What `on_difference` returns, or `failed` of a read that failed.
pub(crate) fn differences<E>(
    (live, snapshot): (BorrowedFd, BorrowedFd),
    cached: Option<&CachedListing>,
    comparer: &mut DirectoryComparer,
    failed: impl Fn(ReadSide, Errno) -> E,
    mut on_difference: impl OnDifference<E>,
) -> Result<u64, E> {
    let live_failed = |cause| failed(ReadSide::Live, cause);
    let snapshot_failed = |cause| failed(ReadSide::Snapshot, cause);
    comparer.read_live(live, cached).map_err(live_failed)?;
    let added = comparer.look_up_snapshot(snapshot, snapshot_failed, &mut on_difference)?;
    if added > 0 {
        comparer.report_added(live, live_failed, &mut on_difference)?;
    }
    Ok(comparer.slots.len() as u64)
}

impl DirectoryComparer {
    /// The listing of the live directory compared last, if it was read in one stretch.
    pub(crate) fn live_listing(&self) -> Option<&Listing> {
        Some(&self.live).filter(|_| self.is_live_whole)
    }

    /// Reads the live directory into the table.
    fn read_live(&mut self, live: BorrowedFd, cached: Option<&CachedListing>) -> SysResult<()> {
        let DirectoryComparer { live: listing, is_live_whole, slots, hashes, temporaries, .. } =
            self;
        slots.clear();
        *temporaries = Temporaries::default();
        match cached {
            Some(cached) => listing.restore(cached),
            None => listing.read_first(live)?,
        }
        *is_live_whole = listing.is_whole();
        loop {
            // Growth by doubling would take twice the memory that a directory of millions needs.
            slots.reserve_exact(listing.entries().len());
            slots.extend(listing.entries().iter().map(|entry| LiveSlot {
                hash_and_flags: hash(hashes, listing.name(entry))
                    | if entry.is_directory { DIRECTORY } else { 0 },
                inode: entry.inode,
            }));
            temporaries.note_names(listing);
            if *is_live_whole || !listing.read_next(live)? {
                break;
            }
        }
        slots.sort_unstable_by_key(|slot| slot.hash_and_flags & HASH);
        Ok(())
    }

    /// Looks up each entry of the snapshot's directory in the table, and reports all but equal
    /// files. Returns how many live entries the snapshot lacks.
    fn look_up_snapshot<E>(
        &mut self,
        snapshot: BorrowedFd,
        failed: impl Fn(Errno) -> E,
        on_difference: &mut impl OnDifference<E>,
    ) -> Result<usize, E> {
        let DirectoryComparer { snapshot: listing, slots, hashes, are_apart, .. } = self;
        let mut missing = slots.len();
        listing.read_first(snapshot).map_err(&failed)?;
        loop {
            for entry in listing.entries() {
                let name = listing.name(entry);
                let found = find(slots, hash(hashes, name)).map(|index| {
                    let slot = &mut slots[index];
                    if slot.hash_and_flags & IN_SNAPSHOT == 0 {
                        slot.hash_and_flags |= IN_SNAPSHOT;
                        missing -= 1;
                    }
                    EntryInode {
                        inode: slot.inode,
                        is_directory: slot.hash_and_flags & DIRECTORY != 0,
                    }
                });
                let is_same_file = found.is_some_and(|live| {
                    !live.is_directory
                        && !entry.is_directory
                        && live.inode == entry.inode
                        && !*are_apart
                });
                if !is_same_file {
                    on_difference(name, found, Some(entry.into()))?;
                }
            }
            if !listing.read_next(snapshot).map_err(&failed)? {
                return Ok(missing);
            }
        }
    }

    /// Reports the live entries that the snapshot lacks. A directory that was read in several
    /// stretches is read once more for their names.
    fn report_added<E>(
        &mut self,
        live: BorrowedFd,
        failed: impl Fn(Errno) -> E,
        on_difference: &mut impl OnDifference<E>,
    ) -> Result<(), E> {
        let DirectoryComparer { live: listing, is_live_whole, slots, hashes, .. } = self;
        if !*is_live_whole {
            Listing::rewind(live).map_err(&failed)?;
            listing.read_first(live).map_err(&failed)?;
        }
        loop {
            for entry in listing.entries() {
                let name = listing.name(entry);
                // An entry that is not in the table was made meanwhile and counts as new, too.
                let is_in_snapshot = find(slots, hash(hashes, name))
                    .is_some_and(|index| slots[index].hash_and_flags & IN_SNAPSHOT != 0);
                if !is_in_snapshot {
                    on_difference(name, Some(entry.into()), None)?;
                }
            }
            if *is_live_whole || !listing.read_next(live).map_err(&failed)? {
                return Ok(());
            }
        }
    }
}

fn hash(hashes: &RandomState, name: &CStr) -> u64 {
    hashes.hash_one(name.to_bytes()) & HASH
}

fn find(slots: &[LiveSlot], hash: u64) -> Option<usize> {
    slots.binary_search_by_key(&hash, |slot| slot.hash_and_flags & HASH).ok()
}
