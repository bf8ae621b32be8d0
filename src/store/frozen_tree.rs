//! The module as it was at one instant. What was written to it is on its way to the disk before
//! that instant, so the gate is closed for as short as can be, and a snapshot of CephFS, which does
//! not wait for that, holds it.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::unistd::syncfs;

use crate::store::dir::c_name;
use crate::store::inode_log::windows::wall_ns;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{STAGED, Shelf};
use crate::system::syscalls::open_directory;
use crate::tell::error::{Error, Result};

/// The module as it was at one instant: a tree in staging, which nothing changes any more.
pub(crate) struct FrozenTree {
    pub(crate) directory: OwnedFd,
    pub(crate) path: PathBuf,
    /// When it began to be made, nanoseconds since 1970: a file may have changed since that has no
    /// later change time in it.
    pub(crate) began_ns: i64,
}

impl FrozenTree {
    /// Makes one, for a root whose method makes snapshots at one instant. Staging is empty.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn make(root: &SnapshotRoot) -> Result<Self> {
        let name = staged_beside();
        let path = root.snapshots().path.join(OsStr::from_bytes(name.to_bytes()));
        // What is on its way to the disk already makes that moment longer. A snapshot of CephFS
        // would not even wait for it.
        syncfs(root.module()?)
            .map_err(|cause| Error::io("sync the file system of", &root.module_path, cause))?;
        let began_ns = wall_ns();
        root.method().freeze(root.module()?, root.snapshots(), &name)?;
        let directory = open_directory(root.snapshots().directory, &name)
            .map_err(|cause| Error::io("open", &path, cause))?;
        Ok(FrozenTree { directory, path, began_ns })
    }
}

/// The name of a tree that is built beside the snapshots.
pub(crate) fn staged_beside() -> CString {
    c_name(&format!("{}{STAGED}", Shelf::Staging.prefix()))
}
