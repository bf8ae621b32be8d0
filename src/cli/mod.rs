//! Reads the command lines of rsyncd-snapshot and rsync-system-backup, and starts the command.

pub(crate) mod backup_options;
mod commands;
mod examples;
pub(crate) mod rsync_system_backup;
pub(crate) mod rsyncd_snapshot;
mod shared_arguments;
mod usage_status;
mod version;

/// The command lines of rsyncd-snapshot, with its examples, and of rsync-system-backup: the man
/// pages are made of them.
pub fn command_lines() -> [clap::Command; 2] {
    let client = <backup_options::BackupOptions as clap::CommandFactory>::command();
    [rsyncd_snapshot::command_line(), client]
}
