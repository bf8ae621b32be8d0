//! The findings of `check` about what is at work: runs, hooks and pushes, and about what killed
//! ones have left due.

use chrono::{DateTime, TimeDelta, Utc};

use crate::command::finding::Severity;
use crate::decide::duration_text::roughly;
use crate::decide::free_space::bytes_text;
use crate::decide::liveness::{Liveness, unseen_limit};
use crate::decide::lock_holder::LockHolder;
use crate::decide::transfer_decision::has_waited;
use crate::decide::verdict_facts::DueReason;
use crate::module::target::Target;
use crate::store::job_queue::{LONG_JOB, QUEUE, long_jobs};
use crate::store::ledger_entry::StoredEntry;
use crate::store::lock;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::system::pid_namespace::PidNamespace;
use crate::system::process::Process;
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
        LockHolder::parse(text).is_some_and(|holder| now - holder.since > LONG_RUN)
    })?;
    Some(format!(
        "a run has held the lock for more than {}: {text}; no other run can begin. It may wait \
         for a disk or a server that does not answer, or have much to do: look at that process",
        roughly(LONG_RUN)
    ))
}

/// What runs and pushes in the ledger have left or are doing.
pub(crate) struct Activity<'a> {
    target: &'a Target,
    state: &'a State,
    entries: &'a [StoredEntry],
    now: DateTime<Utc>,
    /// The run that holds the lock, in its own words.
    holder: Option<String>,
}

impl<'a> Activity<'a> {
    /// Looks who holds the lock of the root.
    pub(crate) fn of(
        target: &'a Target,
        root: &SnapshotRoot,
        state: &'a State,
        entries: &'a [StoredEntry],
        now: DateTime<Utc>,
    ) -> Self {
        // The text of a run that was killed stays in the file.
        let holder =
            if root.is_registered() { lock::holder_of(root.private(), &is_alive) } else { None };
        Activity { target, state, entries, now, holder }
    }

    /// The run that is at work, or the hook that has just begun to be; none if none is.
    pub(crate) fn at_work(&self) -> Option<String> {
        let hook = self.entries.iter().find(|stored| {
            stored.writes() && stored.status.is_some() && self.liveness(stored) == Liveness::Alive
        });
        match (&self.holder, hook) {
            (Some(holder), _) => Some(format!("a run is at work: {holder}")),
            (None, Some(stored)) => Some(format!(
                "the hook after the push of {} is at work: process {}",
                stored.who(),
                stored.pid
            )),
            (None, None) => None,
        }
    }

