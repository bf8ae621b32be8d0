//! Whether a push can write in place into a file that has other names: a look at the live tree,
//! within bounds.
//!
//! What a snapshot shares has more than one link, and the kernel counts the links. So where no file
//! below a push's destination has more than one, the push can rewrite no snapshot, whatever is
//! remembered of snapshots and whatever has been forgotten. The reverse does not hold: the other
//! name may be the client's own.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use crate::decide::partial_dirs::{Leftover, PartialDirs};
use crate::engine::children::{Budget, LEVEL_BYTES, PendingChildren};
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::listing::Listing;
use crate::system::identity::SysResult;
use crate::system::syscalls::{is_gone, stat_entry};

/// Which files a push could write into.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WritableFiles<'a> {
    /// Every file.
    Any,
    /// Those in partial directories.
    InPartialDirs(&'a PartialDirs),
}

/// Looks at the files below `destination` in the module, until one is found or the `deadline` is
/// over. The whole module is looked at where the way to the destination is not plain; without a
/// destination, too.
pub(crate) fn look(
    (module, module_path): (BorrowedFd, &Path),
    destination: Option<&[u8]>,
    writable: WritableFiles,
    deadline: Instant,
) -> Leftover {
    let descent = DescentStart::root(module, module_path).and_then(Descent::new);
    let Ok(descent) = descent else { return Leftover::Unknown };
    let mut look = SharedFileSearch { descent, listing: Listing::default(), writable, deadline };
    let start = destination.and_then(|destination| look.descend(destination).ok());
    if start.is_none() {
        while look.descent.depth() > 0 {
            look.descent.leave();
        }
    }
    match look.run() {
        Ok(()) => Leftover::Nothing,
        Err(Stop::Found(found)) => found,
        Err(Stop::Failed) => Leftover::Unknown,
    }
}

struct SharedFileSearch<'a> {
    descent: Descent,
    listing: Listing,
    writable: WritableFiles<'a>,
    deadline: Instant,
}

/// Why the walk ends early.
enum Stop {
    Found(Leftover),
    Failed,
}

impl From<Errno> for Stop {
    fn from(_: Errno) -> Self {
        Stop::Failed
    }
}

fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

impl SharedFileSearch<'_> {
    /// Goes down to the destination, or as far as it exists.
    fn descend(&mut self, destination: &[u8]) -> SysResult<()> {
        // The daemon expands wildcards.
        if destination.iter().any(|byte| b"*?[\\".contains(byte)) {
            return Err(Errno::EINVAL);
        }
        for part in
            destination.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
        {
            let name = CString::new(part).map_err(|_| Errno::EINVAL)?;
            if part == b".." {
                return Err(Errno::EINVAL);
            }
            match stat_entry(self.descent.directory()?.as_fd(), &name) {
                Ok(stat) if is_kind(&stat, SFlag::S_IFDIR) => {
                    self.descent.enter(&name).map(drop)?
                }
                Ok(stat) if is_kind(&stat, SFlag::S_IFLNK) => return Err(Errno::ELOOP),
                // A file of that name is written, or made, in the directory at hand.
                Ok(_) | Err(Errno::ENOENT) => break,
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }

    /// Walks the directory at hand and all below it.
    fn run(&mut self) -> Result<(), Stop> {
        let mut budget = Budget::default();
        let mut levels: Vec<PendingChildren<()>> = Vec::new();
        let mut children = Some((PendingChildren::new(LEVEL_BYTES), true));
        loop {
            if let Some((mut some, is_first)) = children.take() {
                self.read(&mut some, is_first)?;
                some.ready();
                budget.charge(&mut some, levels.iter_mut());
                levels.push(some);
            }
            let Some(level) = levels.last_mut() else { return Ok(()) };
            match (level.pop(), level.next()) {
                (Some((name, ())), _) => match self.descent.enter(&name) {
                    Ok(_) => children = Some((PendingChildren::new(LEVEL_BYTES), true)),
                    // What is on another file system shares no file with a snapshot.
                    Err(Errno::EXDEV) => {}
                    Err(cause) if is_gone(cause) => {}
                    Err(cause) => return Err(cause.into()),
                },
                (None, Some(rest)) => {
                    levels.pop().iter_mut().for_each(|done| budget.refund(done));
                    children = Some((rest, false));
                }
                (None, None) => {
                    levels.pop().iter_mut().for_each(|done| budget.refund(done));
                    if levels.is_empty() {
                        return Ok(());
                    }
                    self.descent.leave();
                }
            }
        }
    }

    /// Reads the directory at hand: its files are looked at the first time, its subdirectories
    /// become pending.
    fn read(&mut self, children: &mut PendingChildren<()>, is_first: bool) -> Result<(), Stop> {
        let directory = match self.descent.directory() {
            Err(cause) if is_gone(cause) => return Ok(()),
            directory => directory?,
        };
        let looks = is_first
            && match self.writable {
                WritableFiles::Any => true,
                WritableFiles::InPartialDirs(dirs) => {
                    dirs.includes(&self.descent.relative_path(None))
                }
            };
        let mut listing = std::mem::take(&mut self.listing);
        Listing::rewind(directory.as_fd())?;
        listing.read_first(directory.as_fd())?;
        loop {
            if Instant::now() > self.deadline {
                return Err(Stop::Found(Leftover::Unknown));
            }
            for entry in listing.entries() {
                let name = listing.name(entry);
                match entry.is_directory {
                    true => children.push(name, ()),
                    false if looks || self.leads(name) => {
                        self.judge(directory.as_fd(), name, looks)?
                    }
                    false => {}
                }
            }
            if !listing.read_next(directory.as_fd())? {
                break;
            }
        }
        self.listing = listing;
        Ok(())
    }

    fn leads(&self, name: &CStr) -> bool {
        matches!(self.writable, WritableFiles::InPartialDirs(dirs) if dirs.lead_through(name.to_bytes()))
    }

    fn judge(&self, directory: BorrowedFd, name: &CStr, looks: bool) -> Result<(), Stop> {
        let stat = match stat_entry(directory, name) {
            // What is on another file system shares no file with a snapshot.
            Err(Errno::EXDEV) => return Ok(()),
            Err(cause) if is_gone(cause) => return Ok(()),
            stat => stat?,
        };
        let path = || self.descent.relative_path(Some(name));
        let is_link = is_kind(&stat, SFlag::S_IFLNK)
            && matches!(self.writable, WritableFiles::InPartialDirs(_));
        if is_link {
            return Err(Stop::Found(Leftover::Link(path())));
        }
        if looks && is_kind(&stat, SFlag::S_IFREG) && stat.st_nlink > 1 {
            return Err(Stop::Found(Leftover::File(path())));
        }
        Ok(())
    }
}
