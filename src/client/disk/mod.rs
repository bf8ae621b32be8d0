//! client::disk.

pub(crate) mod lock;
pub(crate) mod mount;
pub(crate) mod tables;
