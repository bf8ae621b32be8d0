//! The job queue of a machine: at most `max_parallel` jobs work at once, and the others wait in the
//! order in which they came.
//!
//! Each job makes a ticket: a file with the next number, which it keeps locked while it lives. A
//! job may work when fewer than `max_parallel` locked tickets have a lower number. An unlocked
//! ticket is left from a job that was killed; the next run that reads the queue removes it. Tickets
//! are made and counted under one short lock, so no run sees a ticket before it is locked.
//!
//! A job that begins to work writes the time into its ticket. After [`LONG_JOB`] it still works,
//! but no longer counts: a job of hours must not keep the others waiting. The time is that of the
//! boot clock, which nothing can set.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::decide::boot_time::BootTime;
use crate::store::dir::{Dir, names_in, open_followed};
use crate::store::lock::DirLock;
use crate::tell::error::{Error, Result};

/// The directory of the queue; it is in the directory of this machine's memory.
pub(crate) const QUEUE: &str = "queue";

const PAUSE: Duration = Duration::from_millis(50);

/// A job that has worked for longer no longer keeps others waiting.
pub(crate) const LONG_JOB: Duration = Duration::from_secs(60);

/// Longer tickets are not ours.
const MAX_TICKET_BYTES: u64 = 8_192;

/// A job's place in the queue; the job leaves the queue when this value is dropped.
pub(crate) struct QueuePlace {
    queue: JobQueue,
    number: u64,
    ticket: File,
}

/// A job that has worked for longer than [`LONG_JOB`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LongJob {
    /// The module that it works on, as the job wrote it into its ticket.
    pub label: String,
    /// For how long it has worked.
    pub worked: Duration,
}

/// The jobs in the queue at `path` that have worked for longer than `longest`. Changes nothing.
pub(crate) fn long_jobs(path: &Path, longest: Duration) -> Vec<LongJob> {
    let Ok(directory) = open_followed(path) else { return Vec::new() };
    let queue = JobQueue { path: path.to_path_buf(), directory };
    let numbers = queue.numbers().unwrap_or_default();
    let job = |number: &u64| {
        let ticket = File::open(queue.ticket(*number)).ok()?;
        // The lock of a dead job's ticket is free.
        fs2::FileExt::try_lock_shared(&ticket).is_err().then_some(())?;
        read_ticket(&ticket).filter(|job| job.worked >= longest)
    };
    numbers.iter().filter_map(job).collect()
}

/// The content of a ticket; `None` while its job waits.
fn read_ticket(ticket: &File) -> Option<LongJob> {
    let mut text = String::new();
    ticket.take(MAX_TICKET_BYTES).read_to_string(&mut text).ok()?;
    let mut fields = text.strip_suffix('\n')?.splitn(3, ' ');
    let (boot, nanoseconds, label) = (fields.next()?, fields.next()?, fields.next()?);
    let now = BootTime::now();
    let since = nanoseconds.parse::<i64>().ok().filter(|_| boot == now.boot)?;
    let worked = Duration::from_nanos(u64::try_from(now.nanoseconds.saturating_sub(since)).ok()?);
    Some(LongJob { label: label.to_string(), worked })
}

pub(crate) enum QueueWait {
    /// The job may work.
    Admitted(QueuePlace),
    /// The time to wait is over, and this number of jobs is still ahead of this one.
    TimedOut(usize),
}

struct JobQueue {
    path: PathBuf,
    directory: File,
}

impl QueuePlace {
    /// Draws a ticket in the directory `path`, made if need be, and waits until fewer than
    /// `max_parallel` jobs are before it that have worked for less than `longest`. The ticket says
    /// that the job works on `label`, a text of one line. `on_wait` is called with the number of
    /// those jobs each time that the job has to wait.
    pub(crate) fn wait(
        path: &Path,
        label: &str,
        max_parallel: usize,
        wait: Duration,
        longest: Duration,
        on_wait: impl Fn(usize),
    ) -> Result<QueueWait> {
        let place = QueuePlace::draw(JobQueue::open(path)?)?;
        let deadline = Instant::now() + wait;
        loop {
            let before = place.queue.count_before(place.number, longest)?;
            if before < max_parallel {
                place.note_begin(label);
                return Ok(QueueWait::Admitted(place));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(QueueWait::TimedOut(before));
            }
            on_wait(before);
            sleep(PAUSE.min(left));
        }
    }

