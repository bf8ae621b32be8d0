//! client::rsync.

pub mod arguments;
pub mod output;
pub mod transfer;
pub mod tunnel;
