//! What one run leaves for the next: `state.toml`.
//!
//! Runs that do not hold the long lock write some of it: a failed transfer marks the root torn at
//! once, and a run that gave up waiting marks it due. So each change is made under a short lock on
//! `.rsyncd-snapshot` itself, held for milliseconds. The holder of the long lock releases it under
//! this short lock, after it has read the due mark, so no mark is missed in between.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::anomaly::Anomaly;
use crate::decide::boot_time::BootTime;
use crate::decide::clock_history::ClockHistory;
use crate::decide::clock_jump::ClockJump;
use crate::decide::clock_reading::ClockReading;
use crate::decide::damage::Damage;
use crate::decide::fingerprint::Fingerprint;
use crate::decide::grade::Grade;
use crate::decide::push_history::PushHistory;
use crate::decide::pushes_without_snapshot::PushesWithoutSnapshot;
use crate::decide::snapshot_verdict::RotationHistory;
use crate::decide::torn_mark::TornMark;
use crate::decide::verdict_facts::{Asked, Due, DueReason};
use crate::store::dir::{self, Dir};
use crate::store::format::{FORMAT, ParsedTexts, to_toml};
use crate::store::layout::{DAMAGED_STATE_FILE, PINS_FILE, STATE_FILE};
use crate::store::lock::DirLock;
use crate::store::pin::Pins;
use crate::store::pins_file::PinCopy;
use crate::store::state_file::{exists, has_history, set_aside};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// The state of a snapshot root between runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Format number, at most [`FORMAT`].
    pub format: u32,
    /// The policy file that the root has once been run with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_file: Option<String>,
    /// An earlier state was lost; nothing expires until the administrator confirms.
    #[serde(default)]
    pub state_lost: bool,
    /// `records` was missing and was made anew; the administrator has not confirmed that yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_lost: Option<DateTime<Utc>>,
    /// The last run that scanned the module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// The module is a mixture of two states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn: Option<TornMark>,
    /// A snapshot is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<DueMark>,
    /// Since when snapshots are left to pushes that are still running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deferred_since: Option<DateTime<Utc>>,
    /// A push wrote into files in place, and no run has compared the tree since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub written_in_place: bool,
    /// Pushes in a row that brought no complete snapshot.
    #[serde(rename = "shortfall", default, skip_serializing_if = "Option::is_none")]
    pub pushes_without_snapshot: Option<PushesWithoutSnapshot>,
    /// The last pushes of each client.
    #[serde(default, skip_serializing_if = "is_new")]
    pub pushes: PushHistory,
    /// When the module was last compared as a whole, without trusting an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_comparison: Option<DateTime<Utc>>,
    /// Expiry is paused since the clock stepped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_jump: Option<ClockJump>,
    /// The sequence number of the newest snapshot.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: u64,
    /// What runs found out about the clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockHistory>,
    /// The administrator has confirmed snapshots with wrong dates up to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed_future: Option<DateTime<Utc>>,
    /// Expiry is paused since a push changed most of the tree.
    #[serde(rename = "brake", skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<Anomaly>,
    /// Expiry is paused since files in snapshots were found altered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<Damage>,
    /// The size of the inode log when entries of files that are gone were last dropped from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "catalogue_bytes")]
    pub inode_log_bytes: Option<u64>,
    /// Whether pre-xfer runs for the module: it has entered a transfer in the ledger.
    #[serde(default, rename = "paired", skip_serializing_if = "std::ops::Not::not")]
    pub has_pre_xfer: bool,
    /// The rules that the last rotation went by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
    /// The pins, by snapshot.
    #[serde(default, skip_serializing_if = "Pins::is_empty")]
    pub pins: Pins,
    /// Since when the snapshots in `expired/` are retired.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retired: BTreeMap<String, DateTime<Utc>>,
}

static KNOWN: ParsedTexts<State> = ParsedTexts::new(1, 32 << 10);

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_new(pushes: &PushHistory) -> bool {
    *pushes == PushHistory::default()
}

