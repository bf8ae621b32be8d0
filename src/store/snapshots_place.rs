//! Where the snapshots of a root are, as far as paths tell: in the root, or of CephFS in the
//! module's own directory of snapshots.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::store::dir::open_followed;
use crate::store::layout::PRIVATE;
use crate::store::root::SnapshotRoot;
use crate::store::root_checks;
use crate::store::snapshot_method::SnapshotMethod;
use crate::system::cephfs::SNAPSHOTS;
use crate::tell::error::{Error, Result};
use crate::tell::escape::unescape;

impl SnapshotRoot {
    /// The directory that the snapshots of the root at `path` are in, as far as this process may
    /// know it.
    ///
    /// # Errors
    /// If reading the registration fails.
    pub fn snapshots_path(path: &Path) -> Result<PathBuf> {
        let registered = Self::registration(path)?;
        if registered.is_none() {
            check_knows(path)?;
        }
        let ceph = registered.filter(|found| found.method() == SnapshotMethod::CephFs);
        let module = ceph.and_then(|found| unescape(&found.path));
        let in_module =
            |module: Vec<u8>| Path::new(OsStr::from_bytes(&module)).join(snapshots_name());
        Ok(module.map_or_else(|| path.to_path_buf(), in_module))
    }
}

fn snapshots_name() -> &'static OsStr {
    OsStr::from_bytes(SNAPSHOTS.to_bytes())
}

/// The directory whose CephFS snapshots are in the directory at `path`, by its name alone.
pub(crate) fn module_of_snapshots(path: &Path) -> Option<&Path> {
    path.parent().filter(|_| path.file_name() == Some(snapshots_name()))
}

/// Makes sure that the snapshots of the root at `path` are in it, as far as this process knows.
///
/// # Errors
/// If the root is on CephFS, and an ordinary user may not read where they are.
fn check_knows(path: &Path) -> Result<()> {
    let private_path = path.join(PRIVATE);
    let denied = open_followed(&private_path).err();
    match denied.filter(|cause| cause.raw_os_error() == Some(libc::EACCES)) {
        Some(cause) if root_checks::kind_of(path).is_some_and(|kind| kind.is_ceph()) => {
            Err(Error::io("find out where the snapshots are by", &private_path, cause))
        }
        _ => Ok(()),
    }
}
