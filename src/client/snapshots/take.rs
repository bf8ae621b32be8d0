//! Snapshots and rotation of the destination, with the engine that the server's hook uses.
//!
//! Here it is called directly, or through sudo where the backup is made as root and we are not. On
//! another machine the installed `rsyncd-snapshot` does it; [`fallback`] stands in where there is
//! none. A signal does not interrupt the engine when it is called directly: what it has begun is
//! ended first, and then undone what has to be.

use std::ffi::{OsStr, OsString};

use crate::client::external::{Call, find};
use crate::client::failure::{Failure, Result};
use crate::client::job::IoClass;
use crate::client::place::Privilege;
use crate::client::rsync::output::Output;
use crate::client::safety::checks;
use crate::client::snapshots::fallback;
use crate::client::snapshots::job::Snapshots;
use crate::command;
use crate::command::snapshot::SnapshotOptions;
use crate::decide::policy::IoNice;
use crate::module::target::Target;
use crate::run::disposal::Disposal;
use crate::run::{order, rotate_by_hand};
use crate::system::clock::Clock;
use crate::tell::escape::escape_path;
use crate::tell::exit::Exit;
use crate::tell::progress;

const PROGRAM: &str = "rsyncd-snapshot";

impl Snapshots<'_> {
    /// Does what the job wants of snapshot and rotation. `status` is that of the transfer that was
    /// just made.
    ///
    /// # Errors
    /// If it cannot be done.
    pub(crate) fn work(&self, status: Option<i32>) -> Result<Exit> {
        let actions = self.job.actions;
        match (actions.snapshot, actions.rotate) {
            (false, false) => Ok(Exit::Done),
            _ if self.job.dry_run => self.rehearse(),
            (true, rotates) => self.take(SnapshotOptions { due: false, status, rotates }),
            (false, true) => self.rotate(),
        }
    }

    fn take(&self, orders: SnapshotOptions) -> Result<Exit> {
        log::info!("making a snapshot of {}", escape_path(self.directory));
        if self.is_direct() {
            show_progress();
            let target = self.target()?;
            // Asked for now, not when this process began: a run that read the tree meanwhile saw
            // only a part of the transfer.
            let report = order::run(&target, &orders.request(&target), &Clock::System)?;
            // Whoever backs up wants to hear of it if that is not what he gets.
            return Ok(report.exit().max(if report.is_partial() {
                Exit::Warnings
            } else {
                Exit::Done
            }));
        }
        let mut words = self.program()?;
        words.push("snapshot".into());
        words.extend(orders.status.map(|status| format!("--status={status}").into()));
        words.extend((!orders.rotates).then(|| "--no-rotate".into()));
        match self.command(words)? {
            Some(exit) => Ok(exit),
            None => fallback::take(self, orders),
        }
    }

    fn rotate(&self) -> Result<Exit> {
        log::info!("rotating the snapshots of {}", escape_path(self.directory));
        if self.is_direct() {
            show_progress();
            let rotated =
                rotate_by_hand::rotate(&self.target()?, false, Disposal::Later, &Clock::System)?;
            return Ok(rotated.exit());
        }
        let mut words = self.program()?;
        words.push("rotate".into());
        match self.command(words)? {
            Some(exit) => Ok(exit),
            None => Err(Failure::Refused(format!("nothing is rotated: {}", fallback::REMEDY))),
        }
    }

    /// Says what would be done.
    fn rehearse(&self) -> Result<Exit> {
        let path = escape_path(self.directory);
        if self.job.actions.snapshot {
            log::info!("a snapshot of {path} would be made, unless nothing changed");
        }
        if !self.job.actions.rotate || !self.job.place.exists(self.directory)? {
            return Ok(Exit::Done);
        }
        if self.is_direct() {
            return Ok(command::plan::run(self.context, Some(self.directory.as_os_str()), false)?);
        }
        let mut words = self.program()?;
        words.extend(["rotate", "--dry-run"].map(OsString::from));
        match self.command(words)? {
            Some(exit) => Ok(exit),
            None => {
                log::warn!("nothing would be rotated: {}", fallback::REMEDY);
                Ok(Exit::Warnings)
            }
        }
    }

    /// The failed transfer has left a mixture, of which no complete snapshot may be made. Only a
    /// root that was used before has anything to lose.
    pub(crate) fn tell_failed_transfer(&self, status: i32) {
        let tell = || -> Result<()> {
            let target = self.target()?;
            if self.is_direct() && target.is_registered() {
                let orders = SnapshotOptions { due: false, status: Some(status), rotates: false };
                order::run(&target, &orders.request(&target), &Clock::System)?;
            }
            Ok(())
        };
        if let Err(failure) = tell() {
            log::error!("the snapshots' own records do not tell of the failed transfer: {failure}");
        }
    }

    /// A directory that had a history and shows none is most likely one on which the disk is not
    /// mounted.
    ///
    /// # Errors
    /// If so.
    pub(crate) fn refuse_lost_history(&self) -> Result<()> {
        let lost = match self.directory.is_dir() {
            true => self.target().ok().and_then(|target| target.lost_history()),
            // Neither is there, as on the empty mount point of a disk that is not mounted.
            false => {
                Target::lost_directory(&self.context.settings, &checks::real_path(self.directory))
            }
        };
        match lost {
            Some(lost) => Err(lost.into()),
            None => Ok(()),
        }
    }

    /// A place that is registered for another directory, or is no place for snapshots, is no place
    /// for the backup either: that shows before the transfer, not after it.
    ///
    /// # Errors
    /// If so.
    pub(crate) fn check_root(&self) -> Result<()> {
        if self.job.actions.snapshot && self.is_direct() {
            let target = self.target()?;
            target.check_nesting()?;
            if !target.root_is_to_come() {
                target.look_at_root()?;
            }
        }
        Ok(())
    }

    fn is_direct(&self) -> bool {
        self.job.place.is_here() && !self.job.place.needs_sudo_here()
    }

    /// The destination as the engine knows it.
    fn target(&self) -> Result<Target> {
        let mut target = Target::of_module(&self.context.settings, None, self.directory)?;
        match self.job.io_class {
            Some(IoClass::Idle) => target.policy.ionice = IoNice::Idle,
            Some(IoClass::BestEffort) => target.policy.ionice = IoNice::BestEffort,
            // The engine does not push itself before others.
            Some(IoClass::Realtime) | None => {}
        }
        Ok(target)
    }

    fn program(&self) -> Result<Vec<OsString>> {
        let mut words = self.job.ionice_words();
        if !self.job.place.is_here() {
            words.push(PROGRAM.into());
            return Ok(words);
        }
        // Beside ourselves is where it is before it was installed.
        let beside = || {
            Some(std::env::current_exe().ok()?.with_file_name(PROGRAM))
                .filter(|path| path.is_file())
        };
        let path = find(OsStr::new(PROGRAM)).or_else(beside).ok_or_else(|| Failure::NoProgram {
            program: PROGRAM.into(),
            remedy: "install it beside rsync-system-backup, or run as root".into(),
        })?;
        words.push(path.into());
        if let Some(file) = &self.job.policy_file {
            words.extend(["--config".into(), file.clone().into_os_string()]);
        }
        Ok(words)
    }

    /// Runs rsyncd-snapshot; none if it is not installed there.
    fn command(&self, mut words: Vec<OsString>) -> Result<Option<Exit>> {
        words.extend(["--".into(), self.directory.into()]);
        let parent = self.directory.parent().unwrap_or(self.directory);
        let privilege = Privilege::ToChange(parent);
        if !self.job.place.is_here() && self.job.place.first_installed(&[PROGRAM])?.is_none() {
            return Ok(None);
        }
        let call = Call { output: Output::Relay, ..self.job.place.call(&words, privilege) };
        let ended = call.run()?;
        let said = ended.said.clone();
        let exit = match ended.status {
            Some(0) => Exit::Done,
            Some(4) => Exit::Warnings,
            Some(3) => return Err(Failure::Busy(said)),
            _ => return Err(ended.failure()),
        };
        if !said.is_empty() {
            let level = if exit == Exit::Done { log::Level::Info } else { log::Level::Warn };
            log::log!(level, "{said}");
        }
        Ok(Some(exit))
    }
}

/// Not before the engine is at work: until then rsync shows its own.
fn show_progress() {
    if log::max_level() >= log::LevelFilter::Info {
        progress::start();
    }
}
