//! What a snapshot lacks of the module, according to its record.
//!
//! The run that makes the snapshot warns of it. `check` reads it from the record as long as that
//! snapshot is the newest complete one and the loss stands. So a later run that finds nothing
//! changed does not hide it.

use std::collections::HashSet;

use crate::decide::partial_dirs::PartialDirs;
use crate::engine::former_mount_point::{FormerMountPoint, inspect_former_mount_point};
use crate::store::record::{CopyRecord, Record};
use crate::store::root::SnapshotRoot;
use crate::tell::escape::unescape;

/// All losses in a record except copied files. The run that makes the snapshot warns of them.
pub(crate) fn of_record(record: &Record) -> Vec<String> {
    mounts(&record.skipped_mounts).into_iter().chain(attributes(record)).collect()
}

/// The warning about files that were copied instead of linked. Only the run that makes the snapshot
/// shows it: the snapshot has the content, and `list` shows the number of copies.
pub(crate) fn copies(record: &Record, partial_dirs: &PartialDirs) -> Option<String> {
    // Files in partial directories are copied on purpose.
    let is_partial = |copy: &&CopyRecord| {
        let directory = copy.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        partial_dirs.includes(directory.as_bytes())
    };
    let copies: Vec<&CopyRecord> = record.copies.iter().filter(|copy| !is_partial(copy)).collect();
    let first = copies.first()?;
    let names: u64 = copies.iter().map(|copy| copy.names).sum();
    let files: HashSet<u64> = copies.iter().map(|copy| copy.live_inode).collect();
    let of = if files.len() as u64 == names {
        String::new()
    } else {
        format!(" of {} files", files.len())
    };
    Some(format!(
        "{names} entries{of} could not be linked and were copied, the first is {}: {}",
        first.path, first.reason
    ))
}

/// What the snapshot `name` with this record still lacks, for `check`. A mount point counts no
/// longer once nothing is mounted there and the module has nothing there but an empty directory.
pub(crate) fn remaining(root: &SnapshotRoot, name: &str, record: &Record) -> Vec<String> {
    let lacks = |path: &&String| {
        unescape(path).is_none_or(|path| {
            inspect_former_mount_point(root.module(), &path) != FormerMountPoint::Nothing
        })
    };
    let left: Vec<String> = record.skipped_mounts.iter().filter(lacks).cloned().collect();
    let losses = mounts(&left).into_iter().chain(attributes(record));
    losses
        .map(|loss| format!("{name}, the newest complete snapshot, is not whole: {loss}"))
        .collect()
}

fn mounts(paths: &[String]) -> Option<String> {
    (!paths.is_empty()).then(|| {
        format!(
            "left out what is mounted inside the module: {}; give it a module of its own",
            paths.join(", ")
        )
    })
}

fn attributes(record: &Record) -> Option<String> {
    let count = record.attributes_lost;
    (count > 0).then(|| {
        format!("the owner, the device or security attributes of {count} entries could not be kept")
    })
}
