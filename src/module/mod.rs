//! Which modules a command works on, and the directory, snapshot root and policy of each; what the
//! process may write.

pub(crate) mod confine;
pub(crate) mod context;
pub(crate) mod expected_pushes;
pub(crate) mod found_on_disk;
pub(crate) mod known_modules;
pub(crate) mod named_module;
pub(crate) mod root_location;
pub(crate) mod shown_roots;
pub(crate) mod target;
