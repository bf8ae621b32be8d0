//! Carries out what [`decide`](crate::decide::rotation) decided.
//!
//! It runs after a new snapshot is durable or proved unnecessary, or by hand; never after a failed
//! transfer, so failures alone cannot wear a history down. Everything is decided on one reading of
//! the root under the lock, told, and retired as a whole. What earlier runs retired is removed
//! after that, when its grace is over, and at last what `free_space` wants.

use chrono::{DateTime, Utc};

use crate::decide::clock_reading::ClockReading;
use crate::decide::grade::Grade;
use crate::decide::guards::rules;
use crate::decide::rotation::decide;
use crate::decide::snapshot_reason::SnapshotReason;
use crate::decide::snapshot_verdict::Decision;
use crate::module::target::Target;
use crate::run::disposal::{self, Disposal, RotationReport};
use crate::run::free_space;
use crate::run::report::Report;
use crate::store::publish::clear_staging;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::store::{retire, unremovable};
use crate::system::clock::Clock;
use crate::tell::error::Result;

/// A root and what is decided on it.
pub(crate) struct ExaminedRoot {
    /// Its snapshots.
    pub catalog: SnapshotList,
    /// What earlier runs left behind.
    pub state: State,
    /// What rotation would do.
    pub decision: Decision,
}

/// Decides without doing anything, as of `now`; `reading` is of the clocks, unless `now` is another
/// time than the present.
pub(crate) fn examine(
    target: &Target,
    root: &SnapshotRoot,
    now: DateTime<Utc>,
    reading: Option<ClockReading>,
) -> Result<ExaminedRoot> {
    let state = if root.is_registered() { State::read(root.private())? } else { State::default() };
    let mut catalog = SnapshotList::read(root, &target.policy.time_zone)?;
    catalog.pin(&state.pins);
    let decision = decide(&catalog.snapshots(), &state.history(reading), &target.policy, now);
    Ok(ExaminedRoot { catalog, state, decision })
}

/// The same for those who need no state.
pub(crate) fn look(
    target: &Target,
    root: &SnapshotRoot,
    now: DateTime<Utc>,
    reading: Option<ClockReading>,
) -> Result<(SnapshotList, Decision)> {
    let ExaminedRoot { catalog, decision, .. } = examine(target, root, now, reading)?;
    Ok((catalog, decision))
}

/// Rotates after a run has made its snapshot durable or found it unnecessary.
pub(crate) fn rotate_after_snapshot(
    target: &Target,
    root: &SnapshotRoot,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    if report.policy_trouble {
        return Ok(());
    }
    let rotated = rotate_locked(target, root, clock, Disposal::Later)?;
    report.warnings.extend(rotated.warnings);
    if let Err(error) = crate::run::verify::refresh::compact_if_outgrown(target, root) {
        report.warn(
            &target.label(),
            format!("the inode log (.rsyncd-snapshot/inodes) stays as large as it is: {error}"),
        );
    }
    Ok(())
}

/// Removes what is retired where its space is wanted: a transfer failed, or a snapshot for lack of
/// it. Not what is within a grace that the policy sets, and nothing while expiry is paused.
pub(crate) fn free_retired(
    target: &Target,
    root: &SnapshotRoot,
    clock: &Clock,
) -> Result<Vec<String>> {
    let now = clock.now();
    let is_paused = || -> Result<bool> {
        Ok(examine(target, root, now, Some(clock.reading()))?.decision.pause.is_some())
    };
    if !target.trouble.is_empty() || is_paused()? {
        return Ok(Vec::new());
    }
    let removed = retire::remove(root, &retire::past_grace(root, target.policy.grace, now)?.names)?;
    Ok(removed.errors.iter().map(|error| format!("a retired snapshot remains: {error}")).collect())
}

