//! What is remembered of the pushes of each client of a module: its last good push, its last failed
//! one, its last snapshot, and how long its pushes take.
//!
//! A snapshot does not show whether its client is alive: one by hand or from a timer is as new as
//! one of a push. So the age of a backup is that of the last good *push*.
//!
//! The number of clients is limited, because in a module without a login each address is a client.
//! Those that the policy watches stay, and of the others the ones whose last good push is newest.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::client::Client;

/// So many clients are remembered for each module.
pub const MAX_CLIENTS: usize = 32;

/// The durations of so many pushes are remembered for each client. `rsync-system-backup` pushes
/// three times for each backup, so these are four backups.
const MAX_DURATIONS: usize = 12;

/// With fewer pushes, nothing is usual.
const FEW_PUSHES: usize = 3;

/// The pushes of all clients of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushHistory {
    /// Since when pushes are noted here. An earlier version, which noted none, may have run before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// How many clients were dropped because there were more than [`MAX_CLIENTS`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u32,
    /// The clients.
    #[serde(default, rename = "client", skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientPushes>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The pushes of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPushes {
    /// The client, as it was at its last push.
    pub who: Client,
    /// When its last good push ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<DateTime<Utc>>,
    /// Its last failed push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedEnd>,
    /// The last snapshot that a push of this client brought, or found equal to the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// How long its last pushes took, in seconds, the newest last; failed ones do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub durations: Vec<u64>,
}

/// The end of a failed push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedEnd {
    /// When it ended, or when a run noticed that.
    pub time: DateTime<Utc>,
    /// rsync's status; negative if that is not known.
    pub status: i32,
    /// How much space was free on the module's file system then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
}

/// A push that has ended, as a run learns of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedPush {
    /// Its client.
    pub who: Client,
    /// When it ended.
    pub time: DateTime<Utc>,
    /// How it ended.
    pub outcome: PushOutcome,
    /// How long it took, in seconds, if the ledger knows when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// How a push ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PushOutcome {
    /// Well, and nothing is left for the client to send.
    Good,
    /// Well, but the client has more to send.
    Part,
    /// It failed.
    Failed {
        /// rsync's status; negative if that is not known.
        status: i32,
        /// How much space was free on the module's file system.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        free_bytes: Option<u64>,
    },
}

impl PushHistory {
    /// Notes a push. Noting the same push twice changes nothing, and an older one replaces nothing
    /// newer. `is_watched`: the client is not dropped, however many there are.
    pub fn note(&mut self, push: &EndedPush, is_watched: impl Fn(&Client) -> bool) {
        self.since.get_or_insert(push.time);
        let known = self.position(&push.who);
        let index = known.unwrap_or_else(|| {
            self.clients.push(ClientPushes::of(push.who.clone()));
            self.clients.len() - 1
        });
        self.clients[index].note(push);
        if known.is_none() && self.clients.len() > MAX_CLIENTS {
            self.drop_one(&is_watched);
        }
    }

    /// Notes that the last push of `who` brought this snapshot, or found the module equal to it.
    pub fn note_snapshot(&mut self, who: &Client, name: &str) {
        if let Some(index) = self.position(who) {
            self.clients[index].snapshot = Some(name.to_string());
        }
    }

    /// The pushes of a client.
    pub fn of(&self, who: &Client) -> Option<&ClientPushes> {
        self.position(who).map(|index| &self.clients[index])
    }

    /// The client whose last good push is the newest, and when that was.
    pub fn last_good(&self) -> Option<(&Client, DateTime<Utc>)> {
        let good = self.clients.iter().filter_map(|client| Some((&client.who, client.good?)));
        good.max_by_key(|(_, time)| *time)
    }

    /// The client whose last failed push is the newest, and that push.
    pub fn last_failed(&self) -> Option<(&Client, &FailedEnd)> {
        let failed =
            self.clients.iter().filter_map(|client| Some((&client.who, client.failed.as_ref()?)));
        failed.max_by_key(|(_, end)| end.time)
    }

    /// How long a push of this client usually takes, in seconds: two thirds of its last pushes were
    /// not longer. `None` if it has pushed too rarely. Of the three pushes of a backup by
    /// `rsync-system-backup` only one is long, and this is the length of that one. The pushes of a
    /// user count together, because the address of its machine may change.
    pub fn usual_seconds(&self, who: &Client) -> Option<u64> {
        let of_user = self.clients.iter().filter(|client| client.who.identity() == who.identity());
        let mut sorted: Vec<u64> =
            of_user.flat_map(|client| client.durations.iter().copied()).collect();
        if sorted.len() < FEW_PUSHES {
            return None;
        }
        sorted.sort_unstable();
        let last = sorted.len() - 1;
        sorted.get(last - last / 3).copied()
    }

    fn position(&self, who: &Client) -> Option<usize> {
        self.clients.iter().position(|client| client.who.is_same_machine(who))
    }

