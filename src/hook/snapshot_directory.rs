//! Turns a push away that names the directory of snapshots of CephFS.

use std::path::Path;

use crate::decide::file_system::FileSystemType;
use crate::decide::refusal::snapshot_directory_refusal;
use crate::hook::transfer_request::TransferRequest;
use crate::system::mounts::Mounts;

/// The sentence for a client whose push names snapshots that CephFS shows in its module; `None` if
/// it names none, or the module lies on another file system.
pub(crate) fn refused_for_snapshots(
    module_path: &Path,
    request: &TransferRequest,
) -> Option<String> {
    let why = snapshot_directory_refusal(&request.arguments, &request.path)?;
    // Only such a push pays for the look at the mounts.
    let path = std::fs::canonicalize(module_path).unwrap_or_else(|_| module_path.to_path_buf());
    let mounts = Mounts::read();
    let kind = mounts.as_ref().and_then(|mounts| mounts.kind_of(&path));
    // Without a list of mounts it may be CephFS.
    kind.is_none_or(FileSystemType::is_ceph).then_some(why)
}
