//! Runs rsync: its command lines, the three runs of a backup, and the SSH tunnel to a daemon.

pub(crate) mod arguments;
pub(crate) mod transfer;
pub(crate) mod tunnel;
