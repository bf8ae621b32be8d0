//! The system calls of the tree engine, each relative to an open directory, so that no symbolic
//! link is followed.
//!
//! Most calls are made through nix. rustix makes those that nix lacks on musl or lacks altogether:
//! directory reads with a large buffer, rename without replacing, attributes by descriptor, mount
//! ids.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use crate::system::identity::{Identity, SysResult};
use crate::system::mounts;
use crate::system::unsafe_calls::list_xattrs_at;

/// Whether `cause` says that a directory was removed or moved, or is no directory any more.
pub(crate) fn is_gone(cause: Errno) -> bool {
    matches!(cause, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ESTALE)
}

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

const LOOKUPS: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Set once the kernel, or a seccomp filter, has refused `openat2`.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Opens the directory `name` in `parent`.
///
/// # Errors
/// `EXDEV` if it is a mount point; `ELOOP` or `ENOTDIR` if it is no directory.
pub(crate) fn open_directory(parent: BorrowedFd, name: &CStr) -> SysResult<OwnedFd> {
    // Opening an automount point for reading would mount it, and wait for its server.
    match mounts::open_place_if_mounts(parent, name)? {
        Some(place) => open_child(place.as_fd(), c"."),
        None => open_child(parent, name),
    }
}

/// Opens the directory `name` in `parent` for lookups only, with `O_PATH`: names in it can be
/// opened, inspected, linked and removed.
///
/// # Errors
/// As [`open_directory`].
pub(crate) fn open_for_lookups(parent: BorrowedFd, name: &CStr) -> SysResult<OwnedFd> {
    match mounts::open_place_if_mounts(parent, name)? {
        Some(place) => open_directory_with(place.as_fd(), c".", LOOKUPS),
        None => open_directory_with(parent, name, LOOKUPS),
    }
}

fn open_child(parent: BorrowedFd, name: &CStr) -> SysResult<OwnedFd> {
    // Without O_NOATIME, reading would look like access by a client. Only an owner may set it.
    match open_directory_with(parent, name, DIRECTORY | OFlag::O_NOATIME) {
        Err(Errno::EPERM) => open_directory_with(parent, name, DIRECTORY),
        answer => answer,
    }
}

fn open_directory_with(parent: BorrowedFd, name: &CStr, flags: OFlag) -> SysResult<OwnedFd> {
    if NO_OPENAT2.load(Ordering::Relaxed) {
        return open_plainly(parent, name, flags);
    }
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    match openat2(parent, name, OpenHow::new().flags(flags).resolve(resolve)) {
        // An old kernel returns ENOSYS, a seccomp filter often EPERM. A directory of another owner
        // gives EPERM, too; then the plain call fails with it again.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let directory = open_plainly(parent, name, flags)?;
            NO_OPENAT2.store(true, Ordering::Relaxed);
            Ok(directory)
        }
        // openat2 returns EAGAIN if a rename happened meanwhile.
        Err(Errno::EAGAIN) => open_plainly(parent, name, flags),
        answer => answer,
    }
}

/// Without openat2: a single name that is no symbolic link can only lead to a child. Whether that
/// is on the parent's mount is checked afterwards.
fn open_plainly(parent: BorrowedFd, name: &CStr, flags: OFlag) -> SysResult<OwnedFd> {
    let directory = openat(parent, name, flags, Mode::empty())?;
    let (own, above) = (MountIdentity::of(directory.as_fd())?, MountIdentity::of(parent)?);
    // openat2 takes a subvolume for no mount either.
    match own.admits(above) || own.is_subvolume_below(above) {
        true => Ok(directory),
        false => Err(Errno::EXDEV),
    }
}

/// Opens the parent of `directory` without any check.
pub(crate) fn open_parent(directory: BorrowedFd) -> SysResult<OwnedFd> {
    openat(directory, c"..", DIRECTORY, Mode::empty())
}

/// Opens the parent of `directory` for lookups if it is the directory `expected`: a client that
/// moves `directory` chooses its parent.
///
/// # Errors
/// `ESTALE` if the parent is another directory.
pub(crate) fn return_to(directory: BorrowedFd, expected: Identity) -> SysResult<OwnedFd> {
    let parent = place_above(directory)?;
    match Identity::of(&fstat(&parent)?) == expected {
        true => Ok(parent),
        false => Err(Errno::ESTALE),
    }
}