pub(crate) fn rotate_locked(
    target: &Target,
    root: &SnapshotRoot,
    clock: &Clock,
    disposal: Disposal,
) -> Result<RotationReport> {
    let now = clock.now();
    let over = retire::past_grace(root, target.policy.grace, now)?;
    let ExaminedRoot { catalog, state, decision } =
        examine(target, root, now, Some(clock.reading()))?;
    let mut rotated = RotationReport { decision, warnings: Vec::new() };
    let mut just_retired = Vec::new();
    if let Some(error) = over.unnoted {
        rotated
            .warn(&target.label(), format!("for how long retired snapshots can be brought back (grace) is counted from a later run on: {error}"));
    }
    for warning in &catalog.warnings {
        rotated.warn(&target.label(), warning.clone());
    }
    tell_decision(&target.label(), &mut rotated, target.policy.max_expire);
    if rotated.decision.pause.is_none()
        && let Err(error) = remember_rules(target, root, &catalog, &state)
    {
        // It has to be possible to make room; the next run remembers them.
        match error.is_lack_of_space() {
            true => rotated.warn(&target.label(), error.to_string()),
            false => return Err(error),
        }
    }
    let names: Vec<String> =
        rotated.decision.expired().map(|verdict| verdict.snapshot.name.clone()).collect();
    if !names.is_empty() {
        // What goes in this run anyway must not keep a snapshot of the same name.
        let going = match (disposal, &rotated.decision.pause) {
            (Disposal::Now, _) => retire::retired(root)?,
            (Disposal::Later, Some(_)) => Vec::new(),
            (Disposal::Later, None) => over.names.clone(),
        };
        just_retired = disposal::retire(target, root, &names, &going, now, &mut rotated)?;
    }
    if disposal == Disposal::Now
        && let Err(error) = clear_staging(root)
    {
        rotated.warn(
            &target.label(),
            format!(
                "what an earlier run left in .rsyncd-snapshot/staging cannot be removed: {error}"
            ),
        );
    }
    if disposal == Disposal::Now {
        for cause in unremovable::remove_all(root)? {
            let message = format!("a tree that was set aside still cannot be removed: {cause}");
            rotated.warn(&target.label(), message);
        }
    }
    let names = match (disposal, &rotated.decision.pause) {
        (Disposal::Now, _) => retire::retired(root)?,
        (Disposal::Later, Some(_)) => Vec::new(),
        (Disposal::Later, None) => {
            let spare = retire::recyclable(root, target.policy.grace, now)?;
            let is_left =
                |name: &String| spare.as_ref() != Some(name) && !just_retired.contains(name);
            over.names.into_iter().filter(is_left).collect()
        }
    };
    disposal::remove(target, root, &names, &mut rotated)?;
    free_space::make(target, root, clock, &mut rotated)?;
    Ok(rotated)
}

/// Remembers by which rules this root is rotated: others may have to be confirmed first. As long as
/// the floors keep everything, rules have proved nothing.
fn remember_rules(
    target: &Target,
    root: &SnapshotRoot,
    catalog: &SnapshotList,
    state: &State,
) -> Result<()> {
    let rules = rules(&target.policy);
    let complete = catalog.items.iter().filter(|item| item.name.grade == Grade::Complete).count();
    if state.rules.as_ref() == Some(&rules) || complete <= target.policy.min_keep.max(1) {
        return Ok(());
    }
    State::update(root.private(), |state| state.rules = Some(rules)).map(drop)
}

/// One line per decision with its reasons.
fn tell_decision(label: &str, rotated: &mut RotationReport, max_expire: usize) {
    for verdict in &rotated.decision.verdicts {
        let reasons: Vec<String> = verdict.reasons.iter().map(SnapshotReason::brief).collect();
        let level = if verdict.keep { log::Level::Debug } else { log::Level::Info };
        let word = if verdict.keep { "keep" } else { "expire" };
        log::log!(level, "{label}: {word} {}: {}", verdict.snapshot.name, reasons.join(", "));
    }
    if let Some(line) = rotated.decision.pause_line() {
        rotated.warn(label, line);
    }
    if rotated.decision.deferred > 0 {
        let deferred = rotated.decision.deferred;
        rotated.warn(
            label,
            format!("max_expire {max_expire} reached; {deferred} more expire in later runs"),
        );
    }
}
