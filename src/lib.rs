//! Snapshots and rotation for rsync daemon modules.
//!
//! rsyncd runs `rsyncd-snapshot` after each transfer; it makes a tree of hard links beside the
//! module, publishes it when it is complete and durable, and rotates older ones by a policy.
//!
//! The rooms of the house:
//!
//! * [`decide`]: what is decided. Pure functions over data; no clock, no file system.
//! * [`config`]: what is configured. The policy file, rsyncd.conf, the hook's environment.
//! * [`tree`]: the engine. Links, compares and removes trees over hostile content.
//! * [`store`]: the snapshot root on disk. What is made visible or retired, in which order.
//! * [`run`]: the order of a run. Mark, lock, clean up, compare, publish, remember, rotate.
//! * [`confine`]: what the process gives up first. Capabilities, and the right to change anything
//!   else.
//! * [`tell`]: what is told. Errors, log, exit statuses, tables.
//! * [`client`]: the other end of the wire, `rsync-system-backup`.
//! * [`command`] and [`cli`]: what a person or rsyncd calls.

pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod decide;
pub mod engine;
pub mod hook;
pub mod migrate;
pub mod module;
pub mod run;
pub mod store;
pub mod system;
pub mod tell;
