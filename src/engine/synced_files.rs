//! Makes durable what a comparison finds to be new in the live tree.
//!
//! Most file systems write all of it to the disk in one call before a snapshot becomes visible.
//! ceph-fuse passes that call on to no one, so there each new file is synced by itself, and each
//! directory whose entries differ. Whatever the last snapshot has was synced for that one.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::unistd::fsync;

use crate::engine::descent::Descent;
use crate::system::cephfs::sync_file;
use crate::system::identity::SysResult;
use crate::tell::error::{Error, Result};

/// Syncs what it is told of; several workers of one comparison share it.
#[derive(Debug, Default)]
pub(crate) struct SyncedFiles {
    synced: AtomicU64,
    /// Files that this process may not open, as an ordinary user.
    denied: AtomicU64,
    first_error: Mutex<Option<Error>>,
}

impl SyncedFiles {
    /// Syncs the file `name` in `directory`, which is where `live` is.
    pub(crate) fn sync(&self, live: &Descent, directory: BorrowedFd, name: &CStr) {
        self.note(sync_file(directory, name), live, Some(name));
    }

    /// Syncs the directory where `live` is.
    pub(crate) fn sync_directory(&self, live: &Descent, directory: BorrowedFd) {
        self.note(fsync(directory), live, None);
    }

    /// How many files and directories were synced, and how many this process may not open: these
    /// are left to the client, which writes them within seconds.
    ///
    /// # Errors
    /// The first error: then not all that is new is durable.
    pub(crate) fn finish(self) -> Result<(u64, u64)> {
        let error = self.first_error.into_inner().unwrap_or_else(PoisonError::into_inner);
        error.map_or(Ok((self.synced.into_inner(), self.denied.into_inner())), Err)
    }

    fn note(&self, synced: SysResult<()>, live: &Descent, name: Option<&CStr>) {
        match synced {
            Ok(()) => {
                self.synced.fetch_add(1, Ordering::Relaxed);
            }
            // It has gone, and with it what was to be synced.
            Err(Errno::ENOENT | Errno::ESTALE) => {}
            Err(Errno::EACCES | Errno::EPERM) => {
                self.denied.fetch_add(1, Ordering::Relaxed);
            }
            Err(cause) => {
                let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| live.error("sync", name, cause));
            }
        }
    }
}
