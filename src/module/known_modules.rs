//! Which modules a command works on: those of `rsyncd.conf`, and those that this machine remembers.
//!
//! `rsyncd.conf` cannot always say where a module's directory is: a path may depend on the user who
//! logs in, or on where the daemon was started. rsyncd gives the hooks the directory, so the hooks
//! remember it and it is found here. A module without a known directory is reported, not skipped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::rsyncd_module::{ModuleDirectory, RsyncdModule};
use crate::config::settings::Settings;
use crate::engine::responsiveness::{self, ensure_responsive, is_responsive};
use crate::module::expected_pushes::expects_pushes;
use crate::module::found_on_disk::{self, RegisteredDirectory};
use crate::module::root_location::{filled, remembered_root};
use crate::module::target::Target;
use crate::store::layout::PRIVATE;
use crate::store::memory::{ModuleMemory, path_of};
use crate::store::root::SnapshotRoot;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path, unescape};

/// A module that a command works on, or the reason why it cannot.
pub(crate) enum KnownModule {
    /// A module of rsyncd.conf that has had a run, with its label for messages.
    Configured(String, Result<Target>),
    /// A module that has had a run and is not in rsyncd.conf. Commands show it and do not change
    /// it.
    Unconfigured(String, Result<Target>),
    /// A module whose every run has failed, so that there is nothing to work on.
    NeverSucceeded(String, Target),
    /// The history of a directory that rsyncd.conf no longer gives to the module of this name.
    Former(String, Target),
    /// A module whose directories are not in rsyncd.conf, and none of which has had a run.
    Unknown {
        name: Vec<u8>,
        /// Why its directory is not known.
        why: String,
    },
}

/// What a command needs of the modules that it works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// The directory and the root.
    Directory,
    /// The root alone: the directory may be lost.
    Root,
    /// The named module itself, also if it shows the snapshots of another one.
    Itself,
}

/// [`resolved`] for a command that may do without the module's directory.
///
/// # Errors
/// As [`resolved`]; without a directory, if there is no root that is registered for it.
pub(crate) fn resolved_for(
    settings: &Settings,
    name: Option<Vec<u8>>,
    path: &Path,
    needs: Needs,
) -> Result<Target> {
    match resolved(settings, name.clone(), path) {
        Err(error) if needs == Needs::Root && error.is_not_found() => {
            let found = Target::of_lost_directory(settings, name, path).ok();
            let found = found.filter(Target::is_surely_registered).ok_or(error)?;
            ensure_responsive(&found.root_path)?;
            Ok(found)
        }
        found => found,
    }
}

/// [`Target::of_module`] with a limit on the wait for file systems that do not answer.
///
/// # Errors
/// [`Error::NoAnswer`] if the file system of the module or of its root does not answer in time.
pub(crate) fn resolved(settings: &Settings, name: Option<Vec<u8>>, path: &Path) -> Result<Target> {
    ensure_responsive(path)?;
    let canonical = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    // `Target::of_module` reads the configured root besides the module's parent directory, so both
    // have to answer.
    let of_module = settings.of_module(name.as_deref(), &canonical);
    let template = of_module.policy(name.as_deref()).snapshot_root;
    let configured = template.and_then(|template| filled(&template, name.as_deref()).ok());
    let mut roots = configured.into_iter().chain(remembered_root(&settings.memory, &canonical));
    roots.try_for_each(|root| ensure_responsive(&root))?;
    let target = Target::of_module(settings, name, path)?;
    ensure_answers(&target)?;
    Ok(target)
}

/// Asks the file systems of all modules and of their roots ahead, as [`resolved`] asks each later.
pub(crate) fn ask_ahead(settings: &Settings, conf: &RsyncdConf) {
    let places = |module: &RsyncdModule| {
        let Ok(ModuleDirectory::At(path)) = module.whereabouts() else { return Vec::new() };
        let name = Some(module.name.as_slice());
        let template = settings.of_configured(module).policy(name).snapshot_root;
        let configured = template.and_then(|template| filled(&template, name).ok());
        let root = configured.or_else(|| path.parent().map(Path::to_path_buf));
        root.into_iter().chain([path]).collect()
    };
    responsiveness::ask_ahead(conf.modules.iter().flat_map(places).collect());
}

