//! What each snapshot of a root, and the module itself, has at a path.
//!
//! Nothing is changed, and nothing but the directories of the snapshots is needed: no records, no
//! state, no lease. A snapshot may be retired, recycled or removed while it is looked at. So each
//! one is opened, looked at, and then looked up by its name again: rotation renames a snapshot
//! before it changes it, so if the name still leads to the open directory, all that was seen is
//! that snapshot. Otherwise nothing is concluded from it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use crate::decide::name::SnapshotName;
use crate::decide::path_patterns::PathNames;
use crate::decide::path_versions::{SightedEntry, Sighting};
use crate::decide::zone::Zone;
use crate::engine::listing::Listing;
use crate::engine::path_lookup::{Descended, EntryPlace, c_name, descend};
use crate::run::path_matches::PathMatches;
use crate::run::restore_source::prefixed_names;
use crate::store::dir::open_path;
use crate::store::layout::{PRIVATE, Subdir};
use crate::store::root::SnapshotRoot;
use crate::store::shelf::Shelf;
use crate::system::identity::{Identity, SysResult};
use crate::system::mounts::note_mounts_below;
use crate::system::syscalls::{is_gone, open_directory, open_for_lookups, stat_entry};
use crate::tell::error::{Error, Result};

/// In how many trees the nearest names are looked for; each keeps a directory open.
const MAX_NEAR_TREES: usize = 16;

/// How many names are compared at most to find the nearest ones.
const MAX_NAMES: usize = 100_000;

/// A tree that is looked at.
#[derive(Debug)]
pub(crate) struct HistoryTree {
    pub kind: TreeKind,
    /// Its directory.
    pub path: PathBuf,
}

/// What a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TreeKind {
    Snapshot(SnapshotName),
    Retired(SnapshotName),
    Live,
}

impl TreeKind {
    /// Its name, unless it is the module.
    pub(crate) fn snapshot(&self) -> Option<&SnapshotName> {
        match self {
            TreeKind::Snapshot(name) | TreeKind::Retired(name) => Some(name),
            TreeKind::Live => None,
        }
    }
}

/// The trees of a module: its snapshots, oldest first, then its directory.
pub(crate) struct PathHistory {
    pub trees: Vec<HistoryTree>,
    /// Why retired snapshots are not among them, if there may be some.
    pub no_retired: Option<Error>,
    /// The directory that the snapshots are in.
    snapshots_path: PathBuf,
    root: OwnedFd,
    expired: Option<OwnedFd>,
    module: Option<OwnedFd>,
}

/// What was seen.
pub(crate) struct PathSurvey {
    /// For each path what each tree has there.
    pub sightings: Vec<Vec<Sighting>>,
    /// How many times something could not be looked at, and the first error.
    pub trouble: Option<(usize, Error)>,
}

impl PathSurvey {
    fn note(&mut self, error: Error) {
        match &mut self.trouble {
            Some((count, _)) => *count += 1,
            trouble => *trouble = Some((1, error)),
        }
    }

    /// Adds the trouble of another survey.
    pub(crate) fn note_all(&mut self, trouble: Option<(usize, Error)>) {
        let Some((count, error)) = trouble else { return };
        self.note(error);
        self.trouble.iter_mut().for_each(|(known, _)| *known += count - 1);
    }
}

