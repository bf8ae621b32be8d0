//! Which method makes the snapshots of a root: by the policy, by what is registered, and by the
//! file system.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::decide::file_system::FileSystemType;
use crate::decide::name::SnapshotName;
use crate::decide::policy::MethodChoice;
use crate::decide::zone::Zone;
use crate::engine::listing::Listing;
use crate::store::dir::OwnedDir;
use crate::store::snapshot_method::SnapshotMethod;
use crate::system::btrfs::{Subvolume, are_in_one, is_on_btrfs};
use crate::system::cephfs::{self, SNAPSHOTS};
use crate::system::mounts::Mounts;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape_path, shell_path};

/// How the snapshots of a root are made.
pub(crate) struct RootMethod {
    pub(crate) method: SnapshotMethod,
    /// Why no snapshot can be made in that way now.
    pub(crate) refusal: Option<MethodRefusal>,
    /// The directory that the snapshots are in, if that is not the root itself.
    pub(crate) snapshots: Option<OwnedDir>,
}

impl RootMethod {
    fn in_root(method: SnapshotMethod) -> Self {
        RootMethod { method, refusal: None, snapshots: None }
    }

    fn refused(method: SnapshotMethod, problem: String, remedy: String) -> Self {
        let refusal = Some(MethodRefusal { problem, remedy });
        RootMethod { refusal, ..RootMethod::in_root(method) }
    }
}

/// The directories of a root and of its module, with their paths. The module's may be lost.
#[derive(Clone, Copy)]
pub(crate) struct RootPlaces<'a> {
    pub(crate) root: (&'a Path, BorrowedFd<'a>),
    pub(crate) module: (&'a Path, Option<BorrowedFd<'a>>),
}

/// What the snapshots in a root are made by, or will be: what its registration says (`registered`,
/// which is asked for only on btrfs and on CephFS), unless the policy has chosen. A new root gets
/// btrfs snapshots where the module is a subvolume, and CephFS snapshots on CephFS. `kind`: the
/// type of the root's file system, if it is known. One of a server is not asked: it may not answer.
/// With the refusal if no snapshot can be made in that way: what is in the root can be read and
/// removed all the same.
///
/// # Errors
/// If the kernel does not tell what the module is, or the directory with the snapshots cannot be
/// opened.
pub(crate) fn of_root(
    places: RootPlaces,
    choice: MethodChoice,
    kind: Option<&FileSystemType>,
    registered: impl FnOnce() -> Result<Option<SnapshotMethod>>,
) -> Result<RootMethod> {
    if kind.is_some_and(FileSystemType::is_ceph) {
        return of_root_on_ceph(places, choice, registered()?);
    }
    if choice == MethodChoice::CephFs {
        return Ok(RootMethod::refused(
            SnapshotMethod::HardLinks,
            "is not on CephFS, and the policy has `method = \"cephfs\"`".to_string(),
            "set `snapshot_root` to a directory on the CephFS of the module, or take `method` out \
             of the policy"
                .to_string(),
        ));
    }
    of_root_on_disk(places, (choice, kind), registered)
}

/// [`of_root`], on CephFS. What is registered stays: hard links lie in the root, CephFS snapshots
/// in the module, and a run sees only one of the two.
fn of_root_on_ceph(
    RootPlaces { root: (path, root), module: (module_path, module) }: RootPlaces,
    choice: MethodChoice,
    registered: Option<SnapshotMethod>,
) -> Result<RootMethod> {
    let wanted = match choice {
        MethodChoice::Auto => None,
        MethodChoice::HardLink => Some(SnapshotMethod::HardLinks),
        MethodChoice::Btrfs => Some(SnapshotMethod::Subvolumes),
        MethodChoice::CephFs => Some(SnapshotMethod::CephFs),
    };
    if registered.is_none() && wanted == Some(SnapshotMethod::Subvolumes) {
        return Ok(RootMethod::refused(
            SnapshotMethod::HardLinks,
            "is on CephFS, where no btrfs snapshot can be made".to_string(),
            "take `method = \"btrfs\"` out of the policy".to_string(),
        ));
    }
    let is_module_on_ceph = || {
        let mounts = Mounts::read();
        mounts.is_none_or(|all| all.kind_of(module_path).is_none_or(FileSystemType::is_ceph))
    };
    let has_history = || match registered {
        Some(method) => method == SnapshotMethod::HardLinks,
        None => holds_snapshots(root),
    };
    let method = registered.or(wanted).unwrap_or_else(|| {
        match module.is_none() || has_history() || !is_module_on_ceph() {
            true => SnapshotMethod::HardLinks,
            false => SnapshotMethod::CephFs,
        }
    });
    if method == SnapshotMethod::CephFs && registered.is_none() && has_history() {
        return Ok(RootMethod::refused(
            SnapshotMethod::HardLinks,
            "holds snapshots that are directories of their own, and the policy has \
             `method = \"cephfs\"`"
                .to_string(),
            "set `snapshot_root` to a new directory: what is here stays, and is rotated no longer"
                .to_string(),
        ));
    }
    if let Some(wanted) = wanted.filter(|wanted| *wanted != method) {
        let problem = format!(
            "its snapshots were made with `method = \"{}\"`, and the policy has \"{}\"",
            method.word(),
            wanted.word()
        );
        let remedy = "take `method` out of the policy, or set `snapshot_root` to a new directory: \
                      the snapshots that are there stay, and are rotated no longer";
        let refused = RootMethod::refused(method, problem, remedy.to_string());
        return match method {
            SnapshotMethod::CephFs => Ok(RootMethod {
                snapshots: Some(snapshots_of(path, module_path, module)?),
                ..refused
            }),
            _ => Ok(refused),
        };
    }
    match method {
        SnapshotMethod::CephFs => Ok(RootMethod {
            snapshots: Some(snapshots_of(path, module_path, module)?),
            ..RootMethod::in_root(method)
        }),
        _ => Ok(RootMethod::in_root(method)),
    }
}

