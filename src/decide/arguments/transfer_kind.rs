//! What a transfer does with the module: it pushes, only deletes, pulls, lists, or tries.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a transfer does with the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransferKind {
    /// It writes files, or may.
    #[default]
    Push,
    /// It removes files and writes none, unless the client is hostile: a push with `--existing`,
    /// `--ignore-existing` and an option that deletes, or a pull with `--remove-source-files`. It
    /// may still set attributes of directories.
    DeletionOnly,
    /// It reads files. A recursive listing without `--list-only` looks the same.
    Pull,
    /// It reads names. A pull of a directory without what is in it (`-d`) looks the same.
    Listing,
    /// A push or pull with `--dry-run`, or a push with `--only-write-batch`: nothing is written.
    DryRun,
}

impl TransferKind {
    /// Whether the transfer may change the module.
    pub fn writes(self) -> bool {
        matches!(self, TransferKind::Push | TransferKind::DeletionOnly)
    }
}

impl fmt::Display for TransferKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransferKind::Push => "push",
            TransferKind::DeletionOnly => "deletion-only",
            TransferKind::Pull => "pull",
            TransferKind::Listing => "listing",
            TransferKind::DryRun => "dry-run",
        })
    }
}
