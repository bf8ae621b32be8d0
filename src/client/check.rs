//! `--check`: tries everything that a backup needs, and transfers nothing.
//!
//! Each question is asked of the real thing: the disk is unlocked and mounted and put back, rsync
//! lists the destination and rehearses sending a file. What cannot be seen from here, as the space
//! and the hook of a daemon's server, is said to be so.

use std::ffi::OsStr;
use std::path::Path;

use crate::client::disk::lock::ClientLock;
use crate::client::disk::mount::Disk;
use crate::client::failure::{Failure, Result};
use crate::client::job::Job;
use crate::client::location::Destination;
use crate::client::place::Privilege;
use crate::client::rsync::arguments;
use crate::client::rsync::transfer::{Connection, refuse_token_in_source};
use crate::client::safety::checks;
use crate::hook::inquiry;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::tell::escape::escape;
use crate::tell::exit::Exit;
use crate::tell::output;

/// What was found out.
struct Findings {
    worst: Exit,
}

impl Findings {
    fn add(&mut self, exit: Exit, what: &str, message: &str) {
        let word = match exit {
            Exit::Done => "ok",
            Exit::Warnings => "WARNING",
            _ => "FAILED",
        };
        self.worst = self.worst.max(exit);
        // A closed output is no failure of what is checked.
        let _ = output::print(&format!("{word:<8} {what}: {message}\n"));
    }

    fn note(&mut self, what: &str, result: Result<String>) -> bool {
        match result {
            Ok(message) => self.add(Exit::Done, what, &message),
            Err(failure) => {
                self.add(failure.exit().max(Exit::Failed), what, &failure.to_string());
                return false;
            }
        }
        true
    }
}

/// Checks and prints.
///
/// # Errors
/// If not even that can be done.
pub(crate) fn run(job: &Job, context: &Context) -> Result<Exit> {
    let mut findings = Findings { worst: Exit::Done };
    if !findings.note("command line", checks::check_paths(job).map(|()| "it makes sense".into())) {
        return Ok(findings.worst);
    }
    let _lock = ClientLock::acquire(job)?;
    let disk = Disk::find(&job.place, job.crypto.as_deref(), job.mount_point.as_deref());
    let mut disk = match disk {
        Ok(disk) => disk,
        Err(failure) => {
            findings.note("disk", Err(failure));
            return Ok(findings.worst);
        }
    };
    let is_ready = match (job.crypto.is_some() || job.mount_point.is_some(), disk.prepare()) {
        (false, result) => result.is_ok(),
        (true, result) => {
            findings.note("disk", result.map(|()| "it can be unlocked and mounted".into()))
        }
    };
    if is_ready {
        check_ready(job, context, &mut findings);
    }
    for failure in disk.put_back().err().unwrap_or_default() {
        findings.note("disk", Err(failure));
    }
    Ok(findings.worst)
}

/// Everything for which the disk has to be there.
fn check_ready(job: &Job, context: &Context, findings: &mut Findings) {
    let looked = checks::check_directories(job).map(|_| match job.destination.is_daemon() {
        true => "the source is there; what is in the module is not looked at, and goes if the source does not have it".into(),
        false => "nothing is in the wrong place".into(),
    });
    findings.note("source and destination", looked);
    findings.note(
        "source",
        refuse_token_in_source(job).map(|()| "it is no backup that is not whole".into()),
    );
    match &job.destination {
        Destination::Local(directory) => {
            findings.note("space", space_here(directory));
            match job.place.needs_sudo_here() {
                true => findings.add(Exit::Done, "snapshots", "only root can look"),
                false => {
                    findings.note("snapshots", snapshots_here(context, directory));
                }
            }
        }
        Destination::Ssh { directory, .. } => check_ssh(job, directory, findings),
        Destination::Daemon { .. } => check_daemon(job, findings),
    }
}

