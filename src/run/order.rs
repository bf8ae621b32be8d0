//! The order of a run, and why a run that dies at any instant loses nothing.
//!
//! Set the torn mark, if the push failed → note the end of the push in the ledger → lock → join the
//! job queue → [take a snapshot](crate::run::snapshot) → rotate → unlock → hash new files.
//!
//! * The torn mark of a failed transfer is on disk before the ledger shows the transfer as ended,
//!   and before this run waits for the lock. So the run that holds the lock sees the mark before it
//!   publishes.
//! * Nothing is retired before the new snapshot, or the proof that none is needed, is durable.
//! * The lock is released under the state's short lock, after a look at the due mark. So a run that
//!   gave up waiting either is seen by the holder of the lock, or gets the lock itself.
//! * Hashing comes last: a file may be large, and no other run shall wait for that.

use chrono::{DateTime, Utc};

use crate::decide::boot_time::BootTime;
use crate::decide::root_overlap::Opener;
use crate::decide::transfer_decision::has_waited;
use crate::decide::verdict_facts::{ClientCompletion, DueReason};
use crate::module::target::Target;
use crate::run::lost_history::{begins_anew, holds_snapshots, moved_root, refusal_of_root};
use crate::run::marks::mark_before_lock;
use crate::run::memory::remember;
use crate::run::report::{Ending, Report};
use crate::run::request::Request;
use crate::run::rotate::{self, SpaceNeed};
use crate::run::run_lock::{ReleaseOutcome, RunLock};
use crate::run::session::Session;
use crate::run::verify::hashing::hash_contents;
use crate::run::{publish, snapshot, transfer};
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, State};
use crate::system::clock::Clock;
use crate::system::priority::lower_priority;
use crate::tell::error::{Error, Result};
use crate::tell::progress;

/// Takes a snapshot of `target` if the request calls for one, and rotates.
///
/// # Errors
/// If the work could not be done. Visible snapshots are untouched then.
pub fn run(target: &Target, request: &Request, clock: &Clock) -> Result<Report> {
    if request.opener() == Opener::Due && !target.is_registered() {
        return nothing_due(target);
    }
    let target = &target.clone().opened_by(request.opener());
    for mistake in &target.trouble {
        log::error!(
            "{}: nothing expires while the policy cannot be used: {mistake}",
            target.label()
        );
    }
    let is_lost = target.has_lost_history();
    let lost = if is_lost { begins_anew(target, request) } else { None };
    let moved = moved_root(target);
    let mut result = run_in_root(target, request, clock, is_lost);
    if let Ok(report) = &mut result {
        lost.into_iter().chain(moved).for_each(|message| report.warn(message));
    }
    remember(target, &result);
    if let Ok(report) = &mut result
        && hash_new_files(target, report, clock)
    {
        remember(target, &result);
    }
    result
}

/// The result for `--due`, such as from a timer, if the root is not registered. It is an error if
/// the root had a history: a lost history must not look like a new beginning.
fn nothing_due(target: &Target) -> Result<Report> {
    let error = target.lost_history().or_else(|| refusal_of_root(target));
    let result = error.map_or(Ok(Report::new(target, Ending::NotDue)), Err);
    if result.is_err() {
        remember(target, &result);
    }
    result
}

fn run_in_root(target: &Target, request: &Request, clock: &Clock, is_lost: bool) -> Result<Report> {
    target.check_nesting_in_hook()?;
    let holds_snapshots = is_lost && holds_snapshots(target);
    let root = target.open_root()?;
    root.check_method()?;
    if holds_snapshots {
        State::update(root.private(), |state| state.state_lost = true)?;
    }
    let session = Session { target, root: &root, clock };
    mark_before_lock(session, request)?;
    let entry = transfer::note_end(session, request)?;
    if let Some(report_taken_over) = request.report_taken_over {
        report_taken_over();
    }
    let mut result = lock_and_work(session, request.clone());
    if let (Ok(report), Some(warning)) = (&mut result, root.file_system_warning()) {
        report.warn(warning);
    }
    if let Some(entry) = entry
        && let Err(error) = transfer::settle(session, &entry, &result)
    {
        // The entry stays in the ledger, so the next run takes a snapshot for this push.
        match &mut result {
            Ok(report) => report.warn(error.to_string()),
            Err(_) => log::warn!("{}: {error}", session.label()),
        }
    }
    result
}

fn lock_and_work(session: Session, mut request: Request) -> Result<Report> {
    let Session { target, root, clock } = session;
    if request.only_if_due {
        match State::read(root.private())?.due {
            None => return Ok(Report::new(target, Ending::NotDue)),
            Some(mark) if awaits_client(target, root, &mark, clock.now()) => {
                log::info!(
                    "{}: no snapshot yet: the client has not finished its backup",
                    target.label()
                );
                return Ok(Report::new(target, Ending::Deferred));
            }
            Some(mark) => request = Request { only_if_due: true, ..Request::for_due_mark(&mark) },
        }
    }
    lower_priority(&target.policy);
    let Some(lock) = RunLock::acquire(session, &request)? else {
        return covered(session, &request);
    };
    if !lock.is_covered(root, &request)? {
        return work(session, request, lock);
    }
    match lock.release_unless_due(root)? {
        ReleaseOutcome::Released => covered(session, &request),
        ReleaseOutcome::DueMeanwhile { mark, lock } => {
            work(session, Request::for_due_mark(&mark), lock)
        }
    }
}

