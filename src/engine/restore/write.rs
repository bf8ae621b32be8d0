//! Makes the entries of a restore.
//!
//! An entry is made in the staging directory, gets all its attributes there, and is then renamed to
//! its name at the destination. So a restore that is killed leaves the old entry, the new one or
//! none under the name, never half of one; what it leaves in the staging directory is removed by
//! the next restore.
//!
//! A file with several names in the selection stays in the staging directory under another name
//! until the end. The later names are linked from there: a path at the destination could lead to
//! another file by then.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, futimens, mkdirat, mknodat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use crate::engine::attributes::{self, AttributeSource, XattrSource};
use crate::engine::copied::open_regular;
use crate::engine::copy::{ContentCopy, copy_content};
use crate::engine::restore::compare::{EntrySide, state_of};
use crate::system::identity::{Identity, SysResult};
use crate::system::syscalls::{open_directory, rename_no_replace, stat_entry};

/// The name in the staging directory of the entry that is being made.
const NEW: &CStr = c"new";

/// What rsyncd puts before the targets of symbolic links in a module without chroot.
const MUNGED: &[u8] = b"/rsyncd-munged/";

/// Whether an entry may take the place of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Nothing is there. What appears there meanwhile stays, with the error `EEXIST`.
    Free,
    /// What is there, but no directory, is replaced.
    Replacing,
}

/// A name in an open directory of the destination.
#[derive(Clone, Copy)]
pub(crate) struct TargetName<'a> {
    pub directory: BorrowedFd<'a>,
    pub name: &'a CStr,
    pub placement: Placement,
}

/// Makes the entries of one restore.
pub(crate) struct EntryWriter<'a> {
    staging: BorrowedFd<'a>,
    /// By inode of the snapshot: the file in the staging directory that later names are linked
    /// from.
    originals: HashMap<u64, Identity>,
    /// Names that were made as hard links.
    pub linked: u64,
    /// Files that share their blocks with the snapshot's.
    pub reflinked: u64,
    /// Whether the content of a file was copied byte by byte.
    pub has_copied: bool,
    /// Symbolic links with [`MUNGED`] before their targets.
    pub munged_links: u64,
    /// Files that lost set-user-ID or set-group-ID bits.
    pub dropped_rights: u64,
}

impl<'a> EntryWriter<'a> {
    pub(crate) fn new(staging: BorrowedFd<'a>) -> Self {
        EntryWriter {
            staging,
            originals: HashMap::new(),
            linked: 0,
            reflinked: 0,
            has_copied: false,
            munged_links: 0,
            dropped_rights: 0,
        }
    }

    /// The file that later names of `inode` are linked from, if there is one.
    pub(crate) fn original(&self, inode: u64) -> Option<Identity> {
        self.originals.get(&inode).copied()
    }

    /// Makes an entry that is no directory. If it `is_group`, later names can be linked to it.
    pub(crate) fn write(
        &mut self,
        source: EntrySide,
        target: TargetName,
        is_group: bool,
    ) -> SysResult<()> {
        self.clear()?;
        let made = self.make(source).and_then(|()| {
            if is_group {
                self.keep_original(self.staging, NEW, Identity::of(source.stat).inode)?;
            }
            self.publish(target)
        });
        if made.is_err() {
            let _ = self.clear();
        }
        made
    }

    /// Makes a name of a file that has an [`original`](Self::original).
    ///
    /// # Errors
    /// `EMLINK` if that has as many links as the file system allows. It is no original any more
    /// then.
    pub(crate) fn link(&mut self, inode: u64, target: TargetName) -> SysResult<()> {
        self.clear()?;
        let original = original_name(inode);
        match linkat(self.staging, &original[..], self.staging, NEW, AtFlags::empty()) {
            Err(Errno::EMLINK) => {
                self.originals.remove(&inode);
                unlinkat(self.staging, &original[..], UnlinkatFlags::NoRemoveDir)?;
                return Err(Errno::EMLINK);
            }
            answer => answer?,
        }
        self.publish(target)?;
        self.linked += 1;
        Ok(())
    }

