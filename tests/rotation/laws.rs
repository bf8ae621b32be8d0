//! The laws of rotation, over random histories and policies.
//!
//! A law is checked on the decision before caps and guards, unless it is about those. Ten thousand
//! cases for most laws in the normal run, `RSYNCD_SNAPSHOT_SWEEP=full` takes a hundred times as
//! many. A case follows from its seed; one that breaks a law is made as small as it can be and
//! shown.

use crate::support::{self, snapshots};

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rsyncd_snapshot::decide::clock_jump::ClockJump;
use rsyncd_snapshot::decide::decision_before_guards::decide_before_guards;
use rsyncd_snapshot::decide::duration_text::DurationText;
use rsyncd_snapshot::decide::frequency::{Frequency, SlotCount};
use rsyncd_snapshot::decide::grade::Grade;
use rsyncd_snapshot::decide::name::SnapshotName;
use rsyncd_snapshot::decide::policy::{Policy, Prefer};
use rsyncd_snapshot::decide::rotation::decide;
use rsyncd_snapshot::decide::snapshot::Snapshot;
use rsyncd_snapshot::decide::snapshot_reason::{ExpiryPause, SnapshotReason};
use rsyncd_snapshot::decide::snapshot_verdict::{Decision, RotationHistory};
use rsyncd_snapshot::decide::zone::Zone;
use snapshots::{
    DAY, HOUR, MINUTE, ZONES, at, bare_policy, between, choice, moments, policy, smallest, table,
    taken, zones,
};
use support::random::Random;

// -- Cases -----------------------------------------------------------------------------------------

/// What a law is checked on.
#[derive(Clone)]
struct Case {
    snapshots: Vec<Snapshot>,
    policy: Policy,
    now: DateTime<Utc>,
    /// For what else a law needs at random.
    seed: u64,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut random = Random::new(seed);
        let times = moments(&mut random, 40);
        let newest = times.last().copied().unwrap_or_else(|| at("2026-11-22T19:08:31Z"));
        let now = match random.below(6) {
            0 => random.of(&times).copied().unwrap_or(newest),
            1 | 2 => newest,
            _ => newest + TimeDelta::seconds(between(&mut random, 0, 60 * DAY)),
        };
        let mut snapshots: Vec<Snapshot> = times.into_iter().map(taken).collect();
        let strange = choice(&mut random, &[4, 30, 1_000_000]);
        for index in 0..snapshots.len() {
            let next = snapshots.get(index + 1).map_or(now, |next| next.time);
            vary(&mut snapshots[index], index, next, strange, &mut random);
        }
        Case { snapshots, policy: policy(&mut random), now, seed }
    }

    fn random(&self) -> Random {
        Random::new(self.seed.wrapping_add(1 << 40))
    }

    fn decide(&self) -> Decision {
        decide_before_guards(&self.snapshots, &self.policy, self.now)
    }

    fn with(&self, snapshots: Vec<Snapshot>) -> Case {
        Case { snapshots, ..self.clone() }
    }

    fn by(&self, policy: Policy) -> Case {
        Case { policy, ..self.clone() }
    }

    /// The complete snapshots that take part, by time.
    fn complete(&self) -> Vec<&Snapshot> {
        let mut complete: Vec<&Snapshot> =
            self.snapshots.iter().filter(|one| self.takes_part(one)).collect();
        complete.sort_by_key(|one| (one.time, &one.name));
        complete
    }

    fn takes_part(&self, snapshot: &Snapshot) -> bool {
        snapshot.grade == Grade::Complete && snapshot.time <= self.now
    }

    /// Until when `snapshot` held, as far as that can be believed.
    fn held_until(&self, snapshot: &Snapshot) -> DateTime<Utc> {
        let believed = snapshot.time..=self.now.max(snapshot.time);
        if believed.contains(&snapshot.verified_until) {
            snapshot.verified_until
        } else {
            snapshot.time
        }
    }
}

/// Names stay unique when times are not. One in `strange` is otherwise unusual.
fn vary(
    snapshot: &mut Snapshot,
    index: usize,
    next: DateTime<Utc>,
    strange: usize,
    random: &mut Random,
) {
    snapshot.name = format!("{} #{index:03}", snapshot.name);
    let quiet = (next - snapshot.time).num_seconds().max(0);
    if random.once_in(2) {
        snapshot.verified_until += TimeDelta::seconds(between(random, 0, quiet));
    }
    if random.once_in(strange) {
        snapshot.grade = Grade::Partial;
    }
    if random.once_in(2 * strange) {
        snapshot.pinned = Some("kept by hand".to_string());
    }
    snapshot.unreadable = random.once_in(4 * strange);
    snapshot.recorded = !random.once_in(2 * strange);
}

