//! Copies for the few entries that cannot be linked.
//!
//! The kernel refuses to link an inode that has reached the file system's link limit, that is
//! immutable, or that `fs.protected_hardlinks` guards. Such an inode must not be missing from a
//! snapshot, so it is copied:
//!
//! * A regular file is copied once per inode into `drafts/copies` (as a reflink where the file
//!   system can), and linked from there, so a group of hard links stays a group.
//! * Symbolic links, pipes and sockets are made anew.
//! * A device needs a capability that the program has given up: an empty file stands for it.
//!
//! Each copy is recorded, so that a comparison does not take it for a change. A crash leaves copies
//! in `drafts` only, which the next run empties.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use crate::engine::attributes::{self, AttributeSource, XattrSource};
use crate::engine::copied::{
    Copied, CopiedState, Copies, CopyCause, InodePair, mtime_ns, next_data, open_regular,
    xattrs_digest,
};
use crate::engine::index::{Stamp, now_ns};
use crate::system::identity::{Identity, SysResult};
use crate::system::syscalls::{is_privileged, open_directory, stat_entry};

/// Records one more name of a copied inode.
pub(crate) fn remember(
    copies: &mut Copies,
    pair: InodePair,
    original: &Original,
    why: CopyReason,
    path: impl FnOnce() -> Vec<u8>,
) {
    let new = || Copied {
        path: path(),
        names: 0,
        size_bytes: original.stat.st_size,
        mtime_ns: mtime_ns(&original.stat),
        state: Some(original.state()),
        reason: reason(why).to_string(),
        cause: Some(cause(why)),
    };
    copies.entry(pair).or_insert_with(new).names += 1;
}

/// Why an entry is a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyReason {
    /// The kernel refused the link with this error.
    Refused(Errno),
    /// The file is in a partial directory, where rsync writes into files in place.
    PartialDir,
}

fn reason(why: CopyReason) -> &'static str {
    match why {
        CopyReason::PartialDir => "it is in a partial directory, where rsync writes in place",
        CopyReason::Refused(Errno::EMLINK) => "it has as many links as the file system allows",
        CopyReason::Refused(_) => {
            "it is immutable or append-only, or fs.protected_hardlinks guards it"
        }
    }
}

fn cause(why: CopyReason) -> CopyCause {
    match why {
        CopyReason::PartialDir => CopyCause::PartialDir,
        CopyReason::Refused(Errno::EMLINK) => CopyCause::LinkLimit,
        // `fs.protected_hardlinks` stops no process with CAP_FOWNER.
        CopyReason::Refused(_) if is_privileged() => CopyCause::Flag,
        CopyReason::Refused(_) => CopyCause::OtherUser,
    }
}

/// The state of an entry just before it was copied.
#[derive(Clone, Copy)]
pub(crate) struct Original {
    stat: FileStat,
    /// See [`CopiedState`].
    ctime_ns: Option<i64>,
    xattrs: Option<[u8; 16]>,
}

impl Original {
    /// Whether the inode has other names, in the module or in snapshots.
    pub(crate) fn is_shared(&self) -> bool {
        self.stat.st_nlink > 1
    }

    /// Reads the attributes before the change time, so that an equal change time proves that the
    /// attributes are equal, too.
    fn of(directory: BorrowedFd, name: &CStr) -> SysResult<Self> {
        let now = now_ns();
        let xattrs = xattrs_digest(directory, name);
        let stat = stat_entry(directory, name)?;
        let settled = Stamp::of(&stat).settled(now);
        let ctime_ns = (settled != Stamp::NEVER).then_some(settled.ctime_ns);
        Ok(Original { stat, ctime_ns, xattrs })
    }

    fn state(&self) -> CopiedState {
        let Original { stat, ctime_ns, xattrs } = *self;
        let (mode, uid, gid, device) = (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
        CopiedState { mode, uid, gid, device, ctime_ns, xattrs }
    }
}

/// Makes the copies of one clone. Its first copy of each regular file lies in a directory of its
/// own until the clone is finished.
pub(crate) struct Copier<'a> {
    drafts: BorrowedFd<'a>,
    originals: Option<OwnedFd>,
    /// By inode number of the original.
    copied: HashMap<u64, Original>,
    /// Copies whose owner, device or security attributes could not be kept.
    pub attributes_lost: u64,
}

/// The directory in `drafts` that holds the first copy of each regular file while a clone runs.
pub(crate) const ORIGINALS: &CStr = c"copies";

impl<'a> Copier<'a> {
    pub(crate) fn new(drafts: BorrowedFd<'a>) -> Self {
        Copier { drafts, originals: None, copied: HashMap::new(), attributes_lost: 0 }
    }

