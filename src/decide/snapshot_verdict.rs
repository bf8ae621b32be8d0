//! The verdict on each snapshot: whether it stays, and why; and the history that rotation needs.

use chrono::{DateTime, Utc};

use crate::decide::anomaly::Anomaly;
use crate::decide::clock_history::{ClockHistory, SequenceNumbers};
use crate::decide::clock_jump::ClockJump;
use crate::decide::clock_reading::ClockReading;
use crate::decide::damage::Damage;
use crate::decide::lease::SnapshotReader;
use crate::decide::policy::Policy;
use crate::decide::snapshot::Snapshot;
use crate::decide::snapshot_reason::{ExpiryPause, SnapshotReason, pause_line};

/// What rotation needs to know about earlier runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotationHistory {
    /// When the last run was.
    pub last_run: Option<DateTime<Utc>>,
    /// The pause because of a clock jump that began in an earlier run.
    pub clock_jump: Option<ClockJump>,
    /// What earlier runs found out about the clock.
    pub clock: ClockHistory,
    /// What both clocks show now; none for a decision about another time.
    pub reading: Option<ClockReading>,
    /// The sequence number of the newest snapshot that the last run knew of.
    pub sequence: u64,
    /// The state was lost, and the administrator has not run `rotate --confirm` since.
    pub state_lost: bool,
    /// Recorded snapshots that are dated in the future, up to this time, are known to the
    /// administrator and pause nothing.
    pub confirmed_future: Option<DateTime<Utc>>,
    /// The pause after a push that changed most of the tree.
    pub anomaly: Option<Anomaly>,
    /// Files in snapshots that were found altered.
    pub damage: Option<Damage>,
    /// The [`rules`](crate::decide::pauses::rules) of the last rotation; `None` if there was none.
    pub rules: Option<String>,
}

impl RotationHistory {
    /// What is known of the clock, with its present reading added.
    pub(crate) fn clock_now(&self, snapshots: &[Snapshot], policy: &Policy) -> ClockHistory {
        let newest = snapshots.iter().filter_map(|snapshot| snapshot.sequence).max();
        let numbers = SequenceNumbers {
            known: self.sequence,
            newest: newest.unwrap_or(0).max(self.sequence),
        };
        match &self.reading {
            Some(reading) => self.clock.observe(reading, numbers, policy.clock_jump),
            None => self.clock.clone(),
        }
    }
}

/// Whether one snapshot stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotVerdict {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Whether it stays.
    pub keep: bool,
    /// Why; never empty.
    pub reasons: Vec<SnapshotReason>,
}

impl SnapshotVerdict {
    /// Who reads the snapshot, if no reason says so: for a snapshot that stays anyway, its reader
    /// is not a reason.
    pub fn reader_note(&self) -> Option<String> {
        let tells_reader = |reason: &SnapshotReason| {
            matches!(reason, SnapshotReason::Read(_) | SnapshotReason::SpaceWantedWhileRead(_))
        };
        let reader = self.snapshot.reader.as_ref();
        reader.filter(|_| !self.reasons.iter().any(tells_reader)).map(ToString::to_string)
    }
}

/// The decision on all snapshots of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// One verdict per snapshot, oldest first.
    pub verdicts: Vec<SnapshotVerdict>,
    /// Why nothing is expired, if expiry is paused. Then every snapshot stays, except those that go
    /// [under every dating](crate::decide::expiry_in_doubt) of a clock in doubt.
    pub pause: Option<ExpiryPause>,
    /// How many more would go without `max_expire`.
    pub deferred: usize,
}

impl Decision {
    /// The line about the pause, if there is one.
    pub fn pause_line(&self) -> Option<String> {
        self.pause.as_ref().map(|pause| pause_line(pause, self.expired().count()))
    }

    /// Lets the snapshot `name` stay, which `reader` began to read after the decision.
    pub(crate) fn keep_read(&mut self, name: &str, reader: SnapshotReader) {
        for verdict in self.verdicts.iter_mut().filter(|verdict| verdict.snapshot.name == name) {
            keep(verdict, SnapshotReason::Read(reader.clone()));
        }
    }

    /// The names of those that go, oldest first.
    pub fn expired(&self) -> impl Iterator<Item = &SnapshotVerdict> {
        self.verdicts.iter().filter(|verdict| !verdict.keep)
    }
}

pub(crate) fn keep(verdict: &mut SnapshotVerdict, reason: SnapshotReason) {
    if !verdict.keep {
        // The reasons for expiring it no longer matter.
        verdict.reasons.clear();
        verdict.keep = true;
    }
    verdict.reasons.push(reason);
}
