//! The places of trees that are not visible snapshots: *staging*, where one is built or removed,
//! *expired* for retired ones, and *unremovable*.
//!
//! A tree of hard links lies in a directory for its place in `.rsyncd-snapshot`. A read-only
//! subvolume and a snapshot of CephFS cannot get another parent directory. So such a tree lies
//! beside the snapshots, under a name that begins with a dot and says the place: no listing of
//! snapshots takes it for one. Either way, a
//! tree comes to its place and leaves it by one rename, so it is at one place at every instant,
//! also after a crash, once both directories are synced.

use std::ffi::{CString, OsStr, OsString};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;
use crate::engine::usage::UsageTree;
use crate::store::dir::{Dir, OwnedDir, c_name, names_in};
use crate::store::layout::{PRIVATE, Subdir};
use crate::store::root::SnapshotRoot;
use crate::system::btrfs::is_subvolume;
use crate::system::identity::SysResult;
use crate::system::syscalls::{rename_no_replace, stat_entry};
use crate::tell::error::Result;

/// The name of a tree that is being built, unless it is recycled.
pub(crate) const STAGED: &str = "snapshot";

/// What a tree that is no visible snapshot waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelf {
    /// It is being built, or removed.
    Staging,
    /// It is retired, whole, and can be brought back.
    Expired,
    /// It could not be removed.
    Unremovable,
}

impl Shelf {
    /// The directory for trees of hard links.
    pub(crate) fn subdir(self) -> Subdir {
        match self {
            Shelf::Staging => Subdir::Staging,
            Shelf::Expired => Subdir::Expired,
            Shelf::Unremovable => Subdir::Unremovable,
        }
    }

    /// The name without the prefix of a tree that lies beside the snapshots and is ours: that of a
    /// snapshot, or of one that is being built. Other names with that prefix are not ours.
    pub(crate) fn own(self, beside: &str) -> Option<&str> {
        let name = beside.strip_prefix(self.prefix())?;
        let base = match (self, name.rsplit_once('.')) {
            // Of several that could not be removed, all but the first have a number.
            (Shelf::Unremovable, Some((base, number))) if number.parse::<u16>().is_ok() => base,
            _ => name,
        };
        let is_snapshot = |name: &str| SnapshotName::parse(name.as_bytes(), &Zone::utc()).is_some();
        let is_ours = name == STAGED && self != Shelf::Expired || is_snapshot(base);
        is_ours.then_some(name)
    }

    /// The paths that the tree `name` of the root at `root_path` can have; its snapshots are at
    /// `snapshots_path`.
    pub(crate) fn paths(
        self,
        root_path: &Path,
        snapshots_path: &Path,
        name: &OsStr,
    ) -> [PathBuf; 2] {
        let mut prefixed = OsString::from(self.prefix());
        prefixed.push(name);
        let in_subdir = root_path.join(PRIVATE).join(self.subdir().name()).join(name);
        [in_subdir, snapshots_path.join(prefixed)]
    }

    /// How the names of sealed trees begin. An unprivileged run builds its tree of hard links under
    /// the first of these, too.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Shelf::Staging => ".rsyncd-snapshot-staging-",
            Shelf::Expired => ".rsyncd-snapshot-expired-",
            Shelf::Unremovable => ".rsyncd-snapshot-unremovable-",
        }
    }
}

/// A place of a root, opened.
pub(crate) struct OpenShelf<'a> {
    root: &'a SnapshotRoot,
    shelf: Shelf,
    subdir: OwnedDir,
}

/// Where one tree is: a directory, and its name there.
pub(crate) struct Slot<'a> {
    pub(crate) dir: Dir<'a>,
    pub(crate) name: CString,
    /// Whether the directory is that of the visible snapshots.
    pub(crate) is_beside: bool,
}

impl Slot<'_> {
    /// Moves the tree that is here to another place, in one step, without replacing anything.
    ///
    /// # Errors
    /// `EEXIST` if something is there already, `ENOENT` if nothing is here.
    pub(crate) fn move_to(&self, to: &Slot) -> SysResult<()> {
        rename_no_replace(self.dir.directory, &self.name, to.dir.directory, &to.name)
    }

    /// Whether what is here, in `root`, is sealed: a subvolume or a snapshot of CephFS.
    pub(crate) fn is_sealed(&self, root: &SnapshotRoot) -> bool {
        match root.has_only_sealed() {
            true => self.is_beside,
            false => root.may_have_subvolumes() && is_subvolume(self.dir.directory, &self.name),
        }
    }

    /// The state of what is here.
    ///
    /// # Errors
    /// `ENOENT` if nothing is.
    pub(crate) fn look(&self) -> SysResult<FileStat> {
        stat_entry(self.dir.directory, &self.name)
    }

    /// Its path, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path.join(self.name.to_string_lossy().as_ref())
    }
}

impl<'a> OpenShelf<'a> {
    /// # Errors
    /// If the directory for trees of hard links cannot be opened.
    pub(crate) fn open(root: &'a SnapshotRoot, shelf: Shelf) -> Result<Self> {
        Ok(OpenShelf { root, shelf, subdir: root.subdir(shelf.subdir())? })
    }

    /// The directory for trees of hard links.
    pub(crate) fn subdir(&self) -> Dir<'_> {
        self.subdir.dir()
    }

    /// The names of the trees that are there, as snapshots have them, in no order.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let mut names = names_in(self.subdir())?;
        if self.may_have_sealed() {
            let beside = names_in(self.root.snapshots())?;
            names.extend(beside.iter().filter_map(|name| self.shelf.own(name)).map(str::to_string));
        }
        Ok(names)
    }

    /// Where the tree `name` is; if there is none, where a tree of hard links of that name would
    /// be.
    pub(crate) fn slot(&self, name: &str) -> Slot<'_> {
        let beside = self.slot_for(name, true);
        let is_there = || !matches!(beside.look(), Err(Errno::ENOENT));
        match self.may_have_sealed() && is_there() {
            true => beside,
            false => self.slot_for(name, false),
        }
    }

    fn may_have_sealed(&self) -> bool {
        self.root.has_only_sealed() || self.root.may_have_subvolumes()
    }

    /// Where a tree belongs.
    pub(crate) fn slot_for(&self, name: &str, is_sealed: bool) -> Slot<'_> {
        match is_sealed {
            true => Slot {
                dir: self.root.snapshots(),
                name: c_name(&format!("{}{name}", self.shelf.prefix())),
                is_beside: true,
            },
            false => Slot { dir: self.subdir(), name: c_name(name), is_beside: false },
        }
    }

    /// Where the tree that is now `from` belongs under the name `name`.
    pub(crate) fn slot_of(&self, from: &Slot, name: &str) -> Slot<'_> {
        self.slot_for(name, from.is_sealed(self.root))
    }
}

impl<'a> From<Slot<'a>> for UsageTree<'a> {
    fn from(slot: Slot<'a>) -> Self {
        UsageTree { parent: slot.dir.directory, parent_path: slot.dir.path, name: slot.name }
    }
}

impl SnapshotRoot {
    /// Where the visible snapshot `name` is.
    pub(crate) fn visible(&self, name: &str) -> Slot<'_> {
        Slot { dir: self.snapshots(), name: c_name(name), is_beside: true }
    }
}
