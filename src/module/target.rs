//! A module with its directory, root and policy, and what opens its root.
//!
//! A module is named by rsyncd's environment, by its name in rsyncd.conf, or by its directory; a
//! directory takes the policy of the module that its root is registered for. If the policy cannot
//! be used, only a root that was registered before is used: another one would split the history.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::Utc;

use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::settings::{PolicySource, Settings};
use crate::decide::policy::Policy;
use crate::decide::root_overlap::{ConfiguredModule, Opener};
use crate::module::root_location::{
    built_in_root, configured_root, known_root, registered_name, remembered_root, resolve,
};
use crate::store::ledger::Ledger;
use crate::store::memory::MachineMemory;
use crate::store::module_directory::canonical_module;
use crate::store::other_modules::OtherModules;
use crate::store::overlapping_roots;
use crate::store::registration::Registration;
use crate::store::root::{RootAccess, SnapshotRoot};
use crate::store::root_checks;
use crate::store::state::State;
use crate::tell::PROGRAM;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path, shell_path, shell_word};

/// What the registration of a root shows of a module's history.
pub(crate) struct FoundHistory {
    /// The root is registered for the module.
    pub(crate) is_registered: bool,
    /// The error if the history was lost.
    pub(crate) lost: Option<Error>,
}

/// A module with everything that is configured for it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name, if it has one.
    pub name: Option<Vec<u8>>,
    /// Its directory, canonical.
    pub module_path: PathBuf,
    /// Its snapshot root.
    pub root_path: PathBuf,
    /// Its policy; the built-in one where `trouble` says so.
    pub policy: Policy,
    /// Why the policy cannot be used, one line per mistake. Nothing expires then.
    pub trouble: Vec<String>,
    /// The policy file, if it was read without error. The root's state remembers its path.
    pub policy_file: Option<PathBuf>,
    /// This machine's memory of its root and failures.
    pub memory: MachineMemory,
    /// What kind of work opens its root.
    pub opener: Opener,
    /// Whether its name stands for other directories, too. Messages then name its directory, too.
    pub(crate) has_ambiguous_name: bool,
    /// rsyncd.conf, in the directories of whose writable modules a new root may not lie; none if it
    /// cannot be read.
    pub(crate) rsyncd: Option<Arc<RsyncdConf>>,
    /// The options with which another command uses the same files as this one.
    pub(crate) options: String,
}

impl Target {
    /// The module that rsyncd ran the hook for.
    pub fn of_module(settings: &Settings, name: Option<Vec<u8>>, path: &Path) -> Result<Self> {
        Target::at(settings, name, canonical_module(path)?)
    }

    /// A module whose directory does not exist.
    pub(crate) fn of_lost_directory(
        settings: &Settings,
        name: Option<Vec<u8>>,
        path: &Path,
    ) -> Result<Self> {
        Target::at(settings, name, resolve(path).unwrap_or_else(|_| path.to_path_buf()))
    }

    fn at(settings: &Settings, name: Option<Vec<u8>>, module_path: PathBuf) -> Result<Self> {
        let name = match name {
            Some(name) => Some(name),
            None => registered_name(settings, &module_path)?,
        };
        let options = settings.options();
        let settings = &*settings.of_module(name.as_deref(), &module_path);
        let policy = settings.policy(name.as_deref());
        let (root_path, trouble) = match &settings.source {
            PolicySource::Trouble(mistakes) => {
                (known_root(&settings.memory, &module_path)?, mistakes.clone())
            }
            PolicySource::File => {
                (configured_root(&policy, &module_path, name.as_deref())?, Vec::new())
            }
            PolicySource::BuiltIn => built_in_root(settings, &module_path)?,
        };
        let policy_file =
            (settings.source == PolicySource::File).then(|| settings.policy_file.clone());
        let memory = settings.memory.clone();
        let opener = Opener::Upkeep;
        let has_ambiguous_name =
            name.as_deref().is_some_and(|name| settings.is_ambiguous(name, &module_path));
        Ok(Target {
            name,
            module_path,
            root_path,
            policy,
            trouble,
            policy_file,
            memory,
            opener,
            has_ambiguous_name,
            rsyncd: settings.shared_rsyncd().ok().cloned(),
            options,
        })
    }

    /// This module for the work of `opener`.
    #[must_use]
    pub fn opened_by(self, opener: Opener) -> Self {
        Target { opener, ..self }
    }

    /// Its name for messages, escaped.
    pub fn label(&self) -> String {
        let path = || escape_path(&self.module_path);
        match &self.name {
            Some(name) if self.has_ambiguous_name => format!("{} ({})", escape(name), path()),
            Some(name) => escape(name),
            None => path(),
        }
    }

