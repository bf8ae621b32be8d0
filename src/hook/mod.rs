//! hook.

pub(crate) mod admission;
pub(crate) mod detach;
pub(crate) mod inquiry;
pub(crate) mod post_xfer;
pub(crate) mod pre_xfer;
pub(crate) mod shared_files;
pub(crate) mod transfer_request;
pub(crate) mod waiting_client;
