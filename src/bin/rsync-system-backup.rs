//! `rsync-system-backup`: see the library.

fn main() -> std::process::ExitCode {
    rsyncd_snapshot::client::main()
}