    /// Its name or path as an argument of a command, quoted for a shell.
    pub fn argument(&self) -> String {
        match &self.name {
            // Such a name would be taken for an option or a path.
            Some(name) if name.starts_with(b"-") || name.starts_with(b"/") => {
                shell_path(&self.module_path)
            }
            Some(name) if !self.has_ambiguous_name => shell_word(name),
            _ => shell_path(&self.module_path),
        }
    }

    /// The files in which this machine remembers it, as arguments of a command.
    pub(crate) fn memory_files(&self) -> String {
        let files = self.memory.files_of(&self.module_path);
        files.iter().map(|file| shell_path(file)).collect::<Vec<_>>().join(" ")
    }

    /// A command of this program on the module, as a shell takes it.
    pub(crate) fn command(&self, command: &str, options: &str) -> String {
        let words = [PROGRAM, command, &self.argument(), options, &self.options];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        words.join(" ")
    }

    /// Refuses a module whose directory or root overlaps with the snapshots of another module.
    ///
    /// # Errors
    /// [`Error::Root`] with the remedy.
    pub fn check_nesting(&self) -> Result<()> {
        self.check_nesting_among(&self.other_modules(), self.is_registered())
    }

    /// [`check_nesting`](Self::check_nesting) with what a command has read for all modules, and
    /// whether this one [is registered](Self::is_registered).
    ///
    /// # Errors
    /// [`Error::Root`] with the remedy.
    pub(crate) fn check_nesting_among(
        &self,
        others: &OtherModules,
        is_registered: bool,
    ) -> Result<()> {
        overlapping_roots::check(others, &self.module_path, &self.root_path, !is_registered)
    }

    /// The other modules of this machine, as they are now.
    pub(crate) fn other_modules(&self) -> OtherModules {
        OtherModules::read(&self.memory, writable_modules(self.rsyncd.as_deref()))
    }

    /// Whether clients of a module that [`check_nesting`](Target::check_nesting) refuses could
    /// change or delete snapshots of another one.
    pub fn reaches_snapshots(&self) -> bool {
        overlapping_roots::reaches_snapshots(
            &self.other_modules(),
            &self.module_path,
            &self.root_path,
        )
    }

    /// [`check_nesting`](Target::check_nesting) for a hook:
    /// [quickly](overlapping_roots::check_in_use) where the root is in use.
    ///
    /// # Errors
    /// [`Error::Root`] with the remedy.
    pub fn check_nesting_in_hook(&self) -> Result<()> {
        match self.is_registered() {
            true => overlapping_roots::check_in_use(&self.module_path, &self.root_path),
            false => self.check_nesting(),
        }
    }

    /// Whether the root is registered for this module. A registration that cannot be read counts as
    /// one: the run then fails with the error, instead of skipping the module.
    pub fn is_registered(&self) -> bool {
        self.registered().unwrap_or(true)
    }

    /// Whether the root is registered for this module, and the registration can be read.
    pub fn is_surely_registered(&self) -> bool {
        self.registered().unwrap_or(false)
    }

    fn registered(&self) -> Result<bool> {
        let found = SnapshotRoot::registration(&self.root_path)?;
        Ok(found.is_some_and(|found| self.is_own(&found)))
    }

    fn is_own(&self, found: &Registration) -> bool {
        found.admits(&Registration::new(self.name.as_deref(), &self.module_path))
    }

    /// [`is_registered`](Self::is_registered) and [`lost_history`](Self::lost_history) by one look
    /// at the registration.
    pub(crate) fn look_for_history(&self) -> FoundHistory {
        let found = SnapshotRoot::registration(&self.root_path);
        let is_registered = match &found {
            Ok(found) => found.as_ref().is_some_and(|found| self.is_own(found)),
            Err(_) => true,
        };
        FoundHistory { is_registered, lost: self.lost_unless(|| found) }
    }

    /// The error if the root was used before but is empty now: most likely its disk is not mounted.
    pub fn lost_history(&self) -> Option<Error> {
        self.lost_unless(|| SnapshotRoot::registration(&self.root_path))
    }

    /// The error if the root was used before, unless `look` finds a registration.
    fn lost_unless(&self, look: impl FnOnce() -> Result<Option<Registration>>) -> Option<Error> {
        let remembered = remembered_root(&self.memory, &self.module_path)?;
        if remembered != self.root_path {
            return None;
        }
        match look() {
            Ok(Some(_)) => None,
            Ok(None) => Some(Error::Root {
                path: escape_path(&remembered),
                problem: "was used before, but holds no history now".to_string(),
                remedy: "is its disk mounted? If the history was removed on purpose, run \
                         `snapshot` to begin a new one"
                    .to_string(),
            }),
            Err(error) => Some(error),
        }
    }

    /// Whether the root was used before and is surely empty now. A root that cannot be read is not
    /// lost: the run that follows reports the error.
    pub(crate) fn has_lost_history(&self) -> bool {
        matches!(self.lost_history(), Some(Error::Root { .. }))
    }

