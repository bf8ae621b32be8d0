//! Snapshots and rotation for rsync daemon modules.
//!
//! rsyncd runs `rsyncd-snapshot` after each transfer; it makes a tree of hard links beside the
//! module, publishes it when it is complete and durable, and rotates older ones by a policy.
//!
//! The folders are layers. Each uses only those below it; `tests/layers` checks that.
//!
//! * `cli`: the two command lines.
//! * `client`: `rsync-system-backup`, on the machine that is backed up.
//! * `hook`: what rsyncd runs before and after a transfer.
//! * `command`: what an administrator runs, one file each.
//! * `migrate`: the policy out of `rotate-backups.ini`.
//! * `run`: the order of a run. Mark, lock, clean up, compare, publish, remember, rotate.
//! * `module`: the module that a command works on, and what the process may change.
//! * `config`: the policy file, rsyncd.conf, the hook's environment.
//! * `store`: the snapshot root on disk. What is made visible or retired, in which order.
//! * `engine`: links, compares and removes trees over hostile content.
//! * `system`: clocks, processes, mounts, system calls.
//! * [`decide`]: what is decided. Pure functions over data; no clock, no file system.
//! * `tell`: errors, log, exit statuses, tables.

mod cli;
mod client;
mod command;
mod config;
pub mod decide;
mod engine;
mod hook;
#[doc(hidden)]
#[allow(missing_docs)]
pub mod internals;
mod migrate;
mod module;
mod run;
mod store;
mod system;
mod tell;

pub use cli::rsync_system_backup::main as rsync_system_backup_main;
pub use cli::rsyncd_snapshot::main as rsyncd_snapshot_main;
