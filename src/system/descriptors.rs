//! Closes descriptors that rsyncd leaves open in its hooks: its log, its lock file, the pipes of
//! the connection. A hook does not use them, and a process that outlives the hook would keep them
//! open.

use std::fs;

/// Closes all but standard input, output and error. The caller has opened nothing yet.
pub(crate) fn close() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    // One of them belonged to the listing, which is closed by now.
    for descriptor in open {
        let _ = nix::unistd::close(descriptor);
    }
}
