//! Random sets of snapshots that are hard for rotation, and a reduction of a failing set to a small
//! one.
//!
//! Everything follows from the seed of the [`Random`] that is passed in.

#![allow(dead_code, reason = "every test file uses another part of it")]

use std::fmt::Write;
use std::sync::OnceLock;

use chrono::{DateTime, Datelike, TimeDelta, TimeZone, Utc};
use rsyncd_snapshot::decide::duration_text::DurationText;
use rsyncd_snapshot::decide::frequency::{Frequency, SlotCount};
use rsyncd_snapshot::decide::grade::Grade;
use rsyncd_snapshot::decide::policy::{Policy, Prefer};
use rsyncd_snapshot::decide::snapshot::Snapshot;
use rsyncd_snapshot::decide::zone::Zone;

use crate::support::random::Random;

pub(crate) const MINUTE: i64 = 60;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

/// About as long as a slot of each frequency, finest first, and a second before them.
const UNITS: [i64; 7] = [1, MINUTE, HOUR, DAY, 7 * DAY, 30 * DAY, 365 * DAY];

/// Counts as a policy file and rotate-backups' ini file both write them.
const COUNTS: [&str; 16] = [
    "1", "1", "2", "2", "3", "4", "5", "7", "10", "12", "24", "31", "52", "24*7", "always",
    "always",
];

/// Zones whose clocks do something of their own: none at all; the usual two changes; the same on
/// the other side of midnight; by half an hour; never, but with half an hour to spare; at midnight,
/// so that days begin at one; and one that skipped 30 December 2011.
pub(crate) const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Amsterdam",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Sao_Paulo",
    "Pacific/Apia",
];

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A number from `low` to `high`, both included.
pub(crate) fn between(random: &mut Random, low: i64, high: i64) -> i64 {
    // One number of `Random` has 32 bits, which are few for the seconds of two centuries.
    let wide = random.below(1 << 31) << 31 | random.below(1 << 31);
    low + i64::try_from(wide).expect("62 bits") % (high - low + 1)
}

pub(crate) fn choice<T: Copy>(random: &mut Random, things: &[T]) -> T {
    *random.of(things).expect("something to choose from")
}

/// The zones by their names, read once.
pub(crate) fn zones() -> &'static [Zone] {
    static READ: OnceLock<Vec<Zone>> = OnceLock::new();
    READ.get_or_init(|| {
        let read = |name: &str| {
            rsyncd_snapshot::internals::time_zone::named(name)
                .unwrap_or_else(|| panic!("tzdata lacks {name}"))
        };
        ZONES.into_iter().map(read).collect()
    })
}

// -- Moments --------------------------------------------------------------------------------------

/// The times of a set of snapshots, oldest first; some may be equal.
pub(crate) fn moments(random: &mut Random, most: usize) -> Vec<DateTime<Utc>> {
    let newest = anchor(random);
    let size = match random.below(8) {
        0 => random.below(4),
        1..=4 => random.below(13),
        _ => random.below(most + 1),
    };
    let mut moments = match random.below(4) {
        0 => regular(random, newest, size),
        1 => bursts(random, newest, size),
        2 => boundaries(random, newest, size),
        _ => mixed(random, newest, size),
    };
    let oldest = Utc.with_ymd_and_hms(1900, 1, 1, 0, 0, 0).single().expect("a time");
    moments.retain(|moment| *moment >= oldest);
    moments.sort();
    moments
}

/// A moment to count back from, often one where the calendar has an edge.
fn anchor(random: &mut Random) -> DateTime<Utc> {
    let year = i32::try_from(between(random, 1975, 2080)).expect("a year");
    let day = |month, day| Utc.with_ymd_and_hms(year, month, day, 0, 0, 0).single().expect("a day");
    let leap_day =
        || Utc.with_ymd_and_hms(year / 4 * 4, 2, 29, 0, 0, 0).single().expect("a leap day");
    let edge = match random.below(8) {
        0 => day(1, 1),
        1 => leap_day(),
        2 => day(3, 31),
        // Summer time begins and ends, or did, within a few days of these.
        3 => {
            choice(random, &[day(3, 29), day(10, 25), day(3, 8), day(11, 1), day(4, 5), day(2, 17)])
        }
        // Samoa skips a day; and the numbers of days change their sign.
        4 => choice(random, &[at("2011-12-30T10:00:00Z"), at("1970-01-01T00:00:00Z")]),
        _ => return day(1, 1) + TimeDelta::seconds(between(random, 0, 365 * DAY)),
    };
    edge + TimeDelta::seconds(near(random))
}

/// Seconds around nothing: none, a few, some hours, some days.
fn near(random: &mut Random) -> i64 {
    match random.below(4) {
        0 => 0,
        1 => between(random, -2, 2),
        2 => between(random, -DAY, DAY),
        _ => between(random, -7 * DAY, 7 * DAY),
    }
}

/// Always as far apart: the time windows of strict counts end exactly at some.
fn regular(random: &mut Random, newest: DateTime<Utc>, size: usize) -> Vec<DateTime<Utc>> {
    let step = choice(random, &UNITS[1..]) / choice(random, &[1, 1, 1, 2, 3, 7]);
    let step = step * between(random, 1, 3);
    let lost = choice(random, &[2, 10, 1_000]);
    (0..size as i64)
        .map(|back| newest - TimeDelta::seconds(back * step))
        .filter(|_| !random.once_in(lost))
        .collect()
}

