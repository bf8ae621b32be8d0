//! client::disk.

pub mod lock;
pub mod mount;
pub mod tables;