fn space_here(directory: &Path) -> Result<String> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing)
        .map_err(|cause| crate::tell::error::Error::io("look for space in", existing, cause))?;
    enough_space(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Any limit would be arbitrary but this one: where nothing fits, the backup fails.
fn enough_space(free_bytes: u64) -> Result<String> {
    match free_bytes >> 20 {
        0..64 => Err(Failure::Failed("less than 64 MiB are free".into())),
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
        return Err(Failure::Refused(mistake.clone()));
    }
    target.check_nesting()?;
    target.look_at_root()?;
    Ok("they can be made beside the destination".into())
}

fn check_ssh(job: &Job, directory: &Path, findings: &mut Findings) {
    let reached = job.place.call(&["true"], Privilege::Own).succeed();
    if !findings.note("connection", reached.map(|_| "the server lets us in".into())) {
        return;
    }
    // The nearest directory that exists, as the first backup makes the others.
    let script = "d=$1; while [ ! -d \"$d\" ]; do d=$(dirname -- \"$d\"); done; df -P -k -- \"$d\" | tail -n 1";
    let words = [
        OsStr::new("sh"),
        OsStr::new("-c"),
        OsStr::new(script),
        OsStr::new("sh"),
        directory.as_os_str(),
    ];
    let space = job.place.call(&words, Privilege::Own).succeed().and_then(|output| {
        let text = String::from_utf8_lossy(&output).into_owned();
        let kibibytes = text.split_whitespace().nth(3).and_then(|field| field.parse::<u64>().ok());
        let kibibytes = kibibytes.ok_or_else(|| {
            Failure::Failed("the server's df says nothing that we understand".into())
        })?;
        enough_space(kibibytes.saturating_mul(1_024))
    });
    findings.note("space", space);
    let rsync = job.place.call(&["rsync", "--version"], Privilege::Own).succeed();
    findings.note("rsync", rsync.map(|_| "the server has it".into()));
    match job.place.first_installed(&["rsyncd-snapshot"]) {
        Ok(Some(_)) => findings.add(Exit::Done, "snapshots", "the server has rsyncd-snapshot"),
        Ok(None) => {
            findings.add(Exit::Warnings, "snapshots", crate::client::snapshots::fallback::REMEDY)
        }
        Err(failure) => {
            findings.note("snapshots", Err(failure));
        }
    }
}

fn check_daemon(job: &Job, findings: &mut Findings) {
    let mut connection = match Connection::new(job) {
        Ok(connection) => connection,
        Err(failure) => {
            findings.note("connection", Err(failure));
            return;
        }
    };
    let listed = connection.look(arguments::list);
    if !findings.note("connection", listed.map(|_| "the daemon lets us in".into())) {
        return;
    }
    let rehearsed = connection.look(arguments::rehearse);
    findings.note("module", rehearsed.map(|_| "it can be written".into()));
    // Whether the module refuses them cannot be tried: a push that is turned away passes for a
    // failed one.
    let message = match ask_hook(&mut connection, findings) {
        true => "the hook turns away what would write into files of snapshots",
        false => {
            "not known: without pre-xfer, see to it that the module has `refuse options = inplace append* write-devices partial-dir delay-updates`"
        }
    };
    findings.add(Exit::Done, "history", message);
}

/// What the server's hook says of space and health; whether it is the one that can.
fn ask_hook(connection: &mut Connection, findings: &mut Findings) -> bool {
    let mut ask = || match connection.look(arguments::inquire) {
        Err(Failure::Command { said, .. }) => inquiry::read_answer(&said),
        _ => None,
    };
    // The end of the connection may overtake the answer; not often.
    let Some((word, free)) = ask().or_else(&mut ask) else {
        let message = "not known: without `pre-xfer exec = /usr/bin/rsyncd-snapshot pre-xfer` the server cannot tell; on it, run `rsyncd-snapshot check` for the module";
        findings.add(Exit::Done, "space and hook", message);
        return false;
    };
    match free {
        Some(bytes) => {
            findings.note("space", enough_space(bytes));
        }
        None => findings.add(Exit::Warnings, "space", "the server does not know"),
    }
    match word.as_str() {
        "OK" => findings.add(
            Exit::Done,
            "hook",
            "it is at work, and all is well with the module's snapshots",
        ),
        word => {
            let message = format!(
                "it is at work, but the server's `rsyncd-snapshot check` says {word} of the module"
            );
            findings.add(Exit::Warnings, "hook", &escape(message.as_bytes()));
        }
    }
    true
}