/// The last run that scanned the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastRun {
    /// When, by the wall clock.
    pub time: DateTime<Utc>,
    /// When its scan began, by the boot clock.
    pub scan_began: BootTime,
    /// The best grade of a snapshot that holds the tree of that moment; none if no snapshot does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered: Option<Grade>,
    /// A fingerprint of the tree at that moment; none if a later change might not alter it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
}

/// The mark that a snapshot is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DueMark {
    /// When the root was first marked due; later marks keep this time.
    pub since: DateTime<Utc>,
    /// When it was last marked, by the boot clock.
    pub marked: BootTime,
    /// Who asked for the snapshot.
    pub asked: Asked,
    pub reason: DueReason,
}

impl DueMark {
    /// A due mark for `reason`. If there is an `existing` mark, the new one keeps its `since`, and
    /// keeps its `asked` if that is for a better snapshot.
    pub fn merged_with(
        existing: Option<&DueMark>,
        asked: Asked,
        reason: DueReason,
        now: DateTime<Utc>,
    ) -> Self {
        DueMark {
            since: existing.map_or(now, |mark| mark.since),
            marked: BootTime::now(),
            asked: asked.max(existing.map_or(Asked::FailedTransfer, |mark| mark.asked)),
            reason,
        }
    }

    /// The facts about this mark for a run that began to read the tree at `scan_began`.
    pub fn facts_for_run(&self, scan_began: &BootTime) -> Due {
        Due {
            asked: self.asked,
            reason: self.reason,
            is_of_earlier_boot: !self.marked.is_of_this_boot(),
            is_newer_than_look: self.marked.is_after(scan_began),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        State {
            format: FORMAT,
            policy_file: None,
            state_lost: false,
            records_lost: None,
            last_run: None,
            torn: None,
            due: None,
            deferred_since: None,
            written_in_place: false,
            pushes_without_snapshot: None,
            pushes: PushHistory::default(),
            full_comparison: None,
            clock_jump: None,
            sequence: 0,
            clock: None,
            confirmed_future: None,
            anomaly: None,
            damage: None,
            inode_log_bytes: None,
            has_pre_xfer: false,
            rules: None,
            pins: Pins::new(),
            retired: BTreeMap::new(),
        }
    }
}

impl State {
    /// What rotation needs to know of the state. `reading` is `None` if rotation decides for
    /// another time than the present.
    pub fn history(&self, reading: Option<ClockReading>) -> RotationHistory {
        let clock = self.clock_history();
        RotationHistory {
            clock: if reading.is_some() { clock } else { clock.without_doubt() },
            reading,
            sequence: self.sequence,
            last_run: self.last_run.as_ref().map(|run| run.time),
            clock_jump: self.clock_jump.clone(),
            state_lost: self.state_lost,
            confirmed_future: self.confirmed_future,
            anomaly: self.anomaly.clone(),
            damage: self.damage.clone(),
            rules: self.rules.clone(),
        }
    }

    /// Ends the pause and removes the pins that the large-change guard set. The administrator's
    /// pins stay. Returns the names that are no longer pinned; `None` if there was neither such a
    /// pause nor such a pin.
    pub fn release_anomaly(&mut self) -> Option<Vec<String>> {
        let anomaly = self.anomaly.take();
        let unpinned: Vec<String> = self
            .pins
            .iter()
            .filter(|(_, pin)| pin.is_of_anomaly())
            .map(|(name, _)| name.clone())
            .collect();
        self.pins.retain(|_, pin| !pin.is_of_anomaly());
        (anomaly.is_some() || !unpinned.is_empty()).then_some(unpinned)
    }

    /// What is known of the clock. In a state of an older version, that is the time of the last
    /// run, by both clocks.
    pub fn clock_history(&self) -> ClockHistory {
        let by_last_run = || {
            let LastRun { time, scan_began, .. } = self.last_run.as_ref()?;
            let uptime_seconds = scan_began.nanoseconds / 1_000_000_000;
            let reading =
                ClockReading { time: *time, boot: scan_began.boot.clone(), uptime_seconds };
            Some(ClockHistory::begin(&reading, self.sequence))
        };
        self.clock.clone().or_else(by_last_run).unwrap_or_default()
    }

