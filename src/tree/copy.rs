//! Copies for the few entries that cannot be linked.
//!
//! An inode that has reached the file system's link limit, or is immutable, or that
//! `fs.protected_hardlinks` guards, must not be missing from a snapshot. A regular file is copied
//! (sharing its blocks where the file system can) once per inode into a directory apart, where files may be written, and
//! linked from there, so that a group of hard links stays a group; anything else is made anew, but for devices, which take a
//! capability that we do without: an empty file stands for each.
//! Each copy is remembered, so that comparing does not take it for a change.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::FchmodatFlags;
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use super::attributes;
use super::syscalls::{Answer, Identity, is_privileged, open_directory, stat_entry};

/// Remembers one more name of a copied inode.
pub fn remember(
    copies: &mut Copies,
    pair: InodePair,
    live: &FileStat,
    why: Why,
    path: impl FnOnce() -> Vec<u8>,
) {
    let new = || Copied {
        path: path(),
        names: 0,
        size_bytes: live.st_size,
        mtime_ns: mtime_ns(live),
        reason: reason(why).to_string(),
    };
    copies.entry(pair).or_insert_with(new).names += 1;
}

/// Why an entry is a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The answer to linking it.
    Refused(Errno),
    /// rsync goes on in place with what is in a partial directory.
    PartialDir,
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::PartialDir => "it is in a partial directory, where rsync goes on in place",
        Why::Refused(Errno::EMLINK) => "it has as many links as the file system allows",
        Why::Refused(_) => "it is immutable or append-only, or fs.protected_hardlinks guards it",
    }
}

/// An inode of the live tree and the inode that stands for it in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodePair {
    /// In the live tree.
    pub live: u64,
    /// In the snapshot.
    pub copy: u64,
}

/// What is remembered of an inode that was copied rather than linked.
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
    /// Why it could not be linked, for people.
    pub reason: String,
}

impl Copied {
    /// Whether the live entry still is what was copied.
    pub fn is_current(&self, live: &FileStat) -> bool {
        live.st_size == self.size_bytes && mtime_ns(live) == self.mtime_ns
    }
}

/// All copies of one snapshot.
pub type Copies = BTreeMap<InodePair, Copied>;

fn mtime_ns(stat: &FileStat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}

/// Makes copies for one clone; keeps the originals of regular copies in a directory of its own.
pub struct Copier<'a> {
    drafts: BorrowedFd<'a>,
    originals: Option<OwnedFd>,
    copied: HashSet<u64>,
    /// Copies whose owner, device or security attributes could not be kept.
    pub attributes_lost: u64,
}

/// Where among the drafts the originals of copies are while a clone runs.
pub const ORIGINALS: &CStr = c"copies";

impl<'a> Copier<'a> {
    /// A copier that keeps originals in `drafts`.
    pub fn new(drafts: BorrowedFd<'a>) -> Self {
        Copier { drafts, originals: None, copied: HashSet::new(), attributes_lost: 0 }
    }

    /// Puts a copy of `name` from `live` into `copy`, under the same name.
    pub fn copy(&mut self, live: BorrowedFd, name: &CStr, copy: BorrowedFd) -> Answer<(InodePair, FileStat)> {
        let stat = stat_entry(live, name)?;
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => self.copy_regular(live, name, &stat, copy)?,
            SFlag::S_IFDIR => return Err(Errno::EISDIR),
            SFlag::S_IFLNK => symlinkat(readlinkat(live, name)?.as_os_str(), copy, name)?,
            kind => match mknodat(copy, name, kind, Mode::from_bits_truncate(0o600), stat.st_rdev) {
                Err(Errno::EPERM) => {
                    stand_in(&stat, copy, name)?;
                    self.attributes_lost += 1;
                }
                answer => answer?,
            },
        }
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            self.attributes_lost += u64::from(!apply_by_name(&stat, copy, name)?);
        }
        let copy = Identity::of(&stat_entry(copy, name)?).inode;
        Ok((InodePair { live: Identity::of(&stat).inode, copy }, stat))
    }

    /// Removes the directory of originals; the copies stay linked in the clone.
    pub fn finish(self) -> Answer<()> {
        let Some(originals) = self.originals else { return Ok(()) };
        for inode in self.copied {
            unlinkat(&originals, &original_name(inode)[..], UnlinkatFlags::NoRemoveDir)?;
        }
        unlinkat(self.drafts, ORIGINALS, UnlinkatFlags::RemoveDir)
    }

    fn copy_regular(
        &mut self,
        live: BorrowedFd,
        name: &CStr,
        stat: &FileStat,
        copy: BorrowedFd,
    ) -> Answer<()> {
        let inode = Identity::of(stat).inode;
        let original = original_name(inode);
        if self.copied.contains(&inode) {
            let originals = self.originals()?;
            match linkat(originals, &original[..], copy, name, AtFlags::empty()) {
                // The copy has reached the limit too: the next ones share another copy.
                Err(Errno::EMLINK) => {
                    unlinkat(self.originals()?, &original[..], UnlinkatFlags::NoRemoveDir)?;
                    self.copied.remove(&inode);
                }
                answer => return answer,
            }
        }
        let source = open_regular(live, name)?;
        let opened = fstat(&source)?;
        if Identity::of(&opened) != Identity::of(stat) || opened.st_mode != stat.st_mode {
            return Err(Errno::ESTALE);
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let originals = self.originals()?;
        let target = File::from(openat(originals, &original[..], flags, Mode::from_bits_truncate(0o600))?);
        let filled = copy_content(&source, &target, stat.st_size)
            .and_then(|()| attributes::apply(source.as_fd(), stat, target.as_fd()));
        match filled {
            Ok(kept) => self.attributes_lost += u64::from(!kept),
            Err(cause) => {
                // Another name of the inode must not be given half a copy; should it stay, that name gets none.
                let _ = unlinkat(originals, &original[..], UnlinkatFlags::NoRemoveDir);
                return Err(cause);
            }
        }
        self.copied.insert(inode);
        linkat(self.originals()?, &original[..], copy, name, AtFlags::empty())
    }

    fn originals(&mut self) -> Answer<BorrowedFd<'_>> {
        if self.originals.is_none() {
            match mkdirat(self.drafts, ORIGINALS, Mode::from_bits_truncate(0o700)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error),
            }
            self.originals = Some(open_directory(self.drafts, ORIGINALS)?);
        }
        self.originals.as_ref().map(AsFd::as_fd).ok_or(Errno::ENOENT)
    }
}

