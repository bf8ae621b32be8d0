//! The order of a run.

use chrono::{DateTime, Utc};

use crate::decide::boot_time::BootTime;
use crate::decide::root_overlap::Opener;
use crate::decide::verdict::has_waited;
use crate::decide::verdict_facts::{ClientCompletion, DueReason};
use crate::module::target::Target;
use crate::run::marks::mark_before_lock;
use crate::run::memory::{moved_root, remember};
use crate::run::report::{Ending, Report};
use crate::run::request::Request;
use crate::run::run_lock::{ReleaseOutcome, RunLock};
use crate::run::verify::hashing::hash_contents;
use crate::run::{publish, rotate, snapshot, transfer};
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, State};
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// Takes a snapshot of `target` if the request earns one, and rotates.
///
/// # Errors
/// If the work could not be done; what was already visible is untouched.
pub fn run(target: &Target, request: &Request, clock: &Clock) -> Result<Report> {
    if request.opener() == Opener::Due && !target.is_registered() {
        // A timer must not make the loss of a history look like a new beginning.
        let error = target.lost_history().or_else(|| refusal_of_root(target));
        let result = error.map_or(Ok(Report::new(target, Ending::NotDue)), Err);
        if result.is_err() {
            remember(target, &result);
        }
        return result;
    }
    let target = &target.clone().opened_by(request.opener());
    for mistake in &target.trouble {
        log::error!(
            "{}: nothing expires while the policy cannot be used: {mistake}",
            target.label()
        );
    }
    let lost = target.lost_history().and_then(|_| begins_anew(target, request));
    let moved = moved_root(target);
    let mut result = run_in_root(target, request, clock);
    if let Ok(report) = &mut result {
        for message in lost.into_iter().chain(moved) {
            report.warn(&target.label(), message);
        }
    }
    remember(target, &result);
    if let Ok(report) = &mut result
        && hash_new(target, report, clock)
    {
        remember(target, &result);
    }
    result
}

/// Hashes what is new in the snapshots that were made, when neither lock nor turn is held and the
/// push is settled. Whether there is more to be told than before.
fn hash_new(target: &Target, report: &mut Report, clock: &Clock) -> bool {
    let known = report.warnings.len();
    for name in std::mem::take(&mut report.unhashed) {
        let hashed = target.open_root().and_then(|root| {
            hash_contents(&root, &name, |work| under_lock(target, &root, clock, work))
        });
        match hashed {
            Ok(None) => {}
            Ok(Some(message)) => report.warn(&target.label(), message),
            Err(error) => {
                report.warn(
                    &target.label(),
                    format!("not all new files of {name} are hashed: {error}"),
                );
            }
        }
    }
    report.warnings.len() > known
}

fn run_in_root(target: &Target, request: &Request, clock: &Clock) -> Result<Report> {
    target.check_nesting_in_hook()?;
    let root = target.open_root()?;
    mark_before_lock(target, &root, request, clock.exact_now())?;
    let own = transfer::note_end(target, &root, request, clock)?;
    if let Some(taken_over) = request.taken_over {
        taken_over();
    }
    let mut result = serve(target, &root, request.clone(), clock);
    if let (Ok(report), Some(warning)) = (&mut result, root.file_system_warning()) {
        report.warn(&target.label(), warning);
    }
    if let Some(line) = own
        && let Err(error) = transfer::settle(target, &root, &line, &result)
    {
        match &mut result {
            // The next run takes the push for one without a snapshot.
            Ok(report) => report.warn(&target.label(), error.to_string()),
            Err(_) => log::warn!("{}: {error}", target.label()),
        }
    }
    result
}

fn serve(
    target: &Target,
    root: &SnapshotRoot,
    mut request: Request,
    clock: &Clock,
) -> Result<Report> {
    if request.only_if_due {
        match State::read(root.private())?.due {
            None => return Ok(Report::new(target, Ending::NotDue)),
            Some(mark) if awaits_client(target, root, &mark, clock.now()) => {
                log::info!("{}: left to its client, which has not finished", target.label());
                return Ok(Report::new(target, Ending::Deferred));
            }
            Some(mark) => request = Request { only_if_due: true, ..Request::owed(&mark) },
        }
    }
    crate::system::priority::lower_priority(&target.policy);
    let Some(run_lock) = RunLock::acquire(target, root, &request, clock)? else {
        return Ok(covered(target));
    };
    if !run_lock.is_covered(root, &request)? {
        return work(target, root, request, clock, run_lock);
    }
    match run_lock.release_unless_due(root)? {
        ReleaseOutcome::Released => Ok(covered(target)),
        ReleaseOutcome::DueMeanwhile { mark, lock: run_lock } => {
            work(target, root, Request::owed(&mark), clock, run_lock)
        }
    }
}

