//! Counts pushes in a row that brought no complete snapshot, so that `check` can report them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::grade::Grade;
use crate::decide::rsync_status::NO_HOOK;
use crate::decide::transfer_reason::TransferReason;
use crate::decide::transfer_verdict::TransferVerdict;

/// Pushes in a row that did not bring a complete snapshot, whatever the reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushesWithoutSnapshot {
    /// How many pushes in a row.
    pub pushes: u32,
    /// When the first of them ended.
    pub since: DateTime<Utc>,
    /// rsync's status of the last one.
    pub status: i32,
    /// Why the last one brought none.
    pub because: TransferReason,
}

/// After this many pushes in a row without a complete snapshot, `check` reports them.
pub const PUSHES_WITHOUT_SNAPSHOT_LIMIT: u32 = 3;

impl PushesWithoutSnapshot {
    /// The count after `pushes` after which no hook ran.
    pub fn after_pushes_without_hook(
        before: Option<Self>,
        pushes: u32,
        now: DateTime<Utc>,
    ) -> Self {
        let (known, since) = before.map_or((0, now), |it| (it.pushes, it.since));
        PushesWithoutSnapshot {
            pushes: known.saturating_add(pushes),
            since,
            status: NO_HOOK,
            because: TransferReason::Failed { status: NO_HOOK },
        }
    }

    /// The count to remember after a push that ended with `status` and got this verdict.
    pub fn after(
        before: Option<Self>,
        status: i32,
        verdict: &TransferVerdict,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        match &verdict.because {
            // Either it is not known yet what the push will bring, or it brings no snapshot anyway.
            TransferReason::NothingWritten { .. }
            | TransferReason::LeftToClient
            | TransferReason::LeftToPushes { .. }
            | TransferReason::TooSoon => before,
            _ if verdict.covered() == Some(Grade::Complete) => None,
            because => {
                let (pushes, since) = before.as_ref().map_or((0, now), |it| (it.pushes, it.since));
                // If nothing has changed since a partial snapshot, what made that one partial still
                // holds.
                let standing = before.map(|it| it.because).filter(|_| is_unchanged(because));
                Some(PushesWithoutSnapshot {
                    pushes: pushes.saturating_add(1),
                    since,
                    status,
                    because: standing.unwrap_or_else(|| because.clone()),
                })
            }
        }
    }
}

fn is_unchanged(because: &TransferReason) -> bool {
    matches!(because, TransferReason::Unchanged { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::transfer_verdict::DueMarkChange;

    #[test]
    fn pushes_without_a_complete_snapshot_are_counted() {
        let now = DateTime::UNIX_EPOCH;
        let failed = |status| TransferVerdict {
            snapshot: None,
            because: TransferReason::Failed { status },
            marks: None,
            due_mark: DueMarkChange::Keep,
        };
        let mut before = None;
        for count in 1..=4 {
            before = PushesWithoutSnapshot::after(before, 23, &failed(23), now);
            assert_eq!(before.as_ref().map(|it| it.pushes), Some(count));
        }
        let other = PushesWithoutSnapshot::after(before.clone(), 25, &failed(25), now);
        assert_eq!(other.map(|it| (it.pushes, it.status)), Some((5, 25)), "the reasons may differ");
        let unseen = PushesWithoutSnapshot::after_pushes_without_hook(before.clone(), 2, now);
        assert_eq!((unseen.pushes, unseen.status), (6, NO_HOOK));
        let unchanged = TransferVerdict {
            because: TransferReason::Unchanged { grade: Grade::Partial },
            ..failed(0)
        };
        let still = PushesWithoutSnapshot::after(before.clone(), 0, &unchanged, now);
        let because = TransferReason::Failed { status: 23 };
        assert_eq!(still.map(|it| (it.pushes, it.because)), Some((5, because)));
        let complete = TransferVerdict {
            snapshot: Some(Grade::Complete),
            because: TransferReason::EndedWell,
            ..failed(0)
        };
        assert_eq!(PushesWithoutSnapshot::after(before, 0, &complete, now), None);
    }
}
