//! The names of this program's files and directories in a snapshot root, each once.
//!
//! `docs/design.md` shows the layout and what each of them holds.

/// Our directory in a snapshot root; mode 0700.
pub(crate) const PRIVATE: &str = ".rsyncd-snapshot";

/// Whether an entry of a snapshot root is ours: [`PRIVATE`], or a [tree](crate::store::shelf) that
/// cannot lie in it.
pub(crate) fn is_private(name: &[u8]) -> bool {
    name.strip_prefix(PRIVATE.as_bytes())
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
}

/// The file that says which module a root belongs to.
pub(crate) const REGISTRATION_FILE: &str = "root.toml";

/// What runs leave for later ones.
pub(crate) const STATE_FILE: &str = "state.toml";

/// A copy of a state file that could not be understood.
pub(crate) const DAMAGED_STATE_FILE: &str = "state.toml.damaged";

/// A copy of the pins, for the case that the state is lost.
pub(crate) const PINS_FILE: &str = "pins.toml";

/// The snapshots that vanished without a run that removed them.
pub(crate) const VANISHED_FILE: &str = "vanished.toml";

/// The files that a verification found altered.
pub(crate) const DAMAGE_FILE: &str = "damage.toml";

/// What `list --sizes` has counted.
pub(crate) const SIZES_FILE: &str = "sizes.toml";

/// The lock of the one run that may change a root.
pub(crate) const LOCK_FILE: &str = "lock";

/// A directory below [`PRIVATE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subdir {
    /// What is known about each snapshot.
    Records,
    /// The directories of each snapshot as they were.
    Index,
    /// The inode log and its windows.
    Inodes,
    /// A snapshot that is being built, or removed.
    Staging,
    /// Retired snapshots, whole.
    Expired,
    /// What could not be removed.
    Unremovable,
    /// The ledger: transfers that are running or not settled.
    Transfers,
    /// The number that the last transfer got.
    Counters,
    /// Leases: which snapshots are being read.
    Leases,
    /// Files that are being written, and copies of what cannot be linked.
    Drafts,
    /// Files that a restore in place is making.
    Restoring,
}

impl Subdir {
    pub(crate) const ALL: [Subdir; 11] = [
        Subdir::Records,
        Subdir::Index,
        Subdir::Inodes,
        Subdir::Staging,
        Subdir::Expired,
        Subdir::Unremovable,
        Subdir::Transfers,
        Subdir::Counters,
        Subdir::Leases,
        Subdir::Drafts,
        Subdir::Restoring,
    ];

    /// Its name on disk.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Subdir::Records => "records",
            Subdir::Index => "index",
            Subdir::Inodes => "inodes",
            Subdir::Staging => "staging",
            Subdir::Expired => "expired",
            Subdir::Unremovable => "unremovable",
            Subdir::Transfers => "transfers",
            Subdir::Counters => "counters",
            Subdir::Leases => "leases",
            Subdir::Drafts => "drafts",
            Subdir::Restoring => "restoring",
        }
    }

    /// Whether this program writes files in it. The others hold only trees.
    pub(crate) fn holds_files(self) -> bool {
        !matches!(self, Subdir::Staging | Subdir::Expired | Subdir::Unremovable)
    }
}
