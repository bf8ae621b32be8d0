//! Recognises mounts inside a tree, without a call that asks the server of the mounted file system.
//!
//! The server of a mount may be dead. A call that reaches it then hangs, while the run holds the
//! root's lock and a place in the job queue. A call for the state of a *name* reaches it, because
//! the kernel follows the mount. So where something is mounted below the tree, a name is first
//! opened with `O_PATH` and `RESOLVE_NO_XDEV`: that ends with `EXDEV` before the kernel asks the
//! mounted file system anything. Further calls use that descriptor.
//!
//! This costs two more calls for each name. So it is done only where the kernel's list of mounts
//! has one below a tree of this process, or cannot be read.
//!
//! A hook needs that list several times, and the kernel takes long to write it: 0.15 ms for 50
//! mounts. So the list stays open, and is read again only once the kernel reports that it has
//! changed.

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, fstat};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

use crate::decide::file_system::FileSystemType;
use crate::system::identity::{Identity, SysResult};
use crate::system::small_file;
use crate::tell::escape::escape;

const UNKNOWN: u8 = 0;
const NONE: u8 = 1;
const SOME: u8 = 2;

/// Whether anything is mounted below a tree that this process works on. Once set to `SOME`, it
/// stays so.
static BELOW: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The kernel's list, open, and what it held when it was last read.
static LAST_READ: Mutex<Option<(File, Arc<Mounts>)>> = Mutex::new(None);

/// The list has a line of some hundred bytes for each mount; no machine has a million mounts.
const MAX_LIST_BYTES: u64 = 256 << 20;

/// The mounts of this process, as the kernel lists them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mounts(Vec<MountEntry>);

#[derive(Debug, PartialEq, Eq)]
struct MountEntry {
    point: PathBuf,
    /// The number of the file system's device, as the list has it.
    device: Vec<u8>,
    /// The directory of the file system that is mounted; `/` unless it is a bind mount or a
    /// subvolume.
    root: PathBuf,
    kind: FileSystemType,
    /// By a mount option of btrfs.
    may_remove_subvolumes: bool,
    /// Whether reading a file leaves its time of access as it is.
    has_no_access_times: bool,
}

impl Mounts {
    /// The mounts of this moment. None where `/proc` is missing.
    pub(crate) fn read() -> Option<Arc<Self>> {
        let mut last = LAST_READ.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, mounts)) = last.as_ref().filter(|(list, _)| !has_changed(list)) {
            return Some(Arc::clone(mounts));
        }
        *last = None;
        let list = File::open("/proc/self/mountinfo").ok()?;
        let text = small_file::read_opened(&list, MAX_LIST_BYTES).ok()?;
        let mounts = Arc::new(Mounts::parse(&text));
        *last = Some((list, Arc::clone(&mounts)));
        Some(mounts)
    }

    fn parse(text: &[u8]) -> Self {
        let mounted = |line: &[u8]| {
            let mut fields = line.split(|byte| *byte == b' ');
            let device = fields.nth(2)?.to_vec();
            let root = PathBuf::from(OsString::from_vec(unescaped(fields.next()?)));
            let point = PathBuf::from(OsString::from_vec(unescaped(fields.next()?)));
            let options = fields.next()?;
            let has_no_access_times =
                options.split(|byte| *byte == b',').any(|option| option == b"noatime");
            // A dash ends the optional fields.
            let mut rest = fields.skip_while(|field| *field != b"-");
            let kind = FileSystemType(escape(&unescaped(rest.nth(1)?)));
            let options = rest.nth(1).unwrap_or_default();
            let may_remove_subvolumes = options
                .split(|byte| *byte == b',')
                .any(|option| option == b"user_subvol_rm_allowed");
            Some(MountEntry {
                point,
                device,
                root,
                kind,
                may_remove_subvolumes,
                has_no_access_times,
            })
        };
        Mounts(text.split(|byte| *byte == b'\n').filter_map(mounted).collect())
    }

    /// The mount that `path` lies on. Of several mounts on one directory, the last hides the
    /// others.
    fn of(&self, path: &Path) -> Option<&MountEntry> {
        let above = self.0.iter().filter(|mounted| path.starts_with(&mounted.point));
        above.max_by_key(|mounted| mounted.point.as_os_str().len())
    }

    /// The type of the file system that `path` lies on, which is absolute and without symbolic
    /// links.
    pub(crate) fn kind_of(&self, path: &Path) -> Option<&FileSystemType> {
        self.of(path).map(|mounted| &mounted.kind)
    }

    /// Whether a CephFS is mounted.
    pub(crate) fn has_ceph(&self) -> bool {
        self.0.iter().any(|mounted| mounted.kind.is_ceph())
    }

    /// The mount point that `path` lies below, if a server or a program serves the file system.
    pub(crate) fn served_mount_of(&self, path: &Path) -> Option<PathBuf> {
        self.of(path)
            .filter(|mounted| mounted.kind.is_served())
            .map(|mounted| mounted.point.clone())
    }

    /// Whether a call for `path` may wait for a server that the work on `own` does not need.
    pub(crate) fn may_wait_for(&self, path: &Path, own: &Path) -> bool {
        self.served_above(path).any(|point| !own.starts_with(point))
    }

    /// The mount points at or above `path` of file systems that a server or a program serves.
    pub(crate) fn served_above(&self, path: &Path) -> impl Iterator<Item = &Path> {
        let served = self.0.iter().filter(|mounted| mounted.kind.is_served());
        served.map(|mounted| mounted.point.as_path()).filter(move |point| path.starts_with(point))
    }

    /// Every path that leads to what `path` leads to, itself first: a bind mount shows a directory
    /// under another path. `path` is absolute and without symbolic links.
    pub(crate) fn paths_to(&self, path: &Path) -> Vec<PathBuf> {
        let mut paths = vec![path.to_path_buf()];
        let Some(own) = self.of(path) else { return paths };
        let Ok(below) = path.strip_prefix(&own.point) else { return paths };
        let in_file_system = joined(&own.root, below);
        for other in self.0.iter().filter(|other| other.device == own.device) {
            let Ok(below) = in_file_system.strip_prefix(&other.root) else { continue };
            let shown = joined(&other.point, below);
            let is_hidden = self.of(&shown) != Some(other);
            if !is_hidden && !paths.contains(&shown) {
                paths.push(shown);
            }
        }
        paths
    }

    /// Where something is mounted below `path`, relative to it.
    pub(crate) fn below(&self, path: &Path) -> Vec<Vec<u8>> {
        let relative = |mounted: &MountEntry| {
            let below = mounted.point.strip_prefix(path).ok()?.as_os_str().as_bytes().to_vec();
            (!below.is_empty()).then_some(below)
        };
        self.0.iter().filter_map(relative).collect()
    }

    /// Whether reading leaves times of access as they are where `path` lies.
    pub(crate) fn has_no_access_times(&self, path: &Path) -> bool {
        self.of(path).is_some_and(|mounted| mounted.has_no_access_times)
    }

    /// Whether users may remove their own subvolumes on the btrfs that `path` lies on.
    pub(crate) fn may_remove_subvolumes(&self, path: &Path) -> bool {
        self.of(path).is_some_and(|mounted| mounted.may_remove_subvolumes)
    }

    /// Whether something is mounted below `path`, which is absolute and without symbolic links.
    pub(crate) fn has_below(&self, path: &Path) -> bool {
        self.0.iter().any(|mounted| mounted.point != path && mounted.point.starts_with(path))
    }
}

