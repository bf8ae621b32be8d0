//! The approach to the module's tree: behind a closed gate, or not now.
//!
//! Who is running and whether the gate is closed are one step under the ledger's lock. A snapshot that is put off
//! is marked due before the lock is released, so the push that it is left to finds the mark.

use super::Request;
use super::reap::reap;
use crate::clock::Clock;
use crate::config::target::Target;
use crate::decide::overlap::{Course, Running, course};
use crate::store::gate::Gate;
use crate::store::ledger::Line;
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueReason, State};
use crate::tell::error::Result;

/// How a run comes to the tree.
pub(super) enum Approach {
    /// No push begins from now on.
    Closed {
        /// Until this is dropped.
        gate: Gate,
        /// So many are running all the same.
        beside: usize,
    },
    /// A push is running, and its hook takes the snapshot.
    Deferred,
}

/// Closes the gate, unless the snapshot can be left to a push that is still running.
pub(super) fn approach(
    target: &Target,
    root: &SnapshotRoot,
    request: &Request,
    clock: &Clock,
) -> Result<Approach> {
    let ledger = target.open_ledger(root)?;
    reap(target, root, &ledger, clock)?;
    let lines: Vec<Line> = ledger.lines()?.into_iter().filter(Line::is_running_push).collect();
    let since = State::read(root.private())?.deferred_since;
    match course(running(target, &lines), request.patience(since), clock.now(), target.policy.max_defer) {
        Course::Defer => {
            tell(target, &lines);
            defer(root, request, clock)?;
            Ok(Approach::Deferred)
        }
        Course::Alone | Course::Beside => {
            Ok(Approach::Closed { gate: Gate::close(root, &ledger)?, beside: lines.len() })
        }
    }
}

fn running(target: &Target, lines: &[Line]) -> Running {
    let rewriting = lines.iter().filter_map(|line| line.entry.as_ref()).flat_map(|entry| &entry.rewriting);
    // What the policy lets through rewrites snapshots in any case.
    let is_rewriting = rewriting.into_iter().any(|option| !target.policy.allow_options.contains(option));
    Running { count: lines.len(), is_rewriting }
}

fn defer(root: &SnapshotRoot, request: &Request, clock: &Clock) -> Result<()> {
    State::update(root.private(), |state| {
        if let Some(mark) = request.due_mark(DueReason::Deferred, clock.now(), state.due.as_ref()) {
            state.due = Some(mark);
            state.deferred_since.get_or_insert(clock.now());
        }
    })
    .map(drop)
}

fn tell(target: &Target, running: &[Line]) {
    let whose: Vec<String> = running.iter().map(Line::who).collect();
    log::info!("{}: left to the last push that is still running, of {}", target.label(), whose.join(", "));
}
