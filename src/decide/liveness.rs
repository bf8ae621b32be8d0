//! Whether the process that serves a transfer is alive, has ended, or cannot be seen from here.
//!
//! A process of another PID namespace or machine that is not found is unknown, not dead: the push
//! that it serves may still be writing. The hook on its own side settles that, or a time limit
//! does.

use chrono::TimeDelta;

use crate::decide::duration_text::DurationText;

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It runs.
    Alive,
    /// It has ended.
    Dead,
    /// It cannot be seen from here.
    Unknown,
}

/// Where an entry of the ledger was written, as seen from this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryOrigin {
    /// In this PID namespace and boot; an entry of an earlier version, which does not say, counts
    /// as such.
    Here,
    /// In another PID namespace of the running kernel.
    OtherNamespace,
    /// In an earlier boot of this machine.
    EarlierBoot,
    /// On another machine.
    OtherMachine,
    /// It cannot be told, because this process cannot see its own namespace.
    Unclear,
}

/// What a look into `/proc` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessLookup {
    /// The process, or one that exists and is hidden.
    Running,
    /// There is no such process, and each process of its namespace would be seen.
    Gone,
    /// No such process is seen, but a process of its namespace may be hidden.
    NotSeen,
}

/// Decides what is known of a process.
pub fn liveness(origin: EntryOrigin, found: ProcessLookup) -> Liveness {
    match (origin, found) {
        (EntryOrigin::EarlierBoot, _) => Liveness::Dead,
        (EntryOrigin::OtherMachine | EntryOrigin::Unclear, _) => Liveness::Unknown,
        (EntryOrigin::Here | EntryOrigin::OtherNamespace, ProcessLookup::Running) => {
            Liveness::Alive
        }
        (EntryOrigin::Here | EntryOrigin::OtherNamespace, ProcessLookup::Gone) => Liveness::Dead,
        (EntryOrigin::Here | EntryOrigin::OtherNamespace, ProcessLookup::NotSeen) => {
            Liveness::Unknown
        }
    }
}

impl Liveness {
    /// What is known of a transfer that two processes serve: it runs as long as one of them lives.
    pub fn or(self, other: Liveness) -> Liveness {
        match (self, other) {
            (Liveness::Alive, _) | (_, Liveness::Alive) => Liveness::Alive,
            (Liveness::Unknown, _) | (_, Liveness::Unknown) => Liveness::Unknown,
            (Liveness::Dead, Liveness::Dead) => Liveness::Dead,
        }
    }

    /// What this counts as if the transfer began `age` ago: a process that cannot be seen counts as
    /// dead after `limit`. The other machine's clock may be ahead, so a transfer that began in the
    /// future also counts as dead.
    pub fn after(self, age: TimeDelta, limit: TimeDelta) -> Liveness {
        match self {
            Liveness::Unknown if age.abs() >= limit => Liveness::Dead,
            known => known,
        }
    }
}

/// How long a transfer that cannot be seen counts as running: a day, or `max_defer` where that is
/// longer.
pub fn unseen_limit(max_defer: DurationText) -> TimeDelta {
    max_defer.delta().max(TimeDelta::days(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_be_seen_is_dead() {
        use Liveness::{Alive, Dead, Unknown};
        let cases = [
            (EntryOrigin::Here, [Alive, Dead, Unknown]),
            (EntryOrigin::OtherNamespace, [Alive, Dead, Unknown]),
            (EntryOrigin::EarlierBoot, [Dead, Dead, Dead]),
            (EntryOrigin::OtherMachine, [Unknown, Unknown, Unknown]),
            (EntryOrigin::Unclear, [Unknown, Unknown, Unknown]),
        ];
        for (origin, expected) in cases {
            let found = [ProcessLookup::Running, ProcessLookup::Gone, ProcessLookup::NotSeen];
            assert_eq!(found.map(|found| liveness(origin, found)), expected, "{origin:?}");
        }
    }

    #[test]
    fn a_transfer_ends_with_the_last_of_its_processes() {
        use Liveness::{Alive, Dead, Unknown};
        for (one, other, both) in [
            (Dead, Dead, Dead),
            (Dead, Alive, Alive),
            (Dead, Unknown, Unknown),
            (Unknown, Alive, Alive),
            (Unknown, Unknown, Unknown),
            (Alive, Alive, Alive),
        ] {
            assert_eq!((one.or(other), other.or(one)), (both, both), "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_counts_as_running_for_a_limited_time() {
        let limit = unseen_limit(DurationText::from_seconds(3_600));
        assert_eq!(limit, TimeDelta::days(1));
        assert_eq!(unseen_limit(DurationText::from_seconds(200_000)), TimeDelta::seconds(200_000));
        for (hours, counts_as) in [
            (0, Liveness::Unknown),
            (23, Liveness::Unknown),
            (24, Liveness::Dead),
            (-23, Liveness::Unknown),
            (-9_999, Liveness::Dead),
        ] {
            assert_eq!(
                Liveness::Unknown.after(TimeDelta::hours(hours), limit),
                counts_as,
                "{hours}"
            );
            assert_eq!(Liveness::Alive.after(TimeDelta::hours(hours), limit), Liveness::Alive);
        }
    }
}
