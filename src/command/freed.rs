//! What an expiry would really free: the trees of the snapshots that go, and of those that are
//! retired already and wait for their removal.
//!
//! Counting looks at every file of these trees, which is seconds for some hundred thousand entries
//! and much longer for millions on a cold disk; so beyond a size it is done only if asked for.

use crate::decide::snapshot_verdict::Decision;
use crate::engine::usage::{self, Usage, UsageTree};
use crate::store::dir::{Dir, c_name};
use crate::store::layout::Subdir;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::SnapshotList;

/// Trees with more entries than this are counted only if asked for.
pub(crate) const USUAL_MAX_ENTRIES: u64 = 500_000;

/// What an expiry frees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FreedSpace {
    /// Snapshots that go.
    pub snapshots: usize,
    /// Snapshots that are retired already.
    pub retired: usize,
    /// What all of them free together; none if that was too much to count.
    pub usage: Option<Usage>,
}

/// Counts what the expiry frees; only up to [`USUAL_MAX_ENTRIES`] unless `any_size`.
pub(crate) fn count(
    root: &SnapshotRoot,
    list: &SnapshotList,
    decision: &Decision,
    any_size: bool,
) -> FreedSpace {
    // A room that does not exist yet holds nothing.
    let expired = if root.is_registered() { root.subdir(Subdir::Expired).ok() } else { None };
    let retired =
        if expired.is_some() { retire::retired(root).unwrap_or_default() } else { Vec::new() };
    let going: Vec<&str> =
        decision.expired().map(|verdict| verdict.snapshot.name.as_str()).collect();

    let in_root = Dir { directory: root.directory(), path: &root.path };
    let mut trees: Vec<UsageTree> = going.iter().map(|name| tree(in_root, name)).collect();
    if let Some(expired) = &expired {
        trees.extend(retired.iter().map(|name| tree(expired.dir(), name)));
    }
    let max_entries = (!any_size).then_some(USUAL_MAX_ENTRIES);
    let is_too_much = max_entries.is_some_and(|max| recorded_entries(list, &going) > max);
    let usage = if is_too_much { None } else { usage::freed(&trees, max_entries) };
    FreedSpace { snapshots: going.len(), retired: retired.len(), usage }
}

fn tree<'a>(dir: Dir<'a>, name: &str) -> UsageTree<'a> {
    UsageTree { parent: dir.directory, parent_path: dir.path, name: c_name(name) }
}

/// What the records say of the size of snapshots; nothing of adopted ones.
fn recorded_entries(list: &SnapshotList, names: &[&str]) -> u64 {
    let named = list.items.iter().filter(|item| names.contains(&item.name.text.as_str()));
    named.filter_map(|item| item.record.as_ref()).map(|record| record.entries).sum()
}
