//! Takes and rotates snapshots of the destination, by the same code as the hook of a server.
//!
//! On this machine the code is called directly, or as `rsyncd-snapshot` through sudo if the backup
//! runs as root and the client does not. On an SSH server the installed `rsyncd-snapshot` runs;
//! without one, [`cp_fallback`] makes the snapshot. A signal does not interrupt the code that is
//! called directly: the run ends in its usual order, and then the disk is unmounted and locked.

use std::ffi::{OsStr, OsString};

use crate::client::backup_job::IoClass;
use crate::client::error::{ClientError, Result};
use crate::client::external_command::ExternalCommand;
use crate::client::machine::Privilege;
use crate::client::pipes::StdoutMode;
use crate::client::programs::find;
use crate::client::safety::checks;
use crate::client::snapshots::cp_fallback;
use crate::client::snapshots::destination_snapshots::DestinationSnapshots;
use crate::command;
use crate::command::snapshot::SnapshotOptions;
use crate::decide::policy::IoNice;
use crate::module::target::Target;
use crate::run::disposal::RetiredRemoval;
use crate::run::{order, rotate_by_hand};
use crate::system::clock::Clock;
use crate::tell::escape::escape_path;
use crate::tell::exit::Exit;
use crate::tell::{PROGRAM, progress};

