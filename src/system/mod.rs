//! Everything asked of the kernel: clocks, processes, mounts and system calls relative to open
//! directories.

pub(crate) mod boot;
pub(crate) mod btrfs;
pub(crate) mod cephfs;
pub(crate) mod clock;
pub(crate) mod descriptors;
pub(crate) mod identity;
pub(crate) mod mounts;
pub(crate) mod passed_signals;
pub(crate) mod pid_namespace;
pub(crate) mod priority;
pub(crate) mod process;
pub(crate) mod process_io;
pub(crate) mod small_file;
pub(crate) mod syscalls;
mod unsafe_calls;
