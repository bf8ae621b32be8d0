//! The snapshot that a restore reads. The restore needs nothing else of the snapshot root. So a
//! snapshot can be restored out of a root whose records, state or registration are damaged or lost,
//! or that was mounted read-only on another machine.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::decide::name::SnapshotName;
use crate::decide::restore_paths::RestorePath;
use crate::decide::zone::Zone;
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::listing::Listing;
use crate::store::dir::{c_name, open_path};
use crate::store::root::SnapshotRoot;
use crate::store::snapshots_place::module_of_snapshots;
use crate::system::identity::{Identity, SysResult, Twins};
use crate::system::mounts::note_mounts_below;
use crate::system::syscalls::{open_directory, stat_entry};
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};

/// An open snapshot.
pub(crate) struct SnapshotSource {
    pub root_path: PathBuf,
    /// Its name in the root.
    pub name: String,
    /// Its path.
    path: PathBuf,
    root: OwnedFd,
    top: OwnedFd,
}

impl SnapshotSource {
    /// Opens the snapshot `name` in the root at `root_path`, which is canonical.
    pub(crate) fn open(root_path: &Path, name: &str) -> Result<Self> {
        let snapshots_path = SnapshotRoot::snapshots_path(root_path)?;
        let path = snapshots_path.join(name);
        note_mounts_below(&[&path]);
        let root = open_root(&snapshots_path)?;
        let top = open_directory(root.as_fd(), &c_name(name));
        let top = top.map_err(|cause| Error::io("open the directory", &path, cause))?;
        let root_path = root_path.to_path_buf();
        Ok(SnapshotSource { root_path, name: name.to_string(), path, root, top })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Whether CephFS has made it.
    pub(crate) fn is_of_cephfs(&self) -> bool {
        self.path.parent().and_then(module_of_snapshots).is_some()
    }

    /// What shows that a file of it and one of another tree of the module are the same.
    pub(crate) fn twins(&self) -> Twins {
        match self.is_of_cephfs() {
            true => Twins::OfCephFs,
            false => Twins::OfSubvolumes,
        }
    }

    /// The directory that the snapshot is in.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The snapshot's own directory.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// Where a walk through the snapshot starts.
    pub(crate) fn start(&self) -> Result<DescentStart> {
        let path = self.path();
        DescentStart::root(&self.top, &path).map_err(|cause| Error::io("open", &path, cause))
    }

    /// Whether the snapshot still has its name. One that was retired may become another snapshot
    /// while it is read.
    pub(crate) fn is_still_there(&self) -> bool {
        let identity = |stat: SysResult<_>| stat.map(|stat| Identity::of(&stat)).ok();
        let named = identity(stat_entry(self.root.as_fd(), &c_name(&self.name)));
        named.is_some() && named == identity(fstat(&self.top))
    }

    /// Makes sure that the snapshot has `path`, and that no symbolic link leads to it.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if it does not.
    pub(crate) fn check_path(&self, path: &RestorePath) -> Result<()> {
        let start = self.start()?;
        let failed = |cause| Error::io("open", &self.path(), cause);
        let mut descent = Descent::new(start).map_err(failed)?;
        let Some((last, above)) = path.names.split_last() else { return Ok(()) };
        for name in above {
            let name = name_of(name)?;
            match descent.enter_for_lookups(&name) {
                Ok(_) => {}
                Err(cause) => return Err(self.explain(&mut descent, &name, path, cause)),
            }
        }
        let name = name_of(last)?;
        let found = descent.lookup_directory().and_then(|dir| stat_entry(dir.as_fd(), &name));
        match found {
            Err(cause) => Err(self.explain(&mut descent, &name, path, cause)),
            Ok(stat) if path.is_content && !is_kind(stat.st_mode, SFlag::S_IFDIR) => {
                Err(self.explain(&mut descent, &name, path, Errno::ENOTDIR))
            }
            Ok(_) => Ok(()),
        }
    }

    /// Whether `path` is a directory.
    pub(crate) fn has_directory(&self, path: &RestorePath) -> bool {
        let content = RestorePath { is_content: true, ..path.clone() };
        self.check_path(&content).is_ok()
    }

    /// Why `path` is not restored: `name` in the current directory is not what it should be.
    fn explain(
        &self,
        descent: &mut Descent,
        name: &CStr,
        path: &RestorePath,
        cause: Errno,
    ) -> Error {
        let at = escape(&descent.relative_path(Some(name)));
        let parent = descent.lookup_directory();
        let problem = match cause {
            Errno::ENOENT => match path.text() == at {
                true => format!("the snapshot {} has no {at}", self.name),
                false => format!(
                    "the snapshot {} does not contain {}: it has no {at}",
                    self.name,
                    path.text()
                ),
            },
            Errno::ENOTDIR | Errno::ELOOP => {
                match parent.and_then(|parent| readlinkat(parent.as_fd(), name)) {
                    Ok(target) => format!(
                        "in the snapshot {}, {at} is a symbolic link to {}, which is not followed",
                        self.name,
                        escape_path(Path::new(&target))
                    ),
                    Err(_) => format!("in the snapshot {}, {at} is not a directory", self.name),
                }
            }
            cause => return descent.error("read", Some(name), cause),
        };
        Error::Snapshot {
            root: escape_path(&self.root_path),
            problem,
            remedy: "nothing was restored: name a path that is in it; paths are relative to the \
                     module's directory",
        }
    }
}

fn is_kind(mode: u32, kind: SFlag) -> bool {
    mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// A name as the system calls take it.
pub(crate) fn name_of(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::Usage(format!("{} is no name", escape(bytes))))
}

/// The snapshot `name` of the root at `root_path`, which need not be readable.
pub(crate) fn named_snapshot(root_path: &Path, name: &str, zone: &Zone) -> Option<SnapshotName> {
    let parsed = SnapshotName::parse(name.as_bytes(), zone)?;
    let root = open_root(&SnapshotRoot::snapshots_path(root_path).ok()?).ok()?;
    let stat = stat_entry(root.as_fd(), &c_name(name)).ok()?;
    is_kind(stat.st_mode, SFlag::S_IFDIR).then_some(parsed)
}

/// Opens a directory in which names are looked up. An ordinary user may be let through a root and
/// not be allowed to list it.
fn open_root(path: &Path) -> Result<OwnedFd> {
    match open_path(path) {
        Err(error) if error.is_denied() => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            nix::fcntl::open(path, flags, Mode::empty()).map_err(|_| error)
        }
        answer => answer,
    }
}

/// The snapshots of the root at `root_path`, oldest first, by their names alone.
pub(crate) fn snapshot_names(root_path: &Path, zone: &Zone) -> Result<Vec<SnapshotName>> {
    prefixed_names(&SnapshotRoot::snapshots_path(root_path)?, "", zone)
}

/// The snapshots in the directory at `path` whose names follow `prefix`, oldest first.
pub(crate) fn prefixed_names(path: &Path, prefix: &str, zone: &Zone) -> Result<Vec<SnapshotName>> {
    let root = open_path(path)?;
    let listing = Listing::read(root.as_fd()).map_err(|cause| Error::io("read", path, cause))?;
    let directories = listing.entries().iter().filter(|entry| entry.is_directory);
    let mut names: Vec<SnapshotName> = directories
        .filter_map(|entry| listing.name(entry).to_bytes().strip_prefix(prefix.as_bytes()))
        .filter_map(|name| SnapshotName::parse(name, zone))
        .collect();
    names.sort_by(|a, b| (a.time, &a.text).cmp(&(b.time, &b.text)));
    Ok(names)
}