type Lawful = Result<(), String>;

/// Checks `law` on `cases` random cases, a hundred times as many in a full sweep.
#[track_caller]
fn holds(cases: u64, law: impl Fn(&Case) -> Lawful) {
    let cases = crate::support::by_sweep(cases.div_ceil(5), cases, cases * 100);
    let breaks = |case: &Case| match catch_unwind(AssertUnwindSafe(|| law(case))) {
        Ok(lawful) => lawful.err(),
        Err(_) => Some("it panics".to_string()),
    };
    for case in (0..cases).map(Case::new) {
        if breaks(&case).is_none() {
            continue;
        }
        let fails = |snapshots: &[Snapshot]| breaks(&case.with(snapshots.to_vec())).is_some();
        let case = case.with(smallest(&case.snapshots, fails));
        panic!(
            "seed {}: {}\nat {} of{}\nby {:?}, {}, {:?}, min_keep {}, min_age {}, {:?}",
            case.seed,
            breaks(&case).expect("it fails"),
            case.now,
            table(&case.snapshots),
            case.policy.keep,
            if case.policy.strict { "strict" } else { "relaxed" },
            case.policy.prefer,
            case.policy.min_keep,
            case.policy.min_age,
            case.policy.time_zone,
        );
    }
}

fn kept(decision: &Decision) -> BTreeSet<&str> {
    let kept = decision.verdicts.iter().filter(|verdict| verdict.keep);
    kept.map(|verdict| verdict.snapshot.name.as_str()).collect()
}

/// What a law wants kept, is kept.
fn keeps<'a>(decision: &Decision, wanted: impl IntoIterator<Item = &'a Snapshot>) -> Lawful {
    let kept = kept(decision);
    let lost: Vec<&str> = wanted
        .into_iter()
        .map(|one| one.name.as_str())
        .filter(|name| !kept.contains(name))
        .collect();
    if lost.is_empty() { Ok(()) } else { Err(format!("it loses {lost:?}")) }
}

fn equal<T: PartialEq + std::fmt::Debug>(one: T, other: T) -> Lawful {
    if one == other { Ok(()) } else { Err(format!("{one:?}\nis not\n{other:?}")) }
}

// -- What stays whatever the policy says -----------------------------------------------------------

#[test]
fn the_newest_complete_one_stays() {
    holds(10_000, |case| keeps(&case.decide(), case.complete().last().copied()));
}

#[test]
fn there_are_never_fewer_than_min_keep() {
    holds(10_000, |case| {
        let decision = case.decide();
        let complete = case.complete();
        let left =
            complete.iter().filter(|one| kept(&decision).contains(one.name.as_str())).count();
        if left >= case.policy.min_keep.min(complete.len()) {
            Ok(())
        } else {
            Err(format!("{left} are left"))
        }
    });
}

#[test]
fn nothing_younger_than_min_age_goes() {
    holds(10_000, |case| {
        let age = |one: &Snapshot| case.now - case.held_until(one);
        let young = case.snapshots.iter().filter(|one| age(one) < case.policy.min_age.delta());
        keeps(&case.decide(), young)
    });
}

#[test]
fn what_is_pinned_unreadable_or_of_the_future_stays() {
    holds(10_000, |case| {
        let stays = |one: &&Snapshot| one.pinned.is_some() || one.unreadable || one.time > case.now;
        keeps(&case.decide(), case.snapshots.iter().filter(stays))
    });
}

/// Only what is a snapshot's name to the last byte is ever decided on.
#[test]
fn foreign_names_are_no_snapshots() {
    for seed in 0..crate::support::by_sweep(6_000, 30_000, 3_000_000) {
        let mut random = Random::new(seed);
        let name = nearly_a_name(&mut random);
        let Some(read) = SnapshotName::parse(&name, &Zone::utc()) else { continue };
        let adopted = read.time.format("%Y-%m-%d %H:%M:%S").to_string();
        let ours = SnapshotName::new(read.time, read.grade).text;
        assert!(
            [ours.as_bytes(), adopted.as_bytes()].contains(&name.as_slice()),
            "seed {seed}: {read:?}"
        );
        assert_eq!(read.text.as_bytes(), name, "seed {seed}");
    }
}

