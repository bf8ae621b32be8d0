//! Removes whole trees: retired snapshots, and the contents of staging.
//!
//! The trees are in a directory that only this program may enter, but their content came from a
//! client: single names by descriptor, no symbolic link is followed, no mount is crossed.
//!
//! Several workers share the trees. If a worker gave a part of a directory away, it does not remove
//! that directory. When all workers have finished, one walk removes what is left, little more than
//! those directories. That walk keeps its first error and continues, because each removed entry
//! frees space. A run that is killed leaves less for the next one.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::engine::children::{LEVEL_BYTES, PendingChildren};
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::frames::{Frame, FrameStack, Step};
use crate::engine::listing::Listing;
use crate::engine::pool::{self, Pool};
use crate::system::identity::SysResult;
use crate::system::syscalls::{is_privileged, stat_entry};
use crate::tell::error::{Error, Result};
use crate::tell::progress;

/// A tree that could not be removed completely.
#[derive(Debug)]
pub struct Remains {
    pub name: CString,
    /// The first error.
    pub error: Error,
}

/// Removes `names` and everything below them from `parent`. Returns the number of entries removed,
/// and the trees that could not be removed completely.
///
/// # Errors
/// If `parent` cannot be opened.
pub fn remove_trees(
    parent: BorrowedFd,
    parent_path: &Path,
    names: &[CString],
) -> Result<(u64, Vec<Remains>)> {
    if names.is_empty() {
        return Ok((0, Vec::new()));
    }
    let failed = |cause| Error::io("open", parent_path, cause);
    let start = DescentStart::root(parent, parent_path).map_err(failed)?;
    let _phase = progress::begin("removing", None);
    let mut removed = remove_shared(&start, names);
    let mut remaining = Vec::new();
    for name in names {
        if matches!(stat_entry(parent, name), Err(Errno::ENOENT)) {
            continue;
        }
        match remove_alone(start.clone(), name) {
            Ok(entries) => removed += entries,
            Err(error) => remaining.push(Remains { name: name.clone(), error }),
        }
    }
    Ok((removed, remaining))
}

/// Removes what several workers can remove; nothing if there is only one.
fn remove_shared(start: &DescentStart, names: &[CString]) -> u64 {
    let workers = pool::workers(None);
    if workers == 1 {
        return 0;
    }
    let jobs = names
        .iter()
        .rev()
        .map(|name| RemoveJob { start: start.clone(), name: name.clone() })
        .collect();
    let work = |job, pool: &Pool<RemoveJob>| remove_part(job, Some(pool)).map_or(0, |part| part.0);
    Pool::run(workers, jobs, work).into_iter().sum()
}

/// Removes the tree `name` with one thread, for a caller that is a worker itself.
pub(crate) fn remove_alone(parent: DescentStart, name: &CStr) -> Result<u64> {
    let path = parent.root_path.clone();
    let (removed, first_error) =
        remove_part(RemoveJob { start: parent, name: name.to_owned() }, None)
            .map_err(|cause| Error::io("open", &path, cause))?;
    first_error.map_or(Ok(removed), Err)
}

/// The subtree `name` in `start`.
struct RemoveJob {
    start: DescentStart,
    name: CString,
}

/// Removes a subtree except for the parts that it gives away. Returns the number of entries removed
/// and the first error.
fn remove_part(job: RemoveJob, pool: Option<&Pool<RemoveJob>>) -> SysResult<(u64, Option<Error>)> {
    let mut removal = Removal {
        descent: Descent::new(job.start)?,
        // The first frame is the directory that the job names, one level below the start.
        frames: FrameStack::new(1),
        listing: Listing::default(),
        removed: 0,
        first_error: None,
        pool,
    };
    removal.enter_or_remove(&job.name);
    while let Some(step) = removal.frames.next_step() {
        match step {
            Step::Enter(name, ()) => {
                removal.share();
                removal.enter_or_remove(&name);
            }
            Step::ReadAgain(rest) => removal.read_again(rest),
            Step::Leave => removal.remove_directory(),
        }
    }
    Ok((removal.removed, removal.first_error))
}

struct Removal<'a> {
    descent: Descent,
    frames: FrameStack<RemoveFrame>,
    listing: Listing,
    removed: u64,
    first_error: Option<Error>,
    pool: Option<&'a Pool<RemoveJob>>,
}

/// An open directory.
struct RemoveFrame {
    /// Its subdirectories that are still to be removed.
    pending: PendingChildren<()>,
    /// Whether another worker has got one of them.
    is_shared: bool,
}

impl Frame for RemoveFrame {
    type Directory = ();

    fn pending(&self) -> &PendingChildren<()> {
        &self.pending
    }

    fn pending_mut(&mut self) -> &mut PendingChildren<()> {
        &mut self.pending
    }
}