impl PathHistory {
    /// Opens the root at `root_path`, which is canonical, and the directory of its module, if that
    /// is known and there.
    pub(crate) fn open(root_path: &Path, module_path: Option<&Path>, zone: &Zone) -> Result<Self> {
        let trees: Vec<&Path> = [Some(root_path), module_path].into_iter().flatten().collect();
        note_mounts_below(&trees);
        // Of CephFS snapshots, only this directory and the live tree are read.
        let snapshots_path = SnapshotRoot::snapshots_path(root_path)?;
        let root = open_path(&snapshots_path)?;
        let mut names = prefixed_names(&snapshots_path, "", zone)?;
        // The live tree is no snapshot, whatever its name is.
        names.retain(|name| Some(root_path.join(&name.text).as_path()) != module_path);
        let visible = names.into_iter().map(|name| HistoryTree {
            path: snapshots_path.join(&name.text),
            kind: TreeKind::Snapshot(name),
        });
        let mut trees: Vec<HistoryTree> = visible.collect();
        let beside = prefixed_names(&snapshots_path, Shelf::Expired.prefix(), zone)?;
        trees.extend(beside.into_iter().map(|name| HistoryTree {
            path: snapshots_path.join(format!("{}{}", Shelf::Expired.prefix(), name.text)),
            kind: TreeKind::Retired(name),
        }));
        let own = open_path(root_path)?;
        let (mut no_retired, mut expired) = (None, None);
        let expired_path = root_path.join(PRIVATE).join(Subdir::Expired.name());
        let retired = prefixed_names(&expired_path, "", zone);
        match open_expired(own.as_fd()).map_err(|cause| Error::io("open", &expired_path, cause)) {
            Ok(directory) => {
                trees.extend(retired?.into_iter().map(|name| HistoryTree {
                    path: expired_path.join(&name.text),
                    kind: TreeKind::Retired(name),
                }));
                expired = Some(directory);
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => no_retired = Some(error),
        }
        trees.sort_by_key(|tree| tree.kind.snapshot().map(|name| (name.time, name.text.clone())));
        let module = match module_path.map(open_path).transpose() {
            Err(error) if error.is_not_found() => None,
            opened => opened?,
        };
        if let (Some(_), Some(path)) = (&module, module_path) {
            trees.push(HistoryTree { kind: TreeKind::Live, path: path.to_path_buf() });
        }
        Ok(PathHistory { trees, no_retired, snapshots_path, root, expired, module })
    }

    /// The directory that a snapshot lies in, and its name there; none for the module.
    fn place_of<'a>(&'a self, tree: &'a HistoryTree) -> Option<(BorrowedFd<'a>, &'a [u8])> {
        let parent = match &tree.kind {
            TreeKind::Live => return None,
            // A retired snapshot that is sealed is there, too.
            _ if tree.path.parent() == Some(&self.snapshots_path) => self.root.as_fd(),
            _ => self.expired.as_ref()?.as_fd(),
        };
        Some((parent, tree.path.file_name()?.as_bytes()))
    }

    pub(crate) fn open_tree(&self, tree: &HistoryTree) -> SysResult<OwnedFd> {
        match self.place_of(tree) {
            Some((parent, name)) => open_for_lookups(parent, &c_name(name)?),
            None => {
                let module = self.module.as_ref().ok_or(Errno::ENOENT)?;
                open_for_lookups(module.as_fd(), c".")
            }
        }
    }

    /// Whether `top`, which was opened as `tree`, still is that tree.
    fn is_still(&self, tree: &HistoryTree, top: &OwnedFd) -> bool {
        let Some((parent, name)) = self.place_of(tree) else { return true };
        let named = c_name(name).and_then(|name| stat_entry(parent, &name));
        let identity = |stat: SysResult<_>| stat.map(|stat| Identity::of(&stat)).ok();
        let named = identity(named);
        named.is_some() && named == identity(fstat(top))
    }

    /// Looks at `paths` in each tree.
    pub(crate) fn survey(&self, paths: &[PathNames]) -> PathSurvey {
        let sightings = vec![Vec::with_capacity(self.trees.len()); paths.len()];
        let mut survey = PathSurvey { sightings, trouble: None };
        for tree in &self.trees {
            let seen = match self.look_at(tree, paths, &mut survey) {
                Ok(seen) => seen,
                Err(cause) => {
                    if !is_gone(cause) {
                        survey.note(Error::io("open", &tree.path, cause));
                    }
                    vec![Sighting::Unknown; paths.len()]
                }
            };
            for (of_path, seen) in survey.sightings.iter_mut().zip(seen) {
                of_path.push(seen);
            }
        }
        survey
    }

    /// # Errors
    /// `ENOENT` if the tree has gone.
    fn look_at(
        &self,
        tree: &HistoryTree,
        paths: &[PathNames],
        survey: &mut PathSurvey,
    ) -> SysResult<Vec<Sighting>> {
        let top = self.open_tree(tree)?;
        let mut seen = Vec::with_capacity(paths.len());
        for path in paths {
            seen.push(match sight(top.as_fd(), path) {
                Ok(entry) => Sighting::Present(entry),
                Err(cause) if is_gone(cause) || cause == Errno::ENAMETOOLONG => Sighting::Absent,
                Err(cause) => {
                    survey.note(Error::io("inspect", &joined(&tree.path, path), cause));
                    Sighting::Unknown
                }
            });
        }
        if self.is_still(tree, &top) { Ok(seen) } else { Err(Errno::ENOENT) }
    }

