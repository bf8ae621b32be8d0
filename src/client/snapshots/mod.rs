//! client::snapshots.

pub mod fallback;
pub mod job;
pub mod take;
