//! Refuses a module or a root that overlaps with the root of another module.
//!
//! The other roots are those that this machine remembers ([`OtherModules`]); before a new root is
//! registered, the disk is searched for others, too. A new root may not lie in a module of
//! `rsyncd.conf` either, whether or not that module has snapshots yet.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::decide::name::SnapshotName;
use crate::decide::root_overlap::{
    KnownRoot, Overlap, RootCandidate, overlap, overlap_with_configured,
};
use crate::decide::zone::Zone;
use crate::engine::listing::Listing;
use crate::store::dir::{Dir, c_name};
use crate::store::layout::{PRIVATE, is_private};
use crate::store::other_modules::{OtherModules, known};
use crate::store::registration::Registration;
use crate::store::root::SnapshotRoot;
use crate::store::root_checks::refusal;
use crate::system::syscalls::open_directory;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// Roots are searched for down to this depth in a new module: `DIRECTORY/MACHINE/ROOT`.
const MAX_DEPTH: usize = 3;

/// At most this number of directories is read.
const MAX_DIRECTORIES: usize = 4_096;

/// Whether `name` is one that this program makes in a snapshot root.
fn is_ours(name: &[u8]) -> bool {
    is_private(name) || SnapshotName::parse(name, &Zone::utc()).is_some()
}

/// Refuses a module that holds another module's root, that lies in the snapshots of another module,
/// or whose own root would lie in another module. A new root is also searched for on disk, and
/// compared with the modules that `rsyncd.conf` has.
///
/// # Errors
/// [`Error::Root`] with the remedy; or if the disk cannot be searched.
pub(crate) fn check(
    others: &OtherModules,
    module_path: &Path,
    root_path: &Path,
    is_new: bool,
) -> Result<()> {
    let mut overlap = find(others, module_path, root_path, is_new)?;
    if overlap.is_none() && is_new {
        overlap = find_configured(others, module_path, root_path);
    }
    overlap.map_or(Ok(()), |overlap| Err(overlap_error(module_path, root_path, &overlap, is_new)))
}

/// The overlap with a module of `rsyncd.conf`. A module that holds the root of another module
/// already can get no snapshots anyway, so it does not keep a new root out.
fn find_configured(others: &OtherModules, module: &Path, root: &Path) -> Option<Overlap> {
    let holds_root = |directory: &Path| {
        let known = others.roots_below(directory, module);
        let found = known.into_iter().chain(within(directory).ok().flatten());
        found.into_iter().any(|known| known.module != directory)
    };
    let mut configured = others.configured(module);
    let candidate = RootCandidate { module, root, is_new: true };
    loop {
        match overlap_with_configured(candidate, &configured, &is_ours)? {
            Overlap::RootInsideConfigured(outer) if holds_root(&outer.directory) => {
                configured.retain(|other| other.directory != outer.directory);
            }
            overlap => return Some(overlap),
        }
    }
}

/// Whether clients of a module that [`check`] refuses could change or delete snapshots of another
/// one.
pub(crate) fn reaches_snapshots(
    others: &OtherModules,
    module_path: &Path,
    root_path: &Path,
) -> bool {
    matches!(
        find(others, module_path, root_path, true),
        Ok(Some(Overlap::HoldsRoot(_) | Overlap::InsideSnapshots(_)))
    )
}

fn find(
    others: &OtherModules,
    module_path: &Path,
    root_path: &Path,
    is_new: bool,
) -> Result<Option<Overlap>> {
    let candidate = RootCandidate { module: module_path, root: root_path, is_new };
    let found = |known: &[KnownRoot]| overlap(candidate, known, &is_ours);
    // A new root is compared with every remembered root; a root in use only with those that lie
    // above or below the module.
    let mut overlap = found(&match is_new {
        true => others.all_roots(module_path),
        false => others.overlapping_roots(module_path),
    });
    if overlap.is_none() && is_new {
        let known: Vec<KnownRoot> = above(module_path)
            .into_iter()
            .chain(above(root_path))
            .chain(within(module_path)?)
            .collect();
        overlap = found(&known);
    }
    Ok(overlap)
}

/// [`check`] for a module whose root is in use. It reads only the directories on the module's own
/// path, so that a hook is as fast on a server with many modules. A root within the module was
/// refused when it was new; [`check`] finds one that an earlier version let in.
///
/// # Errors
/// [`Error::Root`] with the remedy.
pub(crate) fn check_in_use(module_path: &Path, root_path: &Path) -> Result<()> {
    let own = File::open(module_path).ok().and_then(|own| root_at(own.as_fd(), module_path));
    let known: Vec<KnownRoot> = above(module_path).into_iter().chain(own).collect();
    let candidate = RootCandidate { module: module_path, root: root_path, is_new: false };
    overlap(candidate, &known, &is_ours)
        .map_or(Ok(()), |overlap| Err(overlap_error(module_path, root_path, &overlap, false)))
}

