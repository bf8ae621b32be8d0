//! The way from a tree's root down to the current directory of a walk, by descriptors.
//!
//! A client can make a tree that is tens of thousands of levels deep: longer than any path, and
//! with more directories than a process may have open. So only the last `WINDOW` levels and the
//! root stay open, and a level that is only passed through is not opened at all.
//!
//! A level that only leads to others is opened for lookups, with `O_PATH`. Opening it for reading
//! costs several times as much under Landlock, which then checks each directory up to the root of
//! the file system, and nothing of an unchanged directory is read.
//!
//! A closed level is opened again when it is needed, through `..` of its child. A client may have
//! moved the child elsewhere, so the parent is opened only if it is the directory that the descent
//! came through. Otherwise the descent starts again from an open level above, name by name, and
//! checks each directory again. If that fails, the walk ends with `ESTALE`; it never continues in
//! another directory.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use crate::system::identity::{Identity, SysResult};
use crate::system::syscalls::{open_directory, open_for_lookups, place_above, return_to};
use crate::tell::error::Error;

/// How many of the deepest levels stay open besides the root. So two descents of one worker and the
/// other descriptors of a run fit into a limit of 64, and those of four workers into 256.
pub(crate) const WINDOW: usize = 16;

const PATH_MAX: usize = libc::PATH_MAX as usize;

/// At most this many closed levels are opened to give a subtree to another worker.
const NEAR: usize = 3;

/// An open directory that several workers may start from.
pub(crate) type DirectoryFd = Arc<OwnedFd>;

/// A position in a directory tree.
pub(crate) struct Descent {
    start: DescentStart,
    device: u64,
    levels: Vec<DescentLevel>,
}

/// Where a descent starts: an open directory and its name in messages.
#[derive(Clone)]
pub(crate) struct DescentStart {
    /// The tree's root, for messages only.
    pub root_path: Arc<Path>,
    /// The identity of the tree's root.
    pub root: Identity,
    /// The path from the root to `directory`, for messages only; empty at the root.
    pub relative: Vec<u8>,
    directory: OpenLevel,
}

/// A level that is open: for lookups of its names at least.
#[derive(Clone)]
struct OpenLevel {
    fd: DirectoryFd,
    /// Whether its entries can be read and its attributes changed, too.
    is_readable: bool,
}

impl OpenLevel {
    fn readable(directory: OwnedFd) -> Self {
        OpenLevel { fd: Arc::new(directory), is_readable: true }
    }

    fn for_lookups(directory: OwnedFd) -> Self {
        OpenLevel { fd: Arc::new(directory), is_readable: false }
    }
}

impl DescentStart {
    /// The root of a tree. It is opened anew, since a duplicate would share its read position.
    pub(crate) fn root(directory: impl AsFd, root_path: &Path) -> SysResult<Self> {
        let directory = open_directory(directory.as_fd(), c".")?;
        let root = Identity::of(&fstat(&directory)?);
        Ok(DescentStart {
            root_path: root_path.into(),
            root,
            relative: Vec::new(),
            directory: OpenLevel::readable(directory),
        })
    }

    /// The same start for another walk, with a read position of its own.
    pub(crate) fn anew(&self) -> SysResult<Self> {
        let directory = open_directory(self.directory.fd.as_fd(), c".")?;
        Ok(DescentStart { directory: OpenLevel::readable(directory), ..self.clone() })
    }
}

struct DescentLevel {
    name: CString,
    /// Known once the level has been opened.
    identity: Option<Identity>,
    open: Option<OpenLevel>,
}

impl Descent {
    pub(crate) fn new(start: DescentStart) -> SysResult<Self> {
        let device = Identity::of(&fstat(&start.directory.fd)?).device;
        Ok(Descent { start, device, levels: Vec::new() })
    }

    /// The current directory, open for reading.
    ///
    /// # Errors
    /// `ESTALE` if a directory on the way to it was moved or removed; the error of opening a level.
    pub(crate) fn directory(&mut self) -> SysResult<DirectoryFd> {
        let depth = self.levels.len();
        let open = self.open_at(depth)?;
        if open.is_readable {
            return Ok(open.fd);
        }
        let open = OpenLevel::readable(open_directory(open.fd.as_fd(), c".")?);
        match self.levels.last_mut() {
            Some(level) => level.open = Some(open.clone()),
            None => self.start.directory = open.clone(),
        }
        Ok(open.fd)
    }

