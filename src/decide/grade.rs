//! The grade of a snapshot, which the [verdict](crate::decide::transfer_decision) decides.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a snapshot holds a finished state of the module.
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
