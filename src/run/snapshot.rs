//! One snapshot, or the proof that none is needed; under the lock.
//!
//! Clean up → close the gate → note the time → compare → clone → open the gate → publish, or move
//! `verified_until` → remember.
//!
//! * The live tree is read behind a closed gate. The gate is open again before anything is synced:
//!   no push can reach the links in staging.
//! * The time is noted before the first directory is read. A transfer that ends later may have
//!   changes that this run missed, so this run does not cover it.
//! * Marks are read before the scan and again after the clone. Only marks that were there before
//!   the scan are cleared.
//! * The state becomes visible last, after the snapshot's name is durable. A run that dies before
//!   that leaves its marks, and the next run does a little more than it must.

use std::cell::{Cell, OnceCell, RefCell};
use std::time::Instant;

use crate::decide::boot_time::BootTime;
use crate::decide::clock_history::SequenceNumbers;
use crate::decide::clock_jump::clock_jump;
use crate::decide::fingerprint::Fingerprint;
use crate::decide::grade::Grade;
use crate::decide::pushes_without_snapshot::PushesWithoutSnapshot;
use crate::decide::torn_mark::TornEvidence;
use crate::decide::transfer_decision::{marks_after, verdict};
use crate::decide::transfer_reason::TransferReason;
use crate::decide::transfer_verdict::{DueMarkChange, TransferVerdict};
use crate::decide::verdict_facts::{
    ClientCompletion, DueReason, LedgerCoverage, RunningPushes, TreeComparison, VerdictFacts,
    VerdictStage,
};
use crate::engine::compare::Comparison;
use crate::engine::index::{Stamp, now_ns};
use crate::run::attempt::{Observation, SnapshotAttempt};
use crate::run::close_gate::{GateOutcome, close_gate_or_defer};
use crate::run::report::{Ending, Report};
use crate::run::request::{Request, Requester};
use crate::run::rotate::{self, SpaceNeed};
use crate::run::scan::TreeScan;
use crate::run::session::Session;
use crate::run::vanished;
use crate::run::verdict_facts::facts;
use crate::store::gate::Gate;
use crate::store::inode_log::changed_in_place::in_place_changes;
use crate::store::leftovers::{clean_up, discard_staging};
use crate::store::retire;
use crate::store::snapshots::{ListedSnapshot, SnapshotList, adopt};
use crate::store::state::{DueMark, LastRun, State};
use crate::store::vanished::RootContent;
use crate::tell::error::Result;

/// Cleans up after earlier runs, compares, makes the snapshot that the verdict asks for, if any,
/// and writes the state.
pub(crate) fn snapshot(session: Session, request: &Request) -> Result<Report> {
    let Session { target, root, .. } = session;
    let mut report = Report::new(target, Ending::Unchanged);
    let before = State::update(root.private(), |_| ())?;
    // Retired snapshots are listed before the visible ones. One that `undelete` brings back in
    // between is then in both lists, instead of in neither.
    let retired = retire::retired(root)?;
    let mut list = SnapshotList::read(root, &target.policy.time_zone)?;
    list.pin(&before.pins);
    let content = RootContent { root, state: &before, list: &list, retired: &retired };
    finish_earlier_work(session, content, &mut report);
    let GateOutcome::Closed { gate, running } = close_gate_or_defer(session, request)? else {
        report.ending = Ending::Deferred;
        return Ok(report);
    };
    if running.count > 0 {
        let because = TransferReason::Running { count: running.count, in_place: running.in_place };
        report.warn(format!("{because}, so a snapshot is partial"));
    }
    if request.coverage == LedgerCoverage::TransferMissing {
        report.warn(format!("{}; a snapshot is partial", TransferReason::NotInLedger));
    }
    let attempt = SnapshotAttempt::begin(session, request, before, list, (gate, running))?;
    attempt.run(&mut report).inspect_err(|error| {
        // The next transfer may need the space that an unfinished snapshot takes.
        discard_staging(root);
        if error.is_lack_of_space() {
            let _ = rotate::free_retired(session, SpaceNeed::FullDisk);
        }
    })?;
    Ok(report)
}

