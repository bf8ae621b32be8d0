//! One file per command of `rsyncd-snapshot`, beside files that several share. A command finds the
//! modules, starts the work in `run`, and prints the result.
//!
//! This file finds the modules that a command works on, confines the process to them before
//! anything is changed, and works on one after the other.

pub(crate) mod age_findings;
pub(crate) mod check;
pub(crate) mod check_module;
mod check_surroundings;
mod check_view;
pub(crate) mod client_view;
pub(crate) mod complete;
pub(crate) mod config_findings;
pub(crate) mod decision_view;
pub(crate) mod diff;
pub(crate) mod diff_options;
pub(crate) mod diff_view;
pub(crate) mod doctor;
pub(crate) mod expire;
pub(crate) mod expired;
pub(crate) mod finding;
mod finding_id;
pub(crate) mod freed_space;
pub(crate) mod full_commands;
pub(crate) mod hold;
pub(crate) mod import_policy;
pub(crate) mod lease_findings;
pub(crate) mod list;
pub(crate) mod list_text;
pub(crate) mod list_view;
mod metrics;
pub(crate) mod module_findings;
mod module_numbers;
pub(crate) mod named_snapshots;
pub(crate) mod path_place;
mod performance_data;
pub(crate) mod pin;
pub(crate) mod plan;
pub(crate) mod plan_options;
pub(crate) mod plan_text;
pub(crate) mod plan_view;
pub(crate) mod policy_effect;
pub(crate) mod push_findings;
pub(crate) mod release;
pub(crate) mod replay;
pub(crate) mod restore;
pub(crate) mod restore_destination;
pub(crate) mod restore_options;
pub(crate) mod restore_view;
pub(crate) mod root_findings;
pub(crate) mod rotate;
pub(crate) mod run_findings;
pub(crate) mod setup;
mod setup_conf;
pub(crate) mod setup_options;
mod setup_plan;
mod setup_view;
pub(crate) mod snapshot;
pub(crate) mod snapshot_choice;
pub(crate) mod snapshot_limit;
pub(crate) mod status;
mod status_view;
pub(crate) mod timeline;
pub(crate) mod unremovable_findings;
pub(crate) mod verify;
pub(crate) mod versions;
mod versions_view;
pub(crate) mod writers;

use std::cell::LazyCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::refused_push::offers_only_reading;
use crate::config::settings::PolicySource;
use crate::decide::root_overlap::Opener;
use crate::engine::responsiveness::is_responsive;
use crate::module::confine::{self, WriteScope};
use crate::module::context::Context;
use crate::module::expected_pushes;
use crate::module::known_modules::{self, KnownModule, Needs};
use crate::module::named_module::named;
use crate::module::target::Target;
use crate::run::lost_directory::lost_directory_error;
use crate::store::memory::{RunFailure, RunKind};
use crate::store::other_modules::OtherModules;
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path, shell_path};
use crate::tell::exit::Exit;
use crate::tell::log::set_subject;
use crate::tell::output::{print, print_whole};

impl Context {
    /// The module named on the command line, or all that were worked on before. If the command
    /// `changes` something, a module that rsyncd.conf no longer names is left out of all: the
    /// administrator may have taken it out on purpose.
    fn targets(
        &self,
        module: Option<&OsStr>,
        changes: bool,
        needs: Needs,
    ) -> Result<Vec<(String, Result<Target>)>> {
        if let Some(module) = module {
            return named(&self.settings, module, needs)
                .map_err(|error| self.explain_lost_directory(module, error));
        }
        let mut targets = Vec::new();
        let others = LazyCell::new(|| self.other_modules());
        for found in known_modules::all(&self.settings, needs)? {
            match found {
                KnownModule::Configured(label, target) => targets.push((label, target)),
                KnownModule::Former(label, target) => targets.push((label, Ok(target))),
                KnownModule::Unconfigured(label, target) if !changes => {
                    targets.push((label, target))
                }
                KnownModule::Unconfigured(label, _) => log::info!(
                    "{label}: left as it is, for it is no module of rsyncd.conf; name its \
                     directory to work on it"
                ),
                // This module would take snapshots of snapshots; the work on it fails and says so.
                KnownModule::NeverSucceeded(label, target)
                    if changes && target.check_nesting_among(&others, false).is_err() =>
                {
                    targets.push((label, Ok(target)));
                }
                KnownModule::NeverSucceeded(label, target) => {
                    let memory = target.memory.recall(&target.module_path);
                    let why = memory.and_then(|memory| memory.failure).map(|last| last.message);
                    log::warn!(
                        "{label}: skipped, for it has no snapshots: all of its runs failed, the \
                         last with: {}",
                        why.unwrap_or_default()
                    );
                }
                KnownModule::Unknown { name, why } => {
                    log::info!(
                        "{}: skipped, for this machine remembers no push to it, and the module \
                         {why}",
                        escape(&name)
                    );
                }
            }
        }
        Ok(targets)
    }