    /// Reads the state without changing anything. If the file is missing, the state is new if no
    /// snapshot was ever recorded here, and lost otherwise.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it cannot be understood, [`Error::Newer`] if a newer version wrote it.
    pub fn read(private: Dir) -> Result<Self> {
        let Some(text) = dir::read(private, STATE_FILE)? else {
            return match has_history(private)? {
                true => State::worst(private),
                false => Ok(State::default()),
            };
        };
        KNOWN.read(&private.path.join(STATE_FILE), &text)
    }

    /// Changes the state under its lock, durably if `change` changed anything, and returns it.
    ///
    /// If the state cannot be understood, a copy of the file is kept, and the worst is assumed: the
    /// module is torn, and nothing expires until the administrator confirms.
    pub fn update(private: Dir, change: impl FnOnce(&mut State)) -> Result<Self> {
        let guard = DirLock::on_directory(private)?;
        let (state, ()) = State::update_guarded(private, &guard, change)?;
        Ok(state)
    }

    /// [`State::update`] for a caller that holds the state's lock already.
    pub fn update_guarded<T>(
        private: Dir,
        guard: &DirLock,
        change: impl FnOnce(&mut State) -> T,
    ) -> Result<(Self, T)> {
        State::update_guarded_after(private, guard, change, || Ok(()))
    }

    /// [`State::update`] with a state that is true only once `first` has made other files durable.
    /// The new state is on disk, though not visible, before that, so that one sync of the disk
    /// serves both. After an error, `first` may not have been called.
    pub fn update_after(
        private: Dir,
        change: impl FnOnce(&mut State),
        first: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let guard = DirLock::on_directory(private)?;
        State::update_guarded_after(private, &guard, change, first).map(drop)
    }

    fn update_guarded_after<T>(
        private: Dir,
        _: &DirLock,
        change: impl FnOnce(&mut State) -> T,
        first: impl FnOnce() -> Result<()>,
    ) -> Result<(Self, T)> {
        let (before, mut rewrite) = match State::read(private) {
            Ok(state) => {
                let is_missing = !exists(private, STATE_FILE)?;
                if is_missing && state.state_lost {
                    log::error!(
                        "{} is missing although snapshots were made; nothing expires until \
                         `rotate --confirm`",
                        escape_path(&private.path.join(STATE_FILE))
                    );
                }
                // A missing state is written even if nothing changed. So the first state exists
                // before the first record, and a later run can tell a lost state from a new one.
                (state, is_missing)
            }
            Err(Error::Damaged { path, problem }) => {
                log::error!(
                    "{path}: {problem}; it is set aside as {DAMAGED_STATE_FILE}, and nothing \
                     expires until `rotate --confirm`"
                );
                set_aside(private)?;
                (State::worst(private)?, true)
            }
            Err(error) => return Err(error),
        };
        let mut state = before.clone();
        let result = change(&mut state);
        rewrite |= state != before;
        let has_pins = !(before.pins.is_empty() && state.pins.is_empty());
        if has_pins && (state.pins != before.pins || rewrite && !exists(private, PINS_FILE)?) {
            let copy = PinCopy { format: FORMAT, pins: state.pins.clone() };
            dir::write_drafted(private, PINS_FILE, &to_toml(&copy, private)?)?;
        }
        if rewrite {
            let text = to_toml(&state, private)?;
            dir::write_drafted_after(private, STATE_FILE, &text, first)?;
        } else {
            first()?;
        }
        Ok((state, result))
    }

    /// The worst that a lost state may have said.
    fn worst(private: Dir) -> Result<Self> {
        let torn = TornMark::new(Utc::now(), -1, BootTime::now(), None);
        Ok(State {
            state_lost: true,
            torn: Some(torn),
            // It is unknown if a push wrote in place, so the next run compares the files with the
            // inode log.
            written_in_place: true,
            pins: PinCopy::read(private)?,
            ..State::default()
        })
    }
}