/// Whether what is owed may still be had as its client means it to be.
pub(crate) fn awaits_client(
    target: &Target,
    root: &SnapshotRoot,
    mark: &DueMark,
    now: DateTime<Utc>,
) -> bool {
    mark.reason == DueReason::Deferred
        && ClientCompletion::of_module(root.module()) == ClientCompletion::Unfinished
        && !has_waited(Some(mark.since), now, target.policy.max_defer.delta())
}

/// Serves the pushes that were left to a transfer which wrote nothing, if there are any.
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

fn covered(target: &Target) -> Report {
    log::info!(
        "{}: nothing to do: a run that read the module later than this one was asked for has done the work",
        target.label()
    );
    Report::new(target, Ending::Covered)
}

/// Works under the lock, again for whoever gave up waiting meanwhile.
fn work(
    target: &Target,
    root: &SnapshotRoot,
    mut request: Request,
    clock: &Clock,
    mut run_lock: RunLock,
) -> Result<Report> {
    let (mut warnings, mut losses, mut unhashed) = (Vec::new(), Vec::new(), Vec::new());
    // Before anybody has to wait for us.
    publish::wait_for_free_second(root, clock, clock.now())?;
    warnings.extend(run_lock.wait_for_turn(target, root, &request, clock)?);
    loop {
        let mut report = snapshot::snapshot(target, root, &request, clock)?;
        if report.is_success() && request.rotates {
            rotate::rotate_after_snapshot(target, root, clock, &mut report)?;
        } else if report.is_failed_transfer() {
            for warning in rotate::free_retired(target, root, clock)? {
                report.warn(&target.label(), warning);
            }
        }
        warnings.append(&mut report.warnings);
        losses.append(&mut report.losses);
        unhashed.append(&mut report.unhashed);
        match run_lock.release_unless_due(root)? {
            ReleaseOutcome::Released => return Ok(Report { warnings, losses, unhashed, ..report }),
            ReleaseOutcome::DueMeanwhile { mark, lock } => {
                log::info!(
                    "{}: another run gave up waiting for this one; its snapshot is taken now, too",
                    target.label()
                );
                request = Request::owed(&mark);
                run_lock = lock;
            }
        }
    }
}

/// The same for what fell due while another work held the lock.
pub(crate) fn work_and_hash(
    target: &Target,
    root: &SnapshotRoot,
    request: Request,
    clock: &Clock,
    run_lock: RunLock,
) -> Result<()> {
    let mut report = work(target, root, request, clock, run_lock)?;
    hash_new(target, &mut report, clock);
    Ok(())
}

/// Works under the root's long lock.
pub(crate) fn under_lock(
    target: &Target,
    root: &SnapshotRoot,
    clock: &Clock,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let request = Request::rotation();
    let is_covered = || Error::Bug("a verification was covered by another run");
    let run_lock = RunLock::acquire(target, root, &request, clock)?.ok_or_else(is_covered)?;
    let result = work();
    if let ReleaseOutcome::DueMeanwhile { mark, lock: run_lock } =
        run_lock.release_unless_due(root)?
        && let Err(error) =
            crate::run::order::work_and_hash(target, root, Request::owed(&mark), clock, run_lock)
    {
        log::warn!("{}: the snapshot that fell due meanwhile failed: {error}", target.label());
    }
    result
}

/// Why the root is not this module's, if it is registered for another one.
fn refusal_of_root(target: &Target) -> Option<Error> {
    let is_taken = matches!(SnapshotRoot::registration(&target.root_path), Ok(Some(_)));
    target.look_at_root().err().filter(|_| is_taken)
}

/// What a run says that begins a new history where another one is missing. A person who names the
/// module means that; after a push the disk may be one that is not mounted.
fn begins_anew(target: &Target, request: &Request) -> Option<String> {
    let root = escape_path(&target.root_path);
    if request.opener() == Opener::Snapshot {
        log::info!("{}: the earlier history in {root} is gone; a new one begins", target.label());
        return None;
    }
    Some(format!(
        "the earlier history in {root} is gone, and this push began a new one; if a disk is not \
         mounted there, move away what is there now and mount it"
    ))
}
