//! Which snapshot an administrator means: by its name or the beginning of one, as the newest one,
//! or by a day or time.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, TimeDelta, Utc};

use crate::decide::grade::Grade;
use crate::decide::name::{PARTIAL, SnapshotName};
use crate::decide::similar::{did_you_mean, nearest};
use crate::decide::time_text::TimeText;
use crate::decide::zone::Zone;

/// The word for the newest complete snapshot.
pub const NEWEST: &str = "newest";

/// The word for the day before this one.
pub const YESTERDAY: &str = "yesterday";

/// The word for the module's directory, where that can be meant in place of a snapshot.
pub const LIVE: &str = "live";

/// How many names a message proposes in place of one that does not exist.
const MOST_PROPOSALS: usize = 3;

/// What a day means on which several snapshots were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayMeans {
    /// The newest complete one.
    Newest,
    /// None of them: what is done cannot be undone easily, so the administrator names one.
    OnlyOne,
}

/// What decides which snapshot a word of a command line means.
#[derive(Debug, Clone, Copy)]
pub struct WordContext<'a> {
    /// Where days begin.
    pub zone: &'a Zone,
    /// The present time.
    pub now: DateTime<Utc>,
    /// What a day means.
    pub day: DayMeans,
}

/// Why no snapshot is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoChoice {
    /// None is complete.
    NoneComplete,
    /// None is meant; these have the nearest names.
    NoneOf(Vec<String>),
    /// More than one is meant: these.
    Several(Vec<String>),
}

impl NoChoice {
    /// What is wrong with `word`, escaped, and the names that help.
    pub fn problem(&self, word: &str) -> String {
        let several = format!("{word} may mean several snapshots:");
        match self {
            NoChoice::NoneComplete => "there is no complete snapshot".to_string(),
            NoChoice::NoneOf(near) => {
                format!("there is no snapshot {word}{}", proposals(word, near))
            }
            NoChoice::Several(names) if names.len() <= MOST_LISTED => {
                format!("{several} {}", names.join(", "))
            }
            NoChoice::Several(names) => format!(
                "{several} {} and {} more",
                names[..MOST_LISTED].join(", "),
                names.len() - MOST_LISTED
            ),
        }
    }
}

/// A remark to follow `word`, which means no snapshot: the word that it was meant to be, or the
/// names that are `near`.
pub fn proposals(word: &str, near: &[String]) -> String {
    match did_you_mean(word, [NEWEST, YESTERDAY]) {
        remark if !remark.is_empty() => remark,
        _ if near.is_empty() => String::new(),
        _ => format!(" (the nearest: {})", near.join(", ")),
    }
}

/// The names that are nearest to `word`, of those that each module proposes.
pub fn nearest_of_all(word: &str, refusals: &[NoChoice]) -> Vec<String> {
    let of_one = |why: &NoChoice| match why {
        NoChoice::NoneOf(near) => near.clone(),
        _ => Vec::new(),
    };
    let mut known: Vec<String> = refusals.iter().flat_map(of_one).collect();
    known.sort_by(|a, b| b.cmp(a));
    known.dedup();
    let near = nearest(word, known.iter().map(String::as_str), MOST_PROPOSALS);
    near.into_iter().map(str::to_string).collect()
}

/// How many names a message lists that one word may mean.
const MOST_LISTED: usize = 8;

/// The one of `names`, oldest first, that `word` means: a whole name, `newest`, a day, or what only
/// one name begins with. A whole name never means another snapshot, such as the partial one of that
/// time.
///
/// # Errors
/// Why none is meant, or more than one.
pub fn choose_by_word<'a>(
    word: &str,
    names: &'a [SnapshotName],
    context: WordContext,
) -> Result<&'a SnapshotName, NoChoice> {
    if let Some(name) = names.iter().find(|name| name.text == word) {
        return Ok(name);
    }
    if word == NEWEST {
        return newest_up_to(names, DateTime::<Utc>::MAX_UTC).ok_or(NoChoice::NoneComplete);
    }
    if let Some(day) = day_of(word, context.zone, context.now) {
        let of_day: Vec<&SnapshotName> =
            names.iter().filter(|name| context.zone.to_local(name.time).date() == day).collect();
        let newest = of_day.iter().rfind(|name| name.grade == Grade::Complete);
        match (of_day.as_slice(), newest) {
            ([], _) => {}
            ([name], _) => return Ok(name),
            (_, Some(name)) if context.day == DayMeans::Newest => return Ok(name),
            (several, _) => return Err(NoChoice::Several(texts(several))),
        }
    }
    let is_whole = SnapshotName::parse(word.as_bytes(), context.zone).is_some();
    let begins = |name: &&SnapshotName| !word.is_empty() && name.text.starts_with(word);
    let matching: Vec<&SnapshotName> = names.iter().filter(|_| !is_whole).filter(begins).collect();
    match matching.as_slice() {
        [] => {
            let known = names.iter().rev().map(|name| name.text.as_str());
            let near = nearest(word, known, MOST_PROPOSALS);
            Err(NoChoice::NoneOf(near.into_iter().map(str::to_string).collect()))
        }
        [name] => Ok(name),
        several => Err(NoChoice::Several(texts(several))),
    }
}

