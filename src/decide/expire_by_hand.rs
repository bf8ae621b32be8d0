//! Whether a snapshot may go that the administrator names to `expire`.
//!
//! The administrator's order counts for more than the policy's slots, its `min_age` and a pause of
//! expiry. It does not count for more than what would lose the last good state: the newest complete
//! snapshot stays, a pin holds until it is taken off, what is being read stays until its reader has
//! finished, and `min_keep` holds unless the order says otherwise. An order that names one snapshot
//! that has to stay changes nothing.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::decide::grade::Grade;
use crate::decide::lease::SnapshotReader;
use crate::decide::obstacle::{Obstacle, Obstacles};
use crate::decide::snapshot::Snapshot;
use crate::tell::escape::escape;

/// What an order needs to know of a retired snapshot.
#[derive(Debug, Clone)]
pub struct RetiredSnapshot<'a> {
    /// Its name.
    pub name: &'a str,
    /// The reason of its pin, which a killed `undelete` may have left.
    pub pin: Option<&'a str>,
    /// Who reads it, under a lease that holds.
    pub reader: Option<SnapshotReader>,
}

/// The facts that decide whether an order of `expire` may be carried out.
#[derive(Debug, Clone, Copy)]
pub struct ExpireFacts<'a> {
    /// All visible snapshots, with the dates that are not believed.
    pub snapshots: &'a [Snapshot],
    /// The complete snapshot that the next run compares the module with.
    pub compared: Option<&'a str>,
    /// The snapshots that the large-change guard has pinned.
    pub guarded: &'a [&'a str],
    /// The retired snapshots that would be removed if they are named.
    pub retired: &'a [RetiredSnapshot<'a>],
    /// The path of the snapshot root, escaped.
    pub root: &'a str,
    /// The names that the administrator wants to go. Some may be retired already.
    pub named: &'a [&'a str],
    /// The policy's `min_keep`.
    pub min_keep: usize,
    /// The administrator lets fewer than `min_keep` stay.
    pub below_min_keep: bool,
    /// The time that dates are compared with.
    pub now: DateTime<Utc>,
}

/// Why a named snapshot has to stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpireRefusal {
    /// It is the newest complete one.
    NewestComplete,
    /// It is pinned, for this reason.
    Pinned(String),
    /// The large-change guard has pinned it.
    Guarded,
    /// It is being read.
    Read(SnapshotReader),
    /// It cannot be moved from this path.
    Obstacle(Obstacle, String),
}

impl fmt::Display for ExpireRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpireRefusal::NewestComplete => f.write_str(
                "it is the newest complete snapshot, which always stays; it can expire once there \
                 is a newer complete one",
            ),
            ExpireRefusal::Pinned(reason) if reason.is_empty() => {
                f.write_str("it is pinned; run `unpin` first")
            }
            ExpireRefusal::Pinned(reason) => {
                write!(f, "it is pinned ({reason}); run `unpin` first")
            }
            ExpireRefusal::Guarded => f.write_str(
                "it is pinned as the last one before a push that changed most of the tree; look \
                 at both, then run `release`",
            ),
            ExpireRefusal::Read(reader) => write!(
                f,
                "{reader}; it can expire when that reader has ended, or after max_lease; to expire \
                 it now, end the reader's process"
            ),
            ExpireRefusal::Obstacle(obstacle, path) => {
                Obstacles::of_each([(path.clone(), *obstacle)]).fmt(f)
            }
        }
    }
}

/// Why each of the named snapshots that has to stay does so, and why all of them together may not
/// go. Empty if the order may be carried out.
pub fn refusals(facts: &ExpireFacts) -> Vec<String> {
    let stays = |name: &str, refusal: &ExpireRefusal| {
        format!("{} stays: {refusal}", escape(name.as_bytes()))
    };
    let visible = facts.snapshots.iter().filter(|snapshot| facts.is_named(snapshot));
    let visible =
        visible.filter_map(|snapshot| Some(stays(&snapshot.name, &facts.refusal(snapshot)?)));
    let retired = facts.retired.iter().filter(|retired| facts.named.contains(&retired.name));
    let retired = retired.filter_map(|retired| {
        let pin = retired.pin.map(|reason| ExpireRefusal::Pinned(reason.to_string()));
        let read = || retired.reader.clone().map(ExpireRefusal::Read);
        Some(stays(retired.name, &pin.or_else(read)?))
    });
    let single: Vec<String> = visible.chain(retired).collect();
    if single.is_empty() { facts.too_few().into_iter().collect() } else { single }
}

