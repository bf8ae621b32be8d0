//! The snapshot root on disk, and everything that changes it.
//!
//! Only this program uses `ROOT/.rsyncd-snapshot` (mode 0700). A snapshot is complete and durable
//! before it becomes visible in the root. A snapshot disappears from the root durably before any
//! file of it is removed. [`publish`] and [`retire`] hold these two orders.

pub(crate) mod completion;
pub(crate) mod configuration_file;
pub(crate) mod damage_file;
pub(crate) mod dir;
pub(crate) mod expected_pushes;
pub(crate) mod format;
pub(crate) mod frozen_tree;
pub(crate) mod gate;
pub(crate) mod index_file;
pub(crate) mod inode_log;
pub(crate) mod job_queue;
pub(crate) mod layout;
pub(crate) mod lease_entry;
pub(crate) mod leases;
pub(crate) mod ledger;
pub(crate) mod ledger_entry;
pub(crate) mod leftovers;
pub(crate) mod link_trial;
pub(crate) mod lock;
pub(crate) mod lost_links;
pub(crate) mod memory;
mod memory_name;
pub(crate) mod method_of_root;
pub(crate) mod module_directory;
pub(crate) mod one_gateway;
pub(crate) mod other_modules;
pub(crate) mod output_file;
pub(crate) mod overlapping_roots;
pub(crate) mod pin;
pub(crate) mod pinning;
pub(crate) mod pins_file;
pub(crate) mod publish;
pub(crate) mod record;
pub(crate) mod registration;
pub(crate) mod restore_staging;
pub(crate) mod retire;
pub(crate) mod root;
pub(crate) mod root_checks;
pub(crate) mod root_file_system;
pub(crate) mod shared_disk;
pub(crate) mod shelf;
pub(crate) mod sizes_file;
pub(crate) mod snapshot_method;
pub(crate) mod snapshots;
pub(crate) mod snapshots_place;
pub(crate) mod state;
pub(crate) mod state_file;
pub(crate) mod transfer_number;
pub(crate) mod unremovable;
pub(crate) mod vanished;
