//! `rsyncd-snapshot`: see the library.

fn main() -> std::process::ExitCode {
    rsyncd_snapshot::cli::rsyncd_snapshot::main()
}
