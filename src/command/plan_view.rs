//! The JSON of `plan`.
//!
//! docs/json.md describes its keys.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::command::list_view::{local_time, rfc3339};
use crate::command::policy_effect::PolicyEffect;
use crate::command::timeline::TimelineRow;
use crate::decide::forecast::Expiry;
use crate::decide::grade::Grade;
use crate::decide::snapshot_reason::{ExpiryPause, SnapshotReason};
use crate::decide::snapshot_verdict::SnapshotVerdict;
use crate::module::target::Target;
use crate::store::snapshots::{ListedSnapshot, SnapshotList};
use crate::tell::escape::{escape, escape_path, one_line};

/// What `plan` prints for one module.
#[derive(Debug, Serialize)]
pub(crate) struct PlanView {
    module: Option<String>,
    pub(crate) snapshot_root: String,
    at: String,
    #[serde(flatten)]
    pub(crate) present: TotalsView,
    usual_spacing_seconds: Option<i64>,
    next_push: Option<String>,
    pub(crate) compared: Option<ComparedView>,
    pub(crate) snapshots: Vec<SnapshotView>,
}

/// What one policy does with all snapshots together.
#[derive(Debug, Serialize)]
pub(crate) struct TotalsView {
    pub(crate) pause: Option<String>,
    deferred: usize,
    /// How many rotations it takes until all are gone that the policy does not keep.
    pub(crate) runs: Option<usize>,
    /// Complete snapshots that would go and that there are, if a change of policy waits for the
    /// administrator.
    #[serde(skip)]
    pub(crate) to_confirm: Option<(usize, usize)>,
    pub(crate) bytes_freed: Option<u64>,
    pub(crate) entries_freed: Option<u64>,
    /// Whether these numbers cannot be known, since some of the snapshots are subvolumes.
    #[serde(skip)]
    pub(crate) has_sealed: bool,
    pub(crate) unreadable: u64,
    pub(crate) retired: usize,
}

/// The totals under the policy of `--policy`.
#[derive(Debug, Serialize)]
pub(crate) struct ComparedView {
    pub(crate) policy_file: String,
    #[serde(flatten)]
    pub(crate) totals: TotalsView,
}

#[derive(Debug, Serialize)]
pub(crate) struct SnapshotView {
    pub(crate) name: String,
    time: String,
    verified_until: String,
    grade: Grade,
    #[serde(flatten)]
    pub(crate) verdict: PlanVerdictView,
    pinned: Option<String>,
    entries: Option<u64>,
    pub(crate) compared: Option<PlanVerdictView>,
    #[serde(skip)]
    pub(crate) local_time: Option<String>,
    #[serde(skip)]
    pub(crate) age: TimeDelta,
}

/// What one policy decides on one snapshot.
#[derive(Debug, Serialize)]
pub(crate) struct PlanVerdictView {
    pub(crate) keep: bool,
    pub(crate) reasons: Vec<String>,
    /// Reasons for the text, where the cause of a pause is printed once, above all snapshots.
    #[serde(skip)]
    pub(crate) brief_reasons: Vec<String>,
    expires_at: Option<String>,
    covered_by: Vec<CoverView>,
    #[serde(skip)]
    pub(crate) end: ExpiryTime,
    #[serde(skip)]
    pub(crate) row: TimelineRow,
}

#[derive(Debug, Serialize)]
struct CoverView {
    frequency: &'static str,
    slot: String,
    name: String,
    keep: bool,
}

/// When a snapshot goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpiryTime {
    /// With the next rotation.
    Now,
    /// With the next push.
    NextPush(DateTime<Utc>),
    /// At this time, after so much time from now.
    At(DateTime<Utc>, TimeDelta),
    /// Not within ten years.
    Stays,
    /// As soon as a guard no longer holds it.
    HeldBack,
    /// The usual distance of pushes is not known.
    Unknown,
}

impl PlanView {
    /// Whether something keeps snapshots from expiring.
    pub(crate) fn is_paused(&self) -> bool {
        self.present.pause.is_some()
    }

    /// The plan for `target` at `now`, and what the policy in another file would do with
    /// these snapshots.
    pub(crate) fn new(
        target: &Target,
        now: DateTime<Utc>,
        list: &SnapshotList,
        present: &PolicyEffect,
        other: Option<(&Path, &PolicyEffect)>,
    ) -> Self {
        let mut present_views = verdict_views(present, now);
        let mut other_views =
            other.map(|(_, effect)| verdict_views(effect, now)).unwrap_or_default();
        let items = list.items.iter().map(|item| (item.name.text.as_str(), item));
        let items: BTreeMap<&str, &ListedSnapshot> = items.collect();
        let view = |verdict: &SnapshotVerdict| {
            let snapshot = &verdict.snapshot;
            let record = items.get(snapshot.name.as_str()).and_then(|item| item.record.as_ref());
            Some(SnapshotView {
                name: snapshot.name.clone(),
                time: rfc3339(snapshot.time),
                verified_until: rfc3339(snapshot.verified_until),
                grade: snapshot.grade,
                verdict: present_views.remove(&snapshot.name)?,
                pinned: snapshot.pinned.as_deref().map(|reason| one_line(reason).into_owned()),
                entries: record.filter(|record| !record.adopted).map(|record| record.entries),
                compared: other_views.remove(&snapshot.name),
                local_time: local_time(&target.policy.time_zone, snapshot.time),
                age: now - snapshot.time,
            })
        };
        let snapshots = present.decision.verdicts.iter().filter_map(view).collect();
        let forecast = present.forecast.as_ref();
        PlanView {
            module: target.name.as_deref().map(escape),
            snapshot_root: escape_path(&target.root_path),
            at: rfc3339(now),
            present: TotalsView::new(present),
            usual_spacing_seconds: forecast.map(|forecast| forecast.spacing.num_seconds()),
            next_push: forecast.map(|forecast| rfc3339(forecast.next_push)),
            compared: other.map(|(file, effect)| ComparedView {
                policy_file: escape_path(file),
                totals: TotalsView::new(effect),
            }),
            snapshots,
        }
    }
}