    /// The error of a module whose directory is gone, with what brings it back.
    fn explain_lost_directory(&self, module: &OsStr, error: Error) -> Error {
        if !error.is_not_found() {
            return error;
        }
        let found = named(&self.settings, module, Needs::Root).unwrap_or_default();
        let lost = found.into_iter().find_map(|(_, target)| lost_directory_error(&target.ok()?));
        lost.unwrap_or(error)
    }

    /// Works on each module. After one that fails, the next one follows. If the command may write
    /// into roots, this process is confined to those of the modules first.
    fn for_each(
        &self,
        module: Option<&OsStr>,
        work: impl FnMut(&Target) -> Result<Exit>,
    ) -> Result<Exit> {
        let mut targets = self.targets(module, false, Needs::Root)?;
        if self.write_scope == WriteScope::Roots {
            let upkeep = |target: Target| target.opened_by(Opener::Upkeep);
            targets = targets.into_iter().map(|(label, it)| (label, it.map(upkeep))).collect();
            let roots = targets.iter().filter_map(|(_, target)| target.as_ref().ok());
            confine::to(roots, self.write_scope);
        }
        self.work_on(targets, module, work)
    }

    /// [`for_each`](Self::for_each) for work that changes something. This process is
    /// [confined](crate::module::confine) to all of the modules first. A failure is remembered as
    /// one of `kind`, also if the module cannot be resolved. Only a snapshot may begin a new
    /// history where one is lost. If all modules are worked on, one that would take snapshots of
    /// snapshots is left out.
    fn change_each(
        &self,
        module: Option<&OsStr>,
        kind: Option<RunKind>,
        opener: Opener,
        work: impl FnMut(&Target) -> Result<Exit>,
    ) -> Result<Exit> {
        let unless_lost = |target: Target| match kind {
            Some(RunKind::Snapshot) => Ok(target),
            _ => match target.lost_history() {
                None => Ok(target),
                Some(lost) => {
                    self.remember_at(&target.module_path, kind, &lost);
                    Err(lost)
                }
            },
        };
        // A run reads the live tree; other work is about snapshots alone.
        let needs = if kind.is_some() { Needs::Directory } else { Needs::Root };
        let targets = self
            .targets(module, true, needs)
            .inspect_err(|error| self.remember_unresolved(module, kind, error))?;
        if module.is_none() {
            expected_pushes::note(&self.settings, Clock::System.now());
        }
        let others = self.other_modules();
        let mut skipped = Exit::Done;
        let mut kept = Vec::new();
        for (label, target) in targets {
            let target = target.map(|target| target.opened_by(opener));
            match target.as_ref().map_or(Ok(()), |target| self.check_use(target, module, &others)) {
                Err(refusal) if module.is_none() => {
                    log::warn!("{label}: skipped: {refusal}");
                    skipped = Exit::Warnings;
                }
                Err(refusal) => kept.push((label, Err(refusal))),
                Ok(()) => kept.push((label, target.and_then(unless_lost))),
            }
        }
        confine::to(kept.iter().filter_map(|(_, target)| target.as_ref().ok()), self.write_scope);
        if kept.is_empty() && skipped != Exit::Done {
            return Ok(skipped);
        }
        Ok(self.work_on(kept, module, work)?.max(skipped))
    }

