//! The tree engine: links, compares and removes whole directory trees as root, over content that a
//! hostile client owns and may be changing meanwhile.
//!
//! All of it follows one rule: after a root directory has been opened, only single names relative
//! to an open directory are used, never a path. No symbolic link is followed and no mount is
//! crossed ([`open_directory`](crate::system::syscalls::open_directory)). A name may stand for
//! another entry from one call to the next, but always for one inside the tree. Only directories
//! are opened; a regular file is opened only where it must be copied ([`copy`]) or hashed
//! ([`content`]) or
//! synced ([`synced_files`]).
//!
//! The *current* directory is the one that a walk is in; that of the process is never used.
//! *Pending* subdirectories are those that the walk has still to visit.

pub(crate) mod attributes;
pub(crate) mod baseline;
pub(crate) mod baseline_bytes;
pub(crate) mod children;
pub(crate) mod clone;
pub(crate) mod compare;
pub(crate) mod content;
pub(crate) mod copied;
pub(crate) mod copy;
pub(crate) mod descent;
pub(crate) mod diff;
pub(crate) mod difference;
pub(crate) mod former_mount_point;
pub(crate) mod frames;
pub(crate) mod frozen_survey;
pub(crate) mod index;
pub(crate) mod inodes;
pub(crate) mod listing;
pub(crate) mod listing_cache;
pub(crate) mod obstacle;
pub(crate) mod path_lookup;
pub(crate) mod pool;
pub(crate) mod remove;
pub(crate) mod responsiveness;
pub(crate) mod restore;
pub(crate) mod shared_files;
pub(crate) mod synced_files;
pub(crate) mod temporaries;
pub(crate) mod usage;
pub(crate) mod walk;