/// The directory above, by `O_PATH`. The caller checks which one it is before using it.
pub(crate) fn place_above(directory: BorrowedFd) -> SysResult<OwnedFd> {
    let place = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(directory, c"..", place, Mode::empty())
}

/// The state of an entry; a symbolic link is not followed.
///
/// # Errors
/// `EXDEV` if it is a mount point, unless nothing is mounted in [any tree](mounts::are_expected).
pub(crate) fn stat_entry(parent: BorrowedFd, name: &CStr) -> SysResult<FileStat> {
    match mounts::open_place_if_mounts(parent, name)? {
        Some(place) => fstat(&place),
        None => fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT),
    }
}

/// The state of the entry at `path` below `directory`. No symbolic link is followed and no mount is
/// crossed.
pub(crate) fn stat_below(directory: BorrowedFd, path: &[u8]) -> SysResult<FileStat> {
    let name = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::EINVAL);
    let mut names = path.split(|byte| *byte == b'/').peekable();
    let mut parent: Option<OwnedFd> = None;
    loop {
        let here = parent.as_ref().map_or(directory, |parent| parent.as_fd());
        let next = name(names.next().ok_or(Errno::ENOENT)?)?;
        if names.peek().is_none() {
            return stat_entry(here, &next);
        }
        parent = Some(open_directory(here, &next)?);
    }
}

/// Set once the kernel, or a seccomp filter, has refused `listxattrat`.
static NO_LISTXATTRAT: AtomicBool = AtomicBool::new(false);

/// The names of the extended attributes of the entry `name`, which is not opened; a symbolic link
/// is not followed. Returns their length, which an empty buffer only asks for.
///
/// # Errors
/// As llistxattr(2). With a kernel before 6.13, `ENOENT` also where /proc is missing.
pub(crate) fn list_xattrs(
    directory: BorrowedFd,
    name: &CStr,
    buffer: &mut [u8],
) -> rustix::io::Result<usize> {
    if !NO_LISTXATTRAT.load(Ordering::Relaxed) {
        match list_xattrs_at(directory, name, buffer) {
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {}
            answer => return answer,
        }
    }
    let listed = list_xattrs_by_path(directory, name, buffer);
    if listed.is_ok() {
        NO_LISTXATTRAT.store(true, Ordering::Relaxed);
    }
    listed
}

/// [`list_xattrs`] for a kernel without `listxattrat`.
fn list_xattrs_by_path(
    directory: BorrowedFd,
    name: &CStr,
    buffer: &mut [u8],
) -> rustix::io::Result<usize> {
    let path = path_of_entry(directory, name)
        .map_err(|cause| rustix::io::Errno::from_raw_os_error(cause as i32))?;
    match buffer.is_empty() {
        // rustix would return 0.
        true => rustix::fs::llistxattr_query(path.as_c_str()),
        false => rustix::fs::llistxattr(path.as_c_str(), buffer),
    }
}

/// The path by which the kernel reaches the entry `name` without opening it.
pub(crate) fn path_of_entry(directory: BorrowedFd, name: &CStr) -> SysResult<CString> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).map_err(|_| Errno::EINVAL)
}

/// Identifies a mount: a link can be made only between directories of one mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MountIdentity {
    pub device: u64,
    /// The mount id, if the kernel has it: a bind mount has the device of its file system.
    id: Option<u64>,
}

impl MountIdentity {
    pub(crate) fn of(directory: BorrowedFd) -> SysResult<Self> {
        use rustix::fs::{AtFlags, StatxFlags, statx};
        let device = Identity::of(&fstat(directory)?).device;
        let id = match statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
            Ok(statx) => {
                (statx.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(statx.stx_mnt_id)
            }
            // A kernel without statx or mount ids, or a seccomp filter.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {
                None
            }
            Err(error) => return Err(Errno::from_raw(error.raw_os_error())),
        };
        Ok(MountIdentity { device, id })
    }

    /// Whether both can be one mount, as far as known.
    pub(crate) fn admits(self, other: MountIdentity) -> bool {
        self.device == other.device && self.id.zip(other.id).is_none_or(|(own, other)| own == other)
    }

    /// Whether this directory is another device in the same mount as the one above it, as a
    /// subvolume of btrfs is.
    pub(crate) fn is_subvolume_below(self, above: MountIdentity) -> bool {
        self.device != above.device && self.id.is_some() && self.id == above.id
    }
}

