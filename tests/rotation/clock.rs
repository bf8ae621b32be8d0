//! Wrong clocks beside a world whose clock is right.
//!
//! A history is pushes, boots and clock errors at random. Each is lived through twice by the same
//! model of the program: by the right clock without a pause, and by the wrong one with all guards.
//! The law: each state of the module that the world with the right clock holds in the end, the
//! other one holds, too.
//!
//! Not covered, since no record can tell these from what happens: a clock that was wrong at the
//! first run of all; one that was moved by no more than the tolerance of ten minutes; and one that,
//! across a boot, shows a time that it can show (between the last run and the limit, which is a day
//! and a quarter, or the longest gap of late and a quarter), or that was ahead for a whole day of
//! uptime from a boot on. The histories here have none of these, except where a test says so.
//!
//! A hundred histories in the normal run, `RSYNCD_SNAPSHOT_SWEEP=full` takes a hundred times as
//! many.

use crate::support::{self, snapshots};

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use rsyncd_snapshot::decide::boot_time::BootTime;
use rsyncd_snapshot::decide::clock_history::SequenceNumbers;
use rsyncd_snapshot::decide::clock_jump::clock_jump;
use rsyncd_snapshot::decide::clock_reading::ClockReading;
use rsyncd_snapshot::decide::duration_text::DurationText;
use rsyncd_snapshot::decide::frequency::Frequency;
use rsyncd_snapshot::decide::policy::{Policy, Prefer};
use rsyncd_snapshot::decide::rotation::decide;
use rsyncd_snapshot::decide::snapshot::Snapshot;
use rsyncd_snapshot::decide::snapshot::Undated;
use rsyncd_snapshot::decide::snapshot_reason::{ExpiryPause, SnapshotReason};
use rsyncd_snapshot::decide::snapshot_verdict::{Decision, RotationHistory};
use snapshots::{DAY, HOUR, MINUTE, at, bare_policy, between, choice, policy, taken};
use support::module::Module;
use support::random::Random;
use support::server::Server;
use support::simulated::Simulated;
use support::tree;

/// A root as the program keeps it, without a disk.
struct World {
    policy: Policy,
    is_guarded: bool,
    held: Vec<Snapshot>,
    history: RotationHistory,
    sequence: u64,
    /// How often the module has changed: what a snapshot shows.
    content: u64,
    expired: usize,
}

impl World {
    fn new(policy: &Policy, is_guarded: bool) -> World {
        let policy = Policy { max_expire: usize::MAX, ..policy.clone() };
        let history = RotationHistory::default();
        World { policy, is_guarded, held: Vec::new(), history, sequence: 0, content: 0, expired: 0 }
    }

    /// A push that changes something or nothing, as the program works it off.
    fn push(&mut self, reading: &ClockReading, has_changed: bool) -> Decision {
        let now = reading.time;
        self.content += u64::from(has_changed);
        let numbers = SequenceNumbers { known: self.sequence, newest: self.sequence };
        let mut clock = self.history.clock.observe(reading, numbers, self.policy.clock_jump);
        let jump = clock_jump(
            self.history.clock_jump.as_ref(),
            self.history.last_run,
            now,
            self.policy.clock_jump,
        );
        let newest = self.newest(now);
        // The newest by its date, which a wrong clock may have given: then the module differs from
        // it.
        let shown = format!("{} ", self.content);
        match newest.filter(|&newest| self.held[newest].name.starts_with(&shown)) {
            Some(newest) => {
                let snapshot = &mut self.held[newest];
                snapshot.verified_until = match clock.doubt() {
                    Some(_) => snapshot.verified_until.max(now),
                    None => now.max(snapshot.time),
                };
                clock.note_verified_in_doubt(snapshot.sequence.expect("a number"));
            }
            None => {
                if let Some(newest) = newest.filter(|_| clock.doubt().is_none()) {
                    let until = &mut self.held[newest].verified_until;
                    *until = (*until).min(now);
                }
                self.take(reading);
            }
        }
        self.history = RotationHistory {
            last_run: Some(now),
            clock_jump: jump,
            clock,
            sequence: self.sequence,
            ..self.history.clone()
        };
        self.rotate(reading)
    }

