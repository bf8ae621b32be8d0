//! The part of a run that makes a snapshot: a free name, a clone, its record, its publication.
//!
//! When the clone is finished, its grade is decided once more: a push that failed meanwhile makes
//! it partial. If most of the tree has changed, the program pins the previous snapshot and pauses
//! expiry; both are on disk before the new snapshot is visible.

use std::time::Instant;

use chrono::{DateTime, Utc};
use nix::errno::Errno;

use crate::decide::anomaly::{Anomaly, TreeChange};
use crate::decide::boot_time::BootTime;
use crate::decide::clock_reading::ClockReading;
use crate::decide::grade::Grade;
use crate::decide::name::SnapshotName;
use crate::decide::rotation::decide;
use crate::decide::transfer_reason::TransferReason;
use crate::decide::transfer_verdict::TransferVerdict;
use crate::engine::compare::Comparison;
use crate::run::attempt::{Observation, SnapshotAttempt};
use crate::run::losses;
use crate::run::report::{Ending, Report};
use crate::run::scan::TreeScan;
use crate::run::session::Session;
use crate::run::verify::refresh::{FoundInodes, record_missing};
use crate::store::dir::{self};
use crate::store::layout::Subdir;
use crate::store::pin::Pin;
use crate::store::publish::{ComparedTree, StagedSnapshot};
use crate::store::record::{PartialDirsRecord, Record};
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf};
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};

