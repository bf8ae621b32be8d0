//! What one attempt to take a snapshot knows of the root, and what it has seen of the live tree.

use std::cell::{Cell, OnceCell, RefCell};
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::decide::boot_time::BootTime;
use crate::decide::clock_history::ClockHistory;
use crate::decide::clock_reading::ClockReading;
use crate::decide::failed_push::UnfinishedDirectory;
use crate::decide::fingerprint::Fingerprint;
use crate::decide::verdict_facts::{ClientCompletion, RunningPushes};
use crate::run::request::Request;
use crate::run::session::Session;
use crate::store::dir::{self, OwnedDir};
use crate::store::frozen_tree::FrozenTree;
use crate::store::gate::Gate;
use crate::store::inode_log::changed_in_place::InPlaceChanges;
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::tell::error::Result;

pub(crate) struct SnapshotAttempt<'a> {
    pub(crate) session: Session<'a>,
    pub(crate) request: &'a Request,
    pub(crate) began: Instant,
    /// The boot clock's time just before the first directory of the live tree was read.
    pub(crate) scan_began: BootTime,
    pub(crate) now: DateTime<Utc>,
    /// What the wall clock and the boot clock showed at `now`.
    pub(crate) reading: ClockReading,
    /// What earlier runs and `reading` show of the wall clock, so that a doubt can be seen.
    pub(crate) clock_history: RefCell<ClockHistory>,
    /// The sequence number of the newest snapshot.
    pub(crate) sequence: Cell<u64>,
    /// The state as it was before this attempt.
    pub(crate) before: State,
    pub(crate) list: SnapshotList,
    /// What the client says in the module about its backup.
    pub(crate) completion: ClientCompletion,
    /// Whether a comparison has read every directory, instead of trusting the index.
    pub(crate) is_full: Cell<bool>,
    /// Keeps the gate closed until the live tree has been read; `None` after that.
    pub(crate) gate: Cell<Option<Gate>>,
    /// Whether the new snapshot has a name that is not durable yet.
    pub(crate) has_unsynced_name: Cell<bool>,
    /// `records`, once a record has been replaced that is not durable yet.
    pub(crate) unsynced_records: Cell<Option<OwnedDir>>,
    /// The pushes that were running when the gate was closed.
    pub(crate) running: RunningPushes,
    /// The files that pushes changed in place. `None` if no push has rewritten files since the last
    /// run.
    pub(crate) in_place: Option<InPlaceChanges>,
    /// The module as it was at one instant, once the method has made that.
    pub(crate) frozen: OnceCell<FrozenModule>,
}

/// The module as it was at one instant, and what was known then.
pub(crate) struct FrozenModule {
    pub(crate) tree: FrozenTree,
    /// The state just after that instant, when no push had begun since.
    pub(crate) state: State,
    /// What the client said in the module.
    pub(crate) completion: ClientCompletion,
}

impl SnapshotAttempt<'_> {
    /// Makes the snapshot's name and the replaced record durable.
    pub(crate) fn sync_names(&self) -> Result<()> {
        if let Some(records) = self.unsynced_records.take() {
            dir::sync(records.dir())?;
        }
        let root = self.session.root;
        match self.has_unsynced_name.take() {
            true => dir::sync(root.snapshots()),
            false => Ok(()),
        }
    }
}

/// What was seen of the live tree.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) newest_ctime_ns: i64,
    pub(crate) unfinished: Vec<UnfinishedDirectory>,
    /// When the observation ended, by the wall clock.
    pub(crate) ended: DateTime<Utc>,
    /// Whether any later change is sure to get a later change time than every file that was seen.
    pub(crate) is_settled: bool,
    /// When the observation of the last run began, if the tree has not changed since.
    pub(crate) unchanged_since: Option<BootTime>,
    pub(crate) differs_from_complete: Option<bool>,
    pub(crate) differs_from_newest: Option<bool>,
}
