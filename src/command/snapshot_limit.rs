//! Counts the snapshots of a module on CephFS, and asks the cluster how many there can be.

use std::process::{Command, Stdio};

use crate::decide::snapshot_limit::{LimitFinding, SnapshotCount, limit_finding, most_kept};
use crate::module::target::Target;
use crate::store::dir::names_in;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::SnapshotList;
use crate::system::cephfs::{DEFAULT_MAX_SNAPSHOTS, INHERITED};

/// What is to be said of the limit; [`LimitFinding::Far`] for snapshots that have none. The cluster
/// is asked only if its default would not do.
pub(crate) fn finding(target: &Target, root: &SnapshotRoot, list: &SnapshotList) -> LimitFinding {
    if !root.has_only_sealed() {
        return LimitFinding::Far;
    }
    let names = names_in(root.snapshots()).unwrap_or_default();
    let inherited = names.iter().filter(|name| name.starts_with(INHERITED)).count();
    let count = SnapshotCount {
        own: names.len() - inherited,
        inherited,
        pinned: list.items.iter().filter(|item| item.pin.is_some()).count(),
        limit: DEFAULT_MAX_SNAPSHOTS,
        is_limit_read: false,
    };
    let most = most_kept(&target.policy, count.pinned);
    match limit_finding(&count, most) {
        LimitFinding::Far => LimitFinding::Far,
        by_default => match limit_of_cluster() {
            Some(limit) => {
                limit_finding(&SnapshotCount { limit, is_limit_read: true, ..count }, most)
            }
            None => by_default,
        },
    }
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
