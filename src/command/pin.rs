//! `pin`, `unpin` and `undelete`: commands for single snapshots.

use serde::Serialize;

use crate::command::named_snapshots::{
    ModuleAndSnapshots, SnapshotsOf, by_names, find_all, visible,
};
use crate::command::{print_done, print_json};
use crate::decide::name::SnapshotName;
use crate::module::confine;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::vanished::retired_names;
use crate::store::pin::Pin;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::store::{pinning, retire};
use crate::system::clock::Clock;
use crate::tell::error::Result;
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;

/// Pins snapshots.
///
/// # Errors
/// [`Error::Usage`](crate::tell::error::Error::Usage) if no module has one of them, or several have
/// it; then nothing is pinned.
pub(crate) fn pin(
    context: &Context,
    named: ModuleAndSnapshots,
    reason: &str,
    json: bool,
) -> Result<Exit> {
    let what = Change { of: "snapshot", word: "pinned", json };
    change(context, named, what, &visible, |target, root, name| {
        let pin = Pin::new(Clock::System.now(), reason);
        pinning::pin(root, &target.policy.time_zone, name, pin)?;
        Ok(format!("{name} is pinned: it stays until `unpin`"))
    })
}

/// Unpins snapshots.
///
/// # Errors
/// As [`pin()`].
pub(crate) fn unpin(context: &Context, named: ModuleAndSnapshots, json: bool) -> Result<Exit> {
    let pinned = |target: &Target, root: &SnapshotRoot| {
        Ok(by_names(State::read(root.private())?.pins.keys(), &target.policy.time_zone))
    };
    let what = Change { of: "pinned snapshot", word: "unpinned", json };
    change(context, named, what, &pinned, |_, root, name| {
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
pub(crate) fn undelete(context: &Context, named: ModuleAndSnapshots, json: bool) -> Result<Exit> {
    let what = Change { of: "retired snapshot", word: "undeleted", json };
    change(context, named, what, &retired, |_, root, name| {
        retire::undelete(root, name, Clock::System.now())?;
        Ok(format!("{name} is back, and pinned: it stays until `unpin`"))
    })
}

/// The retired snapshots of a module.
///
/// # Errors
/// If they cannot be read.
pub(crate) fn retired(target: &Target, root: &SnapshotRoot) -> Result<Vec<SnapshotName>> {
    Ok(by_names(&retired_names(root)?, &target.policy.time_zone))
}

/// What is done to snapshots, and how it is told.
struct Change {
    /// What is looked for, for messages.
    of: &'static str,
    /// What becomes of it, for JSON.
    word: &'static str,
    json: bool,
}

/// The JSON that docs describe.
#[derive(Serialize)]
struct ChangeView {
    module: Option<String>,
    snapshot_root: String,
    outcome: &'static str,
    snapshots: Vec<String>,
}

/// Finds all of the named snapshots among those that `of` tells, confines this process to their
/// modules, and changes one after the other. `work` returns what it did, as text.
fn change(
    context: &Context,
    named: ModuleAndSnapshots,
    what: Change,
    of: SnapshotsOf,
    work: impl Fn(&Target, &SnapshotRoot, &str) -> Result<String>,
) -> Result<Exit> {
    let found = find_all(context, named, what.of, of)?;
    confine::to(found.iter().map(|(target, _)| target), context.write_scope);
    let mut views: Vec<ChangeView> = Vec::new();
    for (target, name) in &found {
        let message = work(target, &target.open_root()?, name)?;
        if !what.json {
            print_done(context, target, &message)?;
        }
        let snapshot_root = escape_path(&target.root_path);
        match views.iter_mut().find(|view| view.snapshot_root == snapshot_root) {
            Some(view) => view.snapshots.push(name.clone()),
            None => views.push(ChangeView {
                module: target.name.as_deref().map(escape),
                snapshot_root,
                outcome: what.word,
                snapshots: vec![name.clone()],
            }),
        }
    }
    if what.json {
        print_json(views.len() == 1, &views)?;
    }
    Ok(Exit::Done)
}
