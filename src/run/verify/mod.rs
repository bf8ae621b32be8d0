//! Checks that files in snapshots are unchanged: compares every inode in them with the inode log.
//!
//! There are four walks. Where nothing is altered, the first and the last suffice:
//!
//! 1. `survey` examines each inode once. It finds inodes that differ from their baselines, and
//!    inodes whose change time lies outside all windows in which runs made or removed links.
//! 2. `touches`, for the latter only, compares the names that the inode had before and after.
//! 3. `damaged_paths`, for altered inodes only, finds all their names in all snapshots, and
//!    examines each inode a last time.
//! 4. `refresh` records inodes that have no baseline and drops baselines of inodes that have gone.
//!    Only this walk needs the root's lock.
//!
//! Snapshots that disappear meanwhile are not reported. Only directories are opened, and files with
//! a recorded hash; no file is changed.

pub(crate) mod commands;
pub(crate) mod damaged_paths;
pub(crate) mod evidence;
pub(crate) mod examine;
pub(crate) mod hashing;
pub(crate) mod known_damage;
pub(crate) mod lacking;
pub(crate) mod recorded_files;
pub(crate) mod refresh;
pub(crate) mod repair;
pub(crate) mod survey;
pub(crate) mod touches;
pub(crate) mod verified;
