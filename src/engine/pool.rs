//! Workers that share one walk over a tree.
//!
//! A worker walks its subtree depth first. It gives a subtree away only when another worker has
//! nothing to do, and then the one nearest to the root. So there are never more waiting jobs, with
//! open descriptors, than there are workers.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::engine::descent::WINDOW;
use crate::system::priority::share_one_heap;
use crate::system::syscalls::is_privileged;

/// More workers do not help: they wait for the kernel's locks and for the journal.
const MAX_WORKERS: usize = 4;

/// A walk is iterative and needs little stack.
const STACK_BYTES: usize = 256 * 1024;

/// A tree with fewer entries is finished before a second worker has started.
const WORTHWHILE_ENTRIES: u64 = 2_000;

/// How many workers fit this machine and a tree of about `entries` entries.
///
/// A user without privileges gets one worker: the content of a directory has to be finished before
/// its mode is applied.
pub(crate) fn workers(entries: Option<u64>) -> usize {
    if !is_privileged() || entries.is_some_and(|entries| entries < WORTHWHILE_ENTRIES) {
        return 1;
    }
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    // Each worker has two descents; the run itself keeps fewer than 24 descriptors open.
    let descriptors =
        match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
            Ok((soft, _)) => usize::try_from(soft).unwrap_or(usize::MAX),
            Err(_) => 64,
        };
    processors.min(MAX_WORKERS).min(descriptors.saturating_sub(24) / (2 * (WINDOW + 2))).max(1)
}

pub(crate) struct Pool<Job> {
    queue: Mutex<PoolQueue<Job>>,
    changed: Condvar,
    has_idle_worker: AtomicBool,
    is_stopped: AtomicBool,
}

struct PoolQueue<Job> {
    jobs: Vec<Job>,
    workers: usize,
    idle: usize,
}

impl<Job: Send> Pool<Job> {
    /// Does `jobs`, and all jobs that are given away meanwhile, with `workers` threads, the calling
    /// one included. Returns the result of each job, in no particular order.
    pub(crate) fn run<Out: Send>(
        workers: usize,
        jobs: Vec<Job>,
        work: impl Fn(Job, &Self) -> Out + Sync,
    ) -> Vec<Out> {
        let pool = Pool {
            queue: Mutex::new(PoolQueue { jobs, workers: 1, idle: 0 }),
            changed: Condvar::new(),
            has_idle_worker: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
        };
        let outs = Mutex::new(Vec::new());
        let body = || {
            while let Some(job) = pool.take() {
                let out = work(job, &pool);
                outs.lock().unwrap_or_else(PoisonError::into_inner).push(out);
            }
        };
        if workers > 1 {
            share_one_heap();
        }
        thread::scope(|scope| {
            for _ in 1..workers {
                pool.queue().workers += 1;
                // If no thread can start, this one does all jobs.
                if thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, body).is_err()
                {
                    pool.queue().workers -= 1;
                }
            }
            body();
        });
        outs.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker waits for a job.
    pub(crate) fn has_idle_worker(&self) -> bool {
        self.has_idle_worker.load(Ordering::Relaxed)
    }

    pub(crate) fn give(&self, job: Job) {
        let mut queue = self.queue();
        queue.jobs.push(job);
        self.note_idle_workers(&queue);
        self.changed.notify_one();
    }

    /// Tells all workers to stop, since one has failed.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Waits for the next job; none once no worker is left that could give one away.
    fn take(&self) -> Option<Job> {
        let mut queue = self.queue();
        queue.idle += 1;
        loop {
            if let Some(job) = queue.jobs.pop() {
                queue.idle -= 1;
                self.note_idle_workers(&queue);
                return Some(job);
            }
            if queue.idle == queue.workers {
                self.changed.notify_all();
                return None;
            }
            self.note_idle_workers(&queue);
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn note_idle_workers(&self, queue: &PoolQueue<Job>) {
        self.has_idle_worker.store(queue.idle > queue.jobs.len(), Ordering::Relaxed);
    }

    fn queue(&self) -> MutexGuard<'_, PoolQueue<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
