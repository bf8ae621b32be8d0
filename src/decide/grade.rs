//! From the status of a transfer to the grade of a snapshot.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a snapshot's content is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Taken after a transfer that did not end well, or while the module is torn.
    Partial,
    /// A state that a transfer finished.
    Complete,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Grade::Partial => "partial",
            Grade::Complete => "complete",
        })
    }
}

/// What the end of a transfer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// The transfer ended well: a complete snapshot, if anything changed.
    Complete,
    /// It ended badly, and the policy wants a partial snapshot of that.
    Partial,
    /// It ended badly: no snapshot.
    Nothing,
}

impl Intent {
    /// Reads the policy's `snapshot_on_exit` and `partial_on_exit` for a transfer's exit status.
    pub fn of_status(status: i32, snapshot_on_exit: &[i32], partial_on_exit: &[i32]) -> Self {
        if snapshot_on_exit.contains(&status) {
            Intent::Complete
        } else if partial_on_exit.contains(&status) {
            Intent::Partial
        } else {
            Intent::Nothing
        }
    }

    /// Whether the transfer left the module as a mixture of two states.
    pub fn tears(self) -> bool {
        self != Intent::Complete
    }
}

/// What to make of a tree, given whether it is torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A snapshot of this grade, unless nothing changed since the newest one of it.
    Snapshot(Grade),
    /// None: the tree is torn and was not touched since.
    StillTorn,
    /// None: the transfer failed and the policy wants no partial snapshot.
    Failed,
}

/// The state of the torn mark as seen from one scan of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Torn {
    /// No mark.
    No,
    /// Marked, and the tree is as it was then.
    Unchanged,
    /// Marked, and the tree has changed since.
    Changed,
    /// Marked for clients that have not pushed well since, whatever the tree shows.
    ByOthers,
}

/// Who asked for the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A transfer that ended with this intent.
    Transfer(Intent),
    /// A person or a timer; nothing is known about the last transfer but the marks.
    Manual,
}

/// Decides the grade: a torn tree gives at most a partial snapshot until a transfer that
/// ended well has changed it.
pub fn outcome(occasion: Occasion, torn: Torn) -> Outcome {
    match (occasion, torn) {
        (Occasion::Transfer(Intent::Nothing), _) => Outcome::Failed,
        (Occasion::Transfer(Intent::Partial), _) => Outcome::Snapshot(Grade::Partial),
        (Occasion::Transfer(Intent::Complete), Torn::Unchanged) => Outcome::StillTorn,
        (Occasion::Transfer(Intent::Complete), Torn::No | Torn::Changed) => {
            Outcome::Snapshot(Grade::Complete)
        }
        (Occasion::Manual, Torn::No) => Outcome::Snapshot(Grade::Complete),
        (Occasion::Transfer(Intent::Complete), Torn::ByOthers)
        | (Occasion::Manual, Torn::Unchanged | Torn::Changed | Torn::ByOthers) => {
            Outcome::Snapshot(Grade::Partial)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_in_neither_list_earns_nothing_and_tears() {
        let intent = |status| Intent::of_status(status, &[0, 24], &[12]);
        assert_eq!(intent(0), Intent::Complete);
        assert_eq!(intent(24), Intent::Complete);
        assert_eq!(intent(12), Intent::Partial);
        assert_eq!(intent(-1), Intent::Nothing);
        assert!(!intent(24).tears() && intent(12).tears() && intent(20).tears());
    }

    #[test]
    fn a_torn_tree_is_never_published_as_complete_before_a_good_transfer_changed_it() {
        let good = Occasion::Transfer(Intent::Complete);
        assert_eq!(outcome(good, Torn::Unchanged), Outcome::StillTorn);
        assert_eq!(outcome(good, Torn::Changed), Outcome::Snapshot(Grade::Complete));
        assert_eq!(outcome(Occasion::Manual, Torn::Changed), Outcome::Snapshot(Grade::Partial));
        assert_eq!(outcome(Occasion::Manual, Torn::Unchanged), Outcome::Snapshot(Grade::Partial));
        assert_eq!(outcome(Occasion::Manual, Torn::No), Outcome::Snapshot(Grade::Complete));
        for occasion in [good, Occasion::Manual] {
            assert_eq!(outcome(occasion, Torn::ByOthers), Outcome::Snapshot(Grade::Partial));
        }
    }

    #[test]
    fn a_failed_transfer_is_partial_at_most() {
        for torn in [Torn::No, Torn::Unchanged, Torn::Changed, Torn::ByOthers] {
            assert_eq!(outcome(Occasion::Transfer(Intent::Nothing), torn), Outcome::Failed);
            assert_eq!(outcome(Occasion::Transfer(Intent::Partial), torn), Outcome::Snapshot(Grade::Partial));
        }
    }
}
