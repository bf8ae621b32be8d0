//! The torn mark: a module that holds a mixture of two states, and whose work that is.
//!
//! What one client's failed push left half done is not mended by another client's good one. So the
//! mark names each push that failed, as far as the ledger knows it, and ends when its client has pushed well to the
//! same place, or to one above it. A failure that the ledger did not see has no name; it is held against the tree instead.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::boot::BootTime;
use super::ledger::{Entry, is_zero};
use crate::config::arguments::Kind;
use crate::tree::compare::Fingerprint;

/// Stands for a client that the ledger does not know.
const UNKNOWN: &str = "";

/// Stands for all that are more than [`MAX_TEARS`]: only a person, or a tree that is whole, ends that.
const MANY: &str = "many clients";
const MAX_TEARS: usize = 100;

/// Transfers that ended badly, and nothing since that repaired what they left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TornMark {
    /// When the end of the last of them was noticed.
    pub since: DateTime<Utc>,
    /// Its exit status.
    pub status: i32,
    /// The run that noticed it; tells one mark from another.
    pub noticed: BootTime,
    /// The tree as that transfer left it, once it has been scanned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// Who has to push well; nobody is one unknown client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    by: Vec<Tear>,
}

/// A failed push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tear {
    client: String,
    /// Where it went, as the client asked for it, escaped.
    request: String,
    /// When it began; none for one that the ledger does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    began: Option<BootTime>,
    /// Its place in the order of all transfers; 0 if an earlier version marked it, or the ledger does not know it.
    #[serde(default, skip_serializing_if = "is_zero")]
    sequence: u64,
    /// When its end was noticed.
    noticed: BootTime,
}

impl Tear {
    /// Of a push that the ledger knows.
    pub fn of(entry: &Entry, noticed: BootTime) -> Self {
        let (client, request) = (entry.client.identity(), entry.request.clone());
        Tear { client, request, began: Some(entry.began_at.clone()), sequence: entry.sequence, noticed }
    }

    fn nameless(client: &str, noticed: BootTime) -> Self {
        Tear { client: client.to_string(), request: String::new(), began: None, sequence: 0, noticed }
    }

    fn is_of_same_push(&self, other: &Tear) -> bool {
        (&self.client, &self.request) == (&other.client, &other.request)
    }

    /// Whether it began before `other`. Boot times of two machines do not compare; but where a number was given twice, because
    /// it could not be kept, or an earlier version gave none, they are all there is.
    fn is_before(&self, began: &BootTime, other: &Entry) -> bool {
        match self.sequence.cmp(&other.sequence) {
            _ if self.sequence == 0 || other.sequence == 0 => other.began_at.is_later_than(began),
            Ordering::Equal => other.began_at.is_later_than(began),
            order => order.is_lt(),
        }
    }

    /// A good push mends what its client tore at the same place or below. A client that tries again at once may begin
    /// before rsyncd has noticed the end of the first try; what began after that counts, too.
    fn is_mended_by(&self, good: &Entry) -> bool {
        good.kind == Kind::Push
            && self.client == good.client.identity()
            && covers(&good.request, &self.request)
            && self.began.as_ref().is_some_and(|began| self.is_before(began, good))
    }
}

/// Whether `place` is `other` or above it.
fn covers(place: &str, other: &str) -> bool {
    let names = |path: &'_ str| -> Vec<String> {
        path.split('/').filter(|name| !name.is_empty() && *name != ".").map(str::to_string).collect()
    };
    names(other).starts_with(&names(place))
}

impl TornMark {
    /// A transfer ended badly: that of `tear`, if it is known.
    pub fn new(since: DateTime<Utc>, status: i32, noticed: BootTime, tear: Option<Tear>) -> Self {
        TornMark { since, status, noticed, fingerprint: None, by: tear.into_iter().collect() }
    }

    /// The clients that have to push well, as far as they are known.
    pub fn clients(&self) -> Vec<&str> {
        let mut clients: Vec<&str> =
            self.by.iter().map(|tear| tear.client.as_str()).filter(|client| *client != UNKNOWN).collect();
        clients.sort_unstable();
        clients.dedup();
        clients
    }

