//! A lease: how long a reader keeps a snapshot from being retired, and from being recycled.
//!
//! After the policy's `max_lease` a lease no longer keeps a snapshot from expiring: otherwise one
//! client could fill the disk. But its process may still be reading. So a snapshot under such a
//! lease is only removed, and never made into another one: the reader then fails, instead of
//! getting files of two states.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use crate::decide::liveness::Liveness;

/// Who reads a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotReader {
    /// The reader, for messages, escaped: `user laptop`.
    pub name: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

impl fmt::Display for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has been reading it since {}", self.name, self.since.format("%FT%TZ"))
    }
}

/// What a lease does for its snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseStanding {
    /// Its snapshots are neither retired, nor recycled, nor removed.
    Holds,
    /// It has lasted for `max_lease`. Its snapshots expire like others, but they are not recycled.
    Outlasted,
    /// Its process has ended, or it cannot be seen from here and the lease has outlasted
    /// `max_lease` by a week.
    Over,
}

/// How long a lease whose process cannot be seen from here keeps its snapshots from being recycled,
/// after it has outlasted `max_lease`.
const UNSEEN_AFTER_MAX_LEASE: TimeDelta = TimeDelta::days(7);

/// Decides on a lease that began `age` ago. The clock of another machine may be ahead, so the age
/// may be negative.
pub fn standing(liveness: Liveness, age: TimeDelta, max_lease: TimeDelta) -> LeaseStanding {
    let age = age.abs();
    match liveness {
        Liveness::Dead => LeaseStanding::Over,
        Liveness::Unknown if age >= max_lease + UNSEEN_AFTER_MAX_LEASE => LeaseStanding::Over,
        Liveness::Alive | Liveness::Unknown if age >= max_lease => LeaseStanding::Outlasted,
        Liveness::Alive | Liveness::Unknown => LeaseStanding::Holds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_as_long_as_its_process_but_not_longer_than_max_lease() {
        use LeaseStanding::{Holds, Outlasted, Over};
        let day = TimeDelta::days(1);
        for (hours, alive, unknown) in [
            (0, Holds, Holds),
            (23, Holds, Holds),
            (-23, Holds, Holds),
            (24, Outlasted, Outlasted),
            (-24, Outlasted, Outlasted),
            (24 * 8 - 1, Outlasted, Outlasted),
            (24 * 8, Outlasted, Over),
            (24 * 999, Outlasted, Over),
        ] {
            let age = TimeDelta::hours(hours);
            assert_eq!(standing(Liveness::Alive, age, day), alive, "{hours}");
            assert_eq!(standing(Liveness::Unknown, age, day), unknown, "{hours}");
            assert_eq!(standing(Liveness::Dead, age, day), Over, "{hours}");
        }
        assert_eq!(standing(Liveness::Alive, TimeDelta::zero(), TimeDelta::zero()), Outlasted);
    }
}
