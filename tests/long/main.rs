//! Power cuts, a year of pushes, and a daemon under load.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod load;
mod power;
mod year;
