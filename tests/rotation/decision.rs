//! The rotation decision as data: no clock, no file system.

use chrono::{DateTime, TimeDelta, Utc};
use rsyncd_snapshot::decide::clock_jump::ClockJump;
use rsyncd_snapshot::decide::decision_before_guards::decide_before_guards;
use rsyncd_snapshot::decide::duration_text::DurationText;
use rsyncd_snapshot::decide::free_space_candidates::free_space_candidates;
use rsyncd_snapshot::decide::frequency::{Frequency, SlotCount};
use rsyncd_snapshot::decide::grade::Grade;
use rsyncd_snapshot::decide::lease::SnapshotReader;
use rsyncd_snapshot::decide::policy::{Policy, Prefer};
use rsyncd_snapshot::decide::rotation::decide;
use rsyncd_snapshot::decide::snapshot::Snapshot;
use rsyncd_snapshot::decide::snapshot_reason::{ExpiryPause, SnapshotReason};
use rsyncd_snapshot::decide::snapshot_verdict::{Decision, RotationHistory};
use rsyncd_snapshot::decide::zone::Zone;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A complete snapshot of ours, verified never since.
fn taken(time: &str) -> Snapshot {
    Snapshot {
        name: time.to_string(),
        time: at(time),
        verified_until: at(time),
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

fn verified(time: &str, until: &str) -> Snapshot {
    Snapshot { verified_until: at(until), ..taken(time) }
}

fn partial(time: &str) -> Snapshot {
    Snapshot { grade: Grade::Partial, ..taken(time) }
}

/// A policy without floors, so that only the slots speak.
fn policy(keep: &[(Frequency, SlotCount)]) -> Policy {
    Policy {
        keep: keep.to_vec(),
        min_keep: 0,
        min_age: DurationText::from_seconds(0),
        max_expire: 1_000,
        time_zone: Zone::utc(),
        ..Policy::default()
    }
}

fn daily(count: u32) -> Policy {
    policy(&[(Frequency::Daily, SlotCount::Newest(count))])
}

fn kept(decision: &Decision) -> Vec<&str> {
    decision
        .verdicts
        .iter()
        .filter(|verdict| verdict.keep)
        .map(|verdict| verdict.snapshot.name.as_str())
        .collect()
}

fn reasons<'a>(decision: &'a Decision, name: &str) -> &'a [SnapshotReason] {
    &decision.verdicts.iter().find(|verdict| verdict.snapshot.name == name).unwrap().reasons
}

const NOW: &str = "2026-11-23T12:00:00Z";

fn decided(snapshots: &[Snapshot], policy: &Policy) -> Decision {
    decide(snapshots, &RotationHistory::default(), policy, at(NOW))
}

#[test]
fn the_oldest_of_each_day_stays_and_so_does_the_newest_of_all() {
    let snapshots = [
        taken("2026-11-21T01:00:00Z"),
        taken("2026-11-21T02:00:00Z"),
        taken("2026-11-22T01:00:00Z"),
        taken("2026-11-22T02:00:00Z"),
        taken("2026-11-22T03:00:00Z"),
    ];
    let decision = decided(&snapshots, &daily(7));
    assert_eq!(
        kept(&decision),
        ["2026-11-21T01:00:00Z", "2026-11-22T01:00:00Z", "2026-11-22T03:00:00Z"]
    );
    assert_eq!(
        reasons(&decision, "2026-11-21T01:00:00Z")[0].to_string(),
        "daily 2 of 7: oldest of 2026-11-21"
    );
    assert_eq!(reasons(&decision, "2026-11-22T03:00:00Z"), [SnapshotReason::NewestComplete]);
    let words = reasons(&decision, "2026-11-22T02:00:00Z")[0].to_string();
    assert_eq!(words, "daily: 2026-11-22T01:00:00Z stands for 2026-11-22");
}

#[test]
fn with_prefer_newest_the_last_of_each_day_stays() {
    let snapshots = [
        taken("2026-11-21T01:00:00Z"),
        taken("2026-11-21T02:00:00Z"),
        taken("2026-11-22T01:00:00Z"),
    ];
    let decision = decided(&snapshots, &Policy { prefer: Prefer::Newest, ..daily(7) });
    assert_eq!(kept(&decision), ["2026-11-21T02:00:00Z", "2026-11-22T01:00:00Z"]);
}

