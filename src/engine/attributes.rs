//! Owner, mode, times and extended attributes of one directory or file, by descriptor.
//!
//! ACLs are extended attributes (`system.posix_acl_access`, `system.posix_acl_default`). The
//! order of application matters: the owner first, since changing it clears bits; then the
//! attributes, since an ACL changes the mode; then the mode; and the times last, after every
//! entry is in place. What the new directory inherited from its parent (a default ACL, set-gid)
//! is removed.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};
use rustix::fs::XattrFlags;

use crate::system::identity::SysResult;
use crate::system::syscalls::{is_privileged, may_give_to};

/// Extended attributes by name.
type XattrMap = BTreeMap<CString, Vec<u8>>;

const MODE_BITS: u32 = 0o7777;

/// Makes `copy` look like `original`, whose `stat` was taken earlier. Returns whether all of
/// it could be kept: a user without privileges cannot give files away, and some security
/// attributes are the kernel's own.
pub(crate) fn apply(original: AttributeSource, copy: BorrowedFd) -> SysResult<bool> {
    let AttributeSource { stat, xattrs } = original;
    let present = fstat(copy)?;
    // Most trees have one owner and few modes, and a change costs several times as much as a stat.
    let owner = match (present.st_uid, present.st_gid) == (stat.st_uid, stat.st_gid) {
        true => Change::NotNeeded,
        false => apply_owner(stat, copy)?,
    };
    let xattrs = apply_xattrs(xattrs, copy)?;
    let is_mode_kept = present.st_mode & MODE_BITS == stat.st_mode & MODE_BITS;
    // A new owner clears bits of the mode, and an ACL sets some.
    if !is_mode_kept || owner != Change::NotNeeded || xattrs != Change::NotNeeded {
        fchmod(copy, Mode::from_bits_truncate(stat.st_mode & MODE_BITS))?;
    }
    futimens(
        copy,
        &TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
        &TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
    )?;
    Ok(owner != Change::Refused && xattrs != Change::Refused)
}

/// What a copy is to look like.
#[derive(Clone, Copy)]
pub(crate) struct AttributeSource<'a> {
    pub stat: &'a FileStat,
    pub xattrs: XattrSource<'a>,
}

/// Where the extended attributes of an original are read.
#[derive(Clone, Copy)]
pub(crate) enum XattrSource<'a> {
    /// It has none.
    None,
    Of(BorrowedFd<'a>),
}

impl XattrSource<'_> {
    fn read(self) -> SysResult<XattrMap> {
        match self {
            XattrSource::None => Ok(XattrMap::new()),
            XattrSource::Of(file) => read_xattrs(file),
        }
    }
}

/// Whether an attribute was changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    NotNeeded,
    Made,
    /// This process may not make it.
    Refused,
}

/// Whether `file`, open for reading, has no extended attributes.
pub(crate) fn has_no_xattrs(file: BorrowedFd) -> bool {
    matches!(rustix::fs::flistxattr_query(file), Ok(0) | Err(rustix::io::Errno::NOTSUP))
}

/// Whether the directory `original` differs from its copy in anything that [`apply`] would have
/// kept.
pub(crate) fn differ(
    original: AttributeSource,
    copy: BorrowedFd,
    copy_stat: &FileStat,
) -> SysResult<bool> {
    let (a_stat, b_stat) = (original.stat, copy_stat);
    if a_stat.st_mode & MODE_BITS != b_stat.st_mode & MODE_BITS
        || (a_stat.st_mtime, a_stat.st_mtime_nsec) != (b_stat.st_mtime, b_stat.st_mtime_nsec)
        || (is_privileged() && a_stat.st_uid != b_stat.st_uid)
        || (a_stat.st_gid != b_stat.st_gid && may_give_to(a_stat.st_gid))
    {
        return Ok(true);
    }
    Ok(original
        .xattrs
        .read()?
        .into_iter()
        .filter(is_comparable)
        .ne(read_xattrs(copy)?.into_iter().filter(is_comparable)))
}

