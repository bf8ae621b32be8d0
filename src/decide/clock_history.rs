//! What earlier runs found out about the clock, and when it is not believed.
//!
//! A clock that is ahead makes every snapshot old at once, and one that is behind dates new
//! snapshots into the past. Three rules find a wrong clock:
//!
//! * Within one boot the boot clock says how much time has passed. The kernel slews both clocks
//!   alike, so they differ only when the wall clock is *set*.
//! * Across a boot, the wall clock may show that time has passed, but not that it went back, nor a
//!   longer time than the recent gaps between runs allow (`ClockHistory::limit`).
//! * A step of more than the policy's `clock_jump` is believed only if the administrator confirms
//!   it.
//!
//! A reading that breaks a rule begins a [`ClockDoubt`], during which nearly nothing expires. The
//! doubt ends when the clock shows again what it would show without the step, or when the
//! administrator confirms the clock. For steps that may be harmless
//! (`ClockDoubt::can_be_believed_unconfirmed`) it also ends when the new time has agreed with the
//! boot clock for a day. The snapshots that the wrong time dated stay
//! [*undated*](crate::decide::undated).

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::clock_doubt::{ClockDoubt, DatingEvidence};
use crate::decide::clock_reading::{AgreeingReadings, ClockReading, is_plausible};
use crate::decide::duration_text::DurationText;

/// A gap across a boot of at most this many seconds begins no doubt.
const SHORTEST_LIMIT_SECONDS: i64 = 86_400;

/// A smaller difference of two clocks comes from their whole seconds.
const ROUNDING: TimeDelta = TimeDelta::seconds(2);

/// How many gaps between runs are remembered.
const GAPS: usize = 30;

/// How long a new time must agree with the boot clock to be believed, in seconds.
const AGREEMENT_SECONDS: i64 = 86_400;

/// If there are more eras of a wrong clock than this, the oldest are merged, which leaves more
/// snapshots undated.
const MOST_ERAS: usize = 64;

/// A range of snapshots that a wrong clock dated, by their sequence numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrongClockEra {
    /// The first sequence number.
    pub first: u64,
    /// The last sequence number.
    pub last: u64,
}

/// The latest time at which earlier snapshots can have been taken: the clock showed it when they
/// existed already, and it was believed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DateLimit {
    /// The limit holds for snapshots up to this sequence number.
    pub sequence: u64,
    /// The latest time.
    pub time: DateTime<Utc>,
}

/// The numbers of the newest snapshots when the clock is read. The two differ after a run that was
/// killed after it had published: then no run has noted which clock dated that snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceNumbers {
    /// The number of the newest snapshot that the last run knew of.
    pub known: u64,
    /// The number of the newest snapshot that exists.
    pub newest: u64,
}

/// What earlier runs found out about the clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockHistory {
    /// The readings of the time that is believed.
    #[serde(rename = "course", skip_serializing_if = "Option::is_none")]
    believed_readings: Option<AgreeingReadings>,
    /// The lengths of the last gaps between runs, in seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<i64>,
    /// The administrator has confirmed the dates of snapshots up to this sequence number.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed: Option<u64>,
    /// The doubt, if the clock is in doubt.
    #[serde(skip_serializing_if = "Option::is_none")]
    doubt: Option<ClockDoubt>,
    /// The snapshots that a wrong clock dated.
    #[serde(default, rename = "undated", skip_serializing_if = "Vec::is_empty")]
    eras: Vec<WrongClockEra>,
    /// The latest possible dates of earlier snapshots.
    #[serde(default, rename = "landmark", skip_serializing_if = "Vec::is_empty")]
    date_limits: Vec<DateLimit>,
}

impl ClockHistory {
    /// The history of a clock that was read once, when the newest snapshot had the number
    /// `sequence`.
    pub fn begin(reading: &ClockReading, sequence: u64) -> Self {
        ClockHistory {
            believed_readings: Some(AgreeingReadings::begin(reading, sequence)),
            ..ClockHistory::default()
        }
    }

    /// The doubt, if the clock is in doubt.
    pub fn doubt(&self) -> Option<&ClockDoubt> {
        self.doubt.as_ref()
    }

    /// `now`, or if the clock is behind what it showed before, the time that it would show without
    /// that step. So a time that is noted while the clock is behind does not seem long past once
    /// the clock is right again.
    pub fn not_before(&self, reading: &ClockReading, now: DateTime<Utc>) -> DateTime<Utc> {
        let Some(AgreeingReadings { last, .. }) = &self.believed_readings else { return now };
        let passed = if reading.is_of_boot(last) {
            reading.seconds_since(last)
        } else {
            reading.uptime_seconds
        };
        let expected = last.time.checked_add_signed(TimeDelta::seconds(passed.max(0)));
        let is_behind = |expected: &DateTime<Utc>| *expected - reading.time > ROUNDING;
        expected.filter(is_behind).unwrap_or(now)
    }

