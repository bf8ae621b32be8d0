//! Setting and taking off pins.

use nix::errno::Errno;

use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;
use crate::store::dir::c_name;
use crate::store::lock::DirLock;
use crate::store::pin::Pin;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::system::syscalls::{is_gone, open_directory};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;

/// Pins the visible snapshot `name`. If it is pinned already, the new pin replaces the old one.
///
/// # Errors
/// [`Error::Snapshot`] if there is no such snapshot.
pub(crate) fn pin(root: &SnapshotRoot, name: &str, pin: Pin) -> Result<()> {
    let guard = DirLock::on_directory(root.private())?;
    if !is_visible(root, name)? {
        return Err(Error::Snapshot {
            root: root.label(),
            problem: format!("no snapshot {}", escape(name.as_bytes())),
            remedy: "`list` shows those that there are, `list --expired` those that `undelete` \
                     brings back",
        });
    }
    State::update_guarded(root.private(), &guard, |state| state.pins.insert(name.to_string(), pin))
        .map(drop)
}

/// Removes the pin of `name`, whether or not that snapshot still exists.
///
/// # Errors
/// [`Error::Snapshot`] if it is not pinned.
pub(crate) fn unpin(root: &SnapshotRoot, name: &str) -> Result<()> {
    let guard = DirLock::on_directory(root.private())?;
    let (_, pin) = State::update_guarded(root.private(), &guard, |state| state.pins.remove(name))?;
    let missing = || Error::Snapshot {
        root: root.label(),
        problem: format!("{} is not pinned", escape(name.as_bytes())),
        remedy: "`list` shows the pins",
    };
    pin.map(drop).ok_or_else(missing)
}

/// Whether `name` is a snapshot's name, and the root has a directory of that name that is not the
/// module.
///
/// # Errors
/// If that cannot be found out.
pub(crate) fn is_visible(root: &SnapshotRoot, name: &str) -> Result<bool> {
    let is_module = root.module_path.file_name().is_some_and(|module| module == name);
    let is_name = SnapshotName::parse(name.as_bytes(), &Zone::utc()).is_some();
    if !is_name || is_module && root.module_path.parent() == Some(&root.path) {
        return Ok(false);
    }
    match open_directory(root.directory(), &c_name(name)) {
        Ok(_) => Ok(true),
        Err(cause) if is_gone(cause) || cause == Errno::EXDEV => Ok(false),
        Err(cause) => Err(Error::io("look for", &root.path.join(name), cause)),
    }
}