    fn newest(&self, now: DateTime<Utc>) -> Option<usize> {
        let past = (0..self.held.len()).filter(|&index| self.held[index].time <= now);
        past.max_by_key(|&index| self.held[index].time)
    }

    fn take(&mut self, reading: &ClockReading) {
        self.sequence += 1;
        let ClockReading { time, boot, uptime_seconds } = reading.clone();
        let taken_at = Some(BootTime::from_seconds(boot, uptime_seconds));
        let name = format!("{} #{} {time}", self.content, self.sequence);
        self.held.push(Snapshot { name, sequence: Some(self.sequence), taken_at, ..taken(time) });
    }

    fn decide(&self, reading: &ClockReading) -> Decision {
        let guarded = RotationHistory { reading: Some(reading.clone()), ..self.history.clone() };
        let history = if self.is_guarded { guarded } else { RotationHistory::default() };
        decide(&self.held, &history, &self.policy, reading.time)
    }

    fn rotate(&mut self, reading: &ClockReading) -> Decision {
        let decision = self.decide(reading);
        let expired: BTreeSet<_> =
            decision.expired().map(|verdict| verdict.snapshot.sequence).collect();
        self.expired += expired.len();
        self.held.retain(|one| !expired.contains(&one.sequence));
        decision
    }

    fn confirm(&mut self, reading: &ClockReading) {
        let future = self.held.iter().filter(|one| one.time > reading.time);
        let future: Vec<u64> = future.filter_map(|one| one.sequence).collect();
        self.history.clock = self.history.clock.confirm(reading, self.sequence, &future);
        self.history.clock_jump = None;
        self.history.confirmed_future = self.held.iter().map(|one| one.verified_until).max();
        self.history.last_run = Some(reading.time);
    }

    /// The states of the module that are held. Where the clocks differ, so may the number of
    /// snapshots: what is older than a clock that is behind is not compared with.
    fn contents(&self) -> BTreeSet<u64> {
        let content = |one: &Snapshot| one.name.split(' ').next()?.parse().ok();
        self.held.iter().filter_map(content).collect()
    }
}

/// Real time, and what a clock shows that may be wrong.
struct Clock {
    real: DateTime<Utc>,
    offset: TimeDelta,
    boots: u32,
    booted: DateTime<Utc>,
}

impl Clock {
    fn new() -> Clock {
        let real = at("2026-03-02T09:17:00Z");
        Clock { real, offset: TimeDelta::zero(), boots: 0, booted: real - TimeDelta::hours(5) }
    }

    fn pass(&mut self, seconds: i64) {
        self.real += TimeDelta::seconds(seconds);
    }

    /// The machine is off for so long; afterwards its clock is wrong by `offset`.
    fn boot(&mut self, off_seconds: i64, offset: TimeDelta) {
        self.pass(off_seconds);
        (self.boots, self.booted, self.offset) = (self.boots + 1, self.real, offset);
        self.pass(MINUTE);
    }

    fn reading(&self, offset: TimeDelta) -> ClockReading {
        let uptime_seconds = (self.real - self.booted).num_seconds();
        ClockReading {
            time: self.real + offset,
            boot: format!("boot {}", self.boots),
            uptime_seconds,
        }
    }

    fn shown(&self) -> ClockReading {
        self.reading(self.offset)
    }

    fn right(&self) -> ClockReading {
        self.reading(TimeDelta::zero())
    }
}

/// Both worlds, push by push.
struct Worlds {
    clock: Clock,
    right: World,
    wrong: World,
    story: Vec<String>,
}

impl Worlds {
    fn new(policy: &Policy) -> Worlds {
        let (right, wrong) = (World::new(policy, false), World::new(policy, true));
        Worlds { clock: Clock::new(), right, wrong, story: Vec::new() }
    }

