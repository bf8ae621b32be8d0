//! Carries out what [`decide`](crate::decide::rotation) decided.
//!
//! Rotation follows a new snapshot that is durable, or the proof that none is needed, or the
//! command of an administrator. It never follows a failed transfer, so failures alone cannot wear a
//! history down. Under the lock, the root is read once; the decision on that reading is logged, and
//! the snapshots that expire are retired. After that, snapshots that earlier runs retired are
//! removed if their grace is over. Last, snapshots are removed as far as `free_space` requires it.

use chrono::{DateTime, Utc};

use crate::decide::clock_reading::ClockReading;
use crate::decide::free_space::is_short;
use crate::decide::grade::Grade;
use crate::decide::pauses::rules;
use crate::decide::rotation::decide;
use crate::decide::snapshot_reason::SnapshotReason;
use crate::decide::snapshot_verdict::Decision;
use crate::engine::usage::Usage;
use crate::module::target::Target;
use crate::run::disposal::{self, RetiredRemoval, RotationReport};
use crate::run::free_space;
use crate::run::free_space::freed;
use crate::run::report::Report;
use crate::run::session::{Session, lease_terms};
use crate::run::verify::refresh::compact_if_outgrown;
use crate::store::leases::{Leases, LockedLeases};
use crate::store::leftovers::clear_staging;
use crate::store::retire::LeaseRule;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf};
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::store::{retire, unremovable};
use crate::tell::error::Result;

/// A root as one reading of it showed it, and the decision on its snapshots.
pub(crate) struct ExaminedRoot {
    pub list: SnapshotList,
    pub state: State,
    pub decision: Decision,
}

/// Decides as of `now` without doing anything. `reading` is what the clocks show; `None` if `now`
/// is another time than the present.
pub(crate) fn examine(
    target: &Target,
    root: &SnapshotRoot,
    now: DateTime<Utc>,
    reading: Option<ClockReading>,
) -> Result<ExaminedRoot> {
    let state = if root.is_registered() { State::read(root.private())? } else { State::default() };
    let mut list = SnapshotList::read(root, &target.policy.time_zone)?;
    list.pin(&state.pins);
    list.note_readers(&Leases::look(root)?, lease_terms(target, now));
    let decision = decide(&list.snapshots(), &state.history(reading), &target.policy, now);
    Ok(ExaminedRoot { list, state, decision })
}

/// Rotates after a run has made its snapshot durable or found it unnecessary.
pub(crate) fn rotate_after_snapshot(session: Session, report: &mut Report) -> Result<()> {
    if report.policy_trouble {
        return Ok(());
    }
    let rotation = rotate_locked(session, RetiredRemoval::PastGrace)?;
    report.warnings.extend(rotation.warnings);
    report.standing.extend(rotation.standing);
    if let Err(error) = compact_if_outgrown(session.target, session.root) {
        report.warn(format!(
            "the inode log (.rsyncd-snapshot/inodes) stays as large as it is: {error}"
        ));
    }
    Ok(())
}

/// Why retired snapshots are removed sooner than by the next rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpaceNeed {
    /// A transfer has failed, perhaps for lack of space.
    FailedTransfer,
    /// The snapshot has failed for lack of space.
    FullDisk,
}

/// Removes retired snapshots because the next transfer may need their space. Keeps those within a
/// `grace` that the policy sets, and all of them while expiry is paused. The grace of a policy that
/// sets none gives way on a full disk. Returns warnings.
pub(crate) fn free_retired(session: Session, need: SpaceNeed) -> Result<Vec<String>> {
    let Session { target, root, clock } = session;
    let now = clock.now();
    let is_paused = || -> Result<bool> {
        Ok(examine(target, root, now, Some(clock.reading()))?.decision.pause.is_some())
    };
    if !target.trouble.is_empty() || is_paused()? {
        return Ok(Vec::new());
    }
    let is_full = || need == SpaceNeed::FullDisk || is_nearly_full(root);
    let names = match target.policy.grace {
        None if is_full() => retire::retired(root)?,
        _ => retire::past_grace(root, target.policy.grace(), now)?.names,
    };
    let removed = retire::remove(root, &names, LeaseRule::Hold(session.lease_terms()))?;
    Ok(removed
        .errors
        .iter()
        .map(|error| format!("a retired snapshot could not be removed: {error}"))
        .collect())
}

/// Whether hardly any bytes or inodes are free. False if the file system does not tell.
fn is_nearly_full(root: &SnapshotRoot) -> bool {
    rustix::fs::fstatvfs(root.directory()).is_ok_and(|facts| {
        is_short(facts.f_bavail, facts.f_blocks) || is_short(facts.f_favail, facts.f_files)
    })
}

