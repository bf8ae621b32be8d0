//! Writes small files so that a crash leaves either the old text or the new one.
//!
//! The order: the text is written under a temporary name, the file is synced, renamed over the old
//! one, and the directory is synced. At every point there is one whole text under the name. In
//! `.rsyncd-snapshot` itself no file may be opened for writing
//! ([`confine`](crate::module::confine)), so the temporary file is made in `drafts` there.
//!
//! A sync waits for the disk; most journals commit everything at once. So what is independent is
//! renamed first and synced then, one after the other: the first sync does the work of all.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use crate::engine::listing::Listing;
use crate::store::layout::Subdir;
use crate::system::identity::SysResult;
use crate::system::small_file;
use crate::system::syscalls::open_directory;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// The end of every temporary name, by which leftovers are recognised.
pub(crate) const TEMPORARY: &str = ".tmp";

/// More than any of our files holds; a larger one is not ours.
const MAX_BYTES: u64 = 64 << 20;

/// A directory of ours, with its path for messages.
#[derive(Clone, Copy)]
pub struct Dir<'a> {
    /// The open directory.
    pub directory: BorrowedFd<'a>,
    /// Its path.
    pub path: &'a Path,
}

/// Reads the text file `name`; `None` if it does not exist.
pub(crate) fn read(dir: Dir, name: &str) -> Result<Option<String>> {
    let path = dir.path.join(name);
    let Some(bytes) = read_bytes(dir, name, MAX_BYTES)? else { return Ok(None) };
    let damaged = |_| Error::Damaged { path: escape_path(&path), problem: "is not text".into() };
    String::from_utf8(bytes).map(Some).map_err(damaged)
}

/// Reads the first `max_bytes` of the file `name`; `None` if it does not exist.
pub(crate) fn read_bytes(dir: Dir, name: &str, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open_to_read(dir, name)? else { return Ok(None) };
    let bytes = small_file::read_opened(&file, max_bytes);
    bytes.map(Some).map_err(|cause| Error::io("read", &dir.path.join(name), cause))
}

/// Opens the file `name`; `None` if it does not exist.
pub(crate) fn open_to_read(dir: Dir, name: &str) -> Result<Option<File>> {
    // O_NONBLOCK: a FIFO of that name must not block this process.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    match openat(dir.directory, c_name(name).as_c_str(), flags, Mode::empty()) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::ENOENT) => Ok(None),
        Err(cause) => Err(Error::io("read", &dir.path.join(name), cause)),
    }
}

/// Replaces the file `name`, durably.
pub(crate) fn write(dir: Dir, name: &str, text: &str) -> Result<()> {
    write_before_sync(dir, name, text)?;
    sync(dir)
}

/// [`write()`] for a caller who is about to [`sync`] the directory. A crash before that leaves the
/// old text or the new one.
pub(crate) fn write_before_sync(dir: Dir, name: &str, text: &str) -> Result<()> {
    let draft = Draft::write(dir, dir, name, text.as_bytes())?;
    draft.sync()?;
    draft.publish()
}

/// Makes the names in a directory durable.
pub(crate) fn sync(dir: Dir) -> Result<()> {
    fsync(dir.directory).map_err(|cause| Error::io("sync", dir.path, cause))
}

/// [`write()`] for a file that does not exist yet, with one sync of the disk instead of two: it
/// gets its name before it is synced. A crash of the machine before this function returns may leave
/// an empty file, which the reader has to take for none.
pub(crate) fn write_new(dir: Dir, name: &str, text: &str) -> Result<()> {
    let draft = Draft::write(dir, dir, name, text.as_bytes())?;
    draft.publish()?;
    draft.sync()?;
    sync(dir)
}

/// [`write()`] for a file of the private directory itself. The rename takes the text from one
/// directory to the other as a whole; a draft that a crash leaves is written over.
pub(crate) fn write_drafted(private: Dir, name: &str, text: &str) -> Result<()> {
    write_drafted_after(private, name, text, || Ok(()))
}

/// [`write_drafted`] of a text that is true only once `first` has made other files durable. The
/// text is on disk, though not under its name, before `first` is called.
///
/// # Errors
/// That of `first`, which is called in any case.
pub(crate) fn write_drafted_after(
    private: Dir,
    name: &str,
    text: &str,
    first: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let path = private.path.join(Subdir::Drafts.name());
    let drafts = match open_drafts(private.directory) {
        Ok(drafts) => drafts,
        Err(cause) => return first().and(Err(Error::io("open", &path, cause))),
    };
    let drafts = Dir { directory: drafts.as_fd(), path: &path };
    let draft = Draft::write(drafts, private, name, text.as_bytes());
    let draft = draft.and_then(|draft| draft.sync().map(|()| draft));
    first()?;
    draft?.publish()?;
    sync(private)
}

