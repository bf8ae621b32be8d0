//! Which snapshots stay and which go: as data, as laws, beside rotate-backups, and on disk.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod brake;
mod clock;
mod decision;
mod differential;
mod forecast;
mod freed;
mod history;
mod laws;
mod lost_state;
mod policy_mistakes;
mod room;
mod take_back;