/// The roots in whose snapshots, or whose `.rsyncd-snapshot`, the module would lie.
fn above(module_path: &Path) -> Vec<KnownRoot> {
    let is_inside_snapshots =
        |path: &&Path| path.file_name().is_some_and(|name| is_ours(name.as_encoded_bytes()));
    let roots = module_path.ancestors().filter(is_inside_snapshots).filter_map(Path::parent);
    roots.filter_map(|root| known(root, &SnapshotRoot::registration(root).ok()??)).collect()
}

/// The first root in the upper levels of a module's tree. A copy of another machine's root does not
/// count, because it is registered for another path. Mounts and unreadable directories are skipped,
/// because no snapshot would hold them.
fn within(module_path: &Path) -> Result<Option<KnownRoot>> {
    let top = match File::open(module_path) {
        // A directory that does not exist holds nothing.
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|cause| Error::io("open", module_path, cause))?,
    };
    Ok(search(top.as_fd(), module_path, MAX_DEPTH, &mut { MAX_DIRECTORIES }))
}

/// Keeps one directory open for each level of the tree at most.
fn search(directory: BorrowedFd, path: &Path, depth: usize, left: &mut usize) -> Option<KnownRoot> {
    if let Some(found) = root_at(directory, path) {
        return Some(found);
    }
    let mut listing = Listing::default();
    if depth == 0 || listing.read_first(directory).is_err() {
        return None;
    }
    for entry in listing.entries().iter().filter(|entry| entry.is_directory) {
        let name = listing.name(entry);
        if is_ours(name.to_bytes()) {
            continue;
        }
        *left = left.checked_sub(1)?;
        let Ok(below) = open_directory(directory, name) else { continue };
        let below_path = path.join(OsStr::from_bytes(name.to_bytes()));
        if let Some(found) = search(below.as_fd(), &below_path, depth - 1, left) {
            return Some(found);
        }
    }
    None
}

/// The root that the directory is, if it is registered for a directory in it.
fn root_at(directory: BorrowedFd, path: &Path) -> Option<KnownRoot> {
    let private = open_directory(directory, &c_name(PRIVATE)).ok()?;
    let private_path = path.join(PRIVATE);
    let dir = Dir { directory: private.as_fd(), path: &private_path };
    let found = known(path, &Registration::read(dir).ok()??)?;
    (found.module.parent() == Some(path)).then_some(found)
}

fn overlap_error(module_path: &Path, root_path: &Path, overlap: &Overlap, is_new: bool) -> Error {
    let mut remedy = overlap_remedy(overlap);
    if !is_new {
        remedy += &format!(
            "; if what was made here is not wanted, remove {} and the snapshots beside it",
            escape_path(&root_path.join(PRIVATE))
        );
    }
    refusal(root_path, overlap_problem(module_path, overlap), remedy)
}

/// The end of a sentence about the module's own root, or a sentence about its directory.
fn overlap_problem(module_path: &Path, overlap: &Overlap) -> String {
    let module = escape_path(module_path);
    match overlap {
        Overlap::HoldsRoot(known) => format!(
            "the module directory {module} holds the snapshot root {} of another module, and \
             snapshots of snapshots are no backup",
            escape_path(&known.root)
        ),
        Overlap::InsideSnapshots(known) => format!(
            "the module directory {module} is part of the snapshots in {}, which nothing may \
             change",
            escape_path(&known.root)
        ),
        Overlap::RootInsideModule(known) => format!(
            "it is inside the module directory {}, whose clients could change the snapshots",
            escape_path(&known.module)
        ),
        Overlap::RootInsideSnapshots(known) => format!(
            "it is part of the snapshots in {}, and would go when they expire",
            escape_path(&known.root)
        ),
        Overlap::RootInsideConfigured(outer) => format!(
            "it is inside the directory {} of the module '{}', of which snapshots are to be made \
             as well, and whose clients could change those in here",
            escape_path(&outer.directory),
            outer.name
        ),
        Overlap::NewRootHoldsModule(other) => format!(
            "it holds the directory {} of the module '{}' under the name of a snapshot, so that \
             rotation would take it for one",
            escape_path(&other.directory),
            other.name
        ),
    }
}

fn overlap_remedy(overlap: &Overlap) -> String {
    match overlap {
        Overlap::HoldsRoot(_) | Overlap::InsideSnapshots(_) => {
            "give the hooks only to modules that clients push to: if they push to this one, give \
             it a `path` with a parent directory of its own, and if not, take the hooks out of it \
             and set `read only = yes`"
                .to_string()
        }
        Overlap::RootInsideModule(_) => {
            "set `snapshot_root` to a directory outside of every module".to_string()
        }
        Overlap::RootInsideSnapshots(_) => {
            "set `snapshot_root` to a directory of its own".to_string()
        }
        Overlap::RootInsideConfigured(outer) => format!(
            "set `snapshot_root` to a directory outside of every module, or if '{}' is not for \
             pushes, take the hooks from it or make it `read only` in rsyncd.conf",
            outer.name
        ),
        Overlap::NewRootHoldsModule(_) => {
            "call that directory something else, or set `snapshot_root` to a directory of its own"
                .to_string()
        }
    }
}
