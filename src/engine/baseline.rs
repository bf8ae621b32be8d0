//! Baselines: what an inode looked like when it was linked, to be compared with it later.
//!
//! A client that changes a file in place changes it in every snapshot that shares the inode. So the
//! attributes of each inode that is new in a snapshot are recorded. They are read through the
//! staged name after the link was made, since every change from then on changes the snapshot. An
//! inode whose change time lies in a window in which a run made or removed links was linked before,
//! and has a baseline already.
//!
//! No file is opened. Extended attributes are read through `/proc/self/fd`, and are unknown where
//! that is missing. Linux 6.13 lists them without it, so there only the values of a file that has
//! some are unknown. If the file system uses an inode number again for another file, the time of
//! birth differs.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use rustix::fs::{AtFlags, StatxFlags};

use crate::decide::damage::{FileTime, InodeAttributes, InodeXattrs, settable_access_seconds};
use crate::system::identity::SysResult;
use crate::system::mounts;
use crate::system::syscalls::{list_xattrs, path_of_entry, stat_entry};

/// Of extended attributes that take more, only a digest is recorded.
const MAX_XATTR_BYTES: usize = 4_096;

/// `AT_STATX_FORCE_SYNC`: the kernel asks the server of the file system. A link changes the change
/// time, and some file systems (gocryptfs, NFS) show a cached state of the inode for a second
/// afterwards. On a local disk this flag costs nothing.
const FORCE_SYNC: AtFlags = AtFlags::from_bits_retain(libc::AT_STATX_FORCE_SYNC as u32);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    pub number: u64,
    /// Time of birth, nanoseconds since 1970; 0 if the file system has none.
    pub birth_ns: i64,
    pub changed: FileTime,
    /// As [`settable_access_seconds`] has it.
    pub accessed_seconds: i64,
    pub links: u64,
    pub attributes: InodeAttributes,
}

/// What was recorded of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    /// The inode as it was.
    pub inode: Inode,
    /// How it came to be recorded.
    pub origin: BaselineOrigin,
    /// The change time before the inode was linked, or after that if no earlier run had made links;
    /// for `Found`, when it was recorded.
    pub touched: FileTime,
}

/// How an inode came to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaselineOrigin {
    /// By the run that linked it. If an earlier run had linked it before, another program has
    /// touched it since then.
    Linked,
    /// By a later run, when it was part of a snapshot already: nothing is known of the time before.
    Found,
}

/// The state of the entry `name`, without its extended attributes.
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
        accessed_seconds: settable_access_seconds(moment(statx.stx_atime), moment(statx.stx_ctime)),
        links: statx.stx_nlink.into(),
        attributes: InodeAttributes {
            mode: statx.stx_mode.into(),
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            size_bytes: statx.stx_size,
            modified: moment(statx.stx_mtime),
            device: rustix::fs::makedev(statx.stx_rdev_major, statx.stx_rdev_minor),
            xattrs: InodeXattrs::Unknown,
        },
    })
}

/// [`look_with`] for a kernel that has no statx.
#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_cast,
    reason = "the width of the fields differs by platform"
)]
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
        accessed_seconds: settable_access_seconds(
            moment(stat.st_atime, stat.st_atime_nsec),
            moment(stat.st_ctime, stat.st_ctime_nsec),
        ),
        links: stat.st_nlink as u64,
        attributes: InodeAttributes {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size_bytes: stat.st_size as u64,
            modified: moment(stat.st_mtime, stat.st_mtime_nsec),
            device: stat.st_rdev,
            xattrs: InodeXattrs::Unknown,
        },
    })
}

/// The extended attributes of the entry `name`, which is not opened.
pub(crate) fn xattrs(directory: BorrowedFd, name: &CStr) -> InodeXattrs {
    match read_xattrs(directory, name) {
        Ok(xattrs) => abridged(xattrs),
        Err(rustix::io::Errno::NOTSUP) => InodeXattrs::All(BTreeMap::new()),
        Err(_) => InodeXattrs::Unknown,
    }
}

