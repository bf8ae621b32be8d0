//! client::snapshots.

pub mod fallback;
pub mod take;
