//! Pins: snapshots that rotation must not touch, by a person's word or because the anomaly brake did it.
//!
//! A pin is set under the state's short lock, and a snapshot is retired under the same lock after
//! a look at the pins ([`retire`](super::retire)). So a snapshot that `pin` found is there to stay.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::durable::c_name;
use super::lock::Guard;
use super::root::SnapshotRoot;
use super::state::State;
use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{deserialize_line, escape};
use crate::tree::syscalls::open_directory;

/// Why a snapshot stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// When it was pinned.
    pub since: DateTime<Utc>,
    /// Why, escaped; may be empty.
    #[serde(default, deserialize_with = "deserialize_line")]
    pub reason: String,
}

impl Pin {
    /// A pin for a reason that anybody may have written.
    pub fn new(since: DateTime<Utc>, reason: &str) -> Self {
        Pin { since, reason: escape(reason.as_bytes()) }
    }
}

/// The pins of a root, by the names of the snapshots.
pub type Pins = BTreeMap<String, Pin>;

/// Pins the visible snapshot `name`; a pin that it has already gets the new reason.
///
/// # Errors
/// [`Error::Usage`] if there is no such snapshot.
pub fn pin(root: &SnapshotRoot, name: &str, pin: Pin) -> Result<()> {
    let guard = Guard::on_directory(root.private())?;
    if !is_visible(root, name) {
        return Err(Error::Usage(format!(
            "{}: no snapshot {}; `list` shows those that there are, `list --expired` those that `undelete` brings back",
            root.label(),
            escape(name.as_bytes())
        )));
    }
    State::update_guarded(root.private(), &guard, |state| state.pins.insert(name.to_string(), pin)).map(drop)
}

/// Takes the pin from `name`, be the snapshot there or not.
///
/// # Errors
/// [`Error::Usage`] if it is not pinned.
pub fn unpin(root: &SnapshotRoot, name: &str) -> Result<()> {
    let guard = Guard::on_directory(root.private())?;
    let (_, pin) = State::update_guarded(root.private(), &guard, |state| state.pins.remove(name))?;
    let missing = || {
        let name = escape(name.as_bytes());
        Error::Usage(format!("{}: {name} is not pinned; `list` shows what is", root.label()))
    };
    pin.map(drop).ok_or_else(missing)
}

/// Whether `name` is a snapshot's name, and the root has a directory of that name that is not the module.
pub fn is_visible(root: &SnapshotRoot, name: &str) -> bool {
    let is_module = root.module_path.file_name().is_some_and(|module| module == name);
    SnapshotName::parse(name.as_bytes(), &Zone::utc()).is_some()
        && !(is_module && root.module_path.parent() == Some(&root.path))
        && open_directory(root.directory(), &c_name(name)).is_ok()
}
