//! Turns: so many jobs work on this machine at once, and the others wait in the order in which they came.
//!
//! Each job draws a ticket: a file with the next number, locked as long as the job lives. It is a
//! job's turn when fewer locked tickets than may work have a lower number. A ticket that
//! nobody holds is one of a job that died; whoever sees it takes it away. Tickets are drawn and looked at under one
//! short lock, so no ticket is seen before it is locked.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::catalog::names_in;
use super::durable::Place;
use super::lock::Guard;
use crate::tell::error::{Error, Result};

const PAUSE: Duration = Duration::from_millis(50);

/// A job's place in the queue; leaves it when dropped.
pub struct Turn {
    queue: Queue,
    number: u64,
    _ticket: File,
}

/// How waiting ended.
pub enum Waited {
    /// It is our turn.
    Turn(Turn),
    /// So many were still before us.
    InVain(usize),
}

struct Queue {
    path: PathBuf,
    directory: File,
}

impl Turn {
    /// Draws a ticket in the directory `path`, made if need be, and waits until fewer than `max_parallel` jobs are before it.
    pub fn wait(path: &Path, max_parallel: usize, wait: Duration) -> Result<Waited> {
        let turn = Turn::draw(Queue::open(path)?)?;
        let deadline = Instant::now() + wait;
        loop {
            let before = turn.queue.count_before(turn.number)?;
            if before < max_parallel {
                return Ok(Waited::Turn(turn));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Waited::InVain(before));
            }
            sleep(PAUSE.min(left));
        }
    }

    fn draw(queue: Queue) -> Result<Self> {
        let _guard = Guard::on_directory(queue.place())?;
        let number = queue.numbers()?.into_iter().max().map_or(0, |last| last.saturating_add(1));
        let path = queue.ticket(number);
        let failed = |cause| Error::io("make", &path, cause);
        let ticket =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        fs2::FileExt::try_lock_exclusive(&ticket).map_err(|cause| Error::io("lock", &path, cause))?;
        Ok(Turn { queue, number, _ticket: ticket })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // If this fails, the next one finds a ticket that nobody holds.
        let _ = std::fs::remove_file(self.queue.ticket(self.number));
    }
}

impl Queue {
    fn open(path: &Path) -> Result<Self> {
        let failed = |cause| Error::io("make", path, cause);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let directory = File::open(path).map_err(failed)?;
        Ok(Queue { path: path.to_path_buf(), directory })
    }

    fn place(&self) -> Place<'_> {
        Place { directory: self.directory.as_fd(), path: &self.path }
    }

    fn ticket(&self, number: u64) -> PathBuf {
        self.path.join(number.to_string())
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        Ok(names_in(self.place())?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// How many jobs that live have a lower number.
    fn count_before(&self, number: u64) -> Result<usize> {
        let _guard = Guard::on_directory(self.place())?;
        let mut count = 0;
        for other in self.numbers()?.into_iter().filter(|other| *other < number) {
            let path = self.ticket(other);
            let Ok(ticket) = File::open(&path) else { continue };
            match fs2::FileExt::try_lock_shared(&ticket) {
                Ok(()) => drop(std::fs::remove_file(&path)),
                Err(_) => count += 1,
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(path: &Path, max_parallel: usize) -> Option<Turn> {
        match Turn::wait(path, max_parallel, Duration::ZERO).expect("a ticket") {
            Waited::Turn(turn) => Some(turn),
            Waited::InVain(_) => None,
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
    fn a_ticket_that_nobody_holds_is_no_obstacle() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("7"), "").expect("a ticket of the dead");
        let turn = turn(directory.path(), 1).expect("its holder is dead");
        assert_eq!(turn.number, 8);
        assert!(!directory.path().join("7").exists());
    }
}
