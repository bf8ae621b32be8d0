//! The gate: closed while a run reads the module's tree.
//!
//! A push may begin only while the gate is open, and the gate is closed only while no push is
//! running; both are looked at and changed under the ledger's lock. So a tree that is read behind a
//! closed gate is one that nobody writes to. The gate is a lock on a file: a run that dies opens it.

use super::ledger::Ledger;
use super::lock::Lock;
use super::root::SnapshotRoot;
use crate::tell::error::{Error, Result};

const FILE: &str = "gate";

/// The gate, closed until this is dropped.
pub struct Gate {
    _lock: Lock,
}

impl Gate {
    /// Closes the gate; for a run that holds the root's long lock. `notice` says since when.
    ///
    /// # Errors
    /// If the file cannot be locked, or a stranger has locked it.
    pub fn close(root: &SnapshotRoot, _: &Ledger, notice: &str) -> Result<Self> {
        let mut lock = Lock::open(root.private(), FILE)?;
        if lock.try_acquire(notice)? {
            return Ok(Gate { _lock: lock });
        }
        let path = root.private().path.join(FILE);
        Err(Error::io("lock", &path, nix::errno::Errno::EWOULDBLOCK))
    }

    /// The notice of the run that has closed the gate; `None` while it is open.
    pub fn notice(root: &SnapshotRoot, _: &Ledger) -> Result<Option<String>> {
        let mut lock = Lock::open(root.private(), FILE)?;
        Ok(if lock.is_free()? { None } else { Some(lock.holder()) })
    }
}
