//! What a snapshot holds that was made in an instant, of a whole subvolume. Nothing changes in it,
//! so one walk with one thread finds out what a clone of hard links finds out along the way.

use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::engine::clone::CloneOutcome;
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::temporaries::looks_temporary;
use crate::engine::walk::{Subtree, VisitedFile, Visitor, walk_from_here};
use crate::tell::error::{Error, Result};

/// Counts the entries of the snapshot at `path`, and finds files that rsync may still have been
/// writing, and directories in whose place the module has another subvolume.
///
/// # Errors
/// If the snapshot cannot be read.
pub(crate) fn survey(directory: BorrowedFd, path: &Path) -> Result<CloneOutcome> {
    let start = DescentStart::root(directory, path).and_then(Descent::new);
    let mut descent = start.map_err(|cause| Error::io("open", path, cause))?;
    let mut survey = FrozenSurvey { found: CloneOutcome::default(), first_error: None };
    let _ = walk_from_here(&mut descent, &mut survey);
    match survey.first_error {
        None => Ok(survey.found),
        Some(error) => Err(error),
    }
}

struct FrozenSurvey {
    found: CloneOutcome,
    first_error: Option<Error>,
}

impl Visitor for FrozenSurvey {
    fn entered(&mut self, _: &mut Descent, _: &CStr, _: &FileStat) -> Subtree {
        self.found.entries += 1;
        Subtree::Visit
    }

    fn is_left_out(&self, _: Errno) -> bool {
        false
    }

    fn begins(&mut self, _: &Descent) {
        self.found.directories_read += 1;
    }

    fn file(&mut self, file: &VisitedFile) -> ControlFlow<()> {
        self.found.entries += 1;
        if looks_temporary(file.name) {
            self.found.temporaries.note(|| file.descent.relative_path(Some(file.name)));
        }
        ControlFlow::Continue(())
    }

    fn failed(&mut self, descent: &Descent, name: Option<&CStr>, cause: Errno) -> ControlFlow<()> {
        // An empty directory stands for a subvolume, and has a device number of its own.
        if cause == Errno::EXDEV {
            self.found.entries += 1;
            self.found.skipped_mounts.push(descent.relative_path(name));
            return ControlFlow::Continue(());
        }
        self.first_error = Some(descent.error("read", name, cause));
        ControlFlow::Break(())
    }
}
