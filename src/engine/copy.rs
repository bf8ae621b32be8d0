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

use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use crate::engine::index::{Stamp, now_ns};
use crate::engine::{attributes, baseline};
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
        CopyReason::PartialDir => "it is in a partial directory, where rsync goes on in place",
        CopyReason::Refused(Errno::EMLINK) => "it has as many links as the file system allows",
        CopyReason::Refused(_) => {
            "it is immutable or append-only, or fs.protected_hardlinks guards it"
        }
    }
}

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
fn is_same_content(pair: CopiedPair, live: &FileStat) -> SysResult<bool> {
    match SFlag::from_bits_truncate(live.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => {
            let (original, copy) =
                (open_regular(pair.live, pair.name)?, open_regular(pair.snapshot, pair.name)?);
            let is_meant = |file: &File, inode| {
                let stat = fstat(file)?;
                let is_regular = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
                Ok::<_, Errno>(is_regular && Identity::of(&stat).inode == inode)
            };
            let is_still = || fstat(&original).map(|now| Stamp::of(&now) == Stamp::of(live));
            Ok(is_meant(&original, pair.inodes.live)?
                && is_meant(&copy, pair.inodes.copy)?
                && have_same_data(&original, &copy, live.st_size)?
                && is_still()?)
        }
        SFlag::S_IFLNK => {
            Ok(readlinkat(pair.live, pair.name)? == readlinkat(pair.snapshot, pair.name)?)
        }
        // Other kinds have no content: mode and device number have been compared.
        _ => Ok(true),
    }
}

/// Whether two files of `size_bytes` hold equal bytes. Where both have holes nothing is read.
fn have_same_data(a: &File, b: &File, size_bytes: i64) -> SysResult<bool> {
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

fn xattrs_digest(directory: BorrowedFd, name: &CStr) -> Option<[u8; 16]> {
    baseline::xattrs(directory, name).digest()
}

/// All copies of one snapshot.
pub(crate) type Copies = BTreeMap<InodePair, Copied>;

fn mtime_ns(stat: &FileStat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
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
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => self.copy_regular(live, name, &original, copy)?,
            SFlag::S_IFDIR => return Err(Errno::EISDIR),
            SFlag::S_IFLNK => symlinkat(readlinkat(live, name)?.as_os_str(), copy, name)?,
            kind => {
                match mknodat(copy, name, kind, Mode::from_bits_truncate(0o600), stat.st_rdev) {
                    Err(Errno::EPERM) => {
                        stand_in(&stat, copy, name)?;
                        self.attributes_lost += 1;
                    }
                    answer => answer?,
                }
            }
        }
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            self.attributes_lost += u64::from(!apply_by_name(&stat, copy, name)?);
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
        let source = open_regular(live, name)?;
        let opened = fstat(&source)?;
        if Identity::of(&opened) != Identity::of(stat) || opened.st_mode != stat.st_mode {
            return Err(Errno::ESTALE);
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let originals = self.originals()?;
        let target =
            File::from(openat(originals, &original[..], flags, Mode::from_bits_truncate(0o600))?);
        let filled = copy_content(&source, &target, stat.st_size)
            .and_then(|()| attributes::apply(source.as_fd(), stat, target.as_fd()));
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

/// Opens an entry that was a regular file a moment ago. If it is a pipe by now, O_NONBLOCK keeps
/// this from waiting for a writer. Without O_NOATIME, reading would look like access by a client;
/// only an owner may set it.
fn open_regular(directory: BorrowedFd, name: &CStr) -> SysResult<File> {
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

/// Copies the first `size_bytes`, keeping holes, and no more: a client may be appending.
fn copy_content(source: &File, target: &File, size_bytes: i64) -> SysResult<()> {
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

/// The next stretch of data at or after `position`; all the rest if the file system has no
/// SEEK_DATA.
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

/// Applies owner, mode and times to an entry that must not be opened; whether the owner was kept.
fn apply_by_name(stat: &FileStat, copy: BorrowedFd, name: &CStr) -> SysResult<bool> {
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
