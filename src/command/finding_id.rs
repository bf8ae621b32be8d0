//! The kinds of findings of `check`.
//!
//! Each kind has a name in JSON that stays, so that monitoring can tell findings apart without
//! their texts. docs/json.md lists all of them.

use serde::Serialize;

/// Makes the enum and the list of all its values.
macro_rules! ids {
    ($($(#[$doc:meta])* $id:ident,)*) => {
        /// What a finding is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub(crate) enum FindingId { $($(#[$doc])* $id,)* }

        impl FindingId {
            #[cfg(test)]
            const ALL: &[FindingId] = &[$(FindingId::$id,)*];
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

    #[test]
    fn each_id_is_documented() {
        let page = include_str!("../../docs/json.md");
        for id in FindingId::ALL {
            let name = serde_json::to_string(id).expect("a name");
            let name = format!("`{}`", name.trim_matches('"'));
            assert!(page.contains(&name), "docs/json.md does not describe {name}");
        }
    }
}