fn nearly_a_name(random: &mut Random) -> Vec<u8> {
    let time = moments(random, 1).pop().unwrap_or_default();
    let format =
        choice(random, &["%Y-%m-%dT%H-%M-%SZ", "%Y-%m-%dT%H-%M-%SZ-partial", "%Y-%m-%d %H:%M:%S"]);
    let mut name = time.format(format).to_string().into_bytes();
    for _ in 0..random.below(3) {
        let place = random.below(name.len() + 1);
        let byte = choice(random, b"0123456789 -:TZ+.\xff\0");
        match random.below(3) {
            0 => name.insert(place, byte),
            1 if place < name.len() => name[place] = byte,
            _ => name.truncate(place),
        }
    }
    name
}

// -- Who has no say --------------------------------------------------------------------------------

#[test]
fn partial_ones_change_nothing_about_complete_ones() {
    holds(10_000, |case| {
        let complete = |decision: Decision| -> Vec<(String, bool, Vec<SnapshotReason>)> {
            let verdicts = decision.verdicts.into_iter();
            let complete = verdicts.filter(|verdict| verdict.snapshot.grade == Grade::Complete);
            complete.map(|verdict| (verdict.snapshot.name, verdict.keep, verdict.reasons)).collect()
        };
        let mut without = case.snapshots.clone();
        without.retain(|one| one.grade == Grade::Complete);
        let mut with = case.snapshots.clone();
        with.extend(failed_transfers(case));
        let without = complete(case.with(without).decide());
        equal(complete(case.with(with).decide()), without.clone())?;
        equal(complete(case.decide()), without)
    });
}

/// Any number of them, anywhere in the history and after it.
fn failed_transfers(case: &Case) -> Vec<Snapshot> {
    let mut random = case.random();
    let oldest = case.snapshots.iter().map(|one| one.time).min().unwrap_or(case.now).min(case.now);
    let age = (case.now - oldest).num_seconds() + DAY;
    let failed = |_| {
        let time = case.now - TimeDelta::seconds(between(&mut random, -HOUR, age));
        let verified_until = time + TimeDelta::seconds(between(&mut random, 0, DAY));
        let name = format!("{time} failed");
        Snapshot { name, verified_until, grade: Grade::Partial, ..taken(time) }
    };
    (0..case.random().below(50)).map(failed).collect()
}

#[test]
fn only_the_newest_and_claimed_partial_snapshots_stay() {
    holds(10_000, |case| {
        let decision = case.decide();
        let partial: Vec<_> = decision
            .verdicts
            .iter()
            .filter(|verdict| {
                verdict.snapshot.grade == Grade::Partial && verdict.snapshot.time <= case.now
            })
            .collect();
        for (newer, verdict) in partial.iter().rev().enumerate() {
            let Snapshot { pinned, unreadable, .. } = &verdict.snapshot;
            let age = case.now - case.held_until(&verdict.snapshot);
            let stays = newer < case.policy.keep_partial
                || pinned.is_some()
                || *unreadable
                || age < case.policy.min_age.delta();
            // Or it stands for a slot among those since the newest complete one; older ones never
            // do.
            let newest = case.complete().last().map(|one| case.held_until(one));
            let is_newer = newest.is_none_or(|until| verdict.snapshot.time > until);
            let is_slot =
                |reason: &SnapshotReason| matches!(reason, SnapshotReason::PartialSlot { .. });
            let stands = is_newer && verdict.reasons.iter().any(is_slot);
            if (stays || stands) != verdict.keep {
                return Err(format!("{}: keep {}", verdict.snapshot.name, verdict.keep));
            }
        }
        Ok(())
    });
}

#[test]
fn names_of_the_future_change_nothing_about_the_others() {
    holds(10_000, |case| {
        let mut with = case.snapshots.clone();
        let mut random = case.random();
        for index in 0..random.below(5) {
            let time = case.now + TimeDelta::seconds(between(&mut random, 1, 900 * 365 * DAY));
            with.push(Snapshot { name: format!("future {index}"), ..taken(time) });
        }
        let mut verdicts = case.with(with).decide().verdicts;
        verdicts.retain(|verdict| !verdict.snapshot.name.starts_with("future"));
        equal(verdicts, case.decide().verdicts)
    });
}

#[test]
fn the_order_of_the_input_does_not_matter() {
    holds(10_000, |case| {
        let mut random = case.random();
        let mut shuffled = case.snapshots.clone();
        for index in 1..shuffled.len() {
            shuffled.swap(index, random.below(index + 1));
        }
        equal(case.with(shuffled).decide(), case.decide())
    });
}

