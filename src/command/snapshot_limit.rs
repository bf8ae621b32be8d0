//! Counts the snapshots of a module on CephFS, and asks the cluster how many there can be.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::decide::snapshot_limit::{LimitFinding, SnapshotCount, limit_finding, most_kept};
use crate::module::target::Target;
use crate::store::dir::names_in;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::Shelf;
use crate::store::snapshots::SnapshotList;
use crate::system::cephfs::{DEFAULT_MAX_SNAPSHOTS, INHERITED};
use crate::system::mounts::Mounts;

/// What the cluster has answered; none before it was asked, or if it did not answer.
static LIMIT: OnceLock<Option<usize>> = OnceLock::new();

/// Asks the cluster for its limit, if this machine has mounted a CephFS. To be called before this
/// process confines itself: then it can start no other program.
pub(crate) fn ask_cluster() {
    if Mounts::read().is_some_and(|mounts| mounts.has_ceph()) {
        LIMIT.get_or_init(limit_of_cluster);
    }
}

/// What is to be said of the limit; [`LimitFinding::Far`] for snapshots that have none.
pub(crate) fn finding(target: &Target, root: &SnapshotRoot, list: &SnapshotList) -> LimitFinding {
    if !root.has_only_sealed() {
        return LimitFinding::Far;
    }
    let names = names_in(root.snapshots()).unwrap_or_default();
    // Without a `grace` in the policy they are removed when the limit is met.
    let gives_way = |name: &&String| {
        target.policy.grace.is_none() && Shelf::Expired.own(name.as_str()).is_some()
    };
    let inherited = names.iter().filter(|name| name.starts_with(INHERITED)).count();
    let limit = LIMIT.get().copied().flatten();
    let count = SnapshotCount {
        own: names.len() - inherited - names.iter().filter(gives_way).count(),
        inherited,
        pinned: list.items.iter().filter(|item| item.pin.is_some()).count(),
        limit: limit.unwrap_or(DEFAULT_MAX_SNAPSHOTS),
        is_limit_read: limit.is_some(),
    };
    limit_finding(&count, most_kept(&target.policy, count.pinned))
}

/// The limit as the cluster has it; none if this machine has no `ceph` program, or no key that may
/// ask.
fn limit_of_cluster() -> Option<usize> {
    let asked = Command::new("ceph")
        .args(["--connect-timeout", "3", "config", "get", "mds", "mds_max_snaps_per_dir"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let answer = asked.ok().filter(|answer| answer.status.success())?;
    str::from_utf8(&answer.stdout).ok()?.trim().parse().ok()
}
