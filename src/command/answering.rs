//! Whether the file system of a path answers at all.
//!
//! The server of a mount may be dead, or a disk may hang. What asks it then waits for ever, and a
//! `check` or an `--all` with it. So another thread asks first, and is left behind if it gets no
//! answer.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::command::finding::{Finding, Level};
use crate::tell::escape::escape_path;

/// A disk that spins up answers within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to say of `path` if nothing is known of it in time.
pub(crate) fn silence(path: &Path) -> Option<Finding> {
    (!answers(path)).then(|| {
        let message = format!(
            "the file system of {} has not answered for {} s: its server or disk may be gone; no run can work on this module until it is back or unmounted",
            escape_path(path),
            PATIENCE.as_secs()
        );
        Finding::new(Level::Critical, message)
    })
}

/// Whether the state of `path` and of the directory that it is in can be had in time, be it an
/// error.
pub(crate) fn answers(path: &Path) -> bool {
    let (sender, receiver) = mpsc::channel();
    let paths: Vec<PathBuf> =
        [Some(path), path.parent()].into_iter().flatten().map(Path::to_path_buf).collect();
    let ask = move || {
        for path in paths {
            let _ = std::fs::metadata(path);
        }
        let _ = sender.send(());
    };
    // Without a thread nothing is known.
    match thread::Builder::new().stack_size(64 << 10).spawn(ask) {
        Ok(_) => receiver.recv_timeout(PATIENCE) != Err(mpsc::RecvTimeoutError::Timeout),
        Err(_) => true,
    }
}
