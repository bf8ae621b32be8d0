//! One lease: what its file in `.rsyncd-snapshot/leases` says.
//!
//! The file is named `NAMESPACE-PID.NUMBER` after the process that reads, like an entry of the
//! [ledger](crate::store::ledger_entry). One process may hold several leases, hence the number.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::boot_time::BootTime;
use crate::decide::lease::{LeaseStanding, SnapshotReader, standing};
use crate::decide::liveness::Liveness;
use crate::store::format::FORMAT;
use crate::store::ledger_entry::{age, read_name};
use crate::system::clock::Clock;
use crate::system::pid_namespace::PidNamespace;
use crate::system::process::Process;
use crate::tell::counted;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{deserialize_line, escape};

/// Which snapshots of a root a lease is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeasedSnapshots {
    /// All that there are, and those to come.
    All,
    /// The snapshots of these names.
    Named(BTreeSet<String>),
}

impl LeasedSnapshots {
    pub(crate) fn one(name: &str) -> Self {
        LeasedSnapshots::Named(BTreeSet::from([name.to_string()]))
    }

    /// Makes this a lease on the snapshots of `other`, too.
    pub(crate) fn add(&mut self, other: LeasedSnapshots) {
        *self = match (std::mem::replace(self, LeasedSnapshots::All), other) {
            (LeasedSnapshots::Named(mut names), LeasedSnapshots::Named(more)) => {
                names.extend(more);
                LeasedSnapshots::Named(names)
            }
            _ => LeasedSnapshots::All,
        };
    }
}

/// A lease as its taker wrote it down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseEntry {
    /// Format number, at most [`FORMAT`].
    pub format: u32,
    /// When it was taken, by the wall clock.
    pub began: DateTime<Utc>,
    /// When it was taken, by the boot clock.
    pub began_at: BootTime,
    /// Who reads, escaped.
    #[serde(deserialize_with = "deserialize_line")]
    pub reader: String,
    /// The snapshots that it is on; all of the root if this is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<BTreeSet<String>>,
    /// The process that reads, or that serves the connection of the client that reads.
    pub owner: Process,
    /// The process that transfers for such a client: it goes on if only the owner is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Process>,
}

impl LeaseEntry {
    /// A lease for this process.
    ///
    /// # Errors
    /// If `/proc` does not show this process.
    pub(crate) fn of_own_process(
        snapshots: LeasedSnapshots,
        reader: &str,
        clock: &Clock,
    ) -> Result<Self> {
        let own = Process::own()?.ok_or(Error::Bug("/proc shows that this process is dead"))?;
        Ok(LeaseEntry::new(snapshots, reader, (own, None), clock))
    }

    /// A lease for the client of a connection, which `owner` serves. `reader` is escaped.
    pub(crate) fn new(
        snapshots: LeasedSnapshots,
        reader: &str,
        (owner, worker): (Process, Option<Process>),
        clock: &Clock,
    ) -> Self {
        LeaseEntry {
            format: FORMAT,
            began: clock.exact_now(),
            began_at: BootTime::now(),
            reader: reader.to_string(),
            snapshots: match snapshots {
                LeasedSnapshots::All => None,
                LeasedSnapshots::Named(names) => Some(names),
            },
            owner,
            worker,
        }
    }
}

/// A [`LeaseEntry`] as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredLease {
    /// The name of its file.
    pub file: String,
    /// The content of the file; `None` if it cannot be read. Then it is a lease on all snapshots.
    pub entry: Option<LeaseEntry>,
    /// When it was taken, or at least its file was written.
    pub began: DateTime<Utc>,
    /// Whether its processes are running, as far as that can be seen from here.
    pub liveness: Liveness,
}

impl StoredLease {
    /// Whether it is on the snapshot `name`.
    pub(crate) fn covers(&self, name: &str) -> bool {
        let names = self.entry.as_ref().and_then(|entry| entry.snapshots.as_ref());
        names.is_none_or(|names| names.contains(name))
    }

    /// Whether its processes cannot be seen from here.
    pub(crate) fn is_unseen(&self) -> bool {
        self.liveness == Liveness::Unknown
    }

    /// What it is good for at `now`.
    pub(crate) fn standing(&self, now: DateTime<Utc>, max_lease: TimeDelta) -> LeaseStanding {
        standing(self.liveness, self.age(now), max_lease)
    }

    /// What it is on, for a message: `2026-11-22T19-08-31Z`, `3 snapshots`, `all snapshots`.
    pub(crate) fn subject(&self) -> String {
        let names = self.entry.as_ref().and_then(|entry| entry.snapshots.as_ref());
        match names.map(|names| (names.len(), names.first())) {
            Some((1, Some(name))) => escape(name.as_bytes()),
            Some((count, _)) => counted(count, "snapshot"),
            None => "all snapshots".to_string(),
        }
    }

    /// The time since it was taken.
    pub(crate) fn age(&self, now: DateTime<Utc>) -> TimeDelta {
        age(self.entry.as_ref().map(|entry| &entry.began_at), self.began, now)
    }

    /// Who reads, and since when. The number of a process means another one here if it is that of
    /// another PID namespace.
    pub(crate) fn reader(&self) -> SnapshotReader {
        let name = self.entry.as_ref().map_or("an unknown reader", |entry| &entry.reader);
        let namespace = read_name(&self.file).and_then(|(namespace, ..)| namespace);
        let is_foreign = namespace.is_some() && namespace != PidNamespace::own().ok();
        let name = match name.strip_suffix(')').filter(|name| name.contains(" (process ")) {
            Some(name) if is_foreign => format!("{name} of another PID namespace)"),
            _ => name.to_string(),
        };
        SnapshotReader { name, since: self.began }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_namespace_is_told_as_such() {
        let own = PidNamespace::own().expect("/proc").to_name();
        for (namespace, expected) in [
            (own.as_str(), "`restore` (process 7)"),
            ("00000001-00000002-3", "`restore` (process 7 of another PID namespace)"),
        ] {
            let entry = LeaseEntry {
                format: FORMAT,
                began: DateTime::default(),
                began_at: BootTime::now(),
                reader: "`restore` (process 7)".to_string(),
                snapshots: None,
                owner: Process::own().expect("/proc").expect("it lives"),
                worker: None,
            };
            let lease = StoredLease {
                file: format!("{namespace}-7.0"),
                entry: Some(entry),
                began: DateTime::default(),
                liveness: Liveness::Unknown,
            };
            assert_eq!(lease.reader().name, expected);
        }
    }
}
