//! From what was named to a module with its root and policy.
//!
//! A module is named by rsyncd's environment, by its name in rsyncd.conf, or by its directory; a
//! directory takes the policy of the module that its root is registered for. Where the policy cannot be used, the root is one that was
//! registered before, or none: guessing another place would split a history in two.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::rsyncd_conf::Module;
use super::settings::{Settings, Source};
use crate::decide::policy::Policy;
use crate::store::durable::Place;
use crate::store::ledger::Ledger;
use crate::store::memory::Places;
use crate::store::registration::Registration;
use crate::store::root::{Access, PRIVATE, SnapshotRoot, canonical_module};
use crate::store::state::State;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path, unescape};
use crate::tree::mounts::Mounts;

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
    /// The policy file, once it was read without error, to be remembered by the root.
    pub policy_file: Option<PathBuf>,
    /// Where this machine remembers its root and failures.
    pub memory: Places,
}

impl Target {
    /// The module that rsyncd ran the hook for.
    pub fn of_module(settings: &Settings, name: Option<Vec<u8>>, path: &Path) -> Result<Self> {
        let module_path = canonical_module(path)?;
        let name = match name {
            Some(name) => Some(name),
            None => registered_name(settings, &module_path)?,
        };
        let policy = settings.policy(name.as_deref());
        let (root_path, trouble) = match &settings.source {
            Source::Trouble(mistakes) => {
                let salvaged = settings.salvaged_root(name.as_deref());
                (known_root(&settings.memory, &module_path, salvaged, name.as_deref())?, mistakes.clone())
            }
            Source::File => (configured_root(&policy, &module_path, name.as_deref())?, Vec::new()),
            Source::BuiltIn => built_in_root(settings, &module_path)?,
        };
        let policy_file = (settings.source == Source::File).then(|| settings.policy_file.clone());
        let memory = settings.memory.clone();
        Ok(Target { name, module_path, root_path, policy, trouble, policy_file, memory })
    }

    /// The module that a person named: a name in rsyncd.conf or an absolute path.
    pub fn named(settings: &Settings, argument: &OsStr) -> Result<Self> {
        if argument.as_bytes().starts_with(b"/") {
            return Target::of_module(settings, None, Path::new(argument));
        }
        let conf = settings.rsyncd()?;
        let module = conf.module(argument.as_bytes()).ok_or_else(|| {
            let known: Vec<String> =
                conf.modules.iter().map(|module| format!("'{}'", escape(&module.name))).collect();
            Error::Usage(format!(
                "no module '{}' in {} (it has {}); name one of them, or an absolute path",
                escape(argument.as_bytes()),
                escape_path(&settings.rsyncd_conf),
                if known.is_empty() { "none".to_string() } else { known.join(", ") },
            ))
        })?;
        Target::of_module(settings, Some(module.name.clone()), &module.path()?)
    }

    /// The registered modules among those of rsyncd.conf; with the errors of those that are
    /// registered but cannot be resolved.
    pub fn all(settings: &Settings) -> Result<Vec<(String, Result<Self>)>> {
        let conf = settings.rsyncd()?;
        let resolve = |module: &Module| {
            // A module whose path depends on the connection is registered under each path.
            let path = module.path().ok()?;
            let was_used = || remembered_root(&settings.memory, &path).is_some();
            let target = match Target::of_module(settings, Some(module.name.clone()), &path) {
                Ok(target) if target.is_registered() => Ok(target),
                Ok(target) => Err(target.lost_history()?),
                Err(error) if was_used() => Err(error),
                Err(_) => return None,
            };
            Some((escape(&module.name), target))
        };
        Ok(conf.modules.iter().filter_map(resolve).collect())
    }

