//! When not to believe the clock.
//!
//! A clock that is ahead makes every snapshot old at once, and one that is behind dates new
//! snapshots into the past. Three rules find a wrong clock:
//!
//! * Within one boot the boot clock says how much time has passed. The kernel slews both clocks
//!   alike, so they part only when the wall clock is *set*.
//! * Across a boot the wall clock may say that some time has passed, not more than runs were ever
//!   apart lately (`ClockHistory::limit`), and not that time went back.
//! * A step of more than the policy's `clock_jump` is never believed without a person's word.
//!
//! A reading that breaks a rule begins a [`Doubt`]: nothing expires. The doubt ends when the clock
//! shows again what it would show had it never stepped, when a person confirms the clock, or, for
//! steps that can be innocent, when the new time has agreed with the boot clock for a day. What
//! was dated by the side that proved wrong stays [*undated*](crate::decide::dating).

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::span::{Span, roughly};

/// How far the wall clock may be moved without a doubt, in seconds. A daemon that sets the clock
/// moves it by seconds, a leap second by one. No slot is shorter than a minute, and ten minutes
/// shift no more than the edge of an hourly one.
const TOLERANCE_SECONDS: i64 = 600;

/// One in so many seconds may be lost or gained on top of that: twice what a clock may drift that
/// is set once a day by hand and never slewed.
const DRIFT_SHARE: i64 = 1_000;

/// No gap across a boot up to this length is doubted, in seconds.
const SHORTEST_LIMIT_SECONDS: i64 = 86_400;

/// How many gaps between runs are remembered.
const GAPS: usize = 30;

/// How long a new time must agree with the boot clock to be believed, in seconds.
const AGREEMENT_SECONDS: i64 = 86_400;

/// A larger step within a boot needs a person's word, in seconds: no time can have passed.
const INNOCENT_STEP_SECONDS: i64 = 86_400;

/// The clock of a machine without a battery-backed clock is set within this time of the boot.
const SETTLING_SECONDS: i64 = 3_600;

/// More eras of a wrong clock are merged, which leaves more snapshots undated.
const MOST_ERAS: usize = 64;

/// Expiry is paused because the clock stepped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockJump {
    /// The last time that was believed.
    pub believed: DateTime<Utc>,
    /// What the clock said when the step was noticed.
    pub seen: DateTime<Utc>,
}

impl fmt::Display for ClockJump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.seen - self.believed;
        write!(
            f,
            "the clock stepped by {} (from {} to {}); check it, then run `rotate --confirm`",
            roughly(step),
            self.believed.format("%FT%TZ"),
            self.seen.format("%FT%TZ")
        )
    }
}

/// The pause that holds at `now`: one that `standing` has and the clock still shows, or a new one.
pub fn clock_jump(
    standing: Option<&ClockJump>,
    last_run: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    limit: Span,
) -> Option<ClockJump> {
    let agrees = |believed: DateTime<Utc>| (now - believed).abs() <= limit.delta();
    match (standing, last_run) {
        (Some(jump), _) => (!agrees(jump.believed)).then(|| jump.clone()),
        (None, Some(believed)) => (!agrees(believed)).then_some(ClockJump { believed, seen: now }),
        (None, None) => None,
    }
}

/// What both clocks showed at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// The wall clock.
    pub time: DateTime<Utc>,
    /// The boot's id; empty if it is not known.
    pub boot: String,
    /// Seconds since the boot.
    pub uptime_seconds: i64,
}

impl Reading {
    fn is_of_boot(&self, other: &Reading) -> bool {
        !self.boot.is_empty()
            && self.boot == other.boot
            && self.uptime_seconds >= other.uptime_seconds
    }

    /// How far the wall clock has moved from `other` on beyond what the boot clock counted.
    fn step_since(&self, other: &Reading) -> TimeDelta {
        (self.time - other.time) - TimeDelta::seconds(self.seconds_since(other))
    }

