//! CephFS: how a snapshot of a directory is made, renamed and removed.
//!
//! Each directory has a hidden one, `.snap`. A directory that is made in it is a snapshot of the
//! whole tree, which nothing can change; removing that directory removes it, however full it is. A
//! snapshot of a directory further up appears in it, too, under a name that begins with `_`, and
//! can be neither renamed nor removed there.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::system::identity::SysResult;
use crate::system::syscalls::{open_directory, stat_entry};

/// The name of the hidden directory. A mount can give it another one, which is not supported.
pub(crate) const SNAPSHOTS: &CStr = c".snap";

/// How the names of snapshots of directories further up begin.
pub(crate) const INHERITED: &str = "_";

/// How many snapshots a directory can have by default, those of directories further up included
/// (`mds_max_snaps_per_dir`).
pub(crate) const DEFAULT_MAX_SNAPSHOTS: usize = 100;

/// How much the clocks of the machines that mount one CephFS may differ: each change gets the time
/// of the machine that makes it.
pub(crate) const OTHER_CLOCKS_NS: i64 = 600 * 1_000_000_000;

/// Whether two inode numbers are of one file, in two trees of a module. The kernel's client shows
/// one number in both; ceph-fuse puts the snapshot into the upper 16 bits.
pub(crate) fn is_one_number(one: u64, other: u64) -> bool {
    const NUMBER: u64 = (1 << 48) - 1;
    one & NUMBER == other & NUMBER
}

/// When the snapshot whose directory this is was made, nanoseconds since 1970 by the clock of the
/// metadata server; none for a directory that is no snapshot's own.
pub(crate) fn snapshot_made_ns(directory: BorrowedFd) -> Option<i64> {
    let mut buffer = [0_u8; 64];
    let length = rustix::fs::fgetxattr(directory, c"ceph.snap.btime", &mut buffer).ok()?;
    parse_time_ns(str::from_utf8(buffer.get(..length)?).ok()?)
}

/// `SECONDS.NANOSECONDS`, as CephFS writes times.
fn parse_time_ns(text: &str) -> Option<i64> {
    let (seconds, nanoseconds) = text.trim_end_matches('\0').split_once('.')?;
    let nanoseconds = nanoseconds.parse::<i64>().ok().filter(|_| nanoseconds.len() == 9)?;
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// Opens the directory with the snapshots of `module`.
///
/// # Errors
/// `ENOENT` if `module` is not on CephFS, or is mounted with another name of that directory.
pub(crate) fn open_snapshots(module: BorrowedFd) -> SysResult<OwnedFd> {
    open_directory(module, SNAPSHOTS)
}

/// Makes the snapshot `name`; `snapshots` is what [`open_snapshots`] opened.
///
/// # Errors
/// `EMLINK` if there are as many snapshots as there can be; `EACCES` if the client may make none;
/// `EPERM` if snapshots are turned off.
pub(crate) fn make_snapshot(snapshots: BorrowedFd, name: &CStr) -> SysResult<()> {
    mkdirat(snapshots, name, Mode::S_IRWXU)
}

/// Removes the snapshot `name`.
///
/// # Errors
/// `EACCES` if the client may remove none.
pub(crate) fn remove_snapshot(snapshots: BorrowedFd, name: &CStr) -> SysResult<()> {
    unlinkat(snapshots, name, UnlinkatFlags::RemoveDir)
}

/// Makes the content of `name` in `directory` durable, if it is a regular file. ceph-fuse keeps
/// what was written in its memory; `syncfs` does not reach it there, and a snapshot that is made
/// meanwhile lacks it if the machine then fails. What has gone meanwhile needs nothing.
///
/// # Errors
/// If the content could not be written.
pub(crate) fn sync_file(directory: BorrowedFd, name: &CStr) -> SysResult<()> {
    let is_regular = |mode| mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    match stat_entry(directory, name) {
        Ok(stat) if is_regular(stat.st_mode) => {}
        Ok(_) | Err(Errno::ENOENT | Errno::EXDEV) => return Ok(()),
        Err(cause) => return Err(cause),
    }
    // A client may have exchanged it for a pipe, whose opening would wait. Devices cannot be opened
    // on ceph-fuse, whose mounts are `nodev`.
    let flags = OFlag::O_RDONLY
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY
        | OFlag::O_NOATIME
        | OFlag::O_CLOEXEC;
    let open = |flags| openat(directory, name, flags, Mode::empty());
    let opened = match open(flags) {
        Err(Errno::EPERM) => open(flags & !OFlag::O_NOATIME),
        opened => opened,
    };
    // An ordinary user's own file may be one that can be written to only.
    let opened = match opened {
        Err(Errno::EACCES) => open(flags & !OFlag::O_NOATIME | OFlag::O_WRONLY),
        opened => opened,
    };
    let file = match opened {
        Ok(file) => file,
        Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(()),
        Err(cause) => return Err(cause),
    };
    match is_regular(fstat(file.as_fd())?.st_mode) {
        true => nix::unistd::fsync(File::from(file)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_cephfs_writes_them() {
        assert_eq!(parse_time_ns("1796077103.752000001"), Some(1_796_077_103_752_000_001));
        for other in ["", "1796077103", "1796077103.75", "x.000000000", "1.00000000x"] {
            assert_eq!(parse_time_ns(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path();
        std::fs::write(path.join("file"), "content").expect("written");
        nix::unistd::mkfifo(&path.join("pipe"), Mode::S_IRWXU).expect("made");
        std::os::unix::fs::symlink("/dev/null", path.join("link")).expect("made");
        let directory = File::open(path).expect("opened");
        for name in [c"file", c"pipe", c"link", c"gone"] {
            assert_eq!(sync_file(directory.as_fd(), name), Ok(()), "{name:?}");
        }
    }
}