    /// The paths that the pattern `names` stands for in any tree, sorted. A tree that goes away
    /// meanwhile may add paths that no tree has.
    ///
    /// # Errors
    /// [`Error::Usage`] if there are too many.
    pub(crate) fn matches(
        &self,
        names: &[Vec<u8>],
        survey: &mut PathSurvey,
    ) -> Result<Vec<PathNames>> {
        let mut matches = PathMatches::new(names)?;
        for tree in &self.trees {
            let top = self.open_tree(tree);
            let added = top.and_then(|top| matches.add_from(top.as_fd(), &tree.path));
            if let Err(cause) = added
                && !is_gone(cause)
            {
                survey.note(Error::io("read", &tree.path, cause));
            }
            matches.ensure_few()?;
        }
        Ok(matches.into_paths())
    }

    /// Where the entry at `path` in a tree leads, if it is a symbolic link.
    pub(crate) fn link_target(&self, tree: &HistoryTree, path: &[Vec<u8>]) -> Option<Vec<u8>> {
        let top = self.open_tree(tree).ok()?;
        EntryPlace::find(top.as_fd(), path).ok()?.link_target()
    }

    /// For a `path` that no tree has: how many of its names lead to directories, and what is in the
    /// last one.
    pub(crate) fn beside(&self, path: &[Vec<u8>]) -> Beside {
        let above = &path[..path.len().saturating_sub(1)];
        let mut beside = Beside::default();
        let newest_first = || self.trees.iter().rev();
        let descended = |tree| -> SysResult<Descended> {
            let top = self.open_tree(tree)?;
            descend(top.as_fd(), above)
        };
        let mut deepest: Vec<Descended> = Vec::new();
        for (tree, reached) in newest_first().filter_map(|tree| Some((tree, descended(tree).ok()?)))
        {
            if beside.link.is_none()
                && let Some(target) = reached.next_link(path)
            {
                beside.link = Some((joined(&tree.path, &path[..=reached.depth]), target));
            }
            let depth = deepest.first().map_or(0, |known| known.depth);
            if reached.depth > depth {
                deepest.clear();
            }
            if reached.depth >= depth && deepest.len() < MAX_NEAR_TREES {
                deepest.push(reached);
            }
        }
        beside.depth = deepest.first().map_or(0, |known| known.depth);
        for directory in deepest {
            let readable = open_directory(directory.directory.as_fd(), c".");
            let Ok(listing) = readable.and_then(|it| Listing::read(it.as_fd())) else { continue };
            let names = listing.entries().iter().map(|entry| listing.name(entry).to_bytes());
            let room = MAX_NAMES.saturating_sub(beside.names.len());
            beside.names.extend(names.take(room).map(<[u8]>::to_vec));
        }
        beside
    }
}

/// What is there instead of a path that no tree has.
#[derive(Default)]
pub(crate) struct Beside {
    /// How many names of the path lead to directories.
    pub depth: usize,
    /// The names in the last one of these directories.
    pub names: BTreeSet<Vec<u8>>,
    /// A symbolic link that is on the way, and where it leads.
    pub link: Option<(PathBuf, Vec<u8>)>,
}

fn sight(top: BorrowedFd, path: &[Vec<u8>]) -> SysResult<SightedEntry> {
    let place = EntryPlace::find(top, path)?;
    let inode = place.inspect()?;
    Ok(SightedEntry { device: place.device()?, inode: inode.number, attributes: inode.attributes })
}

fn open_expired(root: BorrowedFd) -> SysResult<OwnedFd> {
    let private = open_directory(root, &c_name(PRIVATE.as_bytes())?)?;
    open_directory(private.as_fd(), &c_name(Subdir::Expired.name().as_bytes())?)
}

/// The path of the entry at `names` below `top`.
pub(crate) fn joined(top: &Path, names: &[Vec<u8>]) -> PathBuf {
    use std::ffi::OsStr;
    let mut path = top.as_os_str().as_bytes().to_vec();
    for name in names {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    PathBuf::from(OsStr::from_bytes(&path))
}
