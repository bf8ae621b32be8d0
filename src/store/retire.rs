//! From a visible snapshot to nothing.
//!
//! Order: rename all that go into `expired/` → fsync of the root → fsync of `expired/` → only then remove,
//! entry by entry. After the rename a snapshot is out of sight as a whole, so no half tree is
//! ever visible, and until its removal it could be brought back. A run that is killed while removing
//! leaves trees in `expired/`, which the next run removes.
//!
//! The newest one stays there: the next snapshot is made out of it ([`publish`](super::publish)), which
//! costs a fraction of removing this one and making that one. A transfer that fails may lack its
//! space, and an administrator who rotates by hand may want it: then nothing stays.

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat};
use nix::unistd::fsync;

use super::catalog::names_in;
use super::durable::{Place, c_name};
use super::publish::forget;
use super::root::SnapshotRoot;
use crate::tell::error::{Error, Result};
use crate::tree::remove::remove_tree;
use crate::tree::syscalls::{Answer, is_privileged, rename_no_replace};

/// Takes the snapshots `names` out of sight, durably; returns the errors of those that stay.
pub fn retire(root: &SnapshotRoot, names: &[String]) -> Result<Vec<Error>> {
    let expired = root.room("expired")?;
    let mut errors = Vec::new();
    for name in names {
        if let Err(cause) = move_to_expired(root, expired.place(), name) {
            errors.push(Error::io("retire", &root.path.join(name), cause));
        }
    }
    if errors.len() < names.len() {
        fsync(root.directory()).map_err(|cause| Error::io("sync", &root.path, cause))?;
        let place = expired.place();
        fsync(place.directory).map_err(|cause| Error::io("sync", place.path, cause))?;
    }
    Ok(errors)
}

fn move_to_expired(root: &SnapshotRoot, expired: Place, name: &str) -> Answer<()> {
    let name = c_name(name);
    match rename_no_replace(root.directory(), &name, expired.directory, &name) {
        // A directory that its owner may not write cannot change its parent.
        Err(Errno::EACCES) if !is_privileged() => {
            let stat = fstatat(root.directory(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let writable = Mode::from_bits_truncate(stat.st_mode & 0o7777) | Mode::S_IWUSR;
            fchmodat(root.directory(), name.as_c_str(), writable, FchmodatFlags::FollowSymlink)?;
            rename_no_replace(root.directory(), &name, expired.directory, &name)
        }
        answer => answer,
    }
}

/// The names of the retired snapshots that are still there.
pub fn retired(root: &SnapshotRoot) -> Result<Vec<String>> {
    names_in(root.room("expired")?.place())
}

/// The retired snapshot that the next one is made from: the newest, which has most in common with it.
pub fn recyclable(root: &SnapshotRoot) -> Result<Option<String>> {
    Ok(if is_privileged() { retired(root)?.into_iter().max() } else { None })
}

/// Removes what is retired, but for `keep`; returns how many trees and entries went, and the errors.
pub fn remove_retired(root: &SnapshotRoot, keep: Option<&str>) -> Result<Removed> {
    let expired = root.room("expired")?;
    let mut removed = Removed::default();
    for name in names_in(expired.place())?.into_iter().filter(|name| Some(name.as_str()) != keep) {
        let Place { directory, path } = expired.place();
        match remove_tree(directory, path, &c_name(&name)) {
            Ok(entries) => {
                removed.trees += 1;
                removed.entries += entries;
                forget(root, &name)?;
            }
            Err(error) => removed.errors.push(error),
        }
    }
    Ok(removed)
}

/// What [`remove_retired`] did.
#[derive(Debug, Default)]
pub struct Removed {
    /// Whole snapshots.
    pub trees: usize,
    /// Files and directories in them.
    pub entries: u64,
    /// One for each snapshot of which something could not be removed.
    pub errors: Vec<Error>,
}
