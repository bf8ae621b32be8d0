//! The verdict about a transfer or a run, as data: its snapshot, the marks, and whether a snapshot
//! stays due. [`transfer_decision`](crate::decide::transfer_decision) makes it.

use crate::decide::grade::Grade;
use crate::decide::torn_mark::TornMark;
use crate::decide::transfer_reason::TransferReason;
use crate::decide::verdict_facts::*;

/// What becomes of the due mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueMarkChange {
    /// It stays as it is.
    Keep,
    /// It is cleared.
    Clear,
    /// A snapshot is due from now on. A due mark that exists already is older, and may be for a
    /// better grade.
    Set {
        /// Why it is due.
        reason: DueReason,
        /// Who asks for it.
        asked: Asked,
    },
}

/// The verdict about a transfer or a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferVerdict {
    /// The grade of the snapshot to make, if one is to be made.
    pub snapshot: Option<Grade>,
    /// Why there is a snapshot of that grade, or none.
    pub because: TransferReason,
    /// The failed pushes that are not made up for.
    pub marks: Option<TornMark>,
    /// What becomes of the due mark.
    pub due_mark: DueMarkChange,
}

impl TransferVerdict {
    /// The grade of the snapshot that holds the tree once the verdict is carried out; `None`
    /// without one.
    pub fn covered(&self) -> Option<Grade> {
        match self.because {
            TransferReason::Unchanged { grade } => Some(grade),
            _ => self.snapshot,
        }
    }

    /// This verdict combined with `again`, the verdict after the tree was cloned: a failure or a
    /// backup that began meanwhile makes a complete snapshot partial. The snapshot is made in any
    /// case, because the clone exists.
    #[must_use]
    pub fn after_clone(self, again: TransferVerdict) -> Self {
        match (self.snapshot, again.snapshot) {
            (Some(Grade::Complete), Some(Grade::Complete)) => self,
            (Some(Grade::Complete), _) => {
                TransferVerdict { snapshot: Some(Grade::Partial), ..again }
            }
            _ => self,
        }
    }

    /// Whether a tree that does not differ from the newest complete snapshot proves that this
    /// snapshot still shows it. Writes in place change no name or inode number, and a failed
    /// transfer may have left anything.
    pub fn lets_verified_until_move(&self, differs_from_complete: Option<bool>) -> bool {
        let is_in_place = self.marks.as_ref().is_some_and(TornMark::is_in_place);
        let is_failed = matches!(self.because, TransferReason::Failed { .. });
        differs_from_complete == Some(false) && !is_in_place && !is_failed
    }
}