/// Opens what was a regular file a moment ago. Should it be a pipe by now, that neither waits nor is waited for.
/// Reading must not look like a client's access; only owners may ask for that.
fn open_regular(directory: BorrowedFd, name: &CStr) -> Answer<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(directory, name, flags | OFlag::O_NOATIME, Mode::empty()) {
        Err(Errno::EPERM) => openat(directory, name, flags, Mode::empty())?,
        answer => answer?,
    };
    Ok(File::from(file))
}

fn original_name(inode: u64) -> Vec<u8> {
    inode.to_string().into_bytes()
}

/// What stands for a device where none can be made: an empty file that says so as rsync's `--fake-super` does, which can restore the
/// device from it.
fn stand_in(stat: &FileStat, copy: BorrowedFd, name: &CStr) -> Answer<()> {
    mknodat(copy, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o600), 0)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(copy, name, flags, Mode::empty())?;
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let text = format!("{:o} {major},{minor} {}:{}", stat.st_mode, stat.st_uid, stat.st_gid);
    match rustix::fs::fsetxattr(&file, c"user.rsync.%stat", text.as_bytes(), rustix::fs::XattrFlags::CREATE) {
        // Where the file system has no such attributes, an empty file of that name is all there is.
        Ok(()) | Err(rustix::io::Errno::NOTSUP) => Ok(()),
        Err(error) => Err(Errno::from_raw(error.raw_os_error())),
    }
}

/// Copies the first `size_bytes`, which may be all holes, and no more: the client may be appending.
fn copy_content(source: &File, target: &File, size_bytes: i64) -> Answer<()> {
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    let size_bytes = u64::try_from(size_bytes).unwrap_or(0);
    let failed = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let (mut reader, mut writer) = (source, target);
    let mut position = 0;
    while let Some((start, end)) = next_data(source, position, size_bytes) {
        reader.seek(io::SeekFrom::Start(start)).map_err(failed)?;
        writer.seek(io::SeekFrom::Start(start)).map_err(failed)?;
        io::copy(&mut Read::by_ref(&mut reader).take(end - start), &mut writer).map_err(failed)?;
        position = end;
    }
    target.set_len(size_bytes).map_err(failed)
}

/// The next stretch of data at or after `position`; all the rest where holes are not told.
fn next_data(source: &File, position: u64, size_bytes: u64) -> Option<(u64, u64)> {
    use rustix::fs::{SeekFrom, seek};
    let start = match seek(source, SeekFrom::Data(position)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return None,
        Err(_) => position,
    };
    let end = seek(source, SeekFrom::Hole(start)).unwrap_or(size_bytes).min(size_bytes);
    (start < end).then_some((start, end))
}

/// Owner, mode and times of something that must not be opened; whether the owner could be kept.
fn apply_by_name(stat: &FileStat, copy: BorrowedFd, name: &CStr) -> Answer<bool> {
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let owner_kept = match fchownat(copy, name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::EPERM) if !is_privileged() => false,
        answer => answer.map(|()| true)?,
    };
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFLNK.bits() {
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
        fchmodat(copy, name, mode, FchmodatFlags::NoFollowSymlink)?;
    }
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(copy, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?;
    Ok(owner_kept)
}
