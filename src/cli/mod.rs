//! The two command lines: what is typed, and which command it runs.

pub mod backup_options;
pub mod rsync_system_backup;
pub mod rsyncd_snapshot;
