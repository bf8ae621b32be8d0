//! When each kept snapshot will go if pushes continue as before.
//!
//! The forecast assumes further pushes at the usual distance, each of which makes a complete
//! snapshot. It need not decide after each of them. Of all pushes up to a future time except the
//! last few, only the slots that they hold together matter, and one snapshot with a span stands for
//! every slot within it. So *one* decision, by the code of the real rotation, tells what is left
//! after any number of pushes. The forecast asks for such decisions at times ever farther apart.
//! What has gone by one of these times is absent from the next decision, as in reality.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::decide::frequency::{Frequency, SlotCount};
use crate::decide::grade::Grade;
use crate::decide::policy::Policy;
use crate::decide::replay::pushed;
use crate::decide::retention::decide_each;
use crate::decide::snapshot::Snapshot;

/// The usual distance is the median of this many of the newest distances. More would mislead:
/// rotation has thinned out the older snapshots, so their distances are not those of the pushes.
const RECENT_DISTANCES: usize = 5;

/// A snapshot that would stay for longer than this counts as staying: ten years.
const HORIZON: TimeDelta = TimeDelta::days(3_653);

/// A forecast is exact to one push, or to this part of the time until then if that is more.
const PRECISION: u64 = 64;

/// At most this many pushes become snapshots of their own, however many slots a policy counts.
const MAX_SINGLE_PUSHES: u64 = 1_000;

/// What will become of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The policy no longer keeps it; only a pause or `max_expire` can.
    Due,
    /// It goes with the push at this time.
    At(DateTime<Utc>),
    /// It is still there after ten years.
    Stays,
}

/// The future of the snapshots of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// The usual distance between pushes.
    pub spacing: TimeDelta,
    /// When the next push is expected; not before now.
    pub next_push: DateTime<Utc>,
    expiries: BTreeMap<String, Expiry>,
}

impl Forecast {
    /// What will become of the snapshot `name`.
    pub fn expiry(&self, name: &str) -> Option<Expiry> {
        self.expiries.get(name).copied()
    }
}

/// Looks ahead from `now`; `None` if there are fewer than two complete snapshots, which show no
/// usual distance.
pub fn forecast(snapshots: &[Snapshot], policy: &Policy, now: DateTime<Utc>) -> Option<Forecast> {
    let spacing = usual_spacing(snapshots, now)?;
    let newest = complete(snapshots, now).last().map(|snapshot| snapshot.verified_until);
    let next_push = newest.map_or(now, |newest| (newest + spacing).max(now));
    Some(look_ahead(snapshots, policy, now, &Pushes::new(next_push, spacing, policy)))
}

/// The usual distance between pushes: from when a snapshot was last verified to when the next was
/// taken. At least a second.
pub fn usual_spacing(snapshots: &[Snapshot], now: DateTime<Utc>) -> Option<TimeDelta> {
    let complete = complete(snapshots, now);
    let distances =
        complete.windows(2).map(|pair| pair[1].time - pair[0].verified_until.min(pair[1].time));
    let mut newest: Vec<TimeDelta> = distances.rev().take(RECENT_DISTANCES).collect();
    newest.sort();
    let median = newest.get(newest.len().checked_sub(1)? / 2)?;
    Some((*median).max(TimeDelta::seconds(1)))
}

/// The complete snapshots that are not dated in the future, oldest first.
fn complete(snapshots: &[Snapshot], now: DateTime<Utc>) -> Vec<&Snapshot> {
    let counts = |snapshot: &&Snapshot| {
        snapshot.grade == Grade::Complete && snapshot.time <= now && snapshot.undated.is_none()
    };
    let mut complete: Vec<&Snapshot> = snapshots.iter().filter(counts).collect();
    complete.sort_by_key(|snapshot| snapshot.time);
    complete
}

fn look_ahead(
    snapshots: &[Snapshot],
    policy: &Policy,
    now: DateTime<Utc>,
    pushes: &Pushes,
) -> Forecast {
    let mut expiries = BTreeMap::new();
    let (mut held, due) = decided(snapshots, &[], policy, now);
    expiries.extend(due.into_iter().map(|name| (name, Expiry::Due)));
    let stays: BTreeSet<String> = {
        let (stays, _) = pushes.decided_after(&held, pushes.last, policy);
        stays.into_iter().map(|snapshot| snapshot.name).collect()
    };
    let mut count = 1;
    while count <= pushes.last && held.iter().any(|snapshot| !stays.contains(&snapshot.name)) {
        let (left, gone) = pushes.decided_after(&held, count, policy);
        expiries.extend(gone.into_iter().map(|name| (name, Expiry::At(pushes.time(count)))));
        held = left;
        count += (count / PRECISION).max(1);
    }
    expiries.extend(held.into_iter().map(|snapshot| (snapshot.name, Expiry::Stays)));
    Forecast { spacing: pushes.spacing, next_push: pushes.first, expiries }
}