    fn seconds_since(&self, other: &Reading) -> i64 {
        self.uptime_seconds.saturating_sub(other.uptime_seconds)
    }
}

/// How far two clocks may part within `seconds`.
pub(crate) fn tolerance(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(TOLERANCE_SECONDS + seconds.max(0) / DRIFT_SHARE)
}

/// Readings of a clock that nothing contradicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Course {
    /// The first reading of the boot that `last` belongs to.
    anchor: Reading,
    last: Reading,
    /// The newest snapshot's sequence number at `anchor`.
    anchor_sequence: u64,
}

impl Course {
    fn begin(reading: &Reading, sequence: u64) -> Self {
        Course { anchor: reading.clone(), last: reading.clone(), anchor_sequence: sequence }
    }

    /// Whether `reading` can follow, when `measured` seconds at least have passed across boots.
    fn agrees(&self, reading: &Reading, measured: i64, limit: TimeDelta) -> bool {
        if reading.is_of_boot(&self.last) {
            let is_near = |other: &Reading| {
                reading.step_since(other).abs() <= tolerance(reading.seconds_since(other))
            };
            return is_near(&self.last) && is_near(&self.anchor);
        }
        let gap = reading.time - self.last.time;
        let measured_delta = TimeDelta::seconds(measured);
        gap >= measured_delta - tolerance(measured)
            && gap <= measured_delta + limit + tolerance(measured)
    }

    fn followed_by(&self, reading: &Reading, sequence: u64) -> Self {
        match reading.is_of_boot(&self.last) {
            true => Course { last: reading.clone(), ..self.clone() },
            false => Course::begin(reading, sequence),
        }
    }
}

/// The clock contradicts what was believed, and no one knows yet which of the two is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doubt {
    /// The last reading that was believed.
    believed: Reading,
    /// The first reading of the new time.
    first: Reading,
    /// The new time since.
    course: Course,
    /// How long the new time has agreed with the boot clock, in seconds of uptime.
    agreed_seconds: i64,
    /// How much time at least has passed since `believed`, in seconds of uptime.
    measured_seconds: i64,
    /// Snapshots with a higher sequence number are dated by the new time.
    after_sequence: u64,
    /// The new time contradicts one in the same boot that was doubted, too: one of the two is
    /// wrong.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    contradicted: bool,
    /// Earlier snapshots that were found unchanged by the new time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    verified: Vec<u64>,
}

impl Doubt {
    fn new(believed: &Reading, measured_seconds: i64, first: &Reading, sequence: u64) -> Self {
        Doubt {
            believed: believed.clone(),
            first: first.clone(),
            course: Course::begin(first, sequence),
            agreed_seconds: 0,
            measured_seconds,
            after_sequence: sequence,
            contradicted: false,
            verified: Vec::new(),
        }
    }

    /// A new time in place of that of `doubt`. A clock that was not set yet contradicts nothing.
    fn instead_of(doubt: &Doubt, measured_seconds: i64, first: &Reading, sequence: u64) -> Self {
        let last = &doubt.course.last;
        let was_set = is_plausible(last.time) && last.uptime_seconds >= SETTLING_SECONDS;
        let contradicted = first.is_of_boot(last) && (was_set || doubt.contradicted);
        Doubt { contradicted, ..Doubt::new(&doubt.believed, measured_seconds, first, sequence) }
    }

    fn is_within_boot(&self) -> bool {
        self.first.is_of_boot(&self.believed)
    }

    /// How far the wall clock moved beyond what the boot clock counted.
    fn step(&self) -> TimeDelta {
        match self.is_within_boot() {
            true => self.first.step_since(&self.believed),
            false => self.first.time - self.believed.time,
        }
    }