    /// What is known of the dates of this boot's snapshots, if the doubt began within this boot.
    pub(crate) fn dating_evidence(&self) -> Option<DatingEvidence<'_>> {
        let (doubt, believed) = (self.doubt.as_ref()?, self.believed_readings.as_ref()?);
        let now = &doubt.new_readings.last;
        let is_of_boot = |reading: &&ClockReading| now.is_of_boot(reading);
        if !doubt.is_within_boot() || !now.is_of_boot(&doubt.believed) {
            return None;
        }
        let shown = [&doubt.believed, &believed.first_of_boot, &doubt.first]
            .into_iter()
            .chain(&doubt.replaced);
        Some(DatingEvidence {
            now,
            shown: shown.filter(is_of_boot).collect(),
            after_sequence: believed.sequence_at_first,
            began_after: doubt.began_after?,
            verified: &doubt.verified,
        })
    }

    /// Whether a clock that was or may be wrong dated the snapshot with this number.
    pub fn is_doubted(&self, sequence: u64) -> bool {
        let is_in_doubt = self.doubt.as_ref().is_some_and(|doubt| sequence > doubt.after_sequence);
        is_in_doubt || self.eras.iter().any(|era| (era.first..=era.last).contains(&sequence))
    }

    /// The latest time at which the snapshot with this number can have been taken; a later date is
    /// wrong. `None` if nothing limits it.
    pub fn latest_date(&self, sequence: u64) -> Option<DateTime<Utc>> {
        let after = self.date_limits.iter().filter(|limit| sequence <= limit.sequence);
        after.map(|limit| limit.time).min()
    }

    /// Whether the administrator has confirmed the date of the snapshot with this number. Snapshots
    /// without a number are older than all that have one.
    pub fn is_confirmed(&self, sequence: Option<u64>) -> bool {
        self.confirmed
            .is_some_and(|confirmed| sequence.is_none_or(|sequence| sequence <= confirmed))
    }

    /// How much time may pass across a boot without a doubt: the longest of the last gaps between
    /// runs, at least a day, and a quarter more, because a daily job may be late.
    fn limit(&self) -> TimeDelta {
        let longest = self.gaps.iter().copied().max().unwrap_or(0).max(SHORTEST_LIMIT_SECONDS);
        TimeDelta::seconds(longest.saturating_add(longest / 4))
    }

    /// This history with another reading added.
    #[must_use]
    pub fn observe(
        &self,
        reading: &ClockReading,
        numbers: SequenceNumbers,
        clock_jump: DurationText,
    ) -> Self {
        let sequence = numbers.known;
        let mut after = self.clone();
        if reading.boot.is_empty() {
            return after;
        }
        let Some(believed) = &self.believed_readings else {
            after.believed_readings = Some(AgreeingReadings::begin(reading, sequence));
            return after;
        };
        match &self.doubt {
            None if believed.agrees(reading, 0, self.limit()) => after.follow(reading, sequence),
            None if !is_plausible(believed.last.time) && is_plausible(reading.time) => {
                after.believed_readings = Some(AgreeingReadings::begin(reading, sequence));
            }
            None => after.doubt = Some(ClockDoubt::new(&believed.last, 0, reading, sequence)),
            Some(doubt) => after.observe_in_doubt(doubt, believed, reading, numbers, clock_jump),
        }
        after
    }

    fn follow(&mut self, reading: &ClockReading, sequence: u64) {
        let Some(believed) = &self.believed_readings else { return };
        let gap = (reading.time - believed.last.time).num_seconds().max(0);
        self.believed_readings = Some(believed.followed_by(reading, sequence));
        self.add_gap(gap);
    }

    fn add_gap(&mut self, seconds: i64) {
        self.gaps.push(seconds);
        let surplus = self.gaps.len().saturating_sub(GAPS);
        self.gaps.drain(..surplus);
    }

    fn observe_in_doubt(
        &mut self,
        doubt: &ClockDoubt,
        believed: &AgreeingReadings,
        reading: &ClockReading,
        numbers: SequenceNumbers,
        clock_jump: DurationText,
    ) {
        let SequenceNumbers { known: sequence, newest } = numbers;
        let limit = self.limit();
        let is_of_boot = reading.is_of_boot(&doubt.new_readings.last);
        let passed = if is_of_boot { reading.seconds_since(&doubt.new_readings.last) } else { 0 };
        let measured = doubt.measured_seconds.saturating_add(passed);
        let agrees = doubt.new_readings.agrees(reading, 0, limit);
        let leaves_contradiction = doubt.is_within_boot() || doubt.contradicted;
        if agrees
            && !is_of_boot
            && (leaves_contradiction || believed.agrees(reading, measured, limit))
        {
            // Either the clock was set at the boot, or it was right and the machine was off. Which
            // of the earlier times was wrong cannot be known.
            self.distrust_before(doubt, believed);
        } else if agrees {
            let doubt = ClockDoubt {
                new_readings: doubt.new_readings.followed_by(reading, sequence),
                agreed_seconds: doubt.agreed_seconds.saturating_add(passed),
                measured_seconds: measured,
                ..doubt.clone()
            };
            match doubt.agreed_seconds >= AGREEMENT_SECONDS
                && doubt.can_be_believed_unconfirmed(clock_jump)
            {
                true => self.believe(&doubt, believed),
                false => self.doubt = Some(doubt),
            }
            return;
        }
        // The snapshots that the new time dated have a wrong date in either case.
        self.add_era(WrongClockEra { first: doubt.after_sequence.saturating_add(1), last: newest });
        doubt
            .verified
            .iter()
            .for_each(|&sequence| self.add_era(WrongClockEra { first: sequence, last: sequence }));
        self.doubt = None;
        match believed.agrees(reading, measured, limit) {
            true => self.follow(reading, sequence),
            false => self.doubt = Some(ClockDoubt::instead_of(doubt, measured, reading, newest)),
        }
    }

    /// Notes that the snapshot with this number was found unchanged while the clock is in doubt.
    /// How long it stayed unchanged is then as doubtful as the date of a new snapshot.
    pub fn note_verified_in_doubt(&mut self, sequence: u64) {
        if let Some(doubt) = &mut self.doubt
            && sequence <= doubt.after_sequence
            && !doubt.verified.contains(&sequence)
        {
            doubt.verified.push(sequence);
        }
    }

    /// Ends the doubt: the new time counts as right from its first reading on.
    fn believe(&mut self, doubt: &ClockDoubt, believed: &AgreeingReadings) {
        if !doubt.is_within_boot() && doubt.step() > TimeDelta::zero() {
            self.add_gap(doubt.step().num_seconds());
        }
        self.distrust_before(doubt, believed);
        self.believed_readings = Some(doubt.new_readings.clone());
        self.doubt = None;
    }

    /// Notes that the snapshots from before the new time have a wrong date if the new time is
    /// right.
    fn distrust_before(&mut self, doubt: &ClockDoubt, believed: &AgreeingReadings) {
        if doubt.is_within_boot() {
            // The clock was wrong since the boot at least.
            self.add_era(WrongClockEra {
                first: believed.sequence_at_first.saturating_add(1),
                last: doubt.after_sequence,
            });
        }
        self.date_limits.push(DateLimit { sequence: doubt.after_sequence, time: doubt.first.time });
        if self.date_limits.len() > MOST_ERAS {
            let oldest = self.date_limits.remove(0);
            self.date_limits[0].time = self.date_limits[0].time.min(oldest.time);
        }
    }

    fn add_era(&mut self, era: WrongClockEra) {
        let is_known = |known: &WrongClockEra| known.first <= era.first && era.last <= known.last;
        if era.first > era.last || self.eras.iter().any(is_known) {
            return;
        }
        self.eras.push(era);
        if self.eras.len() > MOST_ERAS {
            let oldest = self.eras.remove(0);
            self.eras[0].first = self.eras[0].first.min(oldest.first);
            self.eras[0].last = self.eras[0].last.max(oldest.last);
        }
    }

    /// This history after the administrator has confirmed the clock, and the dates of all snapshots
    /// except those that are dated later than now: `future`, by their numbers.
    #[must_use]
    pub fn confirm(&self, reading: &ClockReading, sequence: u64, future: &[u64]) -> Self {
        let mut after = ClockHistory {
            believed_readings: Some(AgreeingReadings::begin(reading, sequence))
                .filter(|_| !reading.boot.is_empty()),
            gaps: self.gaps.clone(),
            confirmed: Some(sequence),
            ..ClockHistory::default()
        };
        future
            .iter()
            .for_each(|&sequence| after.add_era(WrongClockEra { first: sequence, last: sequence }));
        after
    }

    /// This history without the doubt, for a decision about another time, which the doubt must not
    /// pause.
    #[must_use]
    pub fn without_doubt(&self) -> Self {
        ClockHistory { doubt: None, ..self.clone() }
    }
}
