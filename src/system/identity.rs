//! Which file something is, and the answer of a system call.

use nix::errno::Errno;
use nix::sys::stat::FileStat;

/// The system's answer to a call.
pub(crate) type SysResult<T> = Result<T, Errno>;

/// What tells one directory or file from another on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// The file system's device number.
    pub device: u64,
    /// The inode number on it.
    pub inode: u64,
}

impl Identity {
    /// The identity that `stat` shows.
    // The width of the fields differs between platforms.
    #[allow(clippy::useless_conversion)]
    pub(crate) fn of(stat: &FileStat) -> Self {
        Identity { device: stat.st_dev.into(), inode: stat.st_ino.into() }
    }
}
