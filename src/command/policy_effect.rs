//! What one policy does with the snapshots of a module. `plan` shows it, and `plan --policy` shows
//! that of two policies side by side.

use crate::command::freed_space::FreedSpace;
use crate::decide::forecast::Forecast;
use crate::decide::snapshot_verdict::Decision;

/// What one policy does with the snapshots of a module, for `plan`.
pub(crate) struct PolicyEffect {
    pub decision: Decision,
    /// The decision without caps and guards. It has the reasons for which a snapshot would go that
    /// only a guard holds.
    pub unguarded: Decision,
    /// When each snapshot goes; `None` if the usual distance of pushes is not known.
    pub forecast: Option<Forecast>,
    /// The space that would be freed.
    pub freed: FreedSpace,
    /// The policy's `max_expire`: snapshots beyond it go with later runs.
    pub max_expire: usize,
}

impl PolicyEffect {
    /// How many rotations it takes until all are gone that this policy does not keep; `None` if it
    /// lets none go.
    pub(crate) fn runs(&self) -> Option<usize> {
        let going = self.decision.verdicts.iter().filter(|verdict| !verdict.keep).count();
        let all = going + self.decision.deferred;
        (self.max_expire > 0).then(|| all.div_ceil(self.max_expire))
    }
}
