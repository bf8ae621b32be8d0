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

use crate::engine::listing::{Listing, ListingEntry};
use crate::engine::temporaries::Temporaries;

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
    slots: Vec<LiveSlot>,
    hashes: RandomState,
    /// Files of the live directory compared last whose names look like rsync's temporary files.
    pub temporaries: Temporaries,
}

/// A live entry: the hash of its name, whose two lowest bits are replaced by flags.
#[derive(Clone, Copy)]
struct LiveSlot {
    hash_and_flags: u64,
    inode: u64,
}

const DIRECTORY: u64 = 1;
const MET: u64 = 2;
const HASH: u64 = !(DIRECTORY | MET);

/// Compares the live directory with the snapshot's, both just opened. Calls `event` for each name
/// that is a directory on both sides, or not the same file on both; returns how many entries the
/// live one has. `event` may remove entries from the snapshot's directory and add to it.
///
/// # Errors
/// What `event` returns, or `failed` of a read that failed.
pub(crate) fn differences<E>(
    (live, snapshot): (BorrowedFd, BorrowedFd),
    comparer: &mut DirectoryComparer,
    failed: impl Fn(ReadSide, Errno) -> E,
    mut event: impl FnMut(&CStr, Option<EntryInode>, Option<EntryInode>) -> Result<(), E>,
) -> Result<u64, E> {
    let DirectoryComparer { live: listing, snapshot: other, slots, hashes, temporaries } = comparer;
    let live_failed = |cause| failed(ReadSide::Live, cause);
    let snapshot_failed = |cause| failed(ReadSide::Snapshot, cause);

    slots.clear();
    *temporaries = Temporaries::default();
    listing.read_first(live).map_err(live_failed)?;
    let is_small = listing.is_whole();
    loop {
        // Growth by doubling would take twice the memory that a directory of millions needs.
        slots.reserve_exact(listing.entries().len());
        slots.extend(listing.entries().iter().map(|entry| LiveSlot {
            hash_and_flags: hash(hashes, listing.name(entry))
                | if entry.is_directory { DIRECTORY } else { 0 },
            inode: entry.inode,
        }));
        temporaries.note_names(listing);
        if is_small || !listing.read_next(live).map_err(live_failed)? {
            break;
        }
    }
    slots.sort_unstable_by_key(|slot| slot.hash_and_flags & HASH);
    let count = slots.len() as u64;

    let mut unmet = slots.len();
    other.read_first(snapshot).map_err(snapshot_failed)?;
    loop {
        for entry in other.entries() {
            let name = other.name(entry);
            let found = find(slots, hash(hashes, name)).map(|index| {
                let slot = &mut slots[index];
                if slot.hash_and_flags & MET == 0 {
                    slot.hash_and_flags |= MET;
                    unmet -= 1;
                }
                EntryInode { inode: slot.inode, is_directory: slot.hash_and_flags & DIRECTORY != 0 }
            });
            let is_same_file = found.is_some_and(|live| {
                !live.is_directory && !entry.is_directory && live.inode == entry.inode
            });
            if !is_same_file {
                event(name, found, Some(entry.into()))?;
            }
        }
        if !other.read_next(snapshot).map_err(snapshot_failed)? {
            break;
        }
    }
    if unmet == 0 {
        return Ok(count);
    }

    if !is_small {
        Listing::rewind(live).map_err(live_failed)?;
        listing.read_first(live).map_err(live_failed)?;
    }
    loop {
        for entry in listing.entries() {
            let name = listing.name(entry);
            // An entry that is not in the table was made meanwhile and counts as new, too.
            let is_met = find(slots, hash(hashes, name))
                .is_some_and(|index| slots[index].hash_and_flags & MET != 0);
            if !is_met {
                event(name, Some(entry.into()), None)?;
            }
        }
        if is_small || !listing.read_next(live).map_err(live_failed)? {
            return Ok(count);
        }
    }
}

fn hash(hashes: &RandomState, name: &CStr) -> u64 {
    hashes.hash_one(name.to_bytes()) & HASH
}

fn find(slots: &[LiveSlot], hash: u64) -> Option<usize> {
    slots.binary_search_by_key(&hash, |slot| slot.hash_and_flags & HASH).ok()
}
