//! What clients reach of the snapshots that CephFS shows in each directory as `.snap`.

use crate::support;

use std::fs;

use support::ceph::{MAY_WRITE, cluster};

#[test]
fn the_cluster_keeps_snapshots_through_crashes() {
    slow!();
    let Some(cluster) = cluster() else { return };
    let directory = cluster.directory();
    fs::write(directory.join("file"), "1").expect("a file");
    fs::create_dir(directory.join(".snap/one")).expect("a snapshot");
    let client = cluster.client(MAY_WRITE, &[]);
    let seen = client.sees(&directory);
    fs::write(seen.join("file"), "2").expect("a file");
    let error = fs::remove_dir(seen.join(".snap/one")).expect_err("no right to remove it");
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    cluster.crash(&client);
    cluster.kill_metadata_server();
    cluster.start_metadata_server();
    assert_eq!(fs::read_to_string(directory.join(".snap/one/file")).expect("a file"), "1");
    fs::remove_dir(directory.join(".snap/one")).expect("removed");
}