    fn push(&mut self, has_changed: bool) -> Decision {
        self.right.push(&self.clock.right(), has_changed);
        let decision = self.wrong.push(&self.clock.shown(), has_changed);
        let shown = self.clock.shown();
        let change = if has_changed { "change" } else { "same" };
        let pause = decision.pause.as_ref().map(ToString::to_string).unwrap_or_default();
        self.story.push(format!(
            "{} {} up {} s: {change} #{} {pause}",
            self.clock.real, shown.time, shown.uptime_seconds, self.wrong.sequence
        ));
        let gone = decision.expired().map(|one| {
            let reasons: Vec<String> = one.reasons.iter().map(ToString::to_string).collect();
            format!("    expires {}: {}", one.snapshot.name, reasons.join(", "))
        });
        self.story.extend(gone);
        decision
    }

    fn pushes(&mut self, count: usize, every: i64) {
        for _ in 0..count {
            self.clock.pass(every);
            self.push(true);
        }
    }

    #[track_caller]
    fn assert_nothing_lost(&self, what: &str) {
        let lost: Vec<u64> =
            self.right.contents().difference(&self.wrong.contents()).copied().collect();
        let policy = &self.wrong.policy;
        assert!(
            lost.is_empty(),
            "{what}: {lost:?} are lost by {:?}, {:?}, strict {}, min_age {}, min_keep {}\n{}\nheld {:#?}",
            policy.keep,
            policy.prefer,
            policy.strict,
            policy.min_age,
            policy.min_keep,
            self.story.join("\n"),
            self.wrong
                .held
                .iter()
                .map(|one| format!("{} until {}", one.name, one.verified_until))
                .collect::<Vec<_>>(),
        );
    }
}

fn usual() -> Policy {
    bare_policy(&[(Frequency::Hourly, "24"), (Frequency::Daily, "7"), (Frequency::Weekly, "4")])
}

fn days(count: i64) -> TimeDelta {
    TimeDelta::days(count)
}

// -- One error each -------------------------------------------------------------------------------

#[test]
fn twenty_days_ahead_within_a_boot_expires_no_more_than_the_right_clock() {
    let mut worlds = Worlds::new(&usual());
    worlds.pushes(240, HOUR);
    worlds.clock.offset = days(20);
    for _ in 0..48 {
        worlds.clock.pass(HOUR);
        let decision = worlds.push(true);
        assert!(matches!(decision.pause, Some(ExpiryPause::ClockDoubt(_))), "{:?}", decision.pause);
        let words = decision.pause.expect("a pause").to_string();
        assert!(
            words.contains("boot clock counted 60m") && words.contains("rotate --confirm"),
            "{words}"
        );
        worlds.assert_nothing_lost("while 20 days ahead");
    }
    // Right again: what the wrong clock dated stays outside, also when its dates are past.
    worlds.clock.offset = days(0);
    worlds.pushes(24 * 30, HOUR);
    let decision = worlds.push(true);
    assert_eq!(decision.pause, None);
    let undated =
        decision.verdicts.iter().filter(|one| one.snapshot.undated == Some(Undated::Doubted));
    let undated = undated.count();
    assert!((5..48).contains(&undated), "some went by every time: {undated}");
    worlds.assert_nothing_lost("20 days ahead");
    // A person's word ends that.
    worlds.wrong.confirm(&worlds.clock.shown());
    assert!(worlds.wrong.decide(&worlds.clock.shown()).expired().count() > 10);
}

#[test]
fn fifteen_days_behind_pushes_no_old_snapshot_out() {
    for is_reboot in [false, true] {
        let mut worlds = Worlds::new(&usual());
        worlds.pushes(24 * 40, HOUR);
        match is_reboot {
            true => worlds.clock.boot(HOUR, days(-15)),
            false => worlds.clock.offset = days(-15),
        }
        worlds.pushes(1, HOUR);
        match is_reboot {
            true => worlds.clock.boot(HOUR, days(0)),
            false => worlds.clock.offset = days(0),
        }
        worlds.pushes(24, HOUR);
        let decision = worlds.push(true);
        assert_eq!(decision.pause, None);
        let undated: Vec<_> =
            decision.verdicts.iter().filter(|one| one.snapshot.undated.is_some()).collect();
        assert_eq!(undated.len(), 1, "reboot {is_reboot}");
        let words = undated[0].reasons[0].to_string();
        assert!(words.starts_with("undated: ") && words.contains("rotate --confirm"), "{words}");
        worlds.assert_nothing_lost("15 days behind");
    }
}