    /// [`lost_history`](Self::lost_history) for a module whose directory does not exist either, so
    /// that no target can be made.
    pub fn lost_directory(settings: &Settings, module_path: &Path) -> Option<Error> {
        let remembered = remembered_root(&settings.memory, module_path)?;
        let is_lost =
            !module_path.exists() && matches!(SnapshotRoot::registration(&remembered), Ok(None));
        is_lost.then(|| Error::Root {
            path: escape_path(&remembered),
            problem: format!(
                "was used before, but holds no history now, nor is {} \
                              there",
                escape_path(module_path)
            ),
            remedy: "is its disk mounted? If the history was removed on purpose, or the disk is a \
                     new one, make that directory and take a first `rsyncd-snapshot snapshot` of \
                     it"
            .to_string(),
        })
    }

    /// Whether the root does not exist yet and its parent does, so that the first run makes it.
    pub fn is_root_to_be_created(&self) -> bool {
        !self.root_path.exists() && self.root_path.parent().is_some_and(Path::is_dir)
    }

    /// Checks where a root that [is to be created](Self::is_root_to_be_created) would be made, and
    /// returns that directory.
    ///
    /// # Errors
    /// If the root could not be used there.
    pub(crate) fn check_future_root(&self) -> Result<PathBuf> {
        root_checks::check_future(&self.root_path, &self.module_path, self.policy.method)
    }

    /// Opens and checks the root for work on it; registers it if its opener may do that.
    pub fn open_root(&self) -> Result<SnapshotRoot> {
        if !self.may_register() {
            let root = self.open_with(RootAccess::Registered)?;
            // The module may have been found only by its root on disk, if this machine has lost its
            // memory of it.
            if self.has_ambiguous_name {
                self.remember_root();
            }
            return Ok(root);
        }
        if !self.is_registered() {
            self.check_nesting()?;
        }
        let root = self.open_with(RootAccess::Register)?;
        self.remember_root();
        Ok(root)
    }

    /// Makes the directories that [`open_root`](Target::open_root) would make, but registers
    /// nothing.
    pub fn prepare_root(&self) -> Result<SnapshotRoot> {
        if self.may_register() {
            if !self.is_registered() {
                self.check_nesting()?;
            }
            return self.open_with(RootAccess::Prepare);
        }
        self.open_with(RootAccess::Registered)
    }

    /// Without a usable policy it is unknown where a new root belongs.
    fn may_register(&self) -> bool {
        self.trouble.is_empty() && self.opener.may_register()
    }

    fn open_with(&self, access: RootAccess) -> Result<SnapshotRoot> {
        let name = self.name.as_deref();
        let method = self.policy.method;
        let opened = SnapshotRoot::open(&self.root_path, &self.module_path, name, access, method);
        let root = opened.map_err(|error| match error {
            Error::Unregistered { path } => self.not_registered(path),
            error => error,
        })?;
        if root.has_lost_records() {
            log::error!("{}: {}", self.label(), root.lost_records());
            State::update(root.private(), |state| state.records_lost = Some(Utc::now()))?;
        }
        Ok(root)
    }

    fn not_registered(&self, path: String) -> Error {
        let (problem, remedy) = if self.trouble.is_empty() {
            let first =
                "push to the module, or run `rsyncd-snapshot snapshot MODULE`, for a first one";
            ("has never been used for a snapshot", first)
        } else {
            let mend = "mend the policy first: it says where snapshots belong";
            ("has never been used, and the policy cannot be read", mend)
        };
        Error::Root { path, problem: problem.to_string(), remedy: remedy.to_string() }
    }

    /// Remembers the root outside of it. Later commands need that to find a module whose directory
    /// is not in rsyncd.conf. If the root was moved, the run that follows reports it, so an earlier
    /// root is not replaced here.
    fn remember_root(&self) {
        let name = self.name.as_deref().map(escape);
        let remembered = self.memory.change(&self.module_path, |memory| {
            if memory.snapshot_root.is_none() {
                memory.set_root(&self.root_path);
            }
            memory.module = name.clone().or(memory.module.take());
        });
        if let Err(error) = remembered {
            log::debug!("what this machine remembers of the module cannot be written: {error}");
        }
    }

    /// The ledger of the root, under its lock.
    pub fn open_ledger(&self, root: &SnapshotRoot) -> Result<Ledger> {
        Ledger::open(root, self.memory.ledgers(&self.module_path))
    }

    /// Opens and checks the root without changing anything.
    pub fn look_at_root(&self) -> Result<SnapshotRoot> {
        self.open_with(RootAccess::Look)
    }
}

/// The modules that clients may write to; none if rsyncd.conf cannot be read.
pub(crate) fn writable_modules(rsyncd: Option<&RsyncdConf>) -> Vec<ConfiguredModule> {
    rsyncd.map(RsyncdConf::writable_modules).unwrap_or_default()
}
