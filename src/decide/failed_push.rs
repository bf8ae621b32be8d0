//! A failed push: what is known of it, which directories it did not finish, and which later push
//! makes up for it. The [torn mark](crate::decide::torn_mark) holds all failed pushes of a module.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::boot_time::BootTime;
use crate::decide::client::RESTORE;
use crate::decide::clock_tick::STAMP_LAG_NS;
use crate::decide::push_job::{PushJob, is_at_or_above, is_below, normalized};

/// Stands for a client that the ledger does not know.
pub(crate) const UNKNOWN: &str = "";

/// How the identity of a client begins that did not log in.
pub(crate) const BY_ADDRESS: &str = "address ";

/// How many unfinished directories are remembered of each failed push, the latest ones.
pub const MAX_DIRECTORIES: usize = 16;

/// A failed push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedPush {
    pub(crate) client: String,
    /// Where it went, as the client asked for it, escaped.
    pub(crate) request: String,
    /// When it began; `None` if the ledger does not know the push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) began: Option<BootTime>,
    /// When the earliest failed push of the same job began, if this entry stands for more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_began: Option<BootTime>,
    /// When a run noticed its end.
    pub(crate) noticed: BootTime,
    /// Its place in the order of the ledger's entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sequence: Option<u64>,
    /// What it was to do; none if its arguments were not understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) job: Option<PushJob>,
    /// Whether it wrote into files in place, which names and inodes do not show.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) in_place: bool,
    /// No change that it made is older than this, nor one of an earlier failed push of the same
    /// job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) writes_since: Option<DateTime<Utc>>,
    /// Whether a run has searched the tree for directories that this push left unfinished.
    #[serde(default, rename = "is_looked_at", skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_tree_searched: bool,
    /// Directories that it did not finish, the latest first.
    #[serde(default, rename = "scars", skip_serializing_if = "Vec::is_empty")]
    pub(crate) unfinished: Vec<UnfinishedDirectory>,
    /// Another push may have left some of these directories unfinished, so their healing does not
    /// prove that this push was repeated.
    #[serde(default, rename = "scars_are_shared", skip_serializing_if = "std::ops::Not::not")]
    pub(crate) directories_are_shared: bool,
    /// How many good pushes covered it and left directories of it unfinished.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) unhealed_pushes: u32,
}

/// A directory that a push did not finish.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnfinishedDirectory {
    /// From the module's directory on, escaped.
    pub path: String,
    /// Its modification time, which equalled its change time, in nanoseconds since 1970. It is
    /// stored as text, because TOML's integers end in 2262.
    #[serde(with = "nanoseconds")]
    pub mtime_ns: i64,
}

/// A push that the ledger knows, as far as it matters for the torn mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerPush {
    /// Who pushed: a user, or an address where the module asks for no login.
    pub client: String,
    /// Where to, as the client asked for it, escaped.
    pub request: String,
    /// When it began.
    pub began: BootTime,
    /// When it began by the wall clock, which the kernel stamps files with.
    pub began_at: DateTime<Utc>,
    /// Its place in the order of the ledger's entries.
    pub sequence: Option<u64>,
    /// What it does; none if its arguments were not understood.
    pub job: Option<PushJob>,
    /// Whether it writes into files in place.
    pub in_place: bool,
    /// Whether it removes files and brings none.
    pub only_deletes: bool,
}

/// What is known of unfinished directories when a push has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnfinishedDirectories {
    /// The modification times that the unfinished directories have now.
    pub(crate) times: Vec<(String, Option<i64>)>,
    /// The unfinished directories that a search has found, for failed pushes for which none was
    /// made before.
    pub(crate) found: Option<Vec<UnfinishedDirectory>>,
}

/// What decides, together with the evidence in the tree, which failed pushes are made up for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TornMarkFacts {
    /// The tree equals the newest complete snapshot, and no push can be running.
    pub(crate) is_whole: bool,
    /// No push is running.
    pub(crate) is_alone: bool,
    /// The transfer that asks for the snapshot ended well.
    pub(crate) ended_well: bool,
    /// There is no ledger, so a good transfer makes up for whatever failed before.
    pub(crate) without_ledger: bool,
}

impl UnfinishedDirectories {
    /// Notes the modification time of a directory; `None` if it is gone.
    pub fn note(&mut self, path: &str, mtime_ns: Option<i64>) {
        self.times.push((path.to_string(), mtime_ns));
    }

