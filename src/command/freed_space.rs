//! Counts the space that an expiry would free: that of the snapshots that go, and of retired ones
//! that wait for their removal.
//!
//! Counting reads every file of these trees. That takes seconds for some hundred thousand entries,
//! and much longer for millions on a cold disk, so beyond a size it is done only with `--sizes`.

use crate::decide::free_space::bytes_text;
use crate::decide::snapshot_verdict::Decision;
use crate::engine::usage::Usage;
use crate::run::free_space::freed;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf, Slot};
use crate::store::snapshots::SnapshotList;

/// Trees with more entries than this are counted only with `--sizes`.
pub(crate) const USUAL_MAX_ENTRIES: u64 = 500_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FreedSpace {
    /// How many snapshots go.
    pub snapshots: usize,
    /// How many snapshots are retired already.
    pub retired: usize,
    /// The space that all of them free together; `None` if they have too many entries to count, or
    /// if some are subvolumes.
    pub usage: Option<Usage>,
    /// Whether some are subvolumes, of which it is not known what they free.
    pub has_sealed: bool,
}

/// Counts what the expiry frees, up to [`USUAL_MAX_ENTRIES`] entries unless `any_size`.
pub(crate) fn count(
    root: &SnapshotRoot,
    list: &SnapshotList,
    decision: &Decision,
    any_size: bool,
) -> FreedSpace {
    // A root that is not registered has no `expired/` yet.
    let expired = match root.is_registered() {
        true => OpenShelf::open(root, Shelf::Expired).ok(),
        false => None,
    };
    let retired =
        if expired.is_some() { retire::retired(root).unwrap_or_default() } else { Vec::new() };
    let going: Vec<&str> =
        decision.expired().map(|verdict| verdict.snapshot.name.as_str()).collect();

    let visible = going.iter().map(|name| root.visible(name));
    let hidden = expired.iter().flat_map(|expired| retired.iter().map(|name| expired.slot(name)));
    let trees: Vec<Slot> = visible.chain(hidden).collect();
    let max_entries = (!any_size).then_some(USUAL_MAX_ENTRIES);
    let is_too_much = max_entries.is_some_and(|max| recorded_entries(list, &going) > max);
    let has_sealed = trees.iter().any(|slot| slot.is_sealed(root));
    let usage = if is_too_much { None } else { freed(root, trees, max_entries) };
    FreedSpace { snapshots: going.len(), retired: retired.len(), usage, has_sealed }
}

/// What a removal has freed, or in a dry run would free, as one line.
pub(crate) fn freed_line(usage: &Usage, is_dry_run: bool) -> String {
    let Usage { bytes, entries, unreadable } = *usage;
    let what = if is_dry_run { "removing this would free" } else { "freed" };
    let unreadable = match unreadable {
        0 => String::new(),
        count => format!("; directories that could not be counted: {count}"),
    };
    let entries = match entries {
        1 => "1 file or directory".to_string(),
        count => format!("{count} files and directories"),
    };
    let text = bytes_text(bytes);
    let exact = if text.ends_with(" bytes") { String::new() } else { format!(" ({bytes} bytes)") };
    format!("{what} {text}{exact}, {entries}{unreadable}")
}

/// The entries of the named snapshots by their records. Adopted snapshots have no record and count
/// as none.
fn recorded_entries(list: &SnapshotList, names: &[&str]) -> u64 {
    let named = list.items.iter().filter(|item| names.contains(&item.name.text.as_str()));
    named.filter_map(|item| item.record.as_ref()).map(|record| record.entries).sum()
}
