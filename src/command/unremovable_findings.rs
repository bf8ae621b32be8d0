//! The findings of `check` about snapshots that cannot be removed.

use crate::decide::obstacle::Obstacles;
use crate::decide::snapshot_reason::SnapshotReason;
use crate::decide::snapshot_verdict::Decision;
use crate::module::target::Target;
use crate::store::root::SnapshotRoot;
use crate::store::unremovable;
use crate::tell::counted;
use crate::tell::escape::escape_path;

/// Snapshots that the policy no longer keeps and that cannot be removed, with the command that
/// helps.
pub(crate) fn unremovable_snapshots(
    target: &Target,
    root: &SnapshotRoot,
    decision: &Decision,
) -> Vec<String> {
    let obstacle = |reason: &SnapshotReason| match reason {
        SnapshotReason::Unremovable(obstacle) => Some(*obstacle),
        _ => None,
    };
    let verdicts = &decision.verdicts;
    let stay: Vec<_> = verdicts
        .iter()
        .filter_map(|verdict| Some((verdict, verdict.reasons.iter().find_map(obstacle)?)))
        .collect();
    let in_place = (!stay.is_empty()).then(|| {
        let obstacles = stay.iter().map(|(verdict, obstacle)| {
            (escape_path(&root.visible(&verdict.snapshot.name).path()), *obstacle)
        });
        format!(
            "{} that the policy no longer keeps cannot be removed and stays in place: {}",
            counted(stay.len(), "snapshot"),
            Obstacles::of_each(obstacles)
        )
    });
    in_place.into_iter().chain(set_aside(target, root)).collect()
}

/// For so many trees that were set aside, the obstacle is searched for.
const MAX_SET_ASIDE: usize = 3;

/// Trees that could not be removed and were set aside, with the commands that help.
fn set_aside(target: &Target, root: &SnapshotRoot) -> Option<String> {
    let names = unremovable::names(root);
    if names.is_empty() {
        return None;
    }
    let describe = |name: &String| match unremovable::obstacles(root, name) {
        Ok((_, obstacles)) if !obstacles.is_empty() => obstacles.to_string(),
        Ok((path, _)) => format!("{path}: nothing is known to be in the way any more"),
        Err(error) => error.to_string(),
    };
    let mut descriptions: Vec<String> = names.iter().take(MAX_SET_ASIDE).map(describe).collect();
    let more = names.len().saturating_sub(MAX_SET_ASIDE);
    descriptions.extend((more > 0).then(|| format!("and {}", counted(more, "more tree"))));
    Some(format!(
        "{} could not be removed and was set aside: {}; then run `rotate {} --purge`",
        counted(names.len(), "tree"),
        descriptions.join("; "),
        target.argument()
    ))
}
