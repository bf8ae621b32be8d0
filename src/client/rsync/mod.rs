//! client::rsync.

pub(crate) mod arguments;
pub(crate) mod output;
pub(crate) mod transfer;
pub(crate) mod tunnel;
