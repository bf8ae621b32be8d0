//! The command line of rsync-system-backup 1.1, with a few options more, and what it means.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Parser};
use log::LevelFilter;

use crate::cli::version::DETAILS;
use crate::client::backup_job::{Actions, BackupJob, IoClass};
use crate::client::destination::Destination;
use crate::client::error::{ClientError, Result};
use crate::client::machine::Machine;
use crate::client::rsync::arguments::split_rsh;
use crate::client::rsync::tunnel::Tunnel;
use crate::store::memory::MachineMemory;
use crate::tell::escape::escape;

/// Use rsync to create full system backups, with snapshots that are rotated.
#[derive(Debug, Parser)]
#[command(name = "rsync-system-backup", version, long_version = DETAILS.as_str())]
#[command(long_about = None)]
#[command(override_usage = "rsync-system-backup [OPTIONS] [SOURCE] DESTINATION")]
// As getopt has it: a long option may be cut short, and of two the last one counts.
#[command(infer_long_args = true, args_override_self = true)]
#[command(after_help = "\
SOURCE defaults to /, without other file systems. DESTINATION is one of
    /mnt/backup/latest                       a local directory
    [USER@]HOST:DIRECTORY                    by SSH
    [USER@]HOST::MODULE[/DIRECTORY]          a module of an rsync daemon
    rsync://[USER@]HOST[:PORT]/MODULE[/DIRECTORY]
and defaults to $RSYNC_MODULE_PATH. IPv6 addresses are written in brackets.

Without -b, -s and -r all three steps are done. Snapshots appear beside the destination's directory,
and the policy, /etc/rsyncd-snapshot.toml, says how long they stay. A module's snapshots are made by
its server.

Try it with --dry-run first: whatever is not in SOURCE is deleted from DESTINATION.

Exit status: 0 done, also if the backup disk is missing and no terminal is attached; 1 failed;
2 wrong usage or refused; 3 another run is at work; 4 done with warnings, such as files that could
not be read.")]
pub(crate) struct BackupOptions {
    /// Transfer the files, and only that unless -s or -r are given too
    #[arg(short, long)]
    pub backup: bool,
    /// Make a snapshot of the destination, and only that unless -b or -r are given too
    #[arg(short, long)]
    pub snapshot: bool,
    /// Rotate the snapshots, and only that unless -b or -s are given too
    #[arg(short, long)]
    pub rotate: bool,
    /// Mount this file system of /etc/fstab first, and unmount it afterwards
    #[arg(short, long, value_name = "DIRECTORY")]
    pub mount: Option<PathBuf>,
    /// Unlock this device of /etc/crypttab first, and lock it afterwards. If it is missing and
    /// no terminal is attached, the run ends quietly
    #[arg(short, long, value_name = "NAME")]
    pub crypto: Option<String>,
    /// Reach the rsync daemon through this SSH server
    #[arg(help = "Reach the rsync daemon through this SSH server: [USER@]HOST[:PORT]")]
    #[arg(short, long, value_name = "TUNNEL_SPEC", value_parser = Tunnel::parse)]
    pub tunnel: Option<Tunnel>,
    /// The I/O class of rsync and of the work on snapshots: idle, best-effort or realtime
    #[arg(short, long, value_name = "CLASS", value_parser = IoClass::parse)]
    pub ionice: Option<IoClass>,
    /// Do not use sudo for transfers and snapshots
    #[arg(short = 'u', long)]
    pub no_sudo: bool,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Back up other file systems below SOURCE, too
    #[arg(long)]
    pub multi_fs: bool,
    /// Leave out what matches this pattern of rsync
    #[arg(short = 'x', long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub exclude: Vec<OsString>,
    /// Go on even if uname does not say that this is Linux
    #[arg(short, long)]
    pub force: bool,
    /// Show no desktop notifications
    #[arg(long)]
    pub disable_notifications: bool,
    /// Say more; can be repeated
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say less; can be repeated
    #[arg(short, long, action = ArgAction::Count)]
    pub quiet: u8,
    /// Transfer nothing, but try the connection, the password, the space and the server's hook
    #[arg(long, conflicts_with_all = ["backup", "snapshot", "rotate", "dry_run"])]
    pub check: bool,
    /// How often a transfer is tried again when the network fails
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=20))]
    pub retries: u32,
    /// The policy file [default: /etc/rsyncd-snapshot.toml, built-in defaults without it]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// SOURCE, if it is not /, and DESTINATION
    #[arg(value_name = "LOCATION", hide = true, num_args = 0..=2)]
    pub locations: Vec<OsString>,
}

