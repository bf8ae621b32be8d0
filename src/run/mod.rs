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

pub mod approach;
pub mod disposal;
pub mod facts;
pub mod free_space;
pub mod hold;
pub mod losses;
pub mod marks;
pub mod memory;
pub mod order;
pub mod pass;
pub mod publish;
pub mod reap;
pub mod report;
pub mod request;
pub mod rotate;
pub mod rotate_by_hand;
pub mod scan;
pub mod snapshot;
pub mod transfer;
pub mod verify;
