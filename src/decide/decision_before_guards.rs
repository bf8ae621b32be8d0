//! What the policy alone keeps, before pauses and `max_expire`: slots, floors, pins, partial
//! snapshots.

use chrono::{DateTime, Utc};

use crate::decide::grade::Grade;
use crate::decide::policy::Policy;
use crate::decide::slot::{LocalMoment, SlotName};
use crate::decide::slot_claim::{ShownPeriod, SlotClaim, claims};
use crate::decide::snapshot::Snapshot;
use crate::decide::snapshot_reason::SnapshotReason;
use crate::decide::snapshot_verdict::{Decision, SnapshotVerdict, keep};
use crate::decide::zone::Zone;

/// The decision before pauses and `max_expire`; the laws of rotation that the tests check hold for
/// this one.
pub fn decide_before_guards(
    snapshots: &[Snapshot],
    policy: &Policy,
    now: DateTime<Utc>,
) -> Decision {
    decide_each(snapshots.to_vec(), policy, now)
}

/// [`decide_before_guards`] for a caller who no longer needs the snapshots.
pub(crate) fn decide_each(
    snapshots: Vec<Snapshot>,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Decision {
    let mut verdicts: Vec<SnapshotVerdict> = snapshots
        .into_iter()
        .map(|snapshot| SnapshotVerdict { snapshot, keep: false, reasons: Vec::new() })
        .collect();
    verdicts.sort_by(|a, b| {
        (a.snapshot.time, &a.snapshot.name).cmp(&(b.snapshot.time, &b.snapshot.name))
    });

    let (undated, dated): (Vec<usize>, Vec<usize>) =
        (0..verdicts.len()).partition(|&index| verdicts[index].snapshot.undated.is_some());
    let (present, future): (Vec<usize>, Vec<usize>) =
        dated.into_iter().partition(|&index| verdicts[index].snapshot.time <= now);
    let (complete, partial): (Vec<usize>, Vec<usize>) =
        present.into_iter().partition(|&index| verdicts[index].snapshot.grade == Grade::Complete);

    for index in undated {
        let verdict = &mut verdicts[index];
        if let Some(why) = verdict.snapshot.undated {
            keep(verdict, SnapshotReason::Undated(why));
        }
        keep_pinned(verdict);
    }
    for index in future {
        keep(&mut verdicts[index], SnapshotReason::Future);
    }
    keep_slots(&mut verdicts, &complete, policy, now);
    keep_floors(&mut verdicts, &complete, policy, now);
    let since = complete.last().copied();
    keep_partial_slots(&mut verdicts, &partial, since, policy, now);
    keep_recent_partials(&mut verdicts, &partial, policy, now);
    Decision { verdicts, pause: None, deferred: 0 }
}

/// Until when a snapshot shows the module. A verification dated in the future was made by a wrong
/// clock and proves nothing.
fn held_until(snapshot: &Snapshot, now: DateTime<Utc>) -> DateTime<Utc> {
    let credible = snapshot.verified_until <= now;
    if credible { snapshot.verified_until.max(snapshot.time) } else { snapshot.time }
}

/// From when until when a snapshot shows the module.
fn held_span(snapshot: &Snapshot, now: DateTime<Utc>, zone: &Zone) -> ShownPeriod {
    let from = LocalMoment::of(snapshot.time, zone);
    let until = held_until(snapshot, now);
    ShownPeriod {
        from,
        until: if until == from.time { from } else { LocalMoment::of(until, zone) },
    }
}

/// Keeps the snapshots that stand for a slot, and notes for the others which snapshot stands for
/// their slot.
pub(crate) fn keep_slots(
    verdicts: &mut [SnapshotVerdict],
    complete: &[usize],
    policy: &Policy,
    now: DateTime<Utc>,
) {
    let span = |&index: &usize| held_span(&verdicts[index].snapshot, now, &policy.time_zone);
    let spans: Vec<ShownPeriod> = complete.iter().map(span).collect();
    for &(frequency, count) in &policy.keep {
        let claims = claims(&spans, frequency, count, policy);
        for (position, claim) in claims.into_iter().enumerate() {
            let verdict = &mut verdicts[complete[position]];
            match claim {
                SlotClaim::Kept { rank } => {
                    let slot = SlotName::of(frequency, spans[position].until);
                    keep(
                        verdict,
                        SnapshotReason::Slot {
                            frequency,
                            rank,
                            of: count,
                            prefer: policy.prefer,
                            slot,
                        },
                    );
                }
                SlotClaim::Taken { .. } | SlotClaim::Outside if verdict.keep => {}
                SlotClaim::Taken { by } => {
                    let slot = SlotName::of(frequency, spans[position].from);
                    let by = verdicts[complete[by]].snapshot.name.clone();
                    verdicts[complete[position]].reasons.push(SnapshotReason::SlotTaken {
                        frequency,
                        slot,
                        by,
                    });
                }
                SlotClaim::Outside => {
                    verdict.reasons.push(SnapshotReason::OutsideWindow { frequency, count })
                }
            }
        }
    }
}

/// Keeps the newest complete snapshot, the young ones and the pinned ones, and then the newest of
/// the others until `min_keep` stay.
pub(crate) fn keep_floors(
    verdicts: &mut [SnapshotVerdict],
    complete: &[usize],
    policy: &Policy,
    now: DateTime<Utc>,
) {
    if let Some(&newest) = complete.last() {
        keep(&mut verdicts[newest], SnapshotReason::NewestComplete);
    }
    for &index in complete {
        keep_young_and_pinned(&mut verdicts[index], policy, now);
    }
    let mut kept = complete.iter().filter(|&&index| verdicts[index].keep).count();
    for &index in complete.iter().rev() {
        if kept >= policy.min_keep {
            break;
        }
        if !verdicts[index].keep {
            keep(&mut verdicts[index], SnapshotReason::MinKeep(policy.min_keep));
            kept += 1;
        }
    }
}

pub(crate) fn keep_pinned(verdict: &mut SnapshotVerdict) {
    if let Some(reason) = verdict.snapshot.pinned.clone() {
        keep(verdict, SnapshotReason::Pinned(reason));
    }
}

pub(crate) fn keep_young_and_pinned(
    verdict: &mut SnapshotVerdict,
    policy: &Policy,
    now: DateTime<Utc>,
) {
    keep_pinned(verdict);
    if verdict.snapshot.unreadable {
        keep(verdict, SnapshotReason::Unreadable);
    }
    if now - held_until(&verdict.snapshot, now) < policy.min_age.delta() {
        keep(verdict, SnapshotReason::TooYoung(policy.min_age));
    }
}

/// Thins the partial snapshots since the newest complete one as complete ones are thinned. If no
/// push ends well for weeks, they are all the history there is.
pub(crate) fn keep_partial_slots(
    verdicts: &mut [SnapshotVerdict],
    partial: &[usize],
    newest_complete: Option<usize>,
    policy: &Policy,
    now: DateTime<Utc>,
) {
    let since = newest_complete.map(|index| {
        let snapshot = &verdicts[index].snapshot;
        (snapshot.name.clone(), held_until(snapshot, now))
    });
    let is_newer = |index: &usize| {
        let time = verdicts[*index].snapshot.time;
        since.as_ref().is_none_or(|(_, until)| time > *until)
    };
    let newer: Vec<usize> = partial.iter().copied().filter(is_newer).collect();
    let span = |&index: &usize| held_span(&verdicts[index].snapshot, now, &policy.time_zone);
    let spans: Vec<ShownPeriod> = newer.iter().map(span).collect();
    let since = since.map(|(name, _)| name);
    for &(frequency, count) in &policy.keep {
        for (position, claim) in claims(&spans, frequency, count, policy).into_iter().enumerate() {
            if matches!(claim, SlotClaim::Kept { .. }) {
                let slot = SlotName::of(frequency, spans[position].until);
                let reason = SnapshotReason::PartialSlot { frequency, slot, since: since.clone() };
                keep(&mut verdicts[newer[position]], reason);
            }
        }
    }
}

pub(crate) fn keep_recent_partials(
    verdicts: &mut [SnapshotVerdict],
    partial: &[usize],
    policy: &Policy,
    now: DateTime<Utc>,
) {
    for (newer, &index) in partial.iter().rev().enumerate() {
        let verdict = &mut verdicts[index];
        if newer < policy.keep_partial {
            keep(
                verdict,
                SnapshotReason::RecentPartial { rank: newer + 1, of: policy.keep_partial },
            );
        } else if !verdict.keep {
            verdict.reasons.push(SnapshotReason::OldPartial(policy.keep_partial));
        }
        keep_young_and_pinned(verdict, policy, now);
    }
}
