//! module.

pub mod confine;
pub mod context;
pub mod found_on_disk;
pub mod target;
pub mod worked_on;
