//! Whether the file system of a path answers at all.
//!
//! The server of a mount may be dead, or a disk may hang. A thread that asks it then waits for
//! ever, and with it a `check` or a run for all modules. So another thread asks first, and is
//! abandoned if it gets no answer. If a path has not answered once, this process never asks it
//! again, so a dead server of many modules costs only one wait. A path that has just answered is
//! not asked again either, because each question costs a thread, and a command asks for each module
//! at several steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::system::mounts::Mounts;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// A disk that spins up answers within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// For how long an answer counts. A server can die right after an answer, too, so a shorter time
/// would not make a wait impossible.
const FRESH: Duration = Duration::from_secs(1);

/// When paths answered.
static ANSWERED: Mutex<BTreeMap<PathBuf, Instant>> = Mutex::new(BTreeMap::new());

/// The paths that have not answered, and the mounts of servers that they lie on.
static SILENT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Fails unless the file system answers questions about `path` and its parent directory in time,
/// whatever the answer is.
///
/// # Errors
/// [`Error::NoAnswer`] after ten seconds.
pub(crate) fn ensure_responsive(path: &Path) -> Result<()> {
    match is_responsive(path) {
        true => Ok(()),
        false => Err(Error::NoAnswer { path: escape_path(path), seconds: PATIENCE.as_secs() }),
    }
}

/// Whether the file system answers questions about `path` and its parent directory in time.
pub(crate) fn is_responsive(path: &Path) -> bool {
    let is_silent = |silent: &Vec<PathBuf>| silent.iter().any(|silent| path.starts_with(silent));
    if SILENT.lock().is_ok_and(|silent| is_silent(&silent)) {
        return false;
    }
    if ANSWERED.lock().is_ok_and(|answered| is_fresh(answered.get(path), Instant::now())) {
        return true;
    }
    let has_answered = asked(path);
    if has_answered && let Ok(mut answered) = ANSWERED.lock() {
        answered.insert(path.to_path_buf(), Instant::now());
    }
    if !has_answered && let Ok(mut silent) = SILENT.lock() {
        silent.push(path.to_path_buf());
        silent.extend(Mounts::read().and_then(|mounts| mounts.served_mount_of(path)));
    }
    has_answered
}

fn is_fresh(answered: Option<&Instant>, now: Instant) -> bool {
    answered.is_some_and(|at| now.saturating_duration_since(*at) < FRESH)
}

fn asked(path: &Path) -> bool {
    let (sender, receiver) = mpsc::channel();
    let paths: Vec<PathBuf> =
        [Some(path), path.parent()].into_iter().flatten().map(Path::to_path_buf).collect();
    let ask = move || {
        for path in paths {
            let _ = std::fs::metadata(path);
        }
        let _ = sender.send(());
    };
    // If no thread can start, nothing is known, and the caller asks the file system itself.
    match thread::Builder::new().stack_size(64 << 10).spawn(ask) {
        Ok(_) => receiver.recv_timeout(PATIENCE) != Err(mpsc::RecvTimeoutError::Timeout),
        Err(_) => true,
    }
}
