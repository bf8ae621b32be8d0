//! What `--version` prints: which program this is, for a report of a fault.

use std::sync::LazyLock;

use crate::store::format::{FORMAT, FORMAT_WITH_METHOD};

/// The commit that it was built from; `packaging/build` sets it.
const COMMIT: Option<&str> = option_env!("RSYNCD_SNAPSHOT_COMMIT");

/// The version and what belongs to it, a line each.
pub(crate) static DETAILS: LazyLock<String> = LazyLock::new(|| {
    let commit = COMMIT.unwrap_or("unknown, since packaging/build did not build it");
    let libc = match (cfg!(target_env = "musl"), cfg!(target_env = "gnu")) {
        (true, _) => "static",
        (_, true) => "with the GNU C library",
        _ => "with the C library of the system",
    };
    format!(
        "{}\ncommit: {commit}\nbuilt for: {}, {libc}\nsnapshots by: hard links, btrfs\n\
         format of the files in a snapshot root: {FORMAT}; with btrfs: {FORMAT_WITH_METHOD}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
    )
});
