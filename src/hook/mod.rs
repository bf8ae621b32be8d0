//! The two hooks that rsyncd runs for a module: `pre-xfer` before each transfer, `post-xfer` after
//! it.

pub(crate) mod admission;
pub(crate) mod detach;
pub(crate) mod health_answer;
pub(crate) mod post_xfer;
pub(crate) mod pre_xfer;
pub(crate) mod read_lease;
pub(crate) mod shared_files;
pub(crate) mod snapshot_directory;
pub(crate) mod transfer_request;
pub(crate) mod waiting_client;
