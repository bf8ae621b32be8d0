//! Snapshots that vanished: another program than this one moved or removed them, as the
//! administrator does with `rm -rf`.
//!
//! A record without a tree shows that. It has to be told apart from the record of a run that was
//! killed before its snapshot became visible. A run gives each snapshot the next sequence number,
//! and writes that number into the state once the snapshot's name is durable. So a number up to
//! that of the state belongs to a snapshot that was visible.
//!
//! Each link that is removed moves the change time of its file, which otherwise shows a write in
//! place. So a change time is no sign of a write if the file may have been in a snapshot that
//! vanished, and the time lies between the last run that saw this snapshot and the last change of
//! the directory that it was in. That directory changes once more when the last link is gone, so a
//! later change time needs another explanation.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::clock_tick::STAMP_LAG_NS;
use crate::decide::lacking::LostLinks;
use crate::tell::escape::escape;

/// What the record of a snapshot says whose tree is not there.
#[derive(Debug, Clone, Copy)]
pub struct RecordWithoutTree {
    /// Another program made the snapshot, and this one recorded that it was there.
    pub adopted: bool,
    /// Its number; `None` for one of an older version.
    pub sequence: Option<u64>,
    /// When it was taken.
    pub time: DateTime<Utc>,
}

/// What is known of earlier runs.
#[derive(Debug, Clone, Copy)]
pub struct EarlierRuns<'a> {
    /// The highest number of a snapshot that was made durable.
    pub sequence: u64,
    /// The numbers of the snapshots that are there.
    pub present: &'a HashSet<u64>,
    /// When the last run scanned the module; each such run removes the records that killed runs
    /// left.
    pub last_run: Option<DateTime<Utc>>,
}

/// Whether the snapshot with this record was ever visible.
pub fn was_visible(record: &RecordWithoutTree, runs: &EarlierRuns) -> bool {
    match record.sequence {
        _ if record.adopted => true,
        // The run after a killed one uses its number again.
        Some(number) => number <= runs.sequence && !runs.present.contains(&number),
        None => runs.last_run.is_some_and(|last| record.time < last),
    }
}

/// A snapshot that vanished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VanishedSnapshot {
    /// Its name.
    pub name: String,
    /// When it was taken.
    pub taken: DateTime<Utc>,
    /// When the last run began that saw it.
    pub last_seen: DateTime<Utc>,
    /// The last change of the directory that it was in, when it was first missed.
    pub gone_by: DateTime<Utc>,
    /// When it was first missed.
    pub noticed: DateTime<Utc>,
    /// The administrator has accepted that it is gone, or it came back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
    /// Only some of its entries were removed, before this program removed the rest. Such an entry
    /// is always accepted: it only explains change times.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partly: bool,
}

impl VanishedSnapshot {
    /// The entry for a snapshot that lost entries between two times, nanoseconds since 1970.
    pub fn partly(name: &str, lost: LostLinks, now: DateTime<Utc>) -> Self {
        let began = DateTime::from_timestamp_nanos(lost.began_ns);
        VanishedSnapshot {
            name: name.to_string(),
            taken: began,
            last_seen: began,
            // The time of a file lies up to a tick after that of the directory.
            gone_by: DateTime::from_timestamp_nanos(lost.last_change_ns + STAMP_LAG_NS),
            noticed: now,
            accepted: true,
            partly: true,
        }
    }
}

/// A run looks for snapshots some time before the moment that it notes as its beginning.
const LOOK_BEFORE_RUN: TimeDelta = TimeDelta::minutes(1);

/// When the links of a vanished snapshot were removed, and of which files they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovedLinks {
    from_ns: i64,
    to_ns: i64,
    held_until_ns: i64,
    is_whole: bool,
}

impl RemovedLinks {
    /// The links of `snapshot`. It held no file that was first linked after `held_until_ns`.
    pub fn of(snapshot: &VanishedSnapshot, held_until_ns: i64) -> Self {
        let ns = |time: DateTime<Utc>| time.timestamp_nanos_opt().unwrap_or(i64::MAX);
        let (seen, gone) = (ns(snapshot.last_seen - LOOK_BEFORE_RUN), ns(snapshot.gone_by));
        // If the clock was set back in between, the order cannot be told.
        RemovedLinks {
            from_ns: seen.min(gone),
            to_ns: seen.max(gone),
            held_until_ns,
            is_whole: !snapshot.partly,
        }
    }

    /// Whether these are all links of the snapshot.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether the snapshot may have held the file that a run first linked at `linked_ns`; `None`
    /// if that is not known.
    pub fn may_be_of(&self, linked_ns: Option<i64>) -> bool {
        linked_ns.is_none_or(|linked| linked <= self.held_until_ns)
    }

    /// Whether a link may have been removed at `at_ns`.
    pub fn cover(&self, at_ns: i64) -> bool {
        (self.from_ns..=self.to_ns).contains(&at_ns)
    }

    /// Whether `at_ns` is later than the removal of the links.
    pub fn ended_before(&self, at_ns: i64) -> bool {
        at_ns > self.to_ns
    }
}

/// Fewer files than this may all have been written to.
const MANY_FILES: u64 = 100;

/// Whether a snapshot seems to have been moved away before its links were removed. Of `held` files
/// that it may have held, none was touched while it vanished, and most were touched afterwards
/// (`later`).
pub fn was_moved_first(held: u64, touched: u64, later: u64) -> bool {
    touched == 0 && later >= MANY_FILES && later.saturating_mul(2) >= held
}