#[test]
fn a_snapshot_of_1970_is_not_expired_at_once() {
    let mut worlds = Worlds::new(&usual());
    worlds.pushes(30, HOUR);
    let since_1970 = worlds.clock.real - DateTime::UNIX_EPOCH;
    worlds.clock.boot(HOUR, -since_1970);
    worlds.push(true);
    worlds.clock.offset = days(0);
    worlds.pushes(1, MINUTE);
    let decision = worlds.push(true);
    assert_eq!(decision.pause, None);
    let undated =
        decision.verdicts.iter().find(|one| one.snapshot.sequence == Some(31)).expect("it is held");
    assert_eq!(undated.reasons, [SnapshotReason::Undated(Undated::Doubted)]);
    worlds.assert_nothing_lost("1970");

    // A person's word makes 1970 no date: it counts as taken with the one after it.
    worlds.wrong.confirm(&worlds.clock.shown());
    worlds.wrong.policy.min_age = DurationText::from_seconds(3_600);
    let decision = worlds.wrong.decide(&worlds.clock.shown());
    let dated =
        decision.verdicts.iter().find(|one| one.snapshot.sequence == Some(31)).expect("it is held");
    assert!(
        dated.keep
            && dated.reasons.contains(&SnapshotReason::TooYoung(DurationText::from_seconds(3_600))),
        "{dated:?}"
    );

    // Also if it is the first of all, or of a version that knew no sequence numbers.
    let old = taken(at("1970-01-01T00:03:00Z"));
    let snapshots = [old, taken(at("2026-11-22T19:00:00Z")), taken(at("2026-11-22T20:00:00Z"))];
    let policy = Policy { min_keep: 1, ..usual() };
    let decision =
        decide(&snapshots, &RotationHistory::default(), &policy, at("2026-11-22T20:00:00Z"));
    assert_eq!(decision.verdicts[0].reasons, [SnapshotReason::Undated(Undated::Implausible)]);
}

#[test]
fn a_clock_set_by_hours_at_boot_is_believed_after_a_day() {
    let mut worlds = Worlds::new(&usual());
    worlds.pushes(240, HOUR);
    worlds.clock.boot(HOUR, TimeDelta::hours(2));
    worlds.pushes(1, MINUTE);
    worlds.clock.offset = days(0);
    let mut paused = 0;
    for _ in 0..60 {
        worlds.clock.pass(HOUR);
        paused += usize::from(worlds.push(true).pause.is_some());
    }
    assert!((20..=26).contains(&paused), "{paused} hours");
    worlds.assert_nothing_lost("2 hours at boot");
}

#[test]
fn a_long_time_off_is_believed_after_a_day_of_uptime() {
    for days_off in [3, 20] {
        let mut worlds = Worlds::new(&usual());
        worlds.pushes(240, HOUR);
        worlds.clock.boot(days_off * DAY, days(0));
        let mut paused = 0;
        // In two stretches.
        for _ in 0..2 {
            for _ in 0..15 {
                worlds.clock.pass(HOUR);
                paused += usize::from(worlds.push(true).pause.is_some());
            }
            worlds.clock.boot(HOUR, days(0));
        }
        assert!((23..=26).contains(&paused), "{paused} hours");
        let decision = worlds.wrong.decide(&worlds.clock.shown());
        assert!(
            decision.pause.is_none()
                && decision.verdicts.iter().all(|one| one.snapshot.undated.is_none())
        );
        worlds.assert_nothing_lost("off for days");
    }
    // Nightly pushes of a machine that runs for an hour a day are no reason for doubt.
    let mut nightly = Worlds::new(&usual());
    for night in 0..60 {
        nightly.clock.boot(23 * HOUR + (night % 5) * 10 * MINUTE, days(0));
        assert_eq!(nightly.push(true).pause, None);
    }
    // Beyond clock_jump a person has to confirm.
    let mut worlds = Worlds::new(&usual());
    worlds.pushes(240, HOUR);
    worlds.clock.boot(40 * DAY, days(0));
    worlds.pushes(100, HOUR);
    assert!(worlds.push(true).pause.is_some());
    worlds.wrong.confirm(&worlds.clock.shown());
    assert_eq!(worlds.wrong.decide(&worlds.clock.shown()).pause, None);
}