    fn drop_one(&mut self, is_watched: &impl Fn(&Client) -> bool) {
        let worth = |client: &ClientPushes| {
            let failed = client.failed.as_ref().map(|end| end.time);
            (is_watched(&client.who), client.good, failed)
        };
        let least = (0..self.clients.len()).min_by_key(|index| worth(&self.clients[*index]));
        if let Some(index) = least {
            self.clients.remove(index);
            self.dropped = self.dropped.saturating_add(1);
        }
    }
}

impl ClientPushes {
    fn of(who: Client) -> Self {
        ClientPushes { who, good: None, failed: None, snapshot: None, durations: Vec::new() }
    }

    fn note(&mut self, push: &EndedPush) {
        self.who.clone_from(&push.who);
        match push.outcome {
            PushOutcome::Failed { status, free_bytes } => {
                if self.failed.as_ref().is_none_or(|known| known.time < push.time) {
                    self.failed = Some(FailedEnd { time: push.time, status, free_bytes });
                }
            }
            PushOutcome::Good if self.good.is_none_or(|known| known < push.time) => {
                self.good = Some(push.time);
                self.note_duration(push.seconds);
            }
            PushOutcome::Good => {}
            PushOutcome::Part => self.note_duration(push.seconds),
        }
    }

    fn note_duration(&mut self, seconds: Option<u64>) {
        self.durations.extend(seconds);
        let surplus = self.durations.len().saturating_sub(MAX_DURATIONS);
        self.durations.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("a time")
    }

    fn push(user: &str, second: i64, outcome: PushOutcome) -> EndedPush {
        let who = Client { user: user.to_string(), ..Client::default() };
        EndedPush { who, time: time(second), outcome, seconds: Some(7) }
    }

    fn failed(user: &str, second: i64) -> EndedPush {
        push(user, second, PushOutcome::Failed { status: 12, free_bytes: None })
    }

    fn history(pushes: &[EndedPush]) -> PushHistory {
        let mut history = PushHistory::default();
        pushes.iter().for_each(|push| history.note(push, |_| false));
        history
    }

    #[test]
    fn good_and_failed_pushes_are_kept_apart() {
        let found = history(&[push("a", 10, PushOutcome::Good), failed("a", 20)]);
        let (who, good) = found.last_good().expect("a good push");
        assert_eq!((who.user.as_str(), good), ("a", time(10)));
        assert_eq!(
            found.last_failed().map(|(_, end)| (end.time, end.status)),
            Some((time(20), 12))
        );
        assert_eq!(found.clients.len(), 1);
        assert_eq!(found.since, Some(time(10)));
    }

    #[test]
    fn the_same_push_counts_once_and_an_older_one_not_at_all() {
        let good = push("a", 10, PushOutcome::Good);
        let once = history(std::slice::from_ref(&good));
        assert_eq!(history(&[good.clone(), good.clone()]), once);
        let mut older = once.clone();
        older.note(&push("a", 5, PushOutcome::Good), |_| false);
        assert_eq!(older, once);
    }

    #[test]
    fn a_part_of_a_backup_is_no_good_push() {
        let found = history(&[push("a", 10, PushOutcome::Part)]);
        assert_eq!(found.last_good(), None);
        assert_eq!(found.clients[0].durations, [7]);
    }

    #[test]
    fn of_too_many_clients_those_stay_that_are_watched_or_good() {
        let mut found = PushHistory::default();
        let watched = |who: &Client| who.user == "watched";
        found.note(&failed("watched", 1), watched);
        found.note(&push("good", 2, PushOutcome::Good), watched);
        for number in 0..500 {
            found.note(&failed(&format!("user {number}"), 10 + number), watched);
        }
        assert_eq!((found.clients.len(), found.dropped), (MAX_CLIENTS, 502 - MAX_CLIENTS as u32));
        for name in ["watched", "good", "user 499"] {
            assert!(found.clients.iter().any(|client| client.who.user == name), "{name}");
        }
    }

    #[test]
    fn the_usual_duration_is_that_of_the_long_push_of_a_backup() {
        let usual = |durations: &[u64]| {
            let pushes = |seconds: &[u64]| ClientPushes {
                durations: seconds.to_vec(),
                ..ClientPushes::of(push("a", 0, PushOutcome::Good).who)
            };
            let history =
                PushHistory { clients: vec![pushes(durations)], ..PushHistory::default() };
            history.usual_seconds(&history.clients[0].who)
        };
        assert_eq!(usual(&[5, 6]), None);
        assert_eq!(usual(&[0, 600, 1]), Some(600));
        assert_eq!(usual(&[0, 600, 1, 0, 700, 1, 0, 650, 1, 0, 640, 1]), Some(600));
        assert_eq!(usual(&[9, 72_000, 10, 9]), Some(10), "the first push took a day");
    }

    #[test]
    fn a_history_reads_back_as_it_was_written() {
        let mut found = history(&[push("a", 10, PushOutcome::Good), failed("b", 20)]);
        found.note_snapshot(&found.clients[0].who.clone(), "2026-11-22T19-08-31Z");
        let text = toml::to_string(&found).expect("text");
        assert_eq!(toml::from_str::<PushHistory>(&text).expect("read"), found, "{text}");
    }
}