/// Takes a snapshot and rotates, under the lock. Repeats that for each run that gave up waiting for
/// the lock meanwhile.
fn work(session: Session, mut request: Request, mut lock: RunLock) -> Result<Report> {
    let Session { target, root, clock } = session;
    let (mut warnings, mut standing, mut unhashed) = (Vec::new(), Vec::new(), Vec::new());
    // This wait of up to a second comes before the job queue, so that no other job waits for it.
    publish::wait_for_free_second(root, clock, clock.now())?;
    warnings.extend(lock.join_job_queue(session, &request)?);
    loop {
        progress::enter("taking a snapshot");
        let mut report = snapshot::snapshot(session, &request)?;
        if report.is_success() && request.rotates {
            progress::enter("rotating");
            rotate::rotate_after_snapshot(session, &mut report)?;
        } else if report.is_failed_transfer() {
            rotate::free_retired(session, SpaceNeed::FailedTransfer)?
                .into_iter()
                .for_each(|warning| report.warn(warning));
        }
        warnings.append(&mut report.warnings);
        standing.append(&mut report.standing);
        unhashed.append(&mut report.unhashed);
        match lock.release_unless_due(root)? {
            ReleaseOutcome::Released => {
                return Ok(Report { warnings, standing, unhashed, ..report });
            }
            ReleaseOutcome::DueMeanwhile { mark, lock: still_held } => {
                log::info!(
                    "{}: another run gave up waiting for this one; its snapshot is taken now, too",
                    target.label()
                );
                request = Request::for_due_mark(&mark);
                lock = still_held;
            }
        }
    }
}

/// Hashes the new files of the snapshots in `report`, without the lock and without a place in the
/// job queue. Returns whether that brought warnings.
fn hash_new_files(target: &Target, report: &mut Report, clock: &Clock) -> bool {
    let known = report.warnings.len();
    for name in std::mem::take(&mut report.unhashed) {
        let hashed = target.open_root().and_then(|root| {
            let session = Session { target, root: &root, clock };
            hash_contents(&root, &name, |work| under_lock(session, work))
        });
        match hashed {
            Ok(None) => {}
            Ok(Some(message)) => report.warn(message),
            Err(error) => report.warn(format!("not all new files of {name} are hashed: {error}")),
        }
    }
    report.warnings.len() > known
}

/// Whether a due snapshot still waits for its client, which has said that its backup is unfinished.
/// It waits for at most `max_defer` after the mark was made.
pub(crate) fn awaits_client(
    target: &Target,
    root: &SnapshotRoot,
    mark: &DueMark,
    now: DateTime<Utc>,
) -> bool {
    mark.reason == DueReason::Deferred
        && root.module().map(ClientCompletion::of_module).ok() == Some(ClientCompletion::Unfinished)
        && !has_waited(Some(mark.since), now, target.policy.max_defer.delta())
}

/// Takes a snapshot that earlier pushes left to a transfer which then wrote nothing. `None` if no
/// snapshot is due for that reason.
///
/// # Errors
/// As [`run`].
pub(crate) fn serve_deferred(
    target: &Target,
    started: BootTime,
    clock: &Clock,
) -> Result<Option<Report>> {
    let root = target.open_root()?;
    let due = State::read(root.private())?.due;
    if due.is_none_or(|due| due.reason != DueReason::Deferred) {
        return Ok(None);
    }
    run(target, &Request { started, ..Request::manual(true) }, clock).map(Some)
}

fn covered(session: Session, request: &Request) -> Result<Report> {
    let Session { target, root, .. } = session;
    if request.ended.is_some() {
        State::update(root.private(), |state| request.note_push(state, &target.policy))?;
    }
    log::info!(
        "{}: nothing to do: another run read the module after this one had been asked for, and \
         has done the work",
        target.label()
    );
    Ok(Report::new(target, Ending::Covered))
}

/// Does `work` under the lock, then takes the snapshot that fell due meanwhile.
pub(crate) fn under_lock(session: Session, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let is_covered = || Error::Bug("a verification was covered by another run");
    let lock = RunLock::acquire(session, &Request::rotation())?.ok_or_else(is_covered)?;
    progress::enter("updating the inode log");
    let result = work();
    if let Err(error) = release_or_serve(session, lock)? {
        let label = session.label();
        log::warn!("{label}: {}", due_snapshot_failed(&error));
    }
    result
}

/// The warning about the `error` that [`release_or_serve`] returns.
pub(crate) fn due_snapshot_failed(error: &Error) -> String {
    format!(
        "another run asked for a snapshot while this command held the lock, and that snapshot \
         failed: {error}"
    )
}

/// Releases the lock. If a run gave up waiting for it, takes that run's snapshot first; the inner
/// error is that of the snapshot.
pub(crate) fn release_or_serve(session: Session, lock: RunLock) -> Result<Result<()>> {
    Ok(match lock.release_unless_due(session.root)? {
        ReleaseOutcome::Released => Ok(()),
        ReleaseOutcome::DueMeanwhile { mark, lock } => {
            work(session, Request::for_due_mark(&mark), lock).map(|mut report| {
                hash_new_files(session.target, &mut report, session.clock);
            })
        }
    })
}
