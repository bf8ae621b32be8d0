//! The order of a run: mark, end in the ledger, lock, wait for a turn, clean up, close the gate,
//! compare, open it, publish, remember, rotate, unlock.
//!
//! * A failed transfer marks the root torn *before* the ledger lets others take the tree for whole,
//!   and before it waits for the lock: the run that holds it sees the mark before it publishes.
//! * The tree is read behind a closed [gate](crate::store::gate), while no push is running; if one
//!   is, the snapshot is left to the last of them.
//! * Nothing is retired before the new snapshot, or the proof that none is needed, is durable.
//! * The lock is released under the state's own lock after a look at the due mark: a run that
//!   gave up waiting is either seen by the holder or gets the lock itself.

pub(crate) mod attempt;
pub(crate) mod close_gate;
pub(crate) mod disposal;
pub(crate) mod facts;
pub(crate) mod free_space;
pub(crate) mod losses;
pub(crate) mod marks;
pub(crate) mod memory;
pub(crate) mod order;
pub(crate) mod publish;
pub(crate) mod reap;
pub(crate) mod report;
pub(crate) mod request;
pub(crate) mod rotate;
pub(crate) mod rotate_by_hand;
pub(crate) mod run_lock;
pub(crate) mod scan;
pub(crate) mod snapshot;
pub(crate) mod transfer;
pub(crate) mod verify;
