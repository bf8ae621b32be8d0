//! Walks a tree and visits each name with its inode number; it opens only directories.

use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::decide::damage::FileTime;
use crate::decide::lacking::TreeCount;
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::walk::{Subtree, VisitedFile, Visitor, walk_from_here, walk_into};
use crate::system::identity::SysResult;
use crate::system::syscalls::stat_entry;
use crate::tell::error::Error;

/// One name of an inode that is no directory.
pub(crate) struct InodeName<'a> {
    /// The directory that it is in.
    pub directory: BorrowedFd<'a>,
    /// The name there.
    pub name: &'a CStr,
    /// The inode number that the directory lists.
    pub inode: u64,
    descent: &'a Descent,
    /// How many bytes of each path are the tree's own name.
    skip: usize,
}

impl InodeName<'_> {
    /// The path from the tree's root.
    pub(crate) fn path(&self) -> Vec<u8> {
        let path = self.descent.relative_path(Some(self.name));
        path.get(self.skip..).map(<[u8]>::to_vec).unwrap_or_default()
    }
}

/// Visits every name in the tree `name` of `parent`; returns how many directories could not be
/// read, and logs the first as a warning.
pub(crate) fn walk(
    parent: BorrowedFd,
    parent_path: &Path,
    name: &CStr,
    visit: &mut dyn FnMut(&InodeName),
) -> u64 {
    walk_counting(parent, parent_path, name, visit).unreadable
}

/// [`walk`] that also counts what it meets.
pub(crate) fn walk_counting(
    parent: BorrowedFd,
    parent_path: &Path,
    name: &CStr,
    visit: &mut dyn FnMut(&InodeName),
) -> TreeCount {
    let mut descent = match DescentStart::root(parent, parent_path).and_then(Descent::new) {
        Ok(descent) => descent,
        Err(cause) => {
            log::warn!("{}", Error::io("read", parent_path, cause));
            return TreeCount { unreadable: 1, ..TreeCount::default() };
        }
    };
    let skip = name.to_bytes().len() + 1;
    let mut visitor = InodeVisitor { skip, count: TreeCount::default(), visit };
    // This visitor ends no walk early.
    let _ = walk_into(&mut descent, name, &mut visitor);
    // The directory of the tree itself was entered as well.
    visitor.count.entries = visitor.count.entries.saturating_sub(1);
    visitor.count
}

/// Visits what the `names` lead to in a tree: a file, or every name in a directory. The visited
/// paths begin with these names. Without names, that is the whole tree.
///
/// # Errors
/// If the directory that it is in cannot be entered.
pub(crate) fn walk_at(
    start: DescentStart,
    names: &[CString],
    visit: &mut dyn FnMut(&InodeName),
) -> SysResult<()> {
    let mut descent = Descent::new(start)?;
    let (last, above) = match names.split_last() {
        Some((last, above)) => (Some(last), above),
        None => (None, names),
    };
    for name in above {
        descent.enter(name)?;
    }
    let mut visitor = InodeVisitor { skip: 0, count: TreeCount::default(), visit };
    let Some(last) = last else {
        // This visitor ends no walk early.
        let _ = walk_from_here(&mut descent, &mut visitor);
        return Ok(());
    };
    let directory = descent.directory()?;
    let stat = stat_entry(directory.as_fd(), last)?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        let _ = walk_into(&mut descent, last, &mut visitor);
    } else {
        let (directory, inode) = (directory.as_fd(), stat.st_ino);
        let name = InodeName { directory, name: last, inode, descent: &descent, skip: 0 };
        (visitor.visit)(&name);
    }
    Ok(())
}

struct InodeVisitor<'a> {
    skip: usize,
    count: TreeCount,
    visit: &'a mut dyn FnMut(&InodeName),
}

impl Visitor for InodeVisitor<'_> {
    fn entered(&mut self, _: &mut Descent, _: &CStr, stat: &FileStat) -> Subtree {
        let nanoseconds = u32::try_from(stat.st_ctime_nsec).unwrap_or(0);
        let changed = FileTime { seconds: stat.st_ctime, nanoseconds };
        self.count.entries += 1;
        self.count.last_change_ns = self.count.last_change_ns.max(changed.as_ns());
        Subtree::Visit
    }

    fn file(&mut self, file: &VisitedFile) -> ControlFlow<()> {
        let VisitedFile { descent, directory, name, inode } = *file;
        self.count.entries += 1;
        (self.visit)(&InodeName { directory, name, inode, descent, skip: self.skip });
        ControlFlow::Continue(())
    }

    fn failed(&mut self, descent: &Descent, name: Option<&CStr>, cause: Errno) -> ControlFlow<()> {
        let level = if self.count.unreadable == 0 { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "{}", descent.error("read", name, cause));
        self.count.unreadable += 1;
        ControlFlow::Continue(())
    }
}