    /// How messages call it.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => escape(name),
            None => escape_path(&self.module_path),
        }
    }

    /// Whether the root is registered for this module.
    pub fn is_registered(&self) -> bool {
        let own = Registration::new(self.name.as_deref(), &self.module_path);
        SnapshotRoot::registration(&self.root_path)
            .is_ok_and(|found| found.is_some_and(|found| found.admits(&own)))
    }

    /// What to say if the root was used before but shows nothing of it now: then most likely its
    /// disk is not mounted.
    pub fn lost_history(&self) -> Option<Error> {
        let remembered = remembered_root(&self.memory, &self.module_path)?;
        if remembered != self.root_path {
            return None;
        }
        match SnapshotRoot::registration(&remembered) {
            Ok(Some(_)) => None,
            Ok(None) => Some(Error::Root {
                path: escape_path(&remembered),
                problem: "was used before, but holds no history now".to_string(),
                remedy: "is its disk mounted? If the history was removed on purpose, take a `snapshot` of the module by name".to_string(),
            }),
            Err(error) => Some(error),
        }
    }

    /// The same for a module's directory that does not exist either, so that there is no target yet.
    pub fn lost_directory(settings: &Settings, module_path: &Path) -> Option<Error> {
        let remembered = remembered_root(&settings.memory, module_path)?;
        let is_lost = !module_path.exists() && matches!(SnapshotRoot::registration(&remembered), Ok(None));
        is_lost.then(|| Error::Root {
            path: escape_path(&remembered),
            problem: format!("was used before, but holds no history now, nor is {} there", escape_path(module_path)),
            remedy: "is its disk mounted? If the history was removed on purpose, or the disk is a new one, make that directory and take a first `rsyncd-snapshot snapshot` of it".to_string(),
        })
    }

    /// Whether the first run is going to make the root.
    pub fn root_is_to_come(&self) -> bool {
        !self.root_path.exists() && self.root_path.parent().is_some_and(Path::is_dir)
    }

    /// Opens and checks the root for work on it.
    pub fn open_root(&self) -> Result<SnapshotRoot> {
        let access = if self.trouble.is_empty() { Access::Register } else { Access::Registered };
        SnapshotRoot::open(&self.root_path, &self.module_path, self.name.as_deref(), access)
    }

    /// Makes what [`open_root`](Target::open_root) would make of it, but registers nothing.
    pub fn prepare_root(&self) -> Result<SnapshotRoot> {
        let access = if self.trouble.is_empty() { Access::Prepare } else { Access::Registered };
        SnapshotRoot::open(&self.root_path, &self.module_path, self.name.as_deref(), access)
    }

    /// The ledger of the root, under its lock.
    pub fn open_ledger(&self, root: &SnapshotRoot) -> Result<Ledger> {
        Ledger::open(root, self.memory.ledgers(&self.module_path))
    }

    /// Opens and checks the root without changing anything.
    pub fn look_at_root(&self) -> Result<SnapshotRoot> {
        SnapshotRoot::open(&self.root_path, &self.module_path, self.name.as_deref(), Access::Look)
    }
}

/// The module that a directory belongs to: as its root remembers, or as rsyncd.conf says.
fn registered_name(settings: &Settings, module_path: &Path) -> Result<Option<Vec<u8>>> {
    let own = escape_path(module_path);
    let remembered = remembered_root(&settings.memory, module_path);
    let roots = module_path.parent().map(Path::to_path_buf).into_iter().chain(remembered);
    for root in roots {
        // Without its name a module would get another policy, so this must not be overlooked.
        let registered = SnapshotRoot::registration(&root)?.filter(|found| found.path == own);
        if let Some(name) = registered.and_then(|found| found.module) {
            return Ok(unescape(&name));
        }
    }
    let Ok(conf) = settings.rsyncd() else { return Ok(None) };
    let mounts = Mounts::read().unwrap_or_default();
    let same = |module: &&Module| {
        let path = module.path().ok().filter(|path| !mounts.may_wait_for(path, module_path));
        path.and_then(|path| canonical_module(&path).ok()).as_deref() == Some(module_path)
    };
    // Of several modules on one directory, the one with the hook.
    let candidates: Vec<&Module> = conf.modules.iter().filter(same).collect();
    let hooked = candidates.iter().find(|module| module.get("post-xfer exec").is_some());
    Ok(hooked.or(candidates.first()).map(|module| module.name.clone()))
}

