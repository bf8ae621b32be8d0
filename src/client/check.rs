//! `--check`: tries everything that a backup needs, and transfers nothing.
//!
//! The disk is really unlocked and mounted, then unmounted and locked again; rsync lists the
//! destination, and sends a file in a dry run. The output also names what the client cannot see,
//! such as the free space of a server without the pre-xfer hook.

use std::path::Path;

use crate::client::backup_job::BackupJob;
use crate::client::destination::Destination;
use crate::client::disk::mount::Disk;
use crate::client::error::{ClientError, Result};
use crate::client::locks::BackupLocks;
use crate::client::machine::Privilege;
use crate::client::rsync::arguments;
use crate::client::rsync::transfer::{RsyncConnection, refuse_token_in_source};
use crate::client::safety::checks;
use crate::client::snapshots::cp_fallback::REMEDY;
use crate::hook::health_answer;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::tell::error::Error;
use crate::tell::escape::escape;
use crate::tell::exit::Exit;
use crate::tell::output;

const FREE_SPACE: &str = include_str!("free_space.sh");

struct CheckResults {
    worst: Exit,
}

impl CheckResults {
    fn add(&mut self, exit: Exit, what: &str, message: &str) {
        let word = match exit {
            Exit::Done => "ok",
            Exit::Warnings => "WARNING",
            _ => "FAILED",
        };
        self.worst = self.worst.max(exit);
        // A reader that closed the output must not change the result of the check.
        let _ = output::print(&format!("{word:<8} {what}: {message}\n"));
    }

    /// Prints a result; whether it is good.
    fn add_result(&mut self, what: &str, result: Result<String>) -> bool {
        match result {
            Ok(message) => self.add(Exit::Done, what, &message),
            Err(error) => {
                self.add(error.exit().max(Exit::Failed), what, &error.to_string());
                return false;
            }
        }
        true
    }
}

/// Prints one line for each thing that was checked.
///
/// # Errors
/// If the check itself cannot run.
pub(crate) fn run(job: &BackupJob, context: &Context) -> Result<Exit> {
    let mut results = CheckResults { worst: Exit::Done };
    if !results
        .add_result("command line", checks::check_paths(job).map(|()| "it makes sense".into()))
    {
        return Ok(results.worst);
    }
    let _lock = BackupLocks::acquire(job)?;
    let disk = Disk::find(&job.machine, job.crypto.as_deref(), job.mount_point.as_deref());
    let mut disk = match disk {
        Ok(disk) => disk,
        Err(error) => {
            results.add_result("disk", Err(error));
            return Ok(results.worst);
        }
    };
    let is_ready = match (job.crypto.is_some() || job.mount_point.is_some(), disk.prepare()) {
        (false, result) => result.is_ok(),
        (true, result) => {
            results.add_result("disk", result.map(|()| "it can be unlocked and mounted".into()))
        }
    };
    if is_ready {
        check_ready(job, context, &mut results);
    }
    for error in disk.unmount_and_lock().err().unwrap_or_default() {
        results.add_result("disk", Err(error));
    }
    Ok(results.worst)
}

/// The checks that need the mounted disk.
fn check_ready(job: &BackupJob, context: &Context, results: &mut CheckResults) {
    let looked = checks::check_directories(job).map(|_| match job.destination.is_daemon() {
        true => "the source exists; the module's content is not compared, and a backup deletes \
                 what the source does not have"
            .into(),
        false => "they are safe to use together".into(),
    });
    results.add_result("source and destination", looked);
    results.add_result(
        "source",
        refuse_token_in_source(job).map(|()| "it contains no file of an unfinished backup".into()),
    );
    match &job.destination {
        Destination::Local(directory) => {
            results.add_result("space", space_here(directory));
            match job.machine.needs_sudo_here() {
                true => results.add(Exit::Done, "snapshots", "not checked: that takes root"),
                false => {
                    results.add_result("snapshots", snapshots_here(context, directory));
                }
            }
        }
        Destination::Ssh { directory, .. } => check_ssh(job, directory, results),
        Destination::Daemon { .. } => check_daemon(job, results),
    }
}

