//! btrfs subvolumes: what one is, and how one is made out of another and removed.
//!
//! A subvolume is a tree of files with a device number of its own. It lies in a directory like any
//! other directory, and no link crosses its border. A snapshot of it is another subvolume, which
//! shares the content of its files until one of the two changes; making one takes milliseconds,
//! whatever its size.
//!
//! These calls do not ask Landlock. So what is destroyed is checked here, directly before.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use linux_raw_sys::btrfs::BTRFS_SUBVOL_RDONLY;
use linux_raw_sys::general::BTRFS_SUPER_MAGIC;
use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::geteuid;

use crate::system::identity::SysResult;
use crate::system::syscalls::{is_privileged, open_directory, stat_entry};
use crate::system::unsafe_calls::{
    btrfs_info, destroy_subvolume, removed_subvolumes, set_subvolume_flags, snapshot_subvolume,
    subvolume_flags, subvolume_info, sync_btrfs,
};

/// How often the kernel is asked whether space is free.
const POLL: Duration = Duration::from_millis(100);

/// The inode number of the root of each subvolume, and of nothing else in one.
const ROOT_INODE: u64 = 256;

/// The flag of a read-only subvolume in what the kernel tells of it: that of the item on disk,
/// which has another number than the flag that makes one.
const INFO_READ_ONLY: u64 = 1;

/// The number that btrfs gives a subvolume for good.
pub(crate) type Uuid = [u8; 16];

/// A subvolume as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subvolume {
    pub uuid: Uuid,
    /// Of the subvolume that it is a snapshot of; zero if it is none.
    pub parent: Uuid,
    pub is_read_only: bool,
    /// The number of the transaction that last changed anything in it. A snapshot has that of its
    /// source. Under the mount option `relatime`, reading changes it, too, at times.
    pub last_change: u64,
    /// The number of the transaction that made it.
    pub made: u64,
    /// When it was made, nanoseconds since 1970.
    pub made_ns: i64,
}

impl Subvolume {
    /// The subvolume whose root `directory` is; `None` if it is not the root of one.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub(crate) fn of(directory: BorrowedFd) -> SysResult<Option<Self>> {
        if !is_on_btrfs(directory)? || fstat(directory)?.st_ino != ROOT_INODE {
            return Ok(None);
        }
        let info = subvolume_info(directory)?;
        Ok(Some(Subvolume {
            uuid: info.uuid,
            parent: info.parent_uuid,
            is_read_only: info.flags & INFO_READ_ONLY != 0,
            last_change: info.ctransid,
            made: info.otransid,
            made_ns: i64::try_from(info.otime.sec)
                .unwrap_or(i64::MAX)
                .saturating_mul(1_000_000_000)
                .saturating_add(info.otime.nsec.into()),
        }))
    }

    /// Whether this read-only snapshot of `source` has all that is in it now: nothing in `source`
    /// has changed since it was made.
    pub(crate) fn equals(&self, source: &Subvolume) -> bool {
        self.is_read_only && self.is_of(source) && self.last_change == source.last_change
    }

    /// Whether it is read-only, and nothing in it has changed since it was made.
    pub(crate) fn is_as_made(&self) -> bool {
        self.is_read_only && self.last_change <= self.made
    }

    /// Whether it is a snapshot of `source`.
    pub(crate) fn is_of(&self, source: &Subvolume) -> bool {
        self.parent == source.uuid && source.uuid != Uuid::default()
    }
}

/// Whether `name` in `parent`, a directory of a btrfs, is the root of a subvolume. It is not opened
/// for that: a directory that cannot be opened must not be taken for one of hard links.
pub(crate) fn is_subvolume(parent: BorrowedFd, name: &CStr) -> bool {
    let Ok(stat) = stat_entry(parent, name) else { return false };
    // A directory of its parent's subvolume may have that number, too, but not another device.
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
        && stat.st_ino == ROOT_INODE
        && fstat(parent).is_ok_and(|above| above.st_dev != stat.st_dev)
        && is_on_btrfs(parent).unwrap_or(false)
}

/// Whether `directory` is in a btrfs.
///
/// # Errors
/// If the kernel does not tell.
pub(crate) fn is_on_btrfs(directory: BorrowedFd) -> SysResult<bool> {
    let facts =
        rustix::fs::fstatfs(directory).map_err(|error| Errno::from_raw(error.raw_os_error()))?;
    Ok(facts.f_type as u64 == u64::from(BTRFS_SUPER_MAGIC))
}

/// Whether two directories are in one btrfs, in whatever subvolumes and mounts of it.
pub(crate) fn are_in_one(one: BorrowedFd, other: BorrowedFd) -> SysResult<bool> {
    Ok(is_on_btrfs(one)? && is_on_btrfs(other)? && btrfs_info(one)?.fsid == btrfs_info(other)?.fsid)
}

