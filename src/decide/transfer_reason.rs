//! The reason of a [verdict](crate::decide::transfer_decision) about a transfer, which the log,
//! `check`, `list` and the record show.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::decide::grade::Grade;
use crate::decide::rsync_status::RsyncStatus;
use crate::decide::verdict_facts::NothingWritten;

/// The reason of a verdict about a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum TransferReason {
    /// A push ended well, and nothing keeps its snapshot from being complete.
    EndedWell,
    /// The administrator asked for a snapshot.
    AskedFor,
    /// A snapshot was due from an earlier run.
    #[serde(rename = "owed")]
    Due,
    /// Nothing was written.
    NothingWritten {
        /// How that is known.
        how: NothingWritten,
    },
    /// The transfer failed.
    Failed {
        /// rsync's status.
        status: i32,
    },
    /// Other pushes had left their snapshot to this push, which has failed.
    OthersLeft {
        /// rsync's status.
        status: i32,
    },
    /// Failed pushes have not been repeated.
    Torn {
        /// Their clients and destinations; empty for a client that is not known.
        pushes: Vec<String>,
    },
    /// The tree has not changed since a failed transfer of an unknown client.
    StillTorn,
    /// Other pushes are running.
    Running {
        /// How many.
        count: usize,
        /// Whether one writes into files that the snapshot shares.
        in_place: bool,
    },
    /// The ledger missed the transfer, so other transfers may be running.
    NotInLedger,
    /// A client says in the module that its backup is not finished.
    ClientUnfinished,
    /// A client says in the module that it could not transfer everything.
    ClientPartial,
    /// The machine was started again since the push.
    Restarted,
    /// The snapshot is left to pushes that are still running.
    LeftToPushes {
        /// How many.
        count: usize,
    },
    /// The snapshot is left to the client, which has more to send.
    LeftToClient,
    /// The last snapshot is younger than `min_interval`.
    TooSoon,
    /// Nothing has changed since the newest snapshot of that grade.
    Unchanged {
        /// Complete or partial.
        grade: Grade,
    },
}

impl fmt::Display for TransferReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferReason::EndedWell => write!(f, "a push ended well"),
            TransferReason::AskedFor => write!(f, "asked for by hand"),
            TransferReason::Due => write!(f, "an earlier run left it due"),
            TransferReason::NothingWritten { how } => match how {
                NothingWritten::NotAPush => write!(f, "the transfer was not a push"),
                NothingWritten::ReadOnly => {
                    write!(f, "rsyncd.conf lets this client only read, so it wrote nothing")
                }
                NothingWritten::RefusedOption => {
                    write!(
                        f,
                        "rsyncd.conf refuses one of the client's options, so it wrote nothing"
                    )
                }
            },
            TransferReason::Failed { status } => {
                write!(f, "the transfer ended with {}", RsyncStatus(*status))
            }
            TransferReason::OthersLeft { status } => write!(
                f,
                "the last of several pushes ended with status {status}, and the policy wants a \
                 partial snapshot of what the others wrote"
            ),
            TransferReason::Torn { pushes } if pushes.is_empty() => {
                write!(
                    f,
                    "a transfer of an unknown client failed, and the tree is not known to be whole"
                )
            }
            TransferReason::Torn { pushes } => {
                write!(f, "failed and not repeated yet: the push of {}", pushes.join(", of "))
            }
            TransferReason::StillTorn => {
                write!(f, "the tree is still as a failed transfer left it")
            }
            TransferReason::Running { count, in_place } => {
                write!(f, "{} still running", pushes_are(*count))?;
                match in_place {
                    true => {
                        write!(f, "; one writes into files in place, which this snapshot shares")
                    }
                    false => Ok(()),
                }
            }
            TransferReason::NotInLedger => {
                write!(
                    f,
                    "pre-xfer has not recorded that this transfer runs, so it may overlap with \
                     others"
                )
            }
            TransferReason::ClientUnfinished => {
                write!(f, "a client has begun a backup here and not finished it")
            }
            TransferReason::ClientPartial => write!(f, "the client could not transfer everything"),
            TransferReason::Restarted => {
                write!(
                    f,
                    "the machine was started again since that push, which may be on disk only in \
                     part"
                )
            }
            TransferReason::LeftToPushes { count } => {
                write!(f, "left to {} still running", pushes_are(*count))
            }
            TransferReason::LeftToClient => write!(f, "left to the client, which has not finished"),
            TransferReason::TooSoon => {
                write!(f, "sooner than min_interval after the snapshot before")
            }
            TransferReason::Unchanged { grade } => {
                write!(f, "nothing changed since the newest {grade} snapshot")
            }
        }
    }
}

fn pushes_are(count: usize) -> String {
    if count == 1 { "1 push that is".to_string() } else { format!("{count} pushes that are") }
}
