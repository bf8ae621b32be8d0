//! Retires snapshots, removes retired ones, and reports what went wrong.
//!
//! `crate::store::retire` says why each step is safe.

use chrono::{DateTime, Utc};

use crate::decide::snapshot_verdict::Decision;
use crate::engine::usage::Usage;
use crate::module::target::Target;
use crate::store::retire::{self, LeaseRule};
use crate::store::root::SnapshotRoot;
use crate::tell::counted;
use crate::tell::error::{Error, Result};
use crate::tell::exit::Exit;

/// What rotation decided and did.
#[derive(Debug)]
pub(crate) struct RotationReport {
    pub decision: Decision,
    /// Problems that did not stop the rotation; each is in the log.
    pub warnings: Vec<String>,
    /// Warnings whose cause `check` finds by itself for as long as it lasts, such as a pause. They
    /// are in the log, too.
    pub standing: Vec<String>,
    /// What the removal of all retired snapshots has freed; none if only those past their grace
    /// were removed, if there were none, or if something is left.
    pub freed: Option<Usage>,
    /// How messages name the module.
    label: String,
}

impl RotationReport {
    pub(crate) fn new(target: &Target, decision: Decision) -> Self {
        RotationReport {
            decision,
            warnings: Vec::new(),
            standing: Vec::new(),
            freed: None,
            label: target.label(),
        }
    }

    /// Logs a problem that does not stop the rotation.
    pub(crate) fn warn(&mut self, message: impl Into<String>) {
        let message = message.into();
        log::warn!("{}: {message}", self.label);
        self.warnings.push(message);
    }

    /// Logs a warning whose cause `check` finds by itself for as long as it lasts.
    pub(crate) fn warn_of_standing(&mut self, message: impl Into<String>) {
        let message = message.into();
        log::warn!("{}: {message}", self.label);
        self.standing.push(message);
    }

    pub(crate) fn exit(&self) -> Exit {
        let is_quiet = self.warnings.is_empty() && self.standing.is_empty();
        if is_quiet { Exit::Done } else { Exit::Warnings }
    }
}

/// Which retired snapshots a rotation removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetiredRemoval {
    /// Those that an earlier run retired and whose grace is over. One stays, to be recycled.
    PastGrace,
    /// All of them, as `--purge` asks. `counts`: says what that frees, which looks at each file.
    All { counts: bool },
}

/// Retires `names`, and returns which were retired. A snapshot stays visible if it is being read,
/// unless `leases` says otherwise, or if a retired one has its name, unless that one is in
/// `past_grace` and may be removed.
pub(crate) fn retire(
    root: &SnapshotRoot,
    names: &[String],
    past_grace: &[String],
    leases: LeaseRule,
    now: DateTime<Utc>,
    report: &mut RotationReport,
) -> Result<Vec<String>> {
    let way = retire::free_names(root, names, past_grace, leases)?;
    for name in way.taken {
        report.warn(format!(
            "{name} stays: a retired snapshot has the same name, so this one cannot be retired; \
             `rotate --purge` removes all retired ones"
        ));
    }
    let retirement = retire::retire(root, &way.free, leases, now)?;
    let errors = way.errors.into_iter().chain(retirement.errors);
    errors.for_each(|error| report.warn(error.to_string()));
    let is_read = |name: &String| retirement.read.iter().any(|(read, _)| read == name);
    let gone = way.free.iter().filter(|name| !is_read(name)).cloned().collect();
    // These readers came after the decision.
    for (name, reader) in retirement.read {
        log::info!("{}: {name} stays for now: {reader}", report.label);
        report.decision.keep_read(&name, reader);
    }
    Ok(gone)
}

/// The warning about a time of retirement that could not be written, as on a full disk.
pub(crate) fn grace_unnoted(error: &Error) -> String {
    format!(
        "the time when snapshots were retired cannot be noted, so their grace is counted from a \
         later run: {error}"
    )
}

/// Removes the retired snapshots `names` for good.
pub(crate) fn remove(
    root: &SnapshotRoot,
    names: &[String],
    leases: LeaseRule,
    report: &mut RotationReport,
) -> Result<()> {
    let removed = retire::remove(root, names, leases)?;
    for error in removed.errors {
        report.warn(format!("a retired snapshot could not be removed: {error}"));
    }
    if removed.trees > 0 {
        log::info!(
            "{}: removed {} with {} entries",
            report.label,
            counted(removed.trees, "retired snapshot"),
            removed.entries
        );
    }
    Ok(())
}
