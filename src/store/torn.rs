//! The torn mark: a module that holds a mixture of two states, and whose work that is.
//!
//! What one client's failed push left half done is not mended by another client's good one. So the
//! mark names each of those whose push failed, as far as the ledger knows them, and ends when each
//! has pushed well after that. A failure that the ledger did not see has no name; it is held against the tree instead.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::boot::BootTime;
use crate::tree::compare::Fingerprint;

/// Stands among the names for one that the ledger does not know.
const UNKNOWN: &str = "";

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
    /// Who has to push well, each since when; nobody is one unknown client.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    clients: BTreeMap<String, DateTime<Utc>>,
}

impl TornMark {
    /// The transfer of `client`, if it is known, ended badly.
    pub fn new(since: DateTime<Utc>, status: i32, noticed: BootTime, client: Option<&str>) -> Self {
        let clients = client.map(|client| (client.to_string(), since)).into_iter().collect();
        TornMark { since, status, noticed, fingerprint: None, clients }
    }

    /// The clients that have to push well, as far as they are known.
    pub fn clients(&self) -> Vec<&str> {
        self.clients.keys().map(String::as_str).filter(|client| *client != UNKNOWN).collect()
    }

    /// This mark for what tore the module already, too.
    pub fn on_top_of(mut self, standing: Option<&TornMark>) -> Self {
        let Some(standing) = standing else { return self };
        let named = standing.all().into_iter().chain(self.all());
        self.clients = named.collect();
        if self.clients.keys().all(|client| client == UNKNOWN) {
            self.clients.clear();
        }
        self
    }

    /// What is left of the mark when a push of `client`, which began at `began`, has ended well.
    pub fn after_good_push(mut self, client: &str, began: DateTime<Utc>) -> Option<Self> {
        let torn_since = self.clients.get(client).filter(|_| client != UNKNOWN);
        if torn_since.is_some_and(|since| *since < began) {
            self.clients.remove(client);
            return Some(self).filter(|mark| !mark.clients.is_empty());
        }
        Some(self)
    }

    /// What is left when the tree has been repaired as far as nobody knows who tore it.
    pub fn after_repair(mut self) -> Option<Self> {
        self.clients.remove(UNKNOWN);
        Some(self).filter(|mark| !mark.clients.is_empty())
    }

    fn all(&self) -> BTreeMap<String, DateTime<Utc>> {
        match self.clients.is_empty() {
            true => BTreeMap::from([(UNKNOWN.to_string(), self.since)]),
            false => self.clients.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("a time")
    }

    fn mark(second: i64, client: Option<&str>) -> TornMark {
        TornMark::new(at(second), 12, BootTime::now(), client)
    }

    #[test]
    fn each_client_repairs_what_it_tore_and_nothing_else() {
        let both = mark(2, Some("user b")).on_top_of(Some(&mark(1, Some("user a"))));
        assert_eq!(both.clients(), ["user a", "user b"]);
        let of_b = both.after_good_push("user a", at(3)).expect("b has not pushed");
        assert_eq!(of_b.clients(), ["user b"]);
        let of_b = of_b.after_good_push("user c", at(4)).expect("c tore nothing");
        assert_eq!(of_b.after_good_push("user b", at(5)), None);
    }

    #[test]
    fn a_push_that_began_before_another_of_its_client_failed_repairs_nothing() {
        let torn = mark(5, Some("user a"));
        assert_eq!(torn.clone().after_good_push("user a", at(4)), Some(torn));
    }

    #[test]
    fn an_unknown_client_is_not_forgotten_beside_known_ones() {
        for both in [
            mark(2, Some("user a")).on_top_of(Some(&mark(1, None))),
            mark(2, None).on_top_of(Some(&mark(1, Some("user a")))),
        ] {
            assert_eq!(both.clients(), ["user a"]);
            let unknown = both.clone().after_good_push("user a", at(3)).expect("the unknown one");
            assert!(unknown.clients().is_empty());
            assert_eq!(unknown.after_repair(), None);
            assert_eq!(both.after_repair().expect("user a").clients(), ["user a"]);
        }
        assert_eq!(mark(2, None).on_top_of(Some(&mark(1, None))).after_repair(), None);
    }
}
