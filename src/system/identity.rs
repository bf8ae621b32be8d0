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

/// What shows that a file and the one of that name in another tree of the same module are one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Twins {
    /// The inode: a snapshot has a link to it.
    #[default]
    Linked,
    /// The inode number and the change time: both are trees of one subvolume, so a file may have
    /// changed that has the same number in both.
    OfSubvolumes,
    /// The change time, the size and the attributes: in a snapshot of CephFS, ceph-fuse gives each
    /// file another number.
    OfCephFs,
}

impl Twins {
    /// Whether two files of trees that do not share inodes are one, with nothing changed in
    /// between, as far as that shows.
    pub(crate) fn are_untouched(self, one: &FileStat, other: &FileStat) -> bool {
        match self {
            Twins::Linked => false,
            Twins::OfSubvolumes => is_untouched_twin(one, other),
            Twins::OfCephFs => is_untouched_copy(one, other),
        }
    }
}

/// Whether two files of different subvolumes are one file of one subvolume, in two snapshots or in
/// a snapshot and its source, with nothing changed in between: they have one inode number and one
/// change time, which no program can set.
fn is_untouched_twin(one: &FileStat, other: &FileStat) -> bool {
    let key = |stat: &FileStat| (stat.st_ino, stat.st_ctime, stat.st_ctime_nsec, stat.st_size);
    one.st_dev != other.st_dev && key(one) == key(other)
}

/// Whether a file and the one of its name in a snapshot that gives its files other inode numbers
/// are the same, with nothing changed in between: their change times are equal, which no program
/// can set, and so is what each change would change.
fn is_untouched_copy(one: &FileStat, other: &FileStat) -> bool {
    let times =
        |stat: &FileStat| (stat.st_ctime, stat.st_ctime_nsec, stat.st_mtime, stat.st_mtime_nsec);
    let attributes =
        |stat: &FileStat| (stat.st_size, stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    times(one) == times(other) && attributes(one) == attributes(other)
}
