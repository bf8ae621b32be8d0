//! Which snapshots expire while the clock is in doubt: those that go under every possible time.
//!
//! Within a boot the boot clock says how far apart snapshots were taken. It does not say which of
//! the times that the wall clock has shown is right. So rotation is decided under each possible
//! *dating* of the snapshots, and only what expires under all of them goes. The datings are:
//!
//! * one for each time that the wall clock is known to have shown in this boot: the last believed
//!   one, the ones in doubt, and those that dated the snapshots. Each dates all snapshots by the
//!   boot clock.
//! * the dates as they are, because the boot clock of a suspended machine misses that time.
//!
//! Why no history is lost:
//!
//! * The true dating is among these if the boot clock is right and the wall clock was right at one
//!   of the known readings of this boot, or if all dates are right. What goes under all datings
//!   goes under the true one. How far the clock is off, in which direction, and how often it was
//!   set make no difference.
//! * If the wall clock was wrong at every reading of this boot, and no run noticed that at its
//!   beginning, the true dating is missing. But the believed time continued by the boot clock is
//!   always among the datings. So nothing goes that a run would keep if the wall clock had never
//!   been set since.
//! * Across boots there is no clock that cannot be set. So a doubt across a boot has no datings,
//!   and nothing expires. Snapshots from before the boot, or from before the believed time began,
//!   stay. They take no part in slots and counts, because they could only take a slot away from
//!   another snapshot. The same holds for snapshots without a sequence number or boot clock, for
//!   partial ones, and for those that a doubted clock dated before this doubt began.
//! * If a doubted clock verified a snapshot, it is unknown how long the snapshot stayed unchanged.
//!   It stays, and counts only for the moment when it was taken: a longer time could only take
//!   slots from others.
//! * The newest `min_keep` snapshots stay. The snapshots that a dating keeps because of `min_keep`
//!   are among them, because all datings within the boot give the same order.
//! * With too many datings, and during every other pause, nothing expires. A snapshot that expires
//!   here is only retired: no retired snapshot is removed or recycled while the clock is in doubt.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::decide::clock_doubt::DatingEvidence;
use crate::decide::clock_history::ClockHistory;
use crate::decide::clock_reading::ClockReading;
use crate::decide::decision_before_guards::decide_before_guards;
use crate::decide::grade::Grade;
use crate::decide::policy::Policy;
use crate::decide::snapshot::Snapshot;
use crate::decide::snapshot_reason::{ExpiryPause, SnapshotReason};
use crate::decide::snapshot_verdict::SnapshotVerdict;

/// If there are more datings, nothing expires: a clock that is set so often proves nothing.
const MOST_DATINGS: usize = 64;

/// Times that are nearer to each other count as one, in seconds: no slot is shorter than a minute.
const NEAR_SECONDS: i64 = 60;

