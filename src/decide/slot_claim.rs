//! For one frequency: which complete snapshot stands for which slot.
//!
//! A snapshot is valid from its own time to verified-until and so spans a *range* of slots. With
//! slots numbered without gaps, which snapshot stands for a slot and which slots are the newest is
//! arithmetic on ranges: linear in the number of snapshots, however long nothing changed.

use crate::decide::frequency::{Frequency, SlotCount};
use crate::decide::policy::{Policy, Prefer};
use crate::decide::slot::{self, LocalMoment};
use crate::decide::zone::Zone;

/// From when until when a snapshot shows the module as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownPeriod {
    /// When it was taken.
    pub from: LocalMoment,
    /// When it was last verified; not before `from`.
    pub until: LocalMoment,
}

/// The slots that one snapshot covers, and how far it reaches on the frequency's axis.
struct HeldSlots {
    first_slot: i64,
    last_slot: i64,
    reaches: i64,
}

impl HeldSlots {
    /// A snapshot is valid until it was last verified, but not beyond the next one's time: from
    /// there on the next one is.
    fn new(spans: &[ShownPeriod], position: usize, frequency: Frequency, zone: &Zone) -> Self {
        let ShownPeriod { from, until } = spans[position];
        // The comparison is of times: a wall clock shows some of them twice.
        let until = match spans.get(position + 1) {
            Some(next) if next.from.time < until.time => next.from,
            _ => until,
        };
        let until = if until.time < from.time { from } else { until };
        let reaches = slot::position(frequency, until, zone);
        let first_slot = slot::slot_at(frequency, slot::position(frequency, from, zone));
        HeldSlots {
            first_slot,
            last_slot: slot::slot_at(frequency, reaches).max(first_slot),
            reaches,
        }
    }
}

/// What one frequency says about one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotClaim {
    /// It stands for a kept slot; the newest such slot has this rank.
    Kept {
        /// 1 for the newest slot of all.
        rank: u64,
    },
    /// Another one (by position) stands for its slot.
    Taken {
        /// Its place in the input.
        by: usize,
    },
    /// It stands only for slots that are too old.
    Outside,
}

/// Decides one frequency for all complete snapshots, given oldest first.
pub fn claims(
    spans: &[ShownPeriod],
    frequency: Frequency,
    count: SlotCount,
    policy: &Policy,
) -> Vec<SlotClaim> {
    let held: Vec<HeldSlots> = (0..spans.len())
        .map(|position| HeldSlots::new(spans, position, frequency, &policy.time_zone))
        .collect();
    let ranges = represented(&held, policy.prefer);
    let cutoff = match (count, held.last()) {
        // The window is counted back from when the newest was taken, as rotate-backups does;
        // where it was verified since, from there: its age counts from verified-until.
        (SlotCount::Newest(count), Some(newest)) if policy.strict => {
            slot::periods_before(frequency, newest.reaches, count)
        }
        _ => None,
    };
    let mut remaining = match count {
        SlotCount::Newest(count) => u64::from(count),
        SlotCount::Always => u64::MAX,
    };
    let mut rank = 1;
    let mut claims = vec![SlotClaim::Outside; held.len()];
    for position in (0..held.len()).rev() {
        claims[position] = match ranges[position] {
            OwnedSlots::TakenBy(by) => SlotClaim::Taken { by },
            OwnedSlots::Slots { first, last } => {
                let slots = slots_within(&held[position], first, last, frequency, cutoff);
                if slots == 0 || remaining == 0 {
                    SlotClaim::Outside
                } else {
                    remaining = remaining.saturating_sub(slots);
                    rank += slots;
                    SlotClaim::Kept { rank: rank - slots }
                }
            }
        };
    }
    claims
}

/// The slots that a snapshot stands for.
enum OwnedSlots {
    Slots { first: i64, last: i64 },
    TakenBy(usize),
}

/// Decides which snapshot stands for each slot. Snapshots are in order of time, so their ranges
/// overlap only at the ends: with `oldest` a snapshot stands for what no earlier one holds, with
/// `newest` for what no later one holds.
fn represented(held: &[HeldSlots], prefer: Prefer) -> Vec<OwnedSlots> {
    let mut ranges: Vec<OwnedSlots> = Vec::with_capacity(held.len());
    let mut owner: Option<(usize, i64)> = None;
    let positions: Box<dyn Iterator<Item = usize>> = match prefer {
        Prefer::Oldest => Box::new(0..held.len()),
        Prefer::Newest => Box::new((0..held.len()).rev()),
    };
    for position in positions {
        let HeldSlots { first_slot, last_slot, .. } = held[position];
        let (first, last) = match (prefer, owner) {
            (_, None) => (first_slot, last_slot),
            (Prefer::Oldest, Some((_, taken))) => (first_slot.max(taken + 1), last_slot),
            (Prefer::Newest, Some((_, taken))) => (first_slot, last_slot.min(taken - 1)),
        };
        if first > last {
            ranges.push(OwnedSlots::TakenBy(owner.map_or(position, |(by, _)| by)));
        } else {
            owner = Some((position, if prefer == Prefer::Oldest { last } else { first }));
            ranges.push(OwnedSlots::Slots { first, last });
        }
    }
    if prefer == Prefer::Newest {
        ranges.reverse();
    }
    ranges
}

/// How many of the slots from `first` to `last` are not before the cutoff. In the slot that
/// the cutoff falls into, the snapshot must reach the cutoff itself.
fn slots_within(
    held: &HeldSlots,
    first: i64,
    last: i64,
    frequency: Frequency,
    cutoff: Option<i64>,
) -> u64 {
    let Some(cutoff) = cutoff else {
        return last.abs_diff(first) + 1;
    };
    let cutoff_slot = slot::slot_at(frequency, cutoff);
    let first_within = if held.reaches >= cutoff { cutoff_slot } else { cutoff_slot + 1 };
    let first = first.max(first_within);
    if first > last { 0 } else { last.abs_diff(first) + 1 }
}