    /// The places that they have to push to, for a message.
    pub fn requests(&self) -> Vec<String> {
        let named = self.by.iter().filter(|tear| tear.client != UNKNOWN);
        named.map(|tear| format!("{} to {}", tear.client, tear.request)).collect()
    }

    /// This mark for what tore the module already, too.
    pub fn on_top_of(mut self, standing: Option<&TornMark>) -> Self {
        let Some(standing) = standing else { return self };
        let new = self.tears();
        self.by = standing.tears();
        for tear in new {
            let known = self.by.iter().position(|known| known.is_of_same_push(&tear));
            match known {
                Some(index) => self.by[index] = tear,
                None if self.by.len() < MAX_TEARS => self.by.push(tear),
                None => self.by[MAX_TEARS - 1] = Tear::nameless(MANY, tear.noticed),
            }
        }
        if self.clients().is_empty() {
            self.by.clear();
        }
        self
    }

    /// What is left of the mark when a push has ended well.
    pub fn after_good_push(mut self, good: &Entry) -> Option<Self> {
        let before = self.by.len();
        self.by.retain(|tear| !tear.is_mended_by(good));
        Some(self).filter(|mark| mark.by.len() == before || !mark.by.is_empty())
    }

    /// What is left when the tree has been repaired as far as nobody knows who tore it.
    pub fn after_repair(mut self) -> Option<Self> {
        self.by.retain(|tear| tear.client != UNKNOWN);
        Some(self).filter(|mark| !mark.by.is_empty())
    }

    /// The highest number of the pushes in it; a later push gets a higher one.
    pub fn highest_sequence(&self) -> u64 {
        self.by.iter().map(|tear| tear.sequence).max().unwrap_or(0)
    }