impl BackupOptions {
    /// What is logged.
    pub(crate) fn level(&self) -> LevelFilter {
        match i32::from(self.verbose) - i32::from(self.quiet) {
            ..=-2 => LevelFilter::Error,
            -1 => LevelFilter::Warn,
            0 => LevelFilter::Info,
            1 => LevelFilter::Debug,
            2.. => LevelFilter::Trace,
        }
    }

    /// Whether the destination is named, on the command line or by rsyncd.
    pub(crate) fn has_destination(&self) -> bool {
        !self.locations.is_empty() || module_path().is_some()
    }

    /// Whether rsyncd has run us after a transfer. Then its hook is what is wanted, whatever the
    /// options: only the hook knows whether the transfer was whole, and a backup into the module
    /// would be one of the server.
    pub(crate) fn is_hook(&self) -> bool {
        let is_told = module_path().is_some() && std::env::var_os("RSYNC_EXIT_STATUS").is_some();
        self.locations.is_empty() && is_told && !self.dry_run && !self.check
    }

    /// What is to be done.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for what makes no sense.
    pub(crate) fn job(&self) -> Result<BackupJob> {
        let (source, destination) = match self.locations.as_slice() {
            [source, destination] => (Some(source), Some(destination.clone())),
            [destination] => (None, Some(destination.clone())),
            _ => (None, module_path()),
        };
        let destination = destination.unwrap_or_default();
        let destination = Destination::parse(&destination).map_err(ClientError::Refused)?;
        let source = source.map_or(Ok(PathBuf::from("/")), local_source)?;
        let rsh = std::env::var_os("RSYNC_RSH")
            .map(|text| split_rsh(&text))
            .filter(|args| !args.is_empty());
        let rsh = rsh.unwrap_or_else(|| vec!["ssh".into()]);
        let destination = match destination {
            Destination::Local(directory) => Destination::Local(absolute(&directory)?),
            other => other,
        };
        let remote = match &destination {
            Destination::Ssh { host, .. } => Some((host.clone(), rsh.clone())),
            _ => None,
        };
        let job = BackupJob {
            source,
            machine: Machine { remote, uses_sudo: !self.no_sudo },
            rsh,
            tunnel: self.tunnel.clone(),
            actions: self.actions(&destination)?,
            mount_point: self.mount.as_deref().map(absolute).transpose()?,
            crypto: self.crypto.clone(),
            io_class: self.ionice,
            dry_run: self.dry_run,
            multi_fs: self.multi_fs,
            excludes: self.exclude.clone(),
            shows_notifications: !self.dry_run && !self.disable_notifications,
            retries: self.retries,
            policy_file: self.config.as_deref().map(absolute).transpose()?,
            // The name is a checksum: equal for equal destinations.
            runtime_directory: runtime_directory()?
                .join(format!("{:08x}", crc32fast::hash(&destination.argument(None)))),
            known_destinations: MachineMemory::from_environment()
                .directories
                .first()
                .map(|base| base.join("destinations")),
            destination,
        };
        self.refuse_nonsense(&job)?;
        Ok(job)
    }

    /// The steps. A module's snapshots are its server's business, so only the transfer remains.
    fn actions(&self, destination: &Destination) -> Result<Actions> {
        let actions = Actions::of_options(self.backup, self.snapshot, self.rotate);
        match destination.is_daemon() {
            true if self.snapshot || self.rotate => Err(ClientError::Refused(
                "--snapshot and --rotate cannot be done on a module of an rsync daemon: its \
                 server does both after each transfer, by its post-xfer exec"
                    .into(),
            )),
            true => Ok(Actions { snapshot: false, rotate: false, ..actions }),
            false => Ok(actions),
        }
    }

    fn refuse_nonsense(&self, job: &BackupJob) -> Result<()> {
        let is_daemon = job.destination.is_daemon();
        if self.tunnel.is_some() && !is_daemon {
            return Err(ClientError::Refused(format!(
                "--tunnel leads to an rsync daemon, and {} is none: write HOST::MODULE",
                job.destination
            )));
        }
        if is_daemon && (self.mount.is_some() || self.crypto.is_some()) {
            return Err(ClientError::Refused(
                "--mount and --crypto cannot be done on the server of an rsync daemon: its disk \
                 has to be ready"
                    .into(),
            ));
        }
        Ok(())
    }
}