    /// The current directory, open for lookups: names in it can be opened, inspected, linked and
    /// removed.
    ///
    /// # Errors
    /// As [`directory`](Self::directory).
    pub(crate) fn lookup_directory(&mut self) -> SysResult<DirectoryFd> {
        self.open_at(self.levels.len()).map(|open| open.fd)
    }

    /// The directory `depth` levels below the start, opened for lookups if it is closed.
    fn open_at(&mut self, depth: usize) -> SysResult<OpenLevel> {
        let lowest = self.levels[..depth].iter().rposition(|level| level.open.is_some());
        let mut open = match lowest.and_then(|index| self.levels[index].open.as_ref()) {
            Some(open) => open.clone(),
            None => self.start.directory.clone(),
        };
        for index in lowest.map_or(0, |index| index + 1)..depth {
            let level = &self.levels[index];
            let opened = open_for_lookups(open.fd.as_fd(), &level.name)?;
            let identity = Identity::of(&fstat(&opened)?);
            if identity.device != self.device {
                return Err(Errno::EXDEV);
            }
            if level.identity.is_some_and(|known| known != identity) {
                return Err(Errno::ESTALE);
            }
            open = OpenLevel::for_lookups(opened);
            self.levels[index].identity = Some(identity);
            // Levels far above may stay closed: the way back opens them through `..`.
            if index + WINDOW >= self.levels.len() {
                self.levels[index].open = Some(open.clone());
            }
        }
        Ok(open)
    }

    /// Whether `directory` still lies in the tree: whether its parents lead up to the root.
    pub(crate) fn holds(&self, directory: BorrowedFd) -> bool {
        let Ok(mut current) = open_directory(directory, c".") else { return false };
        let mut identity = fstat(&current).map(|stat| Identity::of(&stat)).ok();
        while identity != Some(self.start.root) {
            let Ok(parent) = place_above(current.as_fd()) else { return false };
            let above = fstat(&parent).map(|stat| Identity::of(&stat)).ok();
            if above == identity || above.is_none() {
                return false;
            }
            (current, identity) = (parent, above);
        }
        true
    }

    /// Whether the inode of `stat` is on the tree's own file system.
    pub(crate) fn is_on_same_device(&self, stat: &FileStat) -> bool {
        Identity::of(stat).device == self.device
    }

    /// The device of the tree's own file system.
    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    /// Levels between the start and the current directory.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Enters `name`, opened for reading, and returns its state at that moment.
    ///
    /// # Errors
    /// `EXDEV` if it is on another file system or mount; `ELOOP` or `ENOTDIR` if it is no
    /// directory.
    pub(crate) fn enter(&mut self, name: &CStr) -> SysResult<FileStat> {
        let parent = self.lookup_directory()?;
        self.enter_open(name, OpenLevel::readable(open_directory(parent.as_fd(), name)?))
    }