#[test]
fn every_verdict_has_a_reason_and_every_snapshot_a_verdict() {
    holds(10_000, |case| {
        let decision = case.decide();
        if decision.verdicts.iter().any(|verdict| verdict.reasons.is_empty()) {
            return Err("a verdict has no reason".to_string());
        }
        let mut names: Vec<&String> = case.snapshots.iter().map(|one| &one.name).collect();
        let mut decided: Vec<&String> =
            decision.verdicts.iter().map(|one| &one.snapshot.name).collect();
        names.sort();
        decided.sort();
        equal(decided, names)
    });
}

// -- Deciding again, and deciding more generously --------------------------------------------------

#[test]
fn planning_again_on_what_was_kept_expires_nothing() {
    holds(10_000, |case| {
        let decision = case.decide();
        let kept: Vec<Snapshot> =
            decision.verdicts.into_iter().filter(|one| one.keep).map(|one| one.snapshot).collect();
        let again = case.with(kept.clone()).decide();
        keeps(&again, &kept)
    });
}

/// A backlog is worked off over several runs, or a removal fails: what stayed stays. Not what only
/// `min_keep` kept: it may have less to add, when one that was to go now stands for a slot.
#[test]
fn expiring_only_some_costs_no_other_snapshot() {
    holds(10_000, |case| {
        let case = case.by(Policy { min_keep: 0, ..case.policy.clone() });
        let decision = case.decide();
        let kept = kept(&decision);
        let mut random = case.random();
        let mut left = case.snapshots.clone();
        left.retain(|one| kept.contains(one.name.as_str()) || random.once_in(2));
        let again = case.with(left).decide();
        keeps(&again, case.snapshots.iter().filter(|one| kept.contains(one.name.as_str())))
    });
}

#[test]
fn max_expire_lets_the_oldest_go_and_no_others() {
    holds(10_000, |case| {
        let max_expire = case.random().below(10);
        let capped =
            Policy { max_expire, clock_jump: DurationText::from_seconds(0), ..case.policy.clone() };
        let adopted: Vec<Snapshot> =
            case.snapshots.iter().map(|one| Snapshot { recorded: false, ..one.clone() }).collect();
        let all = case.with(adopted.clone()).decide();
        let all: Vec<&str> = all.expired().map(|one| one.snapshot.name.as_str()).collect();
        let decision = decide(&adopted, &RotationHistory::default(), &capped, case.now);
        let some: Vec<&str> = decision.expired().map(|one| one.snapshot.name.as_str()).collect();
        equal(&some[..], &all[..all.len().min(max_expire)])?;
        equal(decision.deferred, all.len() - some.len())
    });
}

/// Whatever is kept by the slots of one policy is kept by those of another, and the floors never
/// let fewer stay: the more slots keep, the less `min_keep` has to add.
fn no_less_is_kept(case: &Case, generous: &Policy) -> Lawful {
    let bare = |policy: &Policy| case.by(Policy { min_keep: 0, ..policy.clone() }).decide();
    let (less, more) = (bare(&case.policy), bare(generous));
    keeps(&more, less.verdicts.iter().filter(|one| one.keep).map(|one| &one.snapshot))?;
    let (less, more) =
        (kept(&case.decide()).len(), kept(&case.by(generous.clone()).decide()).len());
    if more >= less { Ok(()) } else { Err(format!("{more} instead of {less} are kept")) }
}

#[test]
fn a_larger_count_never_keeps_fewer() {
    holds(10_000, |case| {
        let mut random = case.random();
        let mut keep = case.policy.keep.clone();
        let index = random.below(keep.len());
        keep[index].1 = match keep[index].1 {
            SlotCount::Newest(count) if !random.once_in(5) => {
                SlotCount::Newest(count + 1 + u32::try_from(random.below(20)).expect("small"))
            }
            _ => SlotCount::Always,
        };
        no_less_is_kept(case, &Policy { keep, ..case.policy.clone() })
    });
}

#[test]
fn another_frequency_never_keeps_fewer() {
    holds(10_000, |case| {
        let mut keep = case.policy.keep.clone();
        for frequency in Frequency::ALL {
            if keep.iter().all(|(kept, _)| *kept != frequency) {
                keep.push((frequency, SlotCount::Newest(3)));
            }
        }
        keep.sort_by_key(|(frequency, _)| *frequency);
        no_less_is_kept(case, &Policy { keep, ..case.policy.clone() })
    });
}