#[test]
fn a_drifting_clock_is_found_out() {
    slow!();
    for percent in [-50, -5, 5, 50, 300] {
        let mut worlds = Worlds::new(&usual());
        worlds.pushes(240, HOUR);
        for _ in 0..24 * 10 {
            worlds.clock.offset += TimeDelta::seconds(HOUR * percent / 100);
            worlds.pushes(1, HOUR);
        }
        let decision = worlds.push(true);
        assert!(decision.pause.is_some(), "{percent} %");
        worlds.assert_nothing_lost(&format!("{percent} % drift"));
    }
}

#[test]
fn small_corrections_are_no_reason_for_a_doubt() {
    slow!();
    let mut worlds = Worlds::new(&usual());
    let mut random = Random::new(3);
    for hour in 0..24 * 200 {
        worlds.clock.pass(HOUR);
        if hour % 24 == 0 {
            // As `ntpdate` once a day leaves it, with a second to spare for a leap.
            worlds.clock.offset = TimeDelta::seconds(between(&mut random, -45, 46));
        }
        let decision = worlds.push(!random.once_in(5));
        assert_eq!(decision.pause, None);
        assert!(decision.verdicts.iter().all(|one| one.snapshot.undated.is_none()));
    }
}

/// A state that was lost knows nothing of clocks; records do.
#[test]
fn records_alone_show_which_dates_contradict() {
    let number = |number: u64, time: &str, boot: &str, seconds: i64| Snapshot {
        name: format!("#{number}"),
        sequence: Some(number),
        taken_at: Some(BootTime::from_seconds(boot.to_string(), seconds)),
        ..taken(at(time))
    };
    let undated = |snapshots: &[Snapshot]| -> Vec<(String, Undated)> {
        let decision =
            decide(snapshots, &RotationHistory::default(), &usual(), at("2026-12-30T00:00:00Z"));
        let verdicts = decision.verdicts.into_iter().map(|one| one.snapshot);
        verdicts.filter_map(|one| Some((one.name, one.undated?))).collect()
    };
    let (first, second) =
        (number(1, "2026-11-01T00:00:00Z", "a", 0), number(2, "2026-11-02T00:00:00Z", "b", 0));
    assert_eq!(undated(&[first.clone(), second.clone()]), []);
    let behind = number(3, "2026-11-01T12:00:00Z", "c", 0);
    let wrong = |number: &str, why| (number.to_string(), why);
    assert_eq!(
        undated(&[first.clone(), second.clone(), behind]),
        [wrong("#3", Undated::OutOfOrder), wrong("#2", Undated::OutOfOrder)]
    );
    let ahead = number(3, "2026-11-22T00:00:00Z", "b", HOUR);
    assert_eq!(
        undated(&[first.clone(), second.clone(), ahead]),
        [wrong("#2", Undated::BootClock), wrong("#3", Undated::BootClock)]
    );
    // Records of older versions come before all that have a number.
    let old = taken(at("2026-11-05T00:00:00Z"));
    assert_eq!(
        undated(&[old.clone(), second]),
        [wrong("#2", Undated::OutOfOrder), wrong(&old.name, Undated::OutOfOrder)]
    );
    // What others have dated is in no order.
    assert_eq!(undated(&[Snapshot { recorded: false, ..old }, first]), []);
}

// -- The program itself ---------------------------------------------------------------------------

/// Five daily pushes, one by a wrong clock, and more by the right one.
fn pushes_around(error: TimeDelta) {
    let policy = "[defaults]\nkeep = { daily = 40 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\ntime_zone = \"UTC\"\n";
    let module = Simulated::new(Module::new(), policy);
    let push = |content: i64| {
        tree::write(&module.latest.join("file"), &content.to_string());
        module.publish_with(&[0, 4])
    };
    let mut taken = Vec::new();
    for day in 0..25 {
        taken.push(push(day));
        module.pass(23);
    }
    module.set_clock_ahead_by(error);
    let misdated = push(100);
    assert!(taken.iter().all(|name| module.snapshots().contains(name)), "{:?}", module.snapshots());
    module.set_clock_ahead_by(TimeDelta::zero());
    for day in 25..52 {
        taken.push(push(day));
        module.pass(23);
    }
    let left = module.snapshots();
    let newest = &taken[taken.len() - 38..];
    assert!(newest.iter().chain([&misdated]).all(|name| left.contains(name)), "{left:?}");
    assert!(!left.contains(&taken[0]), "expiry goes on: {left:?}");
    let plan = Server::run(&module, &["plan", "data", "--at", &module.shown().to_rfc3339()]);
    plan.exits(&[0]).says("undated: the clock that dated it was wrong");
    Server::run(&module, &["check", "data"]).exits(&[1]).says("1 snapshot is undated");
}

