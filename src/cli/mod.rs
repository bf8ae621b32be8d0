//! Reads the command lines of rsyncd-snapshot and rsync-system-backup, and starts the command.

pub(crate) mod backup_options;
mod commands;
mod examples;
pub(crate) mod rsync_system_backup;
pub(crate) mod rsyncd_snapshot;
mod shared_arguments;
mod usage_status;
