//! A time zone: where days, weeks and months begin.
//!
//! Snapshot times are UTC. Only calendar slots and the names that the Python program gave to
//! snapshots are local. A zone is data: [`time_zone`](crate::config::time_zone) reads its rules
//! once, with the policy.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use tz::TimeZone;

/// A time zone with its rules.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    /// Shared, because each module's policy has a zone.
    rules: Arc<TimeZone>,
    usual_offset_seconds: i64,
}

/// A fixed moment at which each zone has its usual offset. Any moment would do, as long as it is
/// always the same one. This one is outside daylight saving time on Lord Howe Island, the one place
/// where daylight saving shifts clocks by half an hour.
const USUAL_MOMENT: i64 = 1_590_969_600;

impl Zone {
    /// Coordinated universal time.
    pub fn utc() -> Self {
        Zone::new("UTC", TimeZone::utc())
    }

    /// A zone with these rules, under the name that the policy gives it.
    pub fn new(name: &str, rules: TimeZone) -> Self {
        let usual_offset_seconds = offset_seconds(&rules, USUAL_MOMENT);
        Zone { name: name.to_string(), rules: Arc::new(rules), usual_offset_seconds }
    }

    /// Central European time by its present rules.
    #[cfg(test)]
    pub(crate) fn amsterdam() -> Self {
        let rules = TimeZone::from_posix_tz("CET-1CEST,M3.5.0,M10.5.0/3").expect("POSIX rules");
        Zone::new("Europe/Amsterdam", rules)
    }

    /// The name that the policy gave.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Seconds east of UTC at `time`.
    pub fn offset_seconds(&self, time: DateTime<Utc>) -> i64 {
        offset_seconds(&self.rules, time.timestamp())
    }

    /// Seconds east of UTC at one fixed moment, so that an hour stays an hour when clocks change.
    pub(crate) fn usual_offset_seconds(&self) -> i64 {
        self.usual_offset_seconds
    }

    /// What a clock on the wall shows at `time`.
    pub fn to_local(&self, time: DateTime<Utc>) -> NaiveDateTime {
        let offset = TimeDelta::seconds(self.offset_seconds(time));
        time.naive_utc().checked_add_signed(offset).unwrap_or(time.naive_utc())
    }

    /// When a clock on the wall showed `local`: in the repeated hour the earlier instant, in
    /// the skipped hour the first valid one.
    pub fn to_utc(&self, local: NaiveDateTime) -> DateTime<Utc> {
        let as_if_utc = local.and_utc();
        let day = TimeDelta::days(1);
        let around = [as_if_utc.checked_sub_signed(day), as_if_utc.checked_add_signed(day)];
        let candidates = around.into_iter().flatten().filter_map(|nearby| {
            let instant =
                as_if_utc.checked_sub_signed(TimeDelta::seconds(self.offset_seconds(nearby)))?;
            (self.to_local(instant) == local).then_some(instant)
        });
        candidates.min().unwrap_or_else(|| self.end_of_gap(local))
    }

    /// The first instant at which the wall clock shows `local` or later, for a time that it
    /// skipped.
    fn end_of_gap(&self, local: NaiveDateTime) -> DateTime<Utc> {
        let mut before = local.and_utc().timestamp() - 2 * 86_400;
        let mut after = local.and_utc().timestamp() + 2 * 86_400;
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap_or(local.and_utc());
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if self.to_local(at(middle)) >= local {
                after = middle;
            } else {
                before = middle;
            }
        }
        at(after)
    }
}

fn offset_seconds(rules: &TimeZone, time: i64) -> i64 {
    rules.find_local_time_type(time).map_or(0, |local_type| i64::from(local_type.ut_offset()))
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap()
    }

    #[test]
    fn local_times_convert_both_ways() {
        let instant = Zone::amsterdam().to_utc(local("2019-08-02 12:00:00"));
        assert_eq!(instant.to_rfc3339(), "2019-08-02T10:00:00+00:00");
        assert_eq!(Zone::amsterdam().to_local(instant), local("2019-08-02 12:00:00"));
    }

    #[test]
    fn the_repeated_hour_means_its_first_pass_and_the_skipped_hour_its_end() {
        assert_eq!(
            Zone::amsterdam().to_utc(local("2026-10-25 02:30:00")).to_rfc3339(),
            "2026-10-25T00:30:00+00:00"
        );
        assert_eq!(
            Zone::amsterdam().to_utc(local("2026-03-29 02:30:00")).to_rfc3339(),
            "2026-03-29T01:00:00+00:00"
        );
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        for text in ["0000-01-01 00:00:00", "9999-12-31 23:59:59"] {
            Zone::amsterdam().to_utc(local(text));
        }
    }
}
