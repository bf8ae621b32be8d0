//! Which snapshots may go when space is short, although the policy keeps them, and in which order.

use crate::decide::grade::Grade;
use crate::decide::snapshot_reason::SnapshotReason;
use crate::decide::snapshot_verdict::{Decision, SnapshotVerdict};

/// The snapshots that may go for want of space although the policy keeps them. Those that stand for
/// the fewest frequencies come first, and of these the oldest. A snapshot that is kept for any
/// other reason (the newest, `min_keep`, `min_age`, a pin, a date in the future, an unreadable
/// record) is not among them.
pub fn free_space_candidates(decision: &Decision, min_keep: usize) -> Vec<&SnapshotVerdict> {
    let is_partial = |verdict: &SnapshotVerdict| {
        let gives_way = |reason: &SnapshotReason| {
            matches!(
                reason,
                SnapshotReason::RecentPartial { .. } | SnapshotReason::PartialSlot { .. }
            )
        };
        verdict.reasons.iter().all(gives_way)
    };
    let is_slot = |verdict: &SnapshotVerdict| {
        verdict.reasons.iter().all(|reason| matches!(reason, SnapshotReason::Slot { .. }))
    };
    let is_now = |verdict: &&SnapshotVerdict| {
        !verdict.reasons.contains(&SnapshotReason::Future) && verdict.snapshot.obstacle.is_none()
    };
    let kept = || decision.verdicts.iter().filter(|verdict| verdict.keep).filter(is_now);
    let mut candidates: Vec<&SnapshotVerdict> = kept().filter(|verdict| is_slot(verdict)).collect();
    // The sort is stable: snapshots with equally many reasons stay in the order of their time.
    candidates.sort_by_key(|verdict| verdict.reasons.len());
    let is_dated = |verdict: &&SnapshotVerdict| verdict.snapshot.undated.is_none();
    let complete =
        kept().filter(is_dated).filter(|verdict| verdict.snapshot.grade == Grade::Complete).count();
    candidates.truncate(complete.saturating_sub(min_keep));
    kept().filter(|verdict| is_partial(verdict)).chain(candidates).collect()
}
