//! Which snapshots stay and which go: as data, as laws, beside rotate-backups, and on disk.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod anomaly;
mod clock;
mod decision;
mod differential;
mod forecast;
mod free_space;
mod freed;
mod history;
mod laws;
mod lost_state;
mod policy_mistakes;
mod take_back;
mod vanished;
