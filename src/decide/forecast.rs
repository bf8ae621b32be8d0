//! When each kept snapshot will go if pushes continue as before.
//!
//! The forecast assumes further pushes at the usual distance, each of which makes a complete
//! snapshot. It need not decide after each of them. Of all pushes up to a future time except the
//! last few, only the slots that they hold together matter, and one snapshot with a span stands for
//! every slot within it. So *one* decision, by the code of the real rotation, tells what is left
//! after any number of pushes. The forecast looks at times ever farther apart. What has gone by one
//! of these times is absent from the next decision, as in reality. What goes by some number of
//! pushes goes by every greater number, too, so bisection finds when a snapshot goes next.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::decide::decision_before_guards::decide_each;
use crate::decide::frequency::{Frequency, SlotCount};
use crate::decide::grade::Grade;
use crate::decide::policy::Policy;
use crate::decide::replay::pushed;
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

/// With more of them, a forecast takes too long for a server with hundreds of modules.
const MAX_QUICK_PUSHES: u64 = 200;

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
    Some(look_ahead(snapshots, policy, now, &Pushes::to_come(snapshots, policy, now)?))
}

/// The snapshot that goes first if pushes continue as before, and when: sooner to find than the
/// whole [`forecast`]. `None` if none goes within ten years, if nothing shows how often pushes
/// come, or if a policy counts so many snapshots that each look ahead takes milliseconds.
pub fn next_expiry(
    snapshots: &[Snapshot],
    policy: &Policy,
    now: DateTime<Utc>,
) -> Option<(String, Expiry)> {
    let (held, due) = decided(snapshots, &[], policy, now);
    if let Some(name) = due.into_iter().next() {
        return Some((name, Expiry::Due));
    }
    let pushes = Pushes::to_come(snapshots, policy, now)?;
    if pushes.single > MAX_QUICK_PUSHES {
        return None;
    }
    let next = first_gone(1, pushes.last, |count| pushes.decided_after(&held, count, policy))?;
    Some((next.gone.into_iter().next()?, Expiry::At(pushes.time(next.at))))
}

/// What goes first, and by which of the numbers that were looked at.
struct NextGone {
    at: u64,
    left: Vec<Snapshot>,
    gone: Vec<String>,
}

