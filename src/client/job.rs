//! What one run is to do: the command line once it has been understood.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::client::location::Destination;
use crate::client::place::Place;
use crate::client::rsync::tunnel::Tunnel;

/// The I/O scheduling class of rsync and of the work on snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IoClass {
    /// Only when nobody else wants the disk.
    Idle,
    /// As everybody, at the lowest level.
    BestEffort,
    /// Before everybody else.
    Realtime,
}

impl IoClass {
    /// Reads the name of a class, in any case.
    ///
    /// # Errors
    /// A message that lists the classes.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "idle" => Ok(IoClass::Idle),
            "best-effort" => Ok(IoClass::BestEffort),
            "realtime" => Ok(IoClass::Realtime),
            _ => Err("the classes are idle, best-effort and realtime".into()),
        }
    }

    /// Its name for ionice.
    pub(crate) fn name(self) -> &'static str {
        match self {
            IoClass::Idle => "idle",
            IoClass::BestEffort => "best-effort",
            IoClass::Realtime => "realtime",
        }
    }
}

/// Which of the steps are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Actions {
    /// Transfer the files.
    pub backup: bool,
    /// Make a snapshot of them.
    pub snapshot: bool,
    /// Rotate the snapshots.
    pub rotate: bool,
}

impl Actions {
    /// All three, unless some are named: then those.
    pub(crate) fn of_options(backup: bool, snapshot: bool, rotate: bool) -> Self {
        match backup || snapshot || rotate {
            true => Actions { backup, snapshot, rotate },
            false => Actions { backup: true, snapshot: true, rotate: true },
        }
    }
}

/// What one run is to do.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// The directory that is backed up, absolute.
    pub source: PathBuf,
    /// Where to; a local directory is absolute.
    pub destination: Destination,
    /// Where its commands run; of no use for a daemon.
    pub place: Place,
    /// The words that begin an ssh command.
    pub rsh: Vec<OsString>,
    /// The SSH server on the way to a daemon.
    pub tunnel: Option<Tunnel>,
    /// The steps.
    pub actions: Actions,
    /// The file system to mount.
    pub mount_point: Option<PathBuf>,
    /// The encrypted device to unlock.
    pub crypto: Option<String>,
    /// The I/O class, if it is to be another one.
    pub io_class: Option<IoClass>,
    /// Change nothing.
    pub dry_run: bool,
    /// Back up other file systems below the source, too.
    pub multi_fs: bool,
    /// Patterns of rsync to leave out.
    pub excludes: Vec<OsString>,
    /// Tell the desktops.
    pub notifies: bool,
    /// How often a transfer is tried again when the network fails.
    pub retries: u32,
    /// The policy file, if another than the usual one.
    pub policy_file: Option<PathBuf>,
    /// Where lock, socket and small files of a run to this destination lie.
    pub directory: PathBuf,
    /// Where it is noted which destinations backups went to; none if there is no place for it.
    pub memory: Option<PathBuf>,
}

impl Job {
    /// Whether rsync speaks over a network.
    pub(crate) fn is_remote(&self) -> bool {
        !matches!(self.destination, Destination::Local(_))
    }

    /// Whether the destination is told how far the backup has come: a server looks for that in the
    /// root of a module, not in a directory of it.
    pub(crate) fn sends_token(&self) -> bool {
        match &self.destination {
            Destination::Daemon { directory, .. } => !self.dry_run && directory.is_empty(),
            _ => !self.dry_run,
        }
    }

    /// `ionice` and its options, if a class is given.
    pub(crate) fn ionice_words(&self) -> Vec<OsString> {
        let class = self.io_class.map(|class| ["ionice", "-c", class.name()].map(OsString::from));
        class.into_iter().flatten().collect()
    }
}
