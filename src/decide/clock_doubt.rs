//! A doubt: the clock shows a time that contradicts what was believed before.

use std::fmt;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::decide::clock_reading::{AgreeingReadings, ClockReading, is_plausible};
use crate::decide::duration_text::{DurationText, roughly};

/// In seconds. Within one boot, a larger step is believed only if the administrator confirms it:
/// the boot clock shows that so much time has not passed.
const LARGEST_UNCONFIRMED_STEP_SECONDS: i64 = 86_400;

/// A machine without a battery-backed clock sets its clock within this many seconds of the boot.
const SETTLING_SECONDS: i64 = 3_600;

/// If more doubts than this follow each other, nothing expires until the last one ends.
const MOST_REPLACED: usize = 64;

/// The clock contradicts what was believed, and it is not known yet which of the two is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockDoubt {
    /// The last reading that was believed.
    pub(crate) believed: ClockReading,
    /// The first reading of the new time.
    pub(crate) first: ClockReading,
    /// The readings of the new time so far.
    #[serde(rename = "course")]
    pub(crate) new_readings: AgreeingReadings,
    /// How long the new time has agreed with the boot clock, in seconds of uptime.
    pub(crate) agreed_seconds: i64,
    /// At least this much time has passed since `believed`, in seconds of uptime.
    pub(crate) measured_seconds: i64,
    /// Snapshots with a higher sequence number are dated by the new time.
    pub(crate) after_sequence: u64,
    /// The new time also contradicts an earlier doubted time of the same boot, so one of the two is
    /// wrong.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) contradicted: bool,
    /// Earlier snapshots that were found unchanged by the new time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) verified: Vec<u64>,
    /// The `after_sequence` of the first doubt in the series of doubts that this one continues.
    /// `None` if the series is too long, or if an older version wrote the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) began_after: Option<u64>,
    /// The first readings of the doubts that this one replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replaced: Vec<ClockReading>,
}

impl ClockDoubt {
    pub(crate) fn new(
        believed: &ClockReading,
        measured_seconds: i64,
        first: &ClockReading,
        sequence: u64,
    ) -> Self {
        ClockDoubt {
            believed: believed.clone(),
            first: first.clone(),
            new_readings: AgreeingReadings::begin(first, sequence),
            agreed_seconds: 0,
            measured_seconds,
            after_sequence: sequence,
            contradicted: false,
            verified: Vec::new(),
            began_after: Some(sequence),
            replaced: Vec::new(),
        }
    }

    /// The doubt about a new time, which replaces `doubt`. If the clock was not set yet during
    /// `doubt`, the new time does not count as contradicting that one.
    pub(crate) fn instead_of(
        doubt: &ClockDoubt,
        measured_seconds: i64,
        first: &ClockReading,
        sequence: u64,
    ) -> Self {
        let last = &doubt.new_readings.last;
        let was_set = is_plausible(last.time) && last.uptime_seconds >= SETTLING_SECONDS;
        let contradicted = first.is_of_boot(last) && (was_set || doubt.contradicted);
        let mut replaced = doubt.replaced.clone();
        if replaced.len() < MOST_REPLACED {
            replaced.push(doubt.first.clone());
        }
        ClockDoubt {
            contradicted,
            verified: doubt.verified.clone(),
            began_after: doubt.began_after.filter(|_| replaced.len() < MOST_REPLACED),
            replaced,
            ..ClockDoubt::new(&doubt.believed, measured_seconds, first, sequence)
        }
    }

    pub(crate) fn is_within_boot(&self) -> bool {
        self.first.is_of_boot(&self.believed)
    }

    /// How far the wall clock moved beyond what the boot clock counted.
    pub(crate) fn step(&self) -> TimeDelta {
        match self.is_within_boot() {
            true => self.first.step_since(&self.believed),
            false => self.first.time - self.believed.time,
        }
    }

    /// Whether the new time may be believed in the end without the administrator's word: the
    /// machine may have been off for so long, the clock may have been set right after the boot, or
    /// it was set by a day at most.
    pub(crate) fn can_be_believed_unconfirmed(&self, clock_jump: DurationText) -> bool {
        let is_small = self.step().abs() <= TimeDelta::seconds(LARGEST_UNCONFIRMED_STEP_SECONDS);
        let was_settling = self.believed.uptime_seconds < SETTLING_SECONDS;
        !self.contradicted
            && self.step().abs() <= clock_jump.delta()
            && (!self.is_within_boot() || is_small || was_settling)
    }
}

impl fmt::Display for ClockDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ClockDoubt { believed, first, .. } = self;
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

/// What is known of the dates of this boot's snapshots while the clock is in doubt. The possible
/// datings follow from it.
pub(crate) struct DatingEvidence<'a> {
    /// Both clocks now.
    pub(crate) now: &'a ClockReading,
    /// Earlier readings of this boot that may have been right, the last believed one first.
    pub(crate) shown: Vec<&'a ClockReading>,
    /// Snapshots up to this number were not dated by the believed time in this boot.
    pub(crate) after_sequence: u64,
    /// Snapshots up to this number were taken before the doubt began.
    pub(crate) began_after: u64,
    /// Snapshots that were found unchanged by a time in doubt.
    pub(crate) verified: &'a [u64],
}
