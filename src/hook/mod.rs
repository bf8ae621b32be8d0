//! hook.

pub(crate) mod admission;
pub(crate) mod applicant;
pub(crate) mod caller;
pub(crate) mod detach;
pub(crate) mod inquiry;
pub(crate) mod post_xfer;
pub(crate) mod pre_xfer;
pub(crate) mod shared_files;
