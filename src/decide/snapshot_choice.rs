//! Which snapshot an administrator means: by its name, as the newest one, or by a time.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};

use crate::decide::grade::Grade;
use crate::decide::name::SnapshotName;
use crate::decide::time_text::TimeText;
use crate::decide::zone::Zone;

/// The word for the newest complete snapshot.
pub const NEWEST: &str = "newest";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotWish {
    /// The snapshot of this name, complete or partial.
    Named(String),
    /// The newest complete one.
    Newest,
    /// The newest complete one that was taken at this time or before.
    At(DateTime<Utc>),
}

impl SnapshotWish {
    /// Reads what stands for a snapshot's name on a command line.
    pub fn of_word(word: &str) -> Self {
        if word == NEWEST { SnapshotWish::Newest } else { SnapshotWish::Named(word.to_string()) }
    }

    /// The one of `names` that is meant.
    pub fn choose<'a>(&self, names: &'a [SnapshotName]) -> Option<&'a SnapshotName> {
        let complete = || names.iter().filter(|name| name.grade == Grade::Complete);
        match self {
            SnapshotWish::Named(text) => names.iter().find(|name| name.text == *text),
            SnapshotWish::Newest => complete().max_by_key(|name| name.time),
            SnapshotWish::At(moment) => {
                complete().filter(|name| name.time <= *moment).max_by_key(|name| name.time)
            }
        }
    }
}

/// Whether a word of a command line has the form of a snapshot's name, or stands for one.
pub fn is_snapshot_word(word: &[u8]) -> bool {
    word == NEWEST.as_bytes() || SnapshotName::parse(word, &Zone::utc()).is_some()
}

/// The last second of what `text` says: of a date, its day; of a time without seconds, its minute.
/// So `2026-12-24` means what was there at the end of that day.
///
/// # Errors
/// A message that says what is accepted.
pub fn last_moment(text: &str, zone: &Zone) -> Result<DateTime<Utc>, String> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    if let Some(next) = day.and_then(|day| day.succ_opt()?.and_hms_opt(0, 0, 0)) {
        return Ok(zone.to_utc(next) - TimeDelta::seconds(1));
    }
    let minute = ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    if let Some(minute) = minute {
        return Ok(zone.to_utc(minute) + TimeDelta::seconds(59));
    }
    TimeText::parse(text).map(|time| time.in_zone(zone)).map_err(|_| ACCEPTED.to_string())
}

/// What [`last_moment`] accepts.
const ACCEPTED: &str = "a time is written as 2026-12-24 (the end of that day), '2026-12-24 18:00' \
    (both in the policy's time_zone), 2026-12-24T18:00:00Z (RFC 3339) or as a snapshot's name";

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<SnapshotName> {
        [
            "2026-11-22T10-00-00Z",
            "2026-11-22T12-00-00Z",
            "2026-11-22T13-00-00Z-partial",
            "2026-11-23T10-00-00Z",
        ]
        .iter()
        .map(|name| SnapshotName::parse(name.as_bytes(), &Zone::utc()).expect("a name"))
        .collect()
    }

    fn chosen(wish: &SnapshotWish) -> Option<String> {
        wish.choose(&names()).map(|name| name.text.clone())
    }

    #[test]
    fn the_newest_complete_snapshot_up_to_a_time_is_chosen() {
        let zone = Zone::utc();
        for (text, expected) in [
            ("2026-11-21", None),
            ("2026-11-22", Some("2026-11-22T12-00-00Z")),
            ("2026-11-22 09:59", None),
            ("2026-11-22 10:00", Some("2026-11-22T10-00-00Z")),
            ("2026-11-22T12:00:00Z", Some("2026-11-22T12-00-00Z")),
            ("2026-11-22T11:59:59Z", Some("2026-11-22T10-00-00Z")),
            ("2026-11-22T13-00-00Z-partial", Some("2026-11-22T12-00-00Z")),
            ("2026-12-24", Some("2026-11-23T10-00-00Z")),
        ] {
            let wish = SnapshotWish::At(last_moment(text, &zone).expect(text));
            assert_eq!(chosen(&wish).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_name_means_any_grade_and_newest_a_complete_one() {
        for (word, expected) in [
            ("newest", Some("2026-11-23T10-00-00Z")),
            ("2026-11-22T13-00-00Z-partial", Some("2026-11-22T13-00-00Z-partial")),
            ("2026-11-22T13-00-00Z", None),
        ] {
            assert_eq!(chosen(&SnapshotWish::of_word(word)).as_deref(), expected, "{word}");
        }
        assert_eq!(SnapshotWish::Newest.choose(&names()[2..3]), None);
    }

    #[test]
    fn a_local_time_ends_with_its_day_or_minute() {
        let zone = Zone::amsterdam();
        for (text, expected) in [
            ("2026-11-22", "2026-11-22T22:59:59Z"),
            ("2026-07-01", "2026-07-01T21:59:59Z"),
            ("2026-11-22 14:00", "2026-11-22T13:00:59Z"),
            ("2026-11-22 14:00:30", "2026-11-22T13:00:30Z"),
            ("2026-11-22T14:00:00Z", "2026-11-22T14:00:00Z"),
        ] {
            let expected = expected.parse::<DateTime<Utc>>().expect("a time");
            assert_eq!(last_moment(text, &zone), Ok(expected), "{text}");
        }
        let error = last_moment("yesterday", &zone).expect_err("no time");
        assert!(error.contains("the end of that day"), "{error}");
    }
}
