//! The entries of a restore that are no directories: each is compared, made, replaced, linked or
//! kept.

use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::decide::restore_step::{
    EntryDifference, Existing, RestoreObstacle, RestoreStep, restore_step,
};
use crate::engine::copied::mtime_ns;
use crate::engine::descent::Descent;
use crate::engine::restore::compare::{CompareFailure, Depth, EntrySide, difference, state_of};
use crate::engine::restore::pass_walk::{PassWalk, RestorePass};
use crate::engine::restore::write::{Placement, TargetName};
use crate::engine::walk::Visitor;
use crate::system::identity::Identity;

/// Why an entry was not restored.
enum RestoreFailure {
    Compare(CompareFailure),
    Write(Errno),
}

impl PassWalk<'_, '_, '_, '_, '_> {
    /// What is at the destination under the name of an entry that is no directory, and its state.
    fn examine(
        &mut self,
        source: EntrySide,
        depth: Depth,
    ) -> Result<(Existing, Option<FileStat>), CompareFailure> {
        let Some(there) = self.target_stat(source.name).map_err(CompareFailure::Destination)?
        else {
            return Ok((Existing::Nothing, None));
        };
        if state_of(&there).is_directory() {
            return Ok((Existing::Directory, Some(there)));
        }
        let Some(destination) = &mut self.destination else { return Ok((Existing::Nothing, None)) };
        let directory = destination.lookup_directory().map_err(CompareFailure::Destination)?;
        let copy = EntrySide { directory: directory.as_fd(), name: source.name, stat: &there };
        let existing = match difference(source, copy, depth)? {
            None => Existing::Equal,
            Some(_) => Existing::Different { is_newer: mtime_ns(&there) > mtime_ns(source.stat) },
        };
        Ok((existing, Some(there)))
    }

    /// Makes an entry that is no directory, or leaves it.
    pub(crate) fn restore_file(
        &mut self,
        descent: &Descent,
        source: EntrySide,
        depth: Depth,
    ) -> ControlFlow<()> {
        let name = source.name;
        let path = || descent.relative_path(Some(name));
        let mut taken = self.try_restore(source, depth);
        if let Err(RestoreFailure::Write(Errno::EEXIST)) = taken {
            // Another program has made it meanwhile.
            taken = self.try_restore(source, depth);
        }
        let step = match taken {
            Ok(step) => step,
            Err(RestoreFailure::Compare(CompareFailure::Destination(Errno::EXDEV))) => {
                RestoreStep::Refuse(RestoreObstacle::Mounted)
            }
            Err(RestoreFailure::Compare(failure)) => {
                return self.fail_comparison(descent, name, failure);
            }
            Err(RestoreFailure::Write(cause)) => {
                let kind = source.stat.st_mode & libc::S_IFMT;
                let is_device = matches!(kind, libc::S_IFBLK | libc::S_IFCHR);
                let operation = if is_device { "restore the device" } else { "restore" };
                return self.fail_at_target(path(), Some(name), operation, cause);
            }
        };
        match step {
            RestoreStep::Refuse(obstacle) => {
                self.refuse(path(), obstacle);
                return ControlFlow::Continue(());
            }
            RestoreStep::Make => self.outcome.made += 1,
            RestoreStep::Replace => self.outcome.replaced += 1,
            RestoreStep::Keep | RestoreStep::Enter => self.outcome.kept += 1,
        }
        if matches!(step, RestoreStep::Make | RestoreStep::Replace)
            && state_of(source.stat).is_regular()
        {
            self.outcome.bytes += u64::try_from(source.stat.st_size).unwrap_or(0);
        }
        self.tell(step, path);
        ControlFlow::Continue(())
    }

    /// Takes the step for an entry, if this pass writes, and returns it.
    fn try_restore(
        &mut self,
        source: EntrySide,
        depth: Depth,
    ) -> Result<RestoreStep, RestoreFailure> {
        let (existing, there) = self.examine(source, depth).map_err(RestoreFailure::Compare)?;
        if matches!(self.pass, RestorePass::Plan) && source.stat.st_nlink > 1 {
            let own = Identity::of(source.stat);
            let is_shared = there.is_some_and(|there| Identity::of(&there) == own);
            self.restore.links.note(own.inode, is_shared || !self.restore.is_in_place);
        }
        let step = restore_step(false, existing, self.restore.overwrites);
        match (&self.pass, step) {
            (_, RestoreStep::Refuse(_)) => Ok(step),
            (RestorePass::Write(_), _) => {
                self.write(source, step, there).map_err(RestoreFailure::Write)
            }
            _ => Ok(step),
        }
    }

    /// Takes a step, and returns the one that was taken: a file that is as in the snapshot is
    /// replaced if it has to become a hard link of another one.
    fn write(
        &mut self,
        source: EntrySide,
        step: RestoreStep,
        there: Option<FileStat>,
    ) -> Result<RestoreStep, Errno> {
        let (RestorePass::Write(writer), Some(destination)) =
            (&mut self.pass, &mut self.destination)
        else {
            return Ok(step);
        };
        let inode = Identity::of(source.stat).inode;
        let links = &self.restore.links;
        let is_group = links.is_group(inode);
        let directory = destination.lookup_directory()?;
        let placement = if there.is_some() { Placement::Replacing } else { Placement::Free };
        let target = TargetName { directory: directory.as_fd(), name: source.name, placement };
        let taken = if there.is_some() { RestoreStep::Replace } else { RestoreStep::Make };
        if is_group && let Some(original) = writer.original(inode) {
            if step == RestoreStep::Keep
                && there.is_some_and(|there| Identity::of(&there) == original)
            {
                return Ok(RestoreStep::Keep);
            }
            match writer.link(inode, target) {
                Err(Errno::EMLINK) => {}
                answer => return answer.map(|()| taken),
            }
        } else if step == RestoreStep::Keep
            && (!is_group || self.restore.is_in_place && links.is_untouched(inode))
        {
            return Ok(RestoreStep::Keep);
        } else if step == RestoreStep::Keep && !self.restore.is_in_place {
            writer.keep_original(target.directory, source.name, inode)?;
            match writer.original(inode) {
                kept if kept == there.map(|there| Identity::of(&there)) => {
                    return Ok(RestoreStep::Keep);
                }
                Some(_) => writer.discard_original(inode)?,
                None => {}
            }
        }
        writer.write(source, target, is_group).map(|()| taken)
    }

    fn fail_comparison(
        &mut self,
        source: &Descent,
        name: &CStr,
        failure: CompareFailure,
    ) -> ControlFlow<()> {
        match failure {
            CompareFailure::Source(cause) => self.failed(source, Some(name), cause),
            CompareFailure::Destination(cause) => {
                self.fail_at_target(source.relative_path(Some(name)), Some(name), "read", cause)
            }
        }
    }

    pub(crate) fn verify_file(
        &mut self,
        descent: &Descent,
        source: EntrySide,
        depth: Depth,
    ) -> ControlFlow<()> {
        let found = (|| {
            let Some(there) = self.target_stat(source.name).map_err(CompareFailure::Destination)?
            else {
                return Ok(Some(EntryDifference::Missing));
            };
            let Some(destination) = &mut self.destination else { return Ok(None) };
            let directory = destination.lookup_directory().map_err(CompareFailure::Destination)?;
            let copy = EntrySide { directory: directory.as_fd(), name: source.name, stat: &there };
            let different = difference(source, copy, depth)?;
            let inode = Identity::of(source.stat).inode;
            let is_linked = self.restore.links.verify(inode, Identity::of(&there));
            Ok(different.or((!is_linked).then_some(EntryDifference::Link)))
        })();
        match found {
            Ok(None) => {}
            Ok(Some(difference)) => {
                let path = descent.relative_path(Some(source.name));
                self.mismatch(path, Some(source.name), difference);
            }
            Err(failure) => return self.fail_comparison(descent, source.name, failure),
        }
        ControlFlow::Continue(())
    }
}
