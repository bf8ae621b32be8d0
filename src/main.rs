//! `rsyncd-snapshot`: see the library.

fn main() -> std::process::ExitCode {
    rsyncd_snapshot::rsyncd_snapshot_main()
}
