//! How much a running transfer has written, as `/proc` shows it.

use std::path::PathBuf;

use crate::system::small_file;

/// How many bytes the children of the process `worker` have written so far. rsync's receiver, which
/// writes the files, is a child of the process that serves the transfer; the latter writes only to
/// its client. `None` if the process is gone or this one may not see that: the kernel shows it to a
/// process of the same user that Landlock does not confine, and to one that may trace others.
pub(crate) fn bytes_written_below(worker: u32) -> Option<u64> {
    let path = PathBuf::from(format!("/proc/{worker}/task/{worker}/children"));
    let children = small_file::read_text(path).ok()?;
    let written = children.split_ascii_whitespace().map(|pid| {
        let io = small_file::read_text(format!("/proc/{pid}/io")).ok()?;
        io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok())
    });
    let all: Vec<u64> = written.collect::<Option<_>>()?;
    (!all.is_empty()).then(|| all.iter().sum())
}