    /// Enters `name`, opened for lookups, and returns its state at that moment.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub(crate) fn enter_for_lookups(&mut self, name: &CStr) -> SysResult<FileStat> {
        let parent = self.lookup_directory()?;
        self.enter_open(name, OpenLevel::for_lookups(open_for_lookups(parent.as_fd(), name)?))
    }

    fn enter_open(&mut self, name: &CStr, open: OpenLevel) -> SysResult<FileStat> {
        let stat = fstat(&open.fd)?;
        // A btrfs subvolume is no mount, but no link can cross its border.
        if Identity::of(&stat).device != self.device {
            return Err(Errno::EXDEV);
        }
        self.push(name, Some(Identity::of(&stat)), Some(open));
        Ok(stat)
    }

    /// Enters `name` without opening it.
    pub(crate) fn pass(&mut self, name: &CStr) {
        self.push(name, None, None);
    }

    fn push(&mut self, name: &CStr, identity: Option<Identity>, open: Option<OpenLevel>) {
        if let Some(beyond) = self.levels.len().checked_sub(WINDOW) {
            self.levels[beyond].open = None;
        }
        self.levels.push(DescentLevel { name: name.to_owned(), identity, open });
    }

    /// Goes up one level and returns the name of the directory left. At the start it does nothing.
    pub(crate) fn leave(&mut self) -> CString {
        let Some(DescentLevel { name, open, .. }) = self.levels.pop() else {
            return CString::default();
        };
        if let (Some(parent), Some(child)) = (self.levels.last_mut(), open)
            && parent.open.is_none()
            && let Some(expected) = parent.identity
            && let Ok(opened) = return_to(child.fd.as_fd(), expected)
        {
            parent.open = Some(OpenLevel::for_lookups(opened));
        }
        name
    }

    /// The uppermost level that is `fit` to start another descent from, among the first few and the
    /// last few. The levels in between are closed: to open them one by one would cost more in a
    /// deep tree than sharing gains.
    pub(crate) fn near_levels(&self, fit: impl Fn(usize) -> bool) -> Option<usize> {
        let depth = self.levels.len();
        let bottom = depth.saturating_sub(WINDOW).max(NEAR);
        (0..NEAR.min(depth + 1))
            .chain(bottom..depth + 1)
            .find(|depth| self.is_near(*depth) && fit(*depth))
    }

    /// Whether `depth` levels below the start can be reached with a few calls.
    pub(crate) fn is_near(&self, depth: usize) -> bool {
        depth < NEAR || self.levels[depth - NEAR..depth].iter().any(|level| level.open.is_some())
    }

    /// Where another descent can start: at `depth` levels below this one's start.
    pub(crate) fn start_at(&mut self, depth: usize) -> SysResult<DescentStart> {
        let directory = self.open_at(depth)?;
        let relative = self.path_to(depth, None);
        let DescentStart { root_path, root, .. } = &self.start;
        Ok(DescentStart { root_path: root_path.clone(), root: *root, relative, directory })
    }

    /// The path from the tree's root to the current directory or to `name` in it.
    pub(crate) fn relative_path(&self, name: Option<&CStr>) -> Vec<u8> {
        self.path_to(self.levels.len(), name)
    }

    /// The path from the tree's root to the current directory, unless it is too long to be used as
    /// a path. A client can nest directories so deeply that paths would take most of the memory.
    pub(crate) fn usable_path(&self) -> Option<Vec<u8>> {
        let mut bytes = self.start.relative.len();
        let is_usable = self.levels.iter().all(|level| {
            bytes += level.name.to_bytes_with_nul().len();
            bytes < PATH_MAX
        });
        is_usable.then(|| self.relative_path(None))
    }

    /// [`relative_path`](Self::relative_path) for a line of output. A path that is too long to be
    /// used as one is shortened in the middle, so that many lines take no more than their number.
    pub(crate) fn listed_path(&self, name: Option<&CStr>) -> Vec<u8> {
        if self.usable_path().is_some() {
            return self.relative_path(name);
        }
        let first = self.path_to(self.levels.len().min(1), None);
        let last = name.or_else(|| self.levels.last().map(|level| level.name.as_c_str()));
        let left_out = format!("({} levels)", self.levels.len());
        let last = last.map(CStr::to_bytes).unwrap_or_default();
        [first.as_slice(), left_out.as_bytes(), last].join(&b'/')
    }

    fn path_to(&self, depth: usize, name: Option<&CStr>) -> Vec<u8> {
        let start = Some(&self.start.relative[..]).filter(|relative| !relative.is_empty());
        let levels = self.levels[..depth].iter().map(|level| level.name.to_bytes());
        let names: Vec<&[u8]> =
            start.into_iter().chain(levels).chain(name.map(CStr::to_bytes)).collect();
        names.join(&b'/')
    }

    /// The failure of `operation` on the current directory or on `name` in it.
    pub(crate) fn error(
        &self,
        operation: &'static str,
        name: Option<&CStr>,
        cause: Errno,
    ) -> Error {
        Error::io_bytes(operation, &self.path(name), cause)
    }

    /// The whole path of the current directory or of `name` in it, for messages.
    pub(crate) fn path(&self, name: Option<&CStr>) -> Vec<u8> {
        let mut path = self.start.root_path.as_os_str().as_bytes().to_vec();
        path.push(b'/');
        path.extend(self.relative_path(name));
        path
    }
}
