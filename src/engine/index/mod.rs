//! The directory index of a snapshot: for each directory, stamps of the live directory and of the
//! snapshot's directory when the snapshot was made.
//!
//! Each change of a directory's entries changes its ctime, which no client can set. So a live
//! directory whose inode number, ctime and mtime *equal* the index has the entries that it had
//! then. That holds for the snapshot's directory, too. Where it is not certain, the index stores a
//! live stamp that nothing equals:
//!
//! * A second change within one tick of the kernel's clock leaves the ctime as it is. So a
//!   directory that changed shortly before it was read (or after it, by a clock that was set back)
//!   does not count as settled.
//! * A directory with copies, with a mount point in it, or with files that look like temporary ones
//!   of rsync has to be read each time.
//!
//! The file ([`block`]) holds one record for each directory, in postorder: a directory follows its
//! subdirectories. So a clone writes each record once, when the directory is finished
//! ([`draft`]), and never goes back. A record says where its last subdirectory is and where the
//! directory before it is, so a walk finds the subdirectories of each directory without a table.
//! The file is read block by block as the walk needs it ([`reader`]), so memory does not grow with
//! the tree, apart from one bit for each directory.
//!
//! Each block has a checksum that the snapshot's name is part of, and each record is checked before
//! it is used. Where a block cannot be read or anything in it is wrong, its directories count as
//! unknown, and are compared.

pub(crate) mod block;
pub(crate) mod changed_entries;
pub(crate) mod draft;
pub(crate) mod reader;
mod writer;

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use nix::time::{ClockId, clock_gettime};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

use crate::decide::clock_tick::SETTLED_AFTER_NS;
use crate::decide::lacking::{DirectoryTimes, EntriesByTime};
use crate::system::identity::{Identity, SysResult};
use crate::system::mounts;
use crate::system::syscalls::stat_entry;

/// [`SETTLED_AFTER_NS`] for file systems that store times in steps of one or two seconds.
const COARSE_SETTLED_AFTER_NS: i64 = 3_000_000_000;

const SECOND_NS: i64 = 1_000_000_000;

/// Tells one state of a live directory from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Inode number.
    pub inode: u64,
    /// Change time, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
}

impl Stamp {
    #[allow(clippy::useless_conversion, reason = "the width of the field differs by platform")]
    pub(crate) fn of(stat: &FileStat) -> Self {
        let nanoseconds =
            |seconds: i64, rest: i64| seconds.wrapping_mul(SECOND_NS).wrapping_add(rest);
        Stamp {
            inode: stat.st_ino.into(),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        }
    }

    /// The stamp of the entry `name`, which is not opened. None if it lies on another file system
    /// than `device`, or is a mount point, even of a bind mount of itself.
    pub(crate) fn of_entry(
        parent: BorrowedFd,
        name: &CStr,
        device: u64,
    ) -> SysResult<Option<Self>> {
        match mounts::open_place_if_mounts(parent, name) {
            Ok(Some(place)) => {
                let stat = fstat(&place)?;
                return Ok((Identity::of(&stat).device == device).then(|| Stamp::of(&stat)));
            }
            Ok(None) => {}
            Err(Errno::EXDEV) => return Ok(None),
            Err(cause) => return Err(cause),
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let statx = match rustix::fs::statx(parent, name, flags, StatxFlags::BASIC_STATS) {
            Ok(statx) => statx,
            // A kernel without statx, or a seccomp filter.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                let stat = stat_entry(parent, name)?;
                return Ok((Identity::of(&stat).device == device).then(|| Stamp::of(&stat)));
            }
            Err(error) => return Err(Errno::from_raw(error.raw_os_error())),
        };
        if statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
            || rustix::fs::makedev(statx.stx_dev_major, statx.stx_dev_minor) != device
        {
            return Ok(None);
        }
        let nanoseconds = |time: rustix::fs::StatxTimestamp| {
            time.tv_sec.wrapping_mul(SECOND_NS).wrapping_add(time.tv_nsec.into())
        };
        Ok(Some(Stamp {
            inode: statx.stx_ino,
            ctime_ns: nanoseconds(statx.stx_ctime),
            mtime_ns: nanoseconds(statx.stx_mtime),
        }))
    }

    /// A state that no directory has.
    pub(crate) const NEVER: Stamp = Stamp { inode: 0, ctime_ns: i64::MIN, mtime_ns: i64::MIN };

    /// This stamp if it was so old at `now_ns` that each later change gives another one.
    pub(crate) fn settled(self, now_ns: i64) -> Self {
        let margin =
            if self.ctime_ns % SECOND_NS == 0 { COARSE_SETTLED_AFTER_NS } else { SETTLED_AFTER_NS };
        if self.ctime_ns < now_ns.saturating_sub(margin) { self } else { Stamp::NEVER }
    }
}

/// Nanoseconds since 1970 by the wall clock, which the kernel stamps files with.
pub(crate) fn now_ns() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME)
        .map_or(i64::MIN, |now| now.tv_sec() * SECOND_NS + now.tv_nsec())
}

/// Tells one state of a snapshot's directory from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotStamp {
    /// Inode number.
    pub inode: u64,
    /// Change time, nanoseconds since 1970.
    pub ctime_ns: i64,
}

impl SnapshotStamp {
    /// A state that no directory has.
    pub(crate) const UNKNOWN: SnapshotStamp = SnapshotStamp { inode: 0, ctime_ns: 0 };

    pub(crate) fn of(stat: &FileStat) -> Self {
        let Stamp { inode, ctime_ns, .. } = Stamp::of(stat);
        SnapshotStamp { inode, ctime_ns }
    }
}

/// What the index says of one directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexRecord {
    /// Number of its entries, subdirectories included.
    pub entries: u32,
    pub live: Stamp,
    pub own: SnapshotStamp,
}

impl IndexRecord {
    /// Of a directory with `entries` entries that is not finished yet.
    pub(crate) fn unfinished(entries: u64, live: Stamp) -> Self {
        let (entries, live) = match u32::try_from(entries) {
            Ok(entries) => (entries, live),
            Err(_) => (u32::MAX, Stamp::NEVER),
        };
        IndexRecord { entries, live, own: SnapshotStamp::UNKNOWN }
    }

    /// What the snapshot's directory, whose state is `own` now, tells of its entries. Another
    /// directory tells nothing.
    pub(crate) fn entries_by_time(&self, own: Stamp) -> EntriesByTime {
        if own.inode != self.own.inode {
            return EntriesByTime::Unclear;
        }
        let times = DirectoryTimes {
            made_ns: self.own.ctime_ns,
            change_ns: own.ctime_ns,
            copied_mtime_ns: (self.live != Stamp::NEVER).then_some(self.live.mtime_ns),
            mtime_ns: own.mtime_ns,
        };
        times.entries()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_just_changed_or_will_have_is_not_settled() {
        let stamp = |ctime_ns| Stamp { inode: 1, ctime_ns, mtime_ns: 0 };
        let now = 1_000 * SECOND_NS + 5;
        assert_eq!(
            stamp(now - SETTLED_AFTER_NS - 1).settled(now),
            stamp(now - SETTLED_AFTER_NS - 1)
        );
        assert_eq!(stamp(now - SETTLED_AFTER_NS).settled(now), Stamp::NEVER);
        assert_eq!(stamp(now + SECOND_NS).settled(now), Stamp::NEVER);
        assert_eq!(stamp(998 * SECOND_NS).settled(now), Stamp::NEVER);
        assert_eq!(stamp(990 * SECOND_NS).settled(now), stamp(990 * SECOND_NS));
    }
}