/// Opens the directory with the CephFS snapshots of a module. Without it, no snapshot could be
/// seen, and all would be taken for removed.
fn snapshots_of(
    root_path: &Path,
    module_path: &Path,
    module: Option<BorrowedFd>,
) -> Result<OwnedDir> {
    let path = module_path.join(SNAPSHOTS.to_string_lossy().as_ref());
    let Some(module) = module else {
        return Err(Error::Root {
            path: escape_path(root_path),
            problem: format!(
                "its snapshots are in the module's directory, {}, which is not there",
                escape_path(module_path)
            ),
            remedy: "mount the CephFS there, or move the directory back to its place".to_string(),
        });
    };
    let opened = cephfs::open_snapshots(module);
    let directory = opened.map_err(|cause| Error::Root {
        path: escape_path(root_path),
        problem: format!(
            "its snapshots are in {}, which cannot be opened: {cause}",
            escape_path(&path)
        ),
        remedy: "mount the CephFS there, and so that its directories with snapshots have the name \
                 `.snap` (without `snapdirname` or `client_snapdir`)"
            .to_string(),
    })?;
    Ok(OwnedDir { directory, path })
}

/// Whether a directory has entries with names of snapshots.
fn holds_snapshots(root: BorrowedFd) -> bool {
    let listing = Listing::read(root);
    listing.is_ok_and(|listing| {
        let is_one = |name: &[u8]| SnapshotName::parse(name, &Zone::utc()).is_some();
        listing.entries().iter().any(|entry| is_one(listing.name(entry).to_bytes()))
    })
}

/// [`of_root`], on any other file system.
fn of_root_on_disk(
    RootPlaces { root: (path, root), module: (module_path, module) }: RootPlaces,
    (choice, kind): (MethodChoice, Option<&FileSystemType>),
    registered: impl FnOnce() -> Result<Option<SnapshotMethod>>,
) -> Result<RootMethod> {
    let may_be_btrfs = kind.is_none_or(FileSystemType::is_btrfs);
    if !may_be_btrfs && choice != MethodChoice::Btrfs {
        return Ok(RootMethod::in_root(SnapshotMethod::HardLinks));
    }
    let is_subvolume = module
        .map_or(Ok(None), Subvolume::of)
        .map_err(|cause| Error::io("ask for the subvolume of", module_path, cause))?
        .is_some();
    if !is_subvolume && choice == MethodChoice::HardLink {
        return Ok(RootMethod::in_root(SnapshotMethod::HardLinks));
    }
    let on_btrfs = is_subvolume || is_on_btrfs(root).unwrap_or(false);
    let registered = if on_btrfs { registered()? } else { None };
    let method = match (choice, registered) {
        (MethodChoice::Btrfs, _) => SnapshotMethod::Subvolumes,
        (MethodChoice::HardLink | MethodChoice::CephFs, _) => SnapshotMethod::HardLinks,
        (MethodChoice::Auto, Some(registered)) => registered,
        (MethodChoice::Auto, None) if is_subvolume => SnapshotMethod::Subvolumes,
        (MethodChoice::Auto, None) => SnapshotMethod::HardLinks,
    };
    let refused = |problem, remedy| Ok(RootMethod::refused(method, problem, remedy));
    let Some(module) = module else { return Ok(RootMethod::in_root(method)) };
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
        _ => Ok(RootMethod::in_root(method)),
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