/// Makes sure that the file systems of a module and its root still answer.
///
/// # Errors
/// [`Error::NoAnswer`] if one does not.
pub(crate) fn ensure_answers(target: &Target) -> Result<()> {
    ensure_responsive(&target.module_path)?;
    ensure_responsive(&target.root_path)
}

/// Every module that has had a run: those of rsyncd.conf in its order, then those that only this
/// machine remembers. A registered module that cannot be resolved comes with the error.
///
/// # Errors
/// If rsyncd.conf cannot be read.
pub(crate) fn all(settings: &Settings, needs: Needs) -> Result<Vec<KnownModule>> {
    let conf = settings.rsyncd()?;
    ask_ahead(settings, conf);
    let mut found: Vec<KnownModule> =
        conf.modules.iter().filter_map(|module| configured(settings, module, needs)).collect();
    found.extend(beyond_conf(settings, conf, needs));
    Ok(found)
}

/// A module whose directory is in rsyncd.conf, if it has had a run.
fn configured(settings: &Settings, module: &RsyncdModule, needs: Needs) -> Option<KnownModule> {
    // Without a path, rsyncd refuses each connection to it.
    let Ok(ModuleDirectory::At(path)) = module.whereabouts() else { return None };
    let was_used =
        || settings.memory.recall(&path).is_some_and(|memory| memory.snapshot_root.is_some());
    let target = match resolved_for(settings, Some(module.name.clone()), &path, needs) {
        Ok(target) if target.is_registered() => Ok(target),
        Ok(target) => Err(target.lost_history()?),
        Err(error) if was_used() => Err(error),
        // An ordinary user sees nothing of a module whose directory only root may enter.
        Err(error) if error.is_denied() && expects_pushes(module) => Err(error),
        Err(_) => return None,
    };
    Some(KnownModule::Configured(escape(&module.name), target))
}

/// The modules whose directories are not in rsyncd.conf, as far as this machine remembers them.
pub(crate) fn beyond_conf(
    settings: &Settings,
    conf: &RsyncdConf,
    needs: Needs,
) -> Vec<KnownModule> {
    let mut met = BTreeSet::new();
    let mut unknown: Vec<(&RsyncdModule, String)> = Vec::new();
    for module in &conf.modules {
        match module.whereabouts() {
            Ok(ModuleDirectory::At(path)) => {
                // A server that does not answer must not delay the other modules.
                if is_responsive(&path) {
                    met.extend(std::fs::canonicalize(&path));
                }
                met.insert(path);
            }
            Ok(ModuleDirectory::Unknown { why }) => unknown.push((module, why)),
            Err(_) => {}
        }
    }
    let others = RememberedModule::all(settings, &met);
    let forgotten: Vec<Vec<KnownModule>> =
        unknown.iter().map(|(module, _)| forgotten(settings, module, &others)).collect();
    // A directory that is remembered but gone is none of the module's.
    let mut resolved_names = BTreeSet::new();
    let mut resolved = Vec::new();
    for one in others {
        let name = one.name.clone();
        if let Some(found) = one.resolve(settings, conf, needs) {
            resolved_names.extend(name);
            resolved.push(found);
        }
    }
    let mut found = Vec::new();
    for ((module, why), forgotten) in unknown.into_iter().zip(forgotten) {
        if forgotten.is_empty() && !resolved_names.contains(&module.name) {
            found.push(KnownModule::Unknown { name: module.name.clone(), why });
        }
        found.extend(forgotten);
    }
    found.extend(resolved);
    found
}

/// The directories of a module that this machine does not remember, but that have roots on disk.
pub(crate) fn forgotten(
    settings: &Settings,
    module: &RsyncdModule,
    remembered: &[RememberedModule],
) -> Vec<KnownModule> {
    let is_known =
        |found: &RegisteredDirectory| remembered.iter().any(|one| one.path == found.directory);
    let work = |RegisteredDirectory { directory, root }: RegisteredDirectory| {
        let label = format!("{} ({})", escape(&module.name), escape_path(&directory));
        let target = Target::of_module(settings, Some(module.name.clone()), &directory);
        let given_up = vec![escape_path(&root.join(PRIVATE))];
        KnownModule::Configured(label, target.map_err(|error| error.or_forget(given_up)))
    };
    let found = found_on_disk::of_module(settings, module).into_iter();
    found.filter(|found| !is_known(found)).map(work).collect()
}

