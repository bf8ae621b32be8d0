//! Durations as a policy writes them: `90s`, `10m`, `24h`, `31d`, `4w`.

use std::fmt;

use chrono::TimeDelta;

/// A duration in whole seconds, at most a thousand years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationText {
    seconds: u64,
}

/// Unit letters with their length in seconds, longest first.
const UNITS: [(char, u64); 5] =
    [('w', 7 * 86_400), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Long enough for any policy, short enough that no arithmetic on it overflows.
const MAX_SECONDS: u64 = 1_000 * 366 * 86_400;

impl DurationText {
    /// A duration of `seconds`.
    pub const fn from_seconds(seconds: u64) -> Self {
        DurationText { seconds }
    }

    /// Reads a number followed by `s`, `m`, `h`, `d` or `w`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (unit, unit_seconds) = UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit))?;
        let number = text.strip_suffix(unit)?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let seconds = number.parse::<u64>().ok()?.checked_mul(unit_seconds)?;
        (seconds <= MAX_SECONDS).then_some(DurationText { seconds })
    }

    /// The length in seconds.
    pub fn seconds(self) -> u64 {
        self.seconds
    }

    /// The duration for arithmetic with times.
    pub fn delta(self) -> TimeDelta {
        TimeDelta::seconds(self.seconds as i64)
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS
            .into_iter()
            .find(|(_, length)| self.seconds != 0 && self.seconds.is_multiple_of(*length));
        let (unit, length) = exact.unwrap_or(('s', 1));
        write!(f, "{}{unit}", self.seconds / length)
    }
}

/// A duration for messages, in the largest unit of which it has at least two.
pub fn roughly(delta: TimeDelta) -> String {
    let seconds = delta.num_seconds().unsigned_abs();
    let (unit, length) =
        UNITS.into_iter().find(|(_, length)| seconds >= 2 * length).unwrap_or(('s', 1));
    format!("{}{}{unit}", if delta.num_seconds() < 0 { "-" } else { "" }, seconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("10m", 600),
            ("1h", 3_600),
            ("31d", 2_678_400),
            ("2w", 1_209_600),
        ] {
            assert_eq!(
                DurationText::parse(text).map(DurationText::seconds),
                Some(seconds),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "10",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "1y",
            "99999999999999999999s",
            "999999999w",
            "1hh",
            "ä",
        ] {
            assert_eq!(DurationText::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_span_prints_as_it_would_be_written() {
        for text in ["0s", "90s", "10m", "1h", "31d", "2w"] {
            assert_eq!(DurationText::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(roughly(TimeDelta::seconds(7_300)), "2h");
        assert_eq!(roughly(TimeDelta::seconds(-7_300)), "-2h");
        assert_eq!(roughly(TimeDelta::milliseconds(-999)), "0s");
        assert_eq!(roughly(TimeDelta::seconds(i64::MAX / 1_000)), "15250284452w");
    }
}
