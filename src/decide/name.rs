//! Snapshot names. The name is the only proof that a directory is a snapshot which may be rotated.
//!
//! `2026-11-22T19-08-31Z` is UTC, sorts by time and needs no quoting; `-partial` marks a
//! transfer that did not end well. `2019-08-02 12:00:00` is what the Python program made, in
//! local time. A name must match as a whole: anything else is foreign and never touched.

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::decide::grade::Grade;
use crate::decide::zone::Zone;

const OURS: &str = "%Y-%m-%dT%H-%M-%SZ";
const ADOPTED: &str = "%Y-%m-%d %H:%M:%S";
/// What the name of a partial snapshot ends with.
pub const PARTIAL: &str = "-partial";

/// A directory name that names a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotName {
    /// The name itself.
    pub text: String,
    /// When the snapshot was taken, to the second.
    pub time: DateTime<Utc>,
    /// Its grade as the name says it.
    pub grade: Grade,
}

impl SnapshotName {
    /// The name of a new snapshot.
    pub fn new(time: DateTime<Utc>, grade: Grade) -> Self {
        let suffix = if grade == Grade::Partial { PARTIAL } else { "" };
        SnapshotName { text: format!("{}{suffix}", time.format(OURS)), time, grade }
    }

    /// Reads a directory name. `zone` is the time zone of adopted names, which are in local time.
    pub fn parse(bytes: &[u8], zone: &Zone) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (stem, grade) = match text.strip_suffix(PARTIAL) {
            Some(stem) => (stem, Grade::Partial),
            None => (text, Grade::Complete),
        };
        if let Some(time) = exact(stem, OURS) {
            return Some(SnapshotName { text: text.to_string(), time: time.and_utc(), grade });
        }
        let local = exact(text, ADOPTED)?;
        Some(SnapshotName {
            text: text.to_string(),
            time: zone.to_utc(local),
            grade: Grade::Complete,
        })
    }
}

/// Parses `text` only if formatting the result gives the same text: no missing zeros, no
/// signs, no leap second, no trailing blanks.
fn exact(text: &str, format: &str) -> Option<NaiveDateTime> {
    let time = NaiveDateTime::parse_from_str(text, format).ok()?;
    // A leap second formats as it was written, but is stored as more than a second's nanoseconds; a
    // year before the first or after 9999 formats with its sign.
    let whole = time.and_utc().timestamp_subsec_nanos() == 0
        && text.starts_with(|c: char| c.is_ascii_digit());
    (whole && time.format(format).to_string() == text).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Option<(String, Grade)> {
        let zone = Zone::amsterdam();
        let name = SnapshotName::parse(name.as_bytes(), &zone)?;
        Some((name.time.to_rfc3339(), name.grade))
    }

    #[test]
    fn both_formats_are_names() {
        assert_eq!(
            parse("2026-11-22T19-08-31Z"),
            Some(("2026-11-22T19:08:31+00:00".into(), Grade::Complete))
        );
        assert_eq!(
            parse("2026-11-22T19-08-31Z-partial"),
            Some(("2026-11-22T19:08:31+00:00".into(), Grade::Partial))
        );
        assert_eq!(
            parse("2019-08-02 12:00:00"),
            Some(("2019-08-02T10:00:00+00:00".into(), Grade::Complete))
        );
    }

    #[test]
    fn anything_else_is_foreign() {
        for name in [
            "",
            ".",
            "latest",
            "20261122",
            "2026-11-22",
            "2026-11-22T19-08-31",
            "2026-11-22T19:08:31Z",
            "2026-11-22T19-08-31Z ",
            " 2026-11-22T19-08-31Z",
            "2026-11-22T19-08-31Z-partial-partial",
            "2026-11-22T19-08-31Zx",
            "2026-13-22T19-08-31Z",
            "2026-02-30T19-08-31Z",
            "2026-11-22T19-08-60Z",
            "+2026-11-22T19-08-31Z",
            "2026-1-22T19-08-31Z",
            "2019-08-02 12:00:00-partial",
            "backup-2019-08-02 12:00:00",
            "2019-08-02  12:00:00",
            "12026-11-22T19-08-31Z",
            "+12026-11-22T19-08-31Z",
            "-0219-08-02 12:15:00",
            "-2026-11-22T19-08-31Z",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
        assert!(SnapshotName::parse(b"2026-11-22T19-08-31\xff", &Zone::utc()).is_none());
    }

    #[test]
    fn a_new_name_reads_back() {
        let time = DateTime::from_timestamp(1_795_374_511, 0).unwrap();
        for grade in [Grade::Complete, Grade::Partial] {
            let name = SnapshotName::new(time, grade);
            assert_eq!(SnapshotName::parse(name.text.as_bytes(), &Zone::utc()), Some(name));
        }
    }
}