/// One possible time of day, and the dates of snapshots that follow from it.
#[derive(Debug, Clone, Copy)]
struct Dating {
    /// The wall-clock time at which the boot clock showed 0; `None` leaves the dates as they are.
    booted: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

/// Lets the snapshots expire that go under every dating; all others stay.
pub(crate) fn expire_under_all(
    verdicts: &mut [SnapshotVerdict],
    clock: &ClockHistory,
    policy: &Policy,
) {
    let Some(evidence) = clock.dating_evidence() else { return };
    let snapshots = select_datable(verdicts, &evidence, clock);
    let datings = datings(&snapshots, &evidence);
    if datings.len() > MOST_DATINGS {
        return;
    }
    let floor = floor(&snapshots, policy.min_keep);
    let mut fates: BTreeMap<String, Vec<(Dating, SnapshotVerdict)>> = BTreeMap::new();
    for dating in &datings {
        let dated: Vec<Snapshot> =
            snapshots.iter().map(|one| dating.date(one, &evidence)).collect();
        for verdict in decide_before_guards(&dated, policy, dating.now).verdicts {
            fates.entry(verdict.snapshot.name.clone()).or_default().push((*dating, verdict));
        }
    }
    for verdict in verdicts {
        let Some(fates) = fates.remove(&verdict.snapshot.name) else { continue };
        let sequence = verdict.snapshot.sequence.unwrap_or(0);
        let keeping = fates.iter().find(|(_, fate)| fate.keep);
        let stays = match keeping {
            Some((dating, fate)) => fate.reasons.first().map(|reason| SnapshotReason::IfTime {
                time: dating.now,
                reason: Box::new(reason.clone()),
            }),
            None if evidence.verified.contains(&sequence) => Some(SnapshotReason::VerifiedInDoubt),
            None if sequence >= floor => Some(SnapshotReason::MinKeep(policy.min_keep)),
            None => None,
        };
        match (stays, fates.first()) {
            (Some(reason), _) => tell_why_it_stays(verdict, reason),
            (None, Some((_, fate))) => {
                verdict.keep = false;
                verdict.reasons = vec![SnapshotReason::EveryTime(datings.len())];
                verdict.reasons.extend(fate.reasons.iter().cloned());
            }
            (None, None) => {}
        }
    }
}

/// Adds the `reason` that names the time under which the snapshot is kept, if the reasons so far
/// name only the pause or the doubtful date.
fn tell_why_it_stays(verdict: &mut SnapshotVerdict, reason: SnapshotReason) {
    let is_general = |reason: &SnapshotReason| {
        matches!(
            reason,
            SnapshotReason::Paused(ExpiryPause::ClockDoubt(_)) | SnapshotReason::Undated(_)
        )
    };
    if verdict.reasons.iter().any(is_general) {
        verdict.reasons.push(reason);
    }
}

/// The complete snapshots that the boot clock can date: it tells how far apart they were taken.
fn select_datable(
    verdicts: &[SnapshotVerdict],
    evidence: &DatingEvidence,
    clock: &ClockHistory,
) -> Vec<Snapshot> {
    let is_datable = |snapshot: &&Snapshot| {
        let is_of_boot = snapshot.taken_at.as_ref().is_some_and(|taken| {
            taken.boot == evidence.now.boot && taken.seconds() <= evidence.now.uptime_seconds
        });
        let is_known = |sequence: u64| {
            sequence > evidence.after_sequence
                && (sequence > evidence.began_after || !clock.is_doubted(sequence))
        };
        is_of_boot
            && snapshot.grade == Grade::Complete
            && snapshot.recorded
            && !snapshot.unreadable
            && snapshot.sequence.is_some_and(is_known)
    };
    let snapshots = verdicts.iter().map(|verdict| &verdict.snapshot).filter(is_datable);
    snapshots.map(|snapshot| Snapshot { undated: None, ..snapshot.clone() }).collect()
}

/// The dates as they are, and each time that was shown; those near to each other count once.
fn datings(snapshots: &[Snapshot], evidence: &DatingEvidence) -> Vec<Dating> {
    let uptime = TimeDelta::seconds(evidence.now.uptime_seconds);
    let of_reading = |reading: &ClockReading| {
        reading.time.checked_sub_signed(TimeDelta::seconds(reading.uptime_seconds))
    };
    let of_snapshot = |snapshot: &Snapshot| {
        let taken = snapshot.taken_at.as_ref()?;
        snapshot.time.checked_sub_signed(TimeDelta::seconds(taken.seconds()))
    };
    let readings = evidence.shown.iter().copied().chain([evidence.now]).filter_map(of_reading);
    let mut known: Vec<DateTime<Utc>> = Vec::new();
    for booted in readings.chain(snapshots.iter().filter_map(of_snapshot)) {
        let is_known = known.iter().any(|other| is_near(booted - *other));
        if !is_known && known.len() <= MOST_DATINGS {
            known.push(booted);
        }
    }
    let by_boot_clock = known.into_iter().filter_map(|booted| {
        Some(Dating { booted: Some(booted), now: booted.checked_add_signed(uptime)? })
    });
    [Dating { booted: None, now: evidence.now.time }].into_iter().chain(by_boot_clock).collect()
}

fn is_near(distance: TimeDelta) -> bool {
    distance.abs() <= TimeDelta::seconds(NEAR_SECONDS)
}

impl Dating {
    /// `snapshot` as this dating dates it.
    fn date(&self, snapshot: &Snapshot, evidence: &DatingEvidence) -> Snapshot {
        let mut dated = snapshot.clone();
        if let (Some(booted), Some(taken)) = (self.booted, &snapshot.taken_at) {
            let shift = booted + TimeDelta::seconds(taken.seconds()) - snapshot.time;
            if !is_near(shift) {
                dated.time += shift;
                dated.verified_until += shift;
            }
        }
        if snapshot.sequence.is_some_and(|sequence| evidence.verified.contains(&sequence)) {
            dated.verified_until = dated.time;
        }
        dated
    }
}

/// The lowest number among the newest `min_keep` snapshots.
fn floor(snapshots: &[Snapshot], min_keep: usize) -> u64 {
    let mut numbers: Vec<u64> = snapshots.iter().filter_map(|one| one.sequence).collect();
    numbers.sort_unstable_by(|one, other| other.cmp(one));
    numbers.into_iter().take(min_keep.max(1)).min().unwrap_or(u64::MAX)
}