fn apply_owner(stat: &FileStat, copy: BorrowedFd) -> SysResult<Change> {
    match fchown(copy, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))) {
        Ok(()) => Ok(Change::Made),
        Err(Errno::EPERM) if !is_privileged() => {
            // This process may be a member of the group.
            let _ = fchown(copy, None, Some(Gid::from_raw(stat.st_gid)));
            Ok(Change::Refused)
        }
        Err(error) => Err(error),
    }
}

fn apply_xattrs(original: XattrSource, copy: BorrowedFd) -> SysResult<Change> {
    let wanted = original.read()?;
    let present = read_xattrs(copy)?;
    let mut change = Change::NotNeeded;
    let mut note = |is_kept| match (is_kept, change) {
        (true, Change::NotNeeded) => change = Change::Made,
        (true, _) => {}
        (false, _) => change = Change::Refused,
    };
    for name in present.keys().filter(|name| !wanted.contains_key(*name)) {
        note(tolerate(name, rustix::fs::fremovexattr(copy, name.as_c_str()))?);
    }
    for (name, value) in wanted.iter().filter(|(name, value)| present.get(*name) != Some(*value)) {
        note(tolerate(
            name,
            rustix::fs::fsetxattr(copy, name.as_c_str(), value, XattrFlags::empty()),
        )?);
    }
    Ok(change)
}

/// Whether the attribute was kept. The kernel may refuse attributes that only it manages; a refused
/// label of a security module counts as kept.
fn tolerate(name: &CString, answer: rustix::io::Result<()>) -> SysResult<bool> {
    use rustix::io::Errno as E;
    let bytes = name.as_bytes();
    let ordinary = bytes.starts_with(b"user.") || bytes.starts_with(b"system.posix_acl");
    let is_label = bytes.starts_with(b"security.") && bytes != b"security.capability";
    match answer {
        Ok(()) => Ok(true),
        Err(E::NODATA) => Ok(true),
        Err(E::PERM | E::ACCESS | E::NOTSUP) if !ordinary => Ok(is_label),
        Err(error) => Err(Errno::from_raw(error.raw_os_error())),
    }
}

/// `security.` attributes are set by security modules, not by a client. `trusted.` attributes are
/// visible to some runs and not to others.
fn is_comparable((name, _): &(CString, Vec<u8>)) -> bool {
    let bytes = name.as_bytes();
    !bytes.starts_with(b"security.") && !bytes.starts_with(b"trusted.")
}

fn read_xattrs(file: BorrowedFd) -> SysResult<XattrMap> {
    let names = sized(
        |buffer| rustix::fs::flistxattr(file, buffer),
        || rustix::fs::flistxattr_query(file),
    )?;
    let mut xattrs = XattrMap::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = CString::new(name) else { continue };
        let read = sized(
            |buffer| rustix::fs::fgetxattr(file, name.as_c_str(), buffer),
            || rustix::fs::fgetxattr_query(file, name.as_c_str()),
        );
        match read {
            Ok(value) => xattrs.insert(name, value),
            // Removed since the listing.
            Err(Errno::ENODATA) => continue,
            Err(error) => return Err(error),
        };
    }
    Ok(xattrs)
}

/// Reads a value whose size has to be asked first. It is read again if it has grown in between.
fn sized(
    read: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>,
    ask: impl Fn() -> rustix::io::Result<usize>,
) -> SysResult<Vec<u8>> {
    loop {
        let size = match ask() {
            Ok(0) | Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
            Ok(size) => size,
            Err(error) => return Err(Errno::from_raw(error.raw_os_error())),
        };
        let mut buffer = vec![0; size];
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(rustix::io::Errno::RANGE) => continue,
            Err(error) => return Err(Errno::from_raw(error.raw_os_error())),
        }
    }
}