impl TotalsView {
    fn new(effect: &PolicyEffect) -> Self {
        let usage = effect.freed.usage;
        TotalsView {
            pause: effect.decision.pause.as_ref().map(ToString::to_string),
            deferred: effect.decision.deferred,
            runs: effect.runs(),
            to_confirm: match effect.decision.pause {
                Some(ExpiryPause::MostOfHistory { going, of }) => Some((going, of)),
                _ => None,
            },
            bytes_freed: usage.map(|usage| usage.bytes),
            entries_freed: usage.map(|usage| usage.entries),
            has_sealed: effect.freed.has_sealed,
            unreadable: usage.map_or(0, |usage| usage.unreadable),
            retired: effect.freed.retired,
        }
    }
}

/// What one policy decides on each snapshot, by name.
fn verdict_views(effect: &PolicyEffect, now: DateTime<Utc>) -> BTreeMap<String, PlanVerdictView> {
    let unguarded = effect.unguarded.verdicts.iter();
    let kept = unguarded.map(|verdict| (verdict.snapshot.name.clone(), verdict.keep)).collect();
    let mut put_off = 0;
    // Both lists hold these snapshots in one order.
    let verdicts = effect.decision.verdicts.iter().zip(&effect.unguarded.verdicts);
    let view = |(verdict, unguarded): (&SnapshotVerdict, &SnapshotVerdict)| {
        if is_put_off(verdict) {
            put_off += 1;
        }
        let end = end(verdict, effect, put_off, now);
        let without_guard =
            if verdict.keep && !unguarded.keep { &unguarded.reasons[..] } else { &[] };
        let reasons = || verdict.reasons.iter().chain(without_guard);
        let view = PlanVerdictView {
            keep: verdict.keep,
            reasons: reasons().map(|reason| words(reason, reason.to_string(), &kept)).collect(),
            brief_reasons: reasons()
                .map(|reason| words(reason, reason.brief(), &kept))
                .chain(verdict.reader_note().map(|note| one_line(&note).into_owned()))
                .collect(),
            expires_at: match end {
                ExpiryTime::NextPush(time) | ExpiryTime::At(time, _) => Some(rfc3339(time)),
                _ => None,
            },
            covered_by: unguarded
                .reasons
                .iter()
                .filter_map(|reason| cover(reason, &kept))
                .collect(),
            end,
            row: row(verdict),
        };
        (verdict.snapshot.name.clone(), view)
    };
    verdicts.map(view).collect()
}

fn is_put_off(verdict: &SnapshotVerdict) -> bool {
    verdict.reasons.iter().any(|reason| matches!(reason, SnapshotReason::Deferred(_)))
}

/// When a snapshot goes. `put_off`: how many snapshots up to this one `max_expire` puts off.
fn end(
    verdict: &SnapshotVerdict,
    effect: &PolicyEffect,
    put_off: usize,
    now: DateTime<Utc>,
) -> ExpiryTime {
    if !verdict.keep {
        return ExpiryTime::Now;
    }
    let Some(forecast) = &effect.forecast else { return ExpiryTime::Unknown };
    let at = |time| {
        if time == forecast.next_push {
            ExpiryTime::NextPush(time)
        } else {
            ExpiryTime::At(time, time - now)
        }
    };
    if effect.max_expire == 0 {
        return ExpiryTime::Stays;
    }
    match forecast.expiry(&verdict.snapshot.name) {
        None => ExpiryTime::Unknown,
        Some(Expiry::Stays) => ExpiryTime::Stays,
        Some(Expiry::At(time)) => at(time),
        Some(Expiry::Due) if is_put_off(verdict) => {
            let later_pushes = i32::try_from((put_off - 1) / effect.max_expire).unwrap_or(i32::MAX);
            forecast
                .spacing
                .checked_mul(later_pushes)
                .map_or(ExpiryTime::Stays, |later| at(forecast.next_push + later))
        }
        Some(Expiry::Due) => ExpiryTime::HeldBack,
    }
}

fn row(verdict: &SnapshotVerdict) -> TimelineRow {
    match verdict.keep {
        false => TimelineRow::Goes,
        true if verdict.snapshot.pinned.is_some() => TimelineRow::Pinned,
        true if verdict.snapshot.grade == Grade::Partial => TimelineRow::Partial,
        true => TimelineRow::Stays,
    }
}

/// The text of a reason. If the reason names another snapshot that goes, too, the text says so.
fn words(reason: &SnapshotReason, text: String, kept: &BTreeMap<String, bool>) -> String {
    let text = one_line(&text).into_owned();
    match reason {
        SnapshotReason::SlotTaken { by, .. } if kept.get(by) == Some(&false) => {
            text + ", which goes too"
        }
        _ => text,
    }
}

fn cover(reason: &SnapshotReason, kept: &BTreeMap<String, bool>) -> Option<CoverView> {
    let SnapshotReason::SlotTaken { frequency, slot, by } = reason else { return None };
    let keep = kept.get(by).copied().unwrap_or(false);
    Some(CoverView { frequency: frequency.word(), slot: slot.to_string(), name: by.clone(), keep })
}
