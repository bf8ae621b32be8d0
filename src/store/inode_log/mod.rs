//! The inode log: what each file that snapshots share with the module looked like when it
//! was linked.
//!
//! One file, `inodes/catalogue`, to which a run appends: baselines of the inodes that are new in
//! its snapshot, then a commit with the snapshot's name. All of it is written before the snapshot's
//! `syncfs`, so it is durable with the snapshot. What no commit follows was left by a run that was
//! killed; the next one cuts it off, and so it does with the commit of a snapshot that never became
//! visible. What is damaged is skipped by those who read (`block`).
//!
//! The inode log is evidence, not history: whatever goes wrong with it is told and costs no
//! snapshot.

pub(crate) mod block;
pub(crate) mod commit;
pub(crate) mod compact;
pub(crate) mod in_place;
pub(crate) mod reader;
pub(crate) mod recorder;
pub(crate) mod windows;
