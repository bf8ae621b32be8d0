//! `rotate`: a rotation that an administrator asks for.

use crate::decide::clock_reading::ClockReading;
use crate::decide::guards::rules;
use crate::module::target::Target;
use crate::run::disposal::{Disposal, RotationReport};
use crate::run::request::Request;
use crate::run::rotate::{ExaminedRoot, examine, rotate_locked};
use crate::run::run_lock::{ReleaseOutcome, RunLock};
use crate::store::memory::{RunFailure, RunKind};
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};

/// Rotates by hand. With `confirm`, a person vouches for the clock and the policy: pauses end
/// first.
///
/// # Errors
/// [`Error::Policy`] if the policy cannot be used: then nothing expires.
pub(crate) fn rotate(
    target: &Target,
    confirm: bool,
    disposal: Disposal,
    clock: &Clock,
) -> Result<RotationReport> {
    if !target.trouble.is_empty() {
        return Err(Error::Policy(target.trouble.clone()));
    }
    let result = rotate_by_hand(target, confirm, disposal, clock);
    let remembered = target.memory.change(&target.module_path, |memory| match &result {
        Ok(rotated) => {
            memory.warnings.clone_from(&rotated.warnings);
            memory.failure =
                memory.failure.take().filter(|failure| failure.work != RunKind::Rotation);
        }
        Err(error) => memory.failure = Some(RunFailure::now(RunKind::Rotation, error.to_string())),
    });
    if let Err(error) = remembered {
        log::debug!("nothing remembered outside the snapshot root: {error}");
    }
    result
}

pub(crate) fn rotate_by_hand(
    target: &Target,
    confirm: bool,
    disposal: Disposal,
    clock: &Clock,
) -> Result<RotationReport> {
    // A timer must not make the loss of a history look like a new beginning.
    if let Some(lost) = target.lost_history() {
        return Err(lost);
    }
    let root = target.open_root()?;
    crate::run::marks::remember_policy(target, &root)?;
    crate::system::priority::lower_priority(&target.policy);
    let is_covered = || Error::Bug("a rotation was covered by another run");
    let mut run_lock =
        RunLock::acquire(target, &root, &Request::rotation(), clock)?.ok_or_else(is_covered)?;
    let alone = run_lock.wait_for_turn(target, &root, &Request::rotation(), clock)?;
    if confirm {
        end_pauses(target, &root, &clock.reading())?;
    }
    let mut rotated = rotate_locked(target, &root, clock, disposal)?;
    rotated.warnings.extend(alone);
    if let Some(warning) = root.file_system_warning() {
        rotated.warn(&target.label(), warning);
    }
    if let ReleaseOutcome::DueMeanwhile { mark, lock: run_lock } =
        run_lock.release_unless_due(&root)?
        && let Err(error) =
            crate::run::order::work_and_hash(target, &root, Request::owed(&mark), clock, run_lock)
    {
        rotated
            .warn(&target.label(), format!("the snapshot that fell due meanwhile failed: {error}"));
    }
    Ok(rotated)
}

/// A person has looked at the clock, the policy and the list. The large-change guard needs a `release`.
pub(crate) fn end_pauses(
    target: &Target,
    root: &SnapshotRoot,
    reading: &ClockReading,
) -> Result<()> {
    let now = reading.time;
    let ExaminedRoot { catalog, state, .. } = examine(target, root, now, Some(reading.clone()))?;
    let snapshots = catalog.snapshots();
    let future =
        snapshots.iter().map(|snapshot| snapshot.verified_until).filter(|time| *time > now).max();
    // The clock is right, so these dates cannot be.
    let misdated: Vec<u64> = snapshots
        .iter()
        .filter(|snapshot| snapshot.time > now)
        .filter_map(|snapshot| snapshot.sequence)
        .collect();
    let sequence = catalog.sequence().max(state.sequence);
    State::update(root.private(), |state| {
        state.state_lost = false;
        state.records_lost = None;
        state.clock_jump = None;
        state.clock = Some(state.clock_history().confirm(reading, sequence, &misdated));
        state.sequence = sequence;
        state.confirmed_future = future;
        state.rules = Some(rules(&target.policy));
        if let Some(run) = &mut state.last_run {
            run.time = now;
        }
    })
    .map(drop)
}
