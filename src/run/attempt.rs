//! One pass over the module: what it knows, and what it makes of it.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::decide::boot_time::BootTime;
use crate::decide::clock_history::ClockHistory;
use crate::decide::clock_reading::ClockReading;
use crate::decide::failed_push::UnfinishedDirectory;
use crate::decide::fingerprint::Fingerprint;
use crate::decide::verdict_facts::{ClientCompletion, RunningPushes};
use crate::module::target::Target;
use crate::run::request::Request;
use crate::store::gate::Gate;
use crate::store::inode_log::in_place::InPlaceChanges;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::system::clock::Clock;

/// One pass over the module.
pub(crate) struct SnapshotAttempt<'a> {
    pub(crate) target: &'a Target,
    pub(crate) root: &'a SnapshotRoot,
    pub(crate) request: &'a Request,
    pub(crate) clock: &'a Clock,
    pub(crate) began: Instant,
    pub(crate) scan_began: BootTime,
    pub(crate) now: DateTime<Utc>,
    /// What both clocks showed at `now`.
    pub(crate) reading: ClockReading,
    /// What is known of the clock, that reading included.
    pub(crate) clock_history: RefCell<ClockHistory>,
    /// The newest snapshot's number.
    pub(crate) sequence: Cell<u64>,
    pub(crate) before: State,
    pub(crate) catalog: SnapshotList,
    /// How far the client says that it has come.
    pub(crate) completion: ClientCompletion,
    /// Whether a comparison has been a full one.
    pub(crate) is_full: Cell<bool>,
    /// Closed as long as the tree is read.
    pub(crate) gate: Cell<Option<Gate>>,
    /// The pushes that go on all the same.
    pub(crate) running: RunningPushes,
    /// What pushes that write in place have changed; none where there was no such push.
    pub(crate) in_place: Option<InPlaceChanges>,
}

/// What a look at the tree has shown.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) newest_ctime_ns: i64,
    pub(crate) scars: Vec<UnfinishedDirectory>,
    /// When the look ended, by the wall clock.
    pub(crate) ended: DateTime<Utc>,
    /// Whether every later change has a later change time than all that was seen.
    pub(crate) is_settled: bool,
    /// When the look before began, if the tree is as that left it.
    pub(crate) unchanged_since: Option<BootTime>,
    pub(crate) differs_from_complete: Option<bool>,
    pub(crate) differs_from_newest: Option<bool>,
}
