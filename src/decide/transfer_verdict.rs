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
}
