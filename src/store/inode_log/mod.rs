//! The inode log, `inodes/catalogue`: what each file that snapshots share with the module looked
//! like when it was linked.
//!
//! A run appends the baselines of the inodes that are new in its snapshot, then a commit with the
//! snapshot's name. It writes all of that before the snapshot's `syncfs`, so the baselines are
//! durable when the snapshot becomes visible. A run that was killed leaves baselines without a
//! commit, or the commit of a snapshot that never became visible; the next run cuts these off. A
//! reader skips damaged blocks (`block`).
//!
//! The inode log is evidence only: an error in it is reported and prevents no snapshot.

pub(crate) mod block;
pub(crate) mod changed_in_place;
pub(crate) mod commit;
pub(crate) mod compact;
pub(crate) mod reader;
pub(crate) mod recorder;
pub(crate) mod windows;
