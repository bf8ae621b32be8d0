//! `rsync-system-backup`.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod backup;
mod disk;
mod network;
mod original;