fn module_path() -> Option<OsString> {
    std::env::var_os("RSYNC_MODULE_PATH").filter(|path| !path.is_empty())
}

/// SOURCE is read here; what looks like another machine most likely belongs in the other place.
fn local_source(source: &OsString) -> Result<PathBuf> {
    match Destination::parse(source) {
        Ok(Destination::Local(directory)) => absolute(&directory),
        Ok(_) => Err(ClientError::Refused(format!(
            "SOURCE is '{}', and only a local directory can be backed up: are SOURCE and \
             DESTINATION swapped? (A local path with a colon is written as ./a:b)",
            escape(source.as_bytes())
        ))),
        Err(_) => Err(ClientError::Refused(format!(
            "SOURCE '{}' is not a local directory",
            escape(source.as_bytes())
        ))),
    }
}

/// A relative path may begin with `..`, since the directory in which we are is known; elsewhere
/// they stay.
fn absolute(path: &Path) -> Result<PathBuf> {
    let from_here = || -> std::io::Result<PathBuf> {
        if !path.starts_with("..") {
            return std::path::absolute(path);
        }
        let (mut base, mut rest) = (std::env::current_dir()?, path);
        while let Ok(tail) = rest.strip_prefix("..") {
            base.pop();
            rest = tail;
        }
        Ok(base.join(rest))
    };
    from_here().map(|path| path.components().collect()).map_err(|cause| {
        ClientError::Refused(format!(
            "'{}' names no path: {cause}",
            escape(path.as_os_str().as_bytes())
        ))
    })
}

/// Where small files of a run lie: gone after a reboot if there is such a place, else where state
/// is kept.
fn runtime_directory() -> Result<PathBuf> {
    let places = MachineMemory::from_environment().directories;
    let base = places.last().ok_or_else(|| {
        ClientError::Refused(
            "there is no place for a lock: set HOME or RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY".into(),
        )
    })?;
    Ok(base.join("client"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(arguments: &[&str]) -> BackupOptions {
        BackupOptions::try_parse_from([&["rsync-system-backup"], arguments].concat())
            .expect("a command line")
    }

    #[test]
    fn the_command_line_is_consistent() {
        BackupOptions::command().debug_assert();
    }

    #[test]
    fn options_are_read_as_getopt_read_them() {
        let options = parse(&[
            "-bsr",
            "--mou=/mnt",
            "--mount",
            "/mnt/x",
            "-x",
            "- a",
            "-x*.iso",
            "-vvq",
            "src",
            "dst",
        ]);
        assert!(options.backup && options.snapshot && options.rotate);
        assert_eq!(options.mount.as_deref(), Some(Path::new("/mnt/x")), "the last one counts");
        assert_eq!(options.exclude, ["- a", "*.iso"]);
        assert_eq!(options.level(), LevelFilter::Debug);
        assert_eq!(options.locations, ["src", "dst"]);
        assert_eq!(parse(&["dst", "-i", " IDLE "]).ionice, Some(IoClass::Idle));
    }

    #[test]
    fn named_steps_exclude_the_others() {
        let actions = |arguments: &[&str]| parse(arguments).job().expect("a job").actions;
        let steps = |backup, snapshot, rotate| Actions { backup, snapshot, rotate };
        assert_eq!(actions(&["/b/latest"]), steps(true, true, true));
        assert_eq!(actions(&["-b", "/b/latest"]), steps(true, false, false));
        assert_eq!(actions(&["-s", "-r", "/b/latest"]), steps(false, true, true));
        assert_eq!(actions(&["host::module"]), steps(true, false, false));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (arguments, part) in [
            (&["host:/x", "/backup"][..], "swapped?"),
            (&["rsync://host/x", "/backup"], "swapped?"),
            (&["-s", "host::module"], "its server does both"),
            (&["-t", "gate", "/backup"], "leads to an rsync daemon"),
            (&["-m", "/mnt", "host::module"], "its disk has to be ready"),
            (&["host:"], "names no directory"),
        ] {
            let error = parse(arguments).job().expect_err("nonsense").to_string();
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    }
}