/// Makes `drafts` if an earlier version made the root.
fn open_drafts(private: BorrowedFd) -> SysResult<OwnedFd> {
    match open_directory(private, &c_name(Subdir::Drafts.name())) {
        Err(Errno::ENOENT) => {
            mkdirat(private, c_name(Subdir::Drafts.name()).as_c_str(), Mode::S_IRWXU)?;
            open_directory(private, &c_name(Subdir::Drafts.name()))
        }
        answer => answer,
    }
}

/// Replaces the file `name` for a caller who is about to sync the whole file system.
pub(crate) fn write_before_syncfs(dir: Dir, name: &str, content: &[u8]) -> Result<()> {
    Draft::write(dir, dir, name, content)?.publish()
}

/// [`write_before_syncfs`] with content that `write` makes piece by piece. If `write` returns
/// false, so does this, and the file `name` stays as it is.
pub(crate) fn write_before_syncfs_by(
    dir: Dir,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<bool>,
) -> Result<bool> {
    let mut draft = Draft::create(dir, dir, name)?;
    let is_written = write(&mut draft.file).map_err(|cause| draft.failed(cause))?;
    match is_written {
        true => draft.publish()?,
        false => draft.discard()?,
    }
    Ok(is_written)
}

/// The new text of a file, under a temporary name.
struct Draft<'a> {
    file: File,
    drafts: Dir<'a>,
    dir: Dir<'a>,
    name: &'a str,
}

impl<'a> Draft<'a> {
    fn write(drafts: Dir<'a>, dir: Dir<'a>, name: &'a str, content: &[u8]) -> Result<Self> {
        let mut draft = Draft::create(drafts, dir, name)?;
        draft.file.write_all(content).map_err(|cause| draft.failed(cause))?;
        Ok(draft)
    }

    fn create(drafts: Dir<'a>, dir: Dir<'a>, name: &'a str) -> Result<Self> {
        let failed = |cause: io::Error| Error::io("write", &dir.path.join(name), cause);
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_TRUNC
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        let opened = openat(drafts.directory, temporary(name).as_c_str(), flags, mode);
        let file = File::from(opened.map_err(|cause| failed(cause.into()))?);
        Ok(Draft { file, drafts, dir, name })
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|cause| self.failed(cause))
    }

    /// Gives the text its name.
    fn publish(&self) -> Result<()> {
        let (from, to) = (temporary(self.name), c_name(self.name));
        renameat(self.drafts.directory, from.as_c_str(), self.dir.directory, to.as_c_str())
            .map_err(|cause| self.failed(cause.into()))
    }

    fn discard(&self) -> Result<()> {
        let name = temporary(self.name);
        unlinkat(self.drafts.directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir)
            .map_err(|cause| self.failed(cause.into()))
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::io("write", &self.dir.path.join(self.name), cause)
    }
}

fn temporary(name: &str) -> CString {
    c_name(&format!("{name}{TEMPORARY}"))
}

/// A name as the system calls take it. Names that this program makes never hold a NUL, and names
/// from directory listings cannot.
pub(crate) fn c_name(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}

/// The inverse of [`c_name`]; `None` if the name is not UTF-8, and so not one that this program
/// makes.
pub(crate) fn text_name(name: &CStr) -> Option<&str> {
    name.to_str().ok()
}

/// The names of a directory's entries, as far as they are UTF-8 text.
pub(crate) fn names_in(dir: Dir) -> Result<Vec<String>> {
    let listing =
        Listing::read(dir.directory).map_err(|cause| Error::io("read", dir.path, cause))?;
    Ok(listing
        .entries()
        .iter()
        .filter_map(|entry| text_name(listing.name(entry)))
        .map(str::to_string)
        .collect())
}

/// Removes one file of ours; false if it was gone already.
pub(crate) fn remove_file(dir: Dir, name: &str) -> Result<bool> {
    match unlinkat(dir.directory.as_fd(), c_name(name).as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(cause) => Err(Error::io("remove", &dir.path.join(name), cause)),
    }
}

/// [`Dir`] that owns its descriptor and path.
pub struct OwnedDir {
    pub(crate) directory: OwnedFd,
    pub(crate) path: PathBuf,
}

impl OwnedDir {
    /// A directory of ours that is outside the root.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(OwnedDir { directory: open_path(path)?, path: path.to_path_buf() })
    }

    /// The borrowed form, which the functions here take.
    pub fn dir(&self) -> Dir<'_> {
        Dir { directory: self.directory.as_fd(), path: &self.path }
    }
}

pub(crate) fn open_path(path: &Path) -> Result<OwnedFd> {
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path);
    opened.map(OwnedFd::from).map_err(|cause| Error::io("open the directory", path, cause))
}

/// Opens a directory, also through a symbolic link. Something else in its place is an error, and a
/// pipe is not waited for.
pub(crate) fn open_followed(path: &Path) -> std::io::Result<fs::File> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)
}
