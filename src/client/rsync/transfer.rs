//! The transfer: rsync, tried again when the network fails, between a run that says that it begins
//! and one that says how it ended. Nothing in the destination changes before it says *unfinished*.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Write, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};

use crate::client::disk::lock::make_directory;
use crate::client::external::Call;
use crate::client::failure::{Failure, Result};
use crate::client::job::Job;
use crate::client::location::Destination;
use crate::client::rsync::arguments::{self, Meaning, Statistics, Target, meaning};
use crate::client::rsync::output::{Complaints, Output};
use crate::client::rsync::tunnel::OpenTunnel;
use crate::client::signals;
use crate::store::completion;
use crate::system::syscalls::is_privileged;
use crate::tell::counted;
use crate::tell::duration::span_text;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// The pause before the second try; each later one is three times as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// What somebody reads who finds a token.
const TOKEN_TEXT: &str = "rsync-system-backup puts this file into a backup that is not finished, or to which not everything\n\
    could be transferred, and takes it away when a backup is whole. See docs/client.md of rsyncd-snapshot.\n";

/// The connection to the destination.
pub(crate) struct Connection<'a> {
    job: &'a Job,
    tunnel: Option<OpenTunnel>,
    token_bytes: u64,
}

impl<'a> Connection<'a> {
    /// For a job; nothing is opened yet.
    ///
    /// # Errors
    /// If the tokens cannot be written.
    pub(crate) fn new(job: &'a Job) -> Result<Self> {
        make_directory(&job.directory)?;
        // Older than the next one, which has the same size: rsync has to see the difference.
        let token_bytes = write_unfinished(job, SystemTime::now() - FIRST_PAUSE)?;
        // Always the same: two partial backups in a row may be equal.
        let partial = write_token(&job.directory.join(completion::PARTIAL), TOKEN_TEXT)?;
        let set_time = partial.set_modified(std::time::UNIX_EPOCH);
        set_time.map_err(|cause| Error::io("set the time of", &job.directory, cause))?;
        Ok(Connection { job, tunnel: None, token_bytes })
    }

    /// Transfers everything and says how it ended, to us and to the destination. Returns rsync's
    /// status.
    ///
    /// # Errors
    /// If nothing that is worth a snapshot came about.
    pub(crate) fn transfer(&mut self) -> Result<i32> {
        let job = self.job;
        let began = Instant::now();
        let source = escape_path(&job.source);
        let word = if job.dry_run { "rehearsing" } else { "backing up" };
        log::info!("{word} {source} to {}", job.destination);
        let shows_progress = stdout().is_terminal() && log::max_level() >= log::LevelFilter::Info;
        let output = match (job.dry_run, shows_progress) {
            (true, _) => Output::Relay,
            (false, true) => Output::Progress,
            (false, false) => Output::Capture,
        };
        if job.sends_token() {
            self.announce()?;
        }
        let words = |target: Target| {
            // A new one each time: so it is always among what is transferred, the statistics can
            // leave it out, and the server sees that this push has brought it.
            write_unfinished(job, SystemTime::now())?;
            Ok(arguments::transfer(job, target, shows_progress))
        };
        let (status, said) = self.run_with_retries(words, output)?;
        let meaning = meaning(status, job.is_remote());
        match (status, meaning) {
            (0, _) => {}
            (_, Meaning::Whole) => {
                log::info!("files vanished while rsync was at it, as on any running system")
            }
            _ => log::warn!(
                "not everything could be transferred, so a snapshot of this is a partial one"
            ),
        }
        if job.sends_token() {
            self.finish(meaning)?;
        }
        let took = span_text(began.elapsed());
        match Statistics::parse(&said, job.sends_token().then_some(self.token_bytes)) {
            Some(Statistics { transferred, bytes, deleted }) => log::info!(
                "backed up {source} in {took}: {} with {bytes} bytes transferred, {}",
                counted(transferred as usize, "file"),
                counted(deleted as usize, "deletion")
            ),
            None => log::info!("{word} {source} took {took}"),
        }
        Ok(status)
    }

    /// Tells the destination that a transfer begins.
    fn announce(&mut self) -> Result<()> {
        let job = self.job;
        let (status, _) =
            self.run_with_retries(|target| Ok(arguments::announce(job, target)), Output::Capture)?;
        match status {
            0 => Ok(()),
            status => Err(Failure::Failed(format!(
                "the destination cannot be written (rsync ended with status {status}); nothing was transferred"
            ))),
        }
    }

    /// Tells the destination how the transfer ended. If it is not told, it has to think that it has
    /// not.
    fn finish(&mut self, meaning: Meaning) -> Result<()> {
        let job = self.job;
        let (status, _) = self.run_with_retries(
            |target| Ok(arguments::finish(job, target, meaning)),
            Output::Capture,
        )?;
        // What failed in the transfer may fail here as well, as attributes that cannot be set.
        let is_told = meaning == Meaning::Partial
            || arguments::meaning(status, job.is_remote()) == Meaning::Whole;
        match is_told {
            true => Ok(()),
            false => Err(Failure::Failed(format!(
                "everything is transferred, but that could not be noted at the destination (rsync ended with status {status}), so it counts as unfinished"
            ))),
        }
    }

