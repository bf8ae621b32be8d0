//! The directories of a restore: each is entered on both sides at once, or made, and gets its
//! attributes once all below it is done.

use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use crate::decide::restore_step::{
    EntryDifference, Existing, RestoreObstacle, RestoreStep, restore_step,
};
use crate::engine::attributes::{AttributeSource, XattrSource, xattrs_differ};
use crate::engine::copied::mtime_ns;
use crate::engine::descent::Descent;
use crate::engine::restore::compare::{state_difference, state_of};
use crate::engine::restore::pass_walk::{Level, LevelPlace, PassWalk, RestorePass};
use crate::engine::restore::write::{Placement, TargetName, apply};
use crate::engine::walk::Visitor;
use crate::system::identity::{Identity, SysResult};

impl PassWalk<'_, '_, '_, '_, '_> {
    /// Enters a directory above a selected path at the destination, too.
    pub(crate) fn lead_through(&mut self, source: &Descent, name: &CStr, stat: FileStat) -> bool {
        let existed = self.existing_directory(name);
        match self.place(source, name) {
            Some(LevelPlace::There) if existed => {
                self.levels.push(Level { stat, place: LevelPlace::LeadsThrough });
                true
            }
            Some(place) => {
                self.levels.push(Level { stat, place });
                true
            }
            None => false,
        }
    }

    pub(crate) fn existing_directory(&mut self, name: &CStr) -> bool {
        self.target_stat(name).is_ok_and(|stat| stat.is_some_and(|it| state_of(&it).is_directory()))
    }

    /// Brings the descent at the destination into the directory `name`, where the one at `source`
    /// is already. None if the directory and all below it are skipped.
    pub(crate) fn place(&mut self, source: &Descent, name: &CStr) -> Option<LevelPlace> {
        if self.is_missing() && !matches!(self.pass, RestorePass::Verify(_) | RestorePass::Write(_))
        {
            self.outcome.directories += 1;
            self.tell(RestoreStep::Make, || source.relative_path(None));
            return Some(LevelPlace::Missing);
        }
        let existing = match self.target_stat(name) {
            Ok(None) => Existing::Nothing,
            Ok(Some(there)) if state_of(&there).is_directory() => Existing::Directory,
            Ok(Some(_)) => Existing::Different { is_newer: false },
            Err(Errno::EXDEV) => {
                self.refuse(source.relative_path(None), RestoreObstacle::Mounted);
                return None;
            }
            Err(cause) => {
                let _ =
                    self.fail_at_target(source.relative_path(None), Some(name), "inspect", cause);
                return None;
            }
        };
        if matches!(self.pass, RestorePass::Verify(_)) {
            let difference = match existing {
                Existing::Directory => return self.enter(source, name, None),
                Existing::Nothing => EntryDifference::Missing,
                _ => EntryDifference::Kind,
            };
            self.mismatch(source.relative_path(None), Some(name), difference);
            return None;
        }
        let placement = match restore_step(true, existing, self.restore.overwrites) {
            RestoreStep::Enter | RestoreStep::Keep => return self.enter(source, name, None),
            RestoreStep::Refuse(obstacle) => {
                self.refuse(source.relative_path(None), obstacle);
                return None;
            }
            RestoreStep::Make => Placement::Free,
            RestoreStep::Replace => Placement::Replacing,
        };
        self.make_directory(source, name, placement)
    }

    fn make_directory(
        &mut self,
        source: &Descent,
        name: &CStr,
        placement: Placement,
    ) -> Option<LevelPlace> {
        let step = match placement {
            Placement::Free => RestoreStep::Make,
            Placement::Replacing => RestoreStep::Replace,
        };
        let mut made = None;
        if let (RestorePass::Write(writer), Some(destination)) =
            (&mut self.pass, &mut self.destination)
        {
            let done = destination.lookup_directory().and_then(|directory| {
                let directory = directory.as_fd();
                writer.make_directory(TargetName { directory, name, placement })
            });
            made = match done {
                Ok(identity) => Some(identity),
                // Another program has made it meanwhile.
                Err(Errno::EEXIST) => return self.enter(source, name, None),
                Err(cause) => {
                    let path = source.relative_path(None);
                    let _ = self.fail_at_target(path, Some(name), "make the directory", cause);
                    return None;
                }
            };
        }
        self.outcome.directories += 1;
        self.outcome.replaced += u64::from(placement == Placement::Replacing);
        self.tell(step, || source.relative_path(None));
        match self.pass {
            RestorePass::Write(_) => self.enter(source, name, made),
            _ => Some(LevelPlace::Missing),
        }
    }

    /// Enters the directory `name` at the destination, which has to be the one that was `made`.
    fn enter(
        &mut self,
        source: &Descent,
        name: &CStr,
        made: Option<Identity>,
    ) -> Option<LevelPlace> {
        let destination = self.destination.as_mut()?;
        let depth = destination.depth();
        let entered = destination.enter_for_lookups(name).and_then(|stat| {
            let is_meant = made.is_none_or(|made| made == Identity::of(&stat));
            if is_meant { Ok(stat) } else { Err(Errno::ESTALE) }
        });
        match entered {
            Ok(stat) if self.restore.closed.contains(&Identity::of(&stat)) => {
                destination.leave();
                self.refuse(source.relative_path(None), RestoreObstacle::HoldsSnapshots);
                None
            }
            Ok(_) => Some(LevelPlace::There),
            Err(cause) => {
                if cause == Errno::ESTALE && destination.depth() > depth {
                    destination.leave();
                }
                let _ = self.fail_at_target(source.relative_path(None), Some(name), "open", cause);
                None
            }
        }
    }

    /// Gives a directory at the destination the attributes of the one in the snapshot, or compares
    /// them, once all below it is done.
    pub(crate) fn finish_directory(
        &mut self,
        source: &mut Descent,
        level: &Level,
    ) -> ControlFlow<()> {
        let opened = source.directory().and_then(|directory| Ok((fstat(&directory)?, directory)));
        let (stat, directory) = match opened {
            Ok(opened) => opened,
            Err(cause) => return self.failed(source, None, cause),
        };
        let times = |stat: &FileStat| (mtime_ns(stat), stat.st_ctime, stat.st_ctime_nsec);
        if times(&stat) != times(&level.stat) {
            return self.failed(source, None, Errno::ESTALE);
        }
        if level.place != LevelPlace::There {
            return ControlFlow::Continue(());
        }
        let original = AttributeSource { stat: &stat, xattrs: XattrSource::Of(directory.as_fd()) };
        let is_writing = match self.pass {
            RestorePass::Write(_) => true,
            RestorePass::Verify(_) => false,
            RestorePass::Plan | RestorePass::DryRun => return ControlFlow::Continue(()),
        };
        let Some(destination) = &mut self.destination else { return ControlFlow::Continue(()) };
        let path = source.relative_path(None);
        let done = match destination.directory() {
            Ok(copy) if is_writing => apply(original, copy.as_fd()).map(|()| None),
            Ok(copy) => directory_difference(original, copy.as_fd()),
            Err(cause) => Err(cause),
        };
        match done {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(difference)) => {
                self.mismatch(path, None, difference);
                ControlFlow::Continue(())
            }
            Err(cause) => self.fail_at_target(path, None, "set or read the attributes of", cause),
        }
    }
}

fn directory_difference(
    original: AttributeSource,
    copy: BorrowedFd,
) -> SysResult<Option<EntryDifference>> {
    let there = fstat(copy)?;
    let differ = xattrs_differ(original.xattrs, XattrSource::Of(copy))?;
    let xattrs = differ.then_some(EntryDifference::Xattrs);
    Ok(state_difference(original.stat, &there).or(xattrs))
}