#[test]
fn relaxed_never_keeps_fewer_than_strict() {
    holds(10_000, |case| {
        let strict = case.by(Policy { strict: true, ..case.policy.clone() });
        no_less_is_kept(&strict, &Policy { strict: false, ..case.policy.clone() })
    });
}

// -- Quiet periods ---------------------------------------------------------------------------------

/// The complete snapshots of a history with one quiet period in it, ended by a bad push, and the
/// same as if each quiet run had made a snapshot.
struct Quiet {
    /// With the quiet one, which is at this place.
    verified: Vec<Snapshot>,
    place: usize,
    /// With one for each quiet run instead, named alike.
    each_run: Vec<Snapshot>,
}

impl Quiet {
    /// `runs` are at least as frequent as the finest slots of the policy, or not.
    fn new(case: &Case, dense: bool) -> Option<Quiet> {
        let mut random = case.random();
        let mut others: Vec<Snapshot> =
            case.complete().into_iter().map(|one| taken(one.time)).collect();
        others.dedup_by_key(|one| one.time);
        let place = random.below(others.len().max(1));
        let start = others.get(place)?.time;
        let finest = case.policy.keep.first()?.0;
        let slot = if dense { shortest_slot(finest) } else { 3 * shortest_slot(finest) };
        let mut runs = vec![start];
        for _ in 0..random.below(200) {
            let last = runs.last().copied().unwrap_or(start);
            runs.push(last + TimeDelta::seconds(between(&mut random, 1, slot)));
        }
        // The pushes after it come as much later.
        let end = *runs.last()?;
        for other in &mut others[place + 1..] {
            *other = taken(other.time + (end - start));
        }
        let mut each_run = others.clone();
        each_run.splice(
            place..=place,
            runs.into_iter().map(|time| Snapshot { name: "quiet".into(), ..taken(time) }),
        );
        others[place] = Snapshot { name: "quiet".into(), verified_until: end, ..taken(start) };
        Some(Quiet { verified: others, place, each_run })
    }

    fn holds_a_skipped_day(&self, case: &Case) -> bool {
        let Snapshot { time, verified_until, .. } = self.verified[self.place];
        let skips = case.policy.time_zone.name() == "Pacific/Apia";
        skips && (time..=verified_until).contains(&at("2011-12-30T10:00:00Z"))
    }

    fn now(&self) -> DateTime<Utc> {
        self.verified.iter().map(|one| one.verified_until).max().expect("at least the quiet one")
    }
}

/// In seconds: half an hour of Lord Howe's, a day that lost an hour, February.
fn shortest_slot(frequency: Frequency) -> i64 {
    match frequency {
        Frequency::Minutely => MINUTE,
        Frequency::Hourly => HOUR / 2,
        Frequency::Daily => 23 * HOUR,
        Frequency::Weekly => 7 * DAY - HOUR,
        Frequency::Monthly => 28 * DAY - HOUR,
        Frequency::Yearly => 365 * DAY,
    }
}

/// Slots alone: what the floors add differs with the number of snapshots.
fn bare(case: &Case, quiet: &Quiet, snapshots: &[Snapshot]) -> Case {
    let policy =
        Policy { min_keep: 0, min_age: DurationText::from_seconds(0), ..case.policy.clone() };
    Case { now: quiet.now(), policy, ..case.with(snapshots.to_vec()) }
}

#[test]
fn a_quiet_state_stays_as_long_as_snapshots_would() {
    holds(4_000, |case| {
        let Some(quiet) = Quiet::new(case, case.seed.is_multiple_of(2)) else { return Ok(()) };
        let verified = bare(case, &quiet, &quiet.verified).decide();
        let each_run = bare(case, &quiet, &quiet.each_run).decide();
        let kept_as_runs = kept(&each_run).contains("quiet");
        if kept_as_runs { keeps(&verified, [&quiet.verified[quiet.place]]) } else { Ok(()) }
    });
}

