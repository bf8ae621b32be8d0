//! A large step of the wall clock since the last run, which pauses expiry.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::duration_text::{DurationText, roughly};

/// Expiry is paused because the clock stepped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockJump {
    /// The last time that was believed.
    pub believed: DateTime<Utc>,
    /// What the clock said when the step was noticed.
    pub seen: DateTime<Utc>,
}

impl fmt::Display for ClockJump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.seen - self.believed;
        write!(
            f,
            "the clock stepped by {} (from {} to {}); check it, then run `rotate --confirm`",
            roughly(step),
            self.believed.format("%FT%TZ"),
            self.seen.format("%FT%TZ")
        )
    }
}

/// The pause that holds at `now`: the `standing` one if the clock still shows that jump, or a new
/// one.
pub fn clock_jump(
    standing: Option<&ClockJump>,
    last_run: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    limit: DurationText,
) -> Option<ClockJump> {
    let agrees = |believed: DateTime<Utc>| (now - believed).abs() <= limit.delta();
    match (standing, last_run) {
        (Some(jump), _) => (!agrees(jump.believed)).then(|| jump.clone()),
        (None, Some(believed)) => (!agrees(believed)).then_some(ClockJump { believed, seen: now }),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: DurationText = DurationText::from_seconds(31 * 86_400);

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_large_step_either_way_pauses_and_a_small_one_does_not() {
        let last = Some(at("2026-11-22T00:00:00Z"));
        assert!(clock_jump(None, last, at("2036-11-22T00:00:00Z"), LIMIT).is_some());
        assert!(clock_jump(None, last, at("2016-11-22T00:00:00Z"), LIMIT).is_some());
        assert!(clock_jump(None, last, at("2026-12-23T00:00:00Z"), LIMIT).is_none());
        assert!(clock_jump(None, None, at("2036-11-22T00:00:00Z"), LIMIT).is_none());
    }

    #[test]
    fn the_pause_outlasts_later_runs_and_ends_when_the_clock_agrees_again() {
        let jump =
            clock_jump(None, Some(at("2026-11-22T00:00:00Z")), at("2036-11-22T00:00:00Z"), LIMIT)
                .unwrap();
        let later = Some(at("2036-11-22T00:00:00Z"));
        assert_eq!(
            clock_jump(Some(&jump), later, at("2036-11-22T01:00:00Z"), LIMIT).as_ref(),
            Some(&jump)
        );
        assert_eq!(clock_jump(Some(&jump), later, at("2026-11-23T00:00:00Z"), LIMIT), None);
    }
}
