//! What keeps rotation from carrying out its decision: pauses, readers, obstacles, `max_expire`.
//!
//! Each of them can only turn "expires" into "stays". A pause lasts until its cause is over or the
//! administrator ends it; snapshots are still taken meanwhile.

use chrono::{DateTime, Utc};

use crate::decide::clock_history::ClockHistory;
use crate::decide::clock_jump;
use crate::decide::grade::Grade;
use crate::decide::policy::{Policy, Prefer};
use crate::decide::snapshot::Snapshot;
use crate::decide::snapshot_reason::{ExpiryPause, SnapshotReason};
use crate::decide::snapshot_verdict::{Decision, RotationHistory, SnapshotVerdict, keep};

/// All reasons why nothing may be expired at `now`, whatever the policy decides. All messages name
/// the first one; `release` names the others, too.
pub(crate) fn pauses(
    snapshots: &[Snapshot],
    history: &RotationHistory,
    clock: &ClockHistory,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Vec<ExpiryPause> {
    let confirmed = history.confirmed_future.map_or(now, |confirmed| confirmed.max(now));
    let is_future = |snapshot: &&Snapshot| {
        snapshot.recorded && snapshot.verified_until.max(snapshot.time) > confirmed
    };
    let future = snapshots.iter().find(is_future);
    let jump = clock_jump::clock_jump(
        history.clock_jump.as_ref(),
        history.last_run,
        now,
        policy.clock_jump,
    );
    let doubt = || clock.doubt().cloned().map(Box::new).map(ExpiryPause::ClockDoubt);
    let all = [
        history.state_lost.then_some(ExpiryPause::StateLost),
        history.anomaly.clone().map(ExpiryPause::Anomaly),
        history.damage.clone().map(ExpiryPause::Damage),
        future.map(|future| ExpiryPause::RecordedInFuture(future.name.clone())),
        jump.map(ExpiryPause::ClockJump).or_else(doubt),
    ];
    all.into_iter().flatten().collect()
}

/// The pause that keeps `decision` from being carried out: the rules of the policy differ from
/// those of the last rotation, and would expire more than half of the complete snapshots at once. A
/// history that was never rotated has no earlier rules to compare with; there only `max_expire` and
/// the grace limit the loss.
pub(crate) fn pause_after_policy_change(
    decision: &Decision,
    history: &RotationHistory,
    policy: &Policy,
) -> Option<ExpiryPause> {
    if history.rules.as_ref().is_none_or(|known| *known == rules(policy)) {
        return None;
    }
    let complete =
        || decision.verdicts.iter().filter(|verdict| verdict.snapshot.grade == Grade::Complete);
    let (going, of) = (complete().filter(|verdict| !verdict.keep).count(), complete().count());
    (going * 2 > of).then_some(ExpiryPause::MostOfHistory { going, of })
}

/// The rules by which `policy` keeps snapshots, as one line. Equal rules give equal lines, other
/// rules other lines.
pub fn rules(policy: &Policy) -> String {
    let keep: Vec<String> =
        policy.keep.iter().map(|(frequency, count)| format!("{frequency} {count}")).collect();
    let strict = if policy.strict { "strict" } else { "relaxed" };
    let prefer = match policy.prefer {
        Prefer::Oldest => "oldest",
        Prefer::Newest => "newest",
    };
    let Policy { min_keep, min_age, time_zone, .. } = policy;
    format!(
        "{}; {strict}; {prefer}; min_keep {min_keep}; min_age {min_age}; {}",
        keep.join(", "),
        time_zone.name()
    )
}

/// Lets the snapshots stay that cannot be retired. They do not count for `max_expire`.
pub(crate) fn keep_unremovable(verdicts: &mut [SnapshotVerdict]) {
    for verdict in verdicts.iter_mut().filter(|verdict| !verdict.keep) {
        if let Some(obstacle) = verdict.snapshot.obstacle {
            keep(verdict, SnapshotReason::Unremovable(obstacle));
        }
    }
}

/// Lets the snapshots stay that are being read. They do not count for `max_expire`.
pub(crate) fn keep_read(verdicts: &mut [SnapshotVerdict]) {
    for verdict in verdicts.iter_mut().filter(|verdict| !verdict.keep) {
        if let Some(reader) = verdict.snapshot.reader.clone() {
            keep(verdict, SnapshotReason::Read(reader));
        }
    }
}

pub(crate) fn apply_pause(verdicts: &mut [SnapshotVerdict], pause: &ExpiryPause) {
    for verdict in verdicts.iter_mut().filter(|verdict| !verdict.keep) {
        keep(verdict, SnapshotReason::Paused(pause.clone()));
    }
}

/// Lets only the oldest `max_expire` go; returns how many stay for a later run.
pub(crate) fn apply_max_expire(verdicts: &mut [SnapshotVerdict], max_expire: usize) -> usize {
    let mut deferred = 0;
    for verdict in verdicts.iter_mut().filter(|verdict| !verdict.keep).skip(max_expire) {
        keep(verdict, SnapshotReason::Deferred(max_expire));
        deferred += 1;
    }
    deferred
}
