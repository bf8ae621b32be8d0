//! Transfers the source: runs rsync, and repeats it after network failures. A run before and a run
//! after it write the tokens.
//!
//! The unfinished token is in the destination before any other file changes. It is deleted only
//! after a complete transfer, so a backup that ends at any moment counts as unfinished.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{IsTerminal, Write, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};

use crate::client::backup_job::BackupJob;
use crate::client::destination::Destination;
use crate::client::error::{ClientError, Result};
use crate::client::external_command::ExternalCommand;
use crate::client::locks::make_directory;
use crate::client::machine::Privilege;
use crate::client::pipes::{StderrMode, StdoutMode};
use crate::client::rsync::arguments::{
    self, RsyncDestination, TransferOutcome, TransferStatistics, outcome_of,
};
use crate::client::rsync::tunnel::OpenTunnel;
use crate::client::signals;
use crate::store::completion;
use crate::system::syscalls::is_privileged;
use crate::tell::counted;
use crate::tell::duration::duration_text;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// The pause before the second try. Each later pause is three times as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The content of a token, for an administrator who finds it.
const TOKEN_TEXT: &str = "rsync-system-backup puts this file into a backup that is not finished, \
    or to which not everything\ncould be transferred, and takes it away when a backup is whole. \
    See docs/client.md of rsyncd-snapshot.\n";

/// Runs rsync with the destination of a job. Opens the tunnel when it is first needed.
pub(crate) struct RsyncConnection<'a> {
    job: &'a BackupJob,
    tunnel: Option<OpenTunnel>,
    token_bytes: u64,
}

impl<'a> RsyncConnection<'a> {
    /// Writes the tokens into the runtime directory. Connects to nothing.
    ///
    /// # Errors
    /// If the tokens cannot be written.
    pub(crate) fn new(job: &'a BackupJob) -> Result<Self> {
        make_directory(&job.runtime_directory)?;
        // The next token has the same size, so it needs another time for rsync to transfer it.
        let token_bytes = write_unfinished(job, SystemTime::now() - FIRST_PAUSE)?;
        // The time is constant, so that two partial backups in a row can be equal.
        let partial = write_token(&job.runtime_directory.join(completion::PARTIAL), TOKEN_TEXT)?;
        let set_time = partial.set_modified(std::time::UNIX_EPOCH);
        set_time.map_err(|cause| Error::io("set the time of", &job.runtime_directory, cause))?;
        Ok(RsyncConnection { job, tunnel: None, token_bytes })
    }

    /// Transfers everything, writes the tokens, and logs the result. Returns rsync's status.
    ///
    /// # Errors
    /// If the transfer failed: no snapshot may be made of it.
    pub(crate) fn transfer(&mut self) -> Result<i32> {
        let job = self.job;
        let began = Instant::now();
        let source = escape_path(&job.source);
        let word = if job.dry_run { "rehearsing" } else { "backing up" };
        log::info!("{word} {source} to {}", job.destination);
        let shows_progress = stdout().is_terminal() && log::max_level() >= log::LevelFilter::Info;
        let mode = match (job.dry_run, shows_progress) {
            (true, _) => StdoutMode::Relay,
            (false, true) => StdoutMode::Progress,
            (false, false) => StdoutMode::Capture,
        };
        if job.sends_token() {
            self.send_unfinished_token()?;
        }
        let args = |target: RsyncDestination| {
            // A new token for each try. So each try transfers it, the statistics can subtract it,
            // and the server sees that this push has brought it.
            write_unfinished(job, SystemTime::now())?;
            Ok(arguments::transfer(job, target, shows_progress))
        };
        let (status, output) = self.run_with_retries(args, mode)?;
        let outcome = outcome_of(status, job.is_remote());
        match (status, outcome) {
            (0, _) => {}
            (_, TransferOutcome::Complete) => {
                log::info!("files vanished during the transfer, as on any running system")
            }
            _ => log::warn!(
                "not everything could be transferred, so a snapshot of this is a partial one"
            ),
        }
        if job.sends_token() {
            self.remove_unfinished_token(outcome)?;
        }
        let took = duration_text(began.elapsed());
        match TransferStatistics::parse(&output, job.sends_token().then_some(self.token_bytes)) {
            Some(TransferStatistics { transferred, bytes, deleted }) => log::info!(
                "backed up {source} in {took}: {} with {bytes} bytes transferred, {}",
                counted(transferred as usize, "file"),
                counted(deleted as usize, "deletion")
            ),
            None => log::info!("{word} {source} took {took}"),
        }
        Ok(status)
    }

