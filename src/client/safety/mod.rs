//! Refuses runs that would delete data or back up the backup, before anything is changed.

pub(crate) mod checks;
pub(crate) mod known_destinations;
pub(crate) mod probe;
