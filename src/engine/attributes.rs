//! Owner, mode, times and extended attributes of one directory or file, by descriptor; of an entry
//! that must not be opened, such as a pipe or a symbolic link, by its name in an open directory.
//!
//! ACLs are extended attributes (`system.posix_acl_access`, `system.posix_acl_default`). The
//! order of application matters: the owner first, since changing it clears bits; then the
//! attributes, since an ACL changes the mode; then the mode; and the times last, after every
//! entry is in place. What the new directory inherited from its parent (a default ACL, set-gid)
//! is removed.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, futimens,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};
use rustix::fs::XattrFlags;

use crate::system::identity::SysResult;
use crate::system::syscalls::{is_privileged, list_xattrs, may_give_to, path_of_entry};

/// Extended attributes by name.
type XattrMap = BTreeMap<CString, Vec<u8>>;

const MODE_BITS: u32 = 0o7777;

/// XFS shows each ACL under such a name, too: to remove that is to remove the ACL. On another
/// file system the name means nothing.
const ACLS_OF_XFS: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];

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
    let xattrs = apply_xattrs(xattrs, XattrPlace::Open(copy))?;
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

/// [`apply`] for an entry that must not be opened: the name `copy` in an open directory.
pub(crate) fn apply_to_entry(
    original: AttributeSource,
    (directory, name): (BorrowedFd, &CStr),
) -> SysResult<bool> {
    let AttributeSource { stat, xattrs } = original;
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let owner_kept = match fchownat(directory, name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)
    {
        Err(Errno::EPERM) if !is_privileged() => false,
        answer => answer.map(|()| true)?,
    };
    let xattrs = apply_xattrs(xattrs, XattrPlace::Entry(directory, name))?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFLNK.bits() {
        let mode = Mode::from_bits_truncate(stat.st_mode & MODE_BITS);
        fchmodat(directory, name, mode, FchmodatFlags::NoFollowSymlink)?;
    }
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(directory, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?;
    Ok(owner_kept && xattrs != Change::Refused)
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
    /// Those of the copy stay as they are.
    Untouched,
    Of(BorrowedFd<'a>),
    /// The name in this directory, which is not opened.
    OfEntry(BorrowedFd<'a>, &'a CStr),
}

impl XattrSource<'_> {
    fn read(self) -> SysResult<XattrMap> {
        match self {
            XattrSource::None | XattrSource::Untouched => Ok(XattrMap::new()),
            XattrSource::Of(file) => XattrPlace::Open(file).read(),
            XattrSource::OfEntry(directory, name) => {
                match XattrPlace::Entry(directory, name).read() {
                    // A file system without them, or without /proc, by which they are reached.
                    Err(Errno::EOPNOTSUPP | Errno::ENOENT) => Ok(XattrMap::new()),
                    answer => answer,
                }
            }
        }
    }
}

/// A file whose extended attributes are read or changed.
#[derive(Clone, Copy)]
enum XattrPlace<'a> {
    Open(BorrowedFd<'a>),
    Entry(BorrowedFd<'a>, &'a CStr),
}

impl XattrPlace<'_> {
    fn read(self) -> SysResult<XattrMap> {
        match self {
            XattrPlace::Open(file) => read_xattrs(
                sized(|it| rustix::fs::flistxattr(file, it), || rustix::fs::flistxattr_query(file)),
                |name| {
                    sized(
                        |buffer| rustix::fs::fgetxattr(file, name, buffer),
                        || rustix::fs::fgetxattr_query(file, name),
                    )
                },
            ),
            XattrPlace::Entry(directory, name) => {
                let listed = sized(
                    |buffer| list_xattrs(directory, name, buffer),
                    || list_xattrs(directory, name, &mut []),
                );
                read_xattrs(listed, |attribute| {
                    let path = path_of_entry(directory, name)?;
                    let path = path.as_c_str();
                    sized(
                        |buffer| rustix::fs::lgetxattr(path, attribute, buffer),
                        || rustix::fs::lgetxattr_query(path, attribute),
                    )
                })
            }
        }
    }

    fn set(self, attribute: &CStr, value: &[u8]) -> rustix::io::Result<()> {
        let errno = |cause: Errno| rustix::io::Errno::from_raw_os_error(cause as i32);
        match self {
            XattrPlace::Open(file) => {
                rustix::fs::fsetxattr(file, attribute, value, XattrFlags::empty())
            }
            XattrPlace::Entry(directory, name) => rustix::fs::lsetxattr(
                path_of_entry(directory, name).map_err(errno)?.as_c_str(),
                attribute,
                value,
                XattrFlags::empty(),
            ),
        }
    }

    fn remove(self, attribute: &CStr) -> rustix::io::Result<()> {
        let errno = |cause: Errno| rustix::io::Errno::from_raw_os_error(cause as i32);
        match self {
            XattrPlace::Open(file) => rustix::fs::fremovexattr(file, attribute),
            XattrPlace::Entry(directory, name) => rustix::fs::lremovexattr(
                path_of_entry(directory, name).map_err(errno)?.as_c_str(),
                attribute,
            ),
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
    directory_xattrs_differ(original.xattrs, copy)
}

/// Whether the extended attributes of a directory and its copy differ in anything that [`apply`]
/// would have kept.
pub(crate) fn directory_xattrs_differ(original: XattrSource, copy: BorrowedFd) -> SysResult<bool> {
    let copied = XattrPlace::Open(copy).read()?.into_iter().filter(is_comparable);
    Ok(original.read()?.into_iter().filter(is_comparable).ne(copied))
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

/// Whether two files differ in extended attributes that a copy has to keep. Labels belong to
/// security modules; `trusted.` attributes are seen of both or of none.
pub(crate) fn xattrs_differ(a: XattrSource, b: XattrSource) -> SysResult<bool> {
    let kept = |xattrs: XattrMap| xattrs.into_iter().filter(|(name, _)| !is_label(name.as_bytes()));
    Ok(kept(a.read()?).ne(kept(b.read()?)))
}

fn apply_xattrs(original: XattrSource, copy: XattrPlace) -> SysResult<Change> {
    if matches!(original, XattrSource::Untouched) {
        return Ok(Change::NotNeeded);
    }
    let wanted = original.read()?;
    let present = match copy.read() {
        // An entry of a file system without them, or without /proc.
        Err(Errno::EOPNOTSUPP | Errno::ENOENT) if wanted.is_empty() => {
            return Ok(Change::NotNeeded);
        }
        answer => answer?,
    };
    let mut change = Change::NotNeeded;
    let mut note = |is_kept| match (is_kept, change) {
        (true, Change::NotNeeded) => change = Change::Made,
        (true, _) => {}
        (false, _) => change = Change::Refused,
    };
    for name in present.keys().filter(|name| !wanted.contains_key(*name)) {
        note(tolerate(name, copy.remove(name))?);
    }
    for (name, value) in wanted.iter().filter(|(name, value)| present.get(*name) != Some(*value)) {
        note(tolerate(name, copy.set(name, value))?);
    }
    Ok(change)
}

/// Whether the attribute was kept. The kernel may refuse attributes that only it manages; a refused
/// label of a security module counts as kept.
fn tolerate(name: &CString, answer: rustix::io::Result<()>) -> SysResult<bool> {
    use rustix::io::Errno as E;
    let bytes = name.as_bytes();
    let ordinary = bytes.starts_with(b"user.") || bytes.starts_with(b"system.posix_acl");
    match answer {
        Ok(()) => Ok(true),
        Err(E::NODATA) => Ok(true),
        Err(E::PERM | E::ACCESS | E::NOTSUP) if !ordinary => Ok(is_label(bytes)),
        Err(error) => Err(Errno::from_raw(error.raw_os_error())),
    }
}

/// Whether a security module sets the attribute.
fn is_label(attribute: &[u8]) -> bool {
    attribute.starts_with(b"security.") && attribute != b"security.capability"
}

/// `security.` attributes are set by security modules, not by a client. `trusted.` attributes are
/// visible to some runs and not to others.
fn is_comparable((name, _): &(CString, Vec<u8>)) -> bool {
    let bytes = name.as_bytes();
    !bytes.starts_with(b"security.") && !bytes.starts_with(b"trusted.")
}

/// The attributes that are `listed`, each with the value that `get` reads.
fn read_xattrs(
    listed: SysResult<Vec<u8>>,
    get: impl Fn(&CStr) -> SysResult<Vec<u8>>,
) -> SysResult<XattrMap> {
    let mut xattrs = XattrMap::new();
    let is_own = |name: &&[u8]| !name.is_empty() && !ACLS_OF_XFS.contains(name);
    for name in listed?.split(|&byte| byte == 0).filter(is_own) {
        let Ok(name) = CString::new(name) else { continue };
        match get(&name) {
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
