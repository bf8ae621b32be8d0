//! The three passes of a restore: each walks the selected paths of the snapshot, with the
//! destination beside it.

use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use crate::engine::descent::Descent;
use crate::engine::restore::compare::{Depth, EntrySide, state_of};
use crate::engine::restore::outcome::PassOutcome;
use crate::engine::restore::pass_walk::{
    Level, LevelPlace, OnStep, PassWalk, PlacedPath, RestorePass, TreeRestore,
};
use crate::engine::walk::{Subtree, VisitedFile, Visitor, walk_from_here, walk_into};
use crate::system::identity::Identity;
use crate::system::syscalls::stat_entry;
use crate::tell::error::Error;
use crate::tell::escape::escape;

impl TreeRestore<'_> {
    /// Does one pass over all paths.
    pub(crate) fn pass(&mut self, pass: RestorePass, on_step: OnStep) -> PassOutcome {
        let paths = self.paths;
        let mut walk = PassWalk {
            pass,
            levels: Vec::new(),
            destination: None,
            on_step,
            outcome: PassOutcome::default(),
            restore: self,
        };
        for path in paths {
            if walk.visit(path).is_break() {
                break;
            }
        }
        let PassWalk { outcome, pass, .. } = walk;
        if matches!(pass, RestorePass::Plan) {
            self.links.find_groups();
        }
        outcome
    }
}

impl PassWalk<'_, '_, '_, '_, '_> {
    fn visit(&mut self, path: &PlacedPath) -> ControlFlow<()> {
        let (source, destination) = (&self.restore.source, &self.restore.destination);
        let root_path = source.root_path.clone();
        let opened = source.anew().and_then(Descent::new).and_then(|source| {
            let destination = destination.as_ref().map(|destination| destination.anew());
            Ok((source, destination.transpose()?.map(Descent::new).transpose()?))
        });
        let mut source = match opened {
            Ok((source, destination)) => {
                self.destination = destination;
                source
            }
            Err(cause) => {
                self.fail(Error::io("open", &root_path, cause));
                return ControlFlow::Continue(());
            }
        };
        self.levels.clear();
        let is_content = path.target.is_empty();
        // In place, the directories above a selected path are made where they are missing.
        let leading = path.target.len().saturating_sub(1);
        let above = if is_content { path.source.len() } else { path.source.len() - 1 };
        for (index, name) in path.source[..above].iter().enumerate() {
            let stat = match source.enter(name) {
                Ok(stat) => stat,
                Err(cause) => return self.failed(&source, Some(name), cause),
            };
            if index + leading >= above && !self.lead_through(&source, name, stat) {
                return ControlFlow::Continue(());
            }
        }
        let flow = match path.source.last().filter(|_| !is_content) {
            None => self.visit_content(&mut source),
            Some(name) => self.visit_entry(&mut source, name),
        };
        flow?;
        while self.levels.last().is_some() {
            self.leaves(&mut source)?;
            source.leave();
        }
        ControlFlow::Continue(())
    }

    fn visit_content(&mut self, source: &mut Descent) -> ControlFlow<()> {
        let stat = match source.directory().and_then(fstat) {
            Ok(stat) => stat,
            Err(cause) => return self.failed(source, None, cause),
        };
        let place = match self.destination {
            Some(_) => LevelPlace::There,
            None => LevelPlace::Missing,
        };
        self.levels.push(Level { stat, place });
        walk_from_here(source, self)
    }

    fn visit_entry(&mut self, source: &mut Descent, name: &CStr) -> ControlFlow<()> {
        let directory = match source.lookup_directory() {
            Ok(directory) => directory,
            Err(cause) => return self.failed(source, None, cause),
        };
        match stat_entry(directory.as_fd(), name) {
            Ok(stat) if state_of(&stat).is_directory() => walk_into(source, name, self),
            Ok(stat) => {
                let inode = Identity::of(&stat).inode;
                let directory = directory.as_fd();
                self.file(&VisitedFile { descent: source, directory, name, inode })
            }
            Err(cause) => self.failed(source, Some(name), cause),
        }
    }
}

impl Visitor for PassWalk<'_, '_, '_, '_, '_> {
    fn go_on(&mut self) -> ControlFlow<()> {
        if self.outcome.is_out_of_space {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn entered(&mut self, descent: &mut Descent, name: &CStr, stat: &FileStat) -> Subtree {
        self.note(name, stat);
        if matches!(self.pass, RestorePass::Verify(_))
            && self.has_failed(&descent.relative_path(None))
        {
            return Subtree::Skip;
        }
        match self.place(descent, name) {
            Some(place) => {
                self.levels.push(Level { stat: *stat, place });
                Subtree::Visit
            }
            None => Subtree::Skip,
        }
    }

    fn leaves(&mut self, descent: &mut Descent) -> ControlFlow<()> {
        let Some(level) = self.levels.pop() else { return ControlFlow::Continue(()) };
        let flow = self.finish_directory(descent, &level);
        if level.place != LevelPlace::Missing
            && let Some(destination) = &mut self.destination
        {
            destination.leave();
        }
        flow
    }

    fn is_left_out(&self, _: Errno) -> bool {
        false
    }

    fn file(&mut self, file: &VisitedFile) -> ControlFlow<()> {
        let VisitedFile { descent, directory, name, .. } = *file;
        let stat = match stat_entry(directory, name) {
            Ok(stat) => stat,
            Err(cause) => return self.failed(descent, Some(name), cause),
        };
        self.note(name, &stat);
        let source = EntrySide { directory, name, stat: &stat };
        match self.pass {
            RestorePass::Verify(_) if self.has_failed(&descent.relative_path(Some(name))) => {
                ControlFlow::Continue(())
            }
            RestorePass::Verify(depth) => self.verify_file(descent, source, depth),
            RestorePass::Plan => self.restore_file(descent, source, Depth::Attributes),
            RestorePass::DryRun | RestorePass::Write(_) => {
                self.restore_file(descent, source, Depth::Content)
            }
        }
    }

    fn failed(&mut self, descent: &Descent, name: Option<&CStr>, cause: Errno) -> ControlFlow<()> {
        // An earlier pass may have told it.
        if !self.restore.failed.insert(descent.relative_path(name)) {
            return ControlFlow::Continue(());
        }
        self.fail(match cause {
            Errno::ESTALE | Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => {
                Error::SnapshotChanged { path: escape(&descent.path(name)) }
            }
            cause => descent.error("read", name, cause),
        });
        ControlFlow::Continue(())
    }
}
