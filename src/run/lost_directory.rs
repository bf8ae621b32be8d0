//! The error about a module's directory that is gone although its snapshots are there.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::decide::snapshot_choice::newest_up_to;
use crate::module::target::Target;
use crate::run::restore_source::snapshot_names;
use crate::tell::PROGRAM;
use crate::tell::error::Error;
use crate::tell::escape::{escape_path, shell_path};

/// The error for a command that needs the module's directory; `None` if the directory exists, or no
/// snapshot of it does. The error says how to make it, with the owner and mode of the newest
/// complete snapshot, or of the newest one if none is complete.
pub(crate) fn lost_directory_error(target: &Target) -> Option<Error> {
    let path = &target.module_path;
    if path.symlink_metadata().is_ok() {
        return None;
    }
    let names = snapshot_names(&target.root_path, &target.policy.time_zone).ok()?;
    let complete = newest_up_to(&names, chrono::DateTime::<chrono::Utc>::MAX_UTC);
    let newest = complete.or_else(|| names.last())?;
    let was = fs::symlink_metadata(target.root_path.join(&newest.text)).ok()?;
    let shown = shell_path(path);
    Some(Error::LostDirectory {
        path: escape_path(path),
        root: escape_path(&target.root_path),
        remedy: format!(
            "is its disk mounted? If it was removed, make it as it was with `install -d -o {} \
             -g {} -m {:04o} {shown}`, and `{PROGRAM} restore {} newest . --in-place` brings \
             its files back; until then `list`, `hold`, `pin`, `verify` and `restore --to` \
             work",
            was.uid(),
            was.gid(),
            was.mode() & 0o7777,
            target.argument()
        ),
    })
}