/// And no longer, and all others fare the same; where runs are as frequent as slots.
///
/// But for Samoa: what was held over the 30th of December 2011, which the country skipped, counts
/// as held on that day too, though no run can have been.
#[test]
fn a_quiet_period_decides_like_a_snapshot_for_each_of_its_runs() {
    holds(4_000, |case| {
        let quiet = Quiet::new(case, true).filter(|quiet| !quiet.holds_a_skipped_day(case));
        let Some(quiet) = quiet else { return Ok(()) };
        let verified = bare(case, &quiet, &quiet.verified);
        let each_run = bare(case, &quiet, &quiet.each_run);
        let (by_verified, by_runs) = (verified.decide(), each_run.decide());
        let others = |decision| -> BTreeSet<_> {
            kept(decision).into_iter().filter(|name| *name != "quiet").collect()
        };
        equal(others(&by_verified), others(&by_runs))?;
        // The window of a strict count begins within a slot. The run that stands for that slot may
        // have been before the window, while the state held on into it: so at most one slot longer.
        let longer = each_run.policy.keep.iter().map(|&(frequency, count)| match count {
            SlotCount::Newest(count) if each_run.policy.strict => {
                (frequency, SlotCount::Newest(count + 1))
            }
            count => (frequency, count),
        });
        let longer = Policy { keep: longer.collect(), ..each_run.policy.clone() };
        let stays_longer = kept(&each_run.by(longer).decide()).contains("quiet");
        if kept(&by_verified).contains("quiet") && !stays_longer {
            Err("it stays too long".into())
        } else {
            Ok(())
        }
    });
}

/// A verification that says otherwise, say by a clock that was ahead, counts until the next one's
/// time.
#[test]
fn a_snapshot_holds_no_longer_than_until_the_next_one() {
    holds(10_000, |case| {
        let mut random = case.random();
        let bare = Policy { min_age: DurationText::from_seconds(0), ..case.policy.clone() };
        let mut complete: Vec<Snapshot> = case.complete().into_iter().cloned().collect();
        let mut until_next = complete.clone();
        for index in 1..complete.len() {
            let next = complete[index].time;
            let beyond = between(&mut random, 0, 2 * (case.now - next).num_seconds());
            if random.once_in(2) {
                complete[index - 1].verified_until = next + TimeDelta::seconds(beyond);
                let believed = complete[index - 1].verified_until <= case.now;
                until_next[index - 1].verified_until =
                    if believed { next } else { complete[index - 1].time };
            }
        }
        let decision = |snapshots| case.by(bare.clone()).with(snapshots).decide();
        equal(kept(&decision(complete)), kept(&decision(until_next)))
    });
}

// -- The clock -------------------------------------------------------------------------------------

#[test]
fn clock_jumps_of_ten_years_expire_nothing() {
    holds(10_000, |case| {
        let mut random = case.random();
        let limit = DurationText::from_seconds(between(&mut random, 0, 365 * DAY).unsigned_abs());
        let policy = Policy { clock_jump: limit, max_expire: usize::MAX, ..case.policy.clone() };
        let years = TimeDelta::days(between(&mut random, 3_600, 3_700));
        let jumped = if random.once_in(2) { case.now + years } else { case.now - years };
        // The run that notices, and any later one by the wrong clock.
        let noticed = RotationHistory { last_run: Some(case.now), ..RotationHistory::default() };
        let pause = ClockJump { believed: case.now, seen: jumped };
        let standing = RotationHistory {
            last_run: Some(jumped),
            clock_jump: Some(pause),
            ..RotationHistory::default()
        };
        // Without a word of ours about when they were made, so that nothing else ends it.
        let adopted: Vec<Snapshot> =
            case.snapshots.iter().map(|one| Snapshot { recorded: false, ..one.clone() }).collect();
        for history in [&noticed, &standing] {
            let decision = decide(&adopted, history, &policy, jumped);
            keeps(&decision, &adopted)?;
            equal(matches!(decision.pause, Some(ExpiryPause::ClockJump(_))), true)?;
        }
        // A recorded one of the future does the same, whatever is known of earlier runs.
        let recorded: Vec<Snapshot> =
            case.snapshots.iter().map(|one| Snapshot { recorded: true, ..one.clone() }).collect();
        let Some(future) = recorded.iter().map(|one| one.time.max(one.verified_until)).max() else {
            return Ok(());
        };
        let before = future - TimeDelta::seconds(between(&mut random, 1, 3_650 * DAY));
        keeps(&decide(&recorded, &RotationHistory::default(), &policy, before), &recorded)
    });
}

