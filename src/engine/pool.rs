//! Workers that share one walk over a tree.
//!
//! A worker walks its subtree depth first, as if it were alone. Only when another one has
//! nothing to do does it give a subtree away, the nearer to the root the better. So there are
//! never more jobs waiting, and descriptors open for them, than there are workers.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::engine::descent::WINDOW;
use crate::system::priority::share_one_heap;
use crate::system::syscalls::is_privileged;

/// More do not help: the kernel's locks on directories and its journal are shared.
const MAX_WORKERS: usize = 4;

/// A walk needs little stack, being iterative.
const STACK_BYTES: usize = 256 * 1024;

/// A tree with fewer entries is done before a second worker has started.
const WORTHWHILE_ENTRIES: u64 = 2_000;

/// How many workers fit this machine and a tree of about `entries` entries.
///
/// A user without privileges gets one: it has to finish a directory's content before its mode.
pub(crate) fn workers(entries: Option<u64>) -> usize {
    if !is_privileged() || entries.is_some_and(|entries| entries < WORTHWHILE_ENTRIES) {
        return 1;
    }
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    // Two descents a worker; the run itself keeps fewer than 24 open.
    let descriptors =
        match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
            Ok((soft, _)) => usize::try_from(soft).unwrap_or(usize::MAX),
            Err(_) => 64,
        };
    processors.min(MAX_WORKERS).min(descriptors.saturating_sub(24) / (2 * (WINDOW + 2))).max(1)
}

/// The jobs of one walk.
pub(crate) struct Pool<Job> {
    queue: Mutex<PoolQueue<Job>>,
    changed: Condvar,
    is_hungry: AtomicBool,
    is_stopped: AtomicBool,
}

struct PoolQueue<Job> {
    jobs: Vec<Job>,
    workers: usize,
    idle: usize,
}

impl<Job: Send> Pool<Job> {
    /// Does `jobs`, and all that are given away meanwhile, with `workers` threads, this one
    /// included; returns what each job returned, in no order.
    pub(crate) fn run<Out: Send>(
        workers: usize,
        jobs: Vec<Job>,
        work: impl Fn(Job, &Self) -> Out + Sync,
    ) -> Vec<Out> {
        let pool = Pool {
            queue: Mutex::new(PoolQueue { jobs, workers: 1, idle: 0 }),
            changed: Condvar::new(),
            is_hungry: AtomicBool::new(false),
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
                // Without a second thread the first one does it all.
                if thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, body).is_err()
                {
                    pool.queue().workers -= 1;
                }
            }
            body();
        });
        outs.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits for a job.
    pub(crate) fn is_hungry(&self) -> bool {
        self.is_hungry.load(Ordering::Relaxed)
    }

    /// Gives a job away.
    pub(crate) fn give(&self, job: Job) {
        let mut queue = self.queue();
        queue.jobs.push(job);
        self.note_hunger(&queue);
        self.changed.notify_one();
    }

    /// Tells all workers that going on is pointless.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has said so.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// The next job; none once nobody works who could give one away.
    fn take(&self) -> Option<Job> {
        let mut queue = self.queue();
        queue.idle += 1;
        loop {
            if let Some(job) = queue.jobs.pop() {
                queue.idle -= 1;
                self.note_hunger(&queue);
                return Some(job);
            }
            if queue.idle == queue.workers {
                self.changed.notify_all();
                return None;
            }
            self.note_hunger(&queue);
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn note_hunger(&self, queue: &PoolQueue<Job>) {
        self.is_hungry.store(queue.idle > queue.jobs.len(), Ordering::Relaxed);
    }

    fn queue(&self) -> MutexGuard<'_, PoolQueue<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