fn read_xattrs(
    directory: BorrowedFd,
    name: &CStr,
) -> rustix::io::Result<BTreeMap<CString, Vec<u8>>> {
    let mut xattrs = BTreeMap::new();
    // Nearly all files have none; 64 KiB is the most that the kernel returns.
    let mut buffer = [0_u8; 1_024];
    let names = match list_xattrs(directory, name, &mut buffer) {
        Ok(0) => return Ok(xattrs),
        Ok(length) => buffer[..length].to_vec(),
        Err(rustix::io::Errno::RANGE) => {
            let mut buffer = vec![0; 65_536];
            let length = list_xattrs(directory, name, &mut buffer)?;
            buffer.truncate(length);
            buffer
        }
        Err(error) => return Err(error),
    };
    let path = path_of_entry(directory, name)
        .map_err(|cause| rustix::io::Errno::from_raw_os_error(cause as i32))?;
    for name in names.split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        let Ok(name) = CString::new(name) else { continue };
        let mut value = vec![0; 65_536];
        match rustix::fs::lgetxattr(path.as_c_str(), name.as_c_str(), &mut value[..]) {
            Ok(length) => value.truncate(length),
            Err(rustix::io::Errno::NODATA) => continue,
            Err(error) => return Err(error),
        }
        value.shrink_to_fit();
        xattrs.insert(name, value);
    }
    Ok(xattrs)
}

/// Labels are set by security modules, not by a client. `trusted.` attributes are visible to some
/// runs and not to others.
fn is_kept(name: &[u8]) -> bool {
    let is_label = name.starts_with(b"security.") && name != b"security.capability";
    !name.is_empty() && !is_label && !name.starts_with(b"trusted.")
}

fn abridged(xattrs: BTreeMap<CString, Vec<u8>>) -> InodeXattrs {
    let bytes: usize =
        xattrs.iter().map(|(name, value)| name.as_bytes().len() + value.len() + 8).sum();
    if bytes <= MAX_XATTR_BYTES {
        return InodeXattrs::All(xattrs);
    }
    InodeXattrs::Digest(InodeXattrs::digest_of(&xattrs))
}

/// How a clone records the inodes that are new in it.
#[derive(Clone, Copy)]
pub struct Recording<'a> {
    /// Whether a change time, nanoseconds since 1970, can stem from an earlier run that made or
    /// removed links. None if there was no such run.
    pub is_ours: Option<&'a (dyn Fn(i64) -> bool + Sync)>,
    /// Takes one or more baselines as bytes, as [`Baseline::write`] makes them.
    pub append: &'a (dyn Fn(&[u8]) + Sync),
}

/// Whether an inode has to be recorded when it is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeedsRecord {
    No,
    /// With its change time before the link, if that is known.
    Yes(Option<FileTime>),
}

impl Recording<'_> {
    /// Whether the inode of the entry `name`, which is about to be linked, has to be recorded: it
    /// has only one name, or another program has touched it since a run last made or removed a link
    /// of it.
    pub(crate) fn needs_record(&self, directory: BorrowedFd, name: &CStr) -> NeedsRecord {
        // In a first snapshot, that saves a call for each file.
        let Some(is_ours) = self.is_ours else { return NeedsRecord::Yes(None) };
        match inspect_entry(directory, name) {
            Ok(inode) if inode.links < 2 || !is_ours(inode.changed.as_ns()) => {
                NeedsRecord::Yes(Some(inode.changed))
            }
            Ok(_) | Err(_) => NeedsRecord::No,
        }
    }
}

pub(crate) fn inspect_open(file: BorrowedFd) -> SysResult<Inode> {
    look_with(file, c"", AtFlags::EMPTY_PATH | FORCE_SYNC)
}

/// The baseline of the entry `name`, which has just been linked; none if it has gone.
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