fn texts(names: &[&SnapshotName]) -> Vec<String> {
    names.iter().map(|name| name.text.clone()).collect()
}

/// The newest complete one of `names` that was taken at `moment` or before.
pub fn newest_up_to(names: &[SnapshotName], moment: DateTime<Utc>) -> Option<&SnapshotName> {
    let complete = names.iter().filter(|name| name.grade == Grade::Complete);
    complete.filter(|name| name.time <= moment).max_by_key(|name| name.time)
}

/// The day that a word means, on the clocks of `zone`.
fn day_of(word: &str, zone: &Zone, now: DateTime<Utc>) -> Option<NaiveDate> {
    if word == YESTERDAY {
        return zone.to_local(now).date().checked_sub_days(Days::new(1));
    }
    // As in names, with all zeros: `2026-1` is what a name begins with.
    let day = NaiveDate::parse_from_str(word, "%Y-%m-%d").ok()?;
    (day.format("%Y-%m-%d").to_string() == word).then_some(day)
}

/// Whether a word of a command line can only mean a snapshot: it is a whole name, or stands for
/// one.
pub fn is_snapshot_word(word: &[u8]) -> bool {
    [NEWEST, YESTERDAY].iter().any(|known| known.as_bytes() == word)
        || SnapshotName::parse(word, &Zone::utc()).is_some()
}

/// Whether a name of a snapshot may begin with `word`.
pub fn may_begin_name(word: &[u8]) -> bool {
    // A 0 is any digit.
    let forms = [format!("0000-00-00T00-00-00Z{PARTIAL}"), "0000-00-00 00:00:00".to_string()];
    let fits = |(typed, form): (&u8, u8)| match form {
        b'0' => typed.is_ascii_digit(),
        form => *typed == form,
    };
    let begins =
        |form: &String| word.len() <= form.len() && word.iter().zip(form.bytes()).all(fits);
    !word.is_empty() && forms.iter().any(begins)
}

