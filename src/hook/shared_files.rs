//! Turns a push away that could write into files that snapshots share.
//!
//! The snapshots that count are those in every root that may share files with the module's
//! directory. A module may have had other roots before, and another module may reach this
//! directory. So three kinds of roots are looked at: those that this machine remembers for an
//! overlapping directory, those of modules in `rsyncd.conf` with an overlapping directory, and the
//! parent of the module's directory, where snapshots are by default. If none of them holds a
//! snapshot, this machine may have lost what it remembered. Then the link counts of the files
//! decide: a file with one link has no other name, so no snapshot shares it.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::partial_dir_symlinks::{follows_links, munges_links};
use crate::config::settings::Settings;
use crate::decide::arguments::Arguments;
use crate::decide::grade::Grade;
use crate::decide::name::SnapshotName;
use crate::decide::partial_dirs::{Leftover, PartialDirs};
use crate::decide::refusal::{
    Sharing, in_place_refusal, leftover_refusal, link_refusal, mover_refusal, partial_dir_refusal,
};
use crate::engine::listing::Listing;
use crate::engine::shared_files::{WritableFiles, look};
use crate::hook::transfer_request::TransferRequest;
use crate::module::target::Target;
use crate::store::dir::{OwnedDir, names_in};
use crate::store::layout::{PRIVATE, Subdir};
use crate::store::registration::Registration;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf};
use crate::store::snapshots::SnapshotList;
use crate::store::snapshots_place::module_of_snapshots;
use crate::store::state::State;
use crate::system::mounts::Mounts;
use crate::tell::error::{Error, Result};
use crate::tell::escape::unescape;

/// How long a push may wait for the search for files that it could write into.
const LONGEST_SEARCH: Duration = Duration::from_secs(5);

/// The results of searches of the module, each of which is made at most once for a push.
#[derive(Default)]
pub(crate) struct SharedFileChecks {
    any: OnceCell<Leftover>,
    partial_dirs: OnceCell<Leftover>,
}

/// The sentence for a client whose push would rewrite snapshots; `None` if the push may begin.
pub(crate) fn refused(
    target: &Target,
    settings: &Settings,
    root: Option<&SnapshotRoot>,
    request: &TransferRequest,
    checks: &SharedFileChecks,
) -> Option<String> {
    let arguments = &request.arguments;
    let is_harmless = arguments.rewriting.is_empty() && arguments.partial_dirs.is_empty();
    // Few pushes rewrite files; for all others no search is needed.
    if is_harmless || !arguments.kind.writes() {
        return None;
    }
    if root.is_some_and(|root| shares_nothing(target, settings, root)) {
        return None;
    }
    let policy = &target.policy;
    let dirs = &policy.partial_dirs;
    // First the refusals that do not depend on where the module's snapshots are.
    if !arguments.partial_dirs.is_empty()
        && let Some(why) = refused_for_links(settings, target.name.as_deref(), arguments, dirs)
    {
        return Some(why);
    }
    if let Some(why) = partial_dir_refusal(arguments, dirs) {
        return Some(why);
    }
    if !arguments.rewriting.is_empty() {
        let sharing = match root.map_or(Sharing::Unknown, |root| sharing(target, settings, root)) {
            Sharing::Snapshots(0) => {
                match checks.any.get_or_init(|| search_module(target, request, WritableFiles::Any))
                {
                    Leftover::Nothing => Sharing::Snapshots(0),
                    _ => Sharing::Unknown,
                }
            }
            known => known,
        };
        if let Some(why) = in_place_refusal(arguments, &policy.allow_options, sharing) {
            return Some(why);
        }
    }
    if arguments.partial_dirs.is_empty() {
        return None;
    }
    let found = checks
        .partial_dirs
        .get_or_init(|| search_module(target, request, WritableFiles::InPartialDirs(dirs)));
    let is_proved_unshared = *found == Leftover::Unknown
        && root.is_some_and(|root| has_unshared_partial_dirs(target, root, dirs));
    if is_proved_unshared { None } else { leftover_refusal(arguments, found) }
}

/// The sentence for a client whose own symbolic links rsync could follow to a partial directory. A
/// module that this program does not find in `rsyncd.conf` counts as one that follows them.
fn refused_for_links(
    settings: &Settings,
    name: Option<&[u8]>,
    arguments: &Arguments,
    dirs: &PartialDirs,
) -> Option<String> {
    let conf = settings.rsyncd().ok();
    let module = conf.zip(name).and_then(|(conf, name)| conf.module(name));
    match module {
        Some(module) if munges_links(module) || !follows_links(module, dirs) => {
            mover_refusal(arguments)
        }
        _ => Some(link_refusal(arguments)),
    }
}

/// [`refused`] for a module whose root is not known.
pub(crate) fn refused_without_target(
    module_path: &Path,
    settings: &Settings,
    name: Option<&[u8]>,
    request: &TransferRequest,
) -> Option<String> {
    let arguments = &request.arguments;
    let dirs = PartialDirs::default();
    let refusal = partial_dir_refusal(arguments, &dirs)
        .or_else(|| in_place_refusal(arguments, &[], Sharing::Unknown));
    if refusal.is_some() || arguments.partial_dirs.is_empty() {
        return refusal;
    }
    if let Some(why) = refused_for_links(settings, name, arguments, &dirs) {
        return Some(why);
    }
    let found = File::open(module_path).map_or(Leftover::Unknown, |module| {
        let deadline = Instant::now() + LONGEST_SEARCH;
        look((module.as_fd(), module_path), None, WritableFiles::InPartialDirs(&dirs), deadline)
    });
    leftover_refusal(arguments, &found)
}

