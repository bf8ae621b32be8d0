//! One snapshot, or the proof that none is needed; under the lock.
//!
//! Order: clean up → close the gate → note the moment → compare → clone → open the gate → publish or verify → remember.
//! The gate is open again before anything is synced: links in staging are out of everybody's way. The moment is taken
//! before the first directory is read: whoever asks later than that has changes we may have missed, and is
//! not covered by us. The torn mark is looked at before the scan and again after the clone, and only
//! the mark that was there before is ever cleared. The state is written last: a run that dies
//! before that leaves its marks standing, and the next run only does a little more than it must.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::approach::{Approach, approach};
use super::scan::Scan;
use super::{Ending, Report, Request, Witness, rotate};
use crate::clock::Clock;
use crate::config::target::Target;
use crate::decide::clock_guard::{ClockHistory, Numbers, Reading, clock_jump};
use crate::decide::finish::Finish;
use crate::decide::grade::{Grade, Occasion, Outcome, Torn, outcome};
use crate::store::boot::BootTime;
use crate::store::catalog::{Catalog, Item};
use crate::store::gate::Gate;
use crate::store::publish::{clean_up, discard_staging};
use crate::store::record::Record;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, DueReason, LastRun, State};
use crate::store::torn::TornMark;
use crate::tell::error::Result;
use crate::tree::compare::{Comparison, Fingerprint};

/// One pass over the module.
pub(super) struct Pass<'a> {
    pub(super) target: &'a Target,
    pub(super) root: &'a SnapshotRoot,
    pub(super) request: &'a Request,
    pub(super) clock: &'a Clock,
    pub(super) began: Instant,
    pub(super) scan_began: BootTime,
    pub(super) now: DateTime<Utc>,
    /// What both clocks showed at `now`.
    pub(super) reading: Reading,
    /// What is known of the clock, that reading included.
    pub(super) clock_history: RefCell<ClockHistory>,
    /// The newest snapshot's number.
    pub(super) sequence: Cell<u64>,
    pub(super) before: State,
    pub(super) catalog: Catalog,
    /// How far the client says that it has come.
    pub(super) finish: Finish,
    /// Whether a comparison has been a full one.
    pub(super) is_full: Cell<bool>,
    /// Whether the tree is that of the newest complete snapshot, and nobody writes to it.
    is_whole: Cell<bool>,
    /// Closed as long as the tree is read.
    pub(super) gate: Cell<Option<Gate>>,
    /// How many pushes go on all the same.
    pub(super) beside: usize,
}

