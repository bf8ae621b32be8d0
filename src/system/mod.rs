//! system.

pub mod boot;
pub mod clock;
pub mod descriptors;
pub mod identity;
pub mod mounts;
pub mod priority;
pub mod process;
pub mod side;
pub mod syscalls;
