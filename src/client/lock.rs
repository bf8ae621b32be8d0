//! One run at a time for each destination and each mount point.
//!
//! The locks are `flock`s on files of this machine that are never unlinked, so a run that dies frees them. A run that finds
//! one taken ends at once: the next is due soon, and a queue of backups helps nobody.

use std::fs::{DirBuilder, File};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::failure::{Failure, Result};
use super::job::Job;
use crate::store::durable::Place;
use crate::store::lock::Lock;
use crate::tell::error::Error;

/// The locks of a run, held until this is dropped.
pub struct ClientLock {
    _locks: Vec<Lock>,
}

impl ClientLock {
    /// Takes the locks of `job`.
    ///
    /// # Errors
    /// [`Failure::Busy`] if another run holds one.
    pub fn acquire(job: &Job) -> Result<Self> {
        let mut names = vec![job.destination.argument(None)];
        if let Some(mount_point) = &job.mount_point {
            names.push([b"mount ".as_slice(), mount_point.as_os_str().as_encoded_bytes()].concat());
        }
        let now = chrono::Utc::now().format("%FT%TZ");
        let holder = format!("process {} since {now}", std::process::id());
        let locks = names.iter().map(|name| acquire_one(job, name, &holder)).collect::<Result<_>>()?;
        Ok(ClientLock { _locks: locks })
    }
}

fn acquire_one(job: &Job, name: &[u8], holder: &str) -> Result<Lock> {
    // The directory's name need not be read, only be the same for the same destination.
    let path = job.directory.join(format!("lock-{:08x}", crc32fast::hash(name)));
    make_directory(&path)?;
    let directory = File::open(&path).map_err(|cause| Error::io("open", &path, cause))?;
    let mut lock = Lock::open(Place { directory: directory.as_fd(), path: &path })?;
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
pub fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|cause| Error::io("make", path, cause).into())
}
