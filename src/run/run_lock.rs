//! The lock of a root and the place in the job queue that a run holds while it works.
//!
//! Giving up and releasing both happen under the state's short lock. So a run that gives up either
//! gets the lock in that moment, or leaves its due mark before the holder looks for one.

use std::time::Duration;

use crate::decide::boot_time::BootTime;
use crate::decide::lock_holder::LockHolder;
use crate::decide::verdict_facts::DueReason;
use crate::run::request::Request;
use crate::run::session::Session;
use crate::store::job_queue::{LONG_JOB, QUEUE, QueuePlace, QueueWait, long_jobs};
use crate::store::lock::{DirLock, RootLock};
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, LastRun, State};
use crate::tell::counted;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};
use crate::tell::progress::{self, PhaseWatch};
use crate::tell::wait_notice::WaitNotice;

/// The lock of a root, held.
pub(crate) struct RunLock {
    /// Writes what this run does into the lock file.
    _phases: PhaseWatch,
    lock: RootLock,
    /// The run's place in the job queue, once it has one.
    place: Option<QueuePlace>,
    /// Whether another run held the lock first.
    has_waited: bool,
    /// Due marks that were set after this moment were set while this run held the lock.
    since: BootTime,
}

pub(crate) enum ReleaseOutcome {
    Released,
    /// Another run gave up waiting for the lock and left this mark. The lock is still held.
    DueMeanwhile {
        mark: DueMark,
        lock: RunLock,
    },
}

impl RunLock {
    /// Waits up to `lock_wait`; `None` if the run that held the lock has done the work.
    ///
    /// # Errors
    /// [`Error::Busy`], after the root was marked due if a snapshot was asked for.
    pub(crate) fn acquire(session: Session, request: &Request) -> Result<Option<Self>> {
        let Session { target, root, .. } = session;
        let holder = describe_self(session, request);
        let mut lock = RootLock::open(root.private())?;
        let held = |lock: RootLock, has_waited| {
            let (_phases, since) = (note_phases(&lock, holder.clone()), BootTime::now());
            Ok(Some(RunLock { _phases, lock, place: None, has_waited, since }))
        };
        let line = line_of(&holder);
        if lock.try_acquire(&line)? {
            return held(lock, false);
        }
        // A detached process does not wait, because many waiting processes would pile up. It marks
        // the root due, and the run that holds the lock takes its snapshot, too.
        let is_detached = request.report_taken_over.is_some();
        let wait =
            Duration::from_secs(if is_detached { 0 } else { target.policy.lock_wait.seconds() });
        let notice = WaitNotice::begin();
        // Of many runs that wait for the same snapshot, only one has to make it; the others stop
        // waiting then.
        let is_served = |lock: &RootLock| {
            notice.tell_once(|| {
                let (label, root, holder) = (target.label(), root.label(), lock.holder());
                let limit = target.policy.lock_wait;
                format!("{label}: waits for up to {limit} for the lock of {root}: held by {holder}")
            });
            is_covered(root, request)
        };
        let mut acquired = lock.acquire(&line, wait, is_served)?;
        if !acquired && is_covered(root, request)? {
            return Ok(None);
        }
        acquired = acquired || give_up(session, request, &mut lock, &line)?;
        if !acquired {
            return Err(Error::Busy {
                root: escape_path(&root.path),
                holder: lock.holder(),
                waited_seconds: wait.as_secs(),
                consequence: consequence(request),
            });
        }
        held(lock, true)
    }