    fn tears(&self) -> Vec<Tear> {
        match self.by.is_empty() {
            true => vec![Tear::nameless(UNKNOWN, self.noticed.clone())],
            false => self.by.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::arguments::Kind;
    use crate::store::process::Process;
    use crate::store::record::{Client, FORMAT};

    fn at(second: i64) -> BootTime {
        BootTime { boot: "this".to_string(), nanoseconds: second * 1_000_000_000 }
    }

    fn push(user: &str, request: &str, second: i64) -> Entry {
        Entry {
            format: FORMAT,
            kind: Kind::Push,
            refused: false,
            began: DateTime::UNIX_EPOCH,
            began_at: at(second),
            sequence: 0,
            request: request.to_string(),
            rewriting: Vec::new(),
            client: Client { user: user.to_string(), ..Client::default() },
            owner: Process::own().expect("/proc").expect("this process"),
            worker: None,
        }
    }

    /// The failure, noticed at `second`, of a push that began ten seconds before.
    fn failed(user: &str, request: &str, second: i64) -> TornMark {
        let tear = Tear::of(&push(user, request, second - 10), at(second));
        TornMark::new(DateTime::UNIX_EPOCH, 12, at(second), Some(tear))
    }

    fn unknown(second: i64) -> TornMark {
        TornMark::new(DateTime::UNIX_EPOCH, 12, at(second), None)
    }

    #[test]
    fn each_client_mends_what_it_tore_and_nothing_else() {
        let both = failed("b", "d/", 20).on_top_of(Some(&failed("a", "d/", 10)));
        assert_eq!(both.clients(), ["user a", "user b"]);
        let of_b = both.after_good_push(&push("a", "d/", 30)).expect("b has not pushed");
        assert_eq!(of_b.clients(), ["user b"]);
        let of_b = of_b.after_good_push(&push("c", "d/", 31)).expect("c tore nothing");
        assert_eq!(of_b.after_good_push(&push("b", "d", 32)), None);
    }

    #[test]
    fn a_push_mends_what_is_at_its_place_or_below() {
        let torn = failed("a", "d/home/x", 20);
        for beside in ["d/etc/", "d/home/xy", "d/home/x/y", "d/hom"] {
            assert_eq!(torn.clone().after_good_push(&push("a", beside, 30)), Some(torn.clone()), "{beside}");
        }
        for above in ["d/home/x/", "d/home", "d", "d/", "d/."] {
            assert_eq!(torn.clone().after_good_push(&push("a", above, 30)), None, "{above}");
        }
        // Removing something is no way to bring what is missing.
        let deletion = Entry { kind: Kind::DeletionOnly, ..push("a", "d/", 30) };
        assert_eq!(torn.clone().after_good_push(&deletion), Some(torn));
    }

    #[test]
    fn a_second_try_mends_although_the_end_of_the_first_was_noticed_later() {
        let torn = failed("a", "d/", 20);
        assert_eq!(torn.clone().after_good_push(&push("a", "d/", 15)), None);
        assert_eq!(torn.clone().after_good_push(&push("a", "d/", 9)), Some(torn.clone()));
        let of_another_boot =
            Entry { began_at: BootTime { boot: "next".to_string(), nanoseconds: 0 }, ..push("a", "d/", 0) };
        assert_eq!(torn.after_good_push(&of_another_boot), None);
    }

    #[test]
    fn the_sequence_tells_which_push_was_later_across_machines() {
        let numbered = |boot: &str, sequence| Entry {
            began_at: BootTime { boot: boot.to_string(), nanoseconds: 0 },
            sequence,
            ..push("a", "d/", 0)
        };
        let torn = TornMark::new(DateTime::UNIX_EPOCH, 12, at(9), Some(Tear::of(&numbered("one", 7), at(9))));
        assert_eq!(torn.highest_sequence(), 7);
        assert_eq!(torn.clone().after_good_push(&numbered("other", 6)), Some(torn.clone()));
        assert_eq!(torn.clone().after_good_push(&numbered("one", 8)), None);
        // Without a number, or with one that was given twice, the boot time decides.
        assert_eq!(torn.clone().after_good_push(&numbered("one", 7)), Some(torn.clone()));
        assert_eq!(torn.after_good_push(&Entry { began_at: at(1), ..numbered("one", 0) }), None);
    }

    #[test]
    fn two_failed_pushes_of_a_client_are_mended_each_by_itself_or_both_by_one_above() {
        let both = failed("a", "d/e/", 30).on_top_of(Some(&failed("a", "d/f/", 20)));
        assert_eq!(both.clients(), ["user a"]);
        let rest = both.clone().after_good_push(&push("a", "d/e/", 35)).expect("the other");
        assert_eq!(rest.requests(), ["user a to d/f/"]);
        assert_eq!(both.after_good_push(&push("a", "d/", 35)), None);
    }

    #[test]
    fn an_unknown_client_is_not_forgotten_beside_known_ones() {
        for both in [
            failed("a", "d/", 20).on_top_of(Some(&unknown(10))),
            unknown(20).on_top_of(Some(&failed("a", "d/", 10))),
        ] {
            assert_eq!(both.clients(), ["user a"]);
            let rest = both.clone().after_good_push(&push("a", "d/", 30)).expect("the unknown one");
            assert!(rest.clients().is_empty());
            assert_eq!(rest.after_repair(), None);
            assert_eq!(both.after_repair().expect("user a").clients(), ["user a"]);
        }
        assert_eq!(unknown(20).on_top_of(Some(&unknown(10))).after_repair(), None);
        assert_eq!(unknown(20).after_good_push(&push("a", "d/", 30)), Some(unknown(20)));
    }

    #[test]
    fn no_number_of_clients_makes_the_mark_grow_without_end() {
        let mut mark = failed("0", "d/", 0);
        for user in 1..500 {
            mark = failed(&user.to_string(), "d/", user).on_top_of(Some(&mark));
        }
        assert_eq!(mark.clients().len(), MAX_TEARS);
        assert!(mark.after_good_push(&push("400", "d/", 900)).expect("many").clients().contains(&MANY));
    }
}
