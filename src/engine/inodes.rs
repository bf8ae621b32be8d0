//! Walks a tree and visits each name with its inode number; it opens only directories.

use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;

use crate::engine::descent::{Descent, DescentStart};
use crate::engine::walk::{VisitedFile, Visitor, walk_into};
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
    let mut descent = match DescentStart::root(parent, parent_path).and_then(Descent::new) {
        Ok(descent) => descent,
        Err(cause) => {
            log::warn!("{}", Error::io("read", parent_path, cause));
            return 1;
        }
    };
    let skip = name.to_bytes().len() + 1;
    let mut visitor = InodeVisitor { skip, unreadable: 0, visit };
    // This visitor ends no walk early.
    let _ = walk_into(&mut descent, name, &mut visitor);
    visitor.unreadable
}

struct InodeVisitor<'a> {
    skip: usize,
    unreadable: u64,
    visit: &'a mut dyn FnMut(&InodeName),
}

impl Visitor for InodeVisitor<'_> {
    fn file(&mut self, file: &VisitedFile) -> ControlFlow<()> {
        let VisitedFile { descent, directory, name, inode } = *file;
        (self.visit)(&InodeName { directory, name, inode, descent, skip: self.skip });
        ControlFlow::Continue(())
    }

    fn failed(&mut self, descent: &Descent, name: Option<&CStr>, cause: Errno) -> ControlFlow<()> {
        let level = if self.unreadable == 0 { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "{}", descent.error("read", name, cause));
        self.unreadable += 1;
        ControlFlow::Continue(())
    }
}
