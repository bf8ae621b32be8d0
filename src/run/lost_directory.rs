//! The error about a module's directory that is gone although its snapshots are there.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use crate::decide::snapshot_choice::newest_up_to;
use crate::module::target::Target;
use crate::run::restore_source::snapshot_names;
use crate::store::dir::c_name;
use crate::system::btrfs::is_subvolume;
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
    let root = fs::File::open(&target.root_path).ok()?;
    // Then the module was one, too: no other module gets such a snapshot.
    let create = match is_subvolume(root.as_fd(), &c_name(&newest.text)) {
        true => format!("btrfs subvolume create {shown} && "),
        false => String::new(),
    };
    Some(Error::LostDirectory {
        path: escape_path(path),
        root: escape_path(&target.root_path),
        remedy: format!(
            "is its disk mounted? If it was removed, make it as it was with `{create}install -d \
             -o {} -g {} -m {:04o} {shown}`, and `{PROGRAM} restore {} newest . --in-place` brings \
             its files back; until then `list`, `hold`, `pin`, `verify` and `restore --to` \
             work",
            was.uid(),
            was.gid(),
            was.mode() & 0o7777,
            target.argument()
        ),
    })
}
