//! How the snapshots of a root are made. To add another way than hard links, change this file.
//!
//! A method is asked to compare the module with a snapshot, to make a snapshot in staging, and to
//! remove one. The places of these trees, the renames between them, the order of these steps, the
//! syncs between them, records, state, ledger and all decisions are the same for each method: see
//! [`shelf`](crate::store::shelf), [`publish`](crate::store::publish) and
//! [`retire`](crate::store::retire).

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::engine::compare::{CompareContext, Comparison, TreeRoot, compare_trees};
use crate::engine::listing::Listing;
use crate::engine::remove::{Remains, remove_trees};
use crate::store::dir::Dir;
use crate::system::btrfs::{Subvolume, is_subvolume, make_snapshot, remove_snapshot};
use crate::system::cephfs;
use crate::system::identity::Twins;
use crate::system::mounts::Mounts;
use crate::system::syscalls::open_directory;
use crate::tell::error::{Error, Result};
use crate::tell::error_hints::{MAKE_CEPHFS_SNAPSHOT, MAKE_SNAPSHOT, REMOVE_CEPHFS_SNAPSHOT};
use crate::tell::escape::escape_path;

/// A way to make snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotMethod {
    /// A directory of its own for each directory of the module, with a hard link to each file.
    HardLinks,
    /// A read-only snapshot of the module's btrfs subvolume.
    Subvolumes,
    /// A snapshot of the module's directory that CephFS makes, in the module's `.snap`.
    CephFs,
}

/// What the trees in a directory of a root can be beside directories of hard links. Nothing can
/// change what is in such a *sealed* tree, and it shares no inode with the module.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SealedTrees {
    /// None is sealed.
    None,
    /// Some may be subvolumes. With the module's, if it is one.
    Subvolumes(Option<Subvolume>),
    /// All are snapshots that CephFS made.
    AllOfCephFs,
}

impl SnapshotMethod {
    /// Whether it makes a snapshot of the whole module at one instant. Such a snapshot may be made
    /// before the module is compared: the gate opens again, and the snapshot is compared in the
    /// module's place.
    pub(crate) fn is_instant(self) -> bool {
        self != SnapshotMethod::HardLinks
    }

    /// What the policy calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            SnapshotMethod::HardLinks => "hardlink",
            SnapshotMethod::Subvolumes => "btrfs",
            SnapshotMethod::CephFs => "cephfs",
        }
    }

    /// One of its snapshots, for a message.
    pub(crate) fn text(self) -> String {
        match self {
            SnapshotMethod::HardLinks => "a tree of hard links",
            SnapshotMethod::Subvolumes => "a btrfs snapshot",
            SnapshotMethod::CephFs => "a CephFS snapshot",
        }
        .to_string()
    }

    /// Makes `name`, in the directory that the snapshots are in, a snapshot of the module at one
    /// instant; for a method that [does so](Self::is_instant).
    ///
    /// # Errors
    /// If there is none then.
    pub(crate) fn freeze(self, module: BorrowedFd, snapshots: Dir, name: &CStr) -> Result<()> {
        let failed = |operation| {
            let path = snapshots.path.join(OsStr::from_bytes(name.to_bytes()));
            move |cause| Error::io(operation, &path, cause)
        };
        match self {
            SnapshotMethod::HardLinks => Err(Error::Bug("hard links are not made at one instant")),
            SnapshotMethod::Subvolumes => {
                make_snapshot(module, snapshots.directory, name).map_err(failed(MAKE_SNAPSHOT))
            }
            SnapshotMethod::CephFs => {
                let made = cephfs::make_snapshot(snapshots.directory, name);
                made.map_err(failed(MAKE_CEPHFS_SNAPSHOT))
            }
        }
    }

    /// How the module at `live`, or a snapshot of it that was just made, differs from `snapshot`;
    /// if that is `None`, every entry counts as new.
    ///
    /// # Errors
    /// If a directory of either cannot be read.
    pub(crate) fn compare(
        self,
        live: TreeRoot,
        snapshot: Option<TreeRoot>,
        context: CompareContext,
    ) -> Result<Comparison> {
        let twins = match self {
            SnapshotMethod::HardLinks => Twins::Linked,
            SnapshotMethod::Subvolumes => Twins::OfSubvolumes,
            SnapshotMethod::CephFs => Twins::OfCephFs,
        };
        compare_trees(live, snapshot, &CompareContext { twins, ..context })
    }
}