#[test]
fn a_push_dated_15_days_behind_displaces_nothing() {
    slow!();
    // Not to the hour: else the name is taken.
    pushes_around(days(-15) + TimeDelta::minutes(5));
}

#[test]
fn a_push_dated_20_days_ahead_displaces_nothing() {
    pushes_around(days(20));
}

// -- While the clock is in doubt ------------------------------------------------------------------

#[test]
fn a_doubt_lets_go_what_goes_by_every_time() {
    let hours = bare_policy(&[(Frequency::Hourly, "2")]);
    let mut worlds =
        Worlds::new(&Policy { min_keep: 1, min_age: DurationText::from_seconds(0), ..hours });
    worlds.pushes(1, HOUR);
    for _ in 0..20 {
        worlds.clock.offset += TimeDelta::hours(1);
        worlds.pushes(1, 1);
        worlds.assert_nothing_lost("an hour more with each push");
    }
    let decision = worlds.wrong.decide(&worlds.clock.shown());
    assert!(matches!(decision.pause, Some(ExpiryPause::ClockDoubt(_))), "{:?}", decision.pause);
    let held: Vec<u64> = worlds.wrong.held.iter().filter_map(|one| one.sequence).collect();
    assert_eq!(held, [1, 20, 21]);
    let first = &decision.verdicts[1].reasons;
    assert!(
        first.iter().any(|reason| reason.to_string().starts_with("if the right time is 2026-03-0")),
        "{first:?}"
    );
    // By the dates as they are, both are now outside the window; by every other time they share an
    // hour with the first.
    worlds.clock.offset += days(3);
    let decision = worlds.push(true);
    let gone: Vec<_> =
        decision.expired().map(|one| (one.snapshot.sequence, &one.reasons)).collect();
    assert!(gone.iter().map(|one| one.0).eq([Some(20), Some(21)]), "{gone:?}");
    assert!(matches!(gone[0].1[0], SnapshotReason::EveryTime(count) if count > 10), "{gone:?}");
    let line = decision.pause_line().expect("a line");
    assert!(
        line.starts_with("nothing expires but 2 snapshots,") && line.contains("rotate --confirm"),
        "{line}"
    );
}

#[test]
fn no_time_in_doubt_costs_what_the_right_one_keeps() {
    slow!();
    let years = 3_653;
    for error in [days(20), days(-20), days(years), days(-years), TimeDelta::hours(5)] {
        for back in [days(0), error / 2, -error] {
            let mut worlds = Worlds::new(&usual());
            worlds.pushes(24 * 12, HOUR);
            for offset in [error, back, error, days(0)] {
                worlds.clock.offset = offset;
                for _ in 0..20 {
                    worlds.clock.pass(HOUR);
                    worlds.push(true);
                    worlds.assert_nothing_lost(&format!("{error} then {back}"));
                }
            }
        }
    }
}

