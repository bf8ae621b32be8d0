//! Power cuts, a year of pushes, and a daemon under load.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod load;
#[path = "../support/load/mod.rs"]
mod load_rig;
mod power;
#[path = "../support/power/mod.rs"]
mod power_rig;
mod year;
