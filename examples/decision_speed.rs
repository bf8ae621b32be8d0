//! Measures the time of a decision by the number of snapshots, for `benches/decision`.
//!
//! `decision_speed RUNS` prints a table for each policy: microseconds per snapshot, the median of
//! RUNS decisions, and the growth from one size to the next relative to n log n. Processor time is
//! measured, because the decision only computes: other load on the machine has no effect.

use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use nix::time::{ClockId, clock_gettime};
use rsyncd_snapshot::decide::frequency::{Frequency, SlotCount};
use rsyncd_snapshot::decide::grade::Grade;
use rsyncd_snapshot::decide::policy::{Policy, Prefer};
use rsyncd_snapshot::decide::rotation::decide;
use rsyncd_snapshot::decide::snapshot::Snapshot;
use rsyncd_snapshot::decide::snapshot_verdict::RotationHistory;
use rsyncd_snapshot::decide::zone::Zone;

const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];

/// The average distance of two snapshots. 100,000 of them span three years.
const MINUTES_APART: i64 = 16;

fn main() -> ExitCode {
    let runs = std::env::args()
        .nth(1)
        .and_then(|runs| runs.parse::<usize>().ok())
        .filter(|runs| *runs > 0);
    let Some(runs) = runs else {
        eprintln!("usage: decision_speed RUNS");
        return ExitCode::from(2);
    };
    println!("microseconds per snapshot, median of {runs} decisions");
    print!("{:<34}", "policy");
    SIZES.iter().for_each(|size| print!("{size:>10}"));
    println!("   growth / n log n");
    for (name, policy) in policies() {
        let medians = SIZES.map(|size| median(runs, &history(size), &policy));
        print!("{name:<34}");
        SIZES
            .iter()
            .zip(medians)
            .for_each(|(size, median)| print!("{:>10.3}", median / *size as f64));
        let growth: Vec<String> = (1..SIZES.len()).map(|index| growth(&medians, index)).collect();
        println!("   {}", growth.join(" "));
    }
    ExitCode::SUCCESS
}

/// The growth of the time since the size before; 1 means n log n.
fn growth(medians: &[f64], index: usize) -> String {
    let n_log_n = |size: usize| size as f64 * (size as f64).ln();
    let expected = n_log_n(SIZES[index]) / n_log_n(SIZES[index - 1]);
    format!("{:.2}", medians[index] / medians[index - 1] / expected)
}

fn policies() -> Vec<(&'static str, Policy)> {
    let amsterdam =
        rsyncd_snapshot::internals::time_zone::named("Europe/Amsterdam").unwrap_or_else(Zone::utc);
    let defaults = Policy { time_zone: Zone::utc(), ..Policy::default() };
    let all = Frequency::ALL.map(|frequency| (frequency, SlotCount::Newest(100))).to_vec();
    let everything = vec![(Frequency::Minutely, SlotCount::Always)];
    vec![
        ("defaults, UTC", defaults.clone()),
        ("defaults, Europe/Amsterdam", Policy { time_zone: amsterdam, ..defaults.clone() }),
        ("relaxed, newest", Policy { strict: false, prefer: Prefer::Newest, ..defaults.clone() }),
        ("100 of each frequency", Policy { keep: all, ..defaults.clone() }),
        ("minutely always: nothing goes", Policy { keep: everything, ..defaults.clone() }),
        ("defaults, all may go at once", Policy { max_expire: usize::MAX, ..defaults }),
    ]
}

/// Snapshots about a quarter of an hour apart, in random order, as a directory lists them. Some are
/// verified, some are partial.
fn history(size: usize) -> Vec<Snapshot> {
    let start: DateTime<Utc> = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    let snapshot = |place: usize| {
        let minutes = place as i64 * MINUTES_APART + (place as i64 * 7_919) % 11;
        let time = start + TimeDelta::minutes(minutes);
        Snapshot {
            name: time.format("%Y-%m-%dT%H-%M-%SZ").to_string(),
            time,
            verified_until: time + TimeDelta::minutes(if place.is_multiple_of(3) { 5 } else { 0 }),
            grade: if place % 50 == 49 { Grade::Partial } else { Grade::Complete },
            recorded: true,
            pinned: None,
            unreadable: false,
            sequence: None,
            taken_at: None,
            undated: None,
            obstacle: None,
            reader: None,
        }
    };
    // A step without a common factor with the size visits every index once.
    (0..size).map(|index| snapshot(index * 7_919 % size)).collect()
}

/// The median in microseconds.
fn median(runs: usize, snapshots: &[Snapshot], policy: &Policy) -> f64 {
    let now =
        snapshots.iter().map(|snapshot| snapshot.verified_until).max().expect("some snapshots");
    let mut times: Vec<f64> = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = processor_time();
        let decision = decide(snapshots, &RotationHistory::default(), policy, now);
        times.push((processor_time() - start).as_secs_f64() * 1e6);
        assert_eq!(decision.verdicts.len(), snapshots.len());
    }
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the clock of this thread").into()
}
