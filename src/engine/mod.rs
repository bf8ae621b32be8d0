//! The tree engine: link, compare and remove whole directory trees as root, over
//! content that a hostile client owns and may be changing meanwhile.
//!
//! One rule carries all of it: after a root directory has been opened, only single names
//! relative to an open directory are used, never a path, and no symbolic link is followed and
//! no mount crossed ([`syscalls::open_directory`]). What a name means may change between two
//! calls, but it always means something inside the tree. Only directories are opened; a
//! regular file is opened only where it must be copied ([`copy`]).

pub(crate) mod answers;
pub(crate) mod attributes;
pub(crate) mod baseline;
pub(crate) mod baseline_bytes;
pub(crate) mod children;
pub(crate) mod clone;
pub(crate) mod compare;
pub(crate) mod content;
pub(crate) mod copy;
pub(crate) mod descent;
pub(crate) mod difference;
pub(crate) mod frames;
pub(crate) mod index;
pub(crate) mod inodes;
pub(crate) mod listing;
pub(crate) mod mount_place;
pub(crate) mod obstacle;
pub(crate) mod pool;
pub(crate) mod remove;
pub(crate) mod shared_files;
pub(crate) mod temporaries;
pub(crate) mod usage;
pub(crate) mod walk;
