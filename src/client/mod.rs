//! `rsync-system-backup`, on the machine that is backed up: mounts the backup disk, runs rsync,
//! takes and rotates snapshots where no daemon does so, and shows desktop notifications.
//!
//! It is the successor of the Python program of that name, and has its command line. [`backup`] has
//! the order of the steps. Reading destinations, tables and rsync's output, and composing rsync's
//! command lines, is pure; the other files run programs through [`external_command`].

pub(crate) mod backup;
pub(crate) mod backup_job;
pub(crate) mod check;
pub(crate) mod destination;
pub(crate) mod disk;
pub(crate) mod error;
pub(crate) mod external_command;
pub(crate) mod locks;
pub(crate) mod machine;
pub(crate) mod notify;
pub(crate) mod pipes;
pub(crate) mod platform;
pub(crate) mod programs;
pub(crate) mod rsync;
pub(crate) mod safety;
pub(crate) mod signals;
pub(crate) mod snapshots;