#[test]
fn strict_counts_are_windows_and_relaxed_ones_are_not() {
    let snapshots = [
        taken("2026-01-01T00:00:00Z"),
        taken("2026-11-21T00:00:00Z"),
        taken("2026-11-22T00:00:00Z"),
    ];
    assert_eq!(
        kept(&decided(&snapshots, &daily(3))),
        ["2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"]
    );
    let relaxed = Policy { strict: false, ..daily(3) };
    assert_eq!(kept(&decided(&snapshots, &relaxed)).len(), 3);
}

#[test]
fn the_order_of_the_input_does_not_matter() {
    let mut snapshots = vec![
        taken("2026-11-22T02:00:00Z"),
        taken("2026-11-20T01:00:00Z"),
        taken("2026-11-22T01:00:00Z"),
    ];
    let one = decided(&snapshots, &daily(7));
    snapshots.reverse();
    assert_eq!(decided(&snapshots, &daily(7)), one);
}

#[test]
fn partial_snapshots_displace_nothing_and_only_the_newest_few_stay() {
    let mut snapshots = vec![taken("2026-11-20T00:00:00Z"), taken("2026-11-21T00:00:00Z")];
    for hour in 0..10 {
        snapshots.push(partial(&format!("2026-11-22T{hour:02}:00:00Z")));
    }
    let decision = decided(&snapshots, &policy(&[(Frequency::Hourly, SlotCount::Newest(1))]));
    let names = kept(&decision);
    assert_eq!(
        names,
        [
            "2026-11-21T00:00:00Z",
            "2026-11-22T07:00:00Z",
            "2026-11-22T08:00:00Z",
            "2026-11-22T09:00:00Z"
        ]
    );
}

#[test]
fn failed_transfers_change_nothing_about_complete_snapshots() {
    let complete: Vec<Snapshot> =
        (1..20).map(|day| taken(&format!("2026-11-{day:02}T05:00:00Z"))).collect();
    let mut with_partials = complete.clone();
    with_partials.extend((1..20).flat_map(|day| {
        (6..20).map(move |hour| partial(&format!("2026-11-{day:02}T{hour:02}:00:00Z")))
    }));
    let only_complete = |decision: &Decision| -> Vec<(String, bool, Vec<SnapshotReason>)> {
        let complete =
            decision.verdicts.iter().filter(|verdict| verdict.snapshot.grade == Grade::Complete);
        complete
            .map(|verdict| (verdict.snapshot.name.clone(), verdict.keep, verdict.reasons.clone()))
            .collect()
    };
    let policy = Policy { min_keep: 3, ..daily(7) };
    assert_eq!(
        only_complete(&decided(&complete, &policy)),
        only_complete(&decided(&with_partials, &policy))
    );
}

#[test]
fn a_month_of_partial_snapshots_is_thinned_not_lost() {
    let good = taken("2026-10-20T03:00:00Z");
    let old = [partial("2026-10-18T03:00:00Z"), partial("2026-10-19T03:00:00Z")];
    let failed =
        (1..=22).flat_map(|day| [3, 15].map(|hour| format!("2026-11-{day:02}T{hour:02}:00:00Z")));
    let mut snapshots: Vec<Snapshot> = failed.map(|time| partial(&time)).collect();
    snapshots.extend(old.into_iter().chain([good.clone()]));
    let policy = Policy { keep_partial: 3, min_keep: 1, ..daily(7) };
    let decision = decided(&snapshots, &policy);
    let kept: Vec<&str> = decision
        .verdicts
        .iter()
        .filter(|one| one.keep)
        .map(|one| one.snapshot.name.as_str())
        .collect();
    // Seven days of them, the newest three, and the complete one as ever; older partial ones as
    // before.
    let days: Vec<String> = (16..=22).map(|day| format!("2026-11-{day:02}T03:00:00Z")).collect();
    assert_eq!(kept[0], good.name);
    assert!(days.iter().all(|day| kept.contains(&day.as_str())), "{kept:?}");
    assert_eq!(kept.len(), 1 + 7 + 2, "{kept:?}");
    let words: Vec<String> =
        reasons(&decision, "2026-11-17T03:00:00Z").iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        ["stands for daily slot 2026-11-17 among the partial snapshots since 2026-10-20T03:00:00Z"]
    );
}

