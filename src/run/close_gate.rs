//! The approach to the module's tree: behind a closed gate, or not now.
//!
//! Who is running and whether the gate is closed are one step under the ledger's lock. A snapshot
//! that is put off is marked due before the lock is released, so the push that it is left to finds
//! the mark.

use crate::decide::transfer_reason::TransferReason;
use crate::decide::transfer_verdict::Owed;
use crate::decide::verdict::{has_waited, verdict};
use crate::decide::verdict_facts::{RunningPushes, VerdictFacts, VerdictStage};
use crate::module::target::Target;
use crate::run::facts::facts;
use crate::run::reap::reap;
use crate::run::request::Request;
use crate::store::gate::Gate;
use crate::store::ledger::LedgerLine;
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, State};
use crate::system::clock::Clock;
use crate::tell::error::Result;

/// How a run comes to the tree.
pub(crate) enum GateOutcome {
    /// No push begins from now on.
    Closed {
        /// Until this is dropped.
        gate: Gate,
        /// The pushes that are running all the same.
        running: RunningPushes,
    },
    /// A push is running, and its hook takes the snapshot.
    Deferred,
}

/// Closes the gate, unless the snapshot can be left to a push that is still running.
pub(crate) fn close_gate_or_defer(
    target: &Target,
    root: &SnapshotRoot,
    request: &Request,
    clock: &Clock,
) -> Result<GateOutcome> {
    let ledger = target.open_ledger(root)?;
    reap(target, root, &ledger, clock)?;
    let lines: Vec<LedgerLine> =
        ledger.lines()?.into_iter().filter(LedgerLine::is_running_push).collect();
    let state = State::read(root.private())?;
    let running = running(target, &lines);
    let facts = VerdictFacts {
        running,
        has_waited: has_waited(state.deferred_since, clock.now(), target.policy.max_defer.delta()),
        ..facts(target, root, request, &state, VerdictStage::Approach)
    };
    let verdict = verdict(&facts);
    if !matches!(verdict.because, TransferReason::LeftToPushes { .. }) {
        return Ok(GateOutcome::Closed { gate: Gate::close(root, &ledger)?, running });
    }
    tell(target, &lines);
    if let Owed::Marked { reason, asked } = verdict.owed {
        State::update(root.private(), |state| {
            state.due = Some(DueMark::on_top_of(state.due.as_ref(), asked, reason, clock.now()));
            state.deferred_since.get_or_insert(clock.now());
        })?;
    }
    Ok(GateOutcome::Deferred)
}

fn running(target: &Target, lines: &[LedgerLine]) -> RunningPushes {
    let rewriting =
        lines.iter().filter_map(|line| line.entry.as_ref()).flat_map(|entry| &entry.rewriting);
    // What the policy lets through rewrites snapshots in any case.
    let in_place =
        rewriting.into_iter().any(|option| !target.policy.allow_options.contains(option));
    RunningPushes { count: lines.len(), in_place }
}

fn tell(target: &Target, running: &[LedgerLine]) {
    let whose: Vec<String> = running.iter().map(LedgerLine::who).collect();
    log::info!(
        "{}: left to the last push that is still running, of {}",
        target.label(),
        whose.join(", ")
    );
}
