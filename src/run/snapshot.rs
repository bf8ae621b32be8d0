//! One snapshot, or the proof that none is needed; under the lock.

use std::time::Instant;

use chrono::{DateTime, Utc};

use super::{Ending, Report, Request, due_mark};
use crate::clock::Clock;
use crate::config::target::Target;
use crate::decide::clock_guard::clock_jump;
use crate::decide::grade::{Grade, Occasion, Outcome, Torn, outcome};
use crate::decide::name::SnapshotName;
use crate::store::boot::BootTime;
use crate::store::catalog::{Catalog, Item};
use crate::store::publish::{Staged, clean_up, discard_staging};
use crate::store::record::Record;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueReason, LastRun, State, TornMark};
use crate::tell::error::Result;
use crate::tree::compare::{Comparison, Known, compare_trees};
use crate::tree::syscalls::open_directory;

/// One pass over the module.
struct Pass<'a> {
    target: &'a Target,
    root: &'a SnapshotRoot,
    request: &'a Request,
    clock: &'a Clock,
    began: Instant,
    scan_began: BootTime,
    now: DateTime<Utc>,
    before: State,
    catalog: Catalog,
}

/// Cleans up after earlier runs, compares, publishes what the request earns, and remembers it.
pub(super) fn snapshot(
    target: &Target,
    root: &SnapshotRoot,
    request: &Request,
    clock: &Clock,
) -> Result<Report> {
    let mut report = Report::new(Ending::Unchanged);
    report.policy_trouble = !target.trouble.is_empty();
    let before = State::update(root.private(), |_| ())?;
    let catalog = Catalog::read(root, &target.policy.time_zone)?;
    finish_earlier_work(target, root, &catalog, &mut report)?;
    let now = clock.now();
    let scan_began = BootTime::now();
    let pass = Pass { target, root, request, clock, began: Instant::now(), scan_began, now, before, catalog };
    // What could not be finished takes space that the next transfer may need.
    pass.run(&mut report).inspect_err(|_| discard_staging(root))?;
    Ok(report)
}

/// Removes what killed runs left: staging, temporary files, retired snapshots.
fn finish_earlier_work(
    target: &Target,
    root: &SnapshotRoot,
    catalog: &Catalog,
    report: &mut Report,
) -> Result<()> {
    for warning in &catalog.warnings {
        report.warn(&target.label(), warning.clone());
    }
    // While the policy cannot be used nothing is deleted, be it retired long ago.
    let removed = if target.trouble.is_empty() { retire::remove_retired(root)? } else { Default::default() };
    for error in &removed.errors {
        report.warn(&target.label(), format!("a retired snapshot remains: {error}"));
    }
    let visible: Vec<String> = catalog.items.iter().map(|item| item.name.text.clone()).collect();
    let (found, errors) = clean_up(root, &visible, &retire::retired(root)?);
    for error in errors {
        report.warn(&target.label(), error.to_string());
    }
    if found || removed.trees > 0 {
        log::info!("{}: cleaned up after a run that did not finish", target.label());
    }
    Ok(())
}

