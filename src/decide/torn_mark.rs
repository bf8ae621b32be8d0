//! The torn mark: pushes that failed half-way, and what makes up for each of them.
//!
//! A push that fails leaves a mixture of two states. The mark has an entry for each such push that
//! the ledger knew, and ends when other pushes have done the same work again. The arguments of a
//! push do not tell which files it was to bring, but the tree shows what it did not finish: with
//! `--times`, rsync sets the modification time of a directory when it has finished the directory,
//! while a directory in which a push was cut off keeps the kernel's time, which equals its change
//! time. Such a directory is called *unfinished*. It is *healed* when it is gone or has another
//! modification time. If a failed push left no directory unfinished, only a push of the same client
//! makes up for it. Any push that makes up for it has to do all that the failed one was to do.
//!
//! Known limits: a push that brings only the unfinished directory heals it. A directory that the
//! failed push had not reached yet does not show as unfinished. Neither does the destination
//! itself, which rsync touches without setting its time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::boot_time::BootTime;
use crate::decide::client::RESTORE;
use crate::decide::clock_tick::STAMP_LAG_NS;
use crate::decide::failed_push::{
    BY_ADDRESS, FailedPush, GoodPushEffect, LedgerPush, TornMarkFacts, UNKNOWN,
    UnfinishedDirectories, UnfinishedDirectory, nanoseconds_of,
};
use crate::decide::fingerprint::Fingerprint;
use crate::decide::push_job::RestoreInPlace;

/// The client's name in the one entry that stands for all failed pushes beyond
/// [`MAX_FAILED_PUSHES`].
const MANY_CLIENTS: &str = "many clients";
const MAX_FAILED_PUSHES: usize = 100;

/// After this many good pushes that covered a failed one and did not heal it, `check` warns.
pub const UNHEALED_LIMIT: u32 = 3;

/// Transfers that ended badly and that no later push has made up for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TornMark {
    /// When a run noticed the end of the last of them.
    pub since: DateTime<Utc>,
    /// The exit status of the last of them.
    pub status: i32,
    /// The same moment by the boot clock, which identifies the mark.
    pub noticed: BootTime,
    /// The tree as a failed transfer of an unknown client left it, once a run has compared it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// The failed pushes. An empty list stands for one push of an unknown client.
    #[serde(default, rename = "by", skip_serializing_if = "Vec::is_empty")]
    entries: Vec<FailedPush>,
}

impl TornMark {
    /// The mark of a transfer that ended badly. `failed` is its entry, if the push is known.
    pub fn new(
        since: DateTime<Utc>,
        status: i32,
        noticed: BootTime,
        failed: Option<FailedPush>,
    ) -> Self {
        TornMark {
            since,
            status,
            noticed,
            fingerprint: None,
            entries: failed.into_iter().collect(),
        }
    }

    /// The clients whose failed pushes are not made up for, as far as they are known.
    pub fn clients(&self) -> Vec<&str> {
        let mut clients: Vec<&str> =
            self.of_known_clients().map(|failed| failed.client.as_str()).collect();
        clients.sort_unstable();
        clients.dedup();
        clients
    }

    /// The clients and destinations of the failed pushes, for a message.
    pub fn requests(&self) -> Vec<String> {
        self.of_known_clients()
            .map(|failed| format!("{} to {}", failed.client, failed.request))
            .collect()
    }

    /// Since when the module is torn: when the earliest failed push began, as far as that is known.
    /// The mark's own time moves with each failed push.
    pub fn torn_since(&self) -> DateTime<Utc> {
        let began = self.of_known_clients().filter_map(|failed| failed.writes_since).min();
        began.map_or(self.since, |began| began.min(self.since))
    }