/// The last second of what `text` says: of a date or `yesterday`, its day; of a time without
/// seconds, its minute. So `2026-12-24` means what was there at the end of that day.
///
/// # Errors
/// A message that says what is accepted.
pub fn last_moment(text: &str, zone: &Zone, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().or_else(|| day_of(text, zone, now));
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
const ACCEPTED: &str = "a time is written as 2026-12-24 or `yesterday` (the end of that day), \
    '2026-12-24 18:00' (all in the policy's time_zone), 2026-12-24T18:00:00Z (RFC 3339) or as a \
    snapshot's name";

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<SnapshotName> {
        [
            "2026-11-22T10-00-00Z",
            "2026-11-22T12-00-00Z",
            "2026-11-22T13-00-00Z-partial",
            "2026-11-22T23-30-00Z",
            "2026-11-24T10-00-00Z",
            "2026-12-01T10-00-00Z-partial",
        ]
        .iter()
        .map(|name| SnapshotName::parse(name.as_bytes(), &Zone::utc()).expect("a name"))
        .collect()
    }

    fn moment(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn by_word(word: &str, zone: &Zone, day: DayMeans) -> Result<String, NoChoice> {
        let now = moment("2026-11-25T08:00:00Z");
        let context = WordContext { zone, now, day };
        choose_by_word(word, &names(), context).map(|name| name.text.clone())
    }

    #[test]
    fn the_newest_complete_snapshot_up_to_a_time_is_chosen() {
        let zone = Zone::utc();
        for (text, expected) in [
            ("2026-11-21", None),
            ("2026-11-22", Some("2026-11-22T23-30-00Z")),
            ("2026-11-22 09:59", None),
            ("2026-11-22 10:00", Some("2026-11-22T10-00-00Z")),
            ("2026-11-22T12:00:00Z", Some("2026-11-22T12-00-00Z")),
            ("2026-11-22T11:59:59Z", Some("2026-11-22T10-00-00Z")),
            ("2026-11-22T13-00-00Z-partial", Some("2026-11-22T12-00-00Z")),
            ("yesterday", Some("2026-11-22T23-30-00Z")),
            ("2026-12-24", Some("2026-11-24T10-00-00Z")),
        ] {
            let now = moment("2026-11-24T08:00:00Z");
            let until = last_moment(text, &zone, now).expect(text);
            let names = names();
            let chosen = newest_up_to(&names, until).map(|name| name.text.as_str());
            assert_eq!(chosen, expected, "{text}");
        }
    }

    #[test]
    fn a_word_means_the_one_snapshot_that_it_can_mean() {
        let zone = Zone::amsterdam();
        let several = |texts: &[&str]| {
            Err(NoChoice::Several(texts.iter().map(ToString::to_string).collect()))
        };
        let on_22 =
            ["2026-11-22T10-00-00Z", "2026-11-22T12-00-00Z", "2026-11-22T13-00-00Z-partial"];
        let begins_22 = [&on_22[..], &["2026-11-22T23-30-00Z"]].concat();
        for (word, day, expected) in [
            ("newest", DayMeans::OnlyOne, Ok("2026-11-24T10-00-00Z")),
            ("2026-11-22T13-00-00Z-partial", DayMeans::Newest, Ok(on_22[2])),
            ("2026-11-22T13", DayMeans::OnlyOne, Ok(on_22[2])),
            ("2026-12", DayMeans::OnlyOne, Ok("2026-12-01T10-00-00Z-partial")),
            ("yesterday", DayMeans::OnlyOne, Ok("2026-11-24T10-00-00Z")),
            ("2026-11-22", DayMeans::Newest, Ok(on_22[1])),
            ("2026-11-22", DayMeans::OnlyOne, several(&on_22).map(|()| "")),
            // In Amsterdam it was the next day already.
            ("2026-11-23", DayMeans::OnlyOne, Ok("2026-11-22T23-30-00Z")),
            ("2026-11-22T", DayMeans::Newest, several(&begins_22).map(|()| "")),
        ] {
            let expected = expected.map(str::to_string);
            assert_eq!(by_word(word, &zone, day), expected, "{word} {day:?}");
        }
    }

    #[test]
    fn what_no_snapshot_has_is_answered_by_the_nearest_names() {
        let near = |word| match by_word(word, &Zone::utc(), DayMeans::Newest) {
            Err(NoChoice::NoneOf(near)) => near,
            other => panic!("{word}: {other:?}"),
        };
        // A whole name does not mean the partial snapshot of that time, which is proposed.
        assert_eq!(near("2026-11-22T13-00-00Z")[0], "2026-11-22T13-00-00Z-partial");
        assert_eq!(near("2026-11-22T10-00-30Z")[0], "2026-11-22T10-00-00Z");
        assert_eq!(near("2027-12-01")[0], "2026-12-01T10-00-00Z-partial");
        assert_eq!(near("").len(), 3);
        let now = moment("2026-11-25T08:00:00Z");
        let context = WordContext { zone: &Zone::utc(), now, day: DayMeans::Newest };
        let of_none = |word| choose_by_word(word, &[], context).expect_err(word);
        assert_eq!(of_none("newest"), NoChoice::NoneComplete);
        assert_eq!(of_none("2026"), NoChoice::NoneOf(Vec::new()));
    }

    #[test]
    fn a_mistyped_word_is_answered_by_the_word() {
        let near = ["2026-11-22T10-00-00Z".to_string()];
        for (word, expected) in [
            ("newst", " (did you mean newest?)"),
            ("Yesteday", " (did you mean yesterday?)"),
            ("2026-11-23", " (the nearest: 2026-11-22T10-00-00Z)"),
        ] {
            assert_eq!(proposals(word, &near), expected);
        }
        assert_eq!(proposals("2026-11-23", &[]), "");
    }

    #[test]
    fn the_nearest_of_several_modules_are_proposed_once() {
        let none_of =
            |names: &[&str]| NoChoice::NoneOf(names.iter().map(ToString::to_string).collect());
        let refusals = [
            none_of(&["2026-11-22T10-00-00Z", "2026-10-01T00-00-00Z"]),
            NoChoice::NoneComplete,
            none_of(&["2026-11-22T10-00-00Z", "2026-11-22T11-00-00Z", "2020-01-01T00-00-00Z"]),
        ];
        assert_eq!(
            nearest_of_all("2026-11-22T10-00-01Z", &refusals),
            ["2026-11-22T10-00-00Z", "2026-11-22T11-00-00Z", "2026-10-01T00-00-00Z"]
        );
    }

    #[test]
    fn a_word_that_names_begin_with_is_told_from_a_module() {
        for (word, expected) in [
            ("2", true),
            ("2026-11", true),
            ("2026-11-22T19-08-31Z-par", true),
            ("2019-08-02 12", true),
            ("", false),
            ("2026-11-22x", false),
            ("laptop", false),
            ("2026-11-22T19-08-31Z-partial-", false),
        ] {
            assert_eq!(may_begin_name(word.as_bytes()), expected, "{word}");
        }
    }

    #[test]
    fn a_local_time_ends_with_its_day_or_minute() {
        let zone = Zone::amsterdam();
        let now = moment("2026-11-22T23:30:00Z");
        for (text, expected) in [
            ("2026-11-22", "2026-11-22T22:59:59Z"),
            // It is the 23rd already.
            ("yesterday", "2026-11-22T22:59:59Z"),
            ("2026-07-01", "2026-07-01T21:59:59Z"),
            ("2026-11-22 14:00", "2026-11-22T13:00:59Z"),
            ("2026-11-22 14:00:30", "2026-11-22T13:00:30Z"),
            ("2026-11-22T14:00:00Z", "2026-11-22T14:00:00Z"),
        ] {
            assert_eq!(last_moment(text, &zone, now), Ok(moment(expected)), "{text}");
        }
        let error = last_moment("tomorrow", &zone, now).expect_err("no time");
        assert!(error.contains("the end of that day"), "{error}");
    }
}
