//! Compares an entry of a snapshot with the one at the destination, in all that a restore keeps.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::stat::{FileStat, fstat};
use rustix::fs::{Advice, fadvise};

use crate::decide::restore_step::{EntryDifference, EntryState, OwnerRights};
use crate::engine::attributes::{XattrSource, xattrs_differ};
use crate::engine::copied::{have_same_data, mtime_ns, open_regular};
use crate::system::identity::{Identity, SysResult};
use crate::system::syscalls::{is_privileged, may_give_to};

/// A name in an open directory, with its state.
#[derive(Clone, Copy)]
pub(crate) struct EntrySide<'a> {
    pub directory: BorrowedFd<'a>,
    pub name: &'a CStr,
    pub stat: &'a FileStat,
}

impl<'a> EntrySide<'a> {
    pub(crate) fn xattrs(self) -> XattrSource<'a> {
        XattrSource::OfEntry(self.directory, self.name)
    }
}

/// How much of an entry is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// All but the content of regular files.
    Attributes,
    /// The content, too.
    Content,
    /// The content as the disk has it, not as this machine remembers it.
    ContentOnDisk,
}

/// On which side a comparison failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompareFailure {
    Source(Errno),
    Destination(Errno),
}

pub(crate) fn state_of(stat: &FileStat) -> EntryState {
    EntryState {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size_bytes: stat.st_size,
        device: stat.st_rdev,
        mtime_ns: mtime_ns(stat),
    }
}

/// The first difference in type, owner, mode, size, time and device.
pub(crate) fn state_difference(source: &FileStat, copy: &FileStat) -> Option<EntryDifference> {
    let rights = OwnerRights { user: is_privileged(), group: may_give_to(source.st_gid) };
    state_of(source).difference(&state_of(copy), rights)
}

/// The first difference of an entry that is no directory; `None` if both are equal, or are links of
/// one inode.
pub(crate) fn difference(
    source: EntrySide,
    copy: EntrySide,
    depth: Depth,
) -> Result<Option<EntryDifference>, CompareFailure> {
    if Identity::of(source.stat) == Identity::of(copy.stat) {
        return Ok(None);
    }
    if let Some(difference) = state_difference(source.stat, copy.stat) {
        return Ok(Some(difference));
    }
    let of_source = |side: EntrySide| readlinkat(side.directory, side.name);
    if state_of(source.stat).is_link() {
        let target = of_source(source).map_err(CompareFailure::Source)?;
        if target != of_source(copy).map_err(CompareFailure::Destination)? {
            return Ok(Some(EntryDifference::Content));
        }
    }
    if xattrs_differ(source.xattrs(), copy.xattrs()).map_err(CompareFailure::Destination)? {
        return Ok(Some(EntryDifference::Xattrs));
    }
    if depth == Depth::Attributes || !state_of(source.stat).is_regular() {
        return Ok(None);
    }
    let differ = contents_differ(source, copy, depth)?;
    Ok(differ.then_some(EntryDifference::Content))
}

/// Whether two regular files of the same size hold different content.
pub(crate) fn contents_differ(
    source: EntrySide,
    copy: EntrySide,
    depth: Depth,
) -> Result<bool, CompareFailure> {
    let original = open_side(source).map_err(CompareFailure::Source)?;
    let copy_file = open_side(copy).map_err(CompareFailure::Destination)?;
    if depth == Depth::ContentOnDisk {
        forget_cached(&copy_file);
    }
    match have_same_data(&original, &copy_file, source.stat.st_size) {
        Ok(are_equal) => Ok(!are_equal),
        // A file that has become shorter ends earlier than its size.
        Err(cause) if has_size(&original, source.stat) => Err(CompareFailure::Destination(cause)),
        Err(cause) => Err(CompareFailure::Source(cause)),
    }
}

/// Opens a regular file for reading, if its name still stands for it.
fn open_side(side: EntrySide) -> SysResult<File> {
    let meant = Identity::of(side.stat);
    let file = open_regular(side.directory, side.name, meant.inode)?;
    if Identity::of(&fstat(&file)?) == meant { Ok(file) } else { Err(Errno::ESTALE) }
}

/// Drops what this machine remembers of the file's content, so that reading it asks the disk. The
/// file system was synced before. A file system that cannot do this reads what it remembers.
fn forget_cached(file: &File) {
    let _ = fadvise(file.as_fd(), 0, None, Advice::DontNeed);
}

fn has_size(file: &File, stat: &FileStat) -> bool {
    fstat(file).is_ok_and(|now| now.st_size == stat.st_size)
}
