//! The steps of a verification in order: survey, touches, damaged paths.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use crate::module::target::Target;
use crate::run::verify::evidence::Evidence;
use crate::run::verify::verified::Verified;
use crate::run::verify::{damaged_paths, lacking, recorded_files, survey, touches};
use crate::store::inode_log::reader::InodeLog;
use crate::store::inode_log::windows::LinkWindows;
use crate::store::root::SnapshotRoot;
use crate::tell::error::Result;

/// Verifies all snapshots and changes nothing. Returns also the inode numbers that are recorded for
/// files that no longer exist.
pub(crate) fn examine(
    target: &Target,
    root: &SnapshotRoot,
    now: DateTime<Utc>,
) -> Result<(Verified, HashSet<u64>)> {
    let mut evidence = Evidence::open(target, root, now)?;
    let survey = survey::survey(&evidence);
    // Read after the survey, so that links made meanwhile lie in a window.
    let windows = LinkWindows::try_read(evidence.inodes.dir()).unwrap_or_else(|error| {
        log::warn!("when runs made links is not known, so change times prove nothing: {error}");
        LinkWindows::default()
    });
    let mut gaps = recorded_files::gaps(&evidence);
    let lacking = lacking::find(&evidence, &survey.counts, &mut gaps);
    let touches = touches::confirm(&evidence, &windows, survey.touches, &survey.held, &lacking)?;
    let mut verified = Verified {
        snapshots: evidence.snapshots.len(),
        subvolumes: evidence.subvolumes,
        cephfs_snapshots: evidence.cephfs_snapshots,
        changed_subvolumes: std::mem::take(&mut evidence.changed_subvolumes),
        inodes: survey.inodes,
        unknown: survey.unknown,
        unprovable: touches.unprovable,
        unstable: survey.unstable,
        file_system: root.inode_number_warning(),
        unreadable: survey.unreadable,
        lost_bytes: evidence.inode_log.as_ref().map_or(0, |inode_log| inode_log.lost_bytes),
        has_windows: windows.are_known(),
        lost_windows: !windows.are_known()
            && evidence.snapshots.iter().any(|snapshot| snapshot.position.is_some()),
        lacking: lacking::described(&evidence, &lacking),
        explained_inodes: touches.explained,
        lost_links: touches.lost,
        gaps,
        vanished: std::mem::take(&mut evidence.vanished),
        ..Verified::default()
    };
    verified.altered = damaged_paths::altered_paths(&evidence, &survey.altered, &touches.in_place);
    evidence.inode_log.as_ref().map_or(Ok(()), InodeLog::check)?;
    verified.altered_inodes = verified.altered.iter().map(|altered| altered.inode).collect();
    Ok((verified, survey.stale))
}