    /// Adds what a search of the tree has found since the push ended.
    pub fn searched(self, found: Vec<UnfinishedDirectory>) -> Self {
        UnfinishedDirectories { found: Some(found), ..self }
    }

    /// Whether the directory has another modification time or is gone. One that could not be
    /// inspected is not healed.
    pub(crate) fn is_healed(&self, directory: &UnfinishedDirectory) -> bool {
        let time = self.times.iter().find(|(path, _)| *path == directory.path);
        time.is_some_and(|(_, time)| *time != Some(directory.mtime_ns))
    }
}

/// What a good push changes about a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GoodPushEffect {
    /// It makes up for the failed push.
    MakesUp,
    /// It does all that the failed push was to do, but directories are still unfinished: it was
    /// another job, or it excludes files.
    LeavesUnhealed,
    /// It does not cover the failed push, began before it, or is not known to have repeated it.
    None,
}

impl FailedPush {
    /// The entry for a push that the ledger knows.
    pub fn of(push: &LedgerPush, noticed: BootTime) -> Self {
        FailedPush {
            client: push.client.clone(),
            request: push.request.clone(),
            began: Some(push.began.clone()),
            sequence: push.sequence,
            job: push.job.clone(),
            in_place: push.in_place,
            writes_since: Some(push.began_at),
            ..FailedPush::of_client(UNKNOWN, noticed)
        }
    }

    /// An entry of which nothing but the client is known.
    pub(crate) fn of_client(client: &str, noticed: BootTime) -> Self {
        FailedPush {
            client: client.to_string(),
            request: String::new(),
            began: None,
            first_began: None,
            noticed,
            sequence: None,
            job: None,
            in_place: false,
            writes_since: None,
            is_tree_searched: false,
            unfinished: Vec::new(),
            directories_are_shared: false,
            unhealed_pushes: 0,
        }
    }

    pub(crate) fn is_of_known_client(&self) -> bool {
        self.client != UNKNOWN
    }

    /// Whether both are failures of one job, so that one good push makes up for both.
    pub(crate) fn is_of_same_job(&self, other: &FailedPush) -> bool {
        self.client == other.client
            && match (&self.job, &other.job) {
                (Some(job), Some(other)) => job.is_same(other),
                (None, None) => self.request == other.request,
                _ => false,
            }
    }

    /// Whether the unfinished directories of the two cannot be told apart, and one good push does
    /// not make up for both. A client without a login may come from another address each time.
    pub(crate) fn is_confusable_with(&self, other: &FailedPush) -> bool {
        let is_by_address = |failed: &FailedPush| failed.client.starts_with(BY_ADDRESS);
        let is_same_job =
            self.job.as_ref().zip(other.job.as_ref()).is_some_and(|(a, b)| a.is_same(b));
        self.noticed != other.noticed
            && !(is_same_job && is_by_address(self) && is_by_address(other))
    }

    /// This failure together with an earlier one of the same job, whose unfinished directories
    /// remain.
    pub(crate) fn after(self, earlier: &FailedPush) -> FailedPush {
        if self.noticed == earlier.noticed {
            return earlier.clone();
        }
        FailedPush {
            first_began: earliest(
                self.began.as_ref(),
                earlier.first_began.as_ref().or(earlier.began.as_ref()),
            ),
            in_place: self.in_place || earlier.in_place,
            writes_since: earlier.writes_since.min(self.writes_since),
            unfinished: earlier.unfinished.clone(),
            ..self
        }
    }

    pub(crate) fn place(&self) -> String {
        match &self.job {
            Some(job) => job.destination.clone(),
            None => place_of_request(&self.request),
        }
    }

    /// Whether the good push began after this one. The beginnings count, because a client that
    /// tries again at once may begin before rsyncd has noticed the end of the first try.
    pub(crate) fn began_before(&self, good: &LedgerPush) -> bool {
        match (self.sequence, good.sequence) {
            // If a number was given twice, because the counter could not be written, the boot time
            // decides.
            (Some(torn), Some(good)) if torn != good => good > torn,
            _ => self.began.as_ref().is_some_and(|began| good.began.is_later_than(began)),
        }
    }

