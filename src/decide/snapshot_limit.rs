//! Whether a module on CephFS comes near the number of snapshots that one directory can have.
//!
//! The metadata server counts the snapshots of directories further up and retired ones, too. When
//! the limit is reached, no further snapshot can be made, so it is to be known before that.

use crate::decide::frequency::SlotCount;
use crate::decide::policy::Policy;

/// The snapshots of one directory, and what the policy lets them become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotCount {
    /// The snapshots of the directory, of other programs, too; without retired ones that give way
    /// by themselves.
    pub own: usize,
    /// The snapshots of directories further up.
    pub inherited: usize,
    /// How many of its own are pinned.
    pub pinned: usize,
    /// The most that there can be.
    pub limit: usize,
    /// Whether that was read, and not taken to be the default.
    pub is_limit_read: bool,
}

/// How near the limit is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitFinding {
    /// There is room for what the policy keeps.
    Far,
    /// It will be met, or nearly has been. With what to say.
    Near(String),
    /// No snapshot can be made. With what to say.
    Met(String),
}

/// The most snapshots that `policy` keeps, partial and pinned ones included; none if that has no
/// bound. Retired ones come in addition until their grace is over.
pub fn most_kept(policy: &Policy, pinned: usize) -> Option<usize> {
    let mut sum = policy.keep_partial.saturating_add(pinned);
    for (_, count) in &policy.keep {
        match count {
            SlotCount::Newest(count) => sum = sum.saturating_add(*count as usize),
            SlotCount::Always => return None,
        }
    }
    Some(sum)
}

/// Decides what to say.
pub fn limit_finding(count: &SnapshotCount, most_kept: Option<usize>) -> LimitFinding {
    let SnapshotCount { own, inherited, limit, is_limit_read, .. } = *count;
    let present = own.saturating_add(inherited);
    let of_limit = match is_limit_read {
        true => format!("{limit} (`mds_max_snaps_per_dir`)"),
        false => format!("{limit}, unless `mds_max_snaps_per_dir` was raised"),
    };
    let above = match inherited {
        0 => String::new(),
        count => format!(", {count} of them of directories above"),
    };
    let remedy = "keep fewer by `keep` or a shorter `grace`, or raise it by `ceph config set mds \
                  mds_max_snaps_per_dir N`";
    if present >= limit && is_limit_read {
        return LimitFinding::Met(format!(
            "no snapshot can be made: the module's directory has {present}{above}, and CephFS \
             allows {of_limit}; {remedy}"
        ));
    }
    // The one that is being made counts, too.
    let will_be = |kept: usize| kept.saturating_add(inherited).saturating_add(1);
    let is_nearly_met = present.saturating_mul(10) >= limit.saturating_mul(9);
    match most_kept.map(will_be) {
        _ if is_nearly_met => LimitFinding::Near(format!(
            "the module's directory has {present} snapshots{above}, and CephFS allows {of_limit}; \
             {remedy}"
        )),
        Some(kept) if kept > limit => LimitFinding::Near(format!(
            "the policy keeps up to {kept} snapshots{above}, retired ones not counted, and CephFS \
             allows {of_limit}; {remedy}"
        )),
        // Of what is kept for ever, some years have to pass until it is many.
        Some(_) | None => LimitFinding::Far,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::frequency::Frequency;

    fn count(own: usize, inherited: usize) -> SnapshotCount {
        SnapshotCount { own, inherited, pinned: 0, limit: 100, is_limit_read: false }
    }

    #[test]
    fn the_limit_is_told_before_it_is_met() {
        let said = |own, inherited, kept| limit_finding(&count(own, inherited), kept);
        assert_eq!(said(10, 0, Some(99)), LimitFinding::Far);
        assert!(matches!(said(10, 0, Some(100)), LimitFinding::Near(_)));
        assert!(matches!(said(10, 1, Some(99)), LimitFinding::Near(_)), "those above count");
        assert_eq!(said(89, 0, Some(50)), LimitFinding::Far);
        assert!(matches!(said(90, 0, Some(50)), LimitFinding::Near(_)));
        assert_eq!(said(10, 0, None), LimitFinding::Far, "for ever takes years");
        assert!(matches!(said(90, 0, None), LimitFinding::Near(_)));
    }

    #[test]
    fn a_limit_that_is_only_assumed_is_not_said_to_be_met() {
        let met = SnapshotCount { is_limit_read: true, ..count(100, 0) };
        assert!(matches!(limit_finding(&met, Some(5)), LimitFinding::Met(_)));
        assert!(matches!(limit_finding(&count(100, 0), Some(5)), LimitFinding::Near(_)));
    }

    #[test]
    fn what_a_policy_keeps_is_the_sum_of_its_counts() {
        let policy = Policy {
            keep: vec![
                (Frequency::Hourly, SlotCount::Newest(24)),
                (Frequency::Daily, SlotCount::Newest(7)),
            ],
            keep_partial: 2,
            ..Policy::default()
        };
        assert_eq!(most_kept(&policy, 3), Some(36));
        let always = Policy { keep: vec![(Frequency::Yearly, SlotCount::Always)], ..policy };
        assert_eq!(most_kept(&always, 0), None);
    }
}