    /// Keeps a file as the original that later names of `inode` are linked from.
    ///
    /// # Errors
    /// If the kernel refuses the link. Then each name gets a file of its own, which the
    /// verification tells.
    pub(crate) fn keep_original(
        &mut self,
        directory: BorrowedFd,
        name: &CStr,
        inode: u64,
    ) -> SysResult<()> {
        let original = original_name(inode);
        match linkat(directory, name, self.staging, &original[..], AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK | Errno::EXDEV) => return Ok(()),
            Err(cause) => return Err(cause),
        }
        let name = std::ffi::CString::new(original).map_err(|_| Errno::EINVAL)?;
        let kept = Identity::of(&stat_entry(self.staging, &name)?);
        self.originals.insert(inode, kept);
        Ok(())
    }

    /// Forgets an original that is another file than was meant.
    pub(crate) fn discard_original(&mut self, inode: u64) -> SysResult<()> {
        self.originals.remove(&inode);
        unlinkat(self.staging, &original_name(inode)[..], UnlinkatFlags::NoRemoveDir)
    }

    /// Makes a directory that only this process may enter until it gets its attributes, in place of
    /// what is no directory where that is asked for. Returns which one it is: by the time that its
    /// name is used, another user may have put another directory there.
    pub(crate) fn make_directory(&self, target: TargetName) -> SysResult<Identity> {
        let TargetName { directory, name, placement } = target;
        self.clear()?;
        mkdirat(self.staging, NEW, Mode::S_IRWXU)?;
        let made = open_directory(self.staging, NEW)?;
        // A set-gid bit or a default ACL above may have opened it to others.
        fchmod(&made, Mode::S_IRWXU)?;
        let own = Identity::of(&fstat(&made)?);
        if placement == Placement::Replacing {
            unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?;
        }
        let published = rename_no_replace(self.staging, NEW, directory, name);
        if published.is_err() {
            let _ = self.clear();
        }
        published.map(|()| own)
    }

    fn make(&mut self, source: EntrySide) -> SysResult<()> {
        let EntrySide { directory, name, stat } = source;
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => return self.make_regular(source),
            SFlag::S_IFDIR => return Err(Errno::EISDIR),
            SFlag::S_IFLNK => {
                let link = readlinkat(directory, name)?;
                symlinkat(link.as_os_str(), self.staging, NEW)?;
                self.munged_links += u64::from(link.as_bytes().starts_with(MUNGED));
            }
            kind => {
                mknodat(self.staging, NEW, kind, Mode::from_bits_truncate(0o600), stat.st_rdev)?;
            }
        }
        let source = AttributeSource { stat, xattrs: XattrSource::OfEntry(directory, name) };
        tolerated(attributes::apply_to_entry(source, (self.staging, NEW))).map(drop)
    }

    fn make_regular(&mut self, source: EntrySide) -> SysResult<()> {
        let EntrySide { directory, name, stat } = source;
        let original = open_regular(directory, name, Identity::of(stat).inode)?;
        let opened = fstat(&original)?;
        if Identity::of(&opened) != Identity::of(stat) || opened.st_mode != stat.st_mode {
            return Err(Errno::ESTALE);
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let copy = openat(self.staging, NEW, flags, Mode::from_bits_truncate(0o600))?;
        let copy = File::from(copy);
        match copy_content(&original, &copy, opened.st_size)? {
            ContentCopy::Reflink => self.reflinked += 1,
            ContentCopy::Bytes => self.has_copied = true,
        }
        apply(AttributeSource { stat, xattrs: XattrSource::Of(original.as_fd()) }, copy.as_fd())?;
        self.drop_foreign_rights(stat, &copy)
    }

    /// Takes the set-user-ID and set-group-ID bits from a copy whose owner could not be kept: with
    /// them it would lend the rights of another user. No other user can reach it in the staging
    /// directory.
    fn drop_foreign_rights(&mut self, original: &FileStat, copy: &File) -> SysResult<()> {
        let made = fstat(copy)?;
        let mode = state_of(original).mode_for(made.st_uid, made.st_gid);
        if mode == original.st_mode {
            return Ok(());
        }
        fchmod(copy, Mode::from_bits_truncate(mode & 0o7777))?;
        let times = TimeSpec::new(original.st_mtime, original.st_mtime_nsec);
        futimens(copy, &TimeSpec::new(original.st_atime, original.st_atime_nsec), &times)?;
        self.dropped_rights += 1;
        Ok(())
    }

    /// Gives the entry that was made its name.
    fn publish(&self, target: TargetName) -> SysResult<()> {
        let TargetName { directory, name, placement } = target;
        match placement {
            Placement::Free => rename_no_replace(self.staging, NEW, directory, name),
            Placement::Replacing => {
                renameat(self.staging, NEW, directory, name)?;
                // If both names were links of one inode, the kernel has left them as they were.
                self.clear()
            }
        }
    }

    /// Removes what a failure has left of the entry that was being made.
    fn clear(&self) -> SysResult<()> {
        let remove = |flags| match unlinkat(self.staging, NEW, flags) {
            Err(Errno::ENOENT) => Ok(()),
            answer => answer,
        };
        match remove(UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => remove(UnlinkatFlags::RemoveDir),
            answer => answer,
        }
    }
}

/// Gives a file or directory the attributes of the original, as far as the file system and the
/// rights of this process allow. The verification tells what could not be kept.
pub(crate) fn apply(original: AttributeSource, copy: BorrowedFd) -> SysResult<()> {
    let stat: &FileStat = original.stat;
    if !tolerated(attributes::apply(original, copy))? {
        // The order of `attributes::apply` was broken off: what is left of it is tried alone.
        let _ = fchmod(copy, Mode::from_bits_truncate(stat.st_mode & 0o7777));
        let _ = futimens(
            copy,
            &TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
            &TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
        );
    }
    Ok(())
}

/// Whether the attributes were set, to the end of their order. False if the file system lacks some
/// of them, or room for one: ext4 calls that a lack of space, too. False as well if this process
/// may not set them. On a full disk, the content of the next file ends the restore.
fn tolerated(applied: SysResult<bool>) -> SysResult<bool> {
    match applied {
        Ok(_) => Ok(true),
        Err(
            Errno::EPERM
            | Errno::EACCES
            | Errno::EOPNOTSUPP
            | Errno::EINVAL
            | Errno::ENOSPC
            | Errno::E2BIG
            | Errno::ERANGE,
        ) => Ok(false),
        Err(cause) => Err(cause),
    }
}

fn original_name(inode: u64) -> Vec<u8> {
    format!("linked-{inode}").into_bytes()
}