/// `directory` with the names of `below`, which may be none.
fn joined(directory: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { directory.to_path_buf() } else { directory.join(below) }
}

/// Whether a mount was made or removed since the open `list` was opened. The kernel reports that as
/// an exceptional condition.
fn has_changed(list: &File) -> bool {
    let mut polled = [PollFd::new(list, PollFlags::PRI)];
    !matches!(poll(&mut polled, Some(&Timespec::default())), Ok(0))
}

/// A field of the list. The kernel writes blanks, tabs, line breaks and backslashes as octal
/// numbers.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, others)) = rest.split_first() {
        let code = others.get(..3).filter(|_| *first == b'\\');
        let code =
            code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &others[3..] } else { others };
    }
    bytes
}

/// Notes whether anything is mounted below one of `trees`, all of them absolute and without
/// symbolic links.
pub(crate) fn note_mounts_below(trees: &[&Path]) {
    let found = match Mounts::read() {
        Some(mounts) if !trees.iter().any(|tree| mounts.has_below(tree)) => NONE,
        _ => SOME,
    };
    BELOW.fetch_max(found, Ordering::Relaxed);
}

/// Whether a name in a tree may be a mount point.
pub(crate) fn are_expected() -> bool {
    BELOW.load(Ordering::Relaxed) != NONE
}

/// Opens `name` in `parent` with `O_PATH`, whatever it is, if it may be a mount point; none if
/// nothing is mounted in any tree.
///
/// # Errors
/// `EXDEV` if it is a mount point.
pub(crate) fn open_place_if_mounts(parent: BorrowedFd, name: &CStr) -> SysResult<Option<OwnedFd>> {
    if are_expected() { place(parent, name).map(Some) } else { Ok(None) }
}

/// Whether `name` in `parent` is a mount point.
pub(crate) fn is_mount_point(parent: BorrowedFd, name: &CStr) -> bool {
    matches!(place(parent, name), Err(Errno::EXDEV))
}

fn place(parent: BorrowedFd, name: &CStr) -> SysResult<OwnedFd> {
    const FLAGS: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    match openat2(parent, name, OpenHow::new().flags(FLAGS).resolve(resolve)) {
        // A kernel without openat2, or a seccomp filter. With most file systems, opening with
        // O_PATH asks no server.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EAGAIN) => {
            let place = openat(parent, name, FLAGS, Mode::empty())?;
            match is_mounted(place.as_fd(), parent)? {
                true => Err(Errno::EXDEV),
                false => Ok(place),
            }
        }
        answer => answer,
    }
}