/// Removes the trees `names` in `parent`, a directory of a root, whatever each was made by. Returns
/// the number of removed entries, and what remains. A sealed tree that goes as a whole counts as
/// one entry.
///
/// # Errors
/// If `parent` cannot be opened.
pub(crate) fn remove(
    parent: Dir,
    names: &[CString],
    sealed: SealedTrees,
) -> Result<(u64, Vec<Remains>)> {
    let is_sealed = |name: &&CString| match sealed {
        SealedTrees::None => false,
        SealedTrees::Subvolumes(_) => is_subvolume(parent.directory, name),
        SealedTrees::AllOfCephFs => true,
    };
    let (whole, trees): (Vec<&CString>, Vec<&CString>) = names.iter().partition(is_sealed);
    let trees: Vec<CString> = trees.into_iter().cloned().collect();
    let (mut entries, mut remains) = match trees.is_empty() {
        true => (0, Vec::new()),
        false => remove_trees(parent.directory, parent.path, &trees)?,
    };
    for name in whole {
        let removed = match sealed {
            SealedTrees::Subvolumes(module) => remove_subvolume(module.as_ref(), parent, name),
            SealedTrees::None | SealedTrees::AllOfCephFs => remove_of_cephfs(parent, name),
        };
        match removed {
            Ok(removed) => entries += removed,
            Err(error) => remains.push(Remains { name: name.clone(), error }),
        }
    }
    Ok((entries, remains))
}

fn remove_of_cephfs(parent: Dir, name: &CStr) -> Result<u64> {
    let path = parent.path.join(OsStr::from_bytes(name.to_bytes()));
    let removed = cephfs::remove_snapshot(parent.directory, name);
    removed.map_err(|cause| Error::io(REMOVE_CEPHFS_SNAPSHOT, &path, cause)).map(|()| 1)
}

/// Removes the subvolume `name` in `parent`: as a whole, or else file by file. A run that is killed
/// in between leaves a part of it in staging, which the next run removes.
fn remove_subvolume(module: Option<&Subvolume>, parent: Dir, name: &CStr) -> Result<u64> {
    let path = parent.path.join(OsStr::from_bytes(name.to_bytes()));
    let operation = |cause| match cause {
        Errno::EBUSY => {
            "destroy the subvolume (is it the default one, or does `btrfs send` read it?)"
        }
        _ => "remove the subvolume",
    };
    let failed = |cause| Error::io(operation(cause), &path, cause);
    let mounts = Mounts::read();
    let is_allowed = mounts.is_some_and(|mounts| mounts.may_remove_subvolumes(parent.path));
    match remove_snapshot(parent.directory, name, module, is_allowed) {
        Ok(()) => return Ok(1),
        Err(Errno::EPERM | Errno::EACCES) => {}
        Err(cause) => return Err(failed(cause)),
    }
    log::debug!("{}: may not be removed as a whole, so its files are removed", escape_path(&path));
    let directory = open_directory(parent.directory, name).map_err(failed)?;
    let listing = Listing::read(directory.as_fd()).map_err(failed)?;
    let names: Vec<CString> =
        listing.entries().iter().map(|entry| listing.name(entry).to_owned()).collect();
    let (entries, remains) = remove_trees(directory.as_fd(), &path, &names)?;
    if let Some(first) = remains.into_iter().next() {
        return Err(first.error);
    }
    unlinkat(parent.directory, name, UnlinkatFlags::RemoveDir).map_err(failed)?;
    Ok(entries + 1)
}
