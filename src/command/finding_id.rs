//! The kinds of findings of `check`.
//!
//! Each kind has a name in JSON that stays, so that monitoring can tell findings apart without
//! their texts. docs/json.md lists all of them, and docs/operations.md what to do about each.

use serde::{Deserialize, Serialize};

/// Makes the enum and the list of all its values.
macro_rules! ids {
    ($($(#[$doc:meta])* $id:ident,)*) => {
        /// What a finding is about.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(rename_all = "kebab-case")]
        pub(crate) enum FindingId { $($(#[$doc])* $id,)* }

        impl FindingId {
            /// Whether it is about snapshots, runs or pushes, and not about what leads to them.
            pub(crate) fn is_of_history(self) -> bool {
                self > FindingId::ModuleChroot
            }

            #[cfg(test)]
            const ALL: &[FindingId] = &[$(FindingId::$id,)*];

            /// Its name in JSON.
            pub(crate) fn name(self) -> String {
                let quoted = serde_json::to_string(&self).unwrap_or_default();
                quoted.trim_matches('"').to_string()
            }
        }
    };
}

ids! {
    // The configuration.
    ConfUnreadable,
    ConfParameter,
    NoModule,
    PolicyMistake,
    PolicyModule,
    Hook,
    HookVariable,
    HookMissing,
    HookPolicy,
    RestoreModule,
    PreXferMissing,
    ReadOnly,
    AuthUsers,
    SecretsFile,
    HostsExample,
    HostsUnresolved,
    HostsRefused,
    ConfFile,
    RefuseOptions,
    PartialDirs,
    WritesSnapshots,
    SharesFiles,
    SnapshotDirectory,
    Timeout,
    Daemon,
    // The module's directory.
    ModuleUnknown,
    ModuleDirectory,
    ModuleAccess,
    ModuleChroot,
    // The snapshot root.
    RootShared,
    RootNested,
    RootPlace,
    RootLost,
    Root,
    RootOpen,
    RootNew,
    FileSystem,
    HardLinks,
    SnapshotLimit,
    MemoryLost,
    RecordsLost,
    // Runs, pushes and snapshots.
    LastRun,
    LongRun,
    LongJob,
    Lease,
    Marks,
    FailedPush,
    PushesWithoutSnapshot,
    UnfinishedBackup,
    StaleTemporaries,
    ExpiryPaused,
    SnapshotList,
    SnapshotLosses,
    SnapshotCopies,
    Unremovable,
    Vanished,
    Undated,
    Age,
    PushAge,
    RunningPush,
    AtWork,
    NewerVersion,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in the first column of the tables whose head begins with that of an `id`, sorted.
    fn documented(page: &str) -> Vec<&str> {
        let tables = page.split("\n\n").filter(|table| table.starts_with("| `id` |"));
        let rows = tables.flat_map(|table| table.lines().skip(2));
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        let mut names: Vec<&str> =
            cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn each_id_is_documented_once_and_no_other() {
        let mut names: Vec<String> = FindingId::ALL.iter().map(|id| id.name()).collect();
        names.sort_unstable();
        for (file, page) in [
            ("docs/json.md", include_str!("../../docs/json.md")),
            ("docs/operations.md", include_str!("../../docs/operations.md")),
        ] {
            assert_eq!(documented(page), names, "{file}");
        }
    }
}
