//! The directory that `restore --to` writes into: where it is, and why it may not be that one.
//!
//! What is protected is found in three ways, since each may fail: by the program's own records
//! above the directory, by the root that the command reads, and by `rsyncd.conf`. A bind mount
//! shows a snapshot under another path. So the kernel's list of mounts is asked for every path to
//! the directory, and the directories above it are compared with the snapshots of the root.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::command::snapshot_choice::ChosenSnapshot;
use crate::decide::restore_destination::{DestinationRefusal, ProtectedRoot, refusal};
use crate::decide::root_overlap::ConfiguredModule;
use crate::decide::zone::Zone;
use crate::engine::responsiveness::is_responsive;
use crate::module::context::Context;
use crate::module::root_location::{configured_root, remembered_root};
use crate::run::restore_source::snapshot_names;
use crate::store::layout::PRIVATE;
use crate::store::memory::path_of;
use crate::store::root::SnapshotRoot;
use crate::system::mounts::Mounts;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape_path, shell_path, unescape};

/// The canonical path of the directory to restore into, whose last name may be missing.
///
/// # Errors
/// [`Error::Usage`] if nothing is restored into that directory.
pub(crate) fn destination(
    context: &Context,
    to: &Path,
    chosen: &ChosenSnapshot,
) -> Result<PathBuf> {
    let path = located(to)?;
    if path.exists() && !path.is_dir() {
        return Err(Error::Usage(format!("{} is not a directory", escape_path(&path))));
    }
    let module = chosen.target.as_ref().map(|target| target.module_path.clone());
    let source = ProtectedRoot { root: chosen.root_path.clone(), module };
    let paths = paths_to(&path, &source);
    let mut roots: Vec<ProtectedRoot> = paths.iter().flat_map(|path| roots_above(path)).collect();
    roots.push(source);
    roots.extend(configured(context));
    match refusal(&paths, &roots, PRIVATE) {
        None => Ok(path),
        Some(why) => Err(Error::Usage(explain(&path, &why))),
    }
}

fn located(to: &Path) -> Result<PathBuf> {
    match std::fs::canonicalize(to) {
        Ok(path) => Ok(path),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound && !to.is_symlink() => {
            let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
                return Err(Error::io("find the directory", to, cause));
            };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let above = |cause: std::io::Error| match cause.kind() {
                std::io::ErrorKind::NotFound => Error::Usage(format!(
                    "cannot make {}: the directory {} does not exist",
                    escape_path(to),
                    escape_path(parent)
                )),
                _ => Error::io("find the directory", parent, cause),
            };
            Ok(std::fs::canonicalize(parent).map_err(above)?.join(name))
        }
        Err(cause) => Err(Error::io("find the directory", to, cause)),
    }
}

/// All paths that lead to the directory at `path`, as far as the kernel's list of mounts and the
/// directories of the root `source` tell.
fn paths_to(path: &Path, source: &ProtectedRoot) -> Vec<PathBuf> {
    let mut paths = match Mounts::read() {
        Some(mounts) => mounts.paths_to(path),
        None => vec![path.to_path_buf()],
    };
    paths.retain(|one| one == path || is_responsive(one));
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let snapshots = snapshot_names(&source.root, &Zone::utc());
    let snapshots = snapshots.unwrap_or_default();
    let place = SnapshotRoot::snapshots_path(&source.root);
    let place = place.unwrap_or_else(|_| source.root.clone());
    let mut held: Vec<PathBuf> = snapshots.iter().map(|name| place.join(&name.text)).collect();
    held.extend([source.root.join(PRIVATE), source.root.clone()]);
    held.extend(source.module.clone());
    let held: Vec<_> = held.into_iter().map(|path| (identity(&path), path)).collect();
    for above in path.ancestors() {
        let Some(own) = identity(above) else { continue };
        let same = held.iter().find(|(other, _)| *other == Some(own));
        if let (Some((_, same)), Ok(below)) = (same, path.strip_prefix(above)) {
            paths.push(same.join(below));
        }
    }
    paths
}

/// The snapshot roots at or above `path`, by the program's own directory in them.
fn roots_above(path: &Path) -> Vec<ProtectedRoot> {
    let is_root = |path: &&Path| path.join(PRIVATE).is_dir();
    path.ancestors()
        .filter(is_root)
        .map(|root| {
            let registered = SnapshotRoot::registration(root).ok().flatten();
            let module = registered.and_then(|registered| path_of(&registered.path));
            // On another machine the root has another path, and so has the module in it.
            let is_here = |module: &PathBuf| module.parent() == Some(root) || module.is_dir();
            ProtectedRoot { root: root.to_path_buf(), module: module.filter(is_here) }
        })
        .collect()
}

/// The modules of `rsyncd.conf` that get snapshots, with their roots.
fn configured(context: &Context) -> Vec<ProtectedRoot> {
    let settings = &context.settings;
    let Ok(conf) = settings.rsyncd() else { return Vec::new() };
    let of_module = |module: ConfiguredModule| {
        let directory = module.directory;
        if !module.gets_snapshots || !is_responsive(&directory) {
            return Vec::new();
        }
        let module_path = std::fs::canonicalize(&directory).unwrap_or(directory);
        let name = unescape(&module.name);
        let of_module = settings.of_module(name.as_deref(), &module_path);
        let policy = of_module.policy(name.as_deref());
        let configured = configured_root(&policy, &module_path, name.as_deref()).ok();
        let remembered = remembered_root(&settings.memory, &module_path);
        let roots = configured.into_iter().chain(remembered);
        roots.map(|root| ProtectedRoot { root, module: Some(module_path.clone()) }).collect()
    };
    conf.writable_modules().into_iter().flat_map(of_module).collect()
}

fn explain(path: &Path, why: &DestinationRefusal) -> String {
    let shown = escape_path(path);
    match why {
        DestinationRefusal::IsRoot => format!(
            "{shown} is a snapshot root: restore into a directory of its own, such as --to {}",
            shell_path(&path.join("restored"))
        ),
        DestinationRefusal::InSnapshot(root) => format!(
            "{shown} lies in a snapshot of {}, which must stay as it is: name another directory",
            escape_path(root)
        ),
        DestinationRefusal::InPrivate(root) => format!(
            "{shown} lies in {}, which holds the files of rsyncd-snapshot: name another directory",
            escape_path(&root.join(PRIVATE))
        ),
        DestinationRefusal::InModule(module) => format!(
            "{shown} lies in the module {}, where the next push would change it: restore into it \
             with --in-place, or name another directory",
            escape_path(module)
        ),
        DestinationRefusal::InRootOfUnknownModule(root) => format!(
            "{shown} lies in the snapshot root {}, and which directory there is the module is not \
             known: name a directory outside of it",
            escape_path(root)
        ),
    }
}
