//! The findings of `check` about runs: long ones, due marks, and pushes without a snapshot.

use chrono::{DateTime, TimeDelta, Utc};

use crate::command::push_findings::describe_torn;
use crate::decide::duration_text::roughly;
use crate::decide::liveness::Liveness;
use crate::decide::verdict::has_waited;
use crate::decide::verdict_facts::DueReason;
use crate::module::target::Target;
use crate::store::job_queue::{LONG_JOB, QUEUE, long_jobs};
use crate::store::ledger_entry::StoredEntry;
use crate::store::lock;
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, State};
use crate::system::pid_namespace::PidNamespace;
use crate::tell::escape::escape_path;

/// A run on this root that has worked for so long that other jobs no longer wait for it.
pub(crate) fn long_job(target: &Target) -> Option<String> {
    let queue = target.memory.directories.last()?.join(QUEUE);
    let own = escape_path(&target.root_path);
    let job = long_jobs(&queue, LONG_JOB).into_iter().find(|job| job.label == own)?;
    let worked = TimeDelta::from_std(job.worked).unwrap_or(TimeDelta::MAX);
    Some(format!(
        "a run has been at work for {}; it no longer counts for max_parallel, so others do not \
         wait for it",
        roughly(worked)
    ))
}

/// How long a run may take before `check` names it.
const LONG_RUN: TimeDelta = TimeDelta::hours(6);

/// A run that has held the lock for longer than [`LONG_RUN`].
pub(crate) fn long_run(root: &SnapshotRoot, now: DateTime<Utc>) -> Option<String> {
    if !root.is_registered() {
        return None;
    }
    let text = lock::holder_of(root.private(), &|text| {
        began(text).is_some_and(|since| now - since > LONG_RUN)
    })?;
    Some(format!(
        "a run has held the lock for more than {}: {text}; others wait for it in vain. It may wait \
         for a disk or a server that does not answer, or have much to do: look at that process",
        roughly(LONG_RUN)
    ))
}

/// When a run began, by its description in the lock file.
fn began(holder: &str) -> Option<DateTime<Utc>> {
    let since = holder.rsplit_once(" since ")?.1.trim();
    DateTime::parse_from_rfc3339(since).ok().map(|since| since.to_utc())
}

/// The torn mark, the due mark unless it has only to wait, and pushes in the ledger whose hook has
/// died. `awaits_client`: the due snapshot is left to its client.
pub(crate) fn open_marks(
    state: &State,
    awaits_client: bool,
    entries: &[StoredEntry],
    now: DateTime<Utc>,
    max_defer: TimeDelta,
    limit: TimeDelta,
) -> Vec<String> {
    let is_dead = |stored: &StoredEntry| stored.liveness(now, limit) == Liveness::Dead;
    let is_waiting =
        awaits_client || entries.iter().any(|stored| stored.is_running_push() && !is_dead(stored));
    // A deferred snapshot is no trouble for up to `max_defer`, as long as the push that it waits
    // for is running or may come.
    let can_wait = |due: &DueMark| due.reason == DueReason::Deferred && is_waiting;
    let is_overdue = |due: &&DueMark| !can_wait(due) || has_waited(Some(due.since), now, max_defer);
    let due = state.due.as_ref().filter(is_overdue);
    let due = due.map(|due| {
        format!("a snapshot is due since {}: run `snapshot --due`", due.since.format("%FT%TZ"))
    });
    let orphans = entries.iter().filter(|stored| stored.writes() && is_dead(stored)).map(|stored| {
        format!(
            "the push of {} (process {}) got no snapshot, for its hook did not run to the end: run \
             `snapshot --due`",
            stored.who(),
            stored.pid
        )
    });
    state.torn.as_ref().map(describe_torn).into_iter().chain(due).chain(orphans).collect()
}

/// Pushes whose processes cannot be seen from here, while they still count as running.
pub(crate) fn unseen_pushes(
    entries: &[StoredEntry],
    now: DateTime<Utc>,
    limit: TimeDelta,
) -> Vec<String> {
    let is_unseen =
        |stored: &&StoredEntry| stored.writes() && stored.liveness(now, limit) == Liveness::Unknown;
    let why = PidNamespace::own().err().unwrap_or("it is of another machine or PID namespace");
    let describe = |stored: &StoredEntry| {
        let what = if stored.status.is_some() { "hook after the push" } else { "push" };
        format!(
            "the {what} of {} (process {} of transfers/{}) began at {} and cannot be seen from \
             here: {why}; it counts as running for {}: if it has ended, run `snapshot --due` where \
             its daemon runs, or as root on the host of that container; if that is gone, run \
             `release --unseen`",
            stored.who(),
            stored.pid,
            stored.file(),
            stored.began.format("%FT%TZ"),
            roughly(limit),
        )
    };
    entries.iter().filter(is_unseen).map(describe).collect()
}