    /// Whether the new time may be believed in the end without a person's word: if the machine
    /// can have been off so long, if the clock was set right after the boot, or if it was
    /// set by hours.
    fn can_be_innocent(&self, clock_jump: Span) -> bool {
        let is_small = self.step().abs() <= TimeDelta::seconds(INNOCENT_STEP_SECONDS);
        let was_settling = self.believed.uptime_seconds < SETTLING_SECONDS;
        !self.contradicted
            && self.step().abs() <= clock_jump.delta()
            && (!self.is_within_boot() || is_small || was_settling)
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Doubt { believed, first, .. } = self;
        let (from, to) = (believed.time.format("%FT%TZ"), first.time.format("%FT%TZ"));
        write!(f, "the clock stepped by {} (from {from} to {to}", roughly(self.step()))?;
        if self.is_within_boot() {
            let passed = TimeDelta::seconds(first.seconds_since(believed));
            write!(f, ", while the boot clock counted {}); ", roughly(passed))?;
        } else {
            write!(f, ", across a boot); ")?;
        }
        f.write_str("if it is right now, run `rotate --confirm`; else set it right")
    }
}

/// Snapshots by their sequence numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Era {
    /// The first sequence number.
    pub first: u64,
    /// The last sequence number.
    pub last: u64,
}

/// A time that the clock showed and that was believed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Landmark {
    /// The newest snapshot's sequence number then.
    pub sequence: u64,
    /// The time.
    pub time: DateTime<Utc>,
}

/// Sequence numbers at a reading. The two differ after a run that was killed after it had
/// published: no run has noted by which clock that snapshot was dated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// The newest snapshot's that the last run knew of.
    pub known: u64,
    /// The newest snapshot's.
    pub newest: u64,
}

/// What earlier runs found out about the clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockHistory {
    /// The believed time.
    #[serde(skip_serializing_if = "Option::is_none")]
    course: Option<Course>,
    /// The lengths of the last gaps between runs, in seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<i64>,
    /// Up to this sequence number a person has confirmed the dates of snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed: Option<u64>,
    /// The doubt that stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    doubt: Option<Doubt>,
    /// Snapshots that a wrong clock dated.
    #[serde(default, rename = "undated", skip_serializing_if = "Vec::is_empty")]
    eras: Vec<Era>,
    /// Times that contradict later dates of earlier snapshots.
    #[serde(default, rename = "landmark", skip_serializing_if = "Vec::is_empty")]
    landmarks: Vec<Landmark>,
}

impl ClockHistory {
    /// The history of a clock that was read once, when the newest snapshot had the number
    /// `sequence`.
    pub fn begin(reading: &Reading, sequence: u64) -> Self {
        ClockHistory { course: Some(Course::begin(reading, sequence)), ..ClockHistory::default() }
    }

    /// The doubt that stands.
    pub fn doubt(&self) -> Option<&Doubt> {
        self.doubt.as_ref()
    }

    /// Whether a clock that was or may be wrong dated the snapshot with this number.
    pub fn is_doubted(&self, sequence: u64) -> bool {
        let is_in_doubt = self.doubt.as_ref().is_some_and(|doubt| sequence > doubt.after_sequence);
        is_in_doubt || self.eras.iter().any(|era| (era.first..=era.last).contains(&sequence))
    }

    /// The time before which the snapshot with this number must have been taken, and was not if it
    /// is dated later.
    pub fn latest_date(&self, sequence: u64) -> Option<DateTime<Utc>> {
        let after = self.landmarks.iter().filter(|landmark| sequence <= landmark.sequence);
        after.map(|landmark| landmark.time).min()
    }

    /// Whether a person has confirmed the date of the snapshot with this number. Those without one
    /// are older than all that have one.
    pub fn is_confirmed(&self, sequence: Option<u64>) -> bool {
        self.confirmed
            .is_some_and(|confirmed| sequence.is_none_or(|sequence| sequence <= confirmed))
    }

