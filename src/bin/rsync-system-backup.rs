//! `rsync-system-backup`: see the library.

fn main() -> std::process::ExitCode {
    rsyncd_snapshot::cli::rsync_system_backup::main()
}