/// Several in a short time, and a long time nothing.
fn bursts(random: &mut Random, newest: DateTime<Utc>, size: usize) -> Vec<DateTime<Utc>> {
    let unit = random.below(4);
    let mut moment = newest;
    let mut moments = Vec::new();
    for _ in 0..size {
        moments.push(moment);
        let unit = UNITS[if random.once_in(5) { unit + 3 } else { unit }];
        moment -= TimeDelta::seconds(between(random, 0, 2 * unit));
    }
    moments
}

/// Around the ends of days, weeks, months and years.
fn boundaries(random: &mut Random, newest: DateTime<Utc>, size: usize) -> Vec<DateTime<Utc>> {
    let period = choice(random, &UNITS[3..]);
    let moment = |random: &mut Random, back: usize| {
        let time = newest - TimeDelta::seconds(back as i64 / 2 * period);
        let first = time.date_naive().with_day(1).expect("each month has one");
        let edge = if period > 7 * DAY { first } else { time.date_naive() };
        let edge =
            if period > 30 * DAY { edge.with_month(1).expect("each year has one") } else { edge };
        let edge = edge.and_hms_opt(0, 0, 0).expect("midnight").and_utc();
        edge + TimeDelta::seconds(if random.once_in(3) {
            near(random)
        } else {
            between(random, -2, 1)
        })
    };
    (0..size).map(|back| moment(random, back)).filter(|moment| *moment <= newest).collect()
}

/// Each as far from the next as chance will have it, from a second to a year.
fn mixed(random: &mut Random, newest: DateTime<Utc>, size: usize) -> Vec<DateTime<Utc>> {
    let (finest, range) = (random.below(5), 1 + random.below(3));
    let mut moment = newest;
    let mut moments = Vec::new();
    for _ in 0..size {
        moments.push(moment);
        let unit = UNITS[(finest + random.below(range)).min(UNITS.len() - 1)];
        // Whole units at times, so that wall-clock times repeat.
        let gap = if random.once_in(2) {
            unit * between(random, 1, 3)
        } else {
            between(random, 0, 2 * unit)
        };
        moment -= TimeDelta::seconds(gap);
    }
    moments
}

// -- Policies -------------------------------------------------------------------------------------

/// Some frequencies, finest first, with counts as text; never none.
pub(crate) fn schemes(random: &mut Random) -> Vec<(Frequency, &'static str)> {
    let rare = choice(random, &[2, 3, 6]);
    let mut chosen: Vec<Frequency> =
        Frequency::ALL.into_iter().filter(|_| random.once_in(rare)).collect();
    if chosen.is_empty() {
        chosen.push(choice(random, &Frequency::ALL));
    }
    chosen.into_iter().map(|frequency| (frequency, choice(random, &COUNTS))).collect()
}

/// A policy of slots alone: no floors but the newest, no caps.
pub(crate) fn bare_policy(scheme: &[(Frequency, &str)]) -> Policy {
    let count = |text: &str| SlotCount::parse(text).unwrap_or_else(|| panic!("{text} is no count"));
    Policy {
        keep: scheme.iter().map(|&(frequency, text)| (frequency, count(text))).collect(),
        min_keep: 1,
        min_age: DurationText::from_seconds(0),
        max_expire: usize::MAX,
        keep_partial: 0,
        time_zone: Zone::utc(),
        ..Policy::default()
    }
}

/// Any policy, in any of the zones.
pub(crate) fn policy(random: &mut Random) -> Policy {
    let unit = choice(random, &UNITS);
    Policy {
        strict: !random.once_in(3),
        prefer: choice(random, &[Prefer::Oldest, Prefer::Newest]),
        min_keep: random.below(6),
        min_age: DurationText::from_seconds(between(random, 0, 3 * unit).unsigned_abs()),
        keep_partial: random.below(4),
        time_zone: random.of(zones()).expect("a zone").clone(),
        ..bare_policy(&schemes(random))
    }
}

// -- Snapshots ------------------------------------------------------------------------------------

/// A complete snapshot of ours that was never verified since.
pub(crate) fn taken(time: DateTime<Utc>) -> Snapshot {
    Snapshot {
        name: time.format("%Y-%m-%dT%H-%M-%SZ").to_string(),
        time,
        verified_until: time,
        grade: Grade::Complete,
        recorded: true,
        pinned: None,
        unreadable: false,
        sequence: None,
        taken_at: None,
        undated: None,
        obstacle: None,
        reader: None,
    }
}

/// One snapshot a line, with whatever is out of the ordinary.
pub(crate) fn table(snapshots: &[Snapshot]) -> String {
    let mut text = String::new();
    for snapshot in snapshots {
        let Snapshot { name, time, verified_until, grade, recorded, pinned, unreadable, .. } =
            snapshot;
        write!(text, "\n  {name}: {time} {grade}").expect("text");
        if verified_until != time {
            write!(text, ", verified until {verified_until}").expect("text");
        }
        for (is, what) in [
            (!recorded, ", adopted"),
            (pinned.is_some(), ", pinned"),
            (*unreadable, ", unreadable"),
        ] {
            text += if is { what } else { "" };
        }
    }
    text
}

// -- Small sets -----------------------------------------------------------------------------------

/// Drops what it can of `things` as long as the rest still fails.
pub(crate) fn smallest<T: Clone>(things: &[T], fails: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut left = things.to_vec();
    let mut chunk = left.len().div_ceil(2);
    while chunk > 0 {
        let before = left.len();
        let mut start = 0;
        while start < left.len() {
            let mut fewer = left.clone();
            fewer.drain(start..(start + chunk).min(left.len()));
            if fails(&fewer) { left = fewer } else { start += chunk }
        }
        // After one is dropped, earlier ones may have become droppable.
        chunk = if chunk == 1 && left.len() < before { 1 } else { chunk / 2 };
    }
    left
}
