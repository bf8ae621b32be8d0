//! The numbers of a module in `check`, for JSON, performance data and metrics.

use chrono::{DateTime, Utc};
use rustix::fs::fstatvfs;
use serde::{Deserialize, Serialize};

use crate::command::root_findings::RootFacts;
use crate::decide::grade::Grade;
use crate::store::record::Record;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::ListedSnapshot;

/// What is known of a module's snapshots, pushes and disk. A time is given as it is, and as an age
/// when `check` ran.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ModuleNumbers {
    pub(crate) complete_snapshots: usize,
    pub(crate) partial_snapshots: usize,
    /// When the newest complete snapshot was taken.
    pub(crate) newest_complete_time: Option<DateTime<Utc>>,
    /// Until when later runs found the module equal to it.
    pub(crate) verified_until: Option<DateTime<Utc>>,
    /// The time since then, which `max_age` limits.
    pub(crate) age_seconds: Option<i64>,
    pub(crate) last_good_push: Option<DateTime<Utc>>,
    /// The time since then, which `max_age` limits, too.
    pub(crate) last_good_push_age_seconds: Option<i64>,
    pub(crate) max_age_seconds: Option<u64>,
    /// In the newest complete snapshot, if that is recorded.
    pub(crate) entries: Option<u64>,
    /// How long the newest snapshot took, of whatever grade.
    pub(crate) duration_seconds: Option<f64>,
    pub(crate) running_pushes: usize,
    /// Of the root's file system.
    pub(crate) free_bytes: Option<u64>,
    pub(crate) total_bytes: Option<u64>,
    pub(crate) torn: bool,
    pub(crate) due: bool,
    /// Nothing expires.
    pub(crate) paused: bool,
    /// Files in snapshots were found altered, and that is not accepted.
    pub(crate) damaged: bool,
}

impl ModuleNumbers {
    pub(crate) fn of(facts: &RootFacts) -> Self {
        let RootFacts { target, root, examined, activity, history, torn, now } = *facts;
        let (items, state) = (&examined.list.items, &examined.state);
        let newest = examined.list.newest(Grade::Partial, now);
        let complete = examined.list.newest(Grade::Complete, now);
        let of_grade = |grade| items.iter().filter(|item| item.name.grade == grade).count();
        let age = |time: DateTime<Utc>| (now - time).num_seconds().max(0);
        let verified_until = complete.map(ListedSnapshot::verified_until);
        let last_good_push = history.last_good().map(|(_, time)| time);
        let space = space(root);
        ModuleNumbers {
            complete_snapshots: of_grade(Grade::Complete),
            partial_snapshots: of_grade(Grade::Partial),
            newest_complete_time: complete.map(|item| item.name.time),
            verified_until,
            age_seconds: verified_until.map(age),
            last_good_push,
            last_good_push_age_seconds: last_good_push.map(age),
            max_age_seconds: target.policy.max_age.map(|max_age| max_age.seconds()),
            entries: complete.and_then(own_record).map(|record| record.entries),
            duration_seconds: newest.and_then(own_record).map(|record| record.duration_seconds),
            running_pushes: activity.pushes().count(),
            free_bytes: space.map(|(free, _)| free),
            total_bytes: space.map(|(_, total)| total),
            torn: torn.is_some(),
            due: state.due.is_some(),
            paused: examined.decision.pause.is_some() || !target.trouble.is_empty(),
            damaged: state.damage.is_some(),
        }
    }
}

/// The record of a snapshot that this program made. What another program has made was neither
/// counted nor timed.
fn own_record(item: &ListedSnapshot) -> Option<&Record> {
    item.record.as_ref().filter(|record| !record.adopted)
}

/// How many bytes are free on the root's file system, and how many it has.
pub(crate) fn space(root: &SnapshotRoot) -> Option<(u64, u64)> {
    let space = fstatvfs(root.directory()).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    Some((bytes(space.f_bavail), bytes(space.f_blocks)))
}