    fn draw(queue: JobQueue) -> Result<Self> {
        let _guard = DirLock::on_directory(queue.dir())?;
        let number = queue.numbers()?.into_iter().max().map_or(0, |last| last.saturating_add(1));
        let path = queue.ticket(number);
        let failed = |cause| Error::io("make", &path, cause);
        let ticket = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        fs2::FileExt::try_lock_exclusive(&ticket)
            .map_err(|cause| Error::io("lock", &path, cause))?;
        Ok(QueuePlace { queue, number, ticket })
    }

    /// If this fails, as on a full disk, the job counts for as long as it works.
    fn note_begin(&self, label: &str) {
        let BootTime { boot, nanoseconds } = BootTime::now();
        if !boot.is_empty() {
            let _ = (&self.ticket).write_all(format!("{boot} {nanoseconds} {label}\n").as_bytes());
        }
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        // If this fails, the next run removes the ticket, which is no longer locked.
        let _ = std::fs::remove_file(self.queue.ticket(self.number));
    }
}

impl JobQueue {
    fn open(path: &Path) -> Result<Self> {
        let failed = |cause| Error::io("make", path, cause);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        // That the directory could not be made matters only if it does not exist. Then opening
        // fails, too, and that error is returned.
        let directory = match (open_followed(path), made) {
            (Ok(directory), _) => directory,
            (Err(cause), Ok(())) => return Err(failed(cause)),
            (Err(_), Err(cause)) => return Err(failed(cause)),
        };
        Ok(JobQueue { path: path.to_path_buf(), directory })
    }

    fn dir(&self) -> Dir<'_> {
        Dir { directory: self.directory.as_fd(), path: &self.path }
    }

    fn ticket(&self, number: u64) -> PathBuf {
        self.path.join(number.to_string())
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        Ok(names_in(self.dir())?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// How many living jobs have a lower number, without those that have worked for `longest`.
    fn count_before(&self, number: u64, longest: Duration) -> Result<usize> {
        let _guard = DirLock::on_directory(self.dir())?;
        let mut count = 0;
        for other in self.numbers()?.into_iter().filter(|other| *other < number) {
            let path = self.ticket(other);
            let Ok(ticket) = File::open(&path) else { continue };
            match fs2::FileExt::try_lock_shared(&ticket) {
                Ok(()) => drop(std::fs::remove_file(&path)),
                Err(_) if read_ticket(&ticket).is_some_and(|job| job.worked >= longest) => {}
                Err(_) => count += 1,
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(path: &Path, max_parallel: usize) -> Option<QueuePlace> {
        turn_after(path, max_parallel, LONG_JOB)
    }

    fn turn_after(path: &Path, max_parallel: usize, longest: Duration) -> Option<QueuePlace> {
        match QueuePlace::wait(path, "a job", max_parallel, Duration::ZERO, longest, |_| ())
            .expect("a ticket")
        {
            QueueWait::Admitted(turn) => Some(turn),
            QueueWait::TimedOut(_) => None,
        }
    }

    #[test]
    fn so_many_work_at_once_and_a_place_is_free_again_when_one_leaves() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("queue");
        let first = turn(&path, 2).expect("the first");
        let second = turn(&path, 2).expect("the second");
        assert!(turn(&path, 2).is_none());
        drop(first);
        let third = turn(&path, 2).expect("a place is free");
        assert!(turn(&path, 2).is_none());
        drop((second, third));
        assert_eq!(std::fs::read_dir(&path).expect("the queue").count(), 0);
    }

    #[test]
    fn a_ticket_without_a_holder_is_no_obstacle() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("7"), "").expect("a ticket of the dead");
        let turn = turn(directory.path(), 1).expect("its holder is dead");
        assert_eq!(turn.number, 8);
        assert!(!directory.path().join("7").exists());
    }

    #[test]
    fn a_long_job_no_longer_keeps_others_waiting_and_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = turn(directory.path(), 1).expect("the first");
        assert!(turn(directory.path(), 1).is_none());
        assert_eq!(long_jobs(directory.path(), LONG_JOB), []);
        sleep(Duration::from_millis(20));
        let short = Duration::from_millis(10);
        let second =
            turn_after(directory.path(), 1, short).expect("the first one has worked for long");
        let long = long_jobs(directory.path(), short);
        assert_eq!(long.len(), 1, "{long:?}");
        assert!(long[0].label == "a job" && long[0].worked >= short, "{long:?}");
        // A job that only waits has not begun to work, so it counts.
        assert!(turn_after(directory.path(), 1, Duration::from_secs(5)).is_none());
        drop((first, second));
        assert_eq!(long_jobs(directory.path(), Duration::ZERO), []);
    }
}
