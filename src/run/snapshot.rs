//! One snapshot, or the proof that none is needed; under the lock.
//!
//! Order: clean up → close the gate → note the moment → compare → clone → open the gate → publish
//! or verify → remember. The gate is open again before anything is synced: links in staging are out
//! of every run's way. The moment is taken before the first directory is read: a transfer that ends
//! later may have changes that this run missed, and is not covered by it. The marks are looked at
//! before the scan and again after the clone, and only marks that were there before are ever
//! cleared. The state is written last: a run that dies before that leaves its marks standing, and
//! the next run only does a little more than it must.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use crate::decide::boot_time::BootTime;
use crate::decide::clock_history::{SequenceNumbers, clock_jump};
use crate::decide::fingerprint::Fingerprint;
use crate::decide::grade::Grade;
use crate::decide::shortfall::Shortfall;
use crate::decide::torn_mark::{TornEvidence, TornMark};
use crate::decide::transfer_reason::TransferReason;
use crate::decide::transfer_verdict::{Owed, TransferVerdict};
use crate::decide::verdict::{aftermath, verdict};
use crate::decide::verdict_facts::{
    ClientCompletion, DueReason, LedgerCoverage, TreeComparison, VerdictFacts, VerdictStage,
};
use crate::engine::compare::Comparison;
use crate::engine::index::{Stamp, now_ns};
use crate::module::target::Target;
use crate::run::attempt::{Observation, SnapshotAttempt};
use crate::run::close_gate::{GateOutcome, close_gate_or_defer};
use crate::run::facts::facts;
use crate::run::report::{Ending, Report};
use crate::run::request::{Request, Requester};
use crate::run::rotate;
use crate::run::scan::TreeScan;
use crate::store::inode_log::in_place::in_place_changes;
use crate::store::layout::Subdir;
use crate::store::publish::{clean_up, discard_staging};
use crate::store::record::Record;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::{ListedSnapshot, SnapshotList};
use crate::store::state::{DueMark, LastRun, State};
use crate::system::clock::Clock;
use crate::tell::error::Result;

/// Cleans up after earlier runs, compares, publishes what the request earns, and remembers it.
pub(crate) fn snapshot(
    target: &Target,
    root: &SnapshotRoot,
    request: &Request,
    clock: &Clock,
) -> Result<Report> {
    let mut report = Report::new(target, Ending::Unchanged);
    let before = State::update(root.private(), |_| ())?;
    // Before the visible ones: what a person brings back meanwhile is then in both lists, not in
    // neither.
    let retired = retire::retired(root)?;
    let mut catalog = SnapshotList::read(root, &target.policy.time_zone)?;
    catalog.pin(&before.pins);
    finish_earlier_work(target, root, &catalog, &retired, &mut report)?;
    let GateOutcome::Closed { gate, running } = close_gate_or_defer(target, root, request, clock)?
    else {
        report.ending = Ending::Deferred;
        return Ok(report);
    };
    if running.count > 0 {
        let because = TransferReason::Running { count: running.count, in_place: running.in_place };
        report.warn(&target.label(), format!("{because}, so a snapshot is partial"));
    }
    if request.coverage == LedgerCoverage::TransferMissing {
        report.warn(
            &target.label(),
            format!("{}; a snapshot is partial", TransferReason::NotInLedger),
        );
    }
    let reading = clock.reading();
    let now = reading.time;
    let scan_began = BootTime::now();
    let began = Instant::now();
    // Before any link is made: links move the change times that tell of writes in place.
    let before_links_in_place =
        before.written_in_place.then(|| in_place_changes(root)).transpose()?;
    let newest = before.sequence.max(catalog.sequence());
    let numbers = SequenceNumbers { known: before.sequence, newest };
    let clock_history = before.clock_history().observe(&reading, numbers, target.policy.clock_jump);
    let pass = SnapshotAttempt {
        target,
        root,
        request,
        clock,
        began,
        scan_began,
        now,
        reading,
        clock_history: RefCell::new(clock_history),
        sequence: Cell::new(newest),
        before,
        catalog,
        completion: ClientCompletion::of_module(root.module()),
        is_full: Cell::new(false),
        gate: Cell::new(Some(gate)),
        running,
        in_place: before_links_in_place,
    };
    // What could not be finished takes space that the next transfer may need.
    pass.run(&mut report).inspect_err(|error| {
        discard_staging(root);
        if error.is_lack_of_space() {
            let _ = rotate::free_retired(target, root, clock);
        }
    })?;
    Ok(report)
}