/// Rotates under the lock: decides, retires, removes retired snapshots, makes free space.
pub(crate) fn rotate_locked(session: Session, removal: RetiredRemoval) -> Result<RotationReport> {
    let Session { target, root, clock } = session;
    let now = clock.now();
    let over = retire::past_grace(root, target.policy.grace(), now)?;
    let ExaminedRoot { list, state, decision } = examine(target, root, now, Some(clock.reading()))?;
    let mut report = RotationReport::new(target, decision);
    if let Some(error) = over.unnoted {
        report.warn(disposal::grace_unnoted(&error));
    }
    list.warnings.iter().for_each(|warning| report.warn(warning));
    log_decision(target, &mut report);
    if report.decision.pause.is_none() {
        remember_rules(session, &list, &state, &mut report)?;
    }
    let retired_at = state.clock_history().not_before(&clock.reading(), now);
    let just_retired = retire_expired(session, removal, &over.names, retired_at, &mut report)?;
    if removal != RetiredRemoval::PastGrace {
        remove_leftovers(root, &mut report)?;
    }
    let cleaned = LockedLeases::open(root).and_then(|all| all.clean_up(session.lease_terms()));
    if let Err(error) = cleaned {
        report.warn(format!("leases of readers that have ended could not be removed: {error}"));
    }
    let names = match (removal, &report.decision.pause) {
        (RetiredRemoval::All { .. }, _) => retire::retired(root)?,
        (RetiredRemoval::PastGrace, Some(_)) => Vec::new(),
        (RetiredRemoval::PastGrace, None) => {
            let spare = retire::recyclable(root, target.policy.grace(), now)?;
            let goes = |name: &String| spare.as_ref() != Some(name) && !just_retired.contains(name);
            over.names.into_iter().filter(goes).collect()
        }
    };
    let leases = match removal {
        RetiredRemoval::All { .. } => LeaseRule::Override,
        RetiredRemoval::PastGrace => LeaseRule::Hold(session.lease_terms()),
    };
    // Counted now, while all of it is there.
    let usage = match removal {
        RetiredRemoval::All { counts: true } if !names.is_empty() => {
            usage_of_retired(root, &names)?
        }
        RetiredRemoval::All { .. } | RetiredRemoval::PastGrace => None,
    };
    let warnings = report.warnings.len();
    disposal::remove(root, &names, leases, &mut report)?;
    report.freed = usage.filter(|_| report.warnings.len() == warnings);
    free_space::make(session, &mut report)?;
    Ok(report)
}

/// What the removal of the retired snapshots `names` frees.
fn usage_of_retired(root: &SnapshotRoot, names: &[String]) -> Result<Option<Usage>> {
    let expired = OpenShelf::open(root, Shelf::Expired)?;
    Ok(freed(root, names.iter().map(|name| expired.slot(name)).collect(), None))
}

/// Retires what the decision expires, and returns which snapshots that were. `past_grace`: the
/// retired ones whose grace is over.
fn retire_expired(
    session: Session,
    removal: RetiredRemoval,
    past_grace: &[String],
    now: DateTime<Utc>,
    report: &mut RotationReport,
) -> Result<Vec<String>> {
    let names: Vec<String> =
        report.decision.expired().map(|verdict| verdict.snapshot.name.clone()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    // A retired snapshot that this run removes anyway must not keep a visible snapshot of the same
    // name from being retired.
    let going = match (removal, &report.decision.pause) {
        (RetiredRemoval::All { .. }, _) => retire::retired(session.root)?,
        (RetiredRemoval::PastGrace, Some(_)) => Vec::new(),
        (RetiredRemoval::PastGrace, None) => past_grace.to_vec(),
    };
    let leases = LeaseRule::Hold(session.lease_terms());
    disposal::retire(session.root, &names, &going, leases, now, report)
}

/// Removes what earlier runs left in `staging` and set aside in `unremovable`.
fn remove_leftovers(root: &SnapshotRoot, report: &mut RotationReport) -> Result<()> {
    if let Err(error) = clear_staging(root) {
        report.warn(format!("what an earlier run left to be removed cannot be removed: {error}"));
    }
    for cause in unremovable::remove_all(root)? {
        report.warn(format!("a snapshot that was set aside still cannot be removed: {cause}"));
    }
    Ok(())
}

/// Notes the rules by which this root is rotated, so that a later run can hold back changed rules
/// until the administrator confirms them. Rules are not noted while the floors keep every snapshot,
/// because they have expired nothing yet.
fn remember_rules(
    session: Session,
    list: &SnapshotList,
    state: &State,
    report: &mut RotationReport,
) -> Result<()> {
    let policy = &session.target.policy;
    let rules = rules(policy);
    let complete = list.items.iter().filter(|item| item.name.grade == Grade::Complete).count();
    if state.rules.as_ref() == Some(&rules) || complete <= policy.min_keep.max(1) {
        return Ok(());
    }
    match State::update(session.root.private(), |state| state.rules = Some(rules)) {
        // On a full disk, rotation has to be possible. The next run notes the rules.
        Err(error) if error.is_lack_of_space() => report.warn(error.to_string()),
        noted => drop(noted?),
    }
    Ok(())
}

/// Logs one line per snapshot with its reasons, then the pause and what is deferred.
fn log_decision(target: &Target, report: &mut RotationReport) {
    let label = target.label();
    for verdict in &report.decision.verdicts {
        let reasons: Vec<String> = verdict.reasons.iter().map(SnapshotReason::brief).collect();
        let level = if verdict.keep { log::Level::Debug } else { log::Level::Info };
        let word = if verdict.keep { "keep" } else { "expire" };
        log::log!(level, "{label}: {word} {}: {}", verdict.snapshot.name, reasons.join(", "));
    }
    if let Some(line) = report.decision.pause_line() {
        report.warn_of_standing(line);
    }
    let deferred = report.decision.deferred;
    if deferred > 0 {
        let max_expire = target.policy.max_expire;
        report
            .warn(format!("max_expire {max_expire} reached; {deferred} more expire in later runs"));
    }
}
