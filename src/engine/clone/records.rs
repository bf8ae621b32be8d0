//! Records the inodes that are new in a clone: their [baselines](crate::engine::baseline).
//!
//! Only one thread at a time can link into a directory. So names that were linked are recorded in
//! batches, and while a worker links a large directory, another one that has nothing to do records
//! what was linked.
//!
//! That is safe because each name is inspected in staging after it was linked, by either worker, and
//! the clone ends only when all batches are recorded. An inode that a client changes between the
//! two is recorded as it was afterwards, as if the change had come before the link.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use crate::decide::damage::FileTime;
use crate::engine::baseline::{BaselineOrigin, Recording, baseline_of};
use crate::engine::baseline_bytes::BLOCK_BYTES;
use crate::engine::descent::DirectoryFd;

/// How many names are given away together.
const BATCH: usize = 512;

/// A name in a staged directory whose inode is not recorded yet.
struct LinkedName {
    name: CString,
    /// Its change time before the link, if that is known.
    touched: Option<FileTime>,
}

/// Names in one staged directory that one worker has linked and any can record.
pub(super) struct LinkedNames {
    directory: DirectoryFd,
    names: Vec<LinkedName>,
}

/// What one worker records.
pub(super) struct Recorder<'a> {
    recording: Option<Recording<'a>>,
    /// Baselines that are not handed over yet.
    bytes: Vec<u8>,
    /// Names of the current directory that are not recorded yet.
    waiting: Vec<LinkedName>,
    /// Size of the recorded files that have no other name than that in the module.
    pub(super) new_bytes: u64,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(recording: Option<Recording<'a>>) -> Self {
        Recorder { recording, bytes: Vec::new(), waiting: Vec::new(), new_bytes: 0 }
    }

    /// Notes a name that has just been linked: from now on a change of its inode changes the
    /// snapshot.
    pub(super) fn note(&mut self, name: &CStr, touched: Option<FileTime>) {
        if self.recording.is_some() {
            self.waiting.push(LinkedName { name: name.to_owned(), touched });
        }
    }

    /// Whether so many names wait that they are worth giving away.
    pub(super) fn has_batch(&self) -> bool {
        self.waiting.len() >= BATCH
    }

    /// The names that wait, for another worker.
    pub(super) fn take_batch(&mut self, directory: DirectoryFd) -> LinkedNames {
        LinkedNames { directory, names: std::mem::take(&mut self.waiting) }
    }

    /// Records the names that wait, which are in the directory `staged`.
    pub(super) fn record_waiting(&mut self, staged: BorrowedFd) {
        let mut waiting = std::mem::take(&mut self.waiting);
        for LinkedName { name, touched } in waiting.drain(..) {
            self.record(staged, &name, touched);
        }
        // Its memory is used again.
        self.waiting = waiting;
    }

    fn record(&mut self, staged: BorrowedFd, name: &CStr, touched: Option<FileTime>) {
        let Some(baseline) = baseline_of(staged, name, BaselineOrigin::Linked, touched) else {
            return;
        };
        // One link is the module's, one the clone's.
        if baseline.inode.links <= 2 {
            let size_bytes = baseline.inode.attributes.size_bytes;
            self.new_bytes = self.new_bytes.saturating_add(size_bytes);
        }
        baseline.write(&mut self.bytes);
        self.flush(BLOCK_BYTES);
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

/// Records what another worker has linked; returns [`Recorder::new_bytes`].
pub(super) fn record_batch(batch: &LinkedNames, recording: Option<Recording>) -> u64 {
    let mut recorder = Recorder::new(recording);
    for LinkedName { name, touched } in &batch.names {
        recorder.record(batch.directory.as_fd(), name, *touched);
    }
    recorder.flush(0);
    recorder.new_bytes
}