impl KnownModule {
    /// Label and target for a command that names the module.
    pub(crate) fn target(self) -> Option<(String, Result<Target>)> {
        match self {
            KnownModule::Configured(label, target) | KnownModule::Unconfigured(label, target) => {
                Some((label, target))
            }
            KnownModule::NeverSucceeded(label, target) | KnownModule::Former(label, target) => {
                Some((label, Ok(target)))
            }
            KnownModule::Unknown { .. } => None,
        }
    }
}

/// A module directory that this machine remembers.
pub(crate) struct RememberedModule {
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) path: PathBuf,
    pub(crate) memory: ModuleMemory,
}

impl RememberedModule {
    /// All remembered directories, by path, without those in `known`.
    pub(crate) fn all(settings: &Settings, known: &BTreeSet<PathBuf>) -> Vec<Self> {
        let read = |memory: ModuleMemory| {
            let path = path_of(&memory.module_path).filter(|path| !known.contains(path))?;
            let root = memory.snapshot_root.as_deref().and_then(path_of);
            let root = root.filter(|root| is_responsive(root));
            let registered = root.and_then(|root| SnapshotRoot::registration(&root).ok().flatten());
            let registered = registered.filter(|found| found.path == memory.module_path);
            let name = registered.and_then(|found| found.module).or(memory.module.clone());
            Some(RememberedModule { name: name.as_deref().and_then(unescape), path, memory })
        };
        settings.memory.all().into_iter().filter_map(read).collect()
    }

    /// The module, if it has a history, should have one, or has failed to get one in a directory
    /// that may still be its own.
    pub(crate) fn resolve(
        self,
        settings: &Settings,
        conf: &RsyncdConf,
        needs: Needs,
    ) -> Option<KnownModule> {
        let module = self.name.as_deref().and_then(|name| conf.module(name));
        let is_configured = module.is_some();
        let is_former = module.is_some_and(|module| {
            matches!(module.whereabouts(), Ok(ModuleDirectory::At(path)) if path != self.path)
        });
        let target = resolved_for(settings, self.name.clone(), &self.path, needs);
        let (label, found) = match target {
            Ok(target) if target.is_registered() && is_former => {
                return Some(KnownModule::Former(self.label(), target));
            }
            Ok(target) if target.is_registered() => (target.label(), Ok(target)),
            Ok(target) => match target.lost_history() {
                Some(lost) => (self.label(), Err(forgettable(lost, settings, &self.path))),
                None if is_former || !is_configured && self.name.is_some() => return None,
                None if self.memory.failure.is_some() => {
                    return Some(KnownModule::NeverSucceeded(self.label(), target));
                }
                None => return None,
            },
            // The root may exist, so the message must not ask to remove the memory of it.
            Err(error @ Error::NoAnswer { .. }) if self.memory.snapshot_root.is_some() => {
                (self.label(), Err(error))
            }
            Err(error) if is_configured && self.memory.snapshot_root.is_some() => {
                (self.label(), Err(forgettable(error, settings, &self.path)))
            }
            Err(error) => match Target::lost_directory(settings, &self.path) {
                Some(lost) => (self.label(), Err(forgettable(lost, settings, &self.path))),
                None if error.is_denied() && self.memory.snapshot_root.is_some() => {
                    (self.label(), Err(error))
                }
                None => return None,
            },
        };
        Some(match is_configured {
            true => KnownModule::Configured(label, found),
            false => KnownModule::Unconfigured(label, found),
        })
    }

    fn label(&self) -> String {
        let path = escape_path(&self.path);
        self.name.as_deref().map_or(path.clone(), |name| format!("{} ({path})", escape(name)))
    }
}

/// Adds to the error how to make this machine forget the directory, for an administrator who no
/// longer uses it.
fn forgettable(error: Error, settings: &Settings, path: &Path) -> Error {
    let files = settings.memory.files_of(path);
    error.or_forget(files.iter().map(|file| escape_path(file)).collect())
}