    /// How much time may have passed across a boot: the longest gap of the last runs or a day, and
    /// a quarter more, since a daily job is late at times.
    fn limit(&self) -> TimeDelta {
        let longest = self.gaps.iter().copied().max().unwrap_or(0).max(SHORTEST_LIMIT_SECONDS);
        TimeDelta::seconds(longest.saturating_add(longest / 4))
    }

    /// This history after another reading.
    #[must_use]
    pub fn observe(&self, reading: &Reading, numbers: Numbers, clock_jump: Span) -> Self {
        let sequence = numbers.known;
        let mut after = self.clone();
        if reading.boot.is_empty() {
            return after;
        }
        let Some(course) = &self.course else {
            after.course = Some(Course::begin(reading, sequence));
            return after;
        };
        match &self.doubt {
            None if course.agrees(reading, 0, self.limit()) => after.follow(reading, sequence),
            None if !is_plausible(course.last.time) && is_plausible(reading.time) => {
                after.course = Some(Course::begin(reading, sequence));
            }
            None => after.doubt = Some(Doubt::new(&course.last, 0, reading, sequence)),
            Some(doubt) => after.observe_in_doubt(doubt, course, reading, numbers, clock_jump),
        }
        after
    }

    fn follow(&mut self, reading: &Reading, sequence: u64) {
        let Some(course) = &self.course else { return };
        let gap = (reading.time - course.last.time).num_seconds().max(0);
        self.course = Some(course.followed_by(reading, sequence));
        self.add_gap(gap);
    }

    fn add_gap(&mut self, seconds: i64) {
        self.gaps.push(seconds);
        let surplus = self.gaps.len().saturating_sub(GAPS);
        self.gaps.drain(..surplus);
    }

    fn observe_in_doubt(
        &mut self,
        doubt: &Doubt,
        course: &Course,
        reading: &Reading,
        numbers: Numbers,
        clock_jump: Span,
    ) {
        let Numbers { known: sequence, newest } = numbers;
        let limit = self.limit();
        let is_of_boot = reading.is_of_boot(&doubt.course.last);
        let passed = if is_of_boot { reading.seconds_since(&doubt.course.last) } else { 0 };
        let measured = doubt.measured_seconds.saturating_add(passed);
        let agrees = doubt.course.agrees(reading, 0, limit);
        let leaves_contradiction = doubt.is_within_boot() || doubt.contradicted;
        if agrees
            && !is_of_boot
            && (leaves_contradiction || course.agrees(reading, measured, limit))
        {
            // The clock may have been set at the boot, or it was right and the machine was off:
            // which of the times before was wrong will never be known.
            self.distrust_before(doubt, course);
        } else if agrees {
            let doubt = Doubt {
                course: doubt.course.followed_by(reading, sequence),
                agreed_seconds: doubt.agreed_seconds.saturating_add(passed),
                measured_seconds: measured,
                ..doubt.clone()
            };
            match doubt.agreed_seconds >= AGREEMENT_SECONDS && doubt.can_be_innocent(clock_jump) {
                true => self.believe(&doubt, course),
                false => self.doubt = Some(doubt),
            }
            return;
        }
        // What the new time dated was dated wrongly, whatever is right.
        self.add_era(Era { first: doubt.after_sequence.saturating_add(1), last: newest });
        doubt
            .verified
            .iter()
            .for_each(|&sequence| self.add_era(Era { first: sequence, last: sequence }));
        self.doubt = None;
        match course.agrees(reading, measured, limit) {
            true => self.follow(reading, sequence),
            false => self.doubt = Some(Doubt::instead_of(doubt, measured, reading, newest)),
        }
    }

    /// The snapshot with this number was found unchanged while the clock is in doubt: how long it
    /// held is as doubtful as the date of a new one.
    pub fn doubt_also(&mut self, sequence: u64) {
        if let Some(doubt) = &mut self.doubt
            && sequence <= doubt.after_sequence
            && !doubt.verified.contains(&sequence)
        {
            doubt.verified.push(sequence);
        }
    }

