//! Marks the snapshots whose date is not believed.
//!
//! A snapshot's name is what the wall clock said, and its sequence number is the order in which
//! snapshots were really taken. Where the two contradict each other, where the boot clock
//! contradicts the names, or where a clock in doubt dated it, a snapshot is *undated*: it is kept,
//! and takes part in no slot, count or cutoff until the administrator confirms the dates. So a
//! snapshot expires only if it does so under every dating that sequence numbers, believed times and
//! boot clock allow. A date before 1990 is never believed: once the administrator has confirmed,
//! such a snapshot gets the date of its successor.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::decide::clock_history::ClockHistory;
use crate::decide::clock_reading::{is_plausible, tolerance};
use crate::decide::snapshot::{Snapshot, Undated};

/// Notes on each of `snapshots` whether its date can be believed.
pub fn mark(snapshots: &mut [Snapshot], clock: &ClockHistory) {
    for snapshot in snapshots.iter_mut() {
        snapshot.undated = by_itself(snapshot, clock);
    }
    date_by_successor(snapshots);
    mark_by_boot_clock(snapshots, clock);
    mark_by_order(snapshots, clock);
}

/// A date before 1990 is not believed even if the administrator has confirmed it. Such a snapshot
/// counts as taken at the time of the next snapshot whose date is believed, the latest time that is
/// possible. Without a next one it stays undated.
fn date_by_successor(snapshots: &mut [Snapshot]) {
    let believed: Vec<(u64, DateTime<Utc>)> = snapshots
        .iter()
        .filter(|snapshot| {
            snapshot.recorded && snapshot.undated.is_none() && is_plausible(snapshot.time)
        })
        .filter_map(|snapshot| Some((snapshot.sequence?, snapshot.time)))
        .collect();
    let is_meant = |snapshot: &&mut Snapshot| {
        snapshot.recorded && snapshot.undated.is_none() && !is_plausible(snapshot.time)
    };
    for snapshot in snapshots.iter_mut().filter(is_meant) {
        let is_later = |(sequence, _): &&(u64, DateTime<Utc>)| {
            snapshot.sequence.is_none_or(|own| *sequence > own)
        };
        match believed.iter().filter(is_later).map(|(_, time)| *time).min() {
            Some(time) => {
                snapshot.time = time;
                snapshot.verified_until = snapshot.verified_until.max(time);
            }
            None => snapshot.undated = Some(Undated::Implausible),
        }
    }
}

/// Whether the snapshot is undated by its own record and the history of the clock, without a look
/// at other snapshots.
fn by_itself(snapshot: &Snapshot, clock: &ClockHistory) -> Option<Undated> {
    if !snapshot.recorded {
        return None;
    }
    if snapshot.sequence.is_some_and(|sequence| clock.is_doubted(sequence)) {
        return Some(Undated::Doubted);
    }
    if clock.is_confirmed(snapshot.sequence) {
        return None;
    }
    if !is_plausible(snapshot.time) {
        return Some(Undated::Implausible);
    }
    let latest = clock.latest_date(snapshot.sequence.unwrap_or(0));
    latest.filter(|latest| is_later(snapshot.time, *latest)).map(|_| Undated::OutOfOrder)
}

/// Whether `one` is later than `other` for sure. Each clock may be off by its tolerance in either
/// direction, so two dates may differ by twice as much.
fn is_later(one: DateTime<Utc>, other: DateTime<Utc>) -> bool {
    one - other > tolerance(0) * 2
}

/// The snapshots that have a number and are not undated so far, in the order in which they were
/// taken.
fn in_sequence(snapshots: &[Snapshot]) -> Vec<usize> {
    let is_dated = |index: &usize| {
        let Snapshot { recorded, sequence, undated, .. } = &snapshots[*index];
        *recorded && sequence.is_some() && undated.is_none()
    };
    let mut order: Vec<usize> = (0..snapshots.len()).filter(is_dated).collect();
    order.sort_by_key(|&index| snapshots[index].sequence);
    order
}

/// All snapshots of a boot are undated if two in a row are farther apart, or nearer, than the boot
/// clock says.
fn mark_by_boot_clock(snapshots: &mut [Snapshot], clock: &ClockHistory) {
    let mut boots: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for index in in_sequence(snapshots) {
        if let Some(taken) =
            snapshots[index].taken_at.as_ref().filter(|taken| !taken.boot.is_empty())
        {
            boots.entry(&taken.boot).or_default().push(index);
        }
    }
    let contradicts = |pair: &[usize]| {
        let (one, next) = (&snapshots[pair[0]], &snapshots[pair[1]]);
        let seconds =
            |snapshot: &Snapshot| snapshot.taken_at.as_ref().map_or(0, |taken| taken.seconds());
        let passed = seconds(next).saturating_sub(seconds(one));
        let said = (next.time - one.time).num_seconds();
        !clock.is_confirmed(next.sequence)
            && said.abs_diff(passed) > 2 * tolerance(passed).num_seconds().unsigned_abs()
    };
    let wrong: Vec<usize> = boots
        .values()
        .filter(|boot| boot.windows(2).any(contradicts))
        .flatten()
        .copied()
        .filter(|&index| !clock.is_confirmed(snapshots[index].sequence))
        .collect();
    for index in wrong {
        snapshots[index].undated = Some(Undated::BootClock);
    }
}

/// Both of two snapshots are undated if the earlier one is dated later. Those without a number are
/// earlier than all that have one, and have no order among themselves.
fn mark_by_order(snapshots: &mut [Snapshot], clock: &ClockHistory) {
    let order = in_sequence(snapshots);
    let numberless = (0..snapshots.len())
        .filter(|&index| snapshots[index].sequence.is_none() && snapshots[index].recorded);
    let numberless: Vec<usize> =
        numberless.filter(|&index| snapshots[index].undated.is_none()).collect();
    let latest_numberless = numberless.iter().map(|&index| snapshots[index].time).max();
    let mut wrong = Vec::new();
    let mut latest = latest_numberless;
    for &index in &order {
        let time = snapshots[index].time;
        if latest.is_some_and(|latest| is_later(latest, time)) {
            wrong.push(index);
        }
        latest = latest.max(Some(time));
    }
    let mut earliest: Option<DateTime<Utc>> = None;
    for &index in order.iter().rev().chain(&numberless) {
        let time = snapshots[index].time;
        if earliest.is_some_and(|earliest| is_later(time, earliest)) {
            wrong.push(index);
        }
        if snapshots[index].sequence.is_some() {
            earliest = Some(earliest.map_or(time, |earliest| earliest.min(time)));
        }
    }
    for index in wrong {
        if !clock.is_confirmed(snapshots[index].sequence) {
            snapshots[index].undated = Some(Undated::OutOfOrder);
        }
    }
}
