//! What is done: the snapshot root on disk and everything that changes it.
//!
//! `ROOT/.rsyncd-snapshot` is ours alone (0700). Whatever becomes visible in the root is complete
//! and durable before it does, and whatever disappears from it does so durably before any of it is
//! removed; see [`publish`] and [`retire`] for the two orders.

pub mod completion;
pub mod dir;
pub(crate) mod format;
pub mod gate;
pub mod index_file;
pub mod inode_log;
pub mod job_queue;
pub mod layout;
pub mod ledger;
pub mod lock;
pub mod memory;
mod memory_name;
pub mod neighbours;
pub mod nesting;
pub mod pin;
pub mod pinning;
pub mod publish;
pub mod record;
pub mod registration;
pub mod retire;
pub mod root;
pub mod sequence;
pub mod snapshots;
pub mod state;
pub mod trial;
mod trust;
pub mod unremovable;
