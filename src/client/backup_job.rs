//! One run of rsync-system-backup as data, made from the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::client::destination::Destination;
use crate::client::machine::Machine;
use crate::client::rsync::tunnel::Tunnel;

/// The I/O scheduling class of rsync and of the work on snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IoClass {
    /// Only while no other process uses the disk.
    Idle,
    /// The kernel's usual class.
    BestEffort,
    /// Before all other processes.
    Realtime,
}

impl IoClass {
    /// Reads the name of a class; capitals do not matter.
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

    /// The name that ionice knows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            IoClass::Idle => "idle",
            IoClass::BestEffort => "best-effort",
            IoClass::Realtime => "realtime",
        }
    }
}

/// Which steps a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Actions {
    /// Transfer the files.
    pub backup: bool,
    pub snapshot: bool,
    pub rotate: bool,
}

impl Actions {
    /// The steps that the options name; without such an option all three.
    pub(crate) fn of_options(backup: bool, snapshot: bool, rotate: bool) -> Self {
        match backup || snapshot || rotate {
            true => Actions { backup, snapshot, rotate },
            false => Actions { backup: true, snapshot: true, rotate: true },
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct BackupJob {
    /// The directory that is backed up; absolute.
    pub source: PathBuf,
    /// A local directory is absolute.
    pub destination: Destination,
    /// Runs commands at the destination. For a daemon, it is this machine.
    pub machine: Machine,
    /// The arguments that begin an ssh command.
    pub rsh: Vec<OsString>,
    /// The SSH server through which a daemon is reached.
    pub tunnel: Option<Tunnel>,
    pub actions: Actions,
    /// The mount point of the backup disk.
    pub mount_point: Option<PathBuf>,
    /// The name of the encrypted device in `/etc/crypttab`.
    pub crypto: Option<String>,
    /// Without one, the class of this process.
    pub io_class: Option<IoClass>,
    pub dry_run: bool,
    /// Whether other file systems below the source are backed up, too.
    pub multi_fs: bool,
    /// rsync patterns of files that are not backed up.
    pub excludes: Vec<OsString>,
    pub shows_notifications: bool,
    /// How often a transfer is repeated after a network failure.
    pub retries: u32,
    /// The policy file of `--config`.
    pub policy_file: Option<PathBuf>,
    /// Holds the lock, the tunnel's socket and the tokens of runs to this destination.
    pub runtime_directory: PathBuf,
    /// Remembers destinations that backups went to; `None` if this machine has no such directory.
    pub known_destinations: Option<PathBuf>,
}

impl BackupJob {
    /// Whether rsync uses the network.
    pub(crate) fn is_remote(&self) -> bool {
        !matches!(self.destination, Destination::Local(_))
    }

    /// Whether the run writes tokens into the destination. A server looks for tokens only in the
    /// root of a module, so a backup into a directory of a module sends none.
    pub(crate) fn sends_token(&self) -> bool {
        match &self.destination {
            Destination::Daemon { directory, .. } => !self.dry_run && directory.is_empty(),
            _ => !self.dry_run,
        }
    }

    /// `ionice` and its options; empty without a class.
    pub(crate) fn ionice_args(&self) -> Vec<OsString> {
        let class = self.io_class.map(|class| ["ionice", "-c", class.name()].map(OsString::from));
        class.into_iter().flatten().collect()
    }
}