/// Renames without ever replacing an entry of the new name.
///
/// # Errors
/// `EEXIST` if the new name is taken.
pub(crate) fn rename_no_replace(
    old_parent: BorrowedFd,
    old: &CStr,
    new_parent: BorrowedFd,
    new: &CStr,
) -> SysResult<()> {
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(old_parent, old, new_parent, new, flags) {
        Ok(()) => Ok(()),
        // A file system without the flag, a kernel before 3.15, or a seccomp filter. The lock keeps
        // each other writer of the root away between the two calls.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            match stat_entry(new_parent, new) {
                Err(Errno::ENOENT) => nix::fcntl::renameat(old_parent, old, new_parent, new),
                Err(error) => Err(error),
                Ok(_) => Err(Errno::EEXIST),
            }
        }
        Err(error) => Err(Errno::from_raw(error.raw_os_error())),
    }
}

/// Whether this process may give files to other owners.
pub(crate) fn is_privileged() -> bool {
    static IS_ROOT: OnceLock<bool> = OnceLock::new();
    *IS_ROOT.get_or_init(|| nix::unistd::geteuid().is_root())
}

/// Whether this process may give its own files to the group `gid`.
pub(crate) fn may_give_to(gid: u32) -> bool {
    static GROUPS: OnceLock<Vec<u32>> = OnceLock::new();
    let own = || {
        let more = nix::unistd::getgroups().unwrap_or_default();
        more.into_iter().chain([nix::unistd::getegid()]).map(nix::unistd::Gid::as_raw).collect()
    };
    is_privileged() || GROUPS.get_or_init(own).contains(&gid)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    /// What is listed of an entry by its path and, if the kernel can, by its name.
    fn listed(directory: &File, name: &CStr) -> Vec<Vec<u8>> {
        let mut buffer = [0; 256];
        let by_path =
            list_xattrs_by_path(directory.as_fd(), name, &mut buffer).expect("listed by path");
        let mut lists = vec![buffer[..by_path].to_vec()];
        match list_xattrs_at(directory.as_fd(), name, &mut buffer) {
            Ok(length) => lists.push(buffer[..length].to_vec()),
            Err(cause) => assert!(
                [rustix::io::Errno::NOSYS, rustix::io::Errno::PERM].contains(&cause),
                "{cause}"
            ),
        }
        assert_eq!(list_xattrs(directory.as_fd(), name, &mut []).expect("asked"), by_path);
        lists
    }

    #[test]
    fn attributes_are_listed_by_name_as_by_path_and_no_link_is_followed() {
        let scratch = tempfile::tempdir().expect("a directory");
        let at = |name: &str| scratch.path().join(name);
        fs::write(at("file"), "").expect("a file");
        std::os::unix::fs::symlink("file", at("link")).expect("a link");
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(at("file"), "user.colour", b"red", flags).is_err() {
            return;
        }
        let directory = File::open(scratch.path()).expect("open");
        let has = |list: &[u8]| list.split(|byte| *byte == 0).any(|name| name == b"user.colour");
        let of_file = listed(&directory, c"file");
        assert!(of_file.iter().all(|list| has(list) && *list == of_file[0]), "{of_file:?}");
        let of_link = listed(&directory, c"link");
        assert!(of_link.iter().all(|list| !has(list) && *list == of_link[0]), "{of_link:?}");
        for list in [list_xattrs, list_xattrs_by_path] {
            let answer = list(directory.as_fd(), c"file", &mut [0; 3]);
            assert_eq!(answer, Err(rustix::io::Errno::RANGE));
            let answer = list(directory.as_fd(), c"none", &mut []);
            assert_eq!(answer, Err(rustix::io::Errno::NOENT));
            assert_eq!(list(directory.as_fd(), c"file", &mut []), Ok(of_file[0].len()));
        }
    }
}
