//! The registered roots that a module could get into the way of: those that this machine remembers,
//! and those that are found on disk before a new root is registered.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::durable::c_name;
use super::memory::Places;
use super::registration::Registration;
use super::root::{PRIVATE, SnapshotRoot};
use super::trust::refusal;
use crate::decide::name::SnapshotName;
use crate::decide::own_output::{Candidate, KnownRoot, Overlap, overlap};
use crate::decide::zone::Zone;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape_path, unescape};
use crate::tree::listing::Listing;
use crate::tree::syscalls::open_directory;

/// So deep roots are searched for in a new module: `DIRECTORY/MACHINE/ROOT`.
const MAX_DEPTH: usize = 3;

/// So many directories are looked into at most.
const MAX_DIRECTORIES: usize = 4_096;

/// Whether a name in a snapshot root is of our making.
fn is_ours(name: &[u8]) -> bool {
    name == PRIVATE.as_bytes() || SnapshotName::parse(name, &Zone::utc()).is_some()
}

/// Refuses a module that holds another module's root, lies in one's snapshots, or whose own root
/// would lie in another module. A new root is also searched for on disk.
///
/// # Errors
/// [`Error::Root`] with the remedy; or if the disk cannot be searched.
pub fn check(memory: &Places, module_path: &Path, root_path: &Path, is_new: bool) -> Result<()> {
    let candidate = Candidate { module: module_path, root: root_path, is_new };
    let found = |known: &[KnownRoot]| overlap(candidate, known, &is_ours);
    let mut overlap = found(&remembered(memory));
    if overlap.is_none() && is_new {
        overlap = found(&above(module_path)).or(found(&within(module_path)?));
    }
    overlap.map_or(Ok(()), |overlap| Err(told(module_path, root_path, &overlap, is_new)))
}

/// The roots that this machine remembers, as far as they are there.
fn remembered(memory: &Places) -> Vec<KnownRoot> {
    let of = |(root, module): (PathBuf, PathBuf)| match SnapshotRoot::registration(&root) {
        Ok(None) => None,
        // A module may have moved since.
        Ok(Some(registration)) => known(&root, &registration),
        // What cannot be read, or is of a newer version, is there.
        Err(_) => Some(KnownRoot { root, module }),
    };
    memory.roots_and_modules().into_iter().filter_map(of).collect()
}

/// The roots above a module that lies under a name of our making.
fn above(module_path: &Path) -> Vec<KnownRoot> {
    let is_output = |path: &&Path| path.file_name().is_some_and(|name| is_ours(name.as_encoded_bytes()));
    let roots = module_path.ancestors().filter(is_output).filter_map(Path::parent);
    roots.filter_map(|root| known(root, &SnapshotRoot::registration(root).ok()??)).collect()
}

fn known(root: &Path, registration: &Registration) -> Option<KnownRoot> {
    let module = PathBuf::from(std::ffi::OsString::from_vec(unescape(&registration.path)?));
    Some(KnownRoot { root: root.to_path_buf(), module })
}

/// The first root in a module's upper directories. A copy of another machine's root is none: that
/// one is registered for another place.
fn within(module_path: &Path) -> Result<Vec<KnownRoot>> {
    let failed = |path: &Path, cause| Error::io("search for snapshot roots in", path, cause);
    let top = std::fs::File::open(module_path).map_err(|cause| Error::io("open", module_path, cause))?;
    let mut level: Vec<(OwnedFd, PathBuf)> = vec![(top.into(), module_path.to_path_buf())];
    let mut seen = 0;
    for _ in 0..MAX_DEPTH {
        let mut below = Vec::new();
        for (directory, path) in level {
            if let Some(found) = root_at(directory.as_fd(), &path) {
                return Ok(vec![found]);
            }
            let listing = Listing::read(directory.as_fd()).map_err(|cause| failed(&path, cause))?;
            for entry in listing.entries().iter().filter(|entry| entry.is_directory) {
                let name = listing.name(entry);
                if seen >= MAX_DIRECTORIES || is_ours(name.to_bytes()) {
                    continue;
                }
                seen += 1;
                // What is mounted, or cannot be entered, is no part of a snapshot.
                let Ok(opened) = open_directory(directory.as_fd(), name) else { continue };
                let name = std::ffi::OsString::from_vec(name.to_bytes().to_vec());
                below.push((opened, path.join(name)));
            }
        }
        level = below;
    }
    Ok(level.iter().find_map(|(directory, path)| root_at(directory.as_fd(), path)).into_iter().collect())
}

/// The root that the directory is, if it is registered for a directory in it.
fn root_at(directory: BorrowedFd, path: &Path) -> Option<KnownRoot> {
    let private = open_directory(directory, &c_name(PRIVATE)).ok()?;
    let private_path = path.join(PRIVATE);
    let place = super::durable::Place { directory: private.as_fd(), path: &private_path };
    let found = known(path, &Registration::read(place).ok()??)?;
    (found.module.parent() == Some(path)).then_some(found)
}

fn told(module_path: &Path, root_path: &Path, overlap: &Overlap, is_new: bool) -> Error {
    let module = escape_path(module_path);
    let hook = "give the hooks only to modules that clients push to, not to one that offers snapshots";
    let (problem, mut remedy) = match overlap {
        Overlap::HoldsRoot(known) => (
            format!(
                "the module directory {module} holds the snapshot root {} of another module, and \
                 snapshots of snapshots are no backup",
                escape_path(&known.root)
            ),
            hook.to_string(),
        ),
        Overlap::InsideOutput(known) => (
            format!(
                "the module directory {module} is part of the snapshots in {}, which nothing may change",
                escape_path(&known.root)
            ),
            hook.to_string(),
        ),
        Overlap::RootInsideModule(known) => (
            format!(
                "it is inside the module directory {}, whose clients could change the snapshots",
                escape_path(&known.module)
            ),
            "set `snapshot_root` to a directory outside of every module".to_string(),
        ),
    };
    if !is_new {
        remedy += &format!(
            "; if what was made here is not wanted, remove {} and the snapshots beside it",
            escape_path(&root_path.join(PRIVATE))
        );
    }
    refusal(root_path, problem, remedy)
}