    /// Waits up to `lock_wait` for a place among the `max_parallel` jobs of this machine. Only
    /// holders of a lock wait here, so no run with a place waits for a lock. Returns a warning if
    /// the queue cannot be used; it is in the log then.
    ///
    /// # Errors
    /// [`Error::Queue`], after the root was marked due if a snapshot was asked for.
    pub(crate) fn join_job_queue(
        &mut self,
        session: Session,
        request: &Request,
    ) -> Result<Option<String>> {
        // This run may have a place already, if its rotation continues with another run's snapshot.
        // Then it must not queue a second time, behind itself.
        if self.place.is_some() {
            return Ok(None);
        }
        let Session { target, root, .. } = session;
        // Without a directory for the queue, each job works at once.
        let Some(directory) = target.memory.directories.last() else { return Ok(None) };
        let max_parallel = target.policy.max_parallel.unwrap_or_else(processors);
        let wait = Duration::from_secs(target.policy.lock_wait.seconds());
        let (queue, label) = (directory.join(QUEUE), escape_path(&root.path));
        let notice = WaitNotice::begin();
        let on_wait = |before| {
            notice.tell_once(|| {
                let jobs = long_jobs(&queue, Duration::ZERO).into_iter().map(|job| job.label);
                let jobs: Vec<String> = jobs.collect();
                let (label, limit) = (target.label(), target.policy.lock_wait);
                format!(
                    "{label}: waits for up to {limit} in the job queue: {} before it \
                     (max_parallel {max_parallel}), at work on {}",
                    counted(before, "job"),
                    jobs.join(", ")
                )
            });
        };
        progress::enter("waiting in the job queue");
        match QueuePlace::wait(&queue, &label, max_parallel, wait, LONG_JOB, on_wait) {
            Ok(QueueWait::Admitted(place)) => self.place = Some(place),
            Ok(QueueWait::TimedOut(before)) => {
                State::update(root.private(), |state| mark_lock_busy(session, request, state))?;
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
                    "this run works at once, even if max_parallel others do already, because the \
                     job queue cannot be used: {error}"
                );
                log::warn!("{}: {warning}", target.label());
                return Ok(Some(warning));
            }
        }
        Ok(None)
    }

    /// Whether the run that held the lock before has done the work: its scan began after this
    /// request. The time of its publication proves nothing, because it may have read a file before
    /// this request's transfer changed that.
    pub(crate) fn is_covered(&self, root: &SnapshotRoot, request: &Request) -> Result<bool> {
        Ok(self.has_waited && is_covered(root, request)?)
    }

    /// Releases the lock, unless another run has marked the root due meanwhile.
    pub(crate) fn release_unless_due(self, root: &SnapshotRoot) -> Result<ReleaseOutcome> {
        let guard = DirLock::on_directory(root.private())?;
        let mark = State::read(root.private())?.due;
        let gave_up = mark
            .filter(|mark| mark.reason == DueReason::LockBusy && mark.marked.is_after(&self.since));
        if let Some(mark) = gave_up {
            drop(guard);
            let lock = RunLock { since: BootTime::now(), ..self };
            return Ok(ReleaseOutcome::DueMeanwhile { mark, lock });
        }
        self.lock.release()?;
        drop(guard);
        Ok(ReleaseOutcome::Released)
    }
}

/// Takes the lock if it is free by now, and else marks the root due, in one step under the state's
/// lock. Returns whether the lock was taken.
fn give_up(session: Session, request: &Request, lock: &mut RootLock, holder: &str) -> Result<bool> {
    let directory = session.root.private();
    let guard = DirLock::on_directory(directory)?;
    if lock.try_acquire(holder)? {
        return Ok(true);
    }
    State::update_guarded(directory, &guard, |state| mark_lock_busy(session, request, state))?;
    Ok(false)
}

fn mark_lock_busy(session: Session, request: &Request, state: &mut State) {
    let mark = request.due_mark(DueReason::LockBusy, session.clock.now(), state.due.as_ref());
    state.due = mark.or(state.due.take());
    request.note_push(state, &session.target.policy);
}

fn consequence(request: &Request) -> &'static str {
    match request.asked() {
        Some(_) => {
            "the snapshot is marked due: the other run or `rsyncd-snapshot snapshot --due` \
             catches up"
        }
        None => "nothing was done",
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn describe_self(session: Session, request: &Request) -> LockHolder {
    let occasion = match &request.client {
        Some(client) => format!("after a transfer from {}", client.address),
        None => "run by hand".to_string(),
    };
    // Another machine that mounts the same CephFS finds this lock, too.
    let occasion = match session.root.has_only_sealed() {
        true => format!("{occasion} on {}", escape(rustix::system::uname().nodename().to_bytes())),
        false => occasion,
    };
    LockHolder {
        pid: std::process::id(),
        module: session.label(),
        occasion,
        phase: None,
        since: session.clock.now(),
    }
}

fn line_of(holder: &LockHolder) -> String {
    format!("{holder}\n")
}

/// From now on the lock file names each phase that this run begins.
fn note_phases(lock: &RootLock, holder: LockHolder) -> PhaseWatch {
    let write = lock.holder_writer();
    progress::watch(move |phase| {
        write(&line_of(&LockHolder { phase: Some(phase.to_string()), ..holder.clone() }));
    })
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
