//! Carries out what [`decide`](crate::decide::rotation) decided.
//!
//! It runs after a new snapshot is durable or proved unnecessary, or by hand; never after a failed
//! transfer, so failures alone cannot wear a history down. Everything is decided on one reading of the root
//! under the lock, told, retired as a whole, and only then removed.

use chrono::{DateTime, Utc};

use super::hold::{Hold, Released};
use super::{Report, Request};
use crate::clock::Clock;
use crate::config::target::Target;
use crate::decide::rotation::{Decision, decide};
use crate::store::catalog::Catalog;
use crate::store::memory::{Failure, Work};
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::tell::counted;
use crate::tell::error::{Error, Result};
use crate::tell::exit::Exit;

/// What rotation decided and did.
#[derive(Debug)]
pub struct Rotated {
    /// The verdict on each snapshot.
    pub decision: Decision,
    /// Problems that did not stop it; each is in the log.
    pub warnings: Vec<String>,
}

impl Rotated {
    /// The exit status that tells it.
    pub fn exit(&self) -> Exit {
        if self.warnings.is_empty() { Exit::Done } else { Exit::Warnings }
    }
}

/// Decides without doing anything: for `plan`, `--dry-run` and `list`.
pub fn look(target: &Target, root: &SnapshotRoot, now: DateTime<Utc>) -> Result<(Catalog, Decision)> {
    let catalog = Catalog::read(root, &target.policy.time_zone)?;
    let state = if root.is_registered() { State::read(root.private())? } else { State::default() };
    let decision = decide(&catalog.snapshots(), &state.history(), &target.policy, now);
    Ok((catalog, decision))
}

/// Rotates by hand. With `confirm`, a person vouches for the clock: pauses end first.
///
/// # Errors
/// [`Error::Policy`] if the policy cannot be used: then nothing expires.
pub fn rotate(target: &Target, confirm: bool, clock: &Clock) -> Result<Rotated> {
    if !target.trouble.is_empty() {
        return Err(Error::Policy(target.trouble.clone()));
    }
    let result = rotate_by_hand(target, confirm, clock);
    let remembered = target.memory.change(&target.module_path, |memory| match &result {
        Ok(rotated) => {
            memory.warnings.clone_from(&rotated.warnings);
            memory.failure = memory.failure.take().filter(|failure| failure.work != Work::Rotation);
        }
        Err(error) => memory.failure = Some(Failure::now(Work::Rotation, error.to_string())),
    });
    if let Err(error) = remembered {
        log::debug!("nothing remembered outside the snapshot root: {error}");
    }
    result
}

fn rotate_by_hand(target: &Target, confirm: bool, clock: &Clock) -> Result<Rotated> {
    // A timer must not make the loss of a history look like a new beginning.
    if let Some(lost) = target.lost_history() {
        return Err(lost);
    }
    let root = target.open_root()?;
    super::remember_policy(target, &root)?;
    crate::priority::lower(&target.policy);
    let hold = Hold::acquire(target, &root, &Request::rotation(), clock)?;
    if confirm {
        end_pauses(target, &root, clock.now())?;
    }
    let mut rotated = rotate_locked(target, &root, clock, Retired::Removed)?;
    if let Released::Due { mark, held } = hold.release_unless_due(&root)?
        && let Err(error) = super::work(target, &root, Request::owed(&mark), clock, held)
    {
        rotated.warn(&target.label(), format!("the snapshot that fell due meanwhile failed: {error}"));
    }
    Ok(rotated)
}

/// A person has looked at the clock and the list.
fn end_pauses(target: &Target, root: &SnapshotRoot, now: DateTime<Utc>) -> Result<()> {
    let catalog = Catalog::read(root, &target.policy.time_zone)?;
    let future = catalog
        .snapshots()
        .into_iter()
        .map(|snapshot| snapshot.verified_until)
        .filter(|time| *time > now)
        .max();
    State::update(root.private(), |state| {
        state.state_lost = false;
        state.clock_jump = None;
        state.confirmed_future = future;
        if let Some(run) = &mut state.last_run {
            run.time = now;
        }
    })
    .map(drop)
}

/// Rotates after a run has made its snapshot durable or found it unnecessary.
pub(super) fn rotate_after_snapshot(
    target: &Target,
    root: &SnapshotRoot,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    if report.policy_trouble {
        return Ok(());
    }
    let rotated = rotate_locked(target, root, clock, Retired::Recycled)?;
    report.warnings.extend(rotated.warnings);
    Ok(())
}

/// Removes what is retired after a transfer that failed: it may have lacked the space.
pub(super) fn free_retired(target: &Target, root: &SnapshotRoot, report: &mut Report) -> Result<()> {
    if report.policy_trouble || !report.is_failed_transfer() {
        return Ok(());
    }
    for error in retire::remove_retired(root, None)?.errors {
        report.warn(&target.label(), format!("a retired snapshot remains: {error}"));
    }
    Ok(())
}

/// What becomes of the newest retired snapshot.
#[derive(PartialEq, Eq)]
enum Retired {
    /// It waits for the next snapshot to be made out of it.
    Recycled,
    /// It goes like the others.
    Removed,
}

fn rotate_locked(target: &Target, root: &SnapshotRoot, clock: &Clock, retired: Retired) -> Result<Rotated> {
    let label = target.label();
    let (catalog, decision) = look(target, root, clock.now())?;
    let mut rotated = Rotated { decision, warnings: Vec::new() };
    for warning in &catalog.warnings {
        rotated.warn(&label, warning.clone());
    }
    tell_decision(&label, &mut rotated, target.policy.max_expire);
    let names: Vec<String> =
        rotated.decision.expired().map(|verdict| verdict.snapshot.name.clone()).collect();
    for error in retire::retire(root, &names)? {
        rotated.warn(&label, error.to_string());
    }
    let keep = if retired == Retired::Recycled { retire::recyclable(root)? } else { None };
    let removed = retire::remove_retired(root, keep.as_deref())?;
    for error in removed.errors {
        rotated.warn(&label, format!("a retired snapshot remains: {error}"));
    }
    if removed.trees > 0 {
        log::info!(
            "{label}: removed {} with {} entries",
            counted(removed.trees, "retired snapshot"),
            removed.entries
        );
    }
    Ok(rotated)
}

/// One line per decision with its reasons.
fn tell_decision(label: &str, rotated: &mut Rotated, max_expire: usize) {
    for verdict in &rotated.decision.verdicts {
        let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
        let level = if verdict.keep { log::Level::Debug } else { log::Level::Info };
        let word = if verdict.keep { "keep" } else { "expire" };
        log::log!(level, "{label}: {word} {}: {}", verdict.snapshot.name, reasons.join(", "));
    }
    if let Some(pause) = &rotated.decision.pause {
        rotated.warn(label, format!("nothing expires: {pause}"));
    }
    if rotated.decision.deferred > 0 {
        let deferred = rotated.decision.deferred;
        rotated.warn(label, format!("max_expire {max_expire} reached; {deferred} more expire in later runs"));
    }
}

impl Rotated {
    fn warn(&mut self, label: &str, message: String) {
        log::warn!("{label}: {message}");
        self.warnings.push(message);
    }
}