impl Removal<'_> {
    /// Gives a subtree away if a worker waits for one: the uppermost that can be reached cheaply.
    fn share(&mut self) {
        let Some(pool) = self.pool.filter(|pool| pool.has_idle_worker()) else { return };
        let Some(depth) = self.frames.depth_to_share(&self.descent, |_, _| true) else { return };
        let Ok(start) = self.descent.start_at(depth) else { return };
        let frames = self.frames.down_to(depth);
        if let Some((name, ())) = frames.last_mut().and_then(|frame| frame.pending.pop()) {
            // From here up, each directory has now given a part away. If one had done so before,
            // those above it are marked already.
            let above = frames.iter_mut().rev().take_while(|frame| !frame.is_shared);
            above.for_each(|frame| frame.is_shared = true);
            pool.give(RemoveJob { start, name });
        }
    }

    /// Enters a directory and removes the files in it; unlinks anything else.
    fn enter_or_remove(&mut self, name: &CStr) {
        match self.enter(name) {
            Ok(()) => self.empty_directory(),
            Err(Errno::ENOTDIR | Errno::ELOOP) => self.remove_file(name),
            Err(Errno::ENOENT) => {}
            Err(cause) => self.keep_error("open the directory", Some(name), cause),
        }
    }

    fn enter(&mut self, name: &CStr) -> SysResult<()> {
        let stat = match self.descent.enter(name) {
            // A user without privileges owns the tree and gives itself access.
            Err(Errno::EACCES) if !is_privileged() => {
                let parent = self.descent.directory()?;
                fchmodat(&parent, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
                self.descent.enter(name)?
            }
            answer => answer?,
        };
        if !is_privileged() && stat.st_mode & 0o700 != 0o700 {
            fchmod(self.descent.directory()?, Mode::S_IRWXU)?;
        }
        Ok(())
    }

    /// Removes all but the subdirectories of the current directory; these become pending.
    fn empty_directory(&mut self) {
        let mut pending = PendingChildren::new(LEVEL_BYTES);
        self.remove_files(&mut pending);
        self.frames.push(RemoveFrame { pending, is_shared: false });
    }

    /// Goes on with the subdirectories of the current directory that did not fit into memory.
    fn read_again(&mut self, mut pending: PendingChildren<()>) {
        let Some(frame) = self.frames.pop() else { return };
        match self.descent.directory().and_then(|directory| Listing::rewind(directory.as_fd())) {
            Ok(()) => self.remove_files(&mut pending),
            Err(cause) => self.keep_error("read", None, cause),
        }
        self.frames.push(RemoveFrame { pending, ..frame });
    }

    fn remove_files(&mut self, pending: &mut PendingChildren<()>) {
        let mut listing = std::mem::take(&mut self.listing);
        if let Err(cause) = self.remove_listed(&mut listing, pending) {
            self.keep_error("read", None, cause);
        }
        self.listing = listing;
        pending.ready();
    }

    fn remove_listed(
        &mut self,
        listing: &mut Listing,
        pending: &mut PendingChildren<()>,
    ) -> SysResult<()> {
        let directory = self.descent.directory()?;
        listing.read_first(directory.as_fd())?;
        loop {
            if self.pool.is_some() {
                progress::add(listing.entries().len() as u64);
            }
            listing.sort_by_inode();
            for entry in listing.entries() {
                let name = listing.name(entry);
                match entry.is_directory {
                    true => pending.push(name, ()),
                    false => self.unlink_file(directory.as_fd(), name),
                }
            }
            if !listing.read_next(directory.as_fd())? {
                return Ok(());
            }
        }
    }

    fn remove_file(&mut self, name: &CStr) {
        match self.descent.directory() {
            Ok(directory) => self.unlink_file(directory.as_fd(), name),
            Err(cause) => self.keep_error("return to", None, cause),
        }
    }

    fn unlink_file(&mut self, directory: BorrowedFd, name: &CStr) {
        match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => self.removed += 1,
            Err(Errno::ENOENT) => {}
            Err(cause) => self.keep_error("remove", Some(name), cause),
        }
    }

    /// Leaves the current directory and removes it, unless another worker has got a part of it.
    fn remove_directory(&mut self) {
        let is_shared = self.frames.pop().is_some_and(|frame| frame.is_shared);
        let name = self.descent.leave();
        if is_shared {
            return;
        }
        let unlinked = self
            .descent
            .directory()
            .and_then(|parent| unlinkat(&parent, &*name, UnlinkatFlags::RemoveDir));
        match unlinked {
            Ok(()) => self.removed += 1,
            Err(Errno::ENOENT) => {}
            Err(cause) => self.keep_error("remove the directory", Some(&name), cause),
        }
    }

    /// Keeps the first error only: ENOTEMPTY of a directory follows from an earlier one.
    fn keep_error(&mut self, operation: &'static str, name: Option<&CStr>, cause: Errno) {
        if self.first_error.is_none() {
            self.first_error = Some(self.descent.error(operation, name, cause));
        }
    }
}