#[test]
fn one_bad_push_does_not_expire_the_last_good_state() {
    let good = verified("2026-10-01T00:00:00Z", "2026-11-22T23:00:00Z");
    let bad = taken("2026-11-23T00:00:00Z");
    let policy = daily(7);
    let decision = decided(&[good.clone(), bad.clone()], &policy);
    assert_eq!(kept(&decision).len(), 2, "{:?}", decision.verdicts);
    let unverified = Snapshot { verified_until: good.time, ..good };
    assert_eq!(kept(&decided(&[unverified, bad], &policy)).len(), 1);
}

/// The same history once as quiet runs and once as if each had made a snapshot of its own.
#[test]
fn a_quiet_period_counts_like_a_snapshot_each_run() {
    slow!();
    let policies = [
        daily(3),
        policy(&[
            (Frequency::Hourly, SlotCount::Newest(24)),
            (Frequency::Daily, SlotCount::Newest(7)),
        ]),
        Policy { prefer: Prefer::Newest, ..policy(&[(Frequency::Weekly, SlotCount::Newest(2))]) },
    ];
    let start = at("2026-09-01T00:30:00Z");
    for policy in &policies {
        for quiet_hours in [0, 1, 5, 30, 200] {
            for hours_since in (1..24 * 20).step_by(7) {
                let name =
                    |hour: i64| (start + TimeDelta::hours(hour)).format("%FT%TZ").to_string();
                let pushes: Vec<Snapshot> =
                    (1..=hours_since).map(|hour| taken(&name(quiet_hours + hour))).collect();
                let as_if: Vec<Snapshot> =
                    (0..=quiet_hours).map(|hour| taken(&name(hour))).collect();
                let quiet = verified(&name(0), &name(quiet_hours));
                let now = at(&name(quiet_hours + hours_since));
                let with_quiet: Vec<Snapshot> =
                    std::iter::once(quiet).chain(pushes.clone()).collect();
                let with_all: Vec<Snapshot> = as_if.iter().cloned().chain(pushes).collect();
                let any_kept = decide_before_guards(&with_all, policy, now).verdicts[..as_if.len()]
                    .iter()
                    .any(|v| v.keep);
                let quiet_kept = decide_before_guards(&with_quiet, policy, now).verdicts[0].keep;
                assert!(quiet_kept >= any_kept, "{policy:?} {quiet_hours} {hours_since}");
            }
        }
    }
}

#[test]
fn future_dated_names_expire_no_other_snapshot() {
    let foreign_clock = Snapshot { recorded: false, ..taken("2036-01-01T00:00:00Z") };
    let snapshots = [taken("2026-11-21T00:00:00Z"), taken("2026-11-22T00:00:00Z"), foreign_clock];
    let decision = decided(&snapshots, &daily(7));
    assert_eq!(kept(&decision).len(), 3);
    assert_eq!(reasons(&decision, "2036-01-01T00:00:00Z"), [SnapshotReason::Future]);
    assert!(decision.pause.is_none());
}

#[test]
fn a_recorded_snapshot_dated_later_than_now_pauses_expiry() {
    let snapshots = [
        taken("2026-01-01T00:00:00Z"),
        taken("2026-11-22T00:00:00Z"),
        taken("2026-12-01T00:00:00Z"),
    ];
    let decision = decided(&snapshots, &daily(1));
    assert_eq!(decision.expired().count(), 0);
    assert!(matches!(decision.pause, Some(ExpiryPause::RecordedInFuture(_))));
}

/// A wrong clock, less wrong than `clock_jump`, has verified a snapshot days ahead.
#[test]
fn a_verification_in_the_future_pauses_expiry_and_stands_for_nothing() {
    let bogus = verified("2026-11-11T08:00:00Z", "2026-12-01T08:00:00Z");
    let mut snapshots = vec![bogus];
    snapshots.extend((12..=22).map(|day| taken(&format!("2026-11-{day}T14:00:00Z"))));
    assert!(matches!(
        decided(&snapshots, &daily(30)).pause,
        Some(ExpiryPause::RecordedInFuture(_))
    ));
    let confirmed = RotationHistory {
        confirmed_future: Some(at("2026-12-01T08:00:00Z")),
        ..RotationHistory::default()
    };
    let decision = decide(&snapshots, &confirmed, &daily(30), at(NOW));
    assert_eq!(decision.pause, None);
    assert_eq!(decision.expired().count(), 0, "each has its own day");
}

