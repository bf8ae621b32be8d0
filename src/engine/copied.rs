//! What is known of files that were copied, and whether a copy is still that of its original.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use serde::{Deserialize, Serialize};

use crate::engine::baseline;
use crate::engine::index::Stamp;
use crate::system::identity::{Identity, SysResult};
use crate::system::syscalls::stat_entry;

/// The inode numbers of an original in the live tree and of its copy in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodePair {
    pub live: u64,
    pub copy: u64,
}

/// What is recorded of an inode that was copied rather than linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The first of its names, relative to the module.
    pub path: Vec<u8>,
    /// How many names of the snapshot share the copy.
    pub names: u64,
    /// Size in bytes when it was copied.
    pub size_bytes: i64,
    /// Modification time when it was copied, nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Other attributes of the original; earlier versions recorded none of them.
    pub state: Option<CopiedState>,
    /// Why it could not be linked, as text.
    pub reason: String,
    /// Why it is a copy; `None` in records of earlier versions.
    pub cause: Option<CopyCause>,
}

/// Why an inode was copied rather than linked, by what an administrator can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyCause {
    /// It has as many links as its file system allows.
    LinkLimit,
    /// It is immutable or append-only.
    Flag,
    /// It belongs to another user, and this one may not link it.
    OtherUser,
    /// It is in a partial directory.
    PartialDir,
    /// One that a later version knows.
    #[serde(other)]
    Unknown,
}

/// Attributes of an original besides size and time. The copy is another inode and shares none of
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedState {
    /// Type and mode.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// The device number of a device file, otherwise 0.
    pub device: u64,
    /// Change time, nanoseconds since 1970, if it was old enough that each later change differs.
    pub ctime_ns: Option<i64>,
    /// A digest of the extended attributes, if they could be read.
    pub xattrs: Option<[u8; 16]>,
}

/// An entry of the live tree and its copy in the snapshot.
#[derive(Clone, Copy)]
pub struct CopiedPair<'a> {
    pub live: BorrowedFd<'a>,
    pub snapshot: BorrowedFd<'a>,
    /// The name in both.
    pub name: &'a CStr,
    /// The inode numbers that the directories list.
    pub inodes: InodePair,
}

impl Copied {
    /// Whether the live entry still is what was copied. An equal change time proves it: every
    /// change of an inode moves that time. So does a link that is made or removed elsewhere; so if
    /// the time differs, everything is compared, the content included. No snapshot shares the
    /// original, so nothing but the comparison shows a change.
    pub fn is_current(&self, pair: CopiedPair) -> bool {
        let Some(state) = &self.state else { return false };
        let Ok(live) = stat_entry(pair.live, pair.name) else { return false };
        let is_alike = live.st_size == self.size_bytes
            && mtime_ns(&live) == self.mtime_ns
            && (live.st_mode, live.st_uid, live.st_gid) == (state.mode, state.uid, state.gid)
            && live.st_rdev == state.device;
        // A file that is mounted over it now is another inode.
        if Identity::of(&live).inode != pair.inodes.live || !is_alike {
            return false;
        }
        state.ctime_ns == Some(Stamp::of(&live).ctime_ns)
            || state.xattrs == xattrs_digest(pair.live, pair.name)
                && is_same_content(pair, &live).unwrap_or(false)
    }
}

/// Whether original and copy hold equal content. `live` is the state of the original before.
///
/// # Errors
/// `ESTALE` if one of them has another inode by now.
pub(crate) fn is_same_content(pair: CopiedPair, live: &FileStat) -> SysResult<bool> {
    match SFlag::from_bits_truncate(live.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => {
            let original = open_regular(pair.live, pair.name, pair.inodes.live)?;
            let copy = open_regular(pair.snapshot, pair.name, pair.inodes.copy)?;
            let is_still = || fstat(&original).map(|now| Stamp::of(&now) == Stamp::of(live));
            Ok(have_same_data(&original, &copy, live.st_size)? && is_still()?)
        }
        SFlag::S_IFLNK => {
            Ok(readlinkat(pair.live, pair.name)? == readlinkat(pair.snapshot, pair.name)?)
        }
        // Other kinds have no content: mode and device number have been compared.
        _ => Ok(true),
    }
}