impl ExpireFacts<'_> {
    fn is_named(&self, snapshot: &Snapshot) -> bool {
        self.named.contains(&snapshot.name.as_str())
    }

    fn refusal(&self, snapshot: &Snapshot) -> Option<ExpireRefusal> {
        if self.newest().contains(&snapshot.name.as_str()) {
            return Some(ExpireRefusal::NewestComplete);
        }
        if self.guarded.contains(&snapshot.name.as_str()) {
            return Some(ExpireRefusal::Guarded);
        }
        let pin = snapshot.pinned.clone().map(ExpireRefusal::Pinned);
        let obstacle = || {
            let path = format!("{}/{}", self.root, snapshot.name);
            snapshot.obstacle.map(|obstacle| ExpireRefusal::Obstacle(obstacle, path))
        };
        pin.or_else(|| snapshot.reader.clone().map(ExpireRefusal::Read)).or_else(obstacle)
    }

    fn complete(&self) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.iter().filter(|snapshot| snapshot.grade == Grade::Complete)
    }

    /// Whether rotation believes its date.
    fn is_dated(&self, snapshot: &Snapshot) -> bool {
        snapshot.undated.is_none() && snapshot.time <= self.now
    }

    /// The snapshots that each may be the newest complete one: by date, and by the order in which
    /// they were taken. Where no date is believed, the latest date counts.
    fn newest(&self) -> Vec<&str> {
        let dated = self.complete().filter(|one| self.is_dated(one));
        let dated = dated.max_by_key(|one| (one.time, &one.name));
        let any = || self.complete().max_by_key(|one| (one.time, &one.name));
        let names = dated.or_else(any).map(|one| one.name.as_str());
        names.into_iter().chain(self.compared).collect()
    }

    /// Why fewer than `min_keep` complete snapshots would stay. As in rotation, those whose dates
    /// are not believed do not count for the others.
    fn too_few(&self) -> Option<String> {
        if self.below_min_keep {
            return None;
        }
        let left_of = |all: Vec<&Snapshot>| {
            let left = all.iter().filter(|one| !self.is_named(one)).count();
            (left < all.len() && left < self.min_keep).then_some(left)
        };
        let dated = left_of(self.complete().filter(|one| self.is_dated(one)).collect());
        let left = dated.or_else(|| left_of(self.complete().collect()))?;
        Some(format!(
            "only {left} complete {} would stay, and min_keep is {}; `--below-min-keep` allows \
             that",
            if left == 1 { "snapshot" } else { "snapshots" },
            self.min_keep
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::snapshot::Undated;

    fn at(day: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + day * 86_400, 0).expect("a time")
    }

    fn snapshot(name: &str, day: i64) -> Snapshot {
        Snapshot {
            name: name.to_string(),
            time: at(day),
            verified_until: at(day),
            grade: Grade::Complete,
            recorded: true,
            pinned: None,
            unreadable: false,
            sequence: None,
            taken_at: None,
            undated: None,
            obstacle: None,
            reader: None,
        }
    }

    /// Five complete snapshots `a` to `e`, a partial one, and one of the next year.
    fn history() -> Vec<Snapshot> {
        let names = ["a", "b", "c", "d", "e"].into_iter().zip(0..);
        let mut all: Vec<Snapshot> = names.map(|(name, day)| snapshot(name, day)).collect();
        all.push(Snapshot { grade: Grade::Partial, ..snapshot("partial", 5) });
        all.push(Snapshot { undated: Some(Undated::Doubted), ..snapshot("undated", 2) });
        all.push(snapshot("future", 400));
        all
    }

    fn facts<'a>(snapshots: &'a [Snapshot], named: &'a [&'a str]) -> ExpireFacts<'a> {
        ExpireFacts {
            snapshots,
            compared: None,
            guarded: &[],
            retired: &[],
            root: "/srv/root",
            named,
            min_keep: 3,
            below_min_keep: false,
            now: at(10),
        }
    }

    fn refused(snapshots: &[Snapshot], named: &[&str], below_min_keep: bool) -> Vec<String> {
        let facts = ExpireFacts { compared: Some("e"), below_min_keep, ..facts(snapshots, named) };
        refusals(&facts)
    }

    #[test]
    fn old_partial_and_undated_snapshots_may_go() {
        for named in
            [&["a"][..], &["a", "b"], &["partial"], &["undated"], &["future"], &["retired"]]
        {
            assert_eq!(refused(&history(), named, false), [""; 0], "{named:?}");
        }
    }

    #[test]
    fn the_newest_complete_one_never_goes() {
        for below in [false, true] {
            let refusal = refused(&history(), &["e", "a"], below);
            assert_eq!(refusal.len(), 1, "{refusal:?}");
            assert!(refusal[0].starts_with("e stays: it is the newest complete"), "{refusal:?}");
        }
        let all = history();
        let last = ExpireFacts { compared: Some("b"), ..facts(&all, &["b"]) };
        assert_eq!(refusals(&last).len(), 1, "the last one that was taken");
        let undated: Vec<Snapshot> = ["a", "b"]
            .into_iter()
            .zip(0..)
            .map(|(name, day)| Snapshot { undated: Some(Undated::Doubted), ..snapshot(name, day) })
            .collect();
        let refusal = refused(&undated, &["b"], true);
        assert_eq!(refusal.len(), 1, "no date is believed: {refusal:?}");
    }

    #[test]
    fn fewer_than_min_keep_stay_only_by_order() {
        let refusal = refused(&history(), &["a", "b", "c"], false);
        assert!(refusal[0].starts_with("only 2 complete snapshots would stay"), "{refusal:?}");
        assert!(refusal[0].contains("--below-min-keep"), "{refusal:?}");
        assert_eq!(refused(&history(), &["a", "b", "c", "d"], true), [""; 0]);

        let few = [snapshot("d", 3), snapshot("e", 4), snapshot("future", 400)];
        assert_eq!(refused(&few, &["partial"], false), [""; 0], "no complete one goes");
        assert_eq!(refused(&few, &["future"], false).len(), 1, "it is one of three");
    }

    #[test]
    fn a_pin_or_an_obstacle_holds_and_says_what_helps() {
        let mut all = history();
        all[0].pinned = Some("audit".to_string());
        all[1].obstacle = Some(Obstacle::Immutable);
        let refusal = refused(&all, &["a", "b"], true);
        assert!(refusal[0].contains("(audit); run `unpin`"), "{refusal:?}");
        assert!(refusal[1].contains("chattr -R -i /srv/root/b"), "{refusal:?}");
        let guarded = ExpireFacts { guarded: &["a"], ..facts(&all, &["a"]) };
        assert!(refusals(&guarded)[0].contains("`release`"), "{:?}", refusals(&guarded));
        let pinned = [RetiredSnapshot { name: "x", pin: Some(""), reader: None }];
        let retired = ExpireFacts { retired: &pinned, ..facts(&all, &["x"]) };
        assert!(refusals(&retired)[0].contains("x stays: it is pinned"));
    }

    #[test]
    fn what_is_being_read_stays_and_says_who_reads_it() {
        let reader = SnapshotReader { name: "user laptop".to_string(), since: at(1) };
        let mut all = history();
        all[0].reader = Some(reader.clone());
        let read = [RetiredSnapshot { name: "x", pin: None, reader: Some(reader) }];
        for named in ["a", "x"] {
            let named = [named];
            let refusal = refusals(&ExpireFacts { retired: &read, ..facts(&all, &named) });
            assert!(
                refusal[0].contains("stays: user laptop has been reading it since"),
                "{refusal:?}"
            );
        }
    }
}