#[test]
fn clock_jumps_of_ten_years_either_way_expire_nothing() {
    let snapshots: Vec<Snapshot> =
        (1..20).map(|day| taken(&format!("2026-11-{day:02}T05:00:00Z"))).collect();
    let history = RotationHistory {
        last_run: Some(at("2026-11-19T05:00:00Z")),
        ..RotationHistory::default()
    };
    for now in ["2036-11-20T00:00:00Z", "2016-11-20T00:00:00Z"] {
        assert_eq!(decide(&snapshots, &history, &daily(1), at(now)).expired().count(), 0, "{now}");
    }
    assert!(
        decide(&snapshots, &history, &daily(1), at("2026-11-20T00:00:00Z")).expired().count() > 0
    );
    let paused =
        ClockJump { believed: at("2016-01-01T00:00:00Z"), seen: at("2026-01-01T00:00:00Z") };
    let history = RotationHistory { clock_jump: Some(paused), ..history };
    assert_eq!(
        decide(&snapshots, &history, &daily(1), at("2026-11-20T00:00:00Z")).expired().count(),
        0
    );
    let history = RotationHistory { clock_jump: None, state_lost: true, ..history };
    assert_eq!(
        decide(&snapshots, &history, &daily(1), at("2026-11-20T00:00:00Z")).expired().count(),
        0
    );
}

#[test]
fn min_keep_min_age_and_pins_only_add() {
    let snapshots: Vec<Snapshot> =
        (1..=9).map(|day| taken(&format!("2026-01-0{day}T00:00:00Z"))).collect();
    let yearly = policy(&[(Frequency::Yearly, SlotCount::Newest(1))]);
    assert_eq!(
        kept(&decided(&snapshots, &yearly)),
        ["2026-01-01T00:00:00Z", "2026-01-09T00:00:00Z"]
    );
    let floors = Policy { min_keep: 4, ..yearly.clone() };
    assert_eq!(
        kept(&decided(&snapshots, &floors)),
        [
            "2026-01-01T00:00:00Z",
            "2026-01-07T00:00:00Z",
            "2026-01-08T00:00:00Z",
            "2026-01-09T00:00:00Z"
        ]
    );
    let ages = Policy { min_age: DurationText::parse("2d").unwrap(), ..yearly.clone() };
    let decision =
        decide(&snapshots, &RotationHistory::default(), &ages, at("2026-01-09T00:00:00Z"));
    assert_eq!(
        kept(&decision),
        ["2026-01-01T00:00:00Z", "2026-01-08T00:00:00Z", "2026-01-09T00:00:00Z"]
    );
    let mut pinned = snapshots;
    pinned[4].pinned = Some("before the upgrade".into());
    let decision = decided(&pinned, &yearly);
    assert_eq!(
        reasons(&decision, "2026-01-05T00:00:00Z")[0].to_string(),
        "pinned: before the upgrade"
    );
}

