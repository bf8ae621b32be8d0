//! Times as people write them on the command line.

use chrono::{DateTime, NaiveDate, NaiveDateTime, SubsecRound, Utc};

use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;

/// A time, or what a clock on the wall shows then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeText {
    /// An instant.
    Instant(DateTime<Utc>),
    /// A local time, in a zone that the caller chooses.
    Local(NaiveDateTime),
}

impl TimeText {
    /// Reads a date, a date with hours and minutes, a time as RFC 3339 writes it, or the name of a
    /// snapshot.
    ///
    /// # Errors
    /// A message that says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let local = || {
            let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
            ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
                .into_iter()
                .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
                .or_else(date)
        };
        let instant = || {
            let time = DateTime::parse_from_rfc3339(text).ok()?;
            Some(time.to_utc().trunc_subsecs(0))
        };
        let named = || SnapshotName::parse(text.as_bytes(), &Zone::utc()).map(|name| name.time);
        instant()
            .map(TimeText::Instant)
            .or_else(|| local().map(TimeText::Local))
            .or_else(|| named().map(TimeText::Instant))
            .ok_or_else(|| ACCEPTED.to_string())
    }

    /// The instant, where local times are those of `zone`.
    pub fn in_zone(self, zone: &Zone) -> DateTime<Utc> {
        match self {
            TimeText::Instant(time) => time,
            TimeText::Local(time) => zone.to_utc(time),
        }
    }
}

/// What [`TimeText::parse`] accepts.
const ACCEPTED: &str = "a time is written as 2026-12-24 (when that day begins), \
    '2026-12-24 18:00' (both in the policy's time_zone), 2026-12-24T18:00:00Z (RFC 3339) or as a \
    snapshot's name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_times_and_names_are_read() {
        let zone = Zone::amsterdam();
        for (text, expected) in [
            ("2026-12-24", "2026-12-23T23:00:00Z"),
            ("2026-12-24 18:00", "2026-12-24T17:00:00Z"),
            ("2026-12-24T18:00", "2026-12-24T17:00:00Z"),
            ("2026-12-24 18:00:30", "2026-12-24T17:00:30Z"),
            ("2026-12-24T18:00:00Z", "2026-12-24T18:00:00Z"),
            ("2026-12-24T18:00:00.7+02:00", "2026-12-24T16:00:00Z"),
            ("2026-12-24T18-00-00Z", "2026-12-24T18:00:00Z"),
            ("2026-07-01", "2026-06-30T22:00:00Z"),
        ] {
            let time = TimeText::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                time.in_zone(&zone),
                expected.parse::<DateTime<Utc>>().expect("a time"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_time_is_told_the_forms() {
        for text in [
            "",
            "now",
            "2026-13-01",
            "2026-12-24 25:00",
            "24.12.2026",
            "2026-12-24 18",
            "1766595600",
        ] {
            let error = TimeText::parse(text).expect_err(text);
            assert!(error.contains("2026-12-24 18:00") && error.contains("RFC 3339"), "{error}");
        }
    }
}