/// Whether `place` lies on another mount than its parent, as far as the kernel knows without asking
/// a server.
fn is_mounted(place: BorrowedFd, parent: BorrowedFd) -> SysResult<bool> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::from_bits_retain(libc::AT_STATX_DONT_SYNC as u32);
    let statx = match rustix::fs::statx(place, c"", flags, StatxFlags::empty()) {
        Ok(statx) => statx,
        // Before Linux 4.11, only a call that asks the server can tell.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {
            return Ok(Identity::of(&fstat(place)?).device != Identity::of(&fstat(parent)?).device);
        }
        Err(error) => return Err(Errno::from_raw(error.raw_os_error())),
    };
    let device = rustix::fs::makedev(statx.stx_dev_major, statx.stx_dev_minor);
    // A btrfs subvolume has its own device, but is no mount.
    Ok(statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        || (!statx.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
            && device != Identity::of(&fstat(parent)?).device))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        40 22 0:35 / /srv/backup/a\\040b/latest/nfs rw - nfs server:/x rw\n\
        41 22 0:36 / /srv/backup/c rw - tmpfs none rw\n";

    #[test]
    fn only_mounts_below_a_directory_count() {
        let mounts = Mounts::parse(LIST);
        assert_eq!(mounts.0.len(), 3);
        for (path, expected) in [
            ("/srv/backup/a b/latest", true),
            ("/srv/backup/a b/latest/nfs", false),
            ("/srv/backup/a b/latest/n", false),
            ("/srv/backup/c", false),
            ("/srv/backup", true),
            ("/", true),
        ] {
            assert_eq!(mounts.has_below(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn a_path_lies_on_the_innermost_mount() {
        let mounts = Mounts::parse(LIST);
        for (path, expected) in [
            ("/srv/backup/a b/latest", "ext4"),
            ("/srv/backup/a b/latest/nfs/x", "nfs"),
            ("/srv/backup/c", "tmpfs"),
            ("/srv/backup/cc", "ext4"),
        ] {
            assert_eq!(
                mounts.kind_of(Path::new(path)).map(|kind| kind.0.as_str()),
                Some(expected),
                "{path}"
            );
        }
        let served = |path| mounts.served_mount_of(Path::new(path));
        assert_eq!(
            served("/srv/backup/a b/latest/nfs/x"),
            Some("/srv/backup/a b/latest/nfs".into())
        );
        assert_eq!(served("/srv/backup/c"), None);
    }

    #[test]
    fn a_bind_mount_is_another_path_to_a_directory() {
        let mounts = Mounts::parse(
            b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            30 22 254:1 / /srv rw - ext4 /dev/vdb rw\n\
            40 22 254:1 /e1/S\\0401/sub /mnt/b rw - ext4 /dev/vdb rw\n\
            41 22 254:1 /e1 /mnt/hidden rw - ext4 /dev/vdb rw\n\
            42 41 0:36 / /mnt/hidden rw - tmpfs none rw\n",
        );
        for (path, others) in [
            ("/mnt/b/x/y", &["/srv/e1/S 1/sub/x/y"][..]),
            ("/mnt/b", &["/srv/e1/S 1/sub"]),
            ("/srv/e1/S 1/sub/x", &["/mnt/b/x"]),
            ("/srv/e1/S 1", &[]),
            ("/mnt/hidden/x", &[]),
            ("/home", &[]),
        ] {
            let paths: Vec<PathBuf> =
                [path].iter().chain(others).map(|path| PathBuf::from(*path)).collect();
            assert_eq!(mounts.paths_to(Path::new(path)), paths, "{path}");
        }
    }

    #[test]
    fn only_a_server_that_is_needed_anyway_is_asked() {
        let mounts = Mounts::parse(LIST);
        let inside = "/srv/backup/a b/latest/nfs/module";
        for (path, own, expected) in [
            ("/srv/backup/c", "/srv/backup/d", false),
            (inside, "/srv/backup/d", true),
            (inside, "/srv/backup/a b/latest/nfs/other", false),
            ("/srv/backup/c", inside, false),
        ] {
            assert_eq!(
                mounts.may_wait_for(Path::new(path), Path::new(own)),
                expected,
                "{path} {own}"
            );
        }
    }

    #[test]
    fn octal_numbers_are_bytes_and_all_else_stays() {
        for (field, expected) in [
            (&b"/a\\040b"[..], &b"/a b"[..]),
            (b"/a\\134", b"/a\\"),
            (b"/a\\", b"/a\\"),
            (b"/a\\9", b"/a\\9"),
            (b"/a\\999", b"/a\\999"),
            (b"/\\303\\251", "/é".as_bytes()),
        ] {
            assert_eq!(unescaped(field), expected);
        }
    }
}
