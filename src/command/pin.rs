//! `pin`, `unpin` and `undelete`: commands for single snapshots.

use serde::Serialize;

use crate::command::named_snapshots::{
    ModuleAndSnapshots, RETIRED, SnapshotsOf, by_names, find_all, visible,
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
    let change = SnapshotChange {
        what: "snapshot",
        of: &visible,
        check: &|_, _| Ok(()),
        work: &|target, root, name| {
            let pin = Pin::new(Clock::System.now(), reason);
            pinning::pin(root, &target.policy.time_zone, name, pin)?;
            Ok(format!("{name} is pinned: it stays until `unpin`"))
        },
        outcome: "pinned",
    };
    change.carry_out(context, named, json)
}

/// Unpins snapshots.
///
/// # Errors
/// As [`pin()`].
pub(crate) fn unpin(context: &Context, named: ModuleAndSnapshots, json: bool) -> Result<Exit> {
    let pinned = |target: &Target, root: &SnapshotRoot| {
        Ok(by_names(State::read(root.private())?.pins.keys(), &target.policy.time_zone))
    };
    let change = SnapshotChange {
        what: "pinned snapshot",
        of: &pinned,
        check: &pinning::check_unpin,
        work: &|_, root, name| {
            pinning::unpin(root, name)?;
            let becomes = match pinning::is_visible(root, name)? {
                true => ": it stays as long as the policy keeps it",
                false => "; there is no such snapshot any more",
            };
            Ok(format!("{name} is no longer pinned{becomes}"))
        },
        outcome: "unpinned",
    };
    change.carry_out(context, named, json)
}

/// Brings retired snapshots back.
///
/// # Errors
/// As [`pin()`].
pub(crate) fn undelete(context: &Context, named: ModuleAndSnapshots, json: bool) -> Result<Exit> {
    let change = SnapshotChange {
        what: RETIRED,
        of: &retired,
        check: &retire::check_undelete,
        work: &|_, root, name| {
            retire::undelete(root, name, Clock::System.now())?;
            Ok(format!("{name} is back, and pinned: it stays until `unpin`"))
        },
        outcome: "undeleted",
    };
    change.carry_out(context, named, json)
}

/// The retired snapshots of a module.
///
/// # Errors
/// If they cannot be read.
pub(crate) fn retired(target: &Target, root: &SnapshotRoot) -> Result<Vec<SnapshotName>> {
    Ok(by_names(&retired_names(root)?, &target.policy.time_zone))
}

/// What is done to each of the named snapshots.
struct SnapshotChange<'a> {
    /// What the named ones are, for messages.
    what: &'a str,
    /// Those that can be named.
    of: SnapshotsOf<'a>,
    /// Makes sure that the work is possible. All snapshots are checked before the first is changed.
    check: &'a dyn Fn(&SnapshotRoot, &str) -> Result<()>,
    /// Does the work, and returns what it did, as text.
    work: &'a dyn Fn(&Target, &SnapshotRoot, &str) -> Result<String>,
    /// What becomes of a snapshot, for JSON.
    outcome: &'static str,
}

/// The JSON that docs describe.
#[derive(Serialize)]
struct SnapshotChangeView {
    module: Option<String>,
    snapshot_root: String,
    outcome: &'static str,
    snapshots: Vec<String>,
}

impl SnapshotChange<'_> {
    /// Finds all of the named snapshots, confines this process to their modules, checks them all,
    /// and changes one after the other.
    fn carry_out(self, context: &Context, named: ModuleAndSnapshots, json: bool) -> Result<Exit> {
        let found = find_all(context, named, self.what, self.of)?;
        confine::to(found.iter().map(|(target, _)| target), context.write_scope);
        for (target, name) in &found {
            (self.check)(&target.open_root()?, name)?;
        }
        let mut views: Vec<SnapshotChangeView> = Vec::new();
        let mut failure = None;
        for (target, name) in &found {
            match target.open_root().and_then(|root| (self.work)(target, &root, name)) {
                Ok(message) if !json => drop(print_done(context, target, &message)?),
                Ok(_) => {}
                // What was done before is told all the same.
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
            let snapshot_root = escape_path(&target.root_path);
            match views.iter_mut().find(|view| view.snapshot_root == snapshot_root) {
                Some(view) => view.snapshots.push(name.clone()),
                None => views.push(SnapshotChangeView {
                    module: target.name.as_deref().map(escape),
                    snapshot_root,
                    outcome: self.outcome,
                    snapshots: vec![name.clone()],
                }),
            }
        }
        if json && !views.is_empty() {
            print_json(views.len() == 1, &views)?;
        }
        failure.map_or(Ok(Exit::Done), Err)
    }
}