#[test]
fn a_time_set_right_expires_only_what_that_time_expires() {
    // The clock is wrong from the first push of the boot on, and nothing shows that.
    for error in [TimeDelta::hours(-7), TimeDelta::hours(7)] {
        let mut worlds = Worlds::new(&usual());
        worlds.clock.offset = error;
        // The right world knows the right time only; what the wrong one expired before is its loss.
        for _ in 0..20 {
            worlds.clock.pass(HOUR / 2);
            worlds.push(true);
        }
        worlds.clock.offset = days(0);
        for _ in 0..80 {
            worlds.clock.pass(HOUR / 2);
            let decision = worlds.push(true);
            let by_right_time = |one: &Snapshot| {
                let taken = one.taken_at.as_ref().expect("a boot time");
                let time = worlds.clock.booted + TimeDelta::seconds(taken.seconds());
                Snapshot { time, verified_until: time, undated: None, ..one.clone() }
            };
            let right: Vec<Snapshot> =
                decision.verdicts.iter().map(|one| by_right_time(&one.snapshot)).collect();
            let policy = Policy { max_expire: usize::MAX, ..usual() };
            let right = decide(&right, &RotationHistory::default(), &policy, worlds.clock.real);
            for one in decision.expired() {
                let of_right =
                    right.verdicts.iter().find(|right| right.snapshot.name == one.snapshot.name);
                assert!(!of_right.expect("the same").keep, "{error}: {one:?}");
            }
        }
    }
}

#[test]
fn a_doubt_across_a_boot_expires_nothing() {
    for error in [days(20), days(-20)] {
        let mut worlds = Worlds::new(&usual());
        worlds.pushes(24 * 12, HOUR);
        worlds.clock.boot(HOUR, error);
        for _ in 0..20 {
            worlds.clock.pass(HOUR);
            let decision = worlds.push(true);
            assert!(decision.pause.is_some() && decision.expired().count() == 0);
        }
        // And a doubt within the next boot leaves what is from before.
        worlds.clock.boot(HOUR, days(0));
        worlds.pushes(10, MINUTE);
        worlds.clock.offset = error;
        for _ in 0..20 {
            worlds.clock.pass(HOUR);
            let decision = worlds.push(true);
            let boot = format!("boot {}", worlds.clock.boots);
            let of_boot = |one: &Snapshot| one.taken_at.as_ref().is_some_and(|at| at.boot == boot);
            assert!(decision.expired().all(|one| of_boot(&one.snapshot)));
            worlds.assert_nothing_lost("a doubt after a boot");
        }
    }
}

/// Errors by the dozen within one boot, with a look after every push.
#[test]
fn random_doubts_within_a_boot_lose_nothing_at_any_time() {
    let histories = support::by_sweep(40, 75, 10_000);
    let mut expired_in_doubt = 0;
    for seed in 0..histories {
        let mut random = Random::new(seed);
        let policy = match random.below(3) {
            0 => Policy { min_age: DurationText::from_seconds(0), ..usual() },
            1 => {
                Policy { prefer: Prefer::Newest, min_age: DurationText::from_seconds(0), ..usual() }
            }
            _ => Policy { keep_partial: 0, ..policy(&mut random) },
        };
        let quiet = if random.once_in(2) { 3 } else { usize::MAX };
        let policy = Policy { strict: quiet == usize::MAX && policy.strict, ..policy };
        let mut worlds = Worlds::new(&policy);
        let every = choice(&mut random, &[MINUTE, 20 * MINUTE, HOUR, 6 * HOUR]);
        for _ in 0..between(&mut random, 2, 40) {
            worlds.clock.pass(between(&mut random, every / 2, every));
            worlds.push(quiet == usize::MAX || !random.once_in(quiet));
        }
        if random.once_in(3) {
            worlds.clock.boot(MINUTE, days(0));
            worlds.push(true);
        }
        for _ in 0..between(&mut random, 1, 60) {
            if random.once_in(6) {
                worlds.clock.offset = if random.once_in(3) { days(0) } else { error(&mut random) };
            }
            worlds.clock.pass(between(&mut random, every / 4, every));
            let decision = worlds.push(quiet == usize::MAX || !random.once_in(quiet));
            if matches!(decision.pause, Some(ExpiryPause::ClockDoubt(_))) {
                expired_in_doubt += decision.expired().count();
            }
            worlds.assert_nothing_lost(&format!("seed {seed}"));
        }
    }
    eprintln!("{histories} histories: {expired_in_doubt} expired in doubt");
    assert!(expired_in_doubt > histories as usize / 4, "{expired_in_doubt}");
}

// -- Random histories -----------------------------------------------------------------------------

