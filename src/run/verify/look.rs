//! The order of a verification: survey, touches, naming.

use std::collections::HashSet;

use crate::module::target::Target;
use crate::run::verify::case::Case;
use crate::run::verify::verified::Verified;
use crate::run::verify::{naming, survey, touches};
use crate::store::inode_log::reading::Catalogue;
use crate::store::inode_log::windows::Windows;
use crate::store::root::SnapshotRoot;
use crate::tell::error::Result;

/// Looks at all snapshots without remembering anything. Returns also which inode numbers are
/// recorded for files that are no more.
pub(crate) fn look(target: &Target, root: &SnapshotRoot) -> Result<(Verified, HashSet<u64>)> {
    let case = Case::open(target, root)?;
    let survey = survey::survey(&case);
    // Now, so that what was linked while we looked lies in a window.
    let windows = Windows::read(case.inodes.dir());
    let touches = touches::confirmed(&case, &windows, survey.touches)?;
    let mut verified = Verified {
        snapshots: case.snapshots.len(),
        inodes: survey.inodes,
        unknown: survey.unknown,
        unprovable: touches.unprovable,
        unstable: survey.unstable,
        file_system: root.inode_number_warning(),
        unreadable: survey.unreadable,
        lost_bytes: case.catalogue.as_ref().map_or(0, |catalogue| catalogue.lost_bytes),
        has_windows: windows.are_known(),
        ..Verified::default()
    };
    verified.altered = naming::named(&case, &survey.altered, &touches.in_place);
    case.catalogue.as_ref().map_or(Ok(()), Catalogue::check)?;
    verified.altered_inodes = verified.altered.iter().map(|altered| altered.inode).collect();
    Ok((verified, survey.stale))
}
