//! client::safety.

pub mod checks;
pub mod known_destinations;
pub mod probe;