/// Which snapshots of `held` stay at `now` if `others` exist, too, and the names of those that go.
fn decided(
    held: &[Snapshot],
    others: &[Snapshot],
    policy: &Policy,
    now: DateTime<Utc>,
) -> (Vec<Snapshot>, Vec<String>) {
    let all: Vec<Snapshot> = held.iter().chain(others).cloned().collect();
    let mut left = Vec::with_capacity(held.len());
    let mut gone = Vec::new();
    let verdicts = decide_each(all, policy, now).verdicts;
    for verdict in verdicts.into_iter().filter(|verdict| !is_future_push(&verdict.snapshot)) {
        match verdict.keep {
            true => left.push(verdict.snapshot),
            false => gone.push(verdict.snapshot.name),
        }
    }
    (left, gone)
}

/// The name of every future push; no snapshot has it. Each decision makes a hundred of them, and
/// nothing shows their names.
const FUTURE_PUSH: &str = "+";

fn is_future_push(snapshot: &Snapshot) -> bool {
    snapshot.name == FUTURE_PUSH
}

fn future_push(from: DateTime<Utc>, until: DateTime<Utc>) -> Snapshot {
    Snapshot { verified_until: until, ..pushed(FUTURE_PUSH.to_string(), from) }
}

/// The pushes to come, numbered from 1.
struct Pushes {
    first: DateTime<Utc>,
    spacing: TimeDelta,
    /// The number of the last one before the horizon.
    last: u64,
    /// How many of the newest pushes have to be snapshots of their own rather than part of a span.
    single: u64,
}

impl Pushes {
    fn new(first: DateTime<Utc>, spacing: TimeDelta, policy: &Policy) -> Self {
        let spacing_seconds = spacing.num_seconds().max(1) as u64;
        let last = 1 + HORIZON.num_seconds() as u64 / spacing_seconds;
        let slots =
            policy.keep.iter().map(|keep| single_pushes(*keep, spacing_seconds, policy.strict));
        let single =
            slots.max().unwrap_or(0).max(policy.min_keep as u64).clamp(1, MAX_SINGLE_PUSHES);
        Pushes { first, spacing, last, single }
    }

    fn time(&self, number: u64) -> DateTime<Utc> {
        // At most one push beyond the horizon.
        let after_first = TimeDelta::seconds(self.spacing.num_seconds() * (number as i64 - 1));
        self.first.checked_add_signed(after_first).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Which snapshots of `held` are left after `count` pushes, and the names of those that are
    /// not.
    fn decided_after(
        &self,
        held: &[Snapshot],
        count: u64,
        policy: &Policy,
    ) -> (Vec<Snapshot>, Vec<String>) {
        let before = count.saturating_sub(self.single);
        let span = (before > 0).then(|| future_push(self.time(1), self.time(before)));
        let single =
            (before + 1..=count).map(|number| future_push(self.time(number), self.time(number)));
        let others: Vec<Snapshot> = span.into_iter().chain(single).collect();
        decided(held, &others, policy, self.time(count))
    }
}

/// How many of the newest pushes have to be snapshots of their own for one frequency. None if every
/// slot has a push, because then one snapshot with a span does as well; else as many as can be
/// kept.
fn single_pushes(
    (frequency, count): (Frequency, SlotCount),
    spacing_seconds: u64,
    strict: bool,
) -> u64 {
    let slot_seconds = longest_slot_seconds(frequency);
    match count {
        SlotCount::Always => 0,
        SlotCount::Newest(_) if spacing_seconds < slot_seconds / 2 => 0,
        SlotCount::Newest(count) if strict => {
            u64::from(count).saturating_mul(slot_seconds) / spacing_seconds + 2
        }
        SlotCount::Newest(count) => u64::from(count),
    }
}

/// How long a slot can be, in seconds; an hour more or less where clocks change does not matter
/// here.
fn longest_slot_seconds(frequency: Frequency) -> u64 {
    const DAY: u64 = 86_400;
    match frequency {
        Frequency::Minutely => 60,
        Frequency::Hourly => 3_600,
        Frequency::Daily => DAY,
        Frequency::Weekly => 7 * DAY,
        Frequency::Monthly => 31 * DAY,
        Frequency::Yearly => 366 * DAY,
    }
}