fn search_module(target: &Target, request: &TransferRequest, writable: WritableFiles) -> Leftover {
    let arguments = &request.arguments;
    // With --keep-dirlinks, a symbolic link in the destination may lead anywhere in the module, so
    // the whole module is searched.
    let destination = match arguments.operands.as_slice() {
        [_, destination] if !arguments.has('K', "keep-dirlinks") => Some(destination.as_slice()),
        _ => None,
    };
    let began = Instant::now();
    let found = File::open(&target.module_path).map_or(Leftover::Unknown, |module| {
        look((module.as_fd(), &target.module_path), destination, writable, began + LONGEST_SEARCH)
    });
    log::debug!("{}: looked for shared files in {:?}: {found:?}", target.label(), began.elapsed());
    found
}

/// Whether the newest snapshot proves that partial directories share no file with snapshots: it
/// shared none, and no push has changed that since.
fn has_unshared_partial_dirs(target: &Target, root: &SnapshotRoot, dirs: &PartialDirs) -> bool {
    // A push after the newest snapshot may have made links in partial directories.
    let is_current = |state: State| state.torn.is_none() && state.due.is_none();
    if !State::read(root.private()).is_ok_and(is_current) {
        return false;
    }
    let Ok(list) = SnapshotList::read(root, &target.policy.time_zone) else { return false };
    let newest = list.items.iter().rfind(|item| item.name.grade >= Grade::Partial);
    let record = newest.and_then(|item| item.record.as_ref()?.partial_dirs.as_ref());
    record.is_some_and(|record| record.proves_unshared(dirs))
}

/// Whether no snapshot can share files with the module: it is a subvolume, whose files have no name
/// outside of it, and no other root has snapshots of what is in it.
fn shares_nothing(target: &Target, settings: &Settings, root: &SnapshotRoot) -> bool {
    let is_in_module = |other: &PathBuf| other.starts_with(&target.module_path);
    root.method().is_instant() && !other_roots(target, settings).iter().any(is_in_module)
}

/// How many snapshots share files with the module: visible, retired, and in staging.
fn sharing(target: &Target, settings: &Settings, root: &SnapshotRoot) -> Sharing {
    let count = || -> Result<usize> {
        let visible = SnapshotList::read(root, &target.policy.time_zone)?.items.len();
        let staged = OpenShelf::open(root, Shelf::Staging)?.names()?.len();
        let own = visible + retire::retired(root)?.len() + staged.min(1);
        let others = other_roots(target, settings);
        others.iter().try_fold(own, |sum, other| Ok(sum + snapshots_in(other, target)?))
    };
    count().map_or(Sharing::Unknown, Sharing::Snapshots)
}

/// Every other root that may hold snapshots of the module's directory, or of one above or below it.
fn other_roots(target: &Target, settings: &Settings) -> BTreeSet<PathBuf> {
    let mut roots: BTreeSet<PathBuf> =
        target.memory.roots_reaching(&target.module_path).into_iter().collect();
    roots.extend(target.module_path.parent().map(Path::to_path_buf));
    let mounts = Mounts::read().unwrap_or_default();
    for module in settings.rsyncd().into_iter().flat_map(|conf| &conf.modules) {
        let Ok(path) = module.path() else { continue };
        // A restore module that shows CephFS snapshots has no snapshots of its own.
        if module_of_snapshots(&path).is_some() {
            continue;
        }
        // The path may be on a server that does not answer, and the client would wait for it. Such
        // a root can be skipped: files on another server are not those of this module.
        if mounts.may_wait_for(&path, &target.module_path) {
            continue;
        }
        let Ok(path) = std::fs::canonicalize(&path) else { continue };
        if overlap(&path, &target.module_path)
            && let Ok(other) = Target::of_module(settings, Some(module.name.clone()), &path)
        {
            roots.insert(other.root_path);
        }
    }
    roots.remove(&target.root_path);
    roots
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// How many snapshots the root at `path` holds; 0 if it is registered for a directory that does not
/// overlap with the module's.
fn snapshots_in(path: &Path, target: &Target) -> Result<usize> {
    let registered: Option<Registration> = SnapshotRoot::registration(path)?;
    let registered = registered.and_then(|found| unescape(&found.path));
    let is_other = registered.is_some_and(|registered| {
        !overlap(Path::new(&String::from_utf8_lossy(&registered).into_owned()), &target.module_path)
    });
    let dir = match OwnedDir::open(path) {
        _ if is_other => return Ok(0),
        // If the root is missing or was moved, the link counts of the files decide.
        Err(error) if error.is_not_found() => return Ok(0),
        dir => dir?,
    };
    let listing =
        Listing::read(dir.dir().directory).map_err(|cause| Error::io("read", path, cause))?;
    let is_snapshot = |name: &[u8]| SnapshotName::parse(name, &target.policy.time_zone).is_some();
    let directories = listing.entries().iter().filter(|entry| entry.is_directory);
    let visible = directories.filter(|entry| is_snapshot(listing.name(entry).to_bytes())).count();
    let hidden =
        [Subdir::Expired, Subdir::Staging].into_iter().try_fold(
            0,
            |sum, name| match OwnedDir::open(&path.join(PRIVATE).join(name.name())) {
                Ok(dir) => Ok(sum + names_in(dir.dir())?.len()),
                Err(error) if error.is_not_found() => Ok(sum),
                Err(error) => Err(error),
            },
        )?;
    Ok(visible + hidden)
}
