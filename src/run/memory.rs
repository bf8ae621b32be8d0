//! What this machine remembers of a run, outside the root.

use crate::module::target::Target;
use crate::run::report::Report;
use crate::store::memory::{RunFailure, RunKind};
use crate::tell::error::Result;
use crate::tell::escape::{escape, escape_path};

/// Remembers the outcome outside the root; never fails a run. Only a success makes up for an
/// earlier failure.
pub(crate) fn remember(target: &Target, result: &Result<Report>) {
    let failure = match result {
        Ok(report) if report.policy_trouble => Some(format!(
            "the policy cannot be used, nothing expires: {}",
            target.trouble.join("; ")
        )),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    let failure = failure.map(|message| RunFailure::now(RunKind::Snapshot, message));
    let success = result.as_ref().ok().filter(|report| report.is_success());
    // A root that a failed run did not get to register was never used.
    let root = target.is_surely_registered().then_some(target.root_path.as_path());
    let name = target.name.as_deref().map(escape);
    let remembered = target.memory.change(&target.module_path, |memory| {
        memory.module = name.clone().or(memory.module.take());
        root.iter().for_each(|root| memory.set_root(root));
        if let Some(report) = success {
            memory.failure = None;
            memory.warnings = report.warnings.clone();
        }
        if failure.is_some() {
            memory.failure.clone_from(&failure);
        }
    });
    if let Err(error) = remembered {
        log::debug!("nothing remembered outside the snapshot root: {error}");
    }
}

/// What to say if the module's snapshots used to be made elsewhere.
pub(crate) fn moved_root(target: &Target) -> Option<String> {
    let now = escape_path(&target.root_path);
    let before = target.memory.recall(&target.module_path)?.snapshot_root?;
    (before != now).then(|| {
        format!("snapshots are made in {now} from now on; those in {before} are no longer rotated")
    })
}
