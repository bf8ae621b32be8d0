//! The finding of `check` about readers that have read for long.

use chrono::TimeDelta;

use crate::decide::duration_text::roughly;
use crate::decide::lease::LeaseStanding;
use crate::store::lease_entry::StoredLease;
use crate::store::leases::{LeaseTerms, Leases};

/// How long a reader may read before `check` names it.
const LONG: TimeDelta = TimeDelta::days(1);

/// The readers that have read for more than a day.
pub(crate) fn long_leases(leases: &Leases, terms: LeaseTerms) -> Vec<String> {
    let is_long = |lease: &&StoredLease| lease.age(terms.now) >= LONG;
    let describe = |lease: &StoredLease| {
        let (subject, reader) = (lease.subject(), lease.reader());
        let limit = roughly(terms.max_lease);
        let remedy = if lease.is_unseen() {
            "its process cannot be seen from here; if it has ended, run `release --unseen`"
        } else {
            "if that reader is not needed, end its process"
        };
        match lease.standing(terms.now, terms.max_lease) {
            LeaseStanding::Holds => format!(
                "{subject} cannot expire: {reader}, and is kept for max_lease ({limit}) at most; \
                 {remedy}"
            ),
            LeaseStanding::Outlasted | LeaseStanding::Over => format!(
                "{subject} may expire while it is read: {reader}, for longer than max_lease \
                 ({limit}); to keep it, `pin` it"
            ),
        }
    };
    leases.present().filter(is_long).map(describe).collect()
}