/// The first number from `first` to `last` by which something goes.
fn first_gone(
    first: u64,
    last: u64,
    decided: impl Fn(u64) -> (Vec<Snapshot>, Vec<String>),
) -> Option<NextGone> {
    let gone_by = |at| {
        let (left, gone) = decided(at);
        (!gone.is_empty()).then_some(NextGone { at, left, gone })
    };
    // So it is in a full history, where each push lets one go.
    if let Some(next) = gone_by(first) {
        return Some(next);
    }
    let mut next = gone_by(last)?;
    // Nothing goes by `low`.
    let (mut low, mut step) = (first, 2);
    while next.at - low > 1 {
        let middle = if low + step < next.at { low + step } else { low + (next.at - low) / 2 };
        match gone_by(middle) {
            Some(earlier) => next = earlier,
            None => (low, step) = (middle, step * 2),
        }
    }
    Some(next)
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
    let farther = |count: &u64| Some(count + (count / PRECISION).max(1));
    let counts = std::iter::successors(Some(1), farther);
    let counts: Vec<u64> = counts.take_while(|count| *count <= pushes.last).collect();
    let count = |place: u64| counts[place as usize];
    let (mut first, last) = (0, counts.len() as u64 - 1);
    while first <= last && held.iter().any(|snapshot| !stays.contains(&snapshot.name)) {
        let decided = |place| pushes.decided_after(&held, count(place), policy);
        let Some(next) = first_gone(first, last, decided) else { break };
        let time = pushes.time(count(next.at));
        expiries.extend(next.gone.into_iter().map(|name| (name, Expiry::At(time))));
        held = next.left;
        first = next.at + 1;
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

/// A future push has no name: each decision makes a hundred of them, and nothing shows their names.
fn is_future_push(snapshot: &Snapshot) -> bool {
    snapshot.name.is_empty()
}

fn future_push(from: DateTime<Utc>, until: DateTime<Utc>) -> Snapshot {
    Snapshot { verified_until: until, ..pushed(String::new(), from) }
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
    /// The pushes after those that brought `snapshots`.
    fn to_come(snapshots: &[Snapshot], policy: &Policy, now: DateTime<Utc>) -> Option<Self> {
        let spacing = usual_spacing(snapshots, now)?;
        let newest = complete(snapshots, now).last().map(|snapshot| snapshot.verified_until);
        let next_push = newest.map_or(now, |newest| (newest + spacing).max(now));
        Some(Pushes::new(next_push, spacing, policy))
    }

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

/// How many of the newest pushes have to be snapshots of their own for one frequency. If every slot
/// has a push, none has to be, because one snapshot with a span stands for all these slots.
/// Otherwise it is as many as can be kept.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn time(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_000_000 + hours * 3_600, 0).expect("a time")
    }

    /// What goes with which push, by a decision at each of the numbers that the forecast looks at.
    fn step_by_step(
        snapshots: &[Snapshot],
        policy: &Policy,
        now: DateTime<Utc>,
    ) -> BTreeMap<String, DateTime<Utc>> {
        let pushes = Pushes::to_come(snapshots, policy, now).expect("a distance");
        let (mut held, _) = decided(snapshots, &[], policy, now);
        let (mut count, mut gone_at) = (1, BTreeMap::new());
        while count <= pushes.last {
            let (left, gone) = pushes.decided_after(&held, count, policy);
            gone_at.extend(gone.into_iter().map(|name| (name, pushes.time(count))));
            held = left;
            count += (count / PRECISION).max(1);
        }
        gone_at
    }

    #[test]
    fn a_forecast_skips_only_decisions_by_which_nothing_goes() {
        use crate::decide::policy::Prefer::{Newest, Oldest};
        let newest = SlotCount::Newest;
        let keeps = [
            vec![(Frequency::Hourly, newest(5))],
            vec![(Frequency::Hourly, newest(12)), (Frequency::Daily, newest(3))],
            vec![(Frequency::Daily, newest(3)), (Frequency::Weekly, SlotCount::Always)],
            vec![(Frequency::Weekly, newest(2)), (Frequency::Monthly, newest(3))],
        ];
        let mut gone = 0;
        for (keep, distance, prefer, strict) in keeps.iter().flat_map(|keep| {
            let hours = [5, 24, 100].into_iter();
            let preferred = |hours| [Oldest, Newest].map(|prefer| (hours, prefer));
            let all = hours.flat_map(preferred);
            all.flat_map(move |(hours, prefer)| [true, false].map(|is| (keep, hours, prefer, is)))
        }) {
            let policy =
                Policy { keep: keep.clone(), min_keep: 2, prefer, strict, ..Policy::default() };
            let snapshots: Vec<Snapshot> = (1..13)
                .map(|number| pushed(number.to_string(), time((number - 13) * distance)))
                .collect();
            let whole = forecast(&snapshots, &policy, time(0)).expect("a forecast");
            let at = |(name, expiry): (&String, &Expiry)| match expiry {
                Expiry::At(time) => Some((name.clone(), *time)),
                Expiry::Due | Expiry::Stays => None,
            };
            let found: BTreeMap<_, _> = whole.expiries.iter().filter_map(at).collect();
            let expected = step_by_step(&snapshots, &policy, time(0));
            assert_eq!(found, expected, "{keep:?} {distance} {prefer:?} {strict}");
            gone += found.len();
        }
        assert!(gone > 100, "{gone}");
    }

    /// The forecast is exact up to some pushes, so the first expiries are compared.
    #[test]
    fn the_next_expiry_is_the_first_of_the_forecast() {
        let keeps = [
            vec![(Frequency::Hourly, SlotCount::Newest(5))],
            vec![(Frequency::Daily, SlotCount::Newest(7))],
            vec![(Frequency::Daily, SlotCount::Newest(3)), (Frequency::Weekly, SlotCount::Always)],
            vec![(Frequency::Daily, SlotCount::Always)],
        ];
        let mut found = [0, 0, 0];
        for (keep, distance, count) in keeps.iter().flat_map(|keep| {
            [(1, 3), (1, 20), (7, 4), (24, 2), (24, 12)].map(|(hours, many)| (keep, hours, many))
        }) {
            let policy = Policy { keep: keep.clone(), min_keep: 1, ..Policy::default() };
            let taken = |number: i64| time((number - count) * distance);
            let names = (1..=count).map(|number| (number.to_string(), taken(number)));
            let snapshots: Vec<Snapshot> = names.map(|(name, time)| pushed(name, time)).collect();
            let whole = forecast(&snapshots, &policy, time(0)).expect("a forecast");
            let expiries = whole.expiries.values();
            let first = match expiries.clone().find(|expiry| **expiry == Expiry::Due) {
                Some(due) => Some(*due),
                None => {
                    expiries.copied().filter(|one| *one != Expiry::Stays).min_by_key(
                        |one| match one {
                            Expiry::At(time) => Some(*time),
                            Expiry::Due | Expiry::Stays => None,
                        },
                    )
                }
            };
            let next = next_expiry(&snapshots, &policy, time(0));
            assert_eq!(next.as_ref().map(|(_, when)| *when), first, "{keep:?} {distance} {count}");
            if let Some((name, when)) = next {
                assert_eq!(whole.expiry(&name), Some(when), "{keep:?} {distance} {count}");
            }
            match first {
                Some(Expiry::Due) => found[0] += 1,
                Some(_) => found[1] += 1,
                None => found[2] += 1,
            }
        }
        assert!(found.iter().all(|count| *count > 0), "{found:?}");
        let snapshots: Vec<Snapshot> =
            (1..4).map(|number| pushed(number.to_string(), time(number - 4))).collect();
        let many = Policy { min_keep: 1_000, ..Policy::default() };
        assert_eq!(next_expiry(&snapshots, &many, time(0)), None, "that would take too long");
    }
}
