//! module.

pub(crate) mod confine;
pub(crate) mod context;
pub(crate) mod found_on_disk;
pub(crate) mod known_modules;
pub(crate) mod target;
