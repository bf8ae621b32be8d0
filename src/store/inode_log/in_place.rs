//! Which files of the module were changed in place since they were recorded.
//!
//! The module and the newest snapshot share their inodes, so comparing the two says nothing about a
//! push that wrote into files that were there already. What was recorded when they were linked
//! does. This looks at every file of the module once, by one call each, and is meant for pushes
//! that were let in although they write in place, and for no others.

use std::collections::{HashMap, HashSet};

use crate::decide::damage::{FileTime, is_changed_in_place};
use crate::engine::baseline::inspect_entry;
use crate::engine::inodes::{InodeName, walk};
use crate::store::inode_log::reader::InodeLog;
use crate::store::inode_log::windows::LinkWindows;
use crate::store::layout::Subdir;
use crate::store::root::SnapshotRoot;
use crate::tell::error::Result;

/// So many paths are told.
const MAX_PATHS: usize = 10;

/// What was found of changes in place.
#[derive(Debug, Clone, Default)]
pub struct InPlaceChanges {
    /// The files that changed, by inode number, each with its change time.
    inodes: HashMap<u64, FileTime>,
    /// The first of their paths, relative to the module and not escaped.
    pub first: Vec<Vec<u8>>,
    /// How many files have another name, maybe in a snapshot, and are not recorded: of these
    /// nothing is known.
    pub unknown: u64,
    /// How many directories or files could not be looked at.
    pub unreadable: u64,
}

impl InPlaceChanges {
    /// How many files were changed in place.
    pub fn changed(&self) -> u64 {
        self.inodes.len() as u64
    }

    /// Whether it is proved that none was.
    pub fn is_none(&self) -> bool {
        self.inodes.is_empty() && self.unknown == 0 && self.unreadable == 0
    }

    /// When the inode was changed, if it was.
    pub fn changed_at(&self, inode: u64) -> Option<FileTime> {
        self.inodes.get(&inode).copied()
    }
}

/// Looks for files of the module that were changed in place since they were last recorded: size,
/// time, mode or owner differ, or the change time moved while no run of ours made or removed links.
/// A client that links or renames a file moves the change time as well, so what is found here may
/// be less than a change; a change that leaves no sign here is one of the content alone, at equal
/// size and time, while a run made or removed links or within 20 ms of that.
///
/// Files with a single name are in no snapshot, so comparing names finds them; they are neither
/// changed nor unknown.
///
/// For a holder of the root's long lock, before it makes links. It takes 16 bytes for each recorded
/// file, and as long as one look at each file of the module does.
///
/// # Errors
/// If what is recorded cannot be read.
pub fn in_place_changes(root: &SnapshotRoot) -> Result<InPlaceChanges> {
    let dir = root.subdir(Subdir::Inodes)?;
    let inode_log = InodeLog::read(dir.dir())?;
    let windows = LinkWindows::read(dir.dir());
    let mut changes = InPlaceChanges::default();
    let mut seen = vec![false; inode_log.as_ref().map_or(0, InodeLog::len)];
    let mut unknown = HashSet::new();
    let mut unreadable = 0;
    unreadable += walk(root.module(), &root.module_path, c".", &mut |name: &InodeName| {
        let found = inode_log.as_ref().map_or(0..0, |inode_log| inode_log.find(name.inode));
        if !found.is_empty() && std::mem::replace(&mut seen[found.start], true) {
            return;
        }
        let inode = match inspect_entry(name.directory, name.name) {
            // What is mounted over it, or has just taken its name, is not what was recorded.
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
        // Unknown windows belong to no run: then each other change time is a sign.
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
