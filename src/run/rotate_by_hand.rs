//! `rotate`: a rotation that an administrator asks for.

use crate::decide::pauses::rules;
use crate::module::target::Target;
use crate::run::disposal::{RetiredRemoval, RotationReport};
use crate::run::marks::remember_policy;
use crate::run::order::{due_snapshot_failed, release_or_serve};
use crate::run::request::Request;
use crate::run::rotate::{ExaminedRoot, examine, rotate_locked};
use crate::run::run_lock::RunLock;
use crate::run::session::Session;
use crate::run::vanished;
use crate::store::memory::{RunFailure, RunKind};
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::system::priority::lower_priority;
use crate::tell::error::{Error, Result};
use crate::tell::progress;

/// Rotates, and remembers the outcome. With `confirm`, pauses end first, because the administrator
/// has checked the clock and the policy.
///
/// # Errors
/// [`Error::Policy`] if the policy cannot be used: then nothing expires.
pub(crate) fn rotate(
    target: &Target,
    confirm: bool,
    removal: RetiredRemoval,
    clock: &Clock,
) -> Result<RotationReport> {
    if !target.trouble.is_empty() {
        return Err(Error::Policy(target.trouble.clone()));
    }
    let result = rotate_in_root(target, confirm, removal, clock);
    let remembered = target.memory.change(&target.module_path, |memory| match &result {
        Ok(report) => {
            memory.warnings.clone_from(&report.warnings);
            memory.failure =
                memory.failure.take().filter(|failure| failure.work != RunKind::Rotation);
        }
        Err(error) => memory.failure = Some(RunFailure::now(RunKind::Rotation, error.to_string())),
    });
    if let Err(error) = remembered {
        log::debug!("what this machine remembers of the module cannot be written: {error}");
    }
    result
}

fn rotate_in_root(
    target: &Target,
    confirm: bool,
    removal: RetiredRemoval,
    clock: &Clock,
) -> Result<RotationReport> {
    // A rotation, which a timer may run, must not make a lost history look like a new beginning.
    if let Some(lost) = target.lost_history() {
        return Err(lost);
    }
    let root = target.open_root()?;
    let session = Session { target, root: &root, clock };
    remember_policy(target, &root)?;
    lower_priority(&target.policy);
    let is_covered = || Error::Bug("a rotation was covered by another run");
    let request = Request::rotation();
    let mut lock = RunLock::acquire(session, &request)?.ok_or_else(is_covered)?;
    let queue_warning = lock.join_job_queue(session, &request)?;
    progress::enter("rotating");
    vanished::tell(session, vanished::read_and_note(session)?);
    if confirm {
        end_pauses(session)?;
    }
    let mut report = rotate_locked(session, removal)?;
    report.warnings.extend(queue_warning);
    if let Some(warning) = root.file_system_warning() {
        report.warn(warning);
    }
    if let Err(error) = release_or_serve(session, lock)? {
        report.warn(due_snapshot_failed(&error));
    }
    Ok(report)
}

/// Ends all pauses but that of the large-change guard, which `release` ends.
fn end_pauses(session: Session) -> Result<()> {
    let Session { target, root, clock } = session;
    let reading = clock.reading();
    let now = reading.time;
    let ExaminedRoot { list, state, .. } = examine(target, root, now, Some(reading.clone()))?;
    let snapshots = list.snapshots();
    let future =
        snapshots.iter().map(|snapshot| snapshot.verified_until).filter(|time| *time > now).max();
    // The clock is right, so these dates are wrong.
    let misdated: Vec<u64> = snapshots
        .iter()
        .filter(|snapshot| snapshot.time > now)
        .filter_map(|snapshot| snapshot.sequence)
        .collect();
    let sequence = list.sequence().max(state.sequence);
    State::update(root.private(), |state| {
        state.state_lost = false;
        state.records_lost = None;
        state.clock_jump = None;
        state.clock = Some(state.clock_history().confirm(&reading, sequence, &misdated));
        state.sequence = sequence;
        state.confirmed_future = future;
        // A wrong clock noted the times that lie in the future.
        state.retired.values_mut().for_each(|retired| *retired = (*retired).min(now));
        state.rules = Some(rules(&target.policy));
        if let Some(run) = &mut state.last_run {
            run.time = now;
        }
    })
    .map(drop)
}
