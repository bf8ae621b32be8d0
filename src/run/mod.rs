//! What a run does, from its first mark to the release of its lock. The [order] is in
//! `order.rs`, the part under the lock in `snapshot.rs`, `publish.rs` and `rotate.rs`.

pub(crate) mod attempt;
pub(crate) mod close_gate;
pub(crate) mod copy_comparison;
pub(crate) mod dead_transfers;
pub(crate) mod disposal;
pub(crate) mod expire_by_hand;
pub(crate) mod free_space;
pub(crate) mod gate_wait;
pub(crate) mod losses;
pub(crate) mod lost_directory;
pub(crate) mod lost_history;
pub(crate) mod marks;
pub(crate) mod memory;
pub(crate) mod order;
pub(crate) mod path_history;
pub(crate) mod path_matches;
pub(crate) mod publish;
pub(crate) mod report;
pub(crate) mod request;
pub(crate) mod restore;
pub(crate) mod restore_in_place;
pub(crate) mod restore_source;
pub(crate) mod rotate;
pub(crate) mod rotate_by_hand;
pub(crate) mod run_lock;
pub(crate) mod scan;
pub(crate) mod session;
pub(crate) mod setup;
pub(crate) mod snapshot;
pub(crate) mod snapshot_sizes;
pub(crate) mod transfer;
pub(crate) mod vanished;
pub(crate) mod verdict_facts;
pub(crate) mod verified_until;
pub(crate) mod verify;
