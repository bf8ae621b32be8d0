//! Destinations that backups went to before, where no snapshots tell of it because none are made.
//!
//! Noted on this machine after a transfer that ended well: the destination's path, inode and time
//! of birth. Another disk that is mounted there, or a directory that was made anew, is another
//! destination. Where nothing can be noted, the destination stays unknown: then more is refused,
//! and nothing is deleted.

use std::path::PathBuf;

use crate::client::disk::lock::make_directory;
use crate::client::failure::{Failure, Result};
use crate::client::job::Job;
use crate::client::safety::probe::Sight;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// Whether a backup went to what is seen.
pub(crate) fn is_met(job: &Job, sight: &Sight) -> bool {
    let met = note(sight)
        .zip(file(job))
        .map(|(note, file)| std::fs::read(file).is_ok_and(|met| met == note.as_bytes()));
    met.unwrap_or(false)
}

/// Notes that a backup went to the job's destination.
///
/// # Errors
/// If that cannot be seen or written.
pub(crate) fn meet(job: &Job) -> Result<()> {
    let Some(directory) = job.destination.directory() else { return Ok(()) };
    let sight = Sight::of(job, directory)?;
    let Some((note, file)) = note(&sight).zip(file(job)).filter(|_| !is_met(job, &sight)) else {
        return Ok(());
    };
    file.parent().map_or(Ok(()), make_directory)?;
    // Half a note is none.
    std::fs::write(&file, note).map_err(|cause| Failure::from(Error::io("write", &file, cause)))
}

fn note(sight: &Sight) -> Option<String> {
    Some(format!("{}\n{}\n", escape_path(&sight.path), sight.birth.as_ref()?))
}

/// One for each destination as it was written, as the lock's directory.
fn file(job: &Job) -> Option<PathBuf> {
    Some(job.memory.as_ref()?.join(job.directory.file_name()?))
}
