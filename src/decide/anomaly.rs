//! The large-change guard: when one push changes or removes most of a tree, expiry pauses until the
//! administrator runs `release`.
//!
//! Ransomware, a wrong `--delete` and an unmounted source all look like this, and then only the
//! earlier snapshots still hold the lost files. So the last snapshot before the push is pinned, and
//! expiry pauses. `release` ends the pause and removes that pin. Further large changes until then
//! pin nothing more, because nothing expires during the pause. Additions never count, so the first
//! push into an empty module pauses nothing.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The guard ignores trees with fewer entries: they may change as a whole every day.
const MIN_ENTRIES: u64 = 1_000;

/// How a tree differs from the snapshot before, in entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeChange {
    /// Entries of the snapshot before.
    pub before: u64,
    /// How many of them were replaced by other files.
    pub changed: u64,
    /// How many of them were removed.
    pub removed: u64,
}

impl TreeChange {
    /// Whether more than `share` percent of the tree changed or was removed.
    pub fn is_anomalous(self, share: u8) -> bool {
        let touched = u128::from(self.changed) + u128::from(self.removed);
        // The root directory changes, too, but it does not count as an entry.
        share < 100
            && self.before >= MIN_ENTRIES
            && touched * 100 > u128::from(self.before) * u128::from(share)
    }
}

/// Expiry is paused because a push changed most of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anomaly {
    /// When a run noticed the change.
    pub since: DateTime<Utc>,
    /// The last snapshot before the change, which the run pinned.
    pub before: String,
    /// How many entries that snapshot has.
    pub entries: u64,
    /// How many of them changed.
    pub changed: u64,
    /// How many of them were removed.
    pub removed: u64,
}

impl Anomaly {
    /// The pause for `change`, noticed at `since`, against the snapshot `before`.
    pub fn new(since: DateTime<Utc>, before: &str, change: TreeChange) -> Self {
        let TreeChange { before: entries, changed, removed } = change;
        Anomaly { since, before: before.to_string(), entries, changed, removed }
    }

    /// Why the snapshot before the change is pinned.
    pub fn pin_reason(&self) -> String {
        let Anomaly { entries, changed, removed, .. } = self;
        format!(
            "the last one before a push that changed {changed} and removed {removed} of {entries} \
             entries"
        )
    }
}

/// Whether `reason` has the exact form of [`Anomaly::pin_reason`].
pub fn is_pin_reason(reason: &str) -> bool {
    let numbers = || {
        let rest = reason.strip_prefix("the last one before a push that changed ")?;
        let (changed, rest) = rest.split_once(" and removed ")?;
        let (removed, entries) = rest.strip_suffix(" entries")?.split_once(" of ")?;
        Some([changed, removed, entries])
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers().is_some_and(|numbers| numbers.into_iter().all(is_number))
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Anomaly { since, before, entries, changed, removed } = self;
        let since = since.format("%FT%TZ");
        write!(
            f,
            "on {since} a push changed {changed} and removed {removed} of {entries} entries; \
             {before} from before it is pinned. What it changed: `diff {before}`. \
             If that was meant: `release`. If not, files come back from {before}: \
             `restore {before} PATH --in-place`"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_of_this_guard_is_known_by_its_reason() {
        let change = TreeChange { before: 1_220, changed: 671, removed: 0 };
        let reason = Anomaly::new(DateTime::UNIX_EPOCH, "a", change).pin_reason();
        assert!(is_pin_reason(&reason), "{reason}");
        for other in ["", "before the migration", &reason[1..], &format!("{reason}!")] {
            assert!(!is_pin_reason(other), "{other}");
        }
        assert!(!is_pin_reason(&reason.replace("671", "many")));
    }

    #[test]
    fn more_than_the_share_of_a_tree_of_some_size_is_an_anomaly() {
        let change = |before, changed, removed| TreeChange { before, changed, removed };
        assert!(change(1_000, 0, 501).is_anomalous(50));
        assert!(change(1_000, 251, 250).is_anomalous(50));
        assert!(!change(1_000, 250, 250).is_anomalous(50), "half is not more than half");
        assert!(!change(999, 0, 999).is_anomalous(50), "a small tree");
        assert!(!change(1_000, 0, 1_000).is_anomalous(100), "100 % is never exceeded");
        assert!(!change(1_000, 1, 1_000).is_anomalous(100), "100 % is never");
        assert!(change(u64::MAX, u64::MAX, u64::MAX).is_anomalous(99), "no overflow");
    }
}
