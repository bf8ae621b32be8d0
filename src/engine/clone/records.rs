//! Records the inodes that are new in a clone: their [baselines](crate::engine::baseline).
//!
//! Only one thread at a time can link into a directory. So while a worker links a large directory
//! and another one has nothing to do, it gives the linked names away in batches, to be recorded.
//!
//! That is safe because each name is inspected in staging after it was linked, whoever does it, and
//! the clone ends only when all batches are recorded. An inode that a client changes between the
//! two is recorded as it was afterwards, as if the change had come before the link.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use crate::decide::damage::FileTime;
use crate::engine::baseline::{BaselineOrigin, Recording, baseline_of};
use crate::engine::baseline_bytes::BLOCK_BYTES;
use crate::engine::clone::{CloneJob, CloneOutcome, TreeCloner};
use crate::engine::descent::DirectoryFd;
use crate::tell::error::Result;

/// How many names are given away together.
const BATCH: usize = 512;

/// A name in a staged directory whose inode is not recorded yet.
struct LinkedName {
    name: CString,
    /// Its change time before the link, if that is known.
    touched: Option<FileTime>,
}

/// Linked names of one staged directory.
pub(super) struct LinkedNames {
    directory: DirectoryFd,
    names: Vec<LinkedName>,
}

/// Records inodes, and keeps their baselines until there are enough for a block.
pub(super) struct Recorder<'a> {
    recording: Option<Recording<'a>>,
    bytes: Vec<u8>,
    /// Names of the current directory that are not recorded yet.
    waiting: Vec<LinkedName>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(recording: Option<Recording<'a>>) -> Self {
        Recorder { recording, bytes: Vec::new(), waiting: Vec::new() }
    }

    fn record(
        &mut self,
        staged: BorrowedFd,
        name: &CStr,
        touched: Option<FileTime>,
        cloned: &mut CloneOutcome,
    ) {
        if self.recording.is_some()
            && let Some(baseline) = baseline_of(staged, name, BaselineOrigin::Linked, touched)
        {
            cloned.add_size(&baseline.inode);
            baseline.write(&mut self.bytes);
            self.flush(BLOCK_BYTES);
        }
    }

    /// Hands over the baselines if they take more than `bytes`.
    pub(super) fn flush(&mut self, bytes: usize) {
        if let Some(recording) = self.recording
            && self.bytes.len() > bytes
        {
            (recording.append)(&self.bytes);
            self.bytes.clear();
        }
    }
}

/// Records what another worker has linked.
pub(super) fn record_batch(batch: &LinkedNames, recording: Option<Recording>) -> CloneOutcome {
    let (mut recorder, mut cloned) = (Recorder::new(recording), CloneOutcome::default());
    for LinkedName { name, touched } in &batch.names {
        recorder.record(batch.directory.as_fd(), name, *touched, &mut cloned);
    }
    recorder.flush(0);
    cloned
}

impl TreeCloner<'_, '_> {
    /// Records an inode that has just been linked: from now on a change of it changes the snapshot.
    /// That may be done later, but before the clone ends.
    pub(super) fn record(
        &mut self,
        staged: BorrowedFd,
        name: &CStr,
        touched: Option<FileTime>,
    ) -> Result<()> {
        if self.recorder.recording.is_none() {
            return Ok(());
        }
        self.recorder.waiting.push(LinkedName { name: name.to_owned(), touched });
        if self.recorder.waiting.len() < BATCH {
            return Ok(());
        }
        if !self.pool.has_idle_worker() {
            self.record_waiting(staged);
            return Ok(());
        }
        let names = std::mem::take(&mut self.recorder.waiting);
        let directory = self.open_staged()?;
        self.pool.give(CloneJob::Record(LinkedNames { directory, names }));
        Ok(())
    }

    /// Records the names of the current staged directory that still wait.
    pub(super) fn record_waiting(&mut self, staged: BorrowedFd) {
        let mut waiting = std::mem::take(&mut self.recorder.waiting);
        for LinkedName { name, touched } in waiting.drain(..) {
            self.recorder.record(staged, &name, touched, &mut self.cloned);
        }
        self.recorder.waiting = waiting;
    }
}