/// Notes which snapshots vanished. Then removes what killed runs left: staging, temporary files,
/// records without a snapshot. If the first fails, the records stay for the next run.
fn finish_earlier_work(session: Session, content: RootContent, report: &mut Report) {
    let vanished = vanished::note(content, session);
    let keeps_records = vanished.is_err();
    match vanished {
        Ok(message) => vanished::tell(session, message),
        Err(error) => report.warn(error.to_string()),
    }
    let RootContent { list, retired, .. } = content;
    let visible: Vec<String> = list.items.iter().map(|item| item.name.text.clone()).collect();
    let (found, errors) = clean_up(session.root, &visible, retired, keeps_records);
    for error in errors {
        report.warn(error.to_string());
    }
    if found {
        log::info!("{}: cleaned up after a run that did not finish", session.label());
    }
    if let Err(error) = adopt(session.root, list) {
        report.warn(error.to_string());
    }
}

impl<'a> SnapshotAttempt<'a> {
    /// Notes the time, before anything of the live tree is read.
    fn begin(
        session: Session<'a>,
        request: &'a Request,
        before: State,
        list: SnapshotList,
        (gate, running): (Gate, RunningPushes),
    ) -> Result<Self> {
        let Session { target, root, clock } = session;
        let reading = clock.reading();
        let scan_began = BootTime::now();
        let began = Instant::now();
        // This comes before any link is made, because links move the change times that show writes
        // in place.
        let may_be_in_place = before.written_in_place && !root.method().is_instant();
        let in_place = may_be_in_place.then(|| in_place_changes(root)).transpose()?;
        let newest = before.sequence.max(list.sequence());
        let numbers = SequenceNumbers { known: before.sequence, newest };
        let clock_history =
            before.clock_history().observe(&reading, numbers, target.policy.clock_jump);
        Ok(SnapshotAttempt {
            session,
            request,
            began,
            scan_began,
            now: reading.time,
            reading,
            clock_history: RefCell::new(clock_history),
            sequence: Cell::new(newest),
            before,
            list,
            completion: ClientCompletion::of_module(root.module()?),
            is_full: Cell::new(false),
            gate: Cell::new(Some(gate)),
            has_unsynced_name: Cell::new(false),
            unsynced_records: Cell::new(None),
            running,
            in_place,
            frozen: OnceCell::new(),
        })
    }
}

