//! Notes under the root's lock which snapshots [vanished](crate::decide::vanished), before the run
//! changes anything in the root. The log tells it once. `check`, `list` and `verify` look at the
//! root themselves, and tell it until the administrator accepts it.

use crate::decide::vanished::VanishedSnapshot;
use crate::run::session::Session;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::{self, SnapshotList};
use crate::store::state::State;
use crate::store::vanished::{self, RootContent};
use crate::system::clock::Clock;
use crate::tell::error::Result;
use crate::tell::escape::{escape, shell_word};

/// Notes the snapshots that vanished since the last run, and returns the message about them.
pub(crate) fn note(content: RootContent, session: Session) -> Result<Option<String>> {
    let fresh = vanished::note(content, session.clock.now())?;
    Ok(content.message(&fresh))
}

/// [`note`] for work that has not read the root itself. Also records the snapshots that have none,
/// such as one that was moved away and back: without a record, nothing would tell that it vanished
/// once more.
pub(crate) fn read_and_note(session: Session) -> Result<Option<String>> {
    let Session { target, root, .. } = session;
    let state = State::read(root.private())?;
    let retired = retire::retired(root)?;
    let list = SnapshotList::read(root, &target.policy.time_zone)?;
    let message =
        note(RootContent { root, state: &state, list: &list, retired: &retired }, session)?;
    snapshots::adopt(root, &list)?;
    Ok(message)
}

/// Logs what was noted. It is not remembered as a warning of the run, because `check` looks at the
/// root itself.
pub(crate) fn tell(session: Session, message: Option<String>) {
    if let Some(message) = message {
        log::warn!("{}: {message}", session.label());
    }
}

/// The snapshots that vanished and whose absence the administrator has not accepted, with the
/// message about them.
#[derive(Debug, Default)]
pub(crate) struct UnacceptedSnapshots {
    pub snapshots: Vec<VanishedSnapshot>,
    /// `None` if there are none.
    pub message: Option<String>,
    /// The names of other pins without a snapshot: it was accepted that these have vanished, or
    /// they were removed before they were pinned.
    pub other_pins: Vec<String>,
}

impl UnacceptedSnapshots {
    pub(crate) fn of(content: RootContent, gone: &[VanishedSnapshot]) -> Self {
        let (snapshots, message) = (content.unaccepted(gone), content.message(gone));
        let is_told = |name: &String| snapshots.iter().any(|one| one.name == *name);
        let is_other = |name: &&String| !content.has(name) && !is_told(name);
        let other_pins = content.state.pins.keys().filter(is_other).cloned().collect();
        UnacceptedSnapshots { snapshots, message, other_pins }
    }

    /// A line for each of the other pins.
    pub(crate) fn pin_lines(&self) -> impl Iterator<Item = String> {
        self.other_pins.iter().map(|name| {
            let (shown, word) = (escape(name.as_bytes()), shell_word(name.as_bytes()));
            format!("{shown} is pinned, but there is no such snapshot: `unpin {word}` ends the pin")
        })
    }
}

/// Looks which snapshots vanished. Changes nothing.
pub(crate) fn look_at(
    root: &SnapshotRoot,
    state: &State,
    list: &SnapshotList,
) -> Result<UnacceptedSnapshots> {
    let retired = retired_names(root)?;
    let content = RootContent { root, state, list, retired: &retired };
    let gone = vanished::look(content, Clock::System.now())?;
    Ok(UnacceptedSnapshots::of(content, &gone))
}

/// The names of the retired snapshots; none if the root is not registered.
pub(crate) fn retired_names(root: &SnapshotRoot) -> Result<Vec<String>> {
    if root.is_registered() { retire::retired(root) } else { Ok(Vec::new()) }
}
