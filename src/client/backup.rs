//! The steps of a run, in the order of the Python program: notify, unlock, mount, transfer,
//! snapshot, rotate, notify.
//!
//! - Checks of the command line come before anything is unlocked, and checks of the disk before
//!   anything is transferred.
//! - Rotation comes last, so nothing expires before the new backup is there.
//! - The disk is unmounted and locked again whatever failed, and before the last notification: a
//!   user who reads that the backup is finished may unplug the disk.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Instant;

use crate::client::backup_job::BackupJob;
use crate::client::destination::Destination;
use crate::client::disk::mount::Disk;
use crate::client::error::{ClientError, Result};
use crate::client::locks::{BackupLocks, lock_directory};
use crate::client::machine::Privilege;
use crate::client::notify::{self, Urgency};
use crate::client::rsync::arguments::{self, TransferOutcome, outcome_of};
use crate::client::rsync::transfer::{RsyncConnection, make_destination, refuse_token_in_source};
use crate::client::safety::{checks, known_destinations};
use crate::client::snapshots::destination_snapshots::DestinationSnapshots;
use crate::module::context::Context;
use crate::tell::duration::duration_text;
use crate::tell::exit::Exit;

/// # Errors
/// The first error; the others are logged.
pub(crate) fn execute(job: &BackupJob, context: &Context) -> Result<Exit> {
    let began = Instant::now();
    checks::check_paths(job)?;
    let _lock = BackupLocks::acquire(job)?;
    let mut disk = Disk::find(&job.machine, job.crypto.as_deref(), job.mount_point.as_deref())?;
    let shows_notifications = job.shows_notifications && job.actions.backup;
    if shows_notifications {
        notify::show("Starting backup", Urgency::Normal);
    }
    let result = disk.prepare().and_then(|()| back_up(job, context));
    let result = first_error(result, disk.unmount_and_lock());
    let took = duration_text(began.elapsed());
    match &result {
        Ok(_) if shows_notifications => {
            notify::show(&format!("Finished backup in {took}."), Urgency::Normal)
        }
        Err(_) if shows_notifications => {
            let body = format!("Backup failed after {took}! Review the system logs for details.");
            notify::show(&body, Urgency::Critical);
        }
        _ => {}
    }
    if result.is_ok() {
        log::info!("done in {took}");
    }
    result
}

/// The steps between mounting and unmounting.
fn back_up(job: &BackupJob, context: &Context) -> Result<Exit> {
    let mut checked = job.clone();
    if job.actions.backup {
        // rsync gets the path without symbolic links that was checked: otherwise a link that
        // changes meanwhile leads elsewhere, and filters for absolute paths do not match.
        checked.source = checks::check_directories(job)?;
    }
    let job = &checked;
    let directory = destination_directory(job)?;
    let snapshots =
        directory.as_ref().map(|directory| DestinationSnapshots { job, context, directory });
    let status = match job.actions.backup {
        true => Some(transfer(job, snapshots.as_ref())?),
        false => None,
    };
    let is_partial = status
        .is_some_and(|status| outcome_of(status, job.is_remote()) == TransferOutcome::Partial);
    let exit = if is_partial { Exit::Warnings } else { Exit::Done };
    match snapshots {
        Some(snapshots) => {
            Ok(exit.max(snapshots.take_and_rotate(status.filter(|_| !job.dry_run))?))
        }
        None => {
            log::info!("the server makes and rotates snapshots, by the module's post-xfer exec");
            Ok(exit)
        }
    }
}

/// Checks the destination again and transfers the source to it. Returns rsync's status.
fn transfer(job: &BackupJob, snapshots: Option<&DestinationSnapshots>) -> Result<i32> {
    let local_snapshots = snapshots.filter(|_| matches!(job.destination, Destination::Local(_)));
    if let Some(snapshots) = local_snapshots {
        snapshots.refuse_lost_history()?;
    }
    refuse_token_in_source(job)?;
    make_destination(job)?;
    if let Some(snapshots) = local_snapshots.filter(|_| !job.dry_run) {
        // The directory may have been missing at the first check.
        checks::check_directories(job)?;
        snapshots.check_root()?;
    }
    let _lock = match &job.destination {
        // Held until the transfer ends: the snapshot takes the lock of the root.
        Destination::Local(directory) if !job.dry_run => lock_directory(directory)?,
        _ => None,
    };
    let mut connection = RsyncConnection::new(job)?;
    if job.destination.is_daemon() && checks::is_empty(&job.source)? {
        checks::check_empty_source(&job.source, &connection.query(arguments::list)?)?;
    }
    let transferred = connection.transfer();
    if let (Err(ClientError::Command { status: Some(status), .. }), Some(snapshots), false) =
        (&transferred, snapshots, job.dry_run)
    {
        snapshots.record_failed_transfer(*status);
    }
    let status = transferred?;
    // With snapshots, the registered root shows that backups went to this destination.
    if !job.actions.snapshot && !job.dry_run {
        known_destinations::remember(job).unwrap_or_else(|error| {
            log::warn!(
                "cannot remember {} as a known destination, so the next run may refuse it: {error}",
                job.destination
            )
        });
    }
    Ok(status)
}

/// The absolute path of the destination; `None` for a daemon. A missing directory on an SSH server
/// is made, unless this run transfers nothing.
fn destination_directory(job: &BackupJob) -> Result<Option<PathBuf>> {
    let directory = match &job.destination {
        Destination::Daemon { .. } => return Ok(None),
        Destination::Local(directory) => return Ok(Some(directory.clone())),
        Destination::Ssh { directory, .. } => directory,
    };
    let script = match job.actions.backup && !job.dry_run {
        // Mode 0700: in an open snapshot root, users could remove their files from snapshots.
        true => "umask 077 && mkdir -p -- \"$1\" && cd -- \"$1\" && pwd -P",
        // A missing directory keeps the path of the command line.
        false => "cd -- \"$1\" 2>/dev/null && pwd -P || printf '%s\\n' \"$1\"",
    };
    let mut output = job.machine.script(script, &[directory], Privilege::Own).succeed()?;
    if output.last() == Some(&b'\n') {
        output.pop();
    }
    Ok(Some(PathBuf::from(OsString::from_vec(output))))
}

/// The result of the run: the first error. All others are logged.
fn first_error(
    result: Result<Exit>,
    unmounted: std::result::Result<(), Vec<ClientError>>,
) -> Result<Exit> {
    let mut errors = unmounted.err().unwrap_or_default().into_iter();
    let result = match result {
        Ok(exit) => errors.next().map_or(Ok(exit), Err),
        failed => failed,
    };
    for error in errors {
        log::error!("cannot unmount and lock the disk again: {error}");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_the_result() {
        let failed = |text: &str| ClientError::Failed(text.to_string());
        let text = |result: Result<Exit>| result.expect_err("a failure").to_string();
        assert_eq!(text(first_error(Err(failed("work")), Err(vec![failed("umount")]))), "work");
        assert_eq!(
            text(first_error(Ok(Exit::Done), Err(vec![failed("umount"), failed("lock")]))),
            "umount"
        );
        assert!(first_error(Ok(Exit::Warnings), Ok(())).is_ok_and(|exit| exit == Exit::Warnings));
    }
}
