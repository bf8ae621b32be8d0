//! The part of a pass that makes a snapshot: a free name, a clone, its record, its publication.

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
use crate::run::verify::refresh::record_missing;
use crate::store::dir::c_name;
use crate::store::layout::Subdir;
use crate::store::pin::Pin;
use crate::store::publish::StagedSnapshot;
use crate::store::record::{PartialDirsRecord, Record};
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::system::syscalls::stat_entry;
use crate::tell::error::{Error, Result};

impl SnapshotAttempt<'_> {
    /// Makes the snapshot that the verdict asks for; without a scan it is the first one.
    pub(crate) fn publish(
        &self,
        sight: &Observation,
        verdict: TransferVerdict,
        scan: Option<&TreeScan>,
        report: &mut Report,
    ) -> Result<()> {
        let grade = verdict.snapshot.unwrap_or(Grade::Partial);
        let compared = self.began.elapsed();
        let time = wait_for_free_second(self.root, self.clock, self.now)?;
        let cloning = Instant::now();
        self.correct_verified_until()?;
        let anomaly = if grade == Grade::Complete { self.anomaly(scan) } else { None };
        let recycle = if anomaly.is_none() { self.recyclable(report)? } else { None };
        let index = scan.and_then(|scan| scan.index.as_ref());
        let partial_dirs = &self.target.policy.partial_dirs;
        let entries = scan.map(|scan| scan.comparison.fingerprint.entries);
        let staged =
            StagedSnapshot::build(self.root, recycle.as_deref(), index, entries, partial_dirs)?;
        drop(self.gate.take());
        if let Some(changes) = &self.in_place {
            staged.record_in_place(self.root, changes);
        }
        if let (Some(retired), Some(error)) = (&recycle, &staged.refusal) {
            let message =
                format!("{retired} cannot be recycled, the snapshot was made afresh: {error}");
            report.warn(&self.target.label(), message);
        }
        let verdict = self.judge_after_clone(sight, verdict)?;
        let grade = verdict.snapshot.unwrap_or(Grade::Partial);
        let name = SnapshotName::new(time, grade).text;
        let has_earlier = self.catalog.newest(grade, self.now).is_some();
        let mut comparison = scan.map(|scan| scan.comparison).unwrap_or_default();
        if !has_earlier {
            comparison =
                Comparison { added: staged.cloned.entries, changed: 0, removed: 0, ..comparison };
        }
        let sequence = self.sequence.get() + 1;
        let record = Record {
            sequence: Some(sequence),
            taken_at: Some(self.boot_time(time)),
            status: self.request.status,
            client: self.request.client.clone(),
            because: Some(verdict.because.clone()),
            duration_seconds: ((compared + cloning.elapsed()).as_secs_f64() * 1_000.0).round()
                / 1_000.0,
            partial_dirs: Some(PartialDirsRecord::of(partial_dirs, &staged.cloned)),
            ..staged.record(time, grade, &comparison)
        };
        self.warn_of_losses(&record, report);
        self.warn_of_users();
        if let Some(anomaly) = anomaly {
            self.pause_for(anomaly)?;
        }
        let begins_inode_log = staged.begins_inode_log() && !self.catalog.items.is_empty();
        if let Some(error) = staged.publish(self.root, &name, &record)? {
            report.warn(
                &self.target.label(),
                format!("`verify` will not know the new files of {name}: {error}"),
            );
        }
        self.sequence.set(sequence);
        log::info!(
            "{}: published {name} ({grade}, {}): {} entries, {} added, {} changed, {} removed; {}; {} s",
            self.target.label(),
            verdict.because,
            record.entries,
            record.added,
            record.changed,
            record.removed,
            record.work.as_ref().map(ToString::to_string).unwrap_or_default(),
            record.duration_seconds,
        );
        if begins_inode_log {
            self.complete_inode_log(&name, report);
        }
        if self.target.policy.content_hashes {
            report.unhashed.push(name.clone());
        }
        report.ending = Ending::Published;
        report.snapshot = Some(name);
        self.remember(sight, &verdict)
    }

    /// What the boot clock showed at `time`, shortly after the pass began. It is not read again:
    /// between two readings the wall clock may be set.
    fn boot_time(&self, time: DateTime<Utc>) -> BootTime {
        let ClockReading { boot, uptime_seconds, .. } = self.reading.clone();
        let seconds = uptime_seconds.saturating_add((time - self.now).num_seconds());
        BootTime { boot, nanoseconds: seconds.saturating_mul(1_000_000_000) }
    }

    /// Where the inode log begins with a snapshot that is not the first, most of its inodes are not
    /// new. It is on disk by now, and no client waits.
    fn complete_inode_log(&self, name: &str, report: &mut Report) {
        let label = self.target.label();
        match record_missing(self.root, name) {
            Ok(inodes) => log::info!(
                "{label}: the inode log, by which `verify` finds altered files, begins: {inodes} that {name} shares with earlier snapshots are recorded as they are"
            ),
            Err(error) => {
                report.warn(&label, format!("`verify` will not know all files of {name}: {error}"))
            }
        }
    }

    /// The retired snapshot to make this one from. While expiry is paused none is used up: it may
    /// be what a user will want to have back.
    fn recyclable(&self, report: &Report) -> Result<Option<String>> {
        let policy = &self.target.policy;
        let is_paused = || {
            let history = self.before.history(Some(self.reading.clone()));
            decide(&self.catalog.snapshots(), &history, policy, self.now).pause.is_some()
        };
        match report.policy_trouble || is_paused() {
            true => Ok(None),
            false => retire::recyclable(self.root, policy.grace, self.now),
        }
    }

    /// The pause to begin if most of the tree has changed since the snapshot before.
    fn anomaly(&self, scan: Option<&TreeScan>) -> Option<Anomaly> {
        let before = self.catalog.newest(Grade::Complete, self.now)?;
        let Comparison { added, changed, removed, fingerprint, .. } = scan?.comparison;
        let entries = fingerprint.entries.saturating_add(removed).saturating_sub(added);
        let change = TreeChange { before: entries, changed, removed };
        let is_anomalous = change.is_anomalous(self.target.policy.anomaly_share);
        is_anomalous.then(|| Anomaly::new(self.now, &before.name.text, change))
    }

    /// Pins the snapshot before this one and pauses expiry. That is on disk before this one is
    /// visible: a run that is killed in between has paused expiry for nothing. Where a pause stands
    /// already, nothing expires, so no further snapshot has to be pinned.
    fn pause_for(&self, anomaly: Anomaly) -> Result<()> {
        let label = self.target.label();
        let mut standing = None;
        State::update(self.root.private(), |state| match &state.anomaly {
            Some(earlier) => standing = Some(earlier.clone()),
            None => {
                state
                    .pins
                    .entry(anomaly.before.clone())
                    .or_insert_with(|| Pin::of_anomaly(&anomaly));
                state.anomaly = Some(anomaly.clone());
            }
        })?;
        // Rotation, which comes next, warns of the pause that stands.
        match standing {
            None => log::error!("{label}: {anomaly}"),
            Some(earlier) => log::error!(
                "{label}: another push changed {} and removed {} of {} entries; nothing expires since {}",
                anomaly.changed,
                anomaly.removed,
                anomaly.entries,
                earlier.since.format("%FT%TZ"),
            ),
        }
        Ok(())
    }

    /// A push that failed, or a backup that began, while the tree was copied makes partial what
    /// would have been complete.
    fn judge_after_clone(
        &self,
        sight: &Observation,
        verdict: TransferVerdict,
    ) -> Result<TransferVerdict> {
        if verdict.snapshot != Some(Grade::Complete) {
            return Ok(verdict);
        }
        let state = State::read(self.root.private())?;
        let again = self.judge_again(sight, &state);
        if again.snapshot == Some(Grade::Complete) {
            return Ok(verdict);
        }
        let what = match again.because {
            TransferReason::ClientUnfinished | TransferReason::ClientPartial => "a backup began",
            _ => "a transfer failed",
        };
        log::warn!(
            "{}: {what} meanwhile; the snapshot is partial: {}",
            self.target.label(),
            again.because
        );
        Ok(TransferVerdict { snapshot: Some(Grade::Partial), ..again })
    }

    /// In the log alone: `check` looks by itself, and so sees when it is mended.
    fn warn_of_users(&self) {
        if self.target.policy.open_root {
            return;
        }
        match self.root.open_to_users() {
            Ok(None) => {}
            Ok(Some(message)) => log::warn!("{}: {message}", self.target.label()),
            Err(error) => log::warn!("{}: {error}", self.target.label()),
        }
    }

    fn warn_of_losses(&self, record: &Record, report: &mut Report) {
        let label = self.target.label();
        for loss in losses::lasting(record) {
            report.warn_of_loss(&label, loss);
        }
        if let Some(message) = losses::copies(record, &self.target.policy.partial_dirs) {
            report.warn(&label, message);
        }
    }
}

/// The second that names the next snapshot: the first from `time` on whose names are free, here and
/// among the retired.
pub(crate) fn wait_for_free_second(
    root: &SnapshotRoot,
    clock: &Clock,
    mut time: DateTime<Utc>,
) -> Result<DateTime<Utc>> {
    let expired = root.subdir(Subdir::Expired)?;
    loop {
        let names = [Grade::Complete, Grade::Partial]
            .map(|grade| c_name(&SnapshotName::new(time, grade).text));
        let places = [root.directory(), expired.dir().directory];
        let mut lookups =
            places.iter().flat_map(|place| names.iter().map(|name| stat_entry(*place, name)));
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