fn remembered_root(memory: &Places, module_path: &Path) -> Option<PathBuf> {
    let bytes = unescape(&memory.recall(module_path)?.snapshot_root?)?;
    Some(PathBuf::from(OsStr::from_bytes(&bytes)))
}

fn configured_root(policy: &Policy, module_path: &Path, name: Option<&[u8]>) -> Result<PathBuf> {
    match &policy.snapshot_root {
        Some(template) => fill_template(template, name),
        None => parent_of(module_path),
    }
}

fn parent_of(module_path: &Path) -> Result<PathBuf> {
    let parent = module_path.parent().map(Path::to_path_buf);
    parent.ok_or_else(|| Error::Usage(format!("{} has no parent directory", escape_path(module_path))))
}

/// Puts the module's name into `snapshot_root` and resolves what exists of it.
fn fill_template(template: &str, name: Option<&[u8]>) -> Result<PathBuf> {
    let mut path = template.as_bytes().to_vec();
    if template.contains("{module}") {
        let name = name.ok_or_else(|| {
            Error::Usage(format!(
                "snapshot_root '{template}' needs a module's name: name the module, not its path"
            ))
        })?;
        if name.contains(&b'/') || name == b"." || name == b".." {
            return Err(Error::Usage(format!(
                "the module name '{}' cannot be part of snapshot_root",
                escape(name)
            )));
        }
        let parts: Vec<&[u8]> = template.split("{module}").map(str::as_bytes).collect();
        path = parts.join(name);
    }
    let path = PathBuf::from(OsStr::from_bytes(&path));
    Ok(resolve(&path).unwrap_or(path))
}

/// The path without symbolic links, though its last part may not exist yet.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    std::fs::canonicalize(path).or_else(|error| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(std::fs::canonicalize(parent)?.join(name)),
        _ => Err(error),
    })
}

/// Without a policy file: the module's parent, unless this machine remembers another root, or
/// the root remembers a policy file. Then the file has gone, and that is trouble.
fn built_in_root(settings: &Settings, module_path: &Path) -> Result<(PathBuf, Vec<String>)> {
    let parent = parent_of(module_path)?;
    let root = match remembered_root(&settings.memory, module_path) {
        Some(remembered) if is_registered_for(&remembered, module_path)? => remembered,
        _ => parent,
    };
    let used_with = match state_of(&root) {
        Ok(state) => state.policy_file,
        Err(error) => Some(format!("that its state no longer tells ({error})")),
    };
    let trouble = used_with.map(|file| {
        format!(
            "{} does not exist, but {} was used with the policy {file}: restore it, name it with --config, or write one anew ([defaults] with `keep` is enough)",
            escape_path(&settings.policy_file),
            escape_path(&root),
        )
    });
    let trouble = trouble.into_iter().collect();
    Ok((root, trouble))
}

/// What the runs on a root have left for the next; a new root's is empty.
fn state_of(root: &Path) -> Result<State> {
    let path = root.join(PRIVATE);
    match File::open(&path) {
        Ok(directory) => State::read(Place { directory: directory.as_fd(), path: &path }),
        Err(_) => Ok(State::default()),
    }
}

/// With a policy that cannot be used: a root that is registered for this module already.
fn known_root(
    memory: &Places,
    module_path: &Path,
    salvaged: Option<String>,
    name: Option<&[u8]>,
) -> Result<PathBuf> {
    let salvaged = salvaged.and_then(|template| fill_template(&template, name).ok());
    let candidates =
        salvaged.into_iter().chain(remembered_root(memory, module_path)).chain(parent_of(module_path).ok());
    for root in candidates {
        if is_registered_for(&root, module_path)? {
            return Ok(root);
        }
    }
    parent_of(module_path)
}

fn is_registered_for(root: &Path, module_path: &Path) -> Result<bool> {
    let found = SnapshotRoot::registration(root)?;
    Ok(found.is_some_and(|registration| registration.path == escape_path(module_path)))
}