/// At most so many names are told.
const MAX_TOLD: usize = 3;

/// The message about snapshots that vanished, of which those in `pinned` still have a pin; `None`
/// if there are none.
pub fn vanished_line(gone: &[VanishedSnapshot], pinned: &[&str]) -> Option<String> {
    let last = gone.last()?;
    let names: Vec<String> =
        gone.iter().take(MAX_TOLD).map(|one| escape(one.name.as_bytes())).collect();
    let (is, it) = if gone.len() == 1 { ("is", "it") } else { ("are", "them") };
    let seen = last.last_seen.max(last.taken).format("%FT%TZ");
    let pins = match pinned {
        [] => String::new(),
        [name] => format!("; the pin of {} stays until `unpin`", escape(name.as_bytes())),
        pins => format!("; {} pins of them stay until `unpin`", pins.len()),
    };
    Some(format!(
        "{} {is} gone, and no run of rsyncd-snapshot removed {it}: another program removed or \
         moved {} between {seen} and {}{pins}; if that was a mistake, move {it} back; if it was \
         meant, run `release --vanished`; next time, use `expire`",
        listed(names, gone.len()),
        if gone.len() == 1 { "it" } else { "the last of them" },
        last.noticed.format("%FT%TZ"),
    ))
}

/// `names` as the beginning of a list of `count`.
fn listed(names: Vec<String>, count: usize) -> String {
    match (count - names.len(), names.split_last()) {
        (0, Some((last, rest))) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        (0, _) => names.join(", "),
        (more, _) => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a time")
    }

    fn vanished(name: &str) -> VanishedSnapshot {
        VanishedSnapshot {
            name: name.to_string(),
            taken: at(0),
            last_seen: at(600),
            gone_by: at(900),
            noticed: at(1_000),
            accepted: false,
            partly: false,
        }
    }

    #[test]
    fn a_number_that_the_state_knows_was_visible() {
        let present = HashSet::from([4, 6]);
        let runs = EarlierRuns { sequence: 6, present: &present, last_run: Some(at(50)) };
        let record =
            |adopted, sequence, seconds| RecordWithoutTree { adopted, sequence, time: at(seconds) };
        for (record, expected, what) in [
            (record(false, Some(5), 10), true, "an earlier number"),
            (record(false, Some(7), 60), false, "the number of a run that was killed"),
            (record(false, Some(6), 40), false, "a later run got the number of a killed one"),
            (record(true, None, 10), true, "an adopted snapshot"),
            (record(false, None, 10), true, "of an older version, and a run followed"),
            (record(false, None, 60), false, "of an older version, and no run followed"),
        ] {
            assert_eq!(was_visible(&record, &runs), expected, "{what}");
        }
        let none = EarlierRuns { last_run: None, ..runs };
        assert!(!was_visible(&record(false, None, 10), &none), "nothing is known of runs");
    }

    #[test]
    fn removed_links_explain_the_time_of_their_removal_only() {
        let second = 1_000_000_000;
        let ns = |seconds: i64| at(seconds).timestamp_nanos_opt().expect("a time");
        let links = RemovedLinks::of(&vanished("a"), ns(1));
        for (seconds, expected) in [(0, false), (539, false), (540, true), (900, true)] {
            assert_eq!(links.cover(ns(seconds)), expected, "{seconds}");
        }
        assert!(!links.cover(ns(900) + 1) && links.ended_before(ns(900) + 1));
        assert!(links.may_be_of(None) && links.may_be_of(Some(ns(1))));
        assert!(!links.may_be_of(Some(ns(1) + second)), "a file that was new later");

        let back = VanishedSnapshot { gone_by: at(100), ..vanished("a") };
        let links = RemovedLinks::of(&back, 0);
        assert!(links.cover(ns(100)) && links.cover(ns(500)), "the clock was set back");
    }

    #[test]
    fn only_many_files_at_once_show_that_a_snapshot_was_moved_first() {
        assert!(was_moved_first(150, 0, 100));
        assert!(!was_moved_first(99, 0, 99), "a client may have written to so few");
        assert!(!was_moved_first(1_000, 0, 400), "most were left alone");
        assert!(!was_moved_first(150, 1, 149), "its links went as it vanished");
    }

    #[test]
    fn the_message_names_the_first_and_the_next_step() {
        assert_eq!(vanished_line(&[], &[]), None);
        let one = vanished_line(&[vanished("a")], &["a"]).expect("a message");
        assert!(one.starts_with("a is gone, and no run of rsyncd-snapshot removed it: "), "{one}");
        assert!(one.contains("the pin of a stays until `unpin`"), "{one}");
        assert!(one.contains("`release --vanished`"), "{one}");
        let all: Vec<VanishedSnapshot> =
            ["a", "b", "c", "d\n", "e"].into_iter().map(vanished).collect();
        let text = |count: usize| vanished_line(&all[..count], &[]).expect("a message");
        assert!(text(2).starts_with("a and b are gone, and no run"), "{}", text(2));
        assert!(text(3).starts_with("a, b and c are gone"), "{}", text(3));
        assert!(text(5).starts_with("a, b, c and 2 more are gone"), "{}", text(5));
    }
}
