//! Finds snapshots that [lack entries](crate::decide::lacking), or have more or others than
//! recorded, and which files these are, as far as later trees and the inode log show them. It only
//! reads.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::decide::lacking::{LostLinks, TreeCount, added, lacked};
use crate::engine::baseline::inspect_entry;
use crate::engine::descent::DescentStart;
use crate::engine::index::changed_entries::{ChangedEntries, changed_entries};
use crate::engine::inodes::{InodeName, walk};
use crate::run::verify::evidence::{CheckedSnapshot, Evidence};
use crate::run::verify::recorded_files::gap_of_walk;
use crate::run::verify::verified::{LackingSnapshot, SnapshotGap};
use crate::store::dir::Dir;
use crate::store::index_file;
use crate::system::mounts::Mounts;
use crate::system::syscalls::open_directory;
use crate::tell::error::Error;

/// How many of the files that a snapshot lacks are named.
const MAX_NAMED: usize = 10;

/// In how many later trees these files are looked for.
const MAX_TREES: usize = 3;

/// A snapshot that has fewer, more or other entries than recorded.
pub(crate) struct LackingTree {
    /// Its number among the snapshots.
    pub(crate) snapshot: usize,
    pub(crate) lost: LostLinks,
    lacks: u64,
    /// How many it has more than recorded.
    added: u64,
    /// If it has as many as recorded: the directories that have others.
    changed: ChangedEntries,
}

/// A snapshot that lost links, and when.
#[derive(Clone, Copy)]
pub(crate) struct LostTree<'a> {
    pub(crate) snapshot: &'a CheckedSnapshot,
    pub(crate) lost: LostLinks,
}

/// The snapshots that lost links: the visible ones that are `lacking`, and retired ones. A damaged
/// snapshot may expire before its damage is accepted.
pub(crate) fn lost_trees<'a>(evidence: &'a Evidence, lacking: &[LackingTree]) -> Vec<LostTree<'a>> {
    let visible = lacking
        .iter()
        .map(|tree| LostTree { snapshot: &evidence.snapshots[tree.snapshot], lost: tree.lost });
    let of_retired = |snapshot: &'a CheckedSnapshot| {
        snapshot.entries?;
        let count = evidence.walk(snapshot, &mut |_| ());
        let lacks = lacked(snapshot.entries, count, false).is_some();
        let has_others = changed_in(evidence, snapshot).directories > 0;
        let lost = lost_links(snapshot, count, has_others);
        (lacks || has_others).then_some(LostTree { snapshot, lost })
    };
    visible.chain(evidence.retired.iter().filter_map(of_retired)).collect()
}

fn lost_links(snapshot: &CheckedSnapshot, count: TreeCount, has_others: bool) -> LostLinks {
    LostLinks { began_ns: snapshot.began_ns, last_change_ns: count.last_change_ns, has_others }
}

/// The snapshots that have fewer, more or other entries than recorded. `counts`: what the survey
/// has counted in each. Adds to `gaps` how many directories of a snapshot could not be compared.
pub(crate) fn find(
    evidence: &Evidence,
    counts: &[TreeCount],
    gaps: &mut Vec<SnapshotGap>,
) -> Vec<LackingTree> {
    let mounts = Mounts::read();
    let of_snapshot = |(number, count): (usize, &TreeCount)| {
        let snapshot = &evidence.snapshots[number];
        let path = evidence.root.visible(&snapshot.name).path();
        let is_covered = mounts.as_ref().is_none_or(|mounts| mounts.has_below(&path));
        let lacks = lacked(snapshot.entries, *count, is_covered).unwrap_or(0);
        let added = added(snapshot.entries, *count, is_covered).unwrap_or(0);
        let changed = match lacks + added == 0 && !is_covered {
            true => changed_in(evidence, snapshot),
            false => ChangedEntries::default(),
        };
        gaps.extend(gap_of_walk(&changed).map(|gap| SnapshotGap {
            snapshot: snapshot.name.clone(),
            gap,
            is_of_entries: true,
        }));
        // A run may have retired it meanwhile.
        let differs = lacks + added + changed.directories > 0 && evidence.is_still_there(snapshot);
        differs.then_some(LackingTree {
            snapshot: number,
            lost: lost_links(snapshot, *count, added + changed.directories > 0),
            lacks,
            added,
            changed,
        })
    };
    counts.iter().enumerate().filter_map(of_snapshot).collect()
}

