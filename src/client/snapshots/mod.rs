//! Snapshots and rotation of a destination that no rsync daemon serves: a local directory, or one
//! on an SSH server.

pub(crate) mod cp_fallback;
pub(crate) mod destination_snapshots;
pub(crate) mod take;
