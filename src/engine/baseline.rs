//! What an inode looked like when it was linked, to be held against it later.
//!
//! A client that changes a file in place changes it in every snapshot that shares the inode. So of
//! each inode that is new in a snapshot its attributes are kept: taken by the staged name after the
//! link was made, for from then on any change is one to a snapshot. What was linked before is known
//! already, and tells it: its change time lies in a window in which we made or removed links.
//! Nothing is opened for it; extended attributes are asked for by way of `/proc/self/fd`, and are
//! unknown where that is missing.
//!
//! An inode number that is used again for another file has another time of birth.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use rustix::fs::{AtFlags, StatxFlags};

use crate::decide::damage::{FileTime, InodeAttributes, Xattrs};
use crate::system::identity::SysResult;
use crate::system::mounts;
use crate::system::syscalls::stat_entry;

/// Larger extended attributes are only recognised, not kept.
const MAX_XATTR_BYTES: usize = 4_096;

/// `AT_STATX_FORCE_SYNC`: the server of the file system is asked. A link changes the change time,
/// and some file systems (gocryptfs, NFS) show what they remember of the inode for a second after
/// it was made. On a disk it costs nothing.
const FORCE_SYNC: AtFlags = AtFlags::from_bits_retain(libc::AT_STATX_FORCE_SYNC as u32);

/// An inode as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub number: u64,
    /// When it was made, nanoseconds since 1970; 0 if the file system does not tell.
    pub birth_ns: i64,
    /// Its change time.
    pub changed: FileTime,
    /// Its access time in seconds.
    pub accessed_seconds: i64,
    /// How many names it has.
    pub links: u64,
    /// What is compared.
    pub attributes: InodeAttributes,
}

/// What was recorded of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    /// The inode as it was.
    pub inode: Inode,
    /// How it came to be recorded.
    pub origin: BaselineOrigin,
    /// Its change time before it was linked, or at the time it was recorded.
    pub touched: FileTime,
}

/// How an inode came to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaselineOrigin {
    /// By the run that linked it. If it had been linked by an earlier one, it was touched
    /// meanwhile.
    Linked,
    /// Later, as a part of a snapshot: nothing is known of what was before.
    Found,
}

/// Looks at the entry `name`, without its extended attributes.
///
/// # Errors
/// As [`stat_entry`]: `EXDEV` if it is a mount point.
pub(crate) fn inspect_entry(directory: BorrowedFd, name: &CStr) -> SysResult<Inode> {
    match mounts::open_place_if_mounts(directory, name)? {
        Some(place) => look_with(place.as_fd(), c"", AtFlags::EMPTY_PATH | FORCE_SYNC),
        None => look_with(
            directory,
            name,
            AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | FORCE_SYNC,
        ),
    }
}

fn look_with(directory: BorrowedFd, name: &CStr, flags: AtFlags) -> SysResult<Inode> {
    let statx = match rustix::fs::statx(
        directory,
        name,
        flags,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    ) {
        Ok(statx) => statx,
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            return look_plainly(directory, name, flags);
        }
        Err(error) => return Err(Errno::from_raw(error.raw_os_error())),
    };
    let moment = |time: rustix::fs::StatxTimestamp| FileTime {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
    };
    let is_born = statx.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(Inode {
        number: statx.stx_ino,
        birth_ns: if is_born { moment(statx.stx_btime).as_ns() } else { 0 },
        changed: moment(statx.stx_ctime),
        accessed_seconds: statx.stx_atime.tv_sec,
        links: statx.stx_nlink.into(),
        attributes: InodeAttributes {
            mode: statx.stx_mode.into(),
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            size_bytes: statx.stx_size,
            modified: moment(statx.stx_mtime),
            device: rustix::fs::makedev(statx.stx_rdev_major, statx.stx_rdev_minor),
            xattrs: Xattrs::Unknown,
        },
    })
}

