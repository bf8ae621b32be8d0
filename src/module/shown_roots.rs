//! Which snapshot roots a module shows to clients that only read, and which snapshots in them.
//!
//! The directory of such a *restore module* is a snapshot root, or lies above roots, or within a
//! snapshot. It has no root of its own. A path that a client names is followed only down to the
//! name of a snapshot: nothing that clients have made is looked at. Where it leads is not certain
//! with a symbolic link; then all snapshots of all roots of the module count as read.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::decide::arguments::read_paths::ReadPaths;
use crate::decide::name::SnapshotName;
use crate::decide::policy::MethodChoice;
use crate::decide::zone::Zone;
use crate::store::layout::is_private;
use crate::store::lease_entry::LeasedSnapshots;
use crate::store::memory::{MachineMemory, path_of};
use crate::store::root::{RootAccess, SnapshotRoot};
use crate::store::snapshots_place::module_of_snapshots;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// The most directories of a module that are searched for roots.
const MOST_DIRECTORIES: usize = 4_096;

/// A root, and what a client reads of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShownRoot {
    /// Its directory.
    pub path: PathBuf,
    /// The directory of the module that it is registered for, escaped.
    registered_for: String,
    pub snapshots: LeasedSnapshots,
}

impl ShownRoot {
    /// Opens and checks the root.
    ///
    /// # Errors
    /// If it cannot be trusted or used.
    pub(crate) fn open(&self) -> Result<SnapshotRoot> {
        let module = path_of(&self.registered_for).ok_or_else(|| Error::Damaged {
            path: escape_path(&self.path),
            problem: "it is registered for a path that cannot be read".to_string(),
        })?;
        let access = RootAccess::Registered;
        SnapshotRoot::open(&self.path, &module, None, access, MethodChoice::Auto)
    }
}

/// What [`shown_roots`] found.
#[derive(Debug, Default)]
pub(crate) struct ShownRoots {
    pub roots: Vec<ShownRoot>,
    /// Why there may be more.
    pub errors: Vec<Error>,
}

/// The roots that a client of the module at `module_path` reads snapshots of.
pub(crate) fn shown_roots(
    module_path: &Path,
    paths: &ReadPaths,
    memory: &MachineMemory,
) -> ShownRoots {
    let mut search = RootSearch { module_path, memory, shown: ShownRoots::default() };
    search.add_around();
    if search.shown.roots.is_empty() {
        match paths {
            ReadPaths::Any => search.add_all(module_path),
            ReadPaths::Named(paths) => paths.iter().for_each(|path| search.add_path(path)),
        }
    }
    search.shown
}

/// The root that the directory of a module is, or lies in.
///
/// # Errors
/// If that cannot be found out.
pub(crate) fn nearest_root(
    module_path: &Path,
    memory: &MachineMemory,
) -> Result<Option<ShownRoot>> {
    for path in module_path.ancestors() {
        if let Some(root) = registered(path, LeasedSnapshots::All, memory)? {
            return Ok(Some(root));
        }
    }
    Ok(None)
}

struct RootSearch<'a> {
    module_path: &'a Path,
    memory: &'a MachineMemory,
    shown: ShownRoots,
}

