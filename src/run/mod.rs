//! The order of a run: mark, end in the ledger, lock, wait for a turn, clean up, close the gate,
//! compare, open it, publish, remember, rotate, unlock.
//!
//! * A failed transfer marks the root torn *before* the ledger lets others take the tree for whole,
//!   and before it waits for the lock: the run that holds it sees the mark before it publishes.
//! * The tree is read behind a closed [gate](crate::store::gate), while no push is running; if one
//!   is, the snapshot is left to the last of them.
//! * Nothing is retired before the new snapshot, or the proof that none is needed, is durable.
//! * The lock is released under the state's own lock after a look at the due mark: a run that
//!   gave up waiting is either seen by the holder or gets the lock itself.

mod admission;
mod approach;
mod caller;
mod facts;
mod hold;
pub mod losses;
mod publish;
mod reap;
mod report;
mod request;
mod room;
mod rotate;
mod scan;
mod sharing;
mod snapshot;
mod transfer;
pub mod verify;

use chrono::{DateTime, Utc};

pub use admission::{Admission, Applicant, admit, note_refusal};
pub use reap::end_unseen;
pub use report::{Ending, Report};
pub use request::{Asker, Request};
pub use rotate::{Disposal, Examined, Rotated, examine, look, rotate};
pub use sharing::refused_without_target;
pub use transfer::{
    Ended, Seen, forget_reader, is_noted_reader, leave_to_client, look_up, release_torn, strike,
};

use crate::clock::Clock;
use crate::config::target::Target;
use crate::decide::own_output::Opener;
use crate::decide::verdict::{ClientCompletion, DueReason, Moment, Worth, has_waited, verdict};
use crate::store::boot::BootTime;
use crate::store::memory::{Failure, Work};
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, State};
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};
use facts::{facts, scar_times};
use hold::{Hold, Released};

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
        let hashed =
            target.open_root().and_then(|root| verify::hash_contents(target, &root, &name, clock));
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
    crate::resources::lower_priority(&target.policy);
    let Some(hold) = Hold::acquire(target, root, &request, clock)? else {
        return Ok(covered(target));
    };
    if !hold.is_covered(root, &request)? {
        return work(target, root, request, clock, hold);
    }
    match hold.release_unless_due(root)? {
        Released::Yes => Ok(covered(target)),
        Released::Due { mark, held } => work(target, root, Request::owed(&mark), clock, held),
    }
}

/// Whether what is owed may still be had as its client means it to be.
pub fn awaits_client(
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
pub fn serve_deferred(target: &Target, started: BootTime, clock: &Clock) -> Result<Option<Report>> {
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
    mut hold: Hold,
) -> Result<Report> {
    let (mut warnings, mut losses, mut unhashed) = (Vec::new(), Vec::new(), Vec::new());
    // Before anybody has to wait for us.
    publish::wait_for_free_second(root, clock, clock.now())?;
    warnings.extend(hold.wait_for_turn(target, root, &request, clock)?);
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
        match hold.release_unless_due(root)? {
            Released::Yes => return Ok(Report { warnings, losses, unhashed, ..report }),
            Released::Due { mark, held } => {
                log::info!(
                    "{}: another run gave up waiting for this one; its snapshot is taken now, too",
                    target.label()
                );
                request = Request::owed(&mark);
                hold = held;
            }
        }
    }
}

/// The same for what fell due while another work held the lock.
fn work_and_hash(
    target: &Target,
    root: &SnapshotRoot,
    request: Request,
    clock: &Clock,
    hold: Hold,
) -> Result<()> {
    let mut report = work(target, root, request, clock, hold)?;
    hash_new(target, &mut report, clock);
    Ok(())
}

/// What must be on disk before anything waits: the torn mark, or the end of it by a good push that
/// makes up for it, and that the root has had a policy.
fn mark_before_lock(
    target: &Target,
    root: &SnapshotRoot,
    request: &Request,
    now: DateTime<Utc>,
) -> Result<()> {
    let earlier = target.memory.recall(&target.module_path).and_then(|memory| memory.torn);
    let is_good_push = request.push.is_some() && request.asker == Asker::Transfer(Worth::Complete);
    let standing = State::read(root.private()).ok().and_then(|state| state.torn);
    let times = scar_times(root, standing.as_ref().filter(|_| is_good_push));
    let moment = Moment::Ended { now, noticed: &request.started, scar_times: &times };
    let marks_on = |state: &State| verdict(&facts(target, root, request, state, moment)).marks;
    let new = marks_on(&State::default());
    if let (Some(_), Some(status)) = (&new, request.status) {
        log::warn!(
            "{}: the transfer ended with status {status}; the module is torn: it may be a mixture of old and new files until that push is repeated",
            target.label()
        );
    }
    let in_place = request.push.as_ref().is_some_and(|push| push.in_place);
    let marked = State::update(root.private(), |state| {
        if let Some(mark) = &earlier {
            state.torn = Some(mark.clone().on_top_of(state.torn.as_ref()));
        }
        state.torn = marks_on(state);
        state.written_in_place |= in_place;
    })
    .and_then(|_| remember_policy(target, root));
    let kept = match (&marked, new) {
        // On a full disk the mark is kept elsewhere, beside those of others, until there is room
        // for it again.
        (Err(_), Some(mark)) => target.memory.change(&target.module_path, |memory| {
            memory.torn = Some(mark.clone().on_top_of(memory.torn.as_ref()));
        }),
        (Ok(_), _) if earlier.is_some() => target.memory.change(&target.module_path, |memory| {
            memory.torn = memory.torn.take().filter(|mark| Some(mark) != earlier.as_ref());
        }),
        _ => Ok(()),
    };
    if let Err(error) = kept {
        log::error!(
            "{}: it can be recorded nowhere that a push failed and may have left a mixture of old and new files: {error}",
            target.label()
        );
    }
    marked
}

/// Remembers that the root has had a policy, so that nothing expires should its file vanish.
fn remember_policy(target: &Target, root: &SnapshotRoot) -> Result<()> {
    let Some(file) = target.policy_file.as_deref().map(escape_path) else { return Ok(()) };
    State::update(root.private(), |state| state.policy_file = Some(file)).map(drop)
}

/// Remembers the outcome outside the root; never fails a run. Only a success makes up for an
/// earlier failure.
fn remember(target: &Target, result: &Result<Report>) {
    let failure = match result {
        Ok(report) if report.policy_trouble => Some(format!(
            "the policy cannot be used, nothing expires: {}",
            target.trouble.join("; ")
        )),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    let failure = failure.map(|message| Failure::now(Work::Snapshot, message));
    let success = result.as_ref().ok().filter(|report| report.is_success());
    // A root that a failed run did not get to register was never used.
    let root = target.is_surely_registered().then_some(target.root_path.as_path());
    let name = target.name.as_deref().map(escape);
    let remembered = target.memory.change(&target.module_path, |memory| {
        memory.module = name.clone().or(memory.module.take());
        root.iter().for_each(|root| memory.set_root(root));
        if let Some(report) = success {
            memory.failure = None;
            memory.warnings = report.warnings.clone();
        }
        if failure.is_some() {
            memory.failure.clone_from(&failure);
        }
    });
    if let Err(error) = remembered {
        log::debug!("nothing remembered outside the snapshot root: {error}");
    }
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

/// What to say if the module's snapshots used to be made elsewhere.
fn moved_root(target: &Target) -> Option<String> {
    let now = escape_path(&target.root_path);
    let before = target.memory.recall(&target.module_path)?.snapshot_root?;
    (before != now).then(|| {
        format!("snapshots are made in {now} from now on; those in {before} are no longer rotated")
    })
}
