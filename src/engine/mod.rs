//! The tree engine: link, compare and remove whole directory trees as root, over
//! content that a hostile client owns and may be changing meanwhile.
//!
//! One rule carries all of it: after a root directory has been opened, only single names
//! relative to an open directory are used, never a path, and no symbolic link is followed and
//! no mount crossed ([`syscalls::open_directory`]). What a name means may change between two
//! calls, but it always means something inside the tree. Only directories are opened; a
//! regular file is opened only where it must be copied ([`copy`]).

pub mod answers;
pub mod attributes;
pub mod baseline;
pub mod baseline_bytes;
pub mod children;
pub mod clone;
pub mod compare;
pub mod content;
pub mod copy;
pub mod descent;
pub mod difference;
pub mod index;
pub mod inodes;
pub mod listing;
pub mod obstacle;
pub mod pool;
pub mod remove;
pub mod shape;
pub mod shared;
pub mod temporaries;
pub mod usage;