    /// Puts a copy of `name` from `live` into `copy`, under the same name.
    pub(crate) fn copy(
        &mut self,
        live: BorrowedFd,
        name: &CStr,
        copy: BorrowedFd,
    ) -> SysResult<(InodePair, Original)> {
        let known = self.copied.get(&Identity::of(&stat_entry(live, name)?).inode).copied();
        let original = known.map_or_else(|| Original::of(live, name), Ok)?;
        let stat = original.stat;
        let mut xattrs = XattrSource::OfEntry(live, name);
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => self.copy_regular(live, name, &original, copy)?,
            SFlag::S_IFDIR => return Err(Errno::EISDIR),
            SFlag::S_IFLNK => symlinkat(readlinkat(live, name)?.as_os_str(), copy, name)?,
            kind => {
                match mknodat(copy, name, kind, Mode::from_bits_truncate(0o600), stat.st_rdev) {
                    Err(Errno::EPERM) => {
                        stand_in(&stat, copy, name)?;
                        xattrs = XattrSource::Untouched;
                        self.attributes_lost += 1;
                    }
                    answer => answer?,
                }
            }
        }
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            let source = AttributeSource { stat: &stat, xattrs };
            self.attributes_lost += u64::from(!attributes::apply_to_entry(source, (copy, name))?);
        }
        let copy = Identity::of(&stat_entry(copy, name)?).inode;
        Ok((InodePair { live: Identity::of(&stat).inode, copy }, original))
    }

    /// Removes the directory of originals; the copies stay linked in the clone.
    pub(crate) fn finish(self) -> SysResult<()> {
        let Some(originals) = self.originals else { return Ok(()) };
        for inode in self.copied.into_keys() {
            unlinkat(&originals, &original_name(inode)[..], UnlinkatFlags::NoRemoveDir)?;
        }
        unlinkat(self.drafts, ORIGINALS, UnlinkatFlags::RemoveDir)
    }

    fn copy_regular(
        &mut self,
        live: BorrowedFd,
        name: &CStr,
        seen: &Original,
        copy: BorrowedFd,
    ) -> SysResult<()> {
        let stat = &seen.stat;
        let inode = Identity::of(stat).inode;
        let original = original_name(inode);
        if self.copied.contains_key(&inode) {
            let originals = self.originals()?;
            match linkat(originals, &original[..], copy, name, AtFlags::empty()) {
                // The copy has reached the link limit, too: later names share another copy.
                Err(Errno::EMLINK) => {
                    unlinkat(self.originals()?, &original[..], UnlinkatFlags::NoRemoveDir)?;
                    self.copied.remove(&inode);
                }
                answer => return answer,
            }
        }
        let source = open_regular(live, name, inode)?;
        let opened = fstat(&source)?;
        if Identity::of(&opened) != Identity::of(stat) || opened.st_mode != stat.st_mode {
            return Err(Errno::ESTALE);
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let originals = self.originals()?;
        let target =
            File::from(openat(originals, &original[..], flags, Mode::from_bits_truncate(0o600))?);
        let filled = copy_content(&source, &target, stat.st_size).and_then(|_| {
            attributes::apply(
                AttributeSource { stat, xattrs: XattrSource::Of(source.as_fd()) },
                target.as_fd(),
            )
        });
        match filled {
            Ok(kept) => self.attributes_lost += u64::from(!kept),
            Err(cause) => {
                // Another name of the inode must not be linked to half a copy. If the removal
                // fails, O_EXCL refuses the copy for that name.
                let _ = unlinkat(originals, &original[..], UnlinkatFlags::NoRemoveDir);
                return Err(cause);
            }
        }
        self.copied.insert(inode, *seen);
        linkat(self.originals()?, &original[..], copy, name, AtFlags::empty())
    }

    fn originals(&mut self) -> SysResult<BorrowedFd<'_>> {
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

fn original_name(inode: u64) -> Vec<u8> {
    inode.to_string().into_bytes()
}

/// Makes an empty file in place of a device. Its attribute says so as rsync's `--fake-super` does,
/// which can restore the device from it.
fn stand_in(stat: &FileStat, copy: BorrowedFd, name: &CStr) -> SysResult<()> {
    mknodat(copy, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o600), 0)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(copy, name, flags, Mode::empty())?;
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let text = format!("{:o} {major},{minor} {}:{}", stat.st_mode, stat.st_uid, stat.st_gid);
    match rustix::fs::fsetxattr(
        &file,
        c"user.rsync.%stat",
        text.as_bytes(),
        rustix::fs::XattrFlags::CREATE,
    ) {
        // A file system without such attributes: only the empty file tells of the device.
        Ok(()) | Err(rustix::io::Errno::NOTSUP) => Ok(()),
        Err(error) => Err(Errno::from_raw(error.raw_os_error())),
    }
}

/// How the content of a file was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentCopy {
    /// Both files share their blocks until one of them is written to.
    Reflink,
    Bytes,
}

/// Copies the first `size_bytes`, keeping holes, and no more: a client may be appending.
pub(crate) fn copy_content(
    source: &File,
    target: &File,
    size_bytes: i64,
) -> SysResult<ContentCopy> {
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(ContentCopy::Reflink);
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
    target.set_len(size_bytes).map_err(failed)?;
    Ok(ContentCopy::Bytes)
}