impl DestinationSnapshots<'_> {
    /// Takes and rotates snapshots, as the job wants it. `status` is rsync's after this run's
    /// transfer; `None` without a transfer.
    pub(crate) fn take_and_rotate(&self, status: Option<i32>) -> Result<Exit> {
        let actions = self.job.actions;
        match (actions.snapshot, actions.rotate) {
            (false, false) => Ok(Exit::Done),
            _ if self.job.dry_run => self.preview(),
            (true, rotates) => self.take(SnapshotOptions { due: false, status, rotates }),
            (false, true) => self.rotate(),
        }
    }

    fn take(&self, options: SnapshotOptions) -> Result<Exit> {
        log::info!("making a snapshot of {}", escape_path(self.directory));
        if self.is_direct() {
            show_progress();
            let target = self.target()?;
            // The request gets the present time. If another run read the tree since this process
            // began, it saw only a part of the transfer, so it must not cover this request.
            let report = order::run(&target, &options.request(&target), &Clock::System)?;
            // A partial snapshot is a warning.
            return Ok(report.exit().max(if report.is_partial() {
                Exit::Warnings
            } else {
                Exit::Done
            }));
        }
        let mut args = self.program()?;
        args.push("snapshot".into());
        args.extend(options.status.map(|status| format!("--status={status}").into()));
        args.extend((!options.rotates).then(|| "--no-rotate".into()));
        match self.run_program(args)? {
            Some(exit) => Ok(exit),
            None => cp_fallback::take(self, options),
        }
    }

    fn rotate(&self) -> Result<Exit> {
        log::info!("rotating the snapshots of {}", escape_path(self.directory));
        if self.is_direct() {
            show_progress();
            let rotated = rotate_by_hand::rotate(
                &self.target()?,
                false,
                RetiredRemoval::PastGrace,
                &Clock::System,
            )?;
            return Ok(rotated.exit());
        }
        let mut args = self.program()?;
        args.push("rotate".into());
        match self.run_program(args)? {
            Some(exit) => Ok(exit),
            None => {
                Err(ClientError::Refused(format!("nothing is rotated: {}", cp_fallback::REMEDY)))
            }
        }
    }

    /// Logs or prints what a run without `--dry-run` would do.
    fn preview(&self) -> Result<Exit> {
        let path = escape_path(self.directory);
        if self.job.actions.snapshot {
            log::info!("a snapshot of {path} would be made, unless nothing changed");
        }
        if !self.job.actions.rotate || !self.job.machine.exists(self.directory)? {
            return Ok(Exit::Done);
        }
        if self.is_direct() {
            return Ok(command::plan::dry_run(
                self.context,
                Some(self.directory.as_os_str()),
                false,
            )?);
        }
        let mut args = self.program()?;
        args.extend(["rotate", "--dry-run"].map(OsString::from));
        match self.run_program(args)? {
            Some(exit) => Ok(exit),
            None => {
                log::warn!("nothing would be rotated: {}", cp_fallback::REMEDY);
                Ok(Exit::Warnings)
            }
        }
    }

    /// Records that the transfer failed: the destination is a mixture of old and new, of which no
    /// complete snapshot may be made. A root that is not registered has no snapshots to protect.
    pub(crate) fn record_failed_transfer(&self, status: i32) {
        let record = || -> Result<()> {
            let target = self.target()?;
            if self.is_direct() && target.is_registered() {
                let options = SnapshotOptions { due: false, status: Some(status), rotates: false };
                order::run(&target, &options.request(&target), &Clock::System)?;
            }
            Ok(())
        };
        if let Err(error) = record() {
            log::error!(
                "cannot record the failed transfer, so a later run may take the destination for \
                 complete: {error}"
            );
        }
    }

    /// Refuses a destination that had snapshots and has none now: most likely the disk is not
    /// mounted.
    pub(crate) fn refuse_lost_history(&self) -> Result<()> {
        let lost = match self.directory.is_dir() {
            true => self.target().ok().and_then(|target| target.lost_history()),
            // The destination and its root are missing, as on the empty mount point of a disk.
            false => {
                Target::lost_directory(&self.context.settings, &checks::real_path(self.directory))
            }
        };
        match lost {
            Some(lost) => Err(lost.into()),
            None => Ok(()),
        }
    }

    /// Refuses, before the transfer, a destination whose parent cannot be its snapshot root: the
    /// root is registered for another directory, or is not safe.
    pub(crate) fn check_root(&self) -> Result<()> {
        if self.job.actions.snapshot && self.is_direct() {
            let target = self.target()?;
            target.check_nesting()?;
            if !target.is_root_to_be_created() {
                target.look_at_root()?.check_method()?;
            }
        }
        Ok(())
    }

    fn is_direct(&self) -> bool {
        self.job.machine.is_this_machine() && !self.job.machine.needs_sudo_here()
    }

    /// The destination as the hooks and commands of rsyncd-snapshot see it.
    fn target(&self) -> Result<Target> {
        let mut target = Target::of_module(&self.context.settings, None, self.directory)?;
        match self.job.io_class {
            Some(IoClass::Idle) => target.policy.ionice = IoNice::Idle,
            Some(IoClass::BestEffort) => target.policy.ionice = IoNice::BestEffort,
            // Snapshots never run in the realtime class.
            Some(IoClass::Realtime) | None => {}
        }
        Ok(target)
    }

    /// The arguments that begin a command of rsyncd-snapshot.
    fn program(&self) -> Result<Vec<OsString>> {
        let mut args = self.job.ionice_args();
        if !self.job.machine.is_this_machine() {
            args.push(PROGRAM.into());
            return Ok(args);
        }
        // Before it is installed, it lies beside this program.
        let beside = || {
            Some(std::env::current_exe().ok()?.with_file_name(PROGRAM))
                .filter(|path| path.is_file())
        };
        let path =
            find(OsStr::new(PROGRAM)).or_else(beside).ok_or_else(|| ClientError::NoProgram {
                program: PROGRAM.into(),
                remedy: "install it beside rsync-system-backup, or run as root".into(),
            })?;
        args.push(path.into());
        if let Some(file) = &self.job.policy_file {
            args.extend(["--config".into(), file.clone().into_os_string()]);
        }
        Ok(args)
    }

    /// Runs rsyncd-snapshot; `None` if the SSH server has none.
    fn run_program(&self, mut args: Vec<OsString>) -> Result<Option<Exit>> {
        args.extend(["--".into(), self.directory.into()]);
        let parent = self.directory.parent().unwrap_or(self.directory);
        let privilege = Privilege::ToChange(parent);
        if !self.job.machine.is_this_machine()
            && self.job.machine.first_installed(&[PROGRAM])?.is_none()
        {
            return Ok(None);
        }
        let command = self.job.machine.command(&args, privilege);
        let ended = ExternalCommand { stdout: StdoutMode::Relay, ..command }.run()?;
        let last_errors = ended.last_errors.clone();
        let exit = match ended.status {
            Some(0) => Exit::Done,
            Some(4) => Exit::Warnings,
            Some(3) => return Err(ClientError::Busy(last_errors)),
            _ => return Err(ended.into_error()),
        };
        if !last_errors.is_empty() {
            let level = if exit == Exit::Done { log::Level::Info } else { log::Level::Warn };
            log::log!(level, "{last_errors}");
        }
        Ok(Some(exit))
    }
}

/// Starts only now, because rsync shows its own progress during the transfer.
fn show_progress() {
    if log::max_level() >= log::LevelFilter::Info {
        progress::start();
    }
}
