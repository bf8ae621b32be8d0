//! Writes the outcome of a run into this machine's memory, where `check` finds it.

use crate::module::target::Target;
use crate::run::report::Report;
use crate::store::memory::{RunFailure, RunKind};
use crate::tell::error::Result;
use crate::tell::escape::escape;

/// Remembers the outcome. Only a success clears an earlier failure. An error here is logged and
/// does not fail the run.
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
    // A root that no run could register was never used.
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
        log::debug!("what this machine remembers of the module cannot be written: {error}");
    }
}