/// The directories of the snapshot that have other entries than its index says.
fn changed_in(evidence: &Evidence, snapshot: &CheckedSnapshot) -> ChangedEntries {
    let Some(index) = index_file::open(evidence.root, &snapshot.name) else {
        return ChangedEntries::default();
    };
    let Dir { directory, path } = evidence.dir(snapshot);
    let start = open_directory(directory, &snapshot.c_name)
        .and_then(|opened| DescentStart::root(opened, &path.join(&snapshot.name)));
    let changed = match start {
        Ok(start) => changed_entries(start, &[], &index, snapshot.entries.is_some()),
        Err(cause) => ChangedEntries::unreadable(cause),
    };
    if let Some((below, cause)) = &changed.first_failure {
        let path = path.join(&snapshot.name).join(OsStr::from_bytes(below));
        log::warn!("{}", Error::io("read", &path, *cause));
    }
    changed
}

/// The description of each, for messages.
pub(crate) fn described(evidence: &Evidence, lacking: &[LackingTree]) -> Vec<LackingSnapshot> {
    let describe = |tree: &LackingTree| {
        let snapshot = &evidence.snapshots[tree.snapshot];
        LackingSnapshot {
            name: snapshot.name.clone(),
            recorded: snapshot.entries.unwrap_or(0),
            lacks: tree.lacks,
            added: tree.added,
            changed: tree.changed.directories,
            changed_first: tree.changed.first.clone(),
            first: match tree.added {
                0 => missing_files(evidence, tree),
                _ => added_files(evidence, tree),
            },
            known: None,
        }
    };
    lacking.iter().map(describe).collect()
}

/// Files of the snapshot that no run has recorded.
fn added_files(evidence: &Evidence, tree: &LackingTree) -> Vec<Vec<u8>> {
    let Some(inode_log) = &evidence.inode_log else { return Vec::new() };
    let mut added = Vec::new();
    evidence.walk(&evidence.snapshots[tree.snapshot], &mut |name| {
        if added.len() < MAX_NAMED && inode_log.find(name.inode).is_empty() {
            added.push(name.path());
        }
    });
    added.sort();
    added
}

/// Files of later trees that were linked when the snapshot was made or before, and that it has
/// under no name.
fn missing_files(evidence: &Evidence, tree: &LackingTree) -> Vec<Vec<u8>> {
    let snapshot = &evidence.snapshots[tree.snapshot];
    let (Some(inode_log), Some(position)) = (&evidence.inode_log, snapshot.position) else {
        return Vec::new();
    };
    let mut held = HashSet::new();
    evidence.walk(snapshot, &mut |name| {
        held.insert(name.inode);
    });
    let root = evidence.root;
    let Dir { directory, path } = evidence.dir(snapshot);
    let later = evidence.snapshots.iter().skip(tree.snapshot + 1).take(MAX_TREES - 1);
    let later = later.map(|later| (directory, path, later.c_name.clone()));
    let module = root.module().ok();
    let module = module.map(|module| (module, root.module_path.as_path(), CString::from(c".")));
    let trees: Vec<(BorrowedFd, &Path, CString)> = later.chain(module).collect();
    let mut missing = Vec::new();
    for (parent, path, name) in trees {
        walk(parent, path, &name, &mut |name: &InodeName| {
            if missing.len() >= MAX_NAMED || held.contains(&name.inode) {
                return;
            }
            let first_linked = || {
                let inode = inspect_entry(name.directory, name.name).ok()?;
                let baselines = inode_log.baselines(inode.number, inode.birth_ns);
                baselines.first().map(|(position, _)| *position)
            };
            if first_linked().is_some_and(|linked| linked <= position) {
                missing.push(name.path());
            }
        });
        if !missing.is_empty() {
            break;
        }
    }
    if tree.lacks == 0 {
        let parent = |path: &[u8]| {
            let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            path[..end].to_vec()
        };
        missing.retain(|path| tree.changed.first.contains(&parent(path)));
    }
    missing.sort();
    missing
}
