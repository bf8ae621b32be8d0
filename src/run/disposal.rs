//! What goes: snapshots are retired, and retired ones removed; what went wrong is told.

use chrono::{DateTime, Utc};

use crate::decide::snapshot_verdict::Decision;
use crate::module::target::Target;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::tell::counted;
use crate::tell::error::Result;
use crate::tell::exit::Exit;

/// What rotation decided and did.
#[derive(Debug)]
pub(crate) struct RotationReport {
    /// The verdict on each snapshot.
    pub decision: Decision,
    /// Problems that did not stop it; each is in the log.
    pub warnings: Vec<String>,
}

impl RotationReport {
    /// The exit status that tells it.
    pub(crate) fn exit(&self) -> Exit {
        if self.warnings.is_empty() { Exit::Done } else { Exit::Warnings }
    }
}

/// What becomes of the retired snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposal {
    /// Those that an earlier run retired and whose grace is over go, but for one to be recycled.
    Later,
    /// All of them go, at once.
    Now,
}

/// Retires `names`. Of those that a retired snapshot within its grace stands in the way of, the
/// visible one stays; `past_grace` names the retired ones that may go. Returns what was retired.
pub(crate) fn retire(
    target: &Target,
    root: &SnapshotRoot,
    names: &[String],
    past_grace: &[String],
    now: DateTime<Utc>,
    rotated: &mut RotationReport,
) -> Result<Vec<String>> {
    let label = target.label();
    let way = retire::make_way(root, names, past_grace)?;
    for name in way.taken {
        rotated.warn(
            &label,
            format!(
                "{name} stays: a retired snapshot of that name can still be brought back; \
                 `rotate --purge` removes what is retired"
            ),
        );
    }
    let errors = way.errors.into_iter().chain(retire::retire(root, &way.free, now)?);
    errors.for_each(|error| rotated.warn(&label, error.to_string()));
    Ok(way.free)
}

/// Removes the retired snapshots `names` for good, and says so.
pub(crate) fn remove(
    target: &Target,
    root: &SnapshotRoot,
    names: &[String],
    rotated: &mut RotationReport,
) -> Result<()> {
    let label = target.label();
    let removed = retire::remove(root, names)?;
    for error in removed.errors {
        rotated.warn(&label, format!("a retired snapshot remains: {error}"));
    }
    if removed.trees > 0 {
        log::info!(
            "{label}: removed {} with {} entries",
            counted(removed.trees, "retired snapshot"),
            removed.entries
        );
    }
    Ok(())
}

impl RotationReport {
    /// Logs a problem that does not stop the rotation.
    pub(crate) fn warn(&mut self, label: &str, message: String) {
        log::warn!("{label}: {message}");
        self.warnings.push(message);
    }
}