impl SnapshotAttempt<'_> {
    fn run(&self, report: &mut Report) -> Result<()> {
        if self.is_first() {
            self.is_full.set(true);
            if self.session.root.must_sync_files() {
                self.compare(None, report)?;
            }
            self.freeze()?;
            let observation = self.first_observation();
            return self.publish(&observation, self.judge(&observation), None, report);
        }
        if self.end_if_surely_unchanged(report)? {
            return Ok(());
        }
        self.freeze_to_compare()?;
        let newest = self.newest_alike(Grade::Complete);
        let mut scan = self.compare(newest, report)?;
        self.log_scan(&scan.comparison);
        let mut observation = self.observation(newest, &mut scan);
        let mut verdict = self.judge(&observation);
        if verdict.snapshot == Some(Grade::Partial) {
            // No partial snapshot is needed if the newest snapshot of any grade already shows this
            // tree.
            let of_all = self.newest_alike(Grade::Partial);
            if newest.map(|item| &item.name) != of_all.map(|item| &item.name) {
                scan = self.compare(of_all, report)?;
            }
            observation.differs_from_newest = of_all.map(|_| self.differs(&scan.comparison));
            verdict = self.judge(&observation);
        }
        self.keep_current(newest, &observation, &verdict)?;
        if verdict.snapshot.is_some() {
            self.freeze()?;
            return self.publish(&observation, verdict, Some(&scan), report);
        }
        self.discard_frozen();
        self.end_without_snapshot(&verdict.because, report);
        let equal = report.snapshot.as_deref();
        self.remember(&observation, &verdict, equal, || self.sync_names())
    }

    pub(crate) fn end_without_snapshot(&self, because: &TransferReason, report: &mut Report) {
        let label = self.session.label();
        match because {
            TransferReason::Unchanged { grade } => {
                let equal = self.list.newest(*grade, self.now);
                let equal = equal.map(|item| item.name.text.clone());
                let name = equal.as_deref().unwrap_or_default();
                log::info!("{label}: nothing changed since {name}");
                report.ending = Ending::Unchanged;
                report.snapshot = equal;
            }
            TransferReason::TooSoon => {
                let interval = self.session.target.policy.min_interval;
                log::info!(
                    "{label}: no snapshot: the last one is younger than min_interval {interval}; \
                     one is marked due, which a later push or `snapshot --due` takes"
                );
                report.ending = Ending::TooSoon;
            }
            TransferReason::StillTorn => {
                log::info!(
                    "{label}: no snapshot: a push failed and may have left a mixture of old and \
                     new files (torn), and nothing has changed since"
                );
                report.ending = Ending::Torn;
            }
            because => {
                log::info!("{label}: no snapshot: {because}");
                report.ending = Ending::FailedTransfer;
            }
        }
    }

    /// Whether the tree needs no comparison: there is no snapshot to compare it with and no torn
    /// mark. Only the clone reads it then.
    fn is_first(&self) -> bool {
        self.list.newest(Grade::Partial, self.now).is_none()
            && self.before.torn.is_none()
            && self.judge(&self.first_observation()).snapshot == Some(Grade::Complete)
    }

    fn first_observation(&self) -> Observation {
        Observation {
            fingerprint: Fingerprint::default(),
            newest_ctime_ns: i64::MAX,
            unfinished: Vec::new(),
            ended: self.session.clock.exact_now(),
            is_settled: false,
            unchanged_since: None,
            differs_from_complete: None,
            differs_from_newest: None,
        }
    }

    fn observation(&self, newest: Option<&ListedSnapshot>, scan: &mut TreeScan) -> Observation {
        let Comparison { fingerprint, newest_ctime_ns, .. } = scan.comparison;
        let is_told = !self.before.written_in_place || self.session.root.method().is_instant();
        let last = self.before.last_run.as_ref().filter(|_| is_told);
        let unchanged = last.filter(|last| last.fingerprint == Some(fingerprint));
        let stamp = Stamp { inode: 0, ctime_ns: newest_ctime_ns, mtime_ns: 0 };
        Observation {
            fingerprint,
            newest_ctime_ns,
            unfinished: std::mem::take(&mut scan.unfinished),
            ended: self.session.clock.exact_now(),
            is_settled: stamp.settled(now_ns()) == stamp,
            unchanged_since: unchanged.map(|last| last.scan_began.clone()),
            differs_from_complete: newest.map(|_| self.differs(&scan.comparison)),
            differs_from_newest: None,
        }
    }

    /// Whether the live tree differs from the snapshot that it was compared with, or was written to
    /// in place. Names and inode numbers do not show a write in place; the inode log does.
    fn differs(&self, comparison: &Comparison) -> bool {
        let in_place = self.in_place.as_ref().is_some_and(|changes| !changes.is_none());
        comparison.differs() || in_place
    }

    pub(crate) fn judge(&self, observation: &Observation) -> TransferVerdict {
        self.with_facts(observation, &self.before, self.completion, verdict)
    }

    /// The verdict on what was seen, once the tree is cloned and marks may have been added.
    pub(crate) fn judge_again(&self, observation: &Observation, state: &State) -> TransferVerdict {
        let module = self.session.root.module();
        let now = || module.map_or(ClientCompletion::Unfinished, ClientCompletion::of_module);
        let frozen = self.frozen.get();
        let now = frozen.map_or_else(now, |frozen| frozen.completion);
        let completion = self.completion.worse(now);
        self.with_facts(observation, state, completion, verdict)
    }

    fn with_facts<R>(
        &self,
        observation: &Observation,
        state: &State,
        completion: ClientCompletion,
        decide: impl FnOnce(&VerdictFacts) -> R,
    ) -> R {
        let evidence = TornEvidence {
            mark_before: self.before.torn.as_ref(),
            unchanged_since: observation.unchanged_since.as_ref(),
            unfinished: &observation.unfinished,
            fingerprint: observation.fingerprint,
            newest_ctime_ns: observation.newest_ctime_ns,
            ended: observation.ended,
        };
        let look = TreeComparison {
            failed_pushes: &evidence,
            differs_from_complete: observation.differs_from_complete,
            differs_from_newest: observation.differs_from_newest,
            is_too_soon_for_complete: self.is_too_soon(Grade::Complete),
            is_too_soon_for_partial: self.is_too_soon(Grade::Partial),
        };
        decide(&VerdictFacts {
            // If the state was lost, each file was looked at instead, for writes in place, too.
            has_pre_xfer: self.before.has_pre_xfer
                || self.in_place.is_some()
                || self.before.written_in_place && self.session.root.method().is_instant(),
            running: self.running,
            // The gate is closed, so nothing is left to wait for.
            has_waited: true,
            has_deferred: self.before.deferred_since.is_some(),
            completion,
            due: state.due.as_ref().map(|due| due.facts_for_run(&self.scan_began)),
            ..facts(self.session, self.request, state, VerdictStage::Compared(look))
        })
    }

    fn is_too_soon(&self, grade: Grade) -> bool {
        let can_wait =
            matches!(self.request.requester, Requester::Transfer(_)) || self.request.only_if_due;
        let newest = self.list.newest(grade, self.now);
        let interval = self.session.target.policy.min_interval.delta();
        can_wait && newest.is_some_and(|newest| self.now - newest.name.time < interval)
    }

    /// Writes the state for the next run. It is visible only after `first` has made the names of
    /// this attempt durable. `snapshot`: the one that was made, or that equals the module.
    pub(crate) fn remember(
        &self,
        observation: &Observation,
        carried_out: &TransferVerdict,
        snapshot: Option<&str>,
        first: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let limit = self.session.target.policy.clock_jump;
        let last_run = self.before.last_run.as_ref().map(|run| run.time);
        let jump = clock_jump(self.before.clock_jump.as_ref(), last_run, self.now, limit);
        let change = |state: &mut State| {
            state.sequence = state.sequence.max(self.sequence.get());
            state.clock = Some(self.clock_history.borrow().clone());
            state.last_run = Some(LastRun {
                time: self.now,
                scan_began: self.scan_began.clone(),
                covered: carried_out.covered(),
                fingerprint: Some(observation.fingerprint).filter(|_| observation.is_settled),
            });
            state.clock_jump = jump;
            state.full_comparison =
                Some(self.now).filter(|_| self.is_full.get()).or(state.full_comparison);
            let (torn, due_mark) = self.with_facts(observation, state, self.completion, |facts| {
                marks_after(facts, carried_out)
            });
            state.torn = torn;
            match due_mark {
                DueMarkChange::Keep => {}
                DueMarkChange::Clear => state.due = None,
                DueMarkChange::Set { .. }
                    if state.due.as_ref().is_some_and(|due| self.is_left_for_this_run(due)) => {}
                DueMarkChange::Set { reason, asked } => {
                    state.due =
                        Some(DueMark::merged_with(state.due.as_ref(), asked, reason, self.now));
                }
            }
            if state.deferred_since.is_some() {
                // While pushes go on, the next partial snapshot waits for `max_defer` again.
                state.deferred_since = Some(self.now).filter(|_| self.running.count > 0);
            }
            state.written_in_place = false;
            state.pushes.since.get_or_insert(self.now);
            self.request.note_push(state, &self.session.target.policy);
            if let (Some(push), Some(name)) = (&self.request.ended, &snapshot) {
                state.pushes.note_snapshot(&push.who, name);
            }
            if let (Requester::Transfer(_), Some(status)) =
                (self.request.requester, self.request.status)
            {
                state.pushes_without_snapshot = PushesWithoutSnapshot::after(
                    state.pushes_without_snapshot.take(),
                    status,
                    carried_out,
                    self.now,
                );
            }
        };
        State::update_after(self.session.root.private(), change, first)
    }

    /// Whether the mark was set by a run that gave up waiting for this one. This run takes that
    /// run's snapshot before it releases the lock, so the mark must not change.
    fn is_left_for_this_run(&self, due: &DueMark) -> bool {
        due.reason == DueReason::LockBusy && due.marked.is_after(&self.scan_began)
    }
}
