//! client::snapshots.

pub(crate) mod fallback;
pub(crate) mod job;
pub(crate) mod take;