    /// Puts the unfinished token into the destination.
    fn send_unfinished_token(&mut self) -> Result<()> {
        let job = self.job;
        let (status, _) = self.run_with_retries(
            |target| Ok(arguments::send_unfinished_token(job, target)),
            StdoutMode::Capture,
        )?;
        match status {
            0 => Ok(()),
            status => Err(ClientError::Failed(format!(
                "the destination cannot be written (rsync ended with status {status}); nothing \
                 was transferred"
            ))),
        }
    }

    /// Deletes the unfinished token, or replaces it by the partial token.
    ///
    /// # Errors
    /// If the token of a complete transfer stays: the server counts the backup as unfinished.
    fn remove_unfinished_token(&mut self, outcome: TransferOutcome) -> Result<()> {
        let job = self.job;
        let (status, _) = self.run_with_retries(
            |target| Ok(arguments::remove_unfinished_token(job, target, outcome)),
            StdoutMode::Capture,
        )?;
        // The attributes that failed in a partial transfer may fail here, too.
        let is_recorded = outcome == TransferOutcome::Partial
            || outcome_of(status, job.is_remote()) == TransferOutcome::Complete;
        match is_recorded {
            true => Ok(()),
            false => Err(ClientError::Failed(format!(
                "everything is transferred, but the file {} could not be removed from the \
                 destination (rsync ended with status {status}), so the backup counts as \
                 unfinished",
                completion::UNFINISHED
            ))),
        }
    }

    /// Runs rsync, and repeats it after network failures.
    fn run_with_retries(
        &mut self,
        args: impl Fn(RsyncDestination) -> Result<Vec<OsString>>,
        stdout: StdoutMode,
    ) -> Result<(i32, Vec<u8>)> {
        let mut pause = FIRST_PAUSE;
        let mut retries = self.job.retries;
        loop {
            let error = match self.run(&args, stdout) {
                Ok(ended) => return Ok(ended),
                Err(error) => error,
            };
            if retries == 0 || !is_network_trouble(&error, self.job) {
                return Err(error);
            }
            // The tunnel may have failed.
            self.tunnel = None;
            log::warn!("{error}; trying again in {} s", pause.as_secs());
            sleep(pause)?;
            pause *= 3;
            retries -= 1;
        }
    }

    /// Runs rsync once. Returns status and output of a complete or partial transfer.
    fn run(
        &mut self,
        args: impl Fn(RsyncDestination) -> Result<Vec<OsString>>,
        stdout: StdoutMode,
    ) -> Result<(i32, Vec<u8>)> {
        let args = args(self.target()?)?;
        let ended =
            ExternalCommand { stdout, stderr: StderrMode::Warn, ..self.command(args) }.run()?;
        match ended.status {
            Some(status)
                if matches!(
                    outcome_of(status, self.job.is_remote()),
                    TransferOutcome::Complete | TransferOutcome::Partial
                ) =>
            {
                Ok((status, ended.output))
            }
            // A Ctrl-C on the terminal reached rsync and the client; rsync may have ended first.
            Some(20) => Err(signals::check().err().unwrap_or(ClientError::Interrupted("SIGINT"))),
            _ => Err(ended.into_error()),
        }
    }

    /// Runs an rsync that changes nothing, and returns its output.
    pub(crate) fn query(
        &mut self,
        args: impl Fn(&BackupJob, RsyncDestination) -> Vec<OsString>,
    ) -> Result<Vec<u8>> {
        let args = args(self.job, self.target()?);
        self.command(args).succeed()
    }

