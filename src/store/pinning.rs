//! Setting and taking off pins.

use nix::errno::Errno;

use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;
use crate::store::dir::{self, c_name};
use crate::store::layout::{STATE_FILE, Subdir};
use crate::store::lock::DirLock;
use crate::store::pin::Pin;
use crate::store::record::Record;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::store::state_file::exists;
use crate::system::syscalls::{is_gone, open_directory};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;

/// Pins the visible snapshot `name`; `zone` is where names without a zone belong. If it is pinned
/// already, the new pin replaces the old one.
///
/// # Errors
/// [`Error::Snapshot`] if there is no such snapshot.
pub(crate) fn pin(root: &SnapshotRoot, zone: &Zone, name: &str, pin: Pin) -> Result<()> {
    let guard = DirLock::on_directory(root.private())?;
    if !is_visible(root, name)? {
        return Err(Error::Snapshot {
            root: root.label(),
            problem: format!("no snapshot {}", escape(name.as_bytes())),
            remedy: "`list` shows those that there are, `list --expired` those that `undelete` \
                     brings back",
        });
    }
    let insert = |state: &mut State| state.pins.insert(name.to_string(), pin);
    State::update_guarded(root.private(), &guard, insert)?;
    // Only now: a record without a state would mean that the state was lost.
    record_adopted(root, zone, name)
}

/// Records the visible snapshot `name` if it has no record: `hold` does so for what it holds. Does
/// nothing if the snapshot has gone.
///
/// # Errors
/// If the record cannot be written.
pub(crate) fn record_visible(root: &SnapshotRoot, zone: &Zone, name: &str) -> Result<()> {
    let _guard = DirLock::on_directory(root.private())?;
    // A record without a state would mean that the state was lost.
    if !exists(root.private(), STATE_FILE)? || !is_visible(root, name)? {
        return Ok(());
    }
    record_adopted(root, zone, name)
}

/// Records the visible snapshot `name` as one of another program if it has no record, such as one
/// that was moved away and back: without a record, nothing would tell that it vanished. The caller
/// has seen the snapshot under the state's short lock, and still holds that. So no run retires the
/// snapshot meanwhile, and the record is never one without a tree.
fn record_adopted(root: &SnapshotRoot, zone: &Zone, name: &str) -> Result<()> {
    let Some(parsed) = SnapshotName::parse(name.as_bytes(), zone) else { return Ok(()) };
    // On a network file system, a record may be there though it cannot be read yet.
    if !root.is_registered() || root.may_list_late() {
        return Ok(());
    }
    let records = root.subdir(Subdir::Records)?;
    match Record::read(records.dir(), name) {
        Ok(None) => {}
        // A damaged one is left as it is.
        Ok(Some(_)) | Err(Error::Damaged { .. }) => return Ok(()),
        Err(error) => return Err(error),
    }
    Record::adopted(parsed.time, parsed.grade).write_before_sync(records.dir(), name)?;
    dir::sync(records.dir())
}

/// Removes the pin of `name`, whether or not that snapshot still exists. The snapshot before a
/// large change stays pinned until the pause of the large-change guard is released: all messages
/// about that pause name it as the one to restore from.
///
/// # Errors
/// [`Error::Snapshot`] if it is not pinned, or the large-change guard needs the pin.
pub(crate) fn unpin(root: &SnapshotRoot, name: &str) -> Result<()> {
    let guard = DirLock::on_directory(root.private())?;
    check_unpin(root, name)?;
    State::update_guarded(root.private(), &guard, |state| state.pins.remove(name)).map(drop)
}

/// Makes sure that [`unpin`] can remove the pin.
///
/// # Errors
/// As [`unpin`].
pub(crate) fn check_unpin(root: &SnapshotRoot, name: &str) -> Result<()> {
    let state = State::read(root.private())?;
    let is_pinned = state.pins.contains_key(name);
    let is_guarded = state.anomaly.is_some_and(|anomaly| anomaly.before == name);
    if is_guarded && is_pinned {
        return Err(Error::Snapshot {
            root: root.label(),
            problem: format!(
                "{} stays pinned, as the last one before a push that changed most of the tree",
                escape(name.as_bytes())
            ),
            remedy: "look at both, then run `release`, which removes that pin",
        });
    }
    is_pinned.then_some(()).ok_or_else(|| Error::Snapshot {
        root: root.label(),
        problem: format!("{} is not pinned", escape(name.as_bytes())),
        remedy: "`list` shows the pins",
    })
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
    match open_directory(root.snapshots().directory, &c_name(name)) {
        Ok(_) => Ok(true),
        Err(cause) if is_gone(cause) || cause == Errno::EXDEV => Ok(false),
        Err(cause) => Err(Error::io("look for", &root.visible(name).path(), cause)),
    }
}