#[test]
fn a_backlog_is_worked_off_oldest_first() {
    let snapshots: Vec<Snapshot> =
        (1..=9).map(|day| taken(&format!("2026-01-0{day}T00:00:00Z"))).collect();
    let policy = Policy { max_expire: 2, ..policy(&[(Frequency::Yearly, SlotCount::Newest(1))]) };
    let decision = decided(&snapshots, &policy);
    let expired: Vec<&str> =
        decision.expired().map(|verdict| verdict.snapshot.name.as_str()).collect();
    assert_eq!(expired, ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    assert_eq!(decision.deferred, 5);
}

#[test]
fn planning_again_on_what_was_kept_expires_nothing() {
    let start = at("2025-01-01T00:00:00Z");
    let policy = Policy {
        time_zone: rsyncd_snapshot::internals::time_zone::named("Europe/Amsterdam").unwrap(),
        max_expire: 100_000,
        ..Policy::default()
    };
    let snapshots: Vec<Snapshot> = (0..5_000)
        .map(|step| taken(&(start + TimeDelta::minutes(step * 97)).format("%FT%TZ").to_string()))
        .collect();
    let now = snapshots.last().unwrap().time;
    let first = decide_before_guards(&snapshots, &policy, now);
    let rest: Vec<Snapshot> =
        first.verdicts.into_iter().filter(|v| v.keep).map(|v| v.snapshot).collect();
    assert!(rest.len() < 100);
    assert_eq!(decide_before_guards(&rest, &policy, now).expired().count(), 0);
}

#[test]
fn a_larger_count_never_keeps_fewer() {
    let start = at("2025-01-01T00:00:00Z");
    let snapshots: Vec<Snapshot> = (0..400)
        .map(|step| {
            taken(&(start + TimeDelta::minutes(step * step * 3)).format("%FT%TZ").to_string())
        })
        .collect();
    let now = snapshots.last().unwrap().time;
    for frequency in Frequency::ALL {
        let mut before = 0;
        for count in 1..40 {
            let policy = policy(&[(frequency, SlotCount::Newest(count))]);
            let kept = kept(&decide_before_guards(&snapshots, &policy, now)).len();
            assert!(kept >= before, "{frequency} {count}");
            before = kept;
        }
    }
}

#[test]
fn no_snapshots_give_no_verdicts() {
    assert!(decided(&[], &Policy::default()).verdicts.is_empty());
}

// -- Readers --------------------------------------------------------------------------------------

fn read(time: &str) -> Snapshot {
    let reader = SnapshotReader { name: "user anna".to_string(), since: at(time) };
    Snapshot { reader: Some(reader), ..taken(time) }
}

#[test]
fn a_reader_only_turns_goes_into_stays() {
    let snapshots =
        [read("2026-01-01T00:00:00Z"), taken("2026-01-02T00:00:00Z"), read("2026-01-03T00:00:00Z")];
    let now = at("2026-01-03T12:00:00Z");
    let mut rules = daily(1);
    rules.max_expire = 1;
    let decision = decide(&snapshots, &RotationHistory::default(), &rules, now);
    let kept: Vec<bool> = decision.verdicts.iter().map(|verdict| verdict.keep).collect();
    assert_eq!((kept, decision.deferred), (vec![true, false, true], 0));
    assert!(matches!(decision.verdicts[0].reasons[..], [SnapshotReason::Read(_)]));
    assert!(!decision.verdicts[2].reasons.iter().any(|it| matches!(it, SnapshotReason::Read(_))));
}

/// A client that reads all of them would else let the guard believe that little goes.
#[test]
fn a_reader_hides_no_change_of_policy() {
    let snapshots: Vec<Snapshot> =
        (1..=9).map(|day| read(&format!("2026-01-{day:02}T00:00:00Z"))).collect();
    let history =
        RotationHistory { rules: Some("others".to_string()), ..RotationHistory::default() };
    let decision = decide(&snapshots, &history, &daily(1), at("2026-01-09T12:00:00Z"));
    assert_eq!(decision.pause, Some(ExpiryPause::MostOfHistory { going: 8, of: 9 }));
}

#[test]
fn space_takes_first_what_only_a_reader_keeps() {
    let snapshots = [
        taken("2026-01-01T00:00:00Z"),
        read("2026-01-01T12:00:00Z"),
        partial("2026-01-02T00:00:00Z"),
        read("2026-01-03T00:00:00Z"),
        taken("2026-01-04T00:00:00Z"),
    ];
    let rules = Policy { keep_partial: 1, ..daily(9) };
    let now = at("2026-01-04T12:00:00Z");
    let decision = decide(&snapshots, &RotationHistory::default(), &rules, now);
    let names = |min_keep| -> Vec<&str> {
        let candidates = free_space_candidates(&decision, min_keep);
        candidates.iter().map(|verdict| &verdict.snapshot.name[8..13]).collect()
    };
    assert_eq!(names(1), ["01T12", "02T00", "01T00", "03T00"]);
    assert_eq!(names(2), ["01T12", "02T00", "01T00"], "it counts for no floor");
    assert_eq!(names(3), ["01T12", "02T00"]);
}
