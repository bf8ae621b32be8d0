//! Finds the files of the module that were changed in place since their baselines were recorded.
//!
//! The module and the newest snapshot share inodes, so a comparison of the two does not show that a
//! push wrote into existing files. A comparison with the inode log does. That takes one system call
//! for each file of the module, so it is done only after pushes that were admitted although they
//! write in place. It changes nothing.

use std::collections::{HashMap, HashSet};

use crate::decide::damage::{FileTime, is_changed_in_place};
use crate::engine::baseline::inspect_entry;
use crate::engine::inodes::{InodeName, walk};
use crate::store::inode_log::reader::InodeLog;
use crate::store::inode_log::windows::LinkWindows;
use crate::store::layout::Subdir;
use crate::store::root::SnapshotRoot;
use crate::tell::error::Result;

/// How many paths are kept for messages.
const MAX_PATHS: usize = 10;

/// The changes in place that were found.
#[derive(Debug, Clone, Default)]
pub struct InPlaceChanges {
    /// Change times of the changed files, by inode number.
    inodes: HashMap<u64, FileTime>,
    /// The first of their paths, relative to the module and not escaped.
    pub first: Vec<Vec<u8>>,
    /// How many files have another name, maybe in a snapshot, and no baseline: whether they changed
    /// is unknown.
    pub unknown: u64,
    /// How many directories or files could not be read.
    pub unreadable: u64,
}

impl InPlaceChanges {
    /// How many files were changed in place.
    pub fn changed(&self) -> u64 {
        self.inodes.len() as u64
    }

    /// Whether it is certain that no file was changed in place.
    pub fn is_none(&self) -> bool {
        self.inodes.is_empty() && self.unknown == 0 && self.unreadable == 0
    }

    /// The change time of the inode, if it was changed in place.
    pub fn changed_at(&self, inode: u64) -> Option<FileTime> {
        self.inodes.get(&inode).copied()
    }
}

/// Finds files of the module that were changed in place since they were last recorded: size, time,
/// mode or owner differ, or the change time moved while no run made or removed links.
///
/// A client that links or renames a file moves its change time, too. So a file may be found
/// although its content is unchanged. One kind of change is not found: of the content alone, at
/// equal size and time, while a run makes or removes links or within 20 ms of that.
///
/// A file with a single name is in no snapshot, so the comparison of names finds it. It counts
/// neither as changed nor as unknown.
///
/// The caller holds the root's lock and has made no links yet. The search takes 16 bytes for each
/// recorded file, and one call for each file of the module.
///
/// # Errors
/// If the inode log cannot be read.
pub fn in_place_changes(root: &SnapshotRoot) -> Result<InPlaceChanges> {
    let dir = root.subdir(Subdir::Inodes)?;
    let inode_log = InodeLog::read(dir.dir())?;
    let windows = LinkWindows::read(dir.dir());
    let mut changes = InPlaceChanges::default();
    let mut seen = vec![false; inode_log.as_ref().map_or(0, InodeLog::len)];
    let mut unknown = HashSet::new();
    let mut unreadable = 0;
    unreadable += walk(root.module()?, &root.module_path, c".", &mut |name: &InodeName| {
        let found = inode_log.as_ref().map_or(0..0, |inode_log| inode_log.find(name.inode));
        if !found.is_empty() && std::mem::replace(&mut seen[found.start], true) {
            return;
        }
        let inode = match inspect_entry(name.directory, name.name) {
            // A file that is mounted over it, or has just taken its name, is another inode.
            Ok(inode) if inode.number != name.inode => return,
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::EXDEV) => return,
            Ok(inode) => inode,
            Err(_) => {
                unreadable += 1;
                return;
            }
        };
        let last = inode_log.as_ref().and_then(|inode_log| {
            let found = found.rev().filter_map(|index| inode_log.baseline(index));
            found
                .map(|(_, baseline)| baseline)
                .find(|baseline| baseline.inode.birth_ns == inode.birth_ns)
        });
        let Some(last) = last else {
            if inode.links > 1 {
                unknown.insert(inode.number);
            }
            return;
        };
        // If no windows are known, each change time that differs counts as a sign of a change.
        let is_ours = windows.are_known() && windows.cover(inode.changed.as_ns());
        let was = (&last.inode.attributes, last.touched);
        if is_changed_in_place(was, (&inode.attributes, inode.changed), is_ours) {
            if changes.first.len() < MAX_PATHS {
                changes.first.push(name.path());
            }
            changes.inodes.insert(inode.number, inode.changed);
        }
    });
    inode_log.as_ref().map_or(Ok(()), InodeLog::check)?;
    changes.unknown = unknown.len() as u64;
    changes.unreadable = unreadable;
    Ok(changes)
}
