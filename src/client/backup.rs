//! The steps of a run, in the order of the original: tell the desktop, unlock, mount, transfer,
//! snapshot, rotate, tell the desktop.
//!
//! What can be refused is refused before anything is unlocked, and what needs a look at the disk
//! before anything is transferred. Rotation comes last, so nothing goes before the new backup is
//! there. Between the steps and the last word the disk is put back as it was, whatever failed: the
//! desktop hears that all is well only when the disk can be unplugged.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Instant;

use crate::client::disk::lock::{ClientLock, take_directory};
use crate::client::disk::mount::Disk;
use crate::client::failure::{Failure, Result};
use crate::client::job::Job;
use crate::client::location::Destination;
use crate::client::notify::{self, Urgency};
use crate::client::place::Privilege;
use crate::client::rsync::arguments::{self, Meaning, meaning};
use crate::client::rsync::transfer::{Connection, make_destination, refuse_token_in_source};
use crate::client::safety::{checks, known_destinations};
use crate::client::snapshots::job::Snapshots;
use crate::module::context::Context;
use crate::tell::duration::span_text;
use crate::tell::exit::Exit;

/// Runs the job to its end.
///
/// # Errors
/// The first that went wrong; what else did is in the log.
pub(crate) fn execute(job: &Job, context: &Context) -> Result<Exit> {
    let began = Instant::now();
    checks::check_paths(job)?;
    let _lock = ClientLock::acquire(job)?;
    let mut disk = Disk::find(&job.place, job.crypto.as_deref(), job.mount_point.as_deref())?;
    let tells = job.notifies && job.actions.backup;
    if tells {
        notify::tell("Starting backup", Urgency::Normal);
    }
    let result = disk.prepare().and_then(|()| work(job, context));
    let result = with_undoing(result, disk.put_back());
    let took = span_text(began.elapsed());
    match &result {
        Ok(_) if tells => notify::tell(&format!("Finished backup in {took}."), Urgency::Normal),
        Err(_) if tells => {
            let body = format!("Backup failed after {took}! Review the system logs for details.");
            notify::tell(&body, Urgency::Critical);
        }
        _ => {}
    }
    if result.is_ok() {
        log::info!("done in {took}");
    }
    result
}

/// The steps between mounting and unmounting.
fn work(job: &Job, context: &Context) -> Result<Exit> {
    let mut status = None;
    let mut judged = job.clone();
    if job.actions.backup {
        // What was judged is what is transferred, and what rules for absolute paths hold for.
        judged.source = checks::check_directories(job)?;
    }
    let job = &judged;
    let directory = destination_directory(job)?;
    let snapshots = directory.as_ref().map(|directory| Snapshots { job, context, directory });
    if job.actions.backup {
        if let (Some(snapshots), Destination::Local(_)) = (&snapshots, &job.destination) {
            snapshots.refuse_lost_history()?;
        }
        refuse_token_in_source(job)?;
        make_destination(job)?;
        if let (Some(snapshots), Destination::Local(_), false) =
            (&snapshots, &job.destination, job.dry_run)
        {
            // What was missing is there now, and may have turned out to be something else.
            checks::check_directories(job)?;
            snapshots.check_root()?;
        }
        let _taken = match &job.destination {
            // Until the transfer is over: what comes then has a lock of its own.
            Destination::Local(directory) if !job.dry_run => take_directory(directory)?,
            _ => None,
        };
        let mut connection = Connection::new(job)?;
        if job.destination.is_daemon() && checks::is_empty(&job.source)? {
            checks::check_empty_source(&job.source, &connection.look(arguments::list)?)?;
        }
        let transferred = connection.transfer();
        if let (Err(Failure::Command { status: Some(status), .. }), Some(snapshots), false) =
            (&transferred, &snapshots, job.dry_run)
        {
            snapshots.tell_failed_transfer(*status);
        }
        status = Some(transferred?);
        // Snapshots will tell of it otherwise.
        if !job.actions.snapshot && !job.dry_run {
            let met = known_destinations::meet(job);
            met.unwrap_or_else(|failure| {
                log::warn!("it is not noted that a backup went there: {failure}")
            });
        }
    }
    let is_partial =
        status.is_some_and(|status| meaning(status, job.is_remote()) == Meaning::Partial);
    let transfer = if is_partial { Exit::Warnings } else { Exit::Done };
    match snapshots {
        Some(snapshots) => Ok(transfer.max(snapshots.work(status.filter(|_| !job.dry_run))?)),
        None => {
            log::info!(
                "snapshots and rotation are the server's business, by the module's post-xfer exec"
            );
            Ok(transfer)
        }
    }
}

/// The destination's directory, absolute where it is; none for a daemon. On another machine it is
/// made if it is missing and a backup goes there.
fn destination_directory(job: &Job) -> Result<Option<PathBuf>> {
    let directory = match &job.destination {
        Destination::Daemon { .. } => return Ok(None),
        Destination::Local(directory) => return Ok(Some(directory.clone())),
        Destination::Ssh { directory, .. } => directory,
    };
    let script = match job.actions.backup && !job.dry_run {
        true => "mkdir -p -- \"$1\" && cd -- \"$1\" && pwd -P",
        // What does not exist yet is named as well as may be.
        false => "cd -- \"$1\" 2>/dev/null && pwd -P || printf '%s\\n' \"$1\"",
    };
    let words = [
        OsStr::new("sh"),
        OsStr::new("-c"),
        OsStr::new(script),
        OsStr::new("sh"),
        directory.as_os_str(),
    ];
    let mut output = job.place.call(&words, Privilege::Own).succeed()?;
    if output.last() == Some(&b'\n') {
        output.pop();
    }
    Ok(Some(PathBuf::from(OsString::from_vec(output))))
}

/// The result of the work, after the disk was put back: both errors are told.
fn with_undoing(
    result: Result<Exit>,
    undone: std::result::Result<(), Vec<Failure>>,
) -> Result<Exit> {
    let mut failures = undone.err().unwrap_or_default().into_iter();
    let result = match result {
        Ok(exit) => failures.next().map_or(Ok(exit), Err),
        failed => failed,
    };
    for failure in failures {
        log::error!("the disk is not as it was before: {failure}");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_the_result_and_work_comes_before_undoing() {
        let failed = |text: &str| Failure::Failed(text.to_string());
        let text = |result: Result<Exit>| result.expect_err("a failure").to_string();
        assert_eq!(text(with_undoing(Err(failed("work")), Err(vec![failed("umount")]))), "work");
        assert_eq!(
            text(with_undoing(Ok(Exit::Done), Err(vec![failed("umount"), failed("lock")]))),
            "umount"
        );
        assert!(with_undoing(Ok(Exit::Warnings), Ok(())).is_ok_and(|exit| exit == Exit::Warnings));
    }
}
