//! Whether snapshots are still what they were: every inode in them is held against the inode log.
//!
//! Four walks, of which the usual one is enough where nothing is wrong:
//!
//! 1. `survey`: each inode is looked at once. What differs from what is recorded is suspect, and so
//!    is what was touched at a time that is not ours.
//! 2. `touches`: only for the latter, which names it had before and after.
//! 3. `naming`: only for what is altered, all of its names in all snapshots, with a last look at
//!    it.
//! 4. `refresh`: what was never recorded is, and what is gone is taken out. Only this one needs the
//!    root's lock; what else disappears meanwhile is not reported.
//!
//! Nothing is opened but directories, and nothing is changed that the file system would note.

pub(crate) mod commands;
pub(crate) mod damaged_paths;
pub(crate) mod evidence;
pub(crate) mod examine;
pub(crate) mod hashing;
pub(crate) mod refresh;
pub(crate) mod repair;
pub(crate) mod survey;
pub(crate) mod touches;
pub(crate) mod verified;
