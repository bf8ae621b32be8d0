//! What to do about a snapshot while pushes to its module are still running.
//!
//! A tree that somebody is writing to is no state that anybody meant. So the snapshot waits for the last of
//! them, but not for ever: pushes that never stop overlapping must not keep what is safe on the
//! client's side out of the history. What is made beside them is only partial.

use chrono::{DateTime, TimeDelta, Utc};

use super::span::Span;

/// How a snapshot goes about other pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Nobody writes: as asked.
    Alone,
    /// The last one that is running takes it.
    Defer,
    /// It is taken all the same, and partial.
    Beside,
}

/// Who asks for the snapshot, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// A push that ended, or a timer: it can wait, since then if somebody waits already.
    Waits(Option<DateTime<Utc>>),
    /// A person wants it now.
    None,
}

/// The pushes that are running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// How many.
    pub count: usize,
    /// Whether one of them writes into files that a snapshot would share, as it may while there is none.
    pub is_rewriting: bool,
}

/// Decides at `now`.
pub fn course(running: Running, patience: Patience, now: DateTime<Utc>, max_defer: Span) -> Course {
    match (running, patience) {
        (Running { count: 0, .. }, _) => Course::Alone,
        (Running { is_rewriting: true, .. }, _) => Course::Defer,
        (_, Patience::None) => Course::Beside,
        (_, Patience::Waits(since)) => {
            // A mark from the future is one of a wrong clock.
            let waited = since.map_or(TimeDelta::zero(), |since| (now - since).max(TimeDelta::zero()));
            if waited < max_defer.delta() { Course::Defer } else { Course::Beside }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(count: usize, patience: Patience, now: DateTime<Utc>, max_defer: Span) -> Course {
        super::course(Running { count, is_rewriting: false }, patience, now, max_defer)
    }

    #[test]
    fn nothing_is_linked_beside_a_push_that_rewrites_files() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let running = Running { count: 1, is_rewriting: true };
        for patience in [Patience::None, Patience::Waits(Some(DateTime::UNIX_EPOCH))] {
            assert_eq!(super::course(running, patience, now, Span::from_seconds(0)), Course::Defer);
        }
    }

    #[test]
    fn a_push_waits_for_the_last_one_but_not_for_ever() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let hour = Span::from_seconds(3_600);
        let waits = |seconds| Patience::Waits(Some(now - TimeDelta::seconds(seconds)));
        assert_eq!(course(0, waits(99_999), now, hour), Course::Alone);
        assert_eq!(course(1, Patience::Waits(None), now, hour), Course::Defer);
        assert_eq!(course(2, waits(3_599), now, hour), Course::Defer);
        assert_eq!(course(2, waits(3_600), now, hour), Course::Beside);
        assert_eq!(course(1, waits(-86_400), now, hour), Course::Defer);
        assert_eq!(course(1, Patience::Waits(None), now, Span::from_seconds(0)), Course::Beside);
    }

    #[test]
    fn a_person_does_not_wait() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let hour = Span::from_seconds(3_600);
        assert_eq!(course(0, Patience::None, now, hour), Course::Alone);
        assert_eq!(course(3, Patience::None, now, hour), Course::Beside);
    }
}