    /// Refuses a module that snapshots cannot be made of, and a read-only one that is given by
    /// name. The latter may be filled by another program; then the administrator names its
    /// directory.
    fn check_use(
        &self,
        target: &Target,
        module: Option<&OsStr>,
        others: &OtherModules,
    ) -> Result<()> {
        let is_registered = target.is_registered();
        target.check_nesting_among(others, is_registered)?;
        let is_by_name = module.is_some_and(|module| !module.as_bytes().starts_with(b"/"));
        let may_register = target.opener.may_register() && is_by_name;
        let (true, Some(name)) = (may_register, &target.name) else { return Ok(()) };
        let conf = self.settings.rsyncd()?;
        match conf.module(name).is_some_and(offers_only_reading) && !is_registered {
            false => Ok(()),
            true => Err(Error::Usage(format!(
                "module {} is read only in {}, so no snapshots are made of it; if something else \
                 than a push fills it, name its directory: `rsyncd-snapshot snapshot {}`",
                escape(name),
                escape_path(&self.settings.rsyncd_conf),
                shell_path(&target.module_path),
            ))),
        }
    }

    /// Remembers why a module that was used before cannot be resolved.
    fn remember_unresolved(&self, module: Option<&OsStr>, kind: Option<RunKind>, error: &Error) {
        if let Some(path) = module.and_then(|module| self.path_of(module)) {
            self.remember_at(&path, kind, error);
        }
    }

    fn remember_at(&self, path: &Path, kind: Option<RunKind>, error: &Error) {
        let Some(kind) = kind else { return };
        let memory = &self.settings.memory;
        if error.exit() != Exit::Failed || memory.recall(path).is_none() {
            return;
        }
        let failure = RunFailure::now(kind, error.to_string());
        if let Err(error) = memory.change(path, |memory| memory.failure = Some(failure.clone())) {
            log::debug!(
                "{}: what this machine remembers of it cannot be written: {error}",
                escape_path(path)
            );
        }
    }

    /// The canonical directory of a named module; without resolving links if its server does not
    /// answer.
    fn path_of(&self, module: &OsStr) -> Option<PathBuf> {
        let path = self.configured_path(module)?;
        let canonical = if is_responsive(&path) { std::fs::canonicalize(&path).ok() } else { None };
        Some(canonical.unwrap_or(path))
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
        module: Option<&OsStr>,
        mut work: impl FnMut(&Target) -> Result<Exit>,
    ) -> Result<Exit> {
        // One name may stand for several directories, so a named module may be several targets.
        let single = module.is_some() && targets.len() == 1;
        if let (true, PolicySource::Trouble(mistakes)) = (targets.is_empty(), &self.settings.source)
        {
            // Where the snapshots belong is in the policy, so there may well be some.
            return Err(Error::Policy(mistakes.clone()));
        }
        if targets.is_empty() {
            log::info!(
                "nothing to do: no module in {} has snapshots yet, and this machine remembers none",
                escape_path(&self.settings.rsyncd_conf)
            );
        }
        let mut worst = Exit::Done;
        for (label, target) in targets {
            // The level of one module must not silence what is said of the next one.
            self.reset_level();
            // With a single named module, lines need not name it.
            set_subject(Some(label.clone()).filter(|_| !single));
            let done = target.and_then(|target| {
                // The work on other modules may have taken hours, and a server may be gone by now.
                known_modules::ensure_answers(&target)?;
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
        set_subject(None);
        self.reset_level();
        Ok(worst)
    }
}

/// Prints one object for one module, an array for all.
fn print_json<T: Serialize>(single: bool, values: &[T]) -> Result<()> {
    let text = match values {
        [value] if single => serde_json::to_string_pretty(value),
        values => serde_json::to_string_pretty(values),
    };
    let text = text.map_err(|_| Error::Bug("a value could not be written as JSON"))?;
    print_whole(&(text + "\n"))
}

/// Prints what was done to a module, unless `--quiet` asks for problems only.
fn print_done(context: &Context, target: &Target, message: &str) -> Result<Exit> {
    if !context.is_quiet() {
        print(&format!("{}: {message}\n", target.label()))?;
    }
    Ok(Exit::Done)
}