/// Removes what killed runs left: staging, temporary files, records of what is gone.
fn finish_earlier_work(
    target: &Target,
    root: &SnapshotRoot,
    catalog: &SnapshotList,
    retired: &[String],
    report: &mut Report,
) -> Result<()> {
    let visible: Vec<String> = catalog.items.iter().map(|item| item.name.text.clone()).collect();
    let (found, errors) = clean_up(root, &visible, retired);
    for error in errors {
        report.warn(&target.label(), error.to_string());
    }
    if found {
        log::info!("{}: cleaned up after a run that did not finish", target.label());
    }
    Ok(())
}

impl SnapshotAttempt<'_> {
    fn run(&self, report: &mut Report) -> Result<()> {
        if self.is_first() {
            self.is_full.set(true);
            let sight = self.first_sight();
            return self.publish(&sight, self.judge(&sight), None, report);
        }
        let newest = self.catalog.newest(Grade::Complete, self.now);
        let mut scan = self.compare(newest, report)?;
        self.tell_scan(&scan.comparison);
        let mut sight = self.sight(newest, &mut scan);
        let mut verdict = self.judge(&sight);
        if verdict.snapshot == Some(Grade::Partial) {
            // The newest snapshot of any grade may show the same.
            let of_all = self.catalog.newest(Grade::Partial, self.now);
            if newest.map(|item| &item.name) != of_all.map(|item| &item.name) {
                scan = self.compare(of_all, report)?;
            }
            sight.differs_from_newest = of_all.map(|_| self.differs(&scan.comparison));
            verdict = self.judge(&sight);
        }
        self.keep_current(newest, &sight, &verdict)?;
        let label = self.target.label();
        match (verdict.snapshot, &verdict.because) {
            (Some(_), _) => return self.publish(&sight, verdict, Some(&scan), report),
            (None, TransferReason::Unchanged { grade }) => {
                let same = self.catalog.newest(*grade, self.now).map(|item| item.name.text.clone());
                log::info!(
                    "{label}: nothing changed since {}",
                    same.as_deref().unwrap_or_default()
                );
                report.ending = Ending::Unchanged;
                report.snapshot = same;
            }
            (None, TransferReason::TooSoon) => {
                let interval = self.target.policy.min_interval;
                log::info!(
                    "{label}: no snapshot: the last one is younger than min_interval {interval}; one is marked due, which a later push or `snapshot --due` takes"
                );
                report.ending = Ending::TooSoon;
            }
            (None, TransferReason::StillTorn) => {
                log::info!(
                    "{label}: no snapshot: a push failed and may have left a mixture of old and new files (torn), and nothing has changed since"
                );
                report.ending = Ending::Torn;
            }
            (None, because) => {
                log::info!("{label}: no snapshot: {because}");
                report.ending = Ending::FailedTransfer;
            }
        }
        self.remember(&sight, &verdict)
    }

    /// Whether there is nothing to compare the tree with, nor a torn mark to hold against it: then
    /// the clone alone reads it.
    fn is_first(&self) -> bool {
        self.catalog.newest(Grade::Partial, self.now).is_none()
            && self.before.torn.is_none()
            && self.judge(&self.first_sight()).snapshot == Some(Grade::Complete)
    }

    fn first_sight(&self) -> Observation {
        Observation {
            fingerprint: Fingerprint::default(),
            newest_ctime_ns: i64::MAX,
            scars: Vec::new(),
            ended: self.clock.exact_now(),
            is_settled: false,
            unchanged_since: None,
            differs_from_complete: None,
            differs_from_newest: None,
        }
    }

    fn sight(&self, newest: Option<&ListedSnapshot>, scan: &mut TreeScan) -> Observation {
        let Comparison { fingerprint, newest_ctime_ns, .. } = scan.comparison;
        let last = self.before.last_run.as_ref().filter(|_| !self.before.written_in_place);
        let unchanged = last.filter(|last| last.fingerprint == Some(fingerprint));
        let stamp = Stamp { inode: 0, ctime_ns: newest_ctime_ns, mtime_ns: 0 };
        Observation {
            fingerprint,
            newest_ctime_ns,
            scars: std::mem::take(&mut scan.scars),
            ended: self.clock.exact_now(),
            is_settled: stamp.settled(now_ns()) == stamp,
            unchanged_since: unchanged.map(|last| last.scan_began.clone()),
            differs_from_complete: newest.map(|_| self.differs(&scan.comparison)),
            differs_from_newest: None,
        }
    }

    /// Names and inodes do not show what was written in place; what was recorded of the files does.
    fn differs(&self, comparison: &Comparison) -> bool {
        let in_place = self.in_place.as_ref().is_some_and(|changes| !changes.is_none());
        comparison.differs() || in_place
    }

    fn judge(&self, sight: &Observation) -> TransferVerdict {
        self.with_facts(sight, &self.before, self.completion, verdict)
    }

    /// The verdict on what was seen, when the tree is copied and more may be known.
    pub(crate) fn judge_again(&self, sight: &Observation, state: &State) -> TransferVerdict {
        let completion = self.completion.worse(ClientCompletion::of_module(self.root.module()));
        self.with_facts(sight, state, completion, verdict)
    }

    fn with_facts<R>(
        &self,
        sight: &Observation,
        state: &State,
        completion: ClientCompletion,
        decide: impl FnOnce(&VerdictFacts) -> R,
    ) -> R {
        let tears = TornEvidence {
            seen: self.before.torn.as_ref(),
            unchanged_since: sight.unchanged_since.as_ref(),
            scars: &sight.scars,
            fingerprint: sight.fingerprint,
            newest_ctime_ns: sight.newest_ctime_ns,
            ended: sight.ended,
        };
        let look = TreeComparison {
            tears: &tears,
            differs_from_complete: sight.differs_from_complete,
            differs_from_newest: sight.differs_from_newest,
            is_too_soon_for_complete: self.is_too_soon(Grade::Complete),
            is_too_soon_for_partial: self.is_too_soon(Grade::Partial),
        };
        decide(&VerdictFacts {
            // Where a lost state leaves that open, the files were compared with their records.
            is_paired: self.before.paired || self.in_place.is_some(),
            running: self.running,
            // The gate has been closed.
            has_waited: true,
            has_deferred: self.before.deferred_since.is_some(),
            completion,
            due: state.due.as_ref().map(|due| due.fact(&self.scan_began)),
            ..facts(self.target, self.root, self.request, state, VerdictStage::Looked(look))
        })
    }

    /// A tree that equals the newest complete snapshot keeps that one current, whatever comes of
    /// this run.
    fn keep_current(
        &self,
        newest: Option<&ListedSnapshot>,
        sight: &Observation,
        verdict: &TransferVerdict,
    ) -> Result<()> {
        let is_in_place = verdict.marks.as_ref().is_some_and(TornMark::is_in_place);
        let is_failed = matches!(verdict.because, TransferReason::Failed { .. });
        match newest
            .filter(|_| sight.differs_from_complete == Some(false) && !is_in_place && !is_failed)
        {
            Some(newest) => self.move_verified_until(newest),
            None => Ok(()),
        }
    }

    fn move_verified_until(&self, item: &ListedSnapshot) -> Result<()> {
        if item.unreadable {
            // Told with every listing; and what it says must not be written over.
            return Ok(());
        }
        let adopted = || Record::adopted(item.name.time, item.name.grade);
        let mut record = item.record.clone().unwrap_or_else(adopted);
        let mut clock = self.clock_history.borrow_mut();
        let until = match clock.doubt() {
            // Also backwards: a later time was a wrong clock's.
            None => self.now,
            // Which of the two is wrong is not known. The later one keeps the snapshot longer.
            Some(_) => record.verified_until.max(self.now),
        };
        if let Some(sequence) = record.sequence {
            clock.doubt_also(sequence);
        }
        if record.verified_until == until {
            return Ok(());
        }
        record.verified_until = until;
        record.write(self.root.subdir(Subdir::Records)?.dir(), &item.name.text)
    }

    /// Before a snapshot gets a successor: it cannot have been verified later than that is taken.
    /// If it says so, a wrong clock did, and once the successor is gone it would stand for what it
    /// never saw.
    pub(crate) fn correct_verified_until(&self) -> Result<()> {
        if self.clock_history.borrow().doubt().is_some() {
            return Ok(());
        }
        let newest = self.catalog.newest(Grade::Complete, self.now);
        match newest.filter(|item| item.snapshot().verified_until > self.now) {
            Some(newest) => self.move_verified_until(newest),
            None => Ok(()),
        }
    }

    fn is_too_soon(&self, grade: Grade) -> bool {
        let can_wait =
            matches!(self.request.requester, Requester::Transfer(_)) || self.request.only_if_due;
        let newest = self.catalog.newest(grade, self.now);
        let interval = self.target.policy.min_interval.delta();
        can_wait && newest.is_some_and(|newest| self.now - newest.name.time < interval)
    }

    /// Writes what the next run has to know.
    pub(crate) fn remember(
        &self,
        sight: &Observation,
        carried_out: &TransferVerdict,
    ) -> Result<()> {
        let limit = self.target.policy.clock_jump;
        let last_run = self.before.last_run.as_ref().map(|run| run.time);
        let jump = clock_jump(self.before.clock_jump.as_ref(), last_run, self.now, limit);
        State::update(self.root.private(), |state| {
            state.sequence = state.sequence.max(self.sequence.get());
            state.clock = Some(self.clock_history.borrow().clone());
            state.last_run = Some(LastRun {
                time: self.now,
                scan_began: self.scan_began.clone(),
                covered: carried_out.covered(),
                fingerprint: Some(sight.fingerprint).filter(|_| sight.is_settled),
            });
            state.clock_jump = jump;
            state.full_comparison =
                Some(self.now).filter(|_| self.is_full.get()).or(state.full_comparison);
            let (marks, owed) = self
                .with_facts(sight, state, self.completion, |facts| aftermath(facts, carried_out));
            state.torn = marks;
            match owed {
                Owed::AsBefore => {}
                Owed::Paid => state.due = None,
                Owed::Marked { .. }
                    if state.due.as_ref().is_some_and(|due| self.is_promised(due)) => {}
                Owed::Marked { reason, asked } => {
                    state.due =
                        Some(DueMark::on_top_of(state.due.as_ref(), asked, reason, self.now));
                }
            }
            if state.deferred_since.is_some() {
                // The next partial one beside pushes that never end has to wait as long again.
                state.deferred_since = Some(self.now).filter(|_| self.running.count > 0);
            }
            state.written_in_place = false;
            if let (Requester::Transfer(_), Some(status)) =
                (self.request.requester, self.request.status)
            {
                state.shortfall =
                    Shortfall::after(state.shortfall.take(), status, carried_out, self.now);
            }
        })
        .map(drop)
    }

    /// A run that gave up meanwhile was told that this one would go once more.
    fn is_promised(&self, due: &DueMark) -> bool {
        due.reason == DueReason::LockBusy && due.marked.is_after(&self.scan_began)
    }
}
