//! Draws a time line on a terminal: which snapshots stay and which go, from now back to the oldest.
//!
//! The scale is logarithmic, because a policy thins out that way: the last hours are as wide as the
//! last years. Plain ASCII; colours only if the terminal has them and `NO_COLOR` is not set.

use chrono::TimeDelta;

use crate::tell::terminal::{Colour, Terminal};

/// The row that a snapshot is drawn in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimelineRow {
    /// Complete, and stays.
    Stays,
    /// Goes.
    Goes,
    /// Pinned by an administrator.
    Pinned,
    /// Partial, and stays.
    Partial,
}

impl TimelineRow {
    const ALL: [(TimelineRow, &'static str, Colour); 4] = [
        (TimelineRow::Stays, "stays", Colour::Green),
        (TimelineRow::Pinned, "pinned", Colour::Yellow),
        (TimelineRow::Partial, "partial", Colour::Cyan),
        (TimelineRow::Goes, "goes", Colour::Red),
    ];
}

/// Columns for the names of rows.
const NAME_WIDTH: usize = 9;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// Labels of the axis, with their ages in seconds.
const TICKS: [(&str, i64); 12] = [
    ("now", 0),
    ("1h", HOUR),
    ("6h", 6 * HOUR),
    ("1d", DAY),
    ("1w", 7 * DAY),
    ("1M", 30 * DAY),
    ("3M", 91 * DAY),
    ("1y", 365 * DAY),
    ("2y", 2 * 365 * DAY),
    ("5y", 5 * 365 * DAY),
    ("10y", 10 * 365 * DAY),
    ("20y", 20 * 365 * DAY),
];

/// Draws snapshots by their ages; nothing if there are none.
pub(crate) fn strip(snapshots: &[(TimeDelta, TimelineRow)], terminal: &Terminal) -> String {
    let Some(oldest) = snapshots.iter().map(|(age, _)| age.num_seconds()).max() else {
        return String::new();
    };
    let scale = Scale { oldest: oldest.max(HOUR), columns: terminal.width - NAME_WIDTH - 1 };
    let mut text = scale.axis();
    for (row, name, colour) in TimelineRow::ALL {
        let ages = snapshots.iter().filter(|(_, of)| *of == row).map(|(age, _)| age.num_seconds());
        let marks = scale.marks(ages);
        if !marks.is_empty() {
            text += &format!("{name:<NAME_WIDTH$}{}\n", terminal.paint(&marks, colour));
        }
    }
    text + "(* one snapshot, 2 to 9 so many, # more)\n\n"
}

struct Scale {
    /// The age at the right end, in seconds.
    oldest: i64,
    columns: usize,
}

impl Scale {
    /// Below this age the scale is nearly linear.
    const UNIT_SECONDS: f64 = 1_800.0;

    fn column(&self, age: i64) -> usize {
        let logarithm = |age: i64| (age.max(0) as f64 / Self::UNIT_SECONDS).ln_1p();
        let part = logarithm(age) / logarithm(self.oldest);
        (part * (self.columns - 1) as f64).round() as usize
    }

    /// Two lines: ages, and where they are.
    fn axis(&self) -> String {
        let mut labels = String::new();
        let mut line = vec![b'-'; self.columns];
        for (label, age) in TICKS.into_iter().filter(|(_, age)| *age <= self.oldest) {
            let column = self.column(age);
            // A label that would overlap the one before is left out.
            let begins = if labels.is_empty() { 0 } else { labels.len() + 1 };
            if column >= begins && column + label.len() <= self.columns {
                labels += &" ".repeat(column - labels.len());
                labels += label;
                line[column] = b'|';
            }
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        format!("{:NAME_WIDTH$}{labels}\n{:NAME_WIDTH$}{line}\n", "", "")
    }

    fn marks(&self, ages: impl Iterator<Item = i64>) -> String {
        let mut counts = vec![0_u32; self.columns];
        for age in ages {
            counts[self.column(age)] += 1;
        }
        let mark = |count: &u32| match count {
            0 => ' ',
            1 => '*',
            2..=9 => char::from_digit(*count, 10).unwrap_or('#'),
            _ => '#',
        };
        counts.iter().map(mark).collect::<String>().trim_end().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Terminal = Terminal { width: 60, colours: false };

    #[test]
    fn the_strip_shows_each_kind_in_its_row_at_its_age() {
        let hours = TimeDelta::hours;
        let snapshots = [
            (hours(0), TimelineRow::Stays),
            (hours(1), TimelineRow::Stays),
            (hours(24), TimelineRow::Goes),
            (hours(24), TimelineRow::Goes),
            (hours(24 * 365), TimelineRow::Pinned),
        ];
        let strip = strip(&snapshots, &PLAIN);
        let lines: Vec<&str> = strip.lines().collect();
        assert!(lines.iter().all(|line| line.len() <= 60), "{strip}");
        assert_eq!(lines[0].find("now"), lines[2].find('*'), "{strip}");
        assert_eq!(lines[0].find("1d"), lines[4].find('2'), "{strip}");
        assert_eq!(lines[3].rfind('*'), Some(58), "the oldest is at the end: {strip}");
        assert!(
            lines[2].starts_with("stays")
                && lines[3].starts_with("pinned")
                && lines[4].starts_with("goes")
        );
        assert!(!strip.contains('\x1b') && !strip.contains("partial"));
    }

    #[test]
    fn labels_never_run_into_each_other() {
        for (width, hours) in [(40, 1), (40, 200_000), (80, 30), (240, 9_000)] {
            let strip = strip(
                &[(TimeDelta::hours(hours), TimelineRow::Stays)],
                &Terminal { width, colours: false },
            );
            let labels = strip.lines().next().expect("labels");
            assert!(
                labels
                    .split_whitespace()
                    .all(|label| TICKS.iter().any(|(known, _)| *known == label))
            );
            assert!(labels.len() <= width, "{strip}");
        }
    }

    #[test]
    fn colours_are_only_around_marks() {
        let colourful = Terminal { colours: true, ..PLAIN };
        let strip = strip(&[(TimeDelta::hours(3), TimelineRow::Partial)], &colourful);
        assert!(strip.contains("partial  \x1b[36m") && strip.contains("*\x1b[0m\n"), "{strip:?}");
    }
}
