//! Calendar slots: which hour, day, ISO week, month or year a moment falls in.
//!
//! Each frequency measures time on its own axis, in seconds: days and longer follow the wall clock
//! of the configured zone; hours and minutes follow UTC, shifted only by the part of the zone's
//! offset that is not a whole hour or minute, and that is the same for all times. So a wall-clock
//! hour that daylight saving repeats is two slots, not one, and none is lost, not even where clocks
//! change by half an hour. A slot is a number that grows with time and has no gaps, which makes
//! "the N newest slots" plain arithmetic.

use std::fmt;

use chrono::{DateTime, Datelike, Months, NaiveDateTime, TimeDelta, Utc};

use crate::decide::frequency::Frequency;
use crate::decide::zone::Zone;

const HOUR_SECONDS: i64 = 3_600;
const MINUTE_SECONDS: i64 = 60;
const DAY_SECONDS: i64 = 86_400;

/// A moment with what a clock on the wall shows then, which is looked up once for all frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalMoment {
    /// When it is.
    pub time: DateTime<Utc>,
    local: NaiveDateTime,
}

impl LocalMoment {
    /// The moment `time` in this zone.
    pub fn of(time: DateTime<Utc>, zone: &Zone) -> Self {
        LocalMoment { time, local: zone.to_local(time) }
    }
}

/// A moment on the axis of one frequency, in seconds.
pub fn position(frequency: Frequency, moment: LocalMoment, zone: &Zone) -> i64 {
    let utc = moment.time.timestamp();
    match frequency {
        Frequency::Minutely => utc + zone.usual_offset_seconds().rem_euclid(MINUTE_SECONDS),
        Frequency::Hourly => utc + zone.usual_offset_seconds().rem_euclid(HOUR_SECONDS),
        _ => moment.local.and_utc().timestamp(),
    }
}

/// The slot that a position on the frequency's axis falls in.
pub fn slot_at(frequency: Frequency, position: i64) -> i64 {
    // 1970-01-01 was a Thursday, three days into its ISO week.
    match frequency {
        Frequency::Minutely => position.div_euclid(MINUTE_SECONDS),
        Frequency::Hourly => position.div_euclid(HOUR_SECONDS),
        Frequency::Daily => position.div_euclid(DAY_SECONDS),
        Frequency::Weekly => (position.div_euclid(DAY_SECONDS) + 3).div_euclid(7),
        Frequency::Monthly => {
            let local = as_local(position);
            i64::from(local.year()) * 12 + i64::from(local.month0())
        }
        Frequency::Yearly => i64::from(as_local(position).year()),
    }
}

/// The position `count` periods before `position`, by the calendar for months and years: the
/// 31st minus a month is the last day of the month before. `None` before the calendar begins.
pub fn periods_before(frequency: Frequency, position: i64, count: u32) -> Option<i64> {
    let count_seconds = |period: i64| position.checked_sub(period.checked_mul(i64::from(count))?);
    match frequency {
        Frequency::Minutely => count_seconds(MINUTE_SECONDS),
        Frequency::Hourly => count_seconds(HOUR_SECONDS),
        Frequency::Daily => count_seconds(DAY_SECONDS),
        Frequency::Weekly => count_seconds(7 * DAY_SECONDS),
        Frequency::Monthly => months_before(position, count),
        Frequency::Yearly => months_before(position, count.checked_mul(12)?),
    }
}

/// What people call a slot: `2026-W47`, `2026-11-22 19h`. It becomes text only where it is shown: a
/// forecast makes hundreds of decisions and shows none of their reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotName {
    frequency: Frequency,
    local: NaiveDateTime,
}

impl SlotName {
    /// The name of the slot that the moment falls in.
    pub fn of(frequency: Frequency, moment: LocalMoment) -> Self {
        SlotName { frequency, local: moment.local }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match self.frequency {
            Frequency::Minutely => "%Y-%m-%d %H:%M",
            Frequency::Hourly => "%Y-%m-%d %Hh",
            Frequency::Daily => "%Y-%m-%d",
            Frequency::Weekly => "%G-W%V",
            Frequency::Monthly => "%Y-%m",
            Frequency::Yearly => "%Y",
        };
        write!(f, "{}", self.local.format(format))
    }
}

fn months_before(position: i64, count: u32) -> Option<i64> {
    let earlier = as_local(position).checked_sub_months(Months::new(count))?;
    Some(earlier.and_utc().timestamp())
}

fn as_local(position: i64) -> NaiveDateTime {
    let start = chrono::DateTime::UNIX_EPOCH.naive_utc();
    start.checked_add_signed(TimeDelta::seconds(position)).unwrap_or(NaiveDateTime::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(frequency: Frequency, text: &str) -> i64 {
        let moment = LocalMoment::of(text.parse().unwrap(), &Zone::utc());
        slot_at(frequency, position(frequency, moment, &Zone::utc()))
    }

    #[test]
    fn an_iso_week_does_not_collide_with_january_of_its_calendar_year() {
        let week = |text| slot(Frequency::Weekly, text);
        assert_eq!(week("2018-12-31T00:00:00Z"), week("2019-01-06T23:59:59Z"));
        assert_ne!(week("2018-12-31T00:00:00Z"), week("2018-01-01T00:00:00Z"));
        assert_eq!(week("2018-12-31T00:00:00Z"), week("2018-12-30T23:59:59Z") + 1);
    }

    #[test]
    fn slots_number_without_gaps() {
        assert_eq!(
            slot(Frequency::Monthly, "2027-01-01T00:00:00Z"),
            slot(Frequency::Monthly, "2026-12-31T23:59:59Z") + 1
        );
        assert_eq!(slot(Frequency::Daily, "1969-12-31T23:59:59Z"), -1);
        assert_eq!(slot(Frequency::Yearly, "1970-06-01T00:00:00Z"), 1970);
    }

    #[test]
    fn the_repeated_hour_is_two_slots() {
        let zone = Zone::amsterdam();
        let hour = |text: &str| {
            let moment = LocalMoment::of(text.parse().unwrap(), &zone);
            slot_at(Frequency::Hourly, position(Frequency::Hourly, moment, &zone))
        };
        assert_eq!(hour("2026-10-25T00:30:00Z") + 1, hour("2026-10-25T01:30:00Z"));
    }

    #[test]
    fn months_end_where_the_calendar_ends_them() {
        let end_of_march: DateTime<Utc> = "2027-03-31T10:00:00Z".parse().unwrap();
        let earlier = periods_before(Frequency::Monthly, end_of_march.timestamp(), 1).unwrap();
        assert_eq!(earlier, "2027-02-28T10:00:00Z".parse::<DateTime<Utc>>().unwrap().timestamp());
        assert_eq!(periods_before(Frequency::Yearly, 0, u32::MAX), None);
    }
}
