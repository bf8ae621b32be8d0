//! Walks a tree with one thread and calls a visitor for each directory and file.
//!
//! The trees are those of a client, who may change or remove them meanwhile. So the walk uses
//! single names relative to open directories, follows no symbolic link, crosses no mount, and skips
//! what has gone, moved or become something else.

use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::engine::children::{LEVEL_BYTES, PendingChildren};
use crate::engine::descent::Descent;
use crate::engine::frames::{FrameStack, Step};
use crate::engine::listing::{Listing, ListingEntry};
use crate::system::identity::SysResult;
use crate::system::syscalls::is_gone;

/// What is done along a walk. Each method that returns `Break` ends the walk.
pub(crate) trait Visitor {
    /// Asked before each directory, and before each stretch of a large one.
    fn go_on(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// The walk has entered the current directory, `name` in the one above.
    fn entered(&mut self, _descent: &mut Descent, _name: &CStr, _stat: &FileStat) -> Subtree {
        Subtree::Visit
    }

    /// All below the current directory was visited, and the walk is about to leave it. This is
    /// called for the first directory of a walk, too.
    fn leaves(&mut self, _descent: &mut Descent) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Whether `cause` says that an entry does not belong to the tree and can be left out.
    fn is_left_out(&self, cause: Errno) -> bool {
        is_no_part_of_tree(cause)
    }

    /// The current directory is about to be read for the first time.
    fn begins(&mut self, _descent: &Descent) {}

    /// Visits an entry that is not a directory.
    fn file(&mut self, file: &VisitedFile) -> ControlFlow<()>;

    /// The current directory, or `name` in it, could not be opened or read.
    fn failed(&mut self, descent: &Descent, name: Option<&CStr>, cause: Errno) -> ControlFlow<()>;
}

/// Whether a walk visits what is below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subtree {
    Visit,
    Skip,
}

/// An entry that is not a directory.
pub(crate) struct VisitedFile<'a> {
    /// The directory that it is in.
    pub descent: &'a Descent,
    /// The same, open.
    pub directory: BorrowedFd<'a>,
    pub name: &'a CStr,
    /// The inode number that the directory lists.
    pub inode: u64,
}

/// Whether `cause` says that an entry does not belong to the tree: it has gone, was replaced, or
/// lies on another file system.
pub(crate) fn is_no_part_of_tree(cause: Errno) -> bool {
    is_gone(cause) || cause == Errno::EXDEV
}

/// Walks the current directory and all below it.
pub(crate) fn walk_from_here(descent: &mut Descent, visitor: &mut dyn Visitor) -> ControlFlow<()> {
    let mut walk = SequentialWalk::new(descent, visitor);
    walk.read(PendingChildren::new(LEVEL_BYTES), DirectoryPass::First)?;
    walk.run()
}

/// Walks the directory `name` in the current directory, and all below it.
pub(crate) fn walk_into(
    descent: &mut Descent,
    name: &CStr,
    visitor: &mut dyn Visitor,
) -> ControlFlow<()> {
    let mut walk = SequentialWalk::new(descent, visitor);
    walk.enter(name)?;
    walk.run()
}

struct SequentialWalk<'a> {
    descent: &'a mut Descent,
    visitor: &'a mut dyn Visitor,
    frames: FrameStack<PendingChildren<()>>,
    listing: Listing,
}

/// A directory is read once, and again only for subdirectories that did not fit into memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectoryPass {
    /// Entries are visited, subdirectories become pending.
    First,
    /// Only the subdirectories that did not fit into memory become pending.
    Later,
}

impl<'a> SequentialWalk<'a> {
    fn new(descent: &'a mut Descent, visitor: &'a mut dyn Visitor) -> Self {
        SequentialWalk { descent, visitor, frames: FrameStack::new(0), listing: Listing::default() }
    }

    fn run(&mut self) -> ControlFlow<()> {
        while let Some(step) = self.frames.next_step() {
            match step {
                Step::Enter(name, ()) => self.enter(&name)?,
                Step::ReadAgain(rest) => {
                    self.frames.pop();
                    self.read(rest, DirectoryPass::Later)?;
                }
                Step::Leave => {
                    self.frames.pop();
                    self.visitor.leaves(self.descent)?;
                    self.descent.leave();
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn enter(&mut self, name: &CStr) -> ControlFlow<()> {
        self.visitor.go_on()?;
        match self.descent.enter(name) {
            Ok(stat) => match self.visitor.entered(self.descent, name, &stat) {
                Subtree::Visit => {
                    self.read(PendingChildren::new(LEVEL_BYTES), DirectoryPass::First)
                }
                Subtree::Skip => {
                    self.descent.leave();
                    ControlFlow::Continue(())
                }
            },
            Err(cause) => self.failed(Some(name), cause),
        }
    }

    /// Reads the current directory; its subdirectories become the lowest frame.
    fn read(&mut self, mut pending: PendingChildren<()>, pass: DirectoryPass) -> ControlFlow<()> {
        if pass == DirectoryPass::First {
            self.visitor.begins(self.descent);
        }
        let mut listing = std::mem::take(&mut self.listing);
        let flow = match self.read_entries(&mut listing, &mut pending, pass) {
            Ok(flow) => flow,
            Err(cause) => self.failed(None, cause),
        };
        self.listing = listing;
        pending.ready();
        self.frames.push(pending);
        flow
    }

    fn read_entries(
        &mut self,
        listing: &mut Listing,
        pending: &mut PendingChildren<()>,
        pass: DirectoryPass,
    ) -> SysResult<ControlFlow<()>> {
        let directory = self.descent.directory()?;
        if pass == DirectoryPass::Later {
            Listing::rewind(directory.as_fd())?;
        }
        listing.read_first(directory.as_fd())?;
        loop {
            if self.visitor.go_on().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            listing.sort_by_inode();
            for entry in listing.entries() {
                let name = listing.name(entry);
                if entry.is_directory {
                    pending.push(name, ());
                } else if pass == DirectoryPass::First
                    && self.visit(directory.as_fd(), name, entry).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if !listing.read_next(directory.as_fd())? {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    fn visit(
        &mut self,
        directory: BorrowedFd,
        name: &CStr,
        entry: &ListingEntry,
    ) -> ControlFlow<()> {
        let descent = &*self.descent;
        self.visitor.file(&VisitedFile { descent, directory, name, inode: entry.inode })
    }

    fn failed(&mut self, name: Option<&CStr>, cause: Errno) -> ControlFlow<()> {
        match self.visitor.is_left_out(cause) {
            true => ControlFlow::Continue(()),
            false => self.visitor.failed(self.descent, name, cause),
        }
    }
}
