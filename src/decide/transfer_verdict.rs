//! What becomes of a transfer: its snapshot, its marks, what is owed.

use crate::decide::grade::Grade;
use crate::decide::torn_mark::TornMark;
use crate::decide::transfer_reason::TransferReason;
use crate::decide::verdict_facts::*;

/// What happens to the debt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// It stays as it is.
    AsBefore,
    /// It is paid.
    Paid,
    /// A snapshot is owed from now on; a standing debt may be worth more, and is older.
    Marked {
        /// Why.
        reason: DueReason,
        /// Who asks.
        asked: Asked,
    },
}

/// What is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferVerdict {
    /// The grade of the snapshot to make, if one is to be made.
    pub snapshot: Option<Grade>,
    /// Why.
    pub because: TransferReason,
    /// The failed pushes that stand from now on.
    pub marks: Option<TornMark>,
    /// What happens to the debt.
    pub owed: Owed,
}

impl TransferVerdict {
    /// The grade up to which the tree is safe in a snapshot once this is carried out.
    pub fn covered(&self) -> Option<Grade> {
        match self.because {
            TransferReason::Unchanged { grade } => Some(grade),
            _ => self.snapshot,
        }
    }

    /// This verdict after a second look, when the tree was cloned: a failure or a backup that began
    /// meanwhile makes a complete snapshot partial. It is made in any case: the tree is cloned.
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
    /// snapshot still shows it. Writes in place are in no name or inode, and a failed transfer may
    /// have left anything.
    pub fn lets_verified_until_move(&self, differs_from_complete: Option<bool>) -> bool {
        let is_in_place = self.marks.as_ref().is_some_and(TornMark::is_in_place);
        let is_failed = matches!(self.because, TransferReason::Failed { .. });
        differs_from_complete == Some(false) && !is_in_place && !is_failed
    }
}
