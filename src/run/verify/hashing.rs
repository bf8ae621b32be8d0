//! Hashes the contents of files that are new in a snapshot, if the policy says so.
//!
//! This begins after the run has released the root's lock and its place in the job queue: a file
//! may be large and its disk slow, and no other run should wait for that. The lock is taken for a
//! moment to append a batch of hashes. A hash is recorded only if no client has touched the file
//! since it was linked; otherwise it might be the hash of content that a client has altered. If
//! another snapshot was published meanwhile, the hashes count only from that snapshot on. A run
//! that is killed leaves fewer hashes, and each that is recorded is right.

use std::collections::HashSet;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use crate::engine::baseline::{Inode, inspect_entry};
use crate::engine::content::{HashLimit, HashResult, content_hash};
use crate::engine::inodes::{InodeName, walk};
use crate::store::dir::c_name;
use crate::store::inode_log::commit::ContentHash;
use crate::store::inode_log::reader::InodeLog;
use crate::store::inode_log::recorder::Recorder;
use crate::store::inode_log::windows::LinkWindows;
use crate::store::layout::Subdir;
use crate::store::root::SnapshotRoot;
use crate::tell::counted;
use crate::tell::error::Result;

/// How many hashes are written at a time.
const BATCH: usize = 1_000;

/// How long the hook hashes, and how much it reads.
const MAX_TIME: Duration = Duration::from_secs(30 * 60);
const MAX_BYTES: u64 = 1 << 40;

/// How many files were left without a hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Unhashed {
    /// Because the limit of time or bytes was reached.
    over_limit: usize,
    /// Because they are sparse: they consist of hardly anything but holes.
    holes: usize,
}

impl Unhashed {
    fn to_text(self, name: &str) -> Option<String> {
        let over_limit = (self.over_limit > 0).then(|| {
            format!(
                "{} not reached within {} min and {} TiB",
                counted(self.over_limit, "file"),
                MAX_TIME.as_secs() / 60,
                MAX_BYTES >> 40
            )
        });
        let holes = (self.holes > 0)
            .then(|| format!("{} with hardly anything but holes", counted(self.holes, "file")));
        let parts: Vec<String> = over_limit.into_iter().chain(holes).collect();
        (!parts.is_empty())
            .then(|| format!("not all new files of {name} are hashed: {}", parts.join(", ")))
    }
}

/// Hashes the files that are new in the snapshot `name`, at idle priority. Writes the hashes in
/// batches, each `under_lock`. Returns a message about files that were left out, if there are any.
///
/// # Errors
/// If the hashes cannot be written, or the lock stayed busy.
pub(crate) fn hash_contents(
    root: &SnapshotRoot,
    name: &str,
    under_lock: impl Fn(&dyn Fn() -> Result<()>) -> Result<()>,
) -> Result<Option<String>> {
    let keep = |hashes: &[ContentHash]| {
        under_lock(&|| {
            Recorder::open(root.subdir(Subdir::Inodes)?.dir(), |_| true)?.append_hashes(hashes)
        })
    };
    crate::system::priority::share_one_heap();
    let (sender, receiver) = sync_channel(1);
    let hash = move || {
        crate::system::priority::idle();
        hash_all(root, name, HashLimit::of(MAX_TIME, MAX_BYTES), &sender)
    };
    // Only the hashing thread has idle priority, so the writing under the lock is not slowed.
    let (left, kept) = std::thread::scope(|scope| {
        let thread = scope.spawn(hash);
        let kept = receiver.iter().try_for_each(|hashes| keep(&hashes));
        // A thread that has more hashes finds the channel closed, and stops.
        drop(receiver);
        (thread.join().unwrap_or(Ok(Unhashed::default())), kept)
    });
    kept?;
    Ok(left?.to_text(name))
}

fn hash_all(
    root: &SnapshotRoot,
    name: &str,
    mut limit: HashLimit,
    keep: &SyncSender<Vec<ContentHash>>,
) -> Result<Unhashed> {
    let dir = root.subdir(Subdir::Inodes)?;
    let Some(inode_log) = InodeLog::read(dir.dir())? else { return Ok(Unhashed::default()) };
    let Some(position) = inode_log.position(name) else { return Ok(Unhashed::default()) };
    let mut wanted: HashSet<u64> = inode_log.recorded_with(position).into_iter().collect();
    let mut windows = LinkWindows::read(dir.dir());
    let mut is_ours = |inode: &Inode| {
        // If another run links the file meanwhile, that run's window explains the change time.
        let changed = inode.changed.as_ns();
        windows.cover(changed) || {
            windows = LinkWindows::read(dir.dir());
            windows.cover(changed)
        }
    };
    let mut hashes = Vec::new();
    let (mut left, mut is_taken) = (Unhashed::default(), true);
    walk(
        root.snapshots().directory,
        root.snapshots().path,
        &c_name(name),
        &mut |name: &InodeName| {
            if !is_taken || !wanted.remove(&name.inode) {
                return;
            }
            let Ok(inode) = inspect_entry(name.directory, name.name) else { return };
            if !is_ours(&inode) {
                return;
            }
            match content_hash(name.directory, name.name, &inode, &mut limit) {
                HashResult::Hash(hash) => {
                    hashes.push(ContentHash {
                        inode: inode.number,
                        birth_ns: inode.birth_ns,
                        hash,
                    });
                }
                HashResult::None => {}
                HashResult::Holes => left.holes += 1,
                HashResult::OverLimit => left.over_limit += 1,
            }
            if hashes.len() == BATCH {
                is_taken = keep.send(std::mem::take(&mut hashes)).is_ok();
            }
        },
    );
    if !hashes.is_empty() {
        // Sending fails only if the receiver has failed, and then the receiver returns the error.
        let _ = keep.send(hashes);
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_hashed_is_told() {
        let text = |over_limit, holes| Unhashed { over_limit, holes }.to_text("S");
        assert_eq!(text(0, 0), None);
        let expected = "not all new files of S are hashed: 1 file with hardly anything but holes";
        assert_eq!(text(0, 1).as_deref(), Some(expected));
        let expected = "not all new files of S are hashed: 2 files not reached within 30 min and \
                        1 TiB, 1 file with hardly anything but holes";
        assert_eq!(text(2, 1).as_deref(), Some(expected));
    }
}