/// The instants at which the clocks of a zone changed, in the years that the tests are about.
fn changes(zone: &Zone) -> Vec<DateTime<Utc>> {
    let offset =
        |seconds: i64| zone.offset_seconds(DateTime::from_timestamp(seconds, 0).expect("a time"));
    let (mut changes, step) = (Vec::new(), 7 * DAY);
    let mut day = at("1995-01-01T00:00:00Z").timestamp();
    while day < at("2036-01-01T00:00:00Z").timestamp() {
        let (mut before, mut after) = (day, day + step);
        while offset(day) != offset(day + step) && after - before > 1 {
            let middle = before + (after - before) / 2;
            if offset(middle) == offset(day) { before = middle } else { after = middle }
        }
        if offset(day) != offset(day + step) {
            changes.push(DateTime::from_timestamp(after, 0).expect("a time"));
        }
        day += step;
    }
    changes
}

/// Hourly snapshots for three days before and after `change`, at any minute of the hour.
fn hourly_around(change: DateTime<Utc>, random: &mut Random) -> Vec<Snapshot> {
    let any = between(random, 0, HOUR - 1);
    let phase = choice(random, &[0, 1, HOUR / 2, HOUR - 1, any, any, any, any]);
    (-72..=72).map(|hours| taken(change + TimeDelta::seconds(hours * HOUR + phase))).collect()
}

fn in_zone(zone: &Zone, frequency: Frequency, count: &str, prefer: Prefer) -> Policy {
    Policy { min_keep: 0, prefer, time_zone: zone.clone(), ..bare_policy(&[(frequency, count)]) }
}

/// No hour is lost and none counts twice: N hours are the newest N of hourly snapshots.
#[test]
fn clock_changes_neither_lose_nor_repeat_an_hour() {
    slow!();
    let mut random = Random::new(1);
    for zone in zones() {
        for change in changes(zone) {
            let snapshots = hourly_around(change, &mut random);
            let now = snapshots.last().expect("the newest").time;
            for (strict, prefer) in [
                (true, Prefer::Oldest),
                (true, Prefer::Newest),
                (false, Prefer::Oldest),
                (false, Prefer::Newest),
            ] {
                for (count, hours) in
                    [("24", 24), ("70", 70), ("80", 80), ("always", snapshots.len())]
                {
                    let policy =
                        Policy { strict, ..in_zone(zone, Frequency::Hourly, count, prefer) };
                    let decision = decide_before_guards(&snapshots, &policy, now);
                    let newest: BTreeSet<&str> =
                        snapshots.iter().rev().take(hours).map(|one| one.name.as_str()).collect();
                    assert_eq!(
                        kept(&decision),
                        newest,
                        "{zone:?} {change} {count} strict {strict} {prefer:?}"
                    );
                }
            }
        }
    }
}

/// Each date on the calendar of the zone has one, the first or the last, however long the day is.
#[test]
fn clock_changes_neither_lose_nor_repeat_a_day() {
    let mut random = Random::new(2);
    for zone in zones() {
        for change in changes(zone) {
            let snapshots = hourly_around(change, &mut random);
            let now = snapshots.last().expect("the newest").time;
            let mut days: BTreeMap<NaiveDate, Vec<&str>> = BTreeMap::new();
            for snapshot in &snapshots {
                days.entry(zone.to_local(snapshot.time).date()).or_default().push(&snapshot.name);
            }
            let first = days.values().map(|names| names[0]).collect();
            let last = days.values().map(|names| names[names.len() - 1]).collect();
            for (prefer, expected) in [(Prefer::Oldest, &first), (Prefer::Newest, &last)] {
                let policy = in_zone(zone, Frequency::Daily, "always", prefer);
                let mut expected: BTreeSet<&str> = BTreeSet::clone(expected);
                expected.extend(snapshots.last().map(|one| one.name.as_str()));
                let decision = decide_before_guards(&snapshots, &policy, now);
                assert_eq!(kept(&decision), expected, "{zone:?} {change} {prefer:?}");
            }
        }
    }
}