    /// The new time was right all along.
    fn believe(&mut self, doubt: &Doubt, course: &Course) {
        if !doubt.is_within_boot() && doubt.step() > TimeDelta::zero() {
            self.add_gap(doubt.step().num_seconds());
        }
        self.distrust_before(doubt, course);
        self.course = Some(doubt.course.clone());
        self.doubt = None;
    }

    /// What was dated before the new time was dated wrongly if that is right.
    fn distrust_before(&mut self, doubt: &Doubt, course: &Course) {
        if doubt.is_within_boot() {
            // Since the boot at least.
            self.add_era(Era {
                first: course.anchor_sequence.saturating_add(1),
                last: doubt.after_sequence,
            });
        }
        self.landmarks.push(Landmark { sequence: doubt.after_sequence, time: doubt.first.time });
        if self.landmarks.len() > MOST_ERAS {
            let oldest = self.landmarks.remove(0);
            self.landmarks[0].time = self.landmarks[0].time.min(oldest.time);
        }
    }

    fn add_era(&mut self, era: Era) {
        if era.first > era.last {
            return;
        }
        self.eras.push(era);
        if self.eras.len() > MOST_ERAS {
            let oldest = self.eras.remove(0);
            self.eras[0].first = self.eras[0].first.min(oldest.first);
            self.eras[0].last = self.eras[0].last.max(oldest.last);
        }
    }

    /// A person vouches for the clock as it is, and for the dates of all snapshots but those that
    /// are dated later than that: `future`, by their numbers.
    #[must_use]
    pub fn confirm(&self, reading: &Reading, sequence: u64, future: &[u64]) -> Self {
        let mut after = ClockHistory {
            course: Some(Course::begin(reading, sequence)).filter(|_| !reading.boot.is_empty()),
            gaps: self.gaps.clone(),
            confirmed: Some(sequence),
            ..ClockHistory::default()
        };
        future.iter().for_each(|&sequence| after.add_era(Era { first: sequence, last: sequence }));
        after
    }

    /// The pause that a standing doubt would cause ends for a question about another time.
    #[must_use]
    pub fn without_doubt(&self) -> Self {
        ClockHistory { doubt: None, ..self.clone() }
    }
}

/// Clocks that were never set begin in 1970 or 1980; no snapshot was taken before this.
pub(crate) fn is_plausible(time: DateTime<Utc>) -> bool {
    const FIRST_YEAR_SECONDS: i64 = 631_152_000;
    time.timestamp() >= FIRST_YEAR_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Span = Span::from_seconds(31 * 86_400);

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_large_step_either_way_pauses_and_a_small_one_does_not() {
        let last = Some(at("2026-11-22T00:00:00Z"));
        assert!(clock_jump(None, last, at("2036-11-22T00:00:00Z"), LIMIT).is_some());
        assert!(clock_jump(None, last, at("2016-11-22T00:00:00Z"), LIMIT).is_some());
        assert!(clock_jump(None, last, at("2026-12-23T00:00:00Z"), LIMIT).is_none());
        assert!(clock_jump(None, None, at("2036-11-22T00:00:00Z"), LIMIT).is_none());
    }

    #[test]
    fn the_pause_outlasts_later_runs_and_ends_when_the_clock_agrees_again() {
        let jump =
            clock_jump(None, Some(at("2026-11-22T00:00:00Z")), at("2036-11-22T00:00:00Z"), LIMIT)
                .unwrap();
        let later = Some(at("2036-11-22T00:00:00Z"));
        assert_eq!(
            clock_jump(Some(&jump), later, at("2036-11-22T01:00:00Z"), LIMIT).as_ref(),
            Some(&jump)
        );
        assert_eq!(clock_jump(Some(&jump), later, at("2026-11-23T00:00:00Z"), LIMIT), None);
    }
}
