//! Closes the gate before the live tree is read, or leaves the snapshot to a running push.
//!
//! One step under the ledger's lock finds the running pushes and closes the gate, so no push begins
//! in between. If the snapshot is deferred, the root is marked due before that lock is released. So
//! the hook of the running push finds the mark.

use crate::decide::transfer_decision::{has_waited, verdict};
use crate::decide::transfer_reason::TransferReason;
use crate::decide::transfer_verdict::DueMarkChange;
use crate::decide::verdict_facts::{RunningPushes, VerdictFacts, VerdictStage};
use crate::run::dead_transfers::reap;
use crate::run::request::Request;
use crate::run::session::Session;
use crate::run::verdict_facts::facts;
use crate::store::gate::Gate;
use crate::store::ledger_entry::StoredEntry;
use crate::store::one_gateway;
use crate::store::state::{DueMark, State};
use crate::tell::error::Result;

pub(crate) enum GateOutcome {
    /// No push begins from now on.
    Closed {
        /// The gate stays closed until this value is dropped.
        gate: Gate,
        /// The pushes that were running before, and still are.
        running: RunningPushes,
    },
    /// A push is running, and its hook takes the snapshot.
    Deferred,
}

/// Closes the gate, unless the snapshot can be left to a push that is still running.
pub(crate) fn close_gate_or_defer(session: Session, request: &Request) -> Result<GateOutcome> {
    let Session { target, root, clock } = session;
    let ledger = target.open_ledger(root)?;
    reap(session, &ledger)?;
    let entries = ledger.entries()?;
    one_gateway::check(root, &entries)?;
    let entries: Vec<StoredEntry> =
        entries.into_iter().filter(StoredEntry::is_running_push).collect();
    let state = State::read(root.private())?;
    let running = running(session, &entries);
    let facts = VerdictFacts {
        running,
        has_waited: has_waited(state.deferred_since, clock.now(), target.policy.max_defer.delta()),
        ..facts(session, request, &state, VerdictStage::BeforeComparison)
    };
    let verdict = verdict(&facts);
    if !matches!(verdict.because, TransferReason::LeftToPushes { .. }) {
        return Ok(GateOutcome::Closed { gate: Gate::close(root, &ledger)?, running });
    }
    let clients: Vec<String> = entries.iter().map(StoredEntry::who).collect();
    log::info!(
        "{}: no snapshot yet: it is left to the last push that is still running, of {}",
        target.label(),
        clients.join(", ")
    );
    if let DueMarkChange::Set { reason, asked } = verdict.due_mark {
        State::update(root.private(), |state| {
            state.due = Some(DueMark::merged_with(state.due.as_ref(), asked, reason, clock.now()));
            state.deferred_since.get_or_insert(clock.now());
            request.note_push(state, &target.policy);
        })?;
    }
    Ok(GateOutcome::Deferred)
}

fn running(session: Session, entries: &[StoredEntry]) -> RunningPushes {
    let Session { target, root, .. } = session;
    let rewriting = entries
        .iter()
        .filter_map(|stored| stored.entry.as_ref())
        .flat_map(|entry| &entry.rewriting);
    // Options in `allow_options` do not count here: with them a push may rewrite any snapshot,
    // whether or not a run takes one now.
    let mut in_place =
        rewriting.into_iter().any(|option| !target.policy.allow_options.contains(option));
    // A subvolume shares no file with its snapshots.
    in_place &= !root.method().is_instant();
    RunningPushes { count: entries.len(), in_place }
}
