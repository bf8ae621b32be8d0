//! Whether a module's snapshots are where they were before, and what to say if not.

use std::os::unix::ffi::OsStrExt;

use crate::decide::name::SnapshotName;
use crate::decide::root_overlap::Opener;
use crate::module::target::Target;
use crate::run::request::Request;
use crate::store::layout::PRIVATE;
use crate::store::root::SnapshotRoot;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// Why the root cannot be this module's, if it is registered for another one.
pub(crate) fn refusal_of_root(target: &Target) -> Option<Error> {
    let is_taken = matches!(SnapshotRoot::registration(&target.root_path), Ok(Some(_)));
    target.look_at_root().and_then(|root| root.check_method()).err().filter(|_| is_taken)
}

/// The warning of a run that begins a new history where an earlier one is missing. None for
/// `snapshot MODULE`: by naming the module, the administrator says that a new history is meant.
/// After a push the warning is needed, because the earlier history may lie on a disk that is not
/// mounted.
pub(crate) fn begins_anew(target: &Target, request: &Request) -> Option<String> {
    let root = escape_path(&target.root_path);
    if holds_snapshots(target) {
        return Some(format!(
            "{root}/{PRIVATE} is gone, and with it all that was known of the snapshots there, pins \
             and marks of failed pushes among it; nothing expires until `rotate --confirm`"
        ));
    }
    if request.opener() == Opener::Snapshot {
        log::info!("{}: the earlier history in {root} is gone; a new one begins", target.label());
        return None;
    }
    Some(format!(
        "the earlier history in {root} is gone, and this push began a new one; if a disk is not \
         mounted there, move away what is there now and mount it"
    ))
}

/// Whether there are snapshots in the root, whatever is known of them.
pub(crate) fn holds_snapshots(target: &Target) -> bool {
    let path = SnapshotRoot::snapshots_path(&target.root_path);
    let path = path.unwrap_or_else(|_| target.root_path.clone());
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let is_snapshot = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        SnapshotName::parse(name.as_bytes(), &target.policy.time_zone).is_some()
    };
    entries.into_iter().any(is_snapshot)
}

/// The warning of a run whose module had its snapshots in another root before.
pub(crate) fn moved_root(target: &Target) -> Option<String> {
    let now = escape_path(&target.root_path);
    let before = target.memory.recall(&target.module_path)?.snapshot_root?;
    (before != now).then(|| {
        format!("snapshots are made in {now} from now on; those in {before} are no longer rotated")
    })
}