    /// The failed restores in place.
    pub fn restores(&self) -> Vec<RestoreInPlace<'_>> {
        let of_restore = |failed: &&FailedPush| failed.client == RESTORE;
        let all = self.entries.iter().filter(of_restore);
        all.filter_map(|failed| failed.job.as_ref()?.restored()).collect()
    }

    /// Failed pushes that [`UNHEALED_LIMIT`] good ones have covered and not healed: the client, the
    /// destination, and a directory that is still unfinished.
    pub fn unhealed(&self) -> Vec<(&str, &str, &str)> {
        let unhealed =
            self.of_known_clients().filter(|failed| failed.unhealed_pushes >= UNHEALED_LIMIT);
        unhealed
            .filter_map(|failed| {
                Some((&*failed.client, &*failed.request, &*failed.unfinished.first()?.path))
            })
            .collect()
    }

    /// Clients that are known only by their address and left no directory unfinished: only a push
    /// from the same address makes up for their failed pushes.
    pub fn only_by_address(&self) -> Vec<&str> {
        let is_by_address = |failed: &&FailedPush| {
            failed.client.starts_with(BY_ADDRESS)
                && failed.is_tree_searched
                && failed.unfinished.is_empty()
        };
        self.of_known_clients().filter(is_by_address).map(|failed| failed.client.as_str()).collect()
    }

    /// Whether one of the failed pushes wrote in place.
    pub fn is_in_place(&self) -> bool {
        self.entries.iter().any(|failed| failed.in_place)
    }

    /// The highest sequence number of the failed pushes; a later push gets a higher one.
    pub fn highest_sequence(&self) -> u64 {
        self.entries.iter().filter_map(|failed| failed.sequence).max().unwrap_or(0)
    }

    /// The unfinished directories of all failed pushes.
    pub fn unfinished_paths(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .flat_map(|failed| &failed.unfinished)
            .map(|directory| directory.path.as_str())
    }

    /// The earliest change time that a search for unfinished directories has to consider, in
    /// nanoseconds since 1970; `None` if no search is needed.
    pub fn search_since_ns(&self) -> Option<i64> {
        let unsearched =
            self.entries.iter().filter(|failed| !failed.is_tree_searched && failed.job.is_some());
        unsearched
            .filter_map(|failed| failed.writes_since)
            .min()
            .map(|since| nanoseconds_of(since) - STAMP_LAG_NS)
    }

    fn of_known_clients(&self) -> impl Iterator<Item = &FailedPush> {
        self.entries.iter().filter(|failed| failed.is_of_known_client())
    }

    fn has_unknown_client(&self) -> bool {
        self.entries.is_empty() || self.entries.iter().any(|failed| !failed.is_of_known_client())
    }

    /// This mark merged with the `existing` one: an entry replaces the existing entry of the same
    /// job, or is added.
    pub fn merged_with(mut self, existing: Option<&TornMark>) -> Self {
        let Some(existing) = existing else { return self };
        if self.has_unknown_client()
            && existing.has_unknown_client()
            && self.noticed == existing.noticed
        {
            self.fingerprint = existing.fingerprint;
        }
        let new = self.failed_pushes();
        self.entries = existing.failed_pushes();
        for failed in new {
            let known = self.entries.iter().position(|known| known.is_of_same_job(&failed));
            match known {
                Some(index) => self.entries[index] = failed.after(&self.entries[index]),
                None if self.entries.len() < MAX_FAILED_PUSHES => self.entries.push(failed),
                None => {
                    self.entries[MAX_FAILED_PUSHES - 1] =
                        FailedPush::of_client(MANY_CLIENTS, failed.noticed)
                }
            }
        }
        if self.clients().is_empty() {
            self.entries.clear();
        }
        self
    }

    /// What is left of the mark when a push has ended well; `None` if nothing is.
    pub fn after_good_push(
        mut self,
        good: &LedgerPush,
        times: &UnfinishedDirectories,
    ) -> Option<Self> {
        let mut is_made_up_for = false;
        // A failed push for which no run has searched the tree is judged by the tree as it is now:
        // what the failed push left unfinished, this push has not finished.
        for failed in self.entries.iter_mut().filter(|failed| failed.is_of_known_client()) {
            if let Some(found) = &times.found {
                failed.note_unfinished(found, true);
            }
        }
        self.entries.retain_mut(|failed| match failed.effect_of(good, times) {
            GoodPushEffect::MakesUp => {
                is_made_up_for = true;
                false
            }
            GoodPushEffect::LeavesUnhealed => {
                failed.unhealed_pushes = failed.unhealed_pushes.saturating_add(1);
                true
            }
            GoodPushEffect::None => true,
        });
        Some(self).filter(|mark| !is_made_up_for || !mark.entries.is_empty())
    }

    /// What is left of the mark after a comparison of the tree. `None` if all failed pushes are
    /// made up for or have left no changes.
    pub(crate) fn after_look(mut self, look: &TornEvidence, facts: TornMarkFacts) -> Option<Self> {
        let Some(before) = look.mark_before else { return Some(self) };
        let TornMarkFacts { is_whole, is_alone, ended_well, without_ledger } = facts;
        if ended_well && without_ledger && *before == self && self.is_changed(look) {
            return None;
        }
        let was_unknown_marked_before = self.has_unknown_client()
            && before.has_unknown_client()
            && before.noticed == self.noticed;
        let had_pushes = !self.entries.is_empty();
        let was_marked_before = |failed: &FailedPush| {
            before.entries.iter().any(|known| known.noticed == failed.noticed)
        };
        self.entries.retain(|failed| {
            !failed.is_of_known_client()
                || !was_marked_before(failed)
                || !failed.has_left_no_changes(look.unchanged_since, facts)
        });
        let all = self.entries.clone();
        for failed in self.entries.iter_mut().filter(|failed| failed.is_of_known_client()) {
            if was_marked_before(failed) {
                let is_shared =
                    !is_alone || all.iter().any(|other| failed.is_confusable_with(other));
                failed.note_unfinished(look.unfinished, is_shared);
            }
        }
        let is_unknown_left =
            !had_pushes || self.entries.iter().any(|failed| !failed.is_of_known_client());
        if !is_unknown_left || !was_unknown_marked_before {
            return Some(self).filter(|mark| !had_pushes || !mark.entries.is_empty());
        }
        let is_known_left = self.of_known_clients().next().is_some();
        let is_made_up_for = is_whole || ended_well && !is_known_left && self.is_changed(look);
        if is_made_up_for {
            self.entries.retain(FailedPush::is_of_known_client);
            return Some(self).filter(|mark| !mark.entries.is_empty());
        }
        if self.fingerprint.is_none() && !self.is_changed_since_mark(look) {
            self.fingerprint = Some(look.fingerprint);
        }
        Some(self)
    }

    /// Whether the tree differs from what a failed transfer of an unknown client left.
    pub fn is_changed(&self, look: &TornEvidence) -> bool {
        match &self.fingerprint {
            Some(fingerprint) => *fingerprint != look.fingerprint,
            // The hook that set the mark never compared the tree. Changes since then show in the
            // kernel's change times.
            None => look.newest_ctime_ns > nanoseconds_of(self.since),
        }
    }

    /// Whether the mark holds only transfers of unknown clients.
    pub fn has_only_unknown_client(&self) -> bool {
        self.of_known_clients().next().is_none()
    }

    /// Whether the newest change is later than the mark. It may come from a good transfer whose
    /// hook still waits. A change dated in the future comes from a wrong clock and proves nothing.
    fn is_changed_since_mark(&self, look: &TornEvidence) -> bool {
        let marked = nanoseconds_of(self.since);
        (marked.saturating_add(1)..=nanoseconds_of(look.ended)).contains(&look.newest_ctime_ns)
    }

    fn failed_pushes(&self) -> Vec<FailedPush> {
        match self.entries.is_empty() {
            true => vec![FailedPush::of_client(UNKNOWN, self.noticed.clone())],
            false => self.entries.clone(),
        }
    }
}