/// The same on a kernel that has no statx.
// The width of the fields differs between platforms.
#[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
fn look_plainly(directory: BorrowedFd, name: &CStr, flags: AtFlags) -> SysResult<Inode> {
    let stat = match flags.contains(AtFlags::EMPTY_PATH) {
        true => fstat(directory)?,
        false => stat_entry(directory, name)?,
    };
    let moment = |seconds, nanoseconds| FileTime { seconds, nanoseconds: nanoseconds as u32 };
    Ok(Inode {
        number: stat.st_ino.into(),
        birth_ns: 0,
        changed: moment(stat.st_ctime, stat.st_ctime_nsec),
        accessed_seconds: stat.st_atime,
        links: stat.st_nlink as u64,
        attributes: InodeAttributes {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size_bytes: stat.st_size as u64,
            modified: moment(stat.st_mtime, stat.st_mtime_nsec),
            device: stat.st_rdev,
            xattrs: Xattrs::Unknown,
        },
    })
}

/// The extended attributes of the entry `name`, which is not opened for it.
pub(crate) fn xattrs(directory: BorrowedFd, name: &CStr) -> Xattrs {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let Ok(path) = CString::new(path) else { return Xattrs::Unknown };
    match read_xattrs(&path) {
        Ok(xattrs) => abridged(xattrs),
        Err(rustix::io::Errno::NOTSUP) => Xattrs::All(BTreeMap::new()),
        Err(_) => Xattrs::Unknown,
    }
}

fn read_xattrs(path: &CStr) -> rustix::io::Result<BTreeMap<CString, Vec<u8>>> {
    let mut xattrs = BTreeMap::new();
    // As much as the kernel ever returns; nearly always it is nothing.
    let mut buffer = [0_u8; 1_024];
    let names = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(length) => buffer[..length].to_vec(),
        Err(rustix::io::Errno::RANGE) => {
            let mut buffer = vec![0; 65_536];
            let length = rustix::fs::llistxattr(path, &mut buffer[..])?;
            buffer.truncate(length);
            buffer
        }
        Err(error) => return Err(error),
    };
    for name in names.split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        let Ok(name) = CString::new(name) else { continue };
        let mut value = vec![0; 65_536];
        match rustix::fs::lgetxattr(path, name.as_c_str(), &mut value[..]) {
            Ok(length) => value.truncate(length),
            Err(rustix::io::Errno::NODATA) => continue,
            Err(error) => return Err(error),
        }
        value.shrink_to_fit();
        xattrs.insert(name, value);
    }
    Ok(xattrs)
}

/// Security modules label each file as they see fit; that is no change by a client. Who may see
/// `trusted.` attributes differs from run to run.
fn is_kept(name: &[u8]) -> bool {
    let is_label = name.starts_with(b"security.") && name != b"security.capability";
    !name.is_empty() && !is_label && !name.starts_with(b"trusted.")
}

fn abridged(xattrs: BTreeMap<CString, Vec<u8>>) -> Xattrs {
    let bytes: usize =
        xattrs.iter().map(|(name, value)| name.as_bytes().len() + value.len() + 8).sum();
    if bytes <= MAX_XATTR_BYTES {
        return Xattrs::All(xattrs);
    }
    Xattrs::Digest(Xattrs::digest_of(&xattrs))
}

/// What a clone records the inodes with that are new in it.
#[derive(Clone, Copy)]
pub struct Recording<'a> {
    /// Whether a change time, nanoseconds since 1970, is one of our own making.
    pub is_ours: &'a (dyn Fn(i64) -> bool + Sync),
    /// Takes baselines that follow each other, as [`Baseline::write`] makes them.
    pub keep: &'a (dyn Fn(&[u8]) + Sync),
}

impl Recording<'_> {
    /// Whether what is about to be linked has to be recorded: it has no other name than this one,
    /// or another program has touched it since we last made or removed a link of it.
    pub fn is_news(&self, live: &Inode) -> bool {
        live.links < 2 || !(self.is_ours)(live.changed.as_ns())
    }
}

/// Looks at an open file.
pub(crate) fn inspect_open(file: BorrowedFd) -> SysResult<Inode> {
    look_with(file, c"", AtFlags::EMPTY_PATH | FORCE_SYNC)
}

/// The baseline of what is `name` now, after it was linked; none if it is gone.
pub(crate) fn baseline_of(
    directory: BorrowedFd,
    name: &CStr,
    origin: BaselineOrigin,
    touched: Option<FileTime>,
) -> Option<Baseline> {
    let mut inode = inspect_entry(directory, name).ok()?;
    inode.attributes.xattrs = xattrs(directory, name);
    let touched = touched.unwrap_or(inode.changed);
    Some(Baseline { inode, origin, touched })
}
