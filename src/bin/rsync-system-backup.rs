//! `rsync-system-backup`: see the library.

fn main() -> std::process::ExitCode {
    rsyncd_snapshot::rsync_system_backup_main()
}
