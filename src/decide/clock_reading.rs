//! What the clocks show at a moment, and whether that agrees with what they showed before.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// How far the wall clock may be moved without a doubt, in seconds. A daemon that sets the clock
/// moves it by seconds, a leap second by one. Ten minutes matter little: they can move a snapshot
/// across the edge of an hourly slot, no further.
const TOLERANCE_SECONDS: i64 = 600;

/// Besides, the clock may lose or gain one second in this many: twice the drift of a clock that is
/// set by hand once a day and never slewed.
const DRIFT_SHARE: i64 = 1_000;

/// What both clocks showed at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockReading {
    /// The wall clock.
    pub time: DateTime<Utc>,
    /// The boot's id; empty if it is not known.
    pub boot: String,
    /// Seconds since the boot.
    pub uptime_seconds: i64,
}

impl ClockReading {
    pub(crate) fn is_of_boot(&self, other: &ClockReading) -> bool {
        !self.boot.is_empty()
            && self.boot == other.boot
            && self.uptime_seconds >= other.uptime_seconds
    }

    /// How far the wall clock has moved since `other` beyond what the boot clock counted.
    pub(crate) fn step_since(&self, other: &ClockReading) -> TimeDelta {
        (self.time - other.time) - TimeDelta::seconds(self.seconds_since(other))
    }

    pub(crate) fn seconds_since(&self, other: &ClockReading) -> i64 {
        self.uptime_seconds.saturating_sub(other.uptime_seconds)
    }
}

/// How far the two clocks may differ after `seconds`.
pub(crate) fn tolerance(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(TOLERANCE_SECONDS + seconds.max(0) / DRIFT_SHARE)
}

/// Readings of the clock that agree with each other: the last one and the first one of its boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgreeingReadings {
    /// The first reading of the boot that `last` belongs to.
    #[serde(rename = "anchor")]
    pub(crate) first_of_boot: ClockReading,
    pub(crate) last: ClockReading,
    /// The newest snapshot's sequence number at `first_of_boot`.
    #[serde(rename = "anchor_sequence")]
    pub(crate) sequence_at_first: u64,
}

impl AgreeingReadings {
    pub(crate) fn begin(reading: &ClockReading, sequence: u64) -> Self {
        AgreeingReadings {
            first_of_boot: reading.clone(),
            last: reading.clone(),
            sequence_at_first: sequence,
        }
    }

    /// Whether `reading` can follow the last one, given that at least `measured` seconds have
    /// passed across boots.
    pub(crate) fn agrees(&self, reading: &ClockReading, measured: i64, limit: TimeDelta) -> bool {
        if reading.is_of_boot(&self.last) {
            let is_near = |other: &ClockReading| {
                reading.step_since(other).abs() <= tolerance(reading.seconds_since(other))
            };
            return is_near(&self.last) && is_near(&self.first_of_boot);
        }
        let gap = reading.time - self.last.time;
        let measured_delta = TimeDelta::seconds(measured);
        gap >= measured_delta - tolerance(measured)
            && gap <= measured_delta + limit + tolerance(measured)
    }

    pub(crate) fn followed_by(&self, reading: &ClockReading, sequence: u64) -> Self {
        match reading.is_of_boot(&self.last) {
            true => AgreeingReadings { last: reading.clone(), ..self.clone() },
            false => AgreeingReadings::begin(reading, sequence),
        }
    }
}

/// Whether the time is in 1990 or later. Clocks that were never set begin in 1970 or 1980, and no
/// snapshot was taken before 1990.
pub(crate) fn is_plausible(time: DateTime<Utc>) -> bool {
    const FIRST_YEAR_SECONDS: i64 = 631_152_000;
    time.timestamp() >= FIRST_YEAR_SECONDS
}
