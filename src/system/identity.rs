//! The identity of a file on this machine, and the result type of system calls.

use nix::errno::Errno;
use nix::sys::stat::FileStat;

/// A result whose error is the error number of a system call.
pub(crate) type SysResult<T> = Result<T, Errno>;

/// Device and inode number: two files on one machine differ in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub device: u64,
    pub inode: u64,
}

impl Identity {
    #[allow(clippy::useless_conversion, reason = "the width of the fields differs by platform")]
    pub(crate) fn of(stat: &FileStat) -> Self {
        Identity { device: stat.st_dev.into(), inode: stat.st_ino.into() }
    }
}

/// Whether two files of different subvolumes are one file of one subvolume, in two snapshots or in
/// a snapshot and its source, with nothing changed in between: they have one inode number and one
/// change time, which no program can set.
pub(crate) fn is_untouched_twin(one: &FileStat, other: &FileStat) -> bool {
    let key = |stat: &FileStat| (stat.st_ino, stat.st_ctime, stat.st_ctime_nsec, stat.st_size);
    one.st_dev != other.st_dev && key(one) == key(other)
}