/// How a clock goes wrong.
fn error(random: &mut Random) -> TimeDelta {
    let seconds = choice(random, &[30 * MINUTE, 5 * HOUR, 2 * DAY, 20 * DAY, 400 * DAY]);
    let seconds = between(random, seconds / 2 + 11 * MINUTE, seconds + 11 * MINUTE);
    TimeDelta::seconds(if random.once_in(2) { seconds } else { -seconds })
}

/// A history that ends with the right clock, and long enough after the last error for pauses to
/// end.
fn live(seed: u64) -> Worlds {
    let mut random = Random::new(seed);
    let policy = match random.below(3) {
        0 => usual(),
        1 => Policy { prefer: Prefer::Newest, min_age: DurationText::from_seconds(0), ..usual() },
        _ => Policy { keep_partial: 0, ..policy(&mut random) },
    };
    // After a wrong clock an unchanged module may be taken once more instead of verified, and that
    // snapshot may begin within a strict window which the verified one only reaches: so no strict
    // window where pushes change nothing.
    let quiet = if random.once_in(2) { 3 } else { usize::MAX };
    let policy = Policy { strict: quiet == usize::MAX && policy.strict, ..policy };
    let mut worlds = Worlds::new(&policy);
    let every = choice(&mut random, &[20 * MINUTE, HOUR, HOUR, 6 * HOUR, DAY]);
    let calm = |worlds: &mut Worlds, random: &mut Random| {
        for _ in 0..between(random, 1, 40) {
            worlds.clock.pass(between(random, every / 2, every));
            worlds.push(quiet == usize::MAX || !random.once_in(quiet));
        }
    };
    calm(&mut worlds, &mut random);
    for _ in 0..between(&mut random, 1, 4) {
        calm(&mut worlds, &mut random);
        let off = choice(&mut random, &[MINUTE, HOUR, 10 * HOUR, 3 * DAY]);
        let error = match random.below(5) {
            0 => DateTime::UNIX_EPOCH - worlds.clock.real,
            _ => error(&mut random),
        };
        // Across a boot the clock may show any time from the last run to the limit after it.
        let seconds = error.num_seconds();
        let longest = DAY * 5 / 4 + 5 * DAY;
        let seen_across_boot = seconds < -(off + every + HOUR) || seconds > longest;
        let is_boot = random.once_in(2) && seen_across_boot;
        if is_boot {
            worlds.clock.boot(off, error);
        } else {
            worlds.clock.offset += error;
        }
        // Less than a day of uptime from a boot on.
        let until = worlds.clock.real + TimeDelta::seconds(between(&mut random, 0, 20 * HOUR));
        worlds.push(quiet == usize::MAX || !random.once_in(quiet));
        while worlds.clock.real < until {
            worlds.clock.pass(between(&mut random, every / 8, every / 4));
            worlds.push(quiet == usize::MAX || !random.once_in(quiet));
        }
        match random.below(3) {
            0 => worlds
                .clock
                .boot(choice(&mut random, &[MINUTE, HOUR, 10 * HOUR]), TimeDelta::zero()),
            _ => worlds.clock.offset = TimeDelta::zero(),
        }
    }
    calm(&mut worlds, &mut random);
    for _ in 0..between(&mut random, 0, 50) {
        worlds.clock.pass(between(&mut random, HOUR, 10 * HOUR));
        worlds.push(quiet == usize::MAX || !random.once_in(quiet));
    }
    worlds
}

#[test]
fn no_wrong_clock_costs_what_the_right_one_keeps() {
    slow!();
    let histories = support::by_sweep(20, 50, 40_000);
    let (mut resumed, mut with_undated, mut expired) = (0, 0, 0);
    for seed in 0..histories {
        let worlds = live(seed);
        worlds.assert_nothing_lost(&format!("seed {seed}"));
        let decision = worlds.wrong.decide(&worlds.clock.shown());
        resumed += u64::from(decision.pause.is_none());
        with_undated +=
            u64::from(decision.verdicts.iter().any(|one| one.snapshot.undated.is_some()));
        expired += worlds.wrong.expired;
    }
    eprintln!(
        "{histories} histories: {resumed} expire again, {with_undated} hold undated ones, {expired} expired"
    );
    assert!(resumed > histories / 4 && with_undated > histories / 4 && expired > 0);
}
