//! Holding the long lock: getting it, or finding the work done, or leaving a mark.
//!
//! Giving up and releasing both happen under the state's short lock. So whoever gives up either
//! still gets the long lock in that moment, or its mark is there before the holder looks for one.

use std::time::Duration;

use crate::decide::boot_time::BootTime;
use crate::decide::verdict_facts::DueReason;
use crate::module::target::Target;
use crate::run::request::Request;
use crate::store::job_queue::{LONG_JOB, QUEUE, QueuePlace, QueueWait};
use crate::store::lock::{DirLock, RootLock};
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, LastRun, State};
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// The long lock, held.
pub(crate) struct RunLock {
    lock: RootLock,
    /// Our turn among the jobs of this machine, once we have waited for it.
    turn: Option<QueuePlace>,
    /// Whether somebody else held it when we came.
    waited: bool,
    /// Marks set after this moment were set while we worked.
    since: BootTime,
}

/// How releasing the lock ended.
pub(crate) enum ReleaseOutcome {
    Released,
    /// Somebody gave up waiting for us; we still run_lock the lock.
    DueMeanwhile {
        mark: DueMark,
        lock: RunLock,
    },
}

impl RunLock {
    /// Waits up to `lock_wait`; `None` if the run that it waited for has done the work.
    ///
    /// # Errors
    /// [`Error::Busy`], after the root was marked due if a snapshot was asked for.
    pub(crate) fn acquire(
        target: &Target,
        root: &SnapshotRoot,
        request: &Request,
        clock: &Clock,
    ) -> Result<Option<Self>> {
        let holder = describe_self(target, request, clock);
        let mut lock = RootLock::open(root.private())?;
        if lock.try_acquire(&holder)? {
            return Ok(Some(RunLock { lock, turn: None, waited: false, since: BootTime::now() }));
        }
        // A process apart need not wait: the run that holds the lock goes once more for it, and
        // many would pile up.
        let is_apart = request.taken_over.is_some();
        let wait =
            Duration::from_secs(if is_apart { 0 } else { target.policy.lock_wait.seconds() });
        log::debug!("{}: waiting for {}", target.label(), lock.holder());
        // Many may wait, and most of them for the same: a run that is served need not wait for its
        // turn to see that.
        let is_served = || is_covered(root, request);
        let mut acquired = lock.acquire(&holder, wait, is_served)?;
        if !acquired && is_covered(root, request)? {
            return Ok(None);
        }
        acquired = acquired || give_up(root, request, clock, &mut lock, &holder)?;
        if !acquired {
            return Err(Error::Busy {
                root: escape_path(&root.path),
                holder: lock.holder(),
                waited_seconds: wait.as_secs(),
                consequence: consequence(request),
            });
        }
        Ok(Some(RunLock { lock, turn: None, waited: true, since: BootTime::now() }))
    }

    /// Waits up to `lock_wait` until it is our turn among the jobs of this machine. Only holders of
    /// a lock wait, so no run with a turn waits for a lock. Returns what to warn of, once logged.
    ///
    /// # Errors
    /// [`Error::Queue`], after the root was marked due if a snapshot was asked for.
    pub(crate) fn wait_for_turn(
        &mut self,
        target: &Target,
        root: &SnapshotRoot,
        request: &Request,
        clock: &Clock,
    ) -> Result<Option<String>> {
        // A rotation that goes on with a snapshot must not wait for itself.
        if self.turn.is_some() {
            return Ok(None);
        }
        // Without a place for the queue every job goes its own way.
        let Some(directory) = target.memory.directories.last() else { return Ok(None) };
        let max_parallel = target.policy.max_parallel.unwrap_or_else(processors);
        let wait = Duration::from_secs(target.policy.lock_wait.seconds());
        let label = escape_path(&root.path);
        match QueuePlace::wait(&directory.join(QUEUE), &label, max_parallel, wait, LONG_JOB) {
            Ok(QueueWait::Admitted(turn)) => self.turn = Some(turn),
            Ok(QueueWait::TimedOut(before)) => {
                State::update(root.private(), |state| {
                    let mark =
                        request.due_mark(DueReason::LockBusy, clock.now(), state.due.as_ref());
                    state.due = mark.or(state.due.take());
                })?;
                return Err(Error::Queue {
                    root: escape_path(&root.path),
                    waited_seconds: wait.as_secs(),
                    before,
                    max_parallel,
                    consequence: consequence(request),
                });
            }
            Err(error) => {
                let warning = format!(
                    "this run works at once, even if max_parallel runs do already, for it cannot wait in their queue: {error}"
                );
                log::warn!("{}: {warning}", target.label());
                return Ok(Some(warning));
            }
        }
        Ok(None)
    }

    /// Whether the run that we waited for has done our work: if its scan began after we were
    /// asked for. When it published proves nothing, for it may have read what our transfer
    /// changed before that.
    pub(crate) fn is_covered(&self, root: &SnapshotRoot, request: &Request) -> Result<bool> {
        Ok(self.waited && is_covered(root, request)?)
    }

    /// Releases the lock, unless a run has marked the root due while we held it.
    pub(crate) fn release_unless_due(self, root: &SnapshotRoot) -> Result<ReleaseOutcome> {
        let guard = DirLock::on_directory(root.private())?;
        let mark = State::read(root.private())?.due;
        let gave_up = mark
            .filter(|mark| mark.reason == DueReason::LockBusy && mark.marked.is_after(&self.since));
        if let Some(mark) = gave_up {
            drop(guard);
            return Ok(ReleaseOutcome::DueMeanwhile {
                mark,
                lock: RunLock { since: BootTime::now(), ..self },
            });
        }
        self.lock.release()?;
        drop(guard);
        Ok(ReleaseOutcome::Released)
    }
}

/// Takes the lock after all or marks the root due, whichever, as one step under the state's lock.
fn give_up(
    root: &SnapshotRoot,
    request: &Request,
    clock: &Clock,
    lock: &mut RootLock,
    holder: &str,
) -> Result<bool> {
    let guard = DirLock::on_directory(root.private())?;
    if lock.try_acquire(holder)? {
        return Ok(true);
    }
    State::update_guarded(root.private(), &guard, |state| {
        let mark = request.due_mark(DueReason::LockBusy, clock.now(), state.due.as_ref());
        state.due = mark.or(state.due.take());
    })?;
    Ok(false)
}

fn consequence(request: &Request) -> &'static str {
    match request.asked() {
        Some(_) => {
            "the snapshot is marked due: the other run or `rsyncd-snapshot snapshot --due` catches up"
        }
        None => "nothing was done",
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn describe_self(target: &Target, request: &Request, clock: &Clock) -> String {
    let occasion = match &request.client {
        Some(client) => format!("after a transfer from {}", client.address),
        None => "run by hand".to_string(),
    };
    let since = clock.now().format("%FT%TZ");
    format!("process {} for {} ({occasion}) since {since}\n", std::process::id(), target.label())
}

fn is_covered(root: &SnapshotRoot, request: &Request) -> Result<bool> {
    let last_run = State::read(root.private())?.last_run;
    Ok(last_run.is_some_and(|run| covers(&run, request)))
}

/// Whether the scan of `run` covers what `request` asks for.
fn covers(run: &LastRun, request: &Request) -> bool {
    run.scan_began.is_certain()
        && run.scan_began.is_after(&request.started)
        && run.covered.zip(request.asked()).is_some_and(|(covered, asked)| covered >= asked.grade())
}