/// The calendars themselves, as they were published.
#[test]
fn days_of_odd_lengths_have_as_many_hours_as_they_had() {
    for (zone, date, half_hours) in [
        ("Europe/Amsterdam", "2026-03-29", 46),
        ("Europe/Amsterdam", "2026-10-25", 50),
        ("America/New_York", "2026-03-08", 46),
        ("America/New_York", "2026-11-01", 50),
        ("Australia/Lord_Howe", "2026-10-04", 47),
        ("Australia/Lord_Howe", "2026-04-05", 49),
        ("Asia/Kolkata", "2026-03-29", 48),
        ("America/Sao_Paulo", "2018-11-04", 46),
        ("America/Sao_Paulo", "2018-02-17", 50),
        ("America/Sao_Paulo", "2026-02-21", 48),
        ("Pacific/Apia", "2011-12-29", 48),
        ("Pacific/Apia", "2011-12-30", 0),
        ("Pacific/Apia", "2011-12-31", 48),
    ] {
        let zone =
            &zones()[ZONES.iter().position(|name| *name == zone).expect("a zone of these tests")];
        let date: NaiveDate = date.parse().expect("a date");
        let middle = date.and_hms_opt(12, 0, 0).expect("noon").and_utc();
        let around = (-96..=96).map(|half_hours| middle + TimeDelta::minutes(30 * half_hours));
        let snapshots: Vec<Snapshot> = around.map(taken).collect();
        let on_that_day = |one: &&Snapshot| zone.to_local(one.time).date() == date;
        assert_eq!(snapshots.iter().filter(on_that_day).count(), half_hours, "{zone:?} {date}");

        let now = snapshots.last().expect("the newest").time;
        let policy = in_zone(zone, Frequency::Daily, "always", Prefer::Newest);
        let decision = decide_before_guards(&snapshots, &policy, now);
        let stands = decision.verdicts.iter().filter(|one| one.keep).map(|one| &one.snapshot);
        assert_eq!(stands.filter(on_that_day).count(), half_hours.min(1), "{zone:?} {date}");
    }
}

// -- Anything at all -------------------------------------------------------------------------------

/// A time within 200,000 years of ours, often the same one.
fn extreme(random: &mut Random) -> DateTime<Utc> {
    let years = choice(random, &[0, 1, 10_000, 200_000]);
    let seconds = match random.below(3) {
        0 => years * 365 * DAY,
        1 => -years * 365 * DAY,
        _ => between(random, -years * 365 * DAY, years * 365 * DAY),
    };
    DateTime::from_timestamp(seconds, 0).expect("a time")
}

/// Times out of all reason, equal ones, verified before they were made, and counts as large as can
/// be.
#[test]
fn no_times_make_it_panic() {
    holds(3_000, |case| {
        let mut random = case.random();
        let mut case = case.clone();
        for snapshot in &mut case.snapshots {
            if !random.once_in(3) {
                snapshot.time = extreme(&mut random);
            }
            if random.once_in(2) {
                snapshot.verified_until = extreme(&mut random);
            }
        }
        if random.once_in(2) {
            case.now = extreme(&mut random);
        }
        for (_, count) in &mut case.policy.keep {
            if random.once_in(4) {
                *count = SlotCount::Newest(u32::MAX);
            }
        }
        if random.once_in(4) {
            case.policy.min_age = DurationText::parse("52000w").expect("nearly the longest");
        }
        let believed = extreme(&mut random);
        let pause = ClockJump { believed, seen: case.now };
        let history = RotationHistory {
            last_run: Some(extreme(&mut random)),
            clock_jump: random.once_in(2).then_some(pause),
            state_lost: random.once_in(10),
            confirmed_future: random.once_in(2).then_some(believed),
            ..RotationHistory::default()
        };
        let decision = decide(&case.snapshots, &history, &case.policy, case.now);
        keeps(&decision, case.complete().last().copied())?;
        let words = decision
            .verdicts
            .iter()
            .flat_map(|one| &one.reasons)
            .map(|reason| reason.to_string().len());
        equal(words.filter(|length| *length == 0).count(), 0)
    });
}

#[test]
fn a_hundred_thousand_snapshots_are_decided_on() {
    slow!();
    let start = at("1999-01-01T00:00:00Z");
    for prefer in [Prefer::Oldest, Prefer::Newest] {
        let keep =
            [(Frequency::Hourly, "24"), (Frequency::Daily, "always"), (Frequency::Yearly, "3")];
        let policy = Policy { prefer, ..bare_policy(&keep) };
        let all: Vec<Snapshot> =
            (0..100_000).map(|quarter| taken(start + TimeDelta::minutes(15 * quarter))).collect();
        let now = all.last().expect("the newest").time;
        let decision = decide_before_guards(&all, &policy, now);
        let days = 100_000_usize.div_ceil(96);
        // Of the last 24 hours, those that do not stand for their day as well.
        assert!(
            (days + 22..=days + 25).contains(&kept(&decision).len()),
            "{}",
            kept(&decision).len()
        );

        let at_once = vec![taken(start); 100_000];
        assert_eq!(
            decide_before_guards(&at_once, &policy, now).expired().count(),
            99_998 + usize::from(prefer == Prefer::Newest)
        );
    }
}
