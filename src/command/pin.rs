//! `pin`, `unpin` and `undelete`: commands for single snapshots.

use crate::command::named_snapshots::{ModuleAndSnapshots, find_all};
use crate::command::print_done;
use crate::module::confine;
use crate::module::context::Context;
use crate::store::pin::Pin;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::store::{pinning, retire};
use crate::system::clock::Clock;
use crate::tell::error::Result;
use crate::tell::exit::Exit;

/// Pins snapshots.
///
/// # Errors
/// [`Error::Usage`](crate::tell::error::Error::Usage) if no module has one of them, or several have
/// it; then nothing is pinned.
pub(crate) fn pin(context: &Context, named: ModuleAndSnapshots, reason: &str) -> Result<Exit> {
    change(context, named, "snapshot", pinning::is_visible, |root, name| {
        pinning::pin(root, name, Pin::new(Clock::System.now(), reason))?;
        Ok(format!("{name} is pinned: it stays until `unpin`"))
    })
}

/// Unpins snapshots.
///
/// # Errors
/// As [`pin()`].
pub(crate) fn unpin(context: &Context, named: ModuleAndSnapshots) -> Result<Exit> {
    let is_pinned =
        |root: &SnapshotRoot, name: &str| Ok(State::read(root.private())?.pins.contains_key(name));
    change(context, named, "pinned snapshot", is_pinned, |root, name| {
        pinning::unpin(root, name)?;
        Ok(match pinning::is_visible(root, name)? {
            true => format!("{name} is no longer pinned: it stays as long as the policy keeps it"),
            false => format!("{name} is no longer pinned; there is no such snapshot any more"),
        })
    })
}

/// Brings retired snapshots back.
///
/// # Errors
/// As [`pin()`].
pub(crate) fn undelete(context: &Context, named: ModuleAndSnapshots) -> Result<Exit> {
    let is_retired = |root: &SnapshotRoot, name: &str| {
        Ok(root.is_registered() && retire::retired(root)?.iter().any(|retired| retired == name))
    };
    change(context, named, "retired snapshot", is_retired, |root, name| {
        retire::undelete(root, name, Clock::System.now())?;
        Ok(format!("{name} is back, and pinned: it stays until `unpin`"))
    })
}

/// Finds all of the named snapshots that `has` accepts, confines this process to their modules, and
/// changes one after the other. `work` returns what it did, as text.
fn change(
    context: &Context,
    named: ModuleAndSnapshots,
    what: &str,
    has: impl Fn(&SnapshotRoot, &str) -> Result<bool>,
    work: impl Fn(&SnapshotRoot, &str) -> Result<String>,
) -> Result<Exit> {
    let found = find_all(context, named, what, has)?;
    confine::to(found.iter().map(|(target, _)| target), context.write_scope);
    for (target, name) in &found {
        let message = work(&target.open_root()?, name)?;
        print_done(context, target, &message)?;
    }
    Ok(Exit::Done)
}
