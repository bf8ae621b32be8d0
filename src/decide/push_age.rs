//! Whether a module, or one of its clients, has had no good push for longer than `max_age`.
//!
//! A client that no longer pushes must not look alive. So where pushes are expected, `max_age` is
//! about the last good push, and a snapshot by hand or from a timer does not count. It is about the
//! newest complete snapshot as well: where pushes end well and bring no complete snapshot, there is
//! no backup either.
//!
//! Where no push ever came, the time counts from when one could first have come. That is never
//! earlier than the module's configuration, so nothing alarms because a module is new.

use chrono::{DateTime, TimeDelta, Utc};

use crate::decide::duration_text::DurationText;

/// What is known of the age of a module's backup.
#[derive(Debug, Clone, Copy)]
pub struct AgeFacts {
    /// The policy's `max_age`.
    pub max_age: DurationText,
    /// The present time.
    pub now: DateTime<Utc>,
    /// Whether pushes are expected. Where another program fills the directory and only snapshots
    /// are taken, none are, and the newest snapshot alone counts.
    pub expects_pushes: bool,
    /// When the last good push ended, as far as is known.
    pub last_push: Option<DateTime<Utc>>,
    /// Since when a push could have come; `None` if that is not known.
    pub expected_since: Option<DateTime<Utc>>,
}

/// How serious the age is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgeLevel {
    /// Older than `max_age`.
    Old,
    /// Older than twice `max_age`; or nothing ever came, for longer than `max_age`.
    TooOld,
}

/// What is wrong with the age of the pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushAge {
    /// Nothing.
    Fine,
    /// The last good push is that old.
    Old(AgeLevel, TimeDelta),
    /// There was no good push since it was expected, that long ago.
    Never(TimeDelta),
}

/// Whether `age` is more than `max_age`; `None` if not. A time in the future comes from a wrong
/// clock, which has alarms of its own.
pub fn level(age: TimeDelta, max_age: DurationText) -> Option<AgeLevel> {
    if age > max_age.delta() * 2 {
        Some(AgeLevel::TooOld)
    } else if age > max_age.delta() {
        Some(AgeLevel::Old)
    } else {
        None
    }
}

/// Decides about the pushes of a module or a client.
pub fn push_age(facts: &AgeFacts) -> PushAge {
    let AgeFacts { max_age, now, expects_pushes, last_push, expected_since } = *facts;
    if !expects_pushes {
        return PushAge::Fine;
    }
    match (last_push, expected_since) {
        (Some(last), _) => level(now - last, max_age)
            .map_or(PushAge::Fine, |level| PushAge::Old(level, now - last)),
        (None, Some(since)) if now - since > max_age.delta() => PushAge::Never(now - since),
        (None, _) => PushAge::Fine,
    }
}

/// When the last good push ended. `noted` is what this version has noted of pushes, `since` when it
/// began to. `newest_pushed`: until when a snapshot that a push brought was found equal to the
/// module; that stands for the pushes of an earlier version. A run by hand or from a timer moves
/// it, too, so it counts no further than to `since`.
pub fn last_push(
    noted: Option<DateTime<Utc>>,
    newest_pushed: Option<DateTime<Utc>>,
    since: Option<DateTime<Utc>>,
) -> Option<DateTime<Utc>> {
    let earlier = newest_pushed.map(|time| since.map_or(time, |since| time.min(since)));
    noted.or(earlier)
}

/// Since when a push could have come: since the module or client was configured, but not before the
/// module's directory was `born`. `noted` is when a timer's run first saw it in the configuration.
/// Without a timer, the last change of the file that configures it counts; each edit of that file
/// puts the alarm off.
pub fn expected_since(
    noted: Option<DateTime<Utc>>,
    changed: Option<DateTime<Utc>>,
    born: Option<DateTime<Utc>>,
) -> Option<DateTime<Utc>> {
    let configured = [noted, changed].into_iter().flatten().min()?;
    Some(born.map_or(configured, |born| born.max(configured)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_AGE: DurationText = DurationText::from_seconds(3_600);

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(minute * 60, 0).expect("a time")
    }

    fn age(expects: bool, last: Option<i64>, since: Option<i64>) -> PushAge {
        push_age(&AgeFacts {
            max_age: MAX_AGE,
            now: at(1_000),
            expects_pushes: expects,
            last_push: last.map(at),
            expected_since: since.map(at),
        })
    }

    #[test]
    fn the_last_good_push_is_compared_with_max_age() {
        let minutes = TimeDelta::minutes;
        assert_eq!(age(true, Some(940), None), PushAge::Fine);
        assert_eq!(age(true, Some(930), None), PushAge::Old(AgeLevel::Old, minutes(70)));
        assert_eq!(age(true, Some(870), None), PushAge::Old(AgeLevel::TooOld, minutes(130)));
        assert_eq!(age(false, Some(10), Some(10)), PushAge::Fine, "no push is expected");
        assert_eq!(age(true, Some(2_000), None), PushAge::Fine, "a wrong clock");
    }

    #[test]
    fn a_module_without_any_push_alarms_after_max_age() {
        assert_eq!(age(true, None, Some(941)), PushAge::Fine);
        assert_eq!(age(true, None, Some(900)), PushAge::Never(TimeDelta::minutes(100)));
        assert_eq!(age(true, None, None), PushAge::Fine, "it is not known since when");
    }

    #[test]
    fn a_timer_moves_no_push_of_an_earlier_version() {
        assert_eq!(last_push(Some(at(5)), Some(at(9)), Some(at(1))), Some(at(5)));
        assert_eq!(last_push(None, Some(at(9)), None), Some(at(9)), "no run of this version yet");
        assert_eq!(last_push(None, Some(at(9)), Some(at(7))), Some(at(7)));
        assert_eq!(last_push(None, Some(at(3)), Some(at(7))), Some(at(3)));
        assert_eq!(last_push(None, None, Some(at(7))), None);
    }

    #[test]
    fn a_new_module_expects_pushes_from_its_configuration_on() {
        let (old, new) = (Some(at(1)), Some(at(9)));
        assert_eq!(expected_since(None, new, old), new, "an old directory, newly configured");
        assert_eq!(expected_since(Some(at(5)), new, old), Some(at(5)), "edited since");
        assert_eq!(expected_since(Some(at(5)), old, None), old, "not edited before the timer came");
        assert_eq!(expected_since(old, old, new), new, "the directory was made anew");
        assert_eq!(expected_since(None, None, old), None);
    }
}