impl Pass<'_> {
    fn run(&self, report: &mut Report) -> Result<()> {
        let newest = self.catalog.newest(Grade::Complete, self.now);
        let comparison = self.compare(newest)?;
        let torn = self.torn(&comparison);
        self.tell_scan(&comparison);
        match outcome(self.request.occasion, torn) {
            Outcome::Failed => {
                report.ending = Ending::FailedTransfer;
                self.remember(None, Some(&comparison))
            }
            Outcome::StillTorn => self.stay_torn(newest, &comparison, report),
            Outcome::Snapshot(Grade::Complete) => match newest {
                Some(newest) if !comparison.differs() => self.verify(newest, report),
                Some(newest) if self.is_too_soon(newest) => self.put_off(report),
                _ => self.publish(Grade::Complete, &comparison, report),
            },
            Outcome::Snapshot(Grade::Partial) => self.publish_partial(comparison, newest, report),
        }
    }

    fn compare(&self, item: Option<&Item>) -> Result<Comparison> {
        let live = (self.root.module(), self.root.module_path.as_path());
        let Some(item) = item else { return compare_trees(live, None, &Known::default()) };
        let path = self.root.path.join(&item.name.text);
        let name = crate::store::durable::c_name(&item.name.text);
        let directory = open_directory(self.root.directory(), &name)
            .map_err(|cause| crate::tell::error::Error::io("open the snapshot", &path, cause))?;
        let known = item.record.as_ref().map(Record::known).unwrap_or_default();
        let snapshot = (std::os::fd::AsFd::as_fd(&directory), path.as_path());
        compare_trees(live, Some(snapshot), &known)
    }

    fn tell_scan(&self, comparison: &Comparison) {
        log::debug!(
            "{}: {} entries in {} directories; {} added, {} changed, {} removed; decided {:.3} ms after the start",
            self.target.label(),
            comparison.fingerprint.entries,
            comparison.fingerprint.directories,
            comparison.added,
            comparison.changed,
            comparison.removed,
            BootTime::now().milliseconds_since(&self.request.started),
        );
    }

    fn torn(&self, comparison: &Comparison) -> Torn {
        let Some(mark) = &self.before.torn else { return Torn::No };
        let changed = match &mark.fingerprint {
            Some(fingerprint) => *fingerprint != comparison.fingerprint,
            // The hook that set the mark never came to scan: what changed since then shows in the
            // kernel's change times.
            None => Some(comparison.newest_ctime_ns) > mark.since.timestamp_nanos_opt(),
        };
        if changed { Torn::Changed } else { Torn::Unchanged }
    }

    /// Nothing new is safe to publish; but a tree that equals the newest complete snapshot keeps that one current.
    fn stay_torn(&self, newest: Option<&Item>, comparison: &Comparison, report: &mut Report) -> Result<()> {
        log::info!("{}: still torn and not changed since; no snapshot", self.target.label());
        if let Some(newest) = newest.filter(|_| !comparison.differs()) {
            self.move_verified_until(newest)?;
        }
        report.ending = Ending::Torn;
        self.remember(None, Some(comparison))
    }

    fn verify(&self, newest: &Item, report: &mut Report) -> Result<()> {
        self.move_verified_until(newest)?;
        log::info!("{}: nothing changed since {}", self.target.label(), newest.name.text);
        report.ending = Ending::Unchanged;
        report.snapshot = Some(newest.name.text.clone());
        self.remember(Some(Grade::Complete), None)
    }

    fn move_verified_until(&self, item: &Item) -> Result<()> {
        let adopted = || Record::adopted(item.name.time, item.name.grade);
        let mut record = item.record.clone().unwrap_or_else(adopted);
        if record.verified_until >= self.now {
            return Ok(());
        }
        record.verified_until = self.now;
        record.write(self.root.room("records")?.place(), &item.name.text)
    }

    fn is_too_soon(&self, newest: &Item) -> bool {
        let is_transfer = matches!(self.request.occasion, Occasion::Transfer(_));
        let since_newest = self.now - newest.name.time;
        (is_transfer || self.request.only_if_due) && since_newest < self.target.policy.min_interval.delta()
    }

    fn put_off(&self, report: &mut Report) -> Result<()> {
        let interval = self.target.policy.min_interval;
        log::info!("{}: sooner than min_interval {interval}; marked due", self.target.label());
        let mark = due_mark(self.request, DueReason::MinInterval, self.now);
        State::update(self.root.private(), |state| {
            state.last_run = Some(self.last_run(None));
            state.due = state.due.take().or(mark);
        })?;
        report.ending = Ending::TooSoon;
        Ok(())
    }

    /// A partial snapshot, unless the newest one of any grade shows the same.
    fn publish_partial(
        &self,
        comparison: Comparison,
        newest: Option<&Item>,
        report: &mut Report,
    ) -> Result<()> {
        let newest_of_all = self.catalog.newest(Grade::Partial, self.now);
        let same = newest.map(|item| &item.name) == newest_of_all.map(|item| &item.name);
        let comparison = if same { comparison } else { self.compare(newest_of_all)? };
        match newest_of_all.filter(|_| !comparison.differs()) {
            Some(item) => {
                log::info!("{}: nothing changed since {}", self.target.label(), item.name.text);
                report.ending = Ending::Unchanged;
                report.snapshot = Some(item.name.text.clone());
                self.remember(Some(Grade::Partial), self.torn_scan(&comparison))
            }
            None => self.publish(Grade::Partial, &comparison, report),
        }
    }

    fn publish(&self, grade: Grade, comparison: &Comparison, report: &mut Report) -> Result<()> {
        let compared = self.began.elapsed();
        let time = self.free_second();
        let cloning = Instant::now();
        let staged = Staged::build(self.root)?;
        let grade = self.grade_after_clone(grade)?;
        let name = SnapshotName::new(time, grade).text;
        let has_earlier = self.catalog.newest(grade, self.now).is_some();
        let comparison = match has_earlier {
            true => *comparison,
            false => Comparison { added: staged.cloned.entries, changed: 0, removed: 0, ..*comparison },
        };
        let record = Record {
            status: self.request.status,
            client: self.request.client.clone(),
            duration_seconds: ((compared + cloning.elapsed()).as_secs_f64() * 1_000.0).round() / 1_000.0,
            ..Record::new(time, grade, &staged.cloned, &comparison)
        };
        self.warn_of_losses(&record, report);
        staged.publish(self.root, &name, &record)?;
        log::info!(
            "{}: published {name} ({grade}): {} entries, {} added, {} changed, {} removed, {} s",
            self.target.label(),
            record.entries,
            record.added,
            record.changed,
            record.removed,
            record.duration_seconds,
        );
        report.ending = Ending::Published;
        report.snapshot = Some(name);
        self.remember(Some(grade), self.torn_scan(&comparison).filter(|_| grade == Grade::Partial))
    }

    /// The scan to hold a torn mark against: that of a failed transfer shows the tree as it left
    /// it, while a manual run may come after a good transfer that nobody has noticed yet.
    fn torn_scan<'c>(&self, comparison: &'c Comparison) -> Option<&'c Comparison> {
        matches!(self.request.occasion, Occasion::Transfer(_)).then_some(comparison)
    }

    /// The second that names the snapshot: one that no other snapshot has.
    fn free_second(&self) -> DateTime<Utc> {
        let mut time = self.now;
        while self.catalog.items.iter().any(|item| item.name.time == time) {
            self.clock.wait_for_next_second();
            time = self.clock.now();
        }
        time
    }

    /// A transfer that failed while we cloned makes partial what would have been complete.
    fn grade_after_clone(&self, grade: Grade) -> Result<Grade> {
        let torn = State::read(self.root.private())?.torn;
        if grade == Grade::Complete && is_new_mark(torn.as_ref(), self.before.torn.as_ref()) {
            log::warn!("{}: a transfer failed meanwhile; the snapshot is partial", self.target.label());
            return Ok(Grade::Partial);
        }
        Ok(grade)
    }

    fn warn_of_losses(&self, record: &Record, report: &mut Report) {
        let label = self.target.label();
        if !record.skipped_mounts.is_empty() {
            let mounts = record.skipped_mounts.join(", ");
            report.warn(&label, format!("left out what is mounted inside the module: {mounts}"));
        }
        if let Some(first) = record.copies.first() {
            let count = record.copied_names();
            report.warn(
                &label,
                format!("{count} entries could not be linked and were copied, the first is {}", first.path),
            );
        }
        if record.attributes_lost > 0 {
            let count = record.attributes_lost;
            report.warn(&label, format!("owner or security attributes of {count} entries could not be kept"));
        }
    }

    fn last_run(&self, covered: Option<Grade>) -> LastRun {
        LastRun { time: self.now, scan_began: self.scan_began.clone(), covered }
    }

    /// Writes what the next run has to know. `covered` is the grade up to which the tree as it
    /// was is safe now; `torn_scan` is the scan to hold a standing torn mark against.
    fn remember(&self, covered: Option<Grade>, torn_scan: Option<&Comparison>) -> Result<()> {
        let history = self.before.history();
        let policy = &self.target.policy;
        let jump = clock_jump(history.clock_jump.as_ref(), history.last_run, self.now, policy.clock_jump);
        State::update(self.root.private(), |state| {
            state.last_run = Some(self.last_run(covered));
            state.clock_jump = jump;
            let is_ours = !is_new_mark(state.torn.as_ref(), self.before.torn.as_ref());
            match torn_scan {
                None if covered == Some(Grade::Complete) && is_ours => state.torn = None,
                Some(scan) if is_ours => {
                    if let Some(mark) = &mut state.torn {
                        mark.fingerprint.get_or_insert(scan.fingerprint);
                    }
                }
                _ => {}
            }
            let covers_due = |due: &crate::store::state::DueMark| {
                !due.marked.is_after(&self.scan_began) && covered.is_some_and(|covered| covered >= due.grade)
            };
            if state.due.as_ref().is_some_and(covers_due) {
                state.due = None;
            }
        })
        .map(drop)
    }
}

/// Whether `mark` was set by another transfer than the one that `known` tells of.
fn is_new_mark(mark: Option<&TornMark>, known: Option<&TornMark>) -> bool {
    mark.is_some_and(|mark| known.is_none_or(|known| known.noticed != mark.noticed))
}
