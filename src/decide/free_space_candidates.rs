//! Which snapshots may go when space is short, although the policy keeps them, and in which order.

use crate::decide::grade::Grade;
use crate::decide::snapshot_reason::SnapshotReason;
use crate::decide::snapshot_verdict::{Decision, SnapshotVerdict};

/// The snapshots that may go for want of space although the policy, or a reader, keeps them. First
/// come those that only a reader keeps: a client that reads must not cost snapshots that the policy
/// keeps. Then come partial ones, then those that stand for the fewest frequencies, and of these
/// the oldest. A snapshot that is kept for any other reason (the newest, `min_keep`, `min_age`, a
/// pin, a date in the future, an unreadable record) is not among them.
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
    let is_only_read = |verdict: &SnapshotVerdict| {
        verdict.reasons.iter().all(|reason| matches!(reason, SnapshotReason::Read(_)))
    };
    let kept = || decision.verdicts.iter().filter(|verdict| verdict.keep).filter(is_now);
    let mut candidates: Vec<&SnapshotVerdict> = kept().filter(|verdict| is_slot(verdict)).collect();
    // The sort is stable: snapshots with equally many reasons stay in the order of their time.
    candidates.sort_by_key(|verdict| verdict.reasons.len());
    let is_dated = |verdict: &&SnapshotVerdict| verdict.snapshot.undated.is_none();
    let is_complete = |verdict: &&SnapshotVerdict| {
        verdict.snapshot.grade == Grade::Complete && !is_only_read(verdict)
    };
    let complete = kept().filter(is_dated).filter(is_complete).count();
    candidates.truncate(complete.saturating_sub(min_keep));
    let read = kept().filter(|verdict| is_only_read(verdict));
    read.chain(kept().filter(|verdict| is_partial(verdict))).chain(candidates).collect()
}
