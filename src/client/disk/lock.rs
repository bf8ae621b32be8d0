//! One run at a time for each destination, each mount point and each encrypted device.
//!
//! A local destination is taken for the transfer itself, too, as it may be reached by several
//! paths. The locks are `flock`s on files of this machine that are never unlinked, so a run that
//! dies frees them. A run that finds one taken ends at once: the next is due soon, and a queue of
//! backups helps nobody.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::client::failure::{Failure, Result};
use crate::client::job::Job;
use crate::store::dir::Dir;
use crate::store::lock::RootLock;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// The locks of a run, held until this is dropped.
pub(crate) struct ClientLock {
    _locks: Vec<RootLock>,
}

impl ClientLock {
    /// Takes the locks of `job`.
    ///
    /// # Errors
    /// [`Failure::Busy`] if another run holds one.
    pub(crate) fn acquire(job: &Job) -> Result<Self> {
        let mut directories = vec![job.directory.clone()];
        let mut add = |kind: &str, name: &[u8]| {
            let name = format!("{kind}-{:08x}", crc32fast::hash(name));
            directories.push(job.directory.with_file_name(name));
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
        Ok(ClientLock { _locks: locks.collect::<Result<_>>()? })
    }
}

/// Takes a directory of this machine for a transfer into it: another run may reach it by another
/// path, or as another user. Where it may not be opened, or its file system has no such locks,
/// nothing is taken.
///
/// # Errors
/// [`Failure::Busy`] if another run has taken it.
pub(crate) fn take_directory(path: &Path) -> Result<Option<File>> {
    let Ok(directory) = File::open(path) else { return Ok(None) };
    match fs2::FileExt::try_lock_exclusive(&directory) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Failure::Busy(format!(
            "another run is at work on {}, by another path or as another user; nothing was done",
            escape_path(path)
        ))),
        _ => Ok(Some(directory)),
    }
}

fn acquire_one(job: &Job, path: &Path, holder: &str) -> Result<RootLock> {
    make_directory(path)?;
    let directory = File::open(path).map_err(|cause| Error::io("open", path, cause))?;
    let mut lock = RootLock::open(Dir { directory: directory.as_fd(), path })?;
    match lock.try_acquire(holder)? {
        true => Ok(lock),
        false => Err(Failure::Busy(format!(
            "another run is at work on {}: {}; nothing was done",
            job.destination,
            lock.holder()
        ))),
    }
}

/// Makes a directory that nobody else can look into.
///
/// # Errors
/// If that fails.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|cause| Error::io("make", path, cause).into())
}
