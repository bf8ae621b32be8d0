//! Remembers destinations that earlier backups went to, for runs that make no snapshots. With
//! snapshots, the registered snapshot root shows it.
//!
//! After a good transfer, this machine records the destination's path, inode and time of birth.
//! Another disk that is mounted there, or a new directory of this name, is another destination.
//! Without a record, or if a record cannot be written, the destination stays unknown. Then a run
//! refuses more, and deletes nothing.

use std::path::PathBuf;

use crate::client::backup_job::BackupJob;
use crate::client::error::{ClientError, Result};
use crate::client::locks::make_directory;
use crate::client::safety::probe::ProbedDestination;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// Whether an earlier backup went to the probed destination.
pub(crate) fn contains(job: &BackupJob, probed: &ProbedDestination) -> bool {
    let known = record(probed)
        .zip(file(job))
        .map(|(record, file)| std::fs::read(file).is_ok_and(|bytes| bytes == record.as_bytes()));
    known.unwrap_or(false)
}

/// Records that a backup went to the job's destination.
///
/// # Errors
/// If the destination cannot be probed, or the record cannot be written.
pub(crate) fn remember(job: &BackupJob) -> Result<()> {
    let Some(directory) = job.destination.directory() else { return Ok(()) };
    let probed = ProbedDestination::probe(job, directory)?;
    let Some((record, file)) = record(&probed).zip(file(job)).filter(|_| !contains(job, &probed))
    else {
        return Ok(());
    };
    file.parent().map_or(Ok(()), make_directory)?;
    // A crash may leave half a record, which equals no destination.
    std::fs::write(&file, record)
        .map_err(|cause| ClientError::from(Error::io("write", &file, cause)))
}

fn record(probed: &ProbedDestination) -> Option<String> {
    Some(format!("{}\n{}\n", escape_path(&probed.path), probed.birth.as_ref()?))
}

/// One file for each DESTINATION of a command line, named as its runtime directory.
fn file(job: &BackupJob) -> Option<PathBuf> {
    Some(job.known_destinations.as_ref()?.join(job.runtime_directory.file_name()?))
}
