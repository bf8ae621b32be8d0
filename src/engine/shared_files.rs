//! Whether a push can write in place into a file that has other names. Searches the live tree until
//! a deadline, and changes nothing.
//!
//! A file that a snapshot shares has more than one link, and the kernel counts the links. So if no
//! file below a push's destination has more than one, the push can rewrite no file of a snapshot,
//! whatever records of snapshots exist or are lost. The reverse does not hold: the other name may
//! be the client's own.

use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use crate::decide::partial_dirs::{Leftover, PartialDirs};
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::walk::{VisitedFile, Visitor, is_no_part_of_tree, walk_from_here};
use crate::system::identity::SysResult;
use crate::system::syscalls::stat_entry;

/// Which files a push could write into.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WritableFiles<'a> {
    /// Every file.
    Any,
    /// Those in partial directories.
    InPartialDirs(&'a PartialDirs),
}

/// Searches the files below `destination` in the module until it finds one or the `deadline` is
/// over. It searches the whole module without a destination, and if the path to it holds wildcards,
/// `..` or symbolic links.
pub(crate) fn look(
    (module, module_path): (BorrowedFd, &Path),
    destination: Option<&[u8]>,
    writable: WritableFiles,
    deadline: Instant,
) -> Leftover {
    let descent = DescentStart::root(module, module_path).and_then(Descent::new);
    let Ok(mut descent) = descent else { return Leftover::Unknown };
    if destination.is_none_or(|destination| descend(&mut descent, destination).is_err()) {
        while descent.depth() > 0 {
            descent.leave();
        }
    }
    let mut search =
        SharedFileSearch { writable, deadline, judges_all: false, found: Leftover::Nothing };
    // The result tells whether the walk has ended early.
    let _ = walk_from_here(&mut descent, &mut search);
    search.found
}

struct SharedFileSearch<'a> {
    writable: WritableFiles<'a>,
    deadline: Instant,
    /// Whether a push could write into each file of the current directory.
    judges_all: bool,
    found: Leftover,
}

fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// Enters the directories of the destination, as far as they exist.
fn descend(descent: &mut Descent, destination: &[u8]) -> SysResult<()> {
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
        match stat_entry(descent.directory()?.as_fd(), &name) {
            Ok(stat) if is_kind(&stat, SFlag::S_IFDIR) => descent.enter(&name).map(drop)?,
            Ok(stat) if is_kind(&stat, SFlag::S_IFLNK) => return Err(Errno::ELOOP),
            // The push writes or makes a file of that name in the current directory.
            Ok(_) | Err(Errno::ENOENT) => break,
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

impl SharedFileSearch<'_> {
    fn end_with(&mut self, found: Leftover) -> ControlFlow<()> {
        self.found = found;
        ControlFlow::Break(())
    }

    /// Whether a symbolic link of this name could lead rsync to a partial directory.
    fn could_lead_away(&self, name: &CStr) -> bool {
        match self.writable {
            WritableFiles::Any => false,
            WritableFiles::InPartialDirs(dirs) => dirs.lead_through(name.to_bytes()),
        }
    }
}

impl Visitor for SharedFileSearch<'_> {
    fn go_on(&mut self) -> ControlFlow<()> {
        match Instant::now() > self.deadline {
            true => self.end_with(Leftover::Unknown),
            false => ControlFlow::Continue(()),
        }
    }

    fn begins(&mut self, descent: &Descent) {
        self.judges_all = match self.writable {
            WritableFiles::Any => true,
            WritableFiles::InPartialDirs(dirs) => dirs.includes(&descent.relative_path(None)),
        };
    }

    fn file(&mut self, file: &VisitedFile) -> ControlFlow<()> {
        if !self.judges_all && !self.could_lead_away(file.name) {
            return ControlFlow::Continue(());
        }
        let stat = match stat_entry(file.directory, file.name) {
            Ok(stat) => stat,
            // A file on another file system is shared with no snapshot.
            Err(cause) if is_no_part_of_tree(cause) => return ControlFlow::Continue(()),
            Err(_) => return self.end_with(Leftover::Unknown),
        };
        let path = || file.descent.relative_path(Some(file.name));
        if is_kind(&stat, SFlag::S_IFLNK)
            && matches!(self.writable, WritableFiles::InPartialDirs(_))
        {
            return self.end_with(Leftover::Link(path()));
        }
        if self.judges_all && is_kind(&stat, SFlag::S_IFREG) && stat.st_nlink > 1 {
            return self.end_with(Leftover::File(path()));
        }
        ControlFlow::Continue(())
    }

    fn failed(&mut self, _: &Descent, _: Option<&CStr>, _: Errno) -> ControlFlow<()> {
        self.end_with(Leftover::Unknown)
    }
}
