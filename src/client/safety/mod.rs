//! client::safety.

pub(crate) mod checks;
pub(crate) mod known_destinations;
pub(crate) mod probe;