/// What a comparison of the tree shows about failed pushes that were marked before it began.
#[derive(Debug, Clone)]
pub struct TornEvidence<'a> {
    /// The mark when the comparison began. Entries that were added later stay as they are.
    pub mark_before: Option<&'a TornMark>,
    /// When the comparison before this one began, if the tree has not changed since that one.
    pub unchanged_since: Option<&'a BootTime>,
    /// The directories of the tree that are unfinished: their modification and change times are
    /// equal.
    pub unfinished: &'a [UnfinishedDirectory],
    /// The fingerprint of the tree.
    pub fingerprint: Fingerprint,
    /// The newest change time of a directory, in nanoseconds since 1970.
    pub newest_ctime_ns: i64,
    /// When the comparison ended, by the wall clock.
    pub ended: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::failed_push::MAX_DIRECTORIES;
    use crate::decide::push_job::PushJob;

    fn at(second: i64) -> BootTime {
        BootTime { boot: "this".to_string(), nanoseconds: second * 1_000_000_000 }
    }

    fn time(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("a time")
    }

    fn push(client: &str, destination: &str, second: i64) -> LedgerPush {
        let extending_options = ["delete", "recursive", "times"].map(str::to_string).to_vec();
        let destination = destination.to_string();
        LedgerPush {
            client: client.to_string(),
            request: format!("data/{destination}"),
            began: at(second),
            began_at: time(second),
            sequence: None,
            job: Some(PushJob {
                destination,
                extending_options,
                options_hash: "h".to_string(),
                ..PushJob::default()
            }),
            in_place: false,
            only_deletes: false,
        }
    }

    /// The failure, noticed at `second`, of a push that began ten seconds before.
    fn failed(client: &str, destination: &str, second: i64) -> TornMark {
        let tear = FailedPush::of(&push(client, destination, second - 10), at(second));
        TornMark::new(time(second), 12, at(second), Some(tear))
    }

    fn unknown(second: i64) -> TornMark {
        TornMark::new(time(second), 12, at(second), None)
    }

    fn unfinished(path: &str, second: i64) -> UnfinishedDirectory {
        UnfinishedDirectory { path: path.to_string(), mtime_ns: second * 1_000_000_000 }
    }

    /// The mark after a comparison that found these unfinished directories.
    fn compared(mark: &TornMark, unfinished: &[UnfinishedDirectory]) -> TornMark {
        let look = TornEvidence {
            mark_before: Some(mark),
            unchanged_since: None,
            unfinished,
            fingerprint: Fingerprint::default(),
            newest_ctime_ns: 0,
            ended: time(100),
        };
        let alone = TornMarkFacts {
            is_whole: false,
            is_alone: true,
            ended_well: false,
            without_ledger: false,
        };
        mark.clone().after_look(&look, alone).expect("still torn")
    }

    fn after(mark: &TornMark, good: &LedgerPush) -> Option<TornMark> {
        mark.clone().after_good_push(good, &UnfinishedDirectories::default())
    }

    #[test]
    fn without_unfinished_directories_each_client_mends_its_own() {
        let both = failed("user b", "d", 20).merged_with(Some(&failed("user a", "d", 10)));
        assert_eq!(both.clients(), ["user a", "user b"]);
        let of_b = after(&both, &push("user a", "d", 30)).expect("b has not pushed");
        assert_eq!(of_b.clients(), ["user b"]);
        assert_eq!(
            after(&of_b, &push("user c", "d", 31)).expect("c tore nothing").clients(),
            ["user b"]
        );
        assert_eq!(after(&of_b, &push("user b", "", 32)), None);
    }

    #[test]
    fn a_push_elsewhere_or_with_less_mends_nothing() {
        let torn = failed("user a", "home/x", 20);
        for beside in ["etc", "home/xy", "home/x/y", "hom"] {
            assert_eq!(after(&torn, &push("user a", beside, 30)), Some(torn.clone()), "{beside}");
        }
        let deletion = LedgerPush { only_deletes: true, ..push("user a", "", 30) };
        assert_eq!(after(&torn, &deletion), Some(torn.clone()));
        let mut less = push("user a", "", 30);
        less.job.as_mut().expect("a job").extending_options.retain(|option| option != "delete");
        assert_eq!(after(&torn, &less), Some(torn.clone()));
        let not_understood = LedgerPush { job: None, ..push("user a", "", 30) };
        assert_eq!(after(&torn, &not_understood), Some(torn));
    }

    #[test]
    fn the_client_that_heals_directories_mends_whatever_its_address() {
        let torn = compared(&failed("address 192.0.2.1", "", 20), &[unfinished("home", 15)]);
        let good = push("address 192.0.2.99", "", 30);
        for (mtime, healed) in [(Some(15_000_000_000), false), (Some(1), true), (None, true)] {
            let mut times = UnfinishedDirectories::default();
            times.note("home", mtime);
            let left = torn.clone().after_good_push(&good, &times);
            assert_eq!(left.is_none(), healed, "{mtime:?}: {left:?}");
        }
        // What could not be inspected is not healed.
        assert!(after(&torn, &good).is_some());
    }

    #[test]
    fn only_directories_below_that_changed_since_count() {
        let found = [
            unfinished("other", 15),
            unfinished("d", 15),
            unfinished("d/old", 5),
            unfinished("d/new", 15),
            unfinished("dd", 15),
        ];
        let torn = compared(&failed("user a", "d", 20), &found);
        assert_eq!(torn.unfinished_paths().collect::<Vec<_>>(), ["d/new"]);
        let many: Vec<UnfinishedDirectory> =
            (0..40).map(|number| unfinished(&format!("d/{number}"), 20 + number)).collect();
        let torn = compared(&failed("user a", "d", 20), &many);
        let paths: Vec<&str> = torn.unfinished_paths().collect();
        assert_eq!((paths.len(), paths[0]), (MAX_DIRECTORIES, "d/39"));
        // Without times, or in place, directories say nothing.
        let mut untimed = push("user a", "d", 10);
        untimed.job.as_mut().expect("a job").extending_options.retain(|option| option != "times");
        for silent in [untimed, LedgerPush { in_place: true, ..push("user a", "d", 10) }] {
            let mark = TornMark::new(time(20), 12, at(20), Some(FailedPush::of(&silent, at(20))));
            assert_eq!(compared(&mark, &found).unfinished_paths().count(), 0);
        }
    }

    #[test]
    fn directories_that_others_may_have_left_mend_nothing_of_strangers() {
        let both = failed("user b", "", 25).merged_with(Some(&failed("user a", "", 20)));
        let torn = compared(&both, &[unfinished("home", 16)]);
        let mut times = UnfinishedDirectories::default();
        times.note("home", None);
        let left = torn.clone().after_good_push(&push("user a", "", 30), &times).expect("b");
        assert_eq!(left.clients(), ["user b"]);
        assert_eq!(
            torn.after_good_push(&push("user c", "", 30), &times).expect("both").clients().len(),
            2
        );
    }

    #[test]
    fn good_pushes_that_heal_nothing_are_counted() {
        let mut torn = compared(&failed("user a", "", 20), &[unfinished("home", 15)]);
        for count in 1..=UNHEALED_LIMIT {
            assert!(torn.unhealed().is_empty(), "{count}");
            torn = after(&torn, &push("user b", "", 30)).expect("not healed");
        }
        assert_eq!(torn.unhealed(), [("user a", "data/", "home")]);
    }

    #[test]
    fn a_second_try_mends_although_the_first_was_noticed_later() {
        let torn = failed("user a", "d", 20);
        assert_eq!(after(&torn, &push("user a", "d", 15)), None);
        assert_eq!(after(&torn, &push("user a", "d", 9)), Some(torn.clone()));
        let next_boot = BootTime { boot: "next".to_string(), nanoseconds: 0 };
        assert_eq!(after(&torn, &LedgerPush { began: next_boot, ..push("user a", "d", 0) }), None);
    }

    #[test]
    fn the_sequence_tells_which_push_was_later() {
        let numbered = |boot: &str, sequence| LedgerPush {
            began: BootTime { boot: boot.to_string(), nanoseconds: 0 },
            sequence: Some(sequence),
            ..push("user a", "d", 0)
        };
        let torn =
            TornMark::new(time(9), 12, at(9), Some(FailedPush::of(&numbered("one", 7), at(9))));
        assert_eq!(torn.highest_sequence(), 7);
        assert_eq!(after(&torn, &numbered("other", 6)), Some(torn.clone()));
        assert_eq!(after(&torn, &numbered("one", 8)), None);
        // A number that was given twice says nothing; the boot time does.
        assert_eq!(after(&torn, &numbered("one", 7)), Some(torn));
    }

    #[test]
    fn an_unknown_client_is_not_forgotten_beside_known_ones() {
        for both in [
            failed("user a", "d", 20).merged_with(Some(&unknown(10))),
            unknown(20).merged_with(Some(&failed("user a", "d", 10))),
        ] {
            assert_eq!(both.clients(), ["user a"]);
            let rest = after(&both, &push("user a", "d", 30)).expect("the unknown one");
            assert!(rest.clients().is_empty());
        }
        assert_eq!(after(&unknown(20), &push("user a", "d", 30)), Some(unknown(20)));
    }

    #[test]
    fn no_number_of_clients_makes_the_mark_grow_without_end() {
        let mut mark = failed("user 0", "d", 0);
        for user in 1..500 {
            mark = failed(&format!("user {user}"), "d", user).merged_with(Some(&mark));
        }
        assert_eq!(mark.clients().len(), MAX_FAILED_PUSHES);
        assert!(
            after(&mark, &push("user 400", "d", 900))
                .expect("many")
                .clients()
                .contains(&MANY_CLIENTS)
        );
    }

    #[test]
    fn a_mark_of_an_earlier_version_is_read_and_mended() {
        let text = r#"
            since = "2026-11-22T19:08:31Z"
            status = 12
            noticed = { boot = "this", nanoseconds = 20000000000 }
            [[by]]
            client = "user a"
            request = "data/d/"
            began = { boot = "this", nanoseconds = 10000000000 }
            noticed = { boot = "this", nanoseconds = 20000000000 }
        "#;
        let mark: TornMark = toml::from_str(text).expect("a mark");
        assert_eq!(after(&mark, &push("user a", "e", 30)), Some(mark.clone()));
        assert_eq!(after(&mark, &push("user a", "d", 30)), None);
        let written = toml::to_string(&failed("user a", "d", 20)).expect("text");
        assert_eq!(toml::from_str::<TornMark>(&written).expect("read"), failed("user a", "d", 20));
    }
}
