//! What a snapshot lacks of the module, according to its record.
//!
//! The run that makes the snapshot warns of it. `check` reads it from the record as long as that
//! snapshot is the newest complete one and the loss stands. So a later run that finds nothing
//! changed does not hide it.

use std::collections::HashSet;

use crate::decide::partial_dirs::PartialDirs;
use crate::engine::copied::CopyCause;
use crate::engine::former_mount_point::{FormerMountPoint, inspect_former_mount_point};
use crate::module::target::Target;
use crate::store::record::{CopyRecord, Record};
use crate::store::root::SnapshotRoot;
use crate::tell::escape::{shell_path, unescape};

/// All losses in a record except copied files. The run that makes the snapshot warns of them.
pub(crate) fn of_record(record: &Record) -> Vec<String> {
    let losses = mounts(&record.skipped_mounts).into_iter().chain(attributes(record));
    losses.chain(unread(record)).collect()
}

/// The messages about files that were copied instead of linked, one for each cause. The snapshot
/// has their content; each snapshot takes their space anew.
pub(crate) fn copies(
    record: &Record,
    partial_dirs: &PartialDirs,
) -> Vec<(Option<CopyCause>, String)> {
    // Files in partial directories are copied on purpose.
    let is_partial = |copy: &&CopyRecord| {
        let directory = copy.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        partial_dirs.includes(directory.as_bytes())
    };
    let mut by_cause: Vec<(Option<CopyCause>, Vec<&CopyRecord>)> = Vec::new();
    for copy in record.copies.iter().filter(|copy| !is_partial(copy)) {
        match by_cause.iter_mut().find(|(cause, _)| *cause == copy.cause) {
            Some((_, copies)) => copies.push(copy),
            None => by_cause.push((copy.cause, vec![copy])),
        }
    }
    by_cause.into_iter().filter_map(|(cause, copies)| Some((cause, copied(&copies)?))).collect()
}

fn copied(copies: &[&CopyRecord]) -> Option<String> {
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

/// The files that the snapshot `name` with this record holds as copies, for `check`, each with
/// whether an administrator can do something about it.
pub(crate) fn remaining_copies(
    target: &Target,
    name: &str,
    record: &Record,
) -> Vec<(bool, String)> {
    let describe = |(cause, message): (Option<CopyCause>, String)| {
        let can_mend = cause == Some(CopyCause::Flag);
        let remedy = if can_mend {
            let module = shell_path(&target.module_path);
            format!(
                "; `lsattr -R {module} | grep -E '^[^ ]*[ia]'` lists them; after `chattr -i -a` on \
                 them, snapshots share them"
            )
        } else {
            "; nothing is missing".to_string()
        };
        (can_mend, format!("{name}, the newest complete snapshot: {message}{remedy}"))
    };
    copies(record, &target.policy.partial_dirs).into_iter().map(describe).collect()
}

/// What the snapshot `name` with this record still lacks, for `check`. A mount point counts no
/// longer once nothing is mounted there and the module has nothing there but an empty directory.
pub(crate) fn remaining(root: &SnapshotRoot, name: &str, record: &Record) -> Vec<String> {
    let lacks = |path: &&String| {
        unescape(path).is_none_or(|path| {
            let found = root.module().map(|module| inspect_former_mount_point(module, &path));
            !matches!(found, Ok(FormerMountPoint::Nothing))
        })
    };
    let left: Vec<String> = record.skipped_mounts.iter().filter(lacks).cloned().collect();
    let attributes = attributes(record).map(|loss| format!("{loss}; {KEEPS_ATTRIBUTES}"));
    let losses = mounts(&left).into_iter().chain(attributes);
    let losses =
        losses.map(|loss| format!("{name}, the newest complete snapshot, is not whole: {loss}"));
    let module = shell_path(&root.module_path);
    let unread = unread(record).map(|loss| {
        format!(
            "{name}, the newest complete snapshot: {loss}; `find {module} -type d ! -readable`, \
             run by the user of the hooks, lists them"
        )
    });
    losses.chain(unread).collect()
}

/// What lets the next snapshot keep all attributes.
const KEEPS_ATTRIBUTES: &str = "run the daemon as root, on a file system that stores them, and \
                                without `PrivateDevices` and `CapabilityBoundingSet` in its unit; \
                                or leave such files out on the client";

fn mounts(paths: &[String]) -> Option<String> {
    (!paths.is_empty()).then(|| {
        format!(
            "left out what is mounted inside the module, or a subvolume there: {}; give it a \
             module of its own",
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

/// What `verify` does not know of the snapshot.
pub(crate) fn unread(record: &Record) -> Option<String> {
    let count = record.unread_directories;
    (count > 0).then(|| {
        format!(
            "directories that could not be read: {count}; `verify` does not know all files in \
             them, and may report some as damaged that a push has changed in place"
        )
    })
}
