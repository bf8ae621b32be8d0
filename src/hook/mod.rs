//! hook.

pub mod admission;
pub mod applicant;
pub mod caller;
pub mod detach;
pub mod inquiry;
pub mod post_xfer;
pub mod pre_xfer;
pub mod shared_files;