/// Makes `name` in `parent` a read-only snapshot of the subvolume whose root `source` is, as it is
/// at one instant, with all that is written to it. When this returns, the snapshot is on disk.
///
/// # Errors
/// `EEXIST` if the name is taken, `EXDEV` if `parent` is in another file system.
pub(crate) fn make_snapshot(source: BorrowedFd, parent: BorrowedFd, name: &CStr) -> SysResult<()> {
    snapshot_subvolume(source, parent, name, BTRFS_SUBVOL_RDONLY.into())
}

/// Removes the subvolume `name` from `parent`, at one instant, if it is a snapshot of `source`. The
/// space gets free later.
///
/// Without the capability for it, that takes the mount option `user_subvol_rm_allowed`, and a
/// subvolume that is not read-only. So a subvolume that this cannot destroy is left writable, and
/// what is in it can be removed file by file.
///
/// # Errors
/// `EPERM` or `EACCES` if it has to be removed file by file, as one that is no snapshot of
/// `source`;
/// `EBUSY` if the kernel keeps it though its removal `is_allowed`, or while it is being sent; the
/// kernel's errors.
pub(crate) fn remove_snapshot(
    parent: BorrowedFd,
    name: &CStr,
    source: Option<&Subvolume>,
    is_allowed: bool,
) -> SysResult<()> {
    let directory = open_directory(parent, name)?;
    let found = Subvolume::of(directory.as_fd())?.ok_or(Errno::EINVAL)?;
    let is_ours = source.is_some_and(|source| found.is_of(source) && found.uuid != source.uuid);
    if is_ours && destroy_subvolume(parent, name).is_ok() {
        return Ok(());
    }
    if found.is_read_only {
        let flags = subvolume_flags(directory.as_fd())?;
        let flags = flags & !u64::from(BTRFS_SUBVOL_RDONLY);
        match set_subvolume_flags(directory.as_fd(), flags) {
            // It is being sent: only the owner could change it otherwise, and this process is that.
            Err(Errno::EPERM) if may_change(directory.as_fd()) => return Err(Errno::EBUSY),
            answer => answer?,
        }
    }
    if !is_ours {
        return Err(Errno::EPERM);
    }
    let destroyed = destroy_subvolume(parent, name);
    if is_allowed && destroyed == Err(Errno::EPERM) {
        // The kernel keeps the default subvolume, and one that is being sent: it stays whole.
        let flags = subvolume_flags(directory.as_fd())?;
        set_subvolume_flags(directory.as_fd(), flags | u64::from(BTRFS_SUBVOL_RDONLY))?;
        return Err(Errno::EBUSY);
    }
    match destroyed {
        // Its owner may remove it with the rights to write to its root, which a client may lack.
        Err(Errno::EACCES) => {
            fchmod(&directory, Mode::S_IRWXU)?;
            destroy_subvolume(parent, name)
        }
        answer => answer,
    }
}

/// Whether this process may change the attributes of `directory` by its owner.
fn may_change(directory: BorrowedFd) -> bool {
    is_privileged() || fstat(directory).is_ok_and(|stat| stat.st_uid == geteuid().as_raw())
}

/// Waits until the space of removed subvolumes of the btrfs that `directory` is in is free: at most
/// `longest`, and where the kernel does not tell (before Linux 6.13), for that long.
pub(crate) fn wait_for_space(directory: BorrowedFd, longest: Duration) {
    let end = Instant::now() + longest;
    while Instant::now() < end && removed_subvolumes(directory) != Ok(0) {
        // Otherwise the file system begins with it only some half a minute later.
        let _ = sync_btrfs(directory);
        sleep(POLL);
    }
}

/// The bytes that the removal of the subvolume whose root `directory` is frees, by the quotas of
/// the file system; none if these are off, or not up to date.
pub(crate) fn exclusive_bytes(directory: BorrowedFd) -> Option<u64> {
    let id = subvolume_info(directory).ok()?.treeid;
    let file_system = btrfs_info(directory).ok()?.fsid.map(|byte| format!("{byte:02x}")).concat();
    let group = |at: usize, length: usize| &file_system[at..at + length];
    let uuid = [group(0, 8), group(8, 4), group(12, 4), group(16, 4), group(20, 12)].join("-");
    let groups = Path::new("/sys/fs/btrfs").join(uuid).join("qgroups");
    let read = |name: &str| std::fs::read_to_string(groups.join(name)).ok();
    let is_current = read("inconsistent").is_some_and(|text| text.trim() == "0");
    let bytes = read(&format!("0_{id}/exclusive"))?;
    bytes.trim().parse().ok().filter(|_| is_current)
}
