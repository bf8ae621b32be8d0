//! The two command lines: what is typed, and which command it runs.

pub(crate) mod backup_options;
pub(crate) mod rsync_system_backup;
pub(crate) mod rsyncd_snapshot;