fn space_here(directory: &Path) -> Result<String> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing)
        .map_err(|cause| Error::io("look for space in", existing, cause))?;
    enough_space(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Only a disk that is practically full fails the check: the size of the next backup is unknown.
fn enough_space(free_bytes: u64) -> Result<String> {
    match free_bytes >> 20 {
        0..64 => Err(ClientError::Failed("less than 64 MiB are free".into())),
        mebibytes @ 64..10_240 => Ok(format!("{mebibytes} MiB are free")),
        mebibytes => Ok(format!("{} GiB are free", mebibytes >> 10)),
    }
}

fn snapshots_here(context: &Context, directory: &Path) -> Result<String> {
    if !directory.is_dir() {
        if let Some(lost) = Target::lost_directory(&context.settings, &checks::real_path(directory))
        {
            return Err(lost.into());
        }
        return Ok("the directory will be made by the first backup".into());
    }
    let target = Target::of_module(&context.settings, None, directory)?;
    if let Some(lost) = target.lost_history() {
        return Err(lost.into());
    }
    if let Some(mistake) = target.trouble.first() {
        return Err(ClientError::Refused(mistake.clone()));
    }
    target.check_nesting()?;
    target.look_at_root()?.check_method()?;
    Ok("they can be made beside the destination".into())
}

fn check_ssh(job: &BackupJob, directory: &Path, results: &mut CheckResults) {
    let reached = job.machine.command(&["true"], Privilege::Own).succeed();
    if !results.add_result("connection", reached.map(|_| "the server lets us in".into())) {
        return;
    }
    let space = job.machine.script(FREE_SPACE, &[directory], Privilege::Own).succeed();
    let space = space.and_then(|output| {
        let text = String::from_utf8_lossy(&output).into_owned();
        let kibibytes = text.split_whitespace().nth(3).and_then(|field| field.parse::<u64>().ok());
        let kibibytes = kibibytes.ok_or_else(|| {
            ClientError::Failed("the output of df on the server is not understood".into())
        })?;
        enough_space(kibibytes.saturating_mul(1_024))
    });
    results.add_result("space", space);
    let rsync = job.machine.command(&["rsync", "--version"], Privilege::Own).succeed();
    results.add_result("rsync", rsync.map(|_| "the server has it".into()));
    match job.machine.first_installed(&["rsyncd-snapshot"]) {
        Ok(Some(_)) => results.add(Exit::Done, "snapshots", "the server has rsyncd-snapshot"),
        Ok(None) => results.add(Exit::Warnings, "snapshots", REMEDY),
        Err(error) => {
            results.add_result("snapshots", Err(error));
        }
    }
}

fn check_daemon(job: &BackupJob, results: &mut CheckResults) {
    let mut connection = match RsyncConnection::new(job) {
        Ok(connection) => connection,
        Err(error) => {
            results.add_result("connection", Err(error));
            return;
        }
    };
    let listed = connection.query(arguments::list);
    if !results.add_result("connection", listed.map(|_| "the daemon lets us in".into())) {
        return;
    }
    let sent = connection.query(arguments::dry_run_of_one_file);
    results.add_result("module", sent.map(|_| "it can be written".into()));
    // The client does not try whether the module refuses such options: the server would record the
    // refused push as a failed one.
    let message = match ask_hook(&mut connection, results) {
        true => "the hook turns away what would write into files of snapshots",
        false => {
            "not known: without the pre-xfer hook, the module needs `refuse options = inplace \
             append* write-devices partial-dir delay-updates`"
        }
    };
    results.add(Exit::Done, "history", message);
}

/// Asks the pre-xfer hook for free space and health; whether the server has a hook that answers.
fn ask_hook(connection: &mut RsyncConnection, results: &mut CheckResults) -> bool {
    let mut ask = || match connection.query(arguments::inquire) {
        Err(ClientError::Command { last_errors, .. }) => health_answer::read_answer(&last_errors),
        _ => None,
    };
    // rsync may lose the answer when the connection ends at once, so a second try is made.
    let Some((word, free)) = ask().or_else(&mut ask) else {
        let message = "not known: the server tells only with \
                       `pre-xfer exec = /usr/bin/rsyncd-snapshot pre-xfer`; on the server, run \
                       `rsyncd-snapshot check` for the module";
        results.add(Exit::Done, "space and hook", message);
        return false;
    };
    match free {
        Some(bytes) => {
            results.add_result("space", enough_space(bytes));
        }
        None => results.add(Exit::Warnings, "space", "the server cannot tell"),
    }
    match word.as_str() {
        "OK" => {
            results.add(Exit::Done, "hook", "it works, and finds the module's snapshots in order")
        }
        word => {
            let message = format!(
                "it works, but `rsyncd-snapshot check` on the server reports {word} for the module"
            );
            results.add(Exit::Warnings, "hook", &escape(message.as_bytes()));
        }
    }
    true
}
