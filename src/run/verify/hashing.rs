//! Hashes of the contents of files that are new in a snapshot, if the policy wants them.
//!
//! It comes after the snapshot is visible and the gate is open, when nobody waits but the next run. A hash counts only
//! if nobody touched the file since it was linked: else it would be one of what somebody has made of it.

use std::collections::HashSet;

use crate::store::durable::c_name;
use crate::store::inodes::windows::Windows;
use crate::store::inodes::{self, Catalogue, Hashed, Recorder};
use crate::store::root::SnapshotRoot;
use crate::tell::error::Result;
use crate::tree::baseline::{content_hash, look};
use crate::tree::inodes::{Name, walk};

/// So many are written at a time.
const BATCH: usize = 1_000;

/// Hashes what is new in the snapshot `name`, at idle priority.
pub fn hash_contents(root: &SnapshotRoot, name: &str) -> Result<()> {
    let hash = || {
        crate::resources::idle();
        hash_all(root, name)
    };
    crate::resources::share_one_heap();
    // The priority is the thread's, and the rotation that follows shall have its own.
    std::thread::scope(|scope| scope.spawn(hash).join().unwrap_or(Ok(())))
}

fn hash_all(root: &SnapshotRoot, name: &str) -> Result<()> {
    let room = root.room(inodes::ROOM)?;
    let Some(catalogue) = Catalogue::read(room.place())? else { return Ok(()) };
    let Some(position) = catalogue.position(name) else { return Ok(()) };
    let mut wanted: HashSet<u64> = catalogue.recorded_with(position).into_iter().collect();
    let windows = Windows::read(room.place());
    let recorder = Recorder::open(room.place(), |_| true)?;
    let mut hashes = Vec::new();
    let mut result = Ok(());
    walk(root.directory(), &root.path, &c_name(name), &mut |name: &Name| {
        if result.is_err() || !wanted.remove(&name.inode) {
            return;
        }
        let Ok(inode) = look(name.directory, name.name) else { return };
        let hash = || content_hash(name.directory, name.name, &inode);
        if let Some(hash) =
            Some(&inode).filter(|inode| windows.cover(inode.changed.as_ns())).and_then(|_| hash())
        {
            hashes.push(Hashed { inode: inode.number, birth_ns: inode.birth_ns, hash });
        }
        if hashes.len() == BATCH {
            result = recorder.keep_hashes(&std::mem::take(&mut hashes));
        }
    });
    result?;
    if hashes.is_empty() { Ok(()) } else { recorder.keep_hashes(&hashes) }
}
