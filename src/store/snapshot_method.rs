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
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::decide::file_system::FileSystemType;
use crate::decide::policy::MethodChoice;
use crate::engine::compare::{CompareContext, Comparison, TreeRoot, compare_trees};
use crate::engine::listing::Listing;
use crate::engine::remove::{Remains, remove_trees};
use crate::store::dir::Dir;
use crate::system::btrfs::{
    Subvolume, are_in_one, is_on_btrfs, is_subvolume, make_snapshot, remove_snapshot,
};
use crate::system::mounts::Mounts;
use crate::system::syscalls::open_directory;
use crate::tell::error::{Error, MAKE_SNAPSHOT, Result};
use crate::tell::escape::{escape_path, shell_path};

/// A way to make snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotMethod {
    /// A directory of its own for each directory of the module, with a hard link to each file.
    HardLinks,
    /// A read-only snapshot of the module's btrfs subvolume.
    Subvolumes,
}

/// What the snapshots in a root are made by, or will be: what its registration says (`registered`,
/// which is asked for only on btrfs), unless the policy has chosen. A new root gets btrfs snapshots
/// where the module is a subvolume. The directories of the root and the module come with their
/// paths; the module's may be lost. `kind`: the type of the root's file system, if it is known. One
/// of a server is not asked: it may not answer. With the refusal if no snapshot can be made in that
/// way: what is in the root can be read and removed all the same.
///
/// # Errors
/// If the kernel does not tell what the module is.
pub(crate) fn of_root(
    (path, root): (&Path, BorrowedFd),
    (module_path, module): (&Path, Option<BorrowedFd>),
    (choice, kind): (MethodChoice, Option<&FileSystemType>),
    registered: impl FnOnce() -> Result<Option<SnapshotMethod>>,
) -> Result<(SnapshotMethod, Option<MethodRefusal>)> {
    let may_be_btrfs = kind.is_none_or(FileSystemType::is_btrfs);
    if !may_be_btrfs && choice != MethodChoice::Btrfs {
        return Ok((SnapshotMethod::HardLinks, None));
    }
    let is_subvolume = module
        .map_or(Ok(None), Subvolume::of)
        .map_err(|cause| Error::io("ask for the subvolume of", module_path, cause))?
        .is_some();
    if !is_subvolume && choice == MethodChoice::HardLink {
        return Ok((SnapshotMethod::HardLinks, None));
    }
    let on_btrfs = is_subvolume || is_on_btrfs(root).unwrap_or(false);
    let registered = if on_btrfs { registered()? } else { None };
    let method = match (choice, registered) {
        (MethodChoice::Btrfs, _) => SnapshotMethod::Subvolumes,
        (MethodChoice::HardLink, _) => SnapshotMethod::HardLinks,
        (MethodChoice::Auto, Some(registered)) => registered,
        (MethodChoice::Auto, None) if is_subvolume => SnapshotMethod::Subvolumes,
        (MethodChoice::Auto, None) => SnapshotMethod::HardLinks,
    };
    let refused = |problem, remedy| Ok((method, Some(MethodRefusal { problem, remedy })));
    let Some(module) = module else { return Ok((method, None)) };
    let is_in_one = || {
        are_in_one(root, module)
            .map_err(|cause| Error::io("ask for the file system of", path, cause))
    };
    let (shown, as_word) = (escape_path(module_path), shell_path(module_path));
    match (method, is_subvolume) {
        (SnapshotMethod::HardLinks, true) => {
            let remedy = match choice {
                MethodChoice::HardLink => "take `method = \"hardlink\"` out of the policy",
                _ => "set `method = \"btrfs\"` in the policy; the snapshots that are there stay",
            };
            refused(
                format!("hard links cannot lead out of the module {shown}, a btrfs subvolume"),
                remedy.to_string(),
            )
        }
        (SnapshotMethod::Subvolumes, false) => refused(
            format!("its snapshots are btrfs snapshots, and the module {shown} is no subvolume"),
            format!(
                "make it one while no client pushes (`btrfs subvolume create {as_word}.new && cp \
                 -a --reflink=always {as_word}/. {as_word}.new/`, then exchange the two), or set \
                 `method = \"hardlink\"`"
            ),
        ),
        (SnapshotMethod::Subvolumes, true) if !is_in_one()? => refused(
            format!("is not in the btrfs of the module {shown}"),
            "take `snapshot_root` out of the policy, or set it to a directory of that btrfs"
                .to_string(),
        ),
        _ => Ok((method, None)),
    }
}

/// Why no snapshot can be made in the way that a root has.
#[derive(Debug, Clone)]
pub(crate) struct MethodRefusal {
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

impl MethodRefusal {
    /// As the error of the root at `path`.
    pub(crate) fn of_root(self, path: &Path) -> Error {
        Error::Root { path: escape_path(path), problem: self.problem, remedy: self.remedy }
    }
}

/// The module, as far as it is known whether it is a subvolume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaybeSubvolume {
    /// Whether the root is on btrfs, so that trees in it may be subvolumes.
    pub(crate) is_on_btrfs: bool,
    pub(crate) subvolume: Option<Subvolume>,
}

impl SnapshotMethod {
    /// Whether it makes a snapshot of the whole module at one instant. Such a snapshot may be made
    /// before the module is compared: the gate opens again, and the snapshot is compared in the
    /// module's place.
    pub(crate) fn is_instant(self) -> bool {
        self == SnapshotMethod::Subvolumes
    }

    /// Makes `name` in the root a snapshot of the module, at one instant; for a method that
    /// [does so](Self::is_instant).
    ///
    /// # Errors
    /// If there is none then.
    pub(crate) fn freeze(self, module: BorrowedFd, root: Dir, name: &CStr) -> Result<()> {
        let failed = |cause| {
            let path = root.path.join(OsStr::from_bytes(name.to_bytes()));
            Error::io(MAKE_SNAPSHOT, &path, cause)
        };
        match self {
            SnapshotMethod::HardLinks => Err(Error::Bug("hard links are not made at one instant")),
            SnapshotMethod::Subvolumes => {
                make_snapshot(module, root.directory, name).map_err(failed)
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
        let by_change_times = self == SnapshotMethod::Subvolumes;
        compare_trees(live, snapshot, &CompareContext { by_change_times, ..context })
    }
}

/// Removes the trees `names` in `parent`, a directory of a root, whatever each was made by. Returns
/// the number of removed entries, and what remains. A subvolume that goes as a whole counts as one
/// entry.
///
/// # Errors
/// If `parent` cannot be opened.
pub(crate) fn remove(
    parent: Dir,
    names: &[CString],
    module: MaybeSubvolume,
) -> Result<(u64, Vec<Remains>)> {
    let is_one = |name: &&CString| module.is_on_btrfs && is_subvolume(parent.directory, name);
    let (subvolumes, trees): (Vec<&CString>, Vec<&CString>) = names.iter().partition(is_one);
    let trees: Vec<CString> = trees.into_iter().cloned().collect();
    let (mut entries, mut remains) = remove_trees(parent.directory, parent.path, &trees)?;
    for name in subvolumes {
        match remove_subvolume(module.subvolume.as_ref(), parent, name) {
            Ok(removed) => entries += removed,
            Err(error) => remains.push(Remains { name: name.clone(), error }),
        }
    }
    Ok((entries, remains))
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
