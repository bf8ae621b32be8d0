//! Finds the snapshot root of a module.
//!
//! If the policy file can be used, the policy names the root. Without a policy file, the root is
//! the one that this machine remembers, or else the module's parent. If the policy file has a
//! mistake, only a root that is registered for the module already is used: any other directory
//! would split the history.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::rsyncd_module::RsyncdModule;
use crate::config::settings::Settings;
use crate::decide::policy::Policy;
use crate::store::dir::{Dir, open_followed};
use crate::store::layout::PRIVATE;
use crate::store::memory::MachineMemory;
use crate::store::module_directory::canonical_module;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::system::mounts::Mounts;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path, unescape};

/// The name of the module at `module_path`, by the registration of its root or by rsyncd.conf.
pub(crate) fn registered_name(settings: &Settings, module_path: &Path) -> Result<Option<Vec<u8>>> {
    let own = escape_path(module_path);
    let remembered = remembered_root(&settings.memory, module_path);
    let roots = module_path.parent().map(Path::to_path_buf).into_iter().chain(remembered);
    for root in roots {
        // Without its name a module would get another policy, so a failed read is an error.
        let registered = SnapshotRoot::registration(&root)?.filter(|found| found.path == own);
        if let Some(name) = registered.and_then(|found| found.module) {
            return Ok(unescape(&name));
        }
    }
    let Ok(conf) = settings.rsyncd() else { return Ok(None) };
    let mounts = Mounts::read().unwrap_or_default();
    let same = |module: &&RsyncdModule| {
        let path = module.path().ok().filter(|path| !mounts.may_wait_for(path, module_path));
        path.and_then(|path| canonical_module(&path).ok()).as_deref() == Some(module_path)
    };
    // If several modules have the same directory, the one with the hook counts.
    let candidates: Vec<&RsyncdModule> = conf.modules.iter().filter(same).collect();
    let hooked = candidates.iter().find(|module| module.get("post-xfer exec").is_some());
    Ok(hooked.or(candidates.first()).map(|module| module.name.clone()))
}

pub(crate) fn remembered_root(memory: &MachineMemory, module_path: &Path) -> Option<PathBuf> {
    let bytes = unescape(&memory.recall(module_path)?.snapshot_root?)?;
    Some(PathBuf::from(OsStr::from_bytes(&bytes)))
}

pub(crate) fn configured_root(
    policy: &Policy,
    module_path: &Path,
    name: Option<&[u8]>,
) -> Result<PathBuf> {
    match &policy.snapshot_root {
        Some(template) => fill_template(template, name),
        None => parent_of(module_path),
    }
}

pub(crate) fn parent_of(module_path: &Path) -> Result<PathBuf> {
    let parent = module_path.parent().map(Path::to_path_buf);
    parent.ok_or_else(|| Error::ModuleDirectory {
        path: escape_path(module_path),
        problem: "has no parent directory".to_string(),
    })
}

/// Puts the module's name into `snapshot_root` and resolves what exists of it.
pub(crate) fn fill_template(template: &str, name: Option<&[u8]>) -> Result<PathBuf> {
    let path = filled(template, name)?;
    Ok(resolve(&path).unwrap_or(path))
}

/// Puts the module's name into `snapshot_root`.
pub(crate) fn filled(template: &str, name: Option<&[u8]>) -> Result<PathBuf> {
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
    Ok(PathBuf::from(OsStr::from_bytes(&path)))
}

/// The path without symbolic links, though its last part may not exist yet.
pub(crate) fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    std::fs::canonicalize(path).or_else(|error| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(std::fs::canonicalize(parent)?.join(name)),
        _ => Err(error),
    })
}

/// The root without a policy file: the one that this machine remembers, or else the module's
/// parent. Comes with an error text if the root was used with a policy file before, because that
/// file is then missing.
pub(crate) fn built_in_root(
    settings: &Settings,
    module_path: &Path,
) -> Result<(PathBuf, Vec<String>)> {
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
            "{} does not exist, but {} was used with the policy {file}: restore it, name it with \
             --config, or write one anew ([defaults] with `keep` is enough)",
            escape_path(&settings.policy_file),
            escape_path(&root),
        )
    });
    let trouble = trouble.into_iter().collect();
    Ok((root, trouble))
}

/// The state of a root; that of a new root is empty.
pub(crate) fn state_of(root: &Path) -> Result<State> {
    let path = root.join(PRIVATE);
    match open_followed(&path) {
        Ok(directory) => State::read(Dir { directory: directory.as_fd(), path: &path }),
        Err(_) => Ok(State::default()),
    }
}

/// With a policy that cannot be used: the root that this machine remembers or the module's parent,
/// whichever is registered for this module already. Without the policy no other root is looked for:
/// a run then fails, and its message asks the administrator to correct the policy.
pub(crate) fn known_root(memory: &MachineMemory, module_path: &Path) -> Result<PathBuf> {
    let parent = parent_of(module_path)?;
    for root in remembered_root(memory, module_path).into_iter().chain([parent.clone()]) {
        if is_registered_for(&root, module_path)? {
            return Ok(root);
        }
    }
    Ok(parent)
}

pub(crate) fn is_registered_for(root: &Path, module_path: &Path) -> Result<bool> {
    let found = SnapshotRoot::registration(root)?;
    Ok(found.is_some_and(|registration| registration.path == escape_path(module_path)))
}
