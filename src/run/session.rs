//! The module, its open root and the clock, with which a run works from its first mark to its last.

use chrono::{DateTime, Utc};

use crate::module::target::Target;
use crate::store::leases::LeaseTerms;
use crate::store::root::SnapshotRoot;
use crate::system::clock::Clock;

/// A module, its open snapshot root, and the clock.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    pub(crate) target: &'a Target,
    pub(crate) root: &'a SnapshotRoot,
    pub(crate) clock: &'a Clock,
}

impl Session<'_> {
    /// The `max_lease` and the time that decide in this run how long a lease holds.
    pub(crate) fn lease_terms(&self) -> LeaseTerms {
        lease_terms(self.target, self.clock.now())
    }

    /// How messages name the module.
    pub(crate) fn label(&self) -> String {
        self.target.label()
    }
}

/// The `max_lease` and the time that decide whether a lease on a snapshot of `target` holds at
/// `now`.
pub(crate) fn lease_terms(target: &Target, now: DateTime<Utc>) -> LeaseTerms {
    LeaseTerms { max_lease: target.policy.max_lease.delta(), now }
}
