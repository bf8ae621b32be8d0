//! Restores files and directories out of a snapshot: a copy that shares nothing with the snapshot.
//!
//! A tree is walked three times, each time by the same rules ([`passes`]):
//!
//! 1. *Plan* compares the snapshot with the destination and finds what is in the way, before
//!    anything is written. It also counts the entries and finds out which files of the selection
//!    are hard links of each other.
//! 2. *Write* makes what is missing and replaces what differs ([`mod@write`]). Each file is made in
//!    a *staging directory*, a directory that only this program may enter, and gets its name in one
//!    step.
//! 3. *Verify* compares everything again, contents included, with what the disk holds by then.
//!
//! The destination may belong to a hostile user. Below it, only single names relative to open
//! directories are used, no symbolic link is followed and no mount is crossed. No attribute is ever
//! set on an entry that such a user could have put in the place of a new one: all of a file is set
//! in the staging directory, and a new directory is used only if it is empty and belongs to this
//! process.
//!
//! All passes have to see the same snapshot. A digest of each pass tells whether it has changed.

pub(crate) mod compare;
mod directories;
mod files;
pub(crate) mod links;
pub(crate) mod outcome;
pub(crate) mod pass_walk;
pub(crate) mod passes;
pub(crate) mod write;