impl RootSearch<'_> {
    /// The root that the module lies in a snapshot of.
    fn add_around(&mut self) {
        for inner in self.module_path.ancestors() {
            let (Some(name), Some(root)) = (inner.file_name(), inner.parent()) else { continue };
            if let Some(snapshots) = snapshots_by(name) {
                self.add_if_root(root, snapshots);
            }
        }
    }

    /// Follows a path from the module's directory down to the first root.
    fn add_path(&mut self, names: &[Vec<u8>]) {
        let mut path = self.module_path.to_path_buf();
        for name in names {
            let name = OsStr::from_bytes(name);
            let next = path.join(name);
            match fs::symlink_metadata(&next).map(|found| found.file_type()) {
                Ok(kind) if kind.is_symlink() => {
                    self.add_link_target(&next);
                    return self.add_all(self.module_path);
                }
                Ok(kind) => {
                    if self.is_root(&path) {
                        return self.add_of_root(&path, name);
                    }
                    if !kind.is_dir() {
                        return;
                    }
                }
                Err(cause) if is_nowhere(&cause) => return self.add_of_root(&path, name),
                Err(cause) => {
                    self.shown.errors.push(Error::io("inspect", &next, cause));
                    return self.add_all(self.module_path);
                }
            }
            path = next;
        }
        self.add_all(&path);
    }

    fn is_root(&mut self, path: &Path) -> bool {
        match registered(path, LeasedSnapshots::All, self.memory) {
            Ok(found) => found.is_some(),
            Err(error) => {
                self.shown.errors.push(error);
                false
            }
        }
    }

    fn add_of_root(&mut self, path: &Path, name: &OsStr) {
        if let Some(snapshots) = snapshots_by(name) {
            self.add_if_root(path, snapshots);
        }
    }

    /// The root that a symbolic link leads into. rsyncd follows such a link without `use chroot`.
    fn add_link_target(&mut self, link: &Path) {
        let target = match fs::canonicalize(link) {
            Ok(target) if target.starts_with(self.module_path) => return,
            Ok(target) => target,
            Err(cause) if is_nowhere(&cause) => return,
            Err(cause) => return self.shown.errors.push(Error::io("follow", link, cause)),
        };
        match nearest_root(&target, self.memory) {
            Ok(Some(root)) => self.add(root),
            Ok(None) => {}
            Err(error) => self.shown.errors.push(error),
        }
    }

    /// The root that `path` is, or else those below it that this machine remembers, and those that
    /// are in it.
    fn add_all(&mut self, path: &Path) {
        if self.add_if_root(path, LeasedSnapshots::All) {
            return;
        }
        let remembered = self.memory.roots_and_modules().into_iter().map(|(root, _)| root);
        let mut below: Vec<PathBuf> = remembered.filter(|root| root.starts_with(path)).collect();
        match fs::read_dir(path) {
            Ok(entries) => {
                let entries = entries.take(MOST_DIRECTORIES).flatten();
                let is_directory =
                    |kind: std::io::Result<fs::FileType>| kind.is_ok_and(|kind| kind.is_dir());
                below.extend(
                    entries.filter(|entry| is_directory(entry.file_type())).map(|it| it.path()),
                );
            }
            Err(cause) if is_nowhere(&cause) => {}
            Err(cause) => self.shown.errors.push(Error::io("read", path, cause)),
        }
        for root in below {
            self.add_if_root(&root, LeasedSnapshots::All);
        }
    }

    /// Adds the root at `path`, if there is one. Returns whether there is.
    fn add_if_root(&mut self, path: &Path, snapshots: LeasedSnapshots) -> bool {
        match registered(path, snapshots, self.memory) {
            Ok(Some(root)) => {
                self.add(root);
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.shown.errors.push(error);
                false
            }
        }
    }

    fn add(&mut self, root: ShownRoot) {
        match self.shown.roots.iter_mut().find(|known| known.path == root.path) {
            Some(known) => known.snapshots.add(root.snapshots),
            None => self.shown.roots.push(root),
        }
    }
}

fn registered(
    path: &Path,
    snapshots: LeasedSnapshots,
    memory: &MachineMemory,
) -> Result<Option<ShownRoot>> {
    // CephFS snapshots are in their module, and this machine remembers its root.
    let root_of = |module: &Path| {
        let all = memory.roots_and_modules().into_iter();
        let mut roots = all.filter(|(_, of)| of == module).map(|(root, _)| root);
        roots.find(|root| SnapshotRoot::snapshots_path(root).is_ok_and(|found| found == path))
    };
    let root = module_of_snapshots(path).and_then(root_of);
    let path = root.as_deref().unwrap_or(path);
    let found = SnapshotRoot::registration(path)?;
    Ok(found.map(|registration| ShownRoot {
        path: path.to_path_buf(),
        registered_for: registration.path,
        snapshots,
    }))
}

fn is_nowhere(cause: &std::io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The snapshots that the directory `name` of a root leads to. None for a name that no snapshot
/// has, such as that of the live tree.
fn snapshots_by(name: &OsStr) -> Option<LeasedSnapshots> {
    if is_private(name.as_bytes()) {
        return Some(LeasedSnapshots::All);
    }
    SnapshotName::parse(name.as_bytes(), &Zone::utc()).map(|name| LeasedSnapshots::one(&name.text))
}
