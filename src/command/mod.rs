//! One file per command: it finds the modules, lets the work be done, and tells the result.

mod answering;
pub mod check;
pub mod detach;
pub mod doctor;
pub mod expired;
pub mod freed;
pub mod health;
pub mod hook;
pub mod import_policy;
pub mod inquiry;
pub mod list;
pub mod pin;
pub mod plan;
mod plan_text;
pub mod plan_view;
pub mod pre_xfer;
mod replay;
pub mod rotate;
pub mod snapshot;
pub mod timeline;
pub mod verify;
pub mod view;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use log::LevelFilter;
use serde::Serialize;

use crate::config::settings::Settings;
use crate::config::target::Target;
use crate::confine::{self, Reach};
use crate::store::boot::BootTime;
use crate::store::memory::{Failure, Work};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;
use crate::tell::exit::Exit;

/// What every command gets.
pub struct Context {
    /// Policy and rsyncd.conf.
    pub settings: Settings,
    /// The log level that the command line asks for; it overrides the policy's.
    pub level: Option<LevelFilter>,
    /// When this process was started.
    pub started: BootTime,
    /// What it may change.
    pub reach: Reach,
}

impl Context {
    /// The module named on the command line, or all registered ones.
    fn targets(&self, module: Option<&OsStr>) -> Result<Vec<(String, Result<Target>)>> {
        let Some(module) = module else { return Target::all(&self.settings) };
        let target = Target::named(&self.settings, module)?;
        Ok(vec![(target.label(), Ok(target))])
    }

    /// Works on each module; one that fails does not keep the others from their turn.
    fn for_each(&self, module: Option<&OsStr>, work: impl FnMut(&Target) -> Result<Exit>) -> Result<Exit> {
        self.work_on(self.targets(module)?, module.is_some(), work)
    }

    /// The same for work that changes something: this process is [confined](crate::confine) to all of the modules first. A failure of
    /// some `kind` of work is remembered: also if the module cannot even be resolved. A history that is lost is a new beginning for
    /// a snapshot only.
    fn change_each(
        &self,
        module: Option<&OsStr>,
        kind: Option<Work>,
        work: impl FnMut(&Target) -> Result<Exit>,
    ) -> Result<Exit> {
        let unless_lost = |target: Target| match kind {
            Some(Work::Snapshot) => Ok(target),
            _ => match target.lost_history() {
                None => Ok(target),
                Some(lost) => {
                    self.remember_at(&target.module_path, kind, &lost);
                    Err(lost)
                }
            },
        };
        let targets = self.targets(module).inspect_err(|error| self.remember(module, kind, error))?;
        let targets: Vec<_> =
            targets.into_iter().map(|(label, target)| (label, target.and_then(unless_lost))).collect();
        confine::to(targets.iter().filter_map(|(_, target)| target.as_ref().ok()), self.reach);
        self.work_on(targets, module.is_some(), work)
    }

    /// Remembers why a module that was used before cannot be resolved.
    fn remember(&self, module: Option<&OsStr>, kind: Option<Work>, error: &Error) {
        if let Some(path) = module.and_then(|module| self.path_of(module)) {
            self.remember_at(&path, kind, error);
        }
    }

    fn remember_at(&self, path: &Path, kind: Option<Work>, error: &Error) {
        let Some(kind) = kind else { return };
        let memory = &self.settings.memory;
        if error.exit() != Exit::Failed || memory.recall(path).is_none() {
            return;
        }
        let failure = Failure::now(kind, error.to_string());
        if let Err(error) = memory.change(path, |memory| memory.failure = Some(failure.clone())) {
            log::debug!("{}: nothing remembered: {error}", escape_path(path));
        }
    }

    /// The directory of a named module, as it is known to this machine.
    fn path_of(&self, module: &OsStr) -> Option<PathBuf> {
        let path = self.configured_path(module)?;
        Some(std::fs::canonicalize(&path).unwrap_or(path))
    }

    /// The directory of a named module, as `rsyncd.conf` or the command line says.
    fn configured_path(&self, module: &OsStr) -> Option<PathBuf> {
        match Path::new(module) {
            path if path.is_absolute() => Some(path.to_path_buf()),
            _ => self.settings.rsyncd().ok()?.module(module.as_bytes())?.path().ok(),
        }
    }

    fn work_on(
        &self,
        targets: Vec<(String, Result<Target>)>,
        single: bool,
        mut work: impl FnMut(&Target) -> Result<Exit>,
    ) -> Result<Exit> {
        if targets.is_empty() {
            log::warn!(
                "no module in {} has a registered snapshot root",
                escape_path(&self.settings.rsyncd_conf)
            );
        }
        let mut worst = Exit::Done;
        for (label, target) in targets {
            let done = target.and_then(|target| {
                self.set_level(&target);
                work(&target)
            });
            match done {
                Ok(exit) => worst = worst.max(exit),
                Err(error) if single => return Err(error),
                Err(error) => {
                    log::error!("{label}: {error}");
                    worst = worst.max(error.exit());
                }
            }
        }
        Ok(worst)
    }

    fn set_level(&self, target: &Target) {
        log::set_max_level(self.level.unwrap_or(target.policy.log_level));
    }
}

/// Prints one object for one module, an array for all.
fn print_json<T: Serialize>(single: bool, values: &[T]) -> Result<()> {
    let text = match values {
        [value] if single => serde_json::to_string_pretty(value),
        values => serde_json::to_string_pretty(values),
    };
    let text = text.map_err(|error| Error::Usage(format!("cannot write JSON: {error}")))?;
    print(&(text + "\n"))
}

fn print(text: &str) -> Result<()> {
    crate::tell::table::print(text).map_err(|cause| Error::io_bytes("write to", b"standard output", cause))
}