    /// The run that holds the lock, in its own words.
    pub(crate) fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
    }

    /// The pushes that run now, as far as is known.
    pub(crate) fn pushes(&self) -> impl Iterator<Item = &StoredEntry> {
        self.entries.iter().filter(|stored| stored.is_running_push() && !self.is_dead(stored))
    }

    fn liveness(&self, stored: &StoredEntry) -> Liveness {
        stored.liveness(self.now, self.limit())
    }

    fn limit(&self) -> TimeDelta {
        unseen_limit(self.target.policy.max_defer)
    }

    fn is_dead(&self, stored: &StoredEntry) -> bool {
        self.liveness(stored) == Liveness::Dead
    }

    /// The due mark, unless the snapshot has only to wait. `awaits_client`: it is left to its
    /// client. A run that is at work takes it, too.
    pub(crate) fn due_mark(&self, awaits_client: bool) -> Option<String> {
        let is_running = |stored: &StoredEntry| stored.is_running_push() && !self.is_dead(stored);
        let is_waiting = awaits_client || self.entries.iter().any(is_running);
        // A deferred snapshot is no trouble for up to `max_defer`, as long as the push that it
        // waits for is running or may come.
        let max_defer = self.target.policy.max_defer.delta();
        let due = self.state.due.as_ref().filter(|due| {
            let can_wait = due.reason == DueReason::Deferred && is_waiting;
            let has_waited = has_waited(Some(due.since), self.now, max_defer);
            has_waited || (!can_wait && self.at_work().is_none())
        })?;
        Some(format!(
            "a snapshot is due since {}, {}; to take it now, run `{}`; the timer \
             (rsyncd-snapshot.timer, or `rsyncd-snapshot snapshot --all --due` in cron) does that \
             by itself",
            due.since.format("%FT%TZ"),
            why_due(due.reason),
            self.target.command("snapshot", "--due")
        ))
    }

    /// Pushes in the ledger whose hook has died. `hook_fails`: the next one will, too.
    pub(crate) fn orphans(&self, hook_fails: bool) -> Vec<String> {
        let first = match hook_fails {
            true => "mend the hook first, as its own line tells, and then ",
            false => "",
        };
        let orphans = self.entries.iter().filter(|stored| stored.writes() && self.is_dead(stored));
        let describe = |stored: &StoredEntry| {
            format!(
                "the push of {} (process {}) got no snapshot, for its hook did not run to the end; \
                 {first}run `{}`",
                stored.who(),
                stored.pid,
                self.target.command("snapshot", "--due")
            )
        };
        orphans.map(describe).collect()
    }

    /// Pushes whose processes cannot be seen from here, while they still count as running.
    pub(crate) fn unseen_pushes(&self) -> Vec<String> {
        let is_unseen =
            |stored: &&StoredEntry| stored.writes() && self.liveness(stored) == Liveness::Unknown;
        let why = PidNamespace::own().err().unwrap_or("it is of another machine or PID namespace");
        let describe = |stored: &StoredEntry| {
            let what = if stored.status.is_some() { "hook after the push" } else { "push" };
            format!(
                "the {what} of {} (process {} of transfers/{}) began at {} and cannot be seen from \
                 here: {why}; it counts as running for {}: if it has ended, run `{}` where its \
                 daemon runs, or as root on the host of that container; if that is gone, run `{}`",
                stored.who(),
                stored.pid,
                stored.file(),
                stored.began.format("%FT%TZ"),
                roughly(self.limit()),
                self.target.command("snapshot", "--due"),
                self.target.command("release", "--unseen"),
            )
        };
        self.entries.iter().filter(is_unseen).map(describe).collect()
    }

    /// Pushes that run now, each with whether it takes much longer than is usual for its client.
    /// `written`: how many bytes the children of a process have written, if that can be seen.
    pub(crate) fn running_pushes(
        &self,
        written: &dyn Fn(u32) -> Option<u64>,
    ) -> Vec<(Severity, String)> {
        let is_running = |stored: &&StoredEntry| {
            stored.is_running_push() && self.liveness(stored) == Liveness::Alive
        };
        self.entries.iter().filter(is_running).map(|one| self.running_push(one, written)).collect()
    }

    fn running_push(
        &self,
        stored: &StoredEntry,
        written: &dyn Fn(u32) -> Option<u64>,
    ) -> (Severity, String) {
        let entry = stored.entry.as_ref();
        let age = stored.age(self.now);
        let worker = entry.and_then(|entry| entry.worker.as_ref());
        let worker = worker.filter(|worker| worker.is_alive());
        let written = worker.and_then(|worker| written(worker.pid));
        let written = written.map(|bytes| format!(", {} written so far", bytes_text(bytes)));
        let what = format!(
            "a push of {} has been running since {} ({}{})",
            entry.map_or(stored.who(), |entry| entry.client.label()),
            stored.began.format("%FT%TZ"),
            roughly(age),
            written.unwrap_or_default()
        );
        let usual = entry.and_then(|entry| self.state.pushes.usual_seconds(&entry.client));
        match usual.filter(|usual| takes_too_long(age, *usual)) {
            None => (Severity::Ok, what),
            Some(usual) => {
                let usual = i64::try_from(usual).unwrap_or(i64::MAX / 1_000);
                let message = format!(
                    "{what}, which is more than {TOO_LONG} times as long as usual ({}): see what \
                     its client does; to end the push, run `kill {}`, and let the client push \
                     again; `timeout = 600` in rsyncd.conf ends pushes of clients that sleep",
                    roughly(TimeDelta::seconds(usual)),
                    stored.pid
                );
                (Severity::Warning, message)
            }
        }
    }
}

/// A push that takes so many times as long as is usual for its client may hang.
const TOO_LONG: u64 = 10;

/// No push that takes less time is reported as too long.
const LONG_PUSH: TimeDelta = TimeDelta::hours(1);

fn takes_too_long(age: TimeDelta, usual_seconds: u64) -> bool {
    let limit = i64::try_from(usual_seconds.saturating_mul(TOO_LONG)).unwrap_or(i64::MAX);
    age > LONG_PUSH && age.num_seconds() > limit
}

pub(crate) fn why_due(reason: DueReason) -> &'static str {
    match reason {
        DueReason::LockBusy => "because a run gave up waiting for another one",
        DueReason::MinInterval => {
            "because a push came sooner than `min_interval` after the last one"
        }
        DueReason::Deferred => "because it was left to a push that was still running or to come",
        DueReason::Interrupted => "because the hook of a push was killed or never ran",
    }
}

/// Whether the process exists that a run has named in the lock file.
fn is_alive(holder: &str) -> bool {
    let holder = LockHolder::parse(holder);
    holder.is_some_and(|holder| Process::of(holder.pid).is_ok_and(|found| found.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_too_long_by_what_is_usual_and_by_the_hour() {
        for (minutes, usual_seconds, expected) in [
            (59, 1, false),
            (61, 1, true),
            (61, 600, false),
            (101, 600, true),
            (10_000, u64::MAX, false),
        ] {
            let age = TimeDelta::minutes(minutes);
            assert_eq!(takes_too_long(age, usual_seconds), expected, "{minutes} {usual_seconds}");
        }
    }

    #[test]
    fn the_holder_of_the_lock_is_alive_if_its_process_is() {
        let own = std::process::id();
        assert!(is_alive(&format!(
            "process {own} for data (run by hand) since 2026-11-22T19:08:31Z"
        )));
        for dead in ["", "an unknown process", "process x for data", "process 4194305 for data"] {
            assert!(!is_alive(dead), "{dead}");
        }
    }
}