/// Cleans up after earlier runs, compares, publishes what the request earns, and remembers it.
pub(super) fn snapshot(
    target: &Target,
    root: &SnapshotRoot,
    request: &Request,
    clock: &Clock,
) -> Result<Report> {
    let mut report = Report::new(target, Ending::Unchanged);
    let before = State::update(root.private(), |_| ())?;
    let request = &request.clone().with_deferred(before.deferred_since.is_some());
    // Before the visible ones: what somebody brings back meanwhile is then in both lists, not in neither.
    let retired = retire::retired(root)?;
    let mut catalog = Catalog::read(root, &target.policy.time_zone)?;
    catalog.pin(&before.pins);
    finish_earlier_work(target, root, &catalog, &retired, &mut report)?;
    let Approach::Closed { gate, beside } = approach(target, root, request, clock)? else {
        report.ending = Ending::Deferred;
        return Ok(report);
    };
    if beside > 0 {
        let others = if beside == 1 { "a push is".to_string() } else { format!("{beside} pushes are") };
        report.warn(&target.label(), format!("{others} still running, so a snapshot is partial"));
    }
    if request.witness == Witness::Missing {
        let message =
            "pre-xfer has not entered this transfer, so it may overlap with others; a snapshot is partial";
        report.warn(&target.label(), message.to_string());
    }
    let reading = clock.reading();
    let now = reading.time;
    let scan_began = BootTime::now();
    let began = Instant::now();
    let newest = before.sequence.max(catalog.sequence());
    let numbers = Numbers { known: before.sequence, newest };
    let clock_history = before.clock_history().observe(&reading, numbers, target.policy.clock_jump);
    let pass = Pass {
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
        finish: Finish::of_module(root.module()),
        is_full: Cell::new(false),
        is_whole: Cell::new(false),
        gate: Cell::new(Some(gate)),
        beside,
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
    catalog: &Catalog,
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

impl Pass<'_> {
    fn run(&self, report: &mut Report) -> Result<()> {
        if self.is_first() {
            self.is_full.set(true);
            return self.publish(Grade::Complete, None, report);
        }
        let newest = self.catalog.newest(Grade::Complete, self.now);
        let Scan { comparison, index } = self.compare(newest, report)?;
        // Whatever failed, it has changed nothing, or all is as it was: no mixture of two states.
        // Without the ledger somebody may be about to change it.
        let is_alone = self.before.paired && self.beside == 0;
        let is_whole = newest.is_some() && !comparison.differs() && is_alone;
        self.is_whole.set(is_whole);
        let torn = if is_whole { Torn::No } else { self.torn(&comparison) };
        self.tell_scan(&comparison);
        match self.outcome(torn) {
            Outcome::Failed => {
                report.ending = Ending::FailedTransfer;
                self.remember(Outlook::torn(None, self.torn_scan(&comparison)))
            }
            Outcome::StillTorn => self.stay_torn(newest, &comparison, report),
            Outcome::Snapshot(Grade::Complete) => match newest {
                Some(newest) if !comparison.differs() => self.verify(newest, report),
                Some(newest) if self.is_too_soon(newest) => self.put_off(report),
                _ => self.publish(Grade::Complete, Some(&Scan { comparison, index }), report),
            },
            Outcome::Snapshot(Grade::Partial) => {
                self.publish_partial(Scan { comparison, index }, newest, report)
            }
        }
    }

    /// Whether there is nothing to compare the tree with, nor a torn mark to hold against it: then the
    /// clone alone reads it.
    fn is_first(&self) -> bool {
        self.catalog.newest(Grade::Partial, self.now).is_none()
            && self.before.torn.is_none()
            && self.outcome(Torn::No) == Outcome::Snapshot(Grade::Complete)
    }

    /// What to make of the tree: partial at most if others are writing to it, or may be, or if its
    /// client says that it is not whole.
    fn outcome(&self, torn: Torn) -> Outcome {
        let is_whole = self.finish.allows_complete(&self.target.policy.snapshot_on_exit);
        let is_uncertain = self.beside > 0 || self.request.witness == Witness::Missing || !is_whole;
        match outcome(self.request.occasion, torn) {
            Outcome::Snapshot(Grade::Complete) if is_uncertain => Outcome::Snapshot(Grade::Partial),
            // What is owed cannot be had as it was, nor what a good push has brought just before somebody unknown failed;
            // what there is of it is worth a partial one.
            Outcome::StillTorn if self.request.is_owed || self.request.good_push().is_some() => {
                Outcome::Snapshot(Grade::Partial)
            }
            outcome => outcome,
        }
    }

    /// Nothing new is safe to publish; but a tree that equals the newest complete snapshot keeps that one current.
    fn stay_torn(&self, newest: Option<&Item>, comparison: &Comparison, report: &mut Report) -> Result<()> {
        log::info!("{}: still torn and not changed since; no snapshot", self.target.label());
        if let Some(newest) = newest.filter(|_| !comparison.differs()) {
            self.move_verified_until(newest)?;
        }
        report.ending = Ending::Torn;
        self.remember(Outlook::torn(None, self.torn_scan(comparison)))
    }

    fn verify(&self, newest: &Item, report: &mut Report) -> Result<()> {
        self.move_verified_until(newest)?;
        log::info!("{}: nothing changed since {}", self.target.label(), newest.name.text);
        report.ending = Ending::Unchanged;
        report.snapshot = Some(newest.name.text.clone());
        self.remember(Outlook::COMPLETE)
    }

    fn move_verified_until(&self, item: &Item) -> Result<()> {
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
        record.write(self.root.room("records")?.place(), &item.name.text)
    }

    /// Before a snapshot gets a successor: it cannot have been verified later than that is taken. If
    /// it says so, a wrong clock did, and once the successor is gone it would stand for what it never saw.
    pub(super) fn correct_verified_until(&self) -> Result<()> {
        if self.clock_history.borrow().doubt().is_some() {
            return Ok(());
        }
        let newest = self.catalog.newest(Grade::Complete, self.now);
        match newest.filter(|item| item.snapshot().verified_until > self.now) {
            Some(newest) => self.move_verified_until(newest),
            None => Ok(()),
        }
    }

    fn is_too_soon(&self, newest: &Item) -> bool {
        let is_transfer = matches!(self.request.occasion, Occasion::Transfer(_));
        let since_newest = self.now - newest.name.time;
        (is_transfer || self.request.only_if_due) && since_newest < self.target.policy.min_interval.delta()
    }

    fn put_off(&self, report: &mut Report) -> Result<()> {
        let interval = self.target.policy.min_interval;
        log::info!("{}: sooner than min_interval {interval}; marked due", self.target.label());
        report.ending = Ending::TooSoon;
        self.remember(Outlook { owed: true, ..Outlook::REPAIRED })
    }

    /// A partial snapshot, unless the newest one of any grade shows the same.
    fn publish_partial(&self, scan: Scan, newest: Option<&Item>, report: &mut Report) -> Result<()> {
        let Scan { comparison, index } = scan;
        if let Some(newest) = newest.filter(|_| !comparison.differs()) {
            self.move_verified_until(newest)?;
        }
        let newest_of_all = self.catalog.newest(Grade::Partial, self.now);
        let same = newest.map(|item| &item.name) == newest_of_all.map(|item| &item.name);
        let Scan { comparison, index } =
            if same { Scan { comparison, index } } else { self.compare(newest_of_all, report)? };
        match newest_of_all.filter(|_| !comparison.differs()) {
            Some(item) => {
                log::info!("{}: nothing changed since {}", self.target.label(), item.name.text);
                report.ending = Ending::Unchanged;
                report.snapshot = Some(item.name.text.clone());
                self.remember(Outlook::torn(Some(Grade::Partial), self.torn_scan(&comparison)))
            }
            None => self.publish(Grade::Partial, Some(&Scan { comparison, index }), report),
        }
    }

    /// Whether the debt is paid now that the tree is safe up to the grade `covered`.
    fn serves(&self, due: &DueMark, covered: Option<Grade>, is_torn: bool) -> bool {
        let is_by_ledger = matches!(due.reason, DueReason::Deferred | DueReason::Interrupted);
        // Of a torn tree, or an unfinished one, nothing better can be had, and whoever mends it brings a snapshot of its own.
        let is_torn = is_torn || self.finish == Finish::Unfinished;
        let is_beyond_help =
            is_torn && (is_by_ledger || self.request.is_owed) || !due.marked.is_of_this_boot();
        let wanted = if is_beyond_help && self.beside == 0 { Grade::Partial } else { due.asked.grade() };
        !due.marked.is_after(&self.scan_began) && covered.is_some_and(|covered| covered >= wanted)
    }

    fn last_run(&self, covered: Option<Grade>) -> LastRun {
        LastRun { time: self.now, scan_began: self.scan_began.clone(), covered }
    }

    /// Writes what the next run has to know.
    pub(super) fn remember(&self, outlook: Outlook) -> Result<()> {
        let limit = self.target.policy.clock_jump;
        let last_run = self.before.last_run.as_ref().map(|run| run.time);
        let jump = clock_jump(self.before.clock_jump.as_ref(), last_run, self.now, limit);
        State::update(self.root.private(), |state| {
            state.sequence = state.sequence.max(self.sequence.get());
            state.clock = Some(self.clock_history.borrow().clone());
            state.last_run = Some(self.last_run(outlook.covered));
            state.clock_jump = jump;
            state.full_comparison = Some(self.now).filter(|_| self.is_full.get()).or(state.full_comparison);
            if !is_new_mark(state.torn.as_ref(), self.before.torn.as_ref()) {
                match (outlook.repaired, &mut state.torn) {
                    _ if self.is_whole.get() => state.torn = None,
                    (true, torn) if self.request.witness == Witness::None => *torn = None,
                    (true, torn) => *torn = torn.take().and_then(TornMark::after_repair),
                    (false, Some(mark)) if mark.fingerprint.is_none() => mark.fingerprint = outlook.torn_scan,
                    _ => {}
                }
            }
            let is_torn = state.torn.is_some();
            state.due = state.due.take().filter(|due| !self.serves(due, outlook.covered, is_torn));
            if state.deferred_since.is_some() {
                // The next partial one beside pushes that never end has to wait as long again.
                state.deferred_since = Some(self.now).filter(|_| self.beside > 0);
            }
            // Somebody who gave up meanwhile was told that we would go once more.
            let is_promised =
                |due: &DueMark| due.reason == DueReason::LockBusy && due.marked.is_after(&self.scan_began);
            if outlook.owed && !state.due.as_ref().is_some_and(is_promised) {
                state.due = self.request.due_mark(DueReason::MinInterval, self.now, state.due.as_ref());
            }
        })
        .map(drop)
    }
}

/// What a pass has found out about the module's tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlook {
    /// The grade up to which the tree as it was is safe in a snapshot now.
    covered: Option<Grade>,
    /// It is a state that a transfer finished: no longer torn.
    repaired: bool,
    /// What to hold a standing torn mark against that has nothing yet.
    torn_scan: Option<Fingerprint>,
    /// A snapshot of it is still owed.
    owed: bool,
}

impl Outlook {
    /// Complete and safe.
    pub(super) const COMPLETE: Outlook = Outlook { covered: Some(Grade::Complete), ..Outlook::REPAIRED };
    /// A transfer that ended well has changed it.
    const REPAIRED: Outlook = Outlook { covered: None, repaired: true, torn_scan: None, owed: false };

    /// As torn as it was.
    pub(super) fn torn(covered: Option<Grade>, torn_scan: Option<Fingerprint>) -> Self {
        Outlook { covered, repaired: false, torn_scan, owed: false }
    }
}

/// Whether `mark` was set by another transfer than the one that `known` tells of.
pub(super) fn is_new_mark(mark: Option<&TornMark>, known: Option<&TornMark>) -> bool {
    mark.is_some_and(|mark| known.is_none_or(|known| known.noticed != mark.noticed))
}