    /// The destination argument. Opens the tunnel if the job has one.
    fn target(&mut self) -> Result<RsyncDestination<'_>> {
        let job = self.job;
        if let (Some(tunnel), None) = (&job.tunnel, &self.tunnel) {
            self.tunnel =
                Some(OpenTunnel::open(tunnel, &job.destination, &job.rsh, &job.runtime_directory)?);
        }
        let address = self.tunnel.as_ref().map(|open| ("127.0.0.1", open.port));
        Ok(RsyncDestination { destination: &job.destination, address })
    }

    /// An rsync command with sudo and ionice, as the job wants it.
    fn command(&self, rsync: Vec<OsString>) -> ExternalCommand {
        let job = self.job;
        let mut args: Vec<OsString> = Vec::new();
        if job.machine.uses_sudo && !is_privileged() {
            args.push("sudo".into());
            // Otherwise sudo drops the variable with the daemon's password.
            if job.destination.is_daemon() && std::env::var_os("RSYNC_PASSWORD").is_some() {
                args.push("--preserve-env=RSYNC_PASSWORD".into());
            }
        }
        args.extend(job.ionice_args());
        args.extend(rsync);
        // Without a home, rsync and ssh read no settings of a user.
        let environment = vec![("HOME".into(), "".into())];
        let is_asking = job.is_remote() || (job.machine.uses_sudo && !is_privileged());
        ExternalCommand { environment, may_ask: is_asking, ..ExternalCommand::new(args) }
    }
}

/// Whether another try may succeed: not if the server has refused the login.
fn is_network_trouble(error: &ClientError, job: &BackupJob) -> bool {
    let ClientError::Command { status: Some(status), last_errors, .. } = error else {
        return false;
    };
    let is_refusal = ["Permission denied", "Host key verification failed"]
        .iter()
        .any(|part| last_errors.contains(part));
    outcome_of(*status, job.is_remote()) == TransferOutcome::NetworkFailure && !is_refusal
}

/// Sleeps for this time.
///
/// # Errors
/// If a signal arrives.
fn sleep(pause: Duration) -> Result<()> {
    let end = Instant::now() + pause;
    while Instant::now() < end {
        signals::check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Makes a local destination directory that is missing, unless this is a dry run.
pub(crate) fn make_destination(job: &BackupJob) -> Result<()> {
    let Destination::Local(directory) = &job.destination else { return Ok(()) };
    if job.dry_run || directory.is_dir() {
        return Ok(());
    }
    log::info!("making the missing directory {}", escape_path(directory));
    if job.machine.needs_sudo_here() {
        let mut args = ["mkdir", "-p", "--"].map(OsStr::new).to_vec();
        args.push(directory.as_os_str());
        let parent = directory.parent().unwrap_or(directory);
        return job.machine.command(&args, Privilege::ToChange(parent)).succeed().map(drop);
    }
    make_directory(directory)
}

/// Writes the unfinished token with this time. Returns its size, which is constant.
fn write_unfinished(job: &BackupJob, time: SystemTime) -> Result<u64> {
    let path = job.runtime_directory.join(completion::UNFINISHED);
    let text = format!(
        "{TOKEN_TEXT}This one was begun at {}.\n",
        DateTime::<Utc>::from(time).format("%FT%T%.9fZ")
    );
    let file = write_token(&path, &text)?;
    file.set_modified(time).map_err(|cause| Error::io("set the time of", &path, cause))?;
    Ok(text.len() as u64)
}

/// Refuses a source that contains a token: each backup of it would count as unfinished or partial.
pub(crate) fn refuse_token_in_source(job: &BackupJob) -> Result<()> {
    let exists = |name: &&str| job.source.join(name).symlink_metadata().is_ok();
    let Some(name) = [completion::UNFINISHED, completion::PARTIAL].into_iter().find(exists) else {
        return Ok(());
    };
    Err(ClientError::Refused(format!(
        "the source has a file {}, left by a restore from a backup that is not whole; each backup \
         of it would count as not whole, too: see what is missing, and remove the file",
        escape_path(&job.source.join(name))
    )))
}

fn write_token(path: &Path, text: &str) -> Result<File> {
    let write = || -> std::io::Result<File> {
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    write().map_err(|cause| Error::io("write", path, cause).into())
}