    /// Runs rsync until it ends otherwise than by a failure of the network, or too often.
    fn run_with_retries(
        &mut self,
        words: impl Fn(Target) -> Result<Vec<OsString>>,
        output: Output,
    ) -> Result<(i32, Vec<u8>)> {
        let mut pause = FIRST_PAUSE;
        let mut retries = self.job.retries;
        loop {
            let failure = match self.run(&words, output) {
                Ok(ended) => return Ok(ended),
                Err(failure) => failure,
            };
            if retries == 0 || !is_network_trouble(&failure, self.job) {
                return Err(failure);
            }
            // The tunnel may be what failed.
            self.tunnel = None;
            log::warn!("{failure}; trying again in {} s", pause.as_secs());
            wait(pause)?;
            pause *= 3;
            retries -= 1;
        }
    }

    /// Runs rsync once; its status and output if it transferred something.
    fn run(
        &mut self,
        words: impl Fn(Target) -> Result<Vec<OsString>>,
        output: Output,
    ) -> Result<(i32, Vec<u8>)> {
        let words = words(self.target()?)?;
        let ended = Call { output, complaints: Complaints::Warn, ..self.call(words) }.run()?;
        match ended.status {
            Some(status)
                if matches!(
                    meaning(status, self.job.is_remote()),
                    Meaning::Whole | Meaning::Partial
                ) =>
            {
                Ok((status, ended.output))
            }
            // rsync was interrupted from the terminal, and we with it; but it may know first.
            Some(20) => Err(signals::check().err().unwrap_or(Failure::Interrupted("SIGINT"))),
            _ => Err(ended.failure()),
        }
    }

    /// Runs an rsync that only looks.
    ///
    /// # Errors
    /// If it cannot be run.
    pub(crate) fn look(
        &mut self,
        words: impl Fn(&Job, Target) -> Vec<OsString>,
    ) -> Result<Vec<u8>> {
        let words = words(self.job, self.target()?);
        self.call(words).succeed()
    }

    /// Where rsync finds the destination; opens the tunnel if there is one.
    fn target(&mut self) -> Result<Target<'_>> {
        let job = self.job;
        if let (Some(tunnel), None) = (&job.tunnel, &self.tunnel) {
            self.tunnel =
                Some(OpenTunnel::open(tunnel, &job.destination, &job.rsh, &job.directory)?);
        }
        let address = self.tunnel.as_ref().map(|open| ("127.0.0.1", open.port));
        Ok(Target { destination: &job.destination, address })
    }

    /// A call of rsync, by sudo where that is wanted, in the I/O class that is wanted.
    fn call(&self, rsync: Vec<OsString>) -> Call {
        let job = self.job;
        let mut words: Vec<OsString> = Vec::new();
        if job.place.uses_sudo && !is_privileged() {
            words.push("sudo".into());
            // Else sudo keeps the daemon's password from rsync.
            if job.destination.is_daemon() && std::env::var_os("RSYNC_PASSWORD").is_some() {
                words.push("--preserve-env=RSYNC_PASSWORD".into());
            }
        }
        words.extend(job.ionice_words());
        words.extend(rsync);
        // Without a home there are no settings of a user in it.
        let environment = vec![("HOME".into(), "".into())];
        let is_asking = job.is_remote() || (job.place.uses_sudo && !is_privileged());
        Call { environment, may_ask: is_asking, ..Call::new(words) }
    }
}

/// Whether another try may help: not if the other side has answered and said no.
fn is_network_trouble(failure: &Failure, job: &Job) -> bool {
    let Failure::Command { status: Some(status), said, .. } = failure else { return false };
    let is_refusal = ["Permission denied", "Host key verification failed"]
        .iter()
        .any(|part| said.contains(part));
    meaning(*status, job.is_remote()) == Meaning::Network && !is_refusal
}

/// Sleeps, unless a signal comes.
fn wait(pause: Duration) -> Result<()> {
    let end = Instant::now() + pause;
    while Instant::now() < end {
        signals::check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Makes the destination's directory if it is missing.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn make_destination(job: &Job) -> Result<()> {
    let Destination::Local(directory) = &job.destination else { return Ok(()) };
    if job.dry_run || directory.is_dir() {
        return Ok(());
    }
    log::info!("making the missing directory {}", escape_path(directory));
    if job.place.needs_sudo_here() {
        let words: Vec<OsString> = ["mkdir", "-p", "--"]
            .map(OsString::from)
            .into_iter()
            .chain([directory.into()])
            .collect();
        let parent = directory.parent().unwrap_or(directory);
        return job
            .place
            .call(&words, crate::client::place::Privilege::ToChange(parent))
            .succeed()
            .map(drop);
    }
    make_directory(directory)
}

/// Writes the token that says *unfinished* with this time; its size, which is always the same.
fn write_unfinished(job: &Job, time: SystemTime) -> Result<u64> {
    let path = job.directory.join(completion::UNFINISHED);
    let text = format!(
        "{TOKEN_TEXT}This one was begun at {}.\n",
        DateTime::<Utc>::from(time).format("%FT%T%.9fZ")
    );
    let file = write_token(&path, &text)?;
    file.set_modified(time).map_err(|cause| Error::io("set the time of", &path, cause))?;
    Ok(text.len() as u64)
}

/// Refuses a source that says that it is not whole: each backup of it would say the same for ever.
///
/// # Errors
/// If so.
pub(crate) fn refuse_token_in_source(job: &Job) -> Result<()> {
    let exists = |name: &&str| job.source.join(name).symlink_metadata().is_ok();
    let Some(name) = [completion::UNFINISHED, completion::PARTIAL].into_iter().find(exists) else {
        return Ok(());
    };
    Err(Failure::Refused(format!(
        "the source has a file {}, left by a restore from a backup that is not whole; each backup of it would count as not whole, too: see what is missing, and remove the file",
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
