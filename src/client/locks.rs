//! Locks that allow one run at a time for each destination, mount point and encrypted device.
//!
//! A local directory is also locked itself during the transfer, because it may be reached by
//! several paths. The locks are `flock`s on files of this machine. The files are never unlinked,
//! and the kernel frees the lock of a run that dies. A run that finds a lock held ends at once
//! instead of waiting: the next scheduled run makes the backup.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::client::backup_job::BackupJob;
use crate::client::error::{ClientError, Result};
use crate::store::dir::Dir;
use crate::store::lock::RootLock;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// The locks of a run. They are held until this value is dropped.
pub(crate) struct BackupLocks {
    _locks: Vec<RootLock>,
}

impl BackupLocks {
    /// # Errors
    /// [`ClientError::Busy`] if another run holds one.
    pub(crate) fn acquire(job: &BackupJob) -> Result<Self> {
        let mut directories = vec![job.runtime_directory.clone()];
        let mut add = |kind: &str, name: &[u8]| {
            let name = format!("{kind}-{:08x}", crc32fast::hash(name));
            directories.push(job.runtime_directory.with_file_name(name));
        };
        if let Some(name) = &job.crypto {
            add("crypto", name.as_bytes());
        }
        if let Some(mount_point) = &job.mount_point {
            add("mount", mount_point.as_os_str().as_encoded_bytes());
        }
        let now = chrono::Utc::now().format("%FT%TZ");
        let holder = format!("process {} since {now}", std::process::id());
        let locks = directories.iter().map(|directory| acquire_one(job, directory, &holder));
        Ok(BackupLocks { _locks: locks.collect::<Result<_>>()? })
    }
}

/// Locks the directory that a transfer writes to: another run may use another path to it, or run as
/// another user. Without permission to open it, or on a file system without locks, nothing is
/// locked.
///
/// # Errors
/// [`ClientError::Busy`] if another run holds the lock.
pub(crate) fn lock_directory(path: &Path) -> Result<Option<File>> {
    let Ok(directory) = File::open(path) else { return Ok(None) };
    match fs2::FileExt::try_lock_exclusive(&directory) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ClientError::Busy(format!(
            "another run is at work on {}, by another path or as another user; nothing was done",
            escape_path(path)
        ))),
        _ => Ok(Some(directory)),
    }
}

fn acquire_one(job: &BackupJob, path: &Path, holder: &str) -> Result<RootLock> {
    make_directory(path)?;
    let directory = File::open(path).map_err(|cause| Error::io("open", path, cause))?;
    let mut lock = RootLock::open(Dir { directory: directory.as_fd(), path })?;
    match lock.try_acquire(holder)? {
        true => Ok(lock),
        false => Err(ClientError::Busy(format!(
            "another run is at work on {}: {}; nothing was done",
            job.destination,
            lock.holder()
        ))),
    }
}

/// Makes a directory, and missing parents, with mode 0700.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|cause| Error::io("make", path, cause).into())
}