/// Whether two files of `size_bytes` hold equal bytes. Where both have holes nothing is read.
pub(crate) fn have_same_data(a: &File, b: &File, size_bytes: i64) -> SysResult<bool> {
    const CHUNK_BYTES: usize = 128 << 10;
    let size_bytes = u64::try_from(size_bytes).unwrap_or(0);
    let failed = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    if b.metadata().map_err(failed)?.len() != size_bytes {
        return Ok(false);
    }
    let mut buffers = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut position = 0;
    loop {
        let data = [next_data(a, position, size_bytes), next_data(b, position, size_bytes)];
        let Some((start, end)) = data.into_iter().flatten().min() else { return Ok(true) };
        position = start;
        while position < end {
            let length = usize::try_from(end - position).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let (some, other) = (&mut buffers.0[..length], &mut buffers.1[..length]);
            a.read_exact_at(some, position).map_err(failed)?;
            b.read_exact_at(other, position).map_err(failed)?;
            if some != other {
                return Ok(false);
            }
            position += length as u64;
        }
    }
}

pub(crate) fn xattrs_digest(directory: BorrowedFd, name: &CStr) -> Option<[u8; 16]> {
    baseline::xattrs(directory, name).digest()
}

/// All copies of one snapshot.
pub(crate) type Copies = BTreeMap<InodePair, Copied>;

pub(crate) fn mtime_ns(stat: &FileStat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}

/// The next stretch of data at or after `position`; all the rest if the file system has no
/// SEEK_DATA.
pub(crate) fn next_data(source: &File, position: u64, size_bytes: u64) -> Option<(u64, u64)> {
    use rustix::fs::{SeekFrom, seek};
    let start = match seek(source, SeekFrom::Data(position)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return None,
        Err(_) => position,
    };
    let end = seek(source, SeekFrom::Hole(start)).unwrap_or(size_bytes).min(size_bytes);
    (start < end).then_some((start, end))
}

/// Opens the regular file `inode`, which had the name a moment ago. A user who owns the directory
/// may put a pipe or a device in its place at any moment, and opening those can have effects. So
/// the name is opened as a place first, and what it stands for is looked at.
///
/// # Errors
/// `ESTALE` if the name stands for another inode now, or for one that is no regular file.
pub(crate) fn open_regular(directory: BorrowedFd, name: &CStr, inode: u64) -> SysResult<File> {
    const PLACE: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
    let is_meant = |file: BorrowedFd| {
        let stat = fstat(file)?;
        let is_regular = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
        if is_regular && stat.st_ino == inode { Ok(()) } else { Err(Errno::ESTALE) }
    };
    let place = openat(directory, name, PLACE, Mode::empty())?;
    is_meant(place.as_fd())?;
    let path = CString::new(format!("/proc/self/fd/{}", place.as_raw_fd())).unwrap_or_default();
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    // Without O_NOATIME, reading would look like access by a client. Only an owner may set it.
    let open = |path: &CStr, flags: OFlag| match openat(
        directory,
        path,
        flags | OFlag::O_NOATIME,
        Mode::empty(),
    ) {
        Err(Errno::EPERM) => openat(directory, path, flags, Mode::empty()),
        answer => answer,
    };
    let file = match open(&path, flags) {
        // Without /proc, the file is opened by its name.
        Err(Errno::ENOENT) => open(name, flags | OFlag::O_NOFOLLOW),
        answer => answer,
    }?;
    is_meant(file.as_fd())?;
    Ok(File::from(file))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::mem::MaybeUninit;
    use std::os::unix::fs::{MetadataExt, symlink};

    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

    use super::*;

    #[test]
    fn what_took_the_place_of_a_file_is_not_opened() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = |name: &str| scratch.path().join(name);
        fs::write(path("file"), "x").expect("a file");
        fs::write(path("other"), "y").expect("a file");
        symlink("file", path("link")).expect("a link");
        nix::unistd::mkfifo(&path("pipe"), Mode::S_IRUSR).expect("a pipe");
        let inode = |name: &str| fs::symlink_metadata(path(name)).expect("its state").ino();
        let watch = inotify::init(CreateFlags::NONBLOCK).expect("inotify");
        for name in ["other", "pipe"] {
            inotify::add_watch(&watch, path(name), WatchFlags::OPEN).expect("a watch");
        }
        let directory = File::open(scratch.path()).expect("the directory");
        let open = |name: &CStr, inode| open_regular(directory.as_fd(), name, inode);
        for (name, meant) in
            [(c"other", "file"), (c"link", "file"), (c"pipe", "file"), (c"pipe", "pipe")]
        {
            assert_eq!(open(name, inode(meant)).err(), Some(Errno::ESTALE), "{name:?}");
        }
        let mut buffer = [MaybeUninit::uninit(); 1_024];
        let was_opened = inotify::Reader::new(&watch, &mut buffer).next().is_ok();
        assert!(!was_opened, "something else was opened");
        let mut text = String::new();
        let mut file = open(c"file", inode("file")).expect("opened");
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, "x");
    }
}
