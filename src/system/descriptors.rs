//! Descriptors that rsyncd leaves open in its hooks: its log, its lock file, the connection's
//! pipes.
//!
//! A hook has no use for them, and a process that outlives the hook would keep them open.

use std::fs;

/// Closes all but standard input, output and error. To be called before anything else is opened.
pub(crate) fn close() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    // One of them was that of the listing, which is closed by now.
    for descriptor in open {
        let _ = nix::unistd::close(descriptor);
    }
}