impl SnapshotAttempt<'_> {
    /// Makes the snapshot that the verdict asks for. The first snapshot of a root has no scan.
    pub(crate) fn publish(
        &self,
        observation: &Observation,
        verdict: TransferVerdict,
        scan: Option<&TreeScan>,
        report: &mut Report,
    ) -> Result<()> {
        let Session { target, root, clock } = self.session;
        let grade = verdict.snapshot.unwrap_or(Grade::Partial);
        let compared = self.began.elapsed();
        let time = wait_for_free_second(root, clock, self.now)?;
        let cloning = Instant::now();
        self.correct_verified_until()?;
        let anomaly = if grade == Grade::Complete { self.anomaly(scan) } else { None };
        let (staged, unread_directories) = self.clone_live_tree(scan, anomaly.is_none(), report)?;
        let verdict = self.judge_after_clone(observation, verdict)?;
        let grade = verdict.snapshot.unwrap_or(Grade::Partial);
        let name = SnapshotName::new(time, grade).text;
        let comparison = self.comparison(scan, grade, &staged);
        let sequence = self.sequence.get() + 1;
        let seconds = (compared + cloning.elapsed()).as_secs_f64();
        let partial_dirs = &target.policy.partial_dirs;
        let record = Record {
            sequence: Some(sequence),
            taken_at: Some(self.boot_time(time)),
            status: self.request.status,
            client: self.request.client.clone(),
            because: Some(verdict.because.clone()),
            duration_seconds: (seconds * 1_000.0).round() / 1_000.0,
            unread_directories,
            partial_dirs: Some(PartialDirsRecord::of(partial_dirs, &staged.cloned)),
            ..staged.record(time, grade, &comparison)
        };
        self.warn_of_losses(&record, report);
        self.warn_of_open_root(report);
        if let Some(anomaly) = anomaly {
            self.pause_for_anomaly(anomaly)?;
        }
        let begins_inode_log = staged.begins_inode_log() && !self.list.items.is_empty();
        if let Some(error) = staged.publish(root, &name, &record)? {
            report.warn(format!("`verify` will not know the new files of {name}: {error}"));
        }
        self.has_unsynced_name.set(true);
        self.sequence.set(sequence);
        let make_durable = || {
            self.sync_names()?;
            self.log_published(&name, &record, &verdict.because);
            Ok(())
        };
        if begins_inode_log {
            make_durable()?;
            self.complete_inode_log(&name, &record, report);
        }
        if target.policy.content_hashes {
            report.unhashed.push(name.clone());
        }
        report.ending = Ending::Published;
        report.snapshot = Some(name.clone());
        let remembered =
            self.remember(observation, &verdict, Some(&name), || match begins_inode_log {
                true => Ok(()),
                false => make_durable(),
            });
        // An error of the state may have come before the sync of the name.
        if self.has_unsynced_name.get() {
            make_durable()?;
        }
        remembered
    }

    /// Clones the live tree into staging, out of a retired snapshot if `may_recycle`, and opens the
    /// gate. Returns how many directories could not be read for the inode log, too.
    fn clone_live_tree(
        &self,
        scan: Option<&TreeScan>,
        may_recycle: bool,
        report: &mut Report,
    ) -> Result<(StagedSnapshot, u64)> {
        let Session { target, root, .. } = self.session;
        if let Some(frozen) = self.frozen.get() {
            return Ok((StagedSnapshot::of_frozen(root, &frozen.tree)?, 0));
        }
        let recycle = if may_recycle { self.recyclable(report)? } else { None };
        let compared = scan.map_or_else(ComparedTree::default, TreeScan::compared_tree);
        let partial_dirs = &target.policy.partial_dirs;
        let staged = StagedSnapshot::build(root, recycle.as_deref(), compared, partial_dirs)?;
        drop(self.gate.take());
        let changes = self.in_place.as_ref();
        let unread = changes.map_or(0, |changes| staged.record_in_place(root, changes));
        if let (Some(retired), Some(error)) = (&recycle, &staged.refusal) {
            report.warn(format!(
                "{retired} cannot be recycled, the snapshot was made afresh: {error}"
            ));
        }
        Ok((staged, unread))
    }

    /// The comparison for the record. In the first snapshot of its grade, every entry is an added
    /// one.
    fn comparison(
        &self,
        scan: Option<&TreeScan>,
        grade: Grade,
        staged: &StagedSnapshot,
    ) -> Comparison {
        let comparison = scan.map(|scan| scan.comparison).unwrap_or_default();
        match self.list.newest(grade, self.now) {
            Some(_) => comparison,
            None => {
                Comparison { added: staged.cloned.entries, changed: 0, removed: 0, ..comparison }
            }
        }
    }

    fn log_published(&self, name: &str, record: &Record, because: &TransferReason) {
        log::info!(
            "{}: published {name} ({}, {because}): {} entries, {} added, {} changed, {} removed; \
             {}; {} s",
            self.session.label(),
            record.grade,
            record.entries,
            record.added,
            record.changed,
            record.removed,
            record
                .work
                .as_ref()
                .map_or_else(|| self.session.root.method().text(), ToString::to_string),
            record.duration_seconds,
        );
    }

    /// What the boot clock showed at `time`, computed from the reading of this attempt. A second
    /// reading would be wrong if the wall clock was set in between.
    fn boot_time(&self, time: DateTime<Utc>) -> BootTime {
        let ClockReading { boot, uptime_seconds, .. } = self.reading.clone();
        let seconds = uptime_seconds.saturating_add((time - self.now).num_seconds());
        BootTime::from_seconds(boot, seconds)
    }

    /// Records the inodes that `name` shares with earlier snapshots. That is needed once, if the
    /// root has older snapshots but no inode log yet. By now the snapshot is on disk, and no client
    /// waits.
    fn complete_inode_log(&self, name: &str, record: &Record, report: &mut Report) {
        let label = self.session.label();
        match record_missing(self.session.root, name) {
            Ok(FoundInodes { recorded, unreadable_directories }) => {
                log::info!(
                    "{label}: the inode log, by which `verify` finds altered files, begins: \
                     {recorded} inodes that {name} shares with earlier snapshots are recorded as \
                     they are"
                );
                if unreadable_directories > 0 {
                    let record =
                        Record { unread_directories: unreadable_directories, ..record.clone() };
                    losses::unread(&record)
                        .into_iter()
                        .for_each(|loss| report.warn_of_standing(loss));
                    let noted = self.session.root.subdir(Subdir::Records).and_then(|records| {
                        record.write_before_sync(records.dir(), name)?;
                        dir::sync(records.dir())
                    });
                    noted.err().into_iter().for_each(|error| report.warn(error.to_string()));
                }
            }
            Err(error) => {
                report.warn(format!("`verify` will not know all files of {name}: {error}"))
            }
        }
    }

    /// The retired snapshot to make this one from. `None` while expiry is paused, because the
    /// administrator may want to bring back a retired snapshot.
    fn recyclable(&self, report: &Report) -> Result<Option<String>> {
        let policy = &self.session.target.policy;
        let is_paused = || {
            let history = self.before.history(Some(self.reading.clone()));
            decide(&self.list.snapshots(), &history, policy, self.now).pause.is_some()
        };
        match report.policy_trouble || is_paused() {
            true => Ok(None),
            false => retire::recyclable(self.session.root, policy.grace(), self.now),
        }
    }

    /// The anomaly if most of the tree has changed since the newest complete snapshot.
    fn anomaly(&self, scan: Option<&TreeScan>) -> Option<Anomaly> {
        let before = self.list.newest(Grade::Complete, self.now)?;
        let Comparison { added, changed, removed, fingerprint, .. } = scan?.comparison;
        let entries = fingerprint.entries.saturating_add(removed).saturating_sub(added);
        let change = TreeChange { before: entries, changed, removed };
        let is_anomalous = change.is_anomalous(self.session.target.policy.anomaly_share);
        is_anomalous.then(|| Anomaly::new(self.now, &before.name.text, change))
    }

    /// Pins the previous snapshot and pauses expiry. If the run is killed before the new snapshot
    /// is visible, the pause was not needed, but does no harm. While expiry is paused already, no
    /// further snapshot has to be pinned.
    fn pause_for_anomaly(&self, anomaly: Anomaly) -> Result<()> {
        let label = self.session.target.label();
        let mut standing = None;
        State::update(self.session.root.private(), |state| match &state.anomaly {
            Some(earlier) => standing = Some(earlier.clone()),
            None => {
                state
                    .pins
                    .entry(anomaly.before.clone())
                    .or_insert_with(|| Pin::of_anomaly(&anomaly));
                state.anomaly = Some(anomaly.clone());
            }
        })?;
        // The rotation that follows warns of the pause.
        match standing {
            None => log::error!("{label}: {anomaly}"),
            Some(earlier) => log::error!(
                "{label}: another push changed {} and removed {} of {} entries; nothing expires \
                 since {}",
                anomaly.changed,
                anomaly.removed,
                anomaly.entries,
                earlier.since.format("%FT%TZ"),
            ),
        }
        Ok(())
    }

    /// Makes a complete snapshot partial if a push failed or a backup began while the tree was
    /// cloned.
    fn judge_after_clone(
        &self,
        sight: &Observation,
        verdict: TransferVerdict,
    ) -> Result<TransferVerdict> {
        if verdict.snapshot != Some(Grade::Complete) {
            return Ok(verdict);
        }
        let state = match self.frozen.get() {
            Some(frozen) => frozen.state.clone(),
            None => State::read(self.session.root.private())?,
        };
        let verdict = verdict.after_clone(self.judge_again(sight, &state));
        if verdict.snapshot == Some(Grade::Complete) {
            return Ok(verdict);
        }
        let what = match verdict.because {
            TransferReason::ClientUnfinished | TransferReason::ClientPartial => "a backup began",
            _ => "a transfer failed",
        };
        log::warn!(
            "{}: {what} meanwhile; the snapshot is partial: {}",
            self.session.target.label(),
            verdict.because
        );
        Ok(verdict)
    }

    /// Warns in the log if users may change snapshots. That warning is not remembered, because
    /// `check` looks at the root itself.
    fn warn_of_open_root(&self, report: &mut Report) {
        if self.session.target.policy.open_root {
            return;
        }
        match self.session.root.open_to_users() {
            Ok(None) => {}
            Ok(Some(message)) => log::warn!("{}: {message}", self.session.target.label()),
            Err(error) => report.warn(error.to_string()),
        }
    }

    fn warn_of_losses(&self, record: &Record, report: &mut Report) {
        for loss in losses::of_record(record) {
            report.warn_of_standing(loss);
        }
        for (_, message) in losses::copies(record, &self.session.target.policy.partial_dirs) {
            report.warn_of_standing(message);
        }
    }
}

/// Waits for the second that names the next snapshot, and returns it. It is the first second from
/// `time` on that no visible or retired snapshot is named by.
pub(crate) fn wait_for_free_second(
    root: &SnapshotRoot,
    clock: &Clock,
    mut time: DateTime<Utc>,
) -> Result<DateTime<Utc>> {
    let expired = OpenShelf::open(root, Shelf::Expired)?;
    loop {
        let names =
            [Grade::Complete, Grade::Partial].map(|grade| SnapshotName::new(time, grade).text);
        let slots = names.iter().flat_map(|name| [root.visible(name), expired.slot(name)]);
        let mut lookups = slots.map(|slot| slot.look());
        match lookups.find(|lookup| !matches!(lookup, Err(Errno::ENOENT))) {
            None => return Ok(time),
            Some(Err(cause)) => {
                return Err(Error::io("look for a free name in", &root.path, cause));
            }
            Some(Ok(_)) => clock.wait_for_next_second(),
        }
        time = clock.now();
    }
}