    pub(crate) fn effect_of(
        &self,
        good: &LedgerPush,
        times: &UnfinishedDirectories,
    ) -> GoodPushEffect {
        if good.only_deletes || !self.is_of_known_client() || !self.began_before(good) {
            return GoodPushEffect::None;
        }
        let is_same_client = self.client == good.client;
        let Some(torn_job) = &self.job else {
            // The arguments were not understood, or an earlier version wrote the entry.
            let place = good
                .job
                .as_ref()
                .map_or_else(|| place_of_request(&good.request), |job| job.destination.clone());
            let is_repaired = is_same_client && is_at_or_above(&place, &self.place());
            return if is_repaired { GoodPushEffect::MakesUp } else { GoodPushEffect::None };
        };
        if !good.job.as_ref().is_some_and(|job| job.covers(torn_job)) {
            return GoodPushEffect::None;
        }
        let is_healed = self.unfinished.iter().all(|directory| times.is_healed(directory));
        let has_evidence =
            self.is_tree_searched && !self.unfinished.is_empty() && !self.directories_are_shared;
        // No client repeats a restore in place. A push that covers it brings all of its own state
        // to that place, and what it excludes shows in the search.
        let is_restore = self.client == RESTORE && self.is_tree_searched;
        match (is_healed, has_evidence || is_same_client || is_restore) {
            (true, true) => GoodPushEffect::MakesUp,
            (false, _) => GoodPushEffect::LeavesUnhealed,
            (true, false) => GoodPushEffect::None,
        }
    }

    /// Whether the tree holds nothing that this push wrote: the tree has not changed since before
    /// the push began, or it equals the newest complete snapshot. Writes in place show in no name,
    /// inode number or time of a directory, so they are never ruled out.
    pub(crate) fn has_left_no_changes(
        &self,
        unchanged_since: Option<&BootTime>,
        facts: TornMarkFacts,
    ) -> bool {
        let first = self.first_began.as_ref().or(self.began.as_ref());
        let wrote_nothing = |last: &BootTime| first.is_some_and(|began| began.is_after(last));
        let TornMarkFacts { is_whole, is_alone, .. } = facts;
        !self.in_place && (is_whole || is_alone && unchanged_since.is_some_and(wrote_nothing))
    }

    /// Keeps those of the directories `found` that this push left unfinished. Directories of a push
    /// that is still running look equal; they are healed as soon as that push has ended well.
    pub(crate) fn note_unfinished(
        &mut self,
        found: &[UnfinishedDirectory],
        directories_are_shared: bool,
    ) {
        if self.is_tree_searched {
            return;
        }
        self.is_tree_searched = true;
        self.directories_are_shared = directories_are_shared;
        self.unfinished.clear();
        let Some(job) =
            self.job.as_ref().filter(|job| job.sets_directory_times() && !self.in_place)
        else {
            return;
        };
        let since = self.writes_since.map_or(i64::MIN, nanoseconds_of) - STAMP_LAG_NS;
        let is_own = |directory: &&UnfinishedDirectory| {
            directory.mtime_ns >= since && is_below(&directory.path, &job.destination)
        };
        let mut directories: Vec<UnfinishedDirectory> =
            found.iter().filter(is_own).cloned().collect();
        directories.sort_by(|a, b| (b.mtime_ns, &a.path).cmp(&(a.mtime_ns, &b.path)));
        directories.truncate(MAX_DIRECTORIES);
        self.unfinished = directories;
    }
}

/// The earlier of two moments. A moment of another boot counts as the earlier one, because nothing
/// is known to be after it.
fn earliest(new: Option<&BootTime>, before: Option<&BootTime>) -> Option<BootTime> {
    match (new, before) {
        (Some(new), Some(before)) if before.is_after(new) => Some(new.clone()),
        (_, before) => before.cloned(),
    }
}

pub(crate) fn nanoseconds_of(time: DateTime<Utc>) -> i64 {
    time.timestamp_nanos_opt().unwrap_or(i64::MAX)
}

fn place_of_request(request: &str) -> String {
    let path = request.split_once('/').map_or("", |(_, path)| path);
    // Escaping keeps slashes and dots as they are.
    String::from_utf8(normalized(path.as_bytes())).unwrap_or_default()
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde gives a reference
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Nanoseconds as text.
mod nanoseconds {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&number.to_string())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
