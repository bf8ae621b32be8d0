//! Counts how much space each snapshot takes, for `list --sizes`.
//!
//! One walk goes over all snapshots, the retired ones and the module. It takes no lock and no
//! lease, so pushes and runs go on. If a tree goes meanwhile, numbers become too small, never too
//! large. The names are read before the walk, so the numbers of its neighbours then count as
//! inexact.

use std::os::fd::{AsFd, OwnedFd};

use chrono::{DateTime, Utc};

use crate::decide::free_space_choice::SpaceGain;
use crate::decide::snapshot_size::{CountedSnapshot, neighbours};
use crate::engine::usage::{self, UsageTree};
use crate::store::dir::c_name;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf, Slot};
use crate::store::sizes_file::CountedSizes;
use crate::store::snapshots::{ListedSnapshot, SnapshotList};
use crate::system::btrfs::exclusive_bytes;
use crate::system::syscalls::open_directory;
use crate::tell::error::Result;

/// The names of all trees that share files with snapshots: the snapshots and the retired ones,
/// oldest first.
pub(crate) struct TreeNames {
    pub(crate) all: Vec<String>,
    retired: Vec<String>,
}

impl TreeNames {
    /// The names in `list`, with those of the retired snapshots.
    pub(crate) fn read(root: &SnapshotRoot, list: &SnapshotList) -> Result<Self> {
        let retired = if root.is_registered() { retire::retired(root)? } else { Vec::new() };
        let visible = list.items.iter().map(|item| item.name.text.clone());
        let mut all: Vec<String> = visible.chain(retired.iter().cloned()).collect();
        // Names that this program gives sort by time. Those of other programs may not, but two
        // neighbours in the wrong order only make a number inexact.
        all.sort();
        Ok(TreeNames { all, retired })
    }

    /// The names as [`neighbours`] takes them.
    pub(crate) fn refs(&self) -> Vec<&str> {
        self.all.iter().map(String::as_str).collect()
    }
}

/// What a count found, and how many directories it could not read.
pub(crate) struct SizesFound {
    pub(crate) sizes: CountedSizes,
    pub(crate) unreadable: u64,
}

/// Counts the trees of a root, which takes as long as to read all of them.
pub(crate) fn count(
    root: &SnapshotRoot,
    list: &SnapshotList,
    now: DateTime<Utc>,
) -> Result<SizesFound> {
    let names = TreeNames::read(root, list)?;
    let expired = match names.retired.is_empty() {
        true => None,
        false => Some(OpenShelf::open(root, Shelf::Expired)?),
    };
    let visible = list.items.iter().map(|item| root.visible(&item.name.text));
    let hidden =
        expired.iter().flat_map(|expired| names.retired.iter().map(|name| expired.slot(name)));
    let slots: Vec<Slot> = visible.chain(hidden).collect();
    // A sealed snapshot shares its content in another way than by links.
    let exclusive: Vec<Option<Option<u64>>> =
        slots.iter().map(|slot| exclusive(root, slot)).collect();
    let are_linked = exclusive.iter().all(Option::is_none) && !root.method().is_instant();
    // A walk does not cross the border of a subvolume, so it begins inside.
    let opened: Vec<Option<OwnedFd>> = slots.iter().map(|slot| open_sealed(root, slot)).collect();
    let mut trees: Vec<UsageTree> = Vec::new();
    for (slot, opened) in slots.into_iter().zip(&opened) {
        trees.push(match opened {
            None => UsageTree::from(slot),
            Some(opened) => {
                let (parent, parent_path) = (opened.as_fd(), slot.dir.path);
                UsageTree { parent, parent_path, name: c_name(".") }
            }
        });
    }
    let of_snapshots = trees.len();
    // A module that is gone or cannot be read shares nothing that could be seen.
    if let Ok(module) = root.module() {
        let (parent_path, name) = (root.module_path.as_path(), c_name("."));
        trees.push(UsageTree { parent: module, parent_path, name });
    }
    let counted = usage::freed_by_any(&trees);
    let mut alone = vec![0; trees.len()];
    for SpaceGain { first, last, bytes } in &counted.gains {
        alone[*first] += if first == last { *bytes } else { 0 };
    }
    let sum =
        |of: usize| counted.gains.iter().filter(|gain| gain.last < of).map(|gain| gain.bytes).sum();
    let refs = names.refs();
    let snapshot = |(number, item): (usize, &ListedSnapshot)| {
        let name = item.name.text.clone();
        let (before, after) = neighbours(&name, &refs);
        CountedSnapshot {
            size_bytes: counted.sizes[number],
            alone_bytes: exclusive[number].unwrap_or(Some(alone[number])),
            before: before.map(str::to_string),
            after: after.map(str::to_string),
            name,
        }
    };
    let snapshots = list.items.iter().enumerate().map(snapshot).collect();
    Ok(SizesFound {
        sizes: CountedSizes::new(
            now,
            are_linked.then(|| sum(trees.len())),
            are_linked.then(|| sum(of_snapshots)),
            snapshots,
        ),
        unreadable: counted.usage.unreadable,
    })
}

/// What a tree takes that no other shares, if it is sealed; the inner value is none if the
/// file system does not know.
fn exclusive(root: &SnapshotRoot, slot: &Slot) -> Option<Option<u64>> {
    slot.is_sealed(root).then(|| exclusive_bytes(open_sealed(root, slot)?.as_fd()))
}

fn open_sealed(root: &SnapshotRoot, slot: &Slot) -> Option<OwnedFd> {
    let is_one = slot.is_sealed(root);
    is_one.then(|| open_directory(slot.dir.directory, &slot.name).ok()).flatten()
}
