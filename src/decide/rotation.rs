//! Which snapshots stay, which go, and why: a pure function of snapshots, state, policy and now.
//!
//! The rule is that of rotate-backups: cut time into slots for each frequency, let one snapshot
//! stand for each slot, drop the slots before the window, and keep the N newest ones. A snapshot
//! that stands for a kept slot stays. This program differs where the rule loses data:
//!
//! * A snapshot is valid not for an instant but from its own time to *verified-until*, the last
//!   run that found nothing changed, and stands for every slot between. So a snapshot has a
//!   *range* of slots, and all arithmetic is on ranges: its cost does not depend on how long
//!   the quiet was.
//! * Complete snapshots are decided alone; partial, future-dated and
//!   [undated] ones take no part.
//! * The newest complete one, `min_keep`, `min_age` and pins only ever add to what is kept;
//!   readers, the pauses and `max_expire` come last and only ever turn "goes" into "stays".

use chrono::{DateTime, Utc};

use crate::decide::decision_before_guards::decide_before_guards;
use crate::decide::policy::Policy;
use crate::decide::snapshot::Snapshot;
use crate::decide::snapshot_reason::ExpiryPause;
use crate::decide::snapshot_verdict::{Decision, RotationHistory};
use crate::decide::{expiry_in_doubt, pauses, undated};

/// Decides for all `snapshots` of a root. The order of the input does not matter.
pub fn decide(
    snapshots: &[Snapshot],
    history: &RotationHistory,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Decision {
    let clock = history.clock_now(snapshots, policy);
    let mut snapshots = snapshots.to_vec();
    undated::mark(&mut snapshots, &clock);
    let mut decision = decide_before_guards(&snapshots, policy, now);
    pauses::keep_unremovable(&mut decision.verdicts);
    decision.pause = pauses::pauses(&snapshots, history, &clock, policy, now)
        .into_iter()
        .next()
        .or_else(|| pauses::pause_after_policy_change(&decision, history, policy));
    if let Some(pause) = decision.pause.clone() {
        pauses::apply_pause(&mut decision.verdicts, &pause);
        if let ExpiryPause::ClockDoubt(_) = pause {
            expiry_in_doubt::expire_under_all(&mut decision.verdicts, &clock, policy);
            pauses::keep_unremovable(&mut decision.verdicts);
            if pauses::pause_after_policy_change(&decision, history, policy).is_some() {
                pauses::apply_pause(&mut decision.verdicts, &pause);
            }
        }
    }
    // After the pauses: a client that reads must not keep a changed policy from being noticed.
    pauses::keep_read(&mut decision.verdicts);
    decision.deferred = pauses::apply_max_expire(&mut decision.verdicts, policy.max_expire);
    decision
}

/// All reasons why nothing expires but a changed policy, of which the [decision](decide) tells.
pub fn pauses(
    snapshots: &[Snapshot],
    history: &RotationHistory,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Vec<ExpiryPause> {
    let clock = history.clock_now(snapshots, policy);
    let mut snapshots = snapshots.to_vec();
    undated::mark(&mut snapshots, &clock);
    pauses::pauses(&snapshots, history, &clock, policy, now)
}
