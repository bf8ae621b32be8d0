//! module.

pub mod confine;
pub mod context;
pub mod target;
pub mod worked_on;
