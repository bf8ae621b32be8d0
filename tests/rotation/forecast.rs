//! The forecast against the future itself: a simulation push by push.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use rsyncd_snapshot::decide::decision_before_guards::decide_before_guards;
use rsyncd_snapshot::decide::duration_text::DurationText;
use rsyncd_snapshot::decide::forecast::{Expiry, Forecast, forecast};
use rsyncd_snapshot::decide::frequency::{Frequency, SlotCount};
use rsyncd_snapshot::decide::grade::Grade;
use rsyncd_snapshot::decide::name::SnapshotName;
use rsyncd_snapshot::decide::policy::{Policy, Prefer};
use rsyncd_snapshot::decide::snapshot::Snapshot;
use rsyncd_snapshot::decide::zone::Zone;

use crate::support;

use support::random::Random;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect(text)
}

const NOW: &str = "2026-11-22T19:10:00Z";

fn taken(time: DateTime<Utc>) -> Snapshot {
    Snapshot {
        name: SnapshotName::new(time, Grade::Complete).text,
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

fn policy(keep: &[(Frequency, SlotCount)]) -> Policy {
    Policy { keep: keep.to_vec(), min_keep: 1, time_zone: Zone::utc(), ..Policy::default() }
}

/// Rotates what is held together with a new snapshot.
fn push(held: Vec<Snapshot>, time: DateTime<Utc>, policy: &Policy) -> Vec<Snapshot> {
    let mut all = held;
    all.push(taken(time));
    let verdicts = decide_before_guards(&all, policy, time).verdicts;
    verdicts.into_iter().filter(|verdict| verdict.keep).map(|verdict| verdict.snapshot).collect()
}

/// When each snapshot really goes, within `pushes` pushes.
fn really(
    snapshots: &[Snapshot],
    policy: &Policy,
    expected: &Forecast,
    pushes: i32,
) -> BTreeMap<String, DateTime<Utc>> {
    let mut held = snapshots.to_vec();
    let mut gone = BTreeMap::new();
    for number in 0..pushes {
        let time = expected.next_push + expected.spacing * number;
        held = push(held, time, policy);
        for snapshot in snapshots {
            if !gone.contains_key(&snapshot.name)
                && !held.iter().any(|left| left.name == snapshot.name)
            {
                gone.insert(snapshot.name.clone(), time);
            }
        }
    }
    gone
}

/// What a while of pushes has left, some of them quiet.
fn history(
    random: &mut Random,
    policy: &Policy,
    spacing: TimeDelta,
    now: DateTime<Utc>,
) -> Vec<Snapshot> {
    let pushes = 20 + random.below(400) as i32;
    let mut held: Vec<Snapshot> = Vec::new();
    for number in (0..pushes).rev() {
        let time = now - TimeDelta::minutes(5) - spacing * number;
        match held.last_mut() {
            Some(newest) if random.once_in(4) => newest.verified_until = time,
            _ => held = push(held, time, policy),
        }
    }
    held
}

fn random_policy(random: &mut Random) -> Policy {
    let mut keep = Vec::new();
    for frequency in &Frequency::ALL[1..] {
        if random.once_in(2) {
            let count = if random.once_in(8) {
                SlotCount::Always
            } else {
                SlotCount::Newest(1 + random.below(12) as u32)
            };
            keep.push((*frequency, count));
        }
    }
    if keep.is_empty() {
        keep.push((Frequency::Daily, SlotCount::Newest(5)));
    }
    Policy {
        strict: random.below(3) > 0,
        prefer: if random.once_in(3) { Prefer::Newest } else { Prefer::Oldest },
        min_keep: random.below(5),
        min_age: DurationText::from_seconds(3_600 * random.below(60) as u64),
        ..policy(&keep)
    }
}

#[test]
fn the_forecast_is_what_a_simulation_push_by_push_shows() {
    slow!();
    let mut random = Random::new(4);
    let mut compared = [0; 2];
    let rounds = support::by_sweep(10, 40, 40);
    for round in 0..rounds {
        let policy = random_policy(&mut random);
        let spacing = TimeDelta::minutes([20, 60, 24 * 60, 3 * 24 * 60 + 7][round % 4]);
        let now = at(NOW);
        let mut snapshots = history(&mut random, &policy, spacing, now);
        if let Some(pinned) = snapshots.first_mut().filter(|_| round % 5 == 0) {
            pinned.pinned = Some("a reason".to_string());
        }
        let Some(forecast) = forecast(&snapshots, &policy, now) else { continue };
        // Nine years at most: beyond ten a snapshot is said to stay.
        let pushes = (TimeDelta::days(9 * 365).num_seconds() / forecast.spacing.num_seconds())
            .min(1_000) as i32;
        let end = forecast.next_push + forecast.spacing * (pushes - 1);
        let gone = really(&snapshots, &policy, &forecast, pushes);
        for snapshot in &snapshots {
            let told = forecast.expiry(&snapshot.name).expect("every snapshot has a future");
            let context = format!(
                "round {round}, {}, {told:?}, {policy:?}, every {}",
                snapshot.name, forecast.spacing
            );
            match (gone.get(&snapshot.name), told) {
                (Some(&real), Expiry::At(told)) => {
                    let tolerance = forecast.spacing.max((real - now) / 64) + forecast.spacing;
                    assert!((told - real).abs() <= tolerance, "really {real}: {context}");
                    compared[0] += 1;
                }
                (None, Expiry::At(told)) => {
                    assert!(told > end - (end - now) / 64, "still there at {end}: {context}")
                }
                (None, Expiry::Stays) => compared[1] += 1,
                (Some(&real), Expiry::Due) => assert_eq!(real, forecast.next_push, "{context}"),
                (real, _) => panic!("really {real:?}: {context}"),
            }
        }
    }
    // 300 and 100 of 40 rounds.
    assert!(
        compared[0] * 2 > rounds * 15 && compared[1] * 2 > rounds * 5,
        "{compared:?} of {rounds} rounds"
    );
}
