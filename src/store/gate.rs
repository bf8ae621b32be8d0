//! The gate: closed while a run reads the module's tree into staging.
//!
//! A push may begin only while the gate is open, and a run closes the gate only while no push is
//! running. Both are checked and changed under the ledger's lock. So no push writes to a tree that
//! is read behind a closed gate. The gate is a lock on the staging directory: the kernel opens it
//! when its run dies, and it needs no space on a full disk.

use crate::store::layout::Subdir;
use crate::store::ledger::Ledger;
use crate::store::lock::DirLock;
use crate::store::root::SnapshotRoot;
use crate::tell::error::{Error, Result};

/// The gate stays closed until this value is dropped.
pub(crate) struct Gate {
    _guard: DirLock,
}

impl Gate {
    /// Closes the gate. The caller holds the root's lock.
    ///
    /// # Errors
    /// If the directory cannot be locked, or another program has locked it.
    pub(crate) fn close(root: &SnapshotRoot, _: &Ledger) -> Result<Self> {
        let staging = root.subdir(Subdir::Staging)?;
        match DirLock::try_on_directory(staging.dir())? {
            Some(guard) => Ok(Gate { _guard: guard }),
            None => Err(Error::io("lock", staging.dir().path, nix::errno::Errno::EWOULDBLOCK)),
        }
    }

    /// Whether a run has closed the gate.
    pub(crate) fn is_closed(root: &SnapshotRoot, _: &Ledger) -> Result<bool> {
        Ok(DirLock::try_on_directory(root.subdir(Subdir::Staging)?.dir())?.is_none())
    }
}
