//! Whether the file system of a path answers at all.
//!
//! The server of a mount may be dead, or a disk may hang. A thread that asks it then waits for
//! ever, and with it a `check` or a run for all modules. So another thread asks first, and is
//! abandoned if it gets no answer. If a path has not answered once, this process never asks it
//! again, so a dead server of many modules costs only one wait. A path that has just answered is
//! not asked again either, because each question costs a thread, and a command asks for each module
//! at several steps.

use std::collections::BTreeMap;
use std::ffi::OsString;
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
const FRESH: Duration = Duration::from_secs(2);

/// A thread that asks needs no more.
const STACK_BYTES: usize = 64 << 10;

/// When paths answered. To compare paths as text takes far less time than to compare their parts.
static ANSWERED: Mutex<BTreeMap<OsString, Instant>> = Mutex::new(BTreeMap::new());

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
    if ANSWERED
        .lock()
        .is_ok_and(|answered| is_fresh(answered.get(path.as_os_str()), Instant::now()))
    {
        return true;
    }
    let has_answered = asked(path);
    if has_answered {
        note_answer(path);
    }
    if !has_answered && let Ok(mut silent) = SILENT.lock() {
        silent.push(path.to_path_buf());
        silent.extend(Mounts::read().and_then(|mounts| mounts.served_mount_of(path)));
    }
    has_answered
}

/// Asks for many paths with one thread, so that [`is_responsive`] need not start one for each of
/// them. Those that a server has are left to it, and where this takes long, the caller goes on.
pub(crate) fn ask_ahead(mut paths: Vec<PathBuf>) {
    let mounts = Mounts::read().unwrap_or_default();
    paths.retain(|path| mounts.served_mount_of(path).is_none());
    let (sender, receiver) = mpsc::channel::<()>();
    let ask = move || {
        let _until_the_end = sender;
        for path in paths {
            ask_for(&path);
            note_answer(&path);
        }
    };
    if thread::Builder::new().stack_size(STACK_BYTES).spawn(ask).is_ok() {
        let _ = receiver.recv_timeout(FRESH);
    }
}

fn note_answer(path: &Path) {
    if let Ok(mut answered) = ANSWERED.lock() {
        answered.insert(path.as_os_str().to_os_string(), Instant::now());
    }
}

fn is_fresh(answered: Option<&Instant>, now: Instant) -> bool {
    answered.is_some_and(|at| now.saturating_duration_since(*at) < FRESH)
}

fn asked(path: &Path) -> bool {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_path_buf();
    let ask = move || {
        ask_for(&path);
        let _ = sender.send(());
    };
    // If no thread can start, nothing is known, and the caller asks the file system itself.
    match thread::Builder::new().stack_size(STACK_BYTES).spawn(ask) {
        Ok(_) => receiver.recv_timeout(PATIENCE) != Err(mpsc::RecvTimeoutError::Timeout),
        Err(_) => true,
    }
}

/// Waits until the file system has answered.
fn ask_for(path: &Path) {
    for path in [Some(path), path.parent()].into_iter().flatten() {
        let _ = std::fs::metadata(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_was_asked_ahead_has_answered() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = ["there", "not there"].map(|name| directory.path().join(name));
        ask_ahead(paths.to_vec());
        let answered = ANSWERED.lock().expect("no panic");
        assert!(paths.iter().all(|path| answered.contains_key(path.as_os_str())));
    }
}
