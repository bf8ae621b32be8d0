//! One transfer in the [ledger](crate::store::ledger): what its file says, and the file's name.
//!
//! A running transfer is in the file `NAMESPACE-PID`, one that has ended in `NAMESPACE-PID.STATUS`.
//! The [PID namespace](crate::system::pid_namespace) is named by machine, boot and number. Earlier
//! versions wrote `PID` and `PID.STATUS`.

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::arguments::rewriting_option::RewritingOption;
use crate::decide::arguments::transfer_kind::TransferKind;
use crate::decide::boot_time::BootTime;
use crate::decide::client::Client;
use crate::decide::failed_push::LedgerPush;
use crate::decide::liveness::{EntryOrigin, Liveness};
use crate::decide::push_job::PushJob;
use crate::decide::verdict_facts::Forbidden;
use crate::store::format::FORMAT;
use crate::system::clock::Clock;
use crate::system::pid_namespace::PidNamespace;
use crate::system::process::{Census, Process};

/// A transfer as pre-xfer saw it begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerEntry {
    /// Format number, at most [`FORMAT`].
    pub format: u32,
    /// What the client asked for.
    pub kind: TransferKind,
    /// pre-xfer turned it away: nothing was transferred.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// When it was entered, by the wall clock.
    pub began: DateTime<Utc>,
    /// When it was entered, by the boot clock.
    pub began_at: BootTime,
    /// Its place in the order of all transfers of the root, whichever machine they came by; 0 in an
    /// entry that an earlier version wrote.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: u64,
    /// What the client asked for, escaped: `RSYNC_REQUEST`.
    pub request: String,
    /// The options with which it rewrites files in place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewriting: Vec<RewritingOption>,
    /// What its arguments tell rsync to do; none if they were not understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<PushJob>,
    /// Why `rsyncd.conf` lets it write nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forbidden: Option<Forbidden>,
    /// The client.
    pub client: Client,
    /// The process that serves the connection and runs the hooks; once the transfer has ended, that
    /// of its post-xfer.
    pub owner: Process,
    /// The process that transfers: it goes on if only the process that serves the connection is
    /// killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<Process>,
}

impl LedgerEntry {
    /// A transfer that pre-xfer has not entered, and that `owner`, its post-xfer, works on now.
    pub fn without_pre_xfer(client: Client, owner: Process, clock: &Clock) -> Self {
        LedgerEntry {
            format: FORMAT,
            kind: TransferKind::Push,
            refused: false,
            began: clock.exact_now(),
            began_at: BootTime::now(),
            sequence: 0,
            request: String::new(),
            rewriting: Vec::new(),
            job: None,
            forbidden: None,
            client,
            owner,
            worker: None,
        }
    }

    /// The facts that decide whether it tears the module, or makes up for a failed push.
    pub fn push(&self) -> LedgerPush {
        LedgerPush {
            client: self.client.identity(),
            request: self.request.clone(),
            began: self.began_at.clone(),
            began_at: self.began,
            sequence: Some(self.sequence).filter(|sequence| *sequence > 0),
            job: self.job.clone(),
            in_place: !self.rewriting.is_empty(),
            only_deletes: self.kind == TransferKind::DeletionOnly,
        }
    }

    /// Whether the transfer may change the module.
    pub fn writes(&self) -> bool {
        self.kind.writes() && !self.refused
    }

    pub(crate) fn liveness(&self, origin: EntryOrigin, census: &Census) -> Liveness {
        Process::liveness_of_any(&self.owner, self.worker.as_ref(), origin, census)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A [`LedgerEntry`] as it is stored: its file in the ledger, and what the name of that file says.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    pub(crate) file: String,
    /// The directory that it is in, if that is outside the snapshot root.
    pub(crate) elsewhere: Option<PathBuf>,
    /// The PID namespace of its process; none if an earlier version wrote it.
    pub(crate) namespace: Option<PidNamespace>,
    /// The number, in that namespace, of the process that works on the transfer.
    pub pid: u32,
    /// The status that the transfer ended with, if it has ended.
    pub status: Option<i32>,
    /// The content of the file; `None` if it cannot be read: then it counts as a push by an unknown
    /// client.
    pub entry: Option<LedgerEntry>,
    /// When the transfer began, or at least its entry was written.
    pub began: DateTime<Utc>,
    /// Whether the processes of the transfer, or of the hook after it, are running, as far as that
    /// can be seen from here.
    pub(crate) liveness: Liveness,
}

impl StoredEntry {
    /// The entry in the root's own ledger of a process of this `namespace`, which is alive.
    pub(crate) fn of_living(
        namespace: PidNamespace,
        entry: LedgerEntry,
        status: Option<i32>,
    ) -> Self {
        StoredEntry {
            file: file_name(namespace, entry.owner.pid, status),
            elsewhere: None,
            namespace: Some(namespace),
            pid: entry.owner.pid,
            status,
            began: entry.began,
            entry: Some(entry),
            liveness: Liveness::Alive,
        }
    }

    /// Whether the transfer is running, as far as is known, and may change the module.
    pub fn is_running_push(&self) -> bool {
        self.status.is_none() && self.liveness != Liveness::Dead && self.writes()
    }

    /// Whether the transfer, or the hook after it, runs at `now`. A process that cannot be seen
    /// from here counts as dead after `limit`.
    pub fn liveness(&self, now: DateTime<Utc>, limit: TimeDelta) -> Liveness {
        self.liveness.after(self.age(now), limit)
    }

    /// Whether this process cannot see if the entry's processes are running.
    pub fn is_unseen(&self) -> bool {
        self.liveness == Liveness::Unknown
    }

    /// The time since the transfer began.
    pub(crate) fn age(&self, now: DateTime<Utc>) -> TimeDelta {
        age(self.entry.as_ref().map(|entry| &entry.began_at), self.began, now)
    }

    /// The name of its file, for a message.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether the transfer may change, or has changed, the module.
    pub fn writes(&self) -> bool {
        self.entry.as_ref().is_none_or(LedgerEntry::writes)
    }

    /// Whether it is a push of this boot of the machine, as far as it can be read.
    pub fn is_of_this_boot(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.began_at.is_of_this_boot())
    }

    /// The client, for a message.
    pub fn who(&self) -> String {
        self.entry.as_ref().map_or("an unknown client".to_string(), |entry| entry.client.identity())
    }
}

/// The time since an entry was made. Within one boot it is measured by the boot clock, which
/// nothing can set.
pub(crate) fn age(
    entered: Option<&BootTime>,
    began: DateTime<Utc>,
    now: DateTime<Utc>,
) -> TimeDelta {
    let moment = BootTime::now();
    match entered.filter(|entered| entered.is_certain() && entered.boot == moment.boot) {
        Some(entered) => {
            TimeDelta::nanoseconds(moment.nanoseconds.saturating_sub(entered.nanoseconds))
        }
        None => now - began,
    }
}

pub(crate) fn file_name(namespace: PidNamespace, pid: u32, status: Option<i32>) -> String {
    let namespace = namespace.to_name();
    status.map_or_else(
        || format!("{namespace}-{pid}"),
        |status| format!("{namespace}-{pid}.{status}"),
    )
}

/// `NAMESPACE-PID` or `NAMESPACE-PID.STATUS`; `PID` and `PID.STATUS` of earlier versions.
pub(crate) fn read_name(file: &str) -> Option<(Option<PidNamespace>, u32, Option<i32>)> {
    let (process, status) = match file.split_once('.') {
        Some((process, status)) => (process, Some(status.parse().ok()?)),
        None => (file, None),
    };
    let (namespace, pid) = match process.rsplit_once('-') {
        Some((namespace, pid)) => (Some(PidNamespace::from_name(namespace)?), pid),
        None => (None, process),
    };
    let pid: u32 = pid.parse().ok()?;
    // `+1` and `01` parse as numbers, too, but this program does not write them.
    let written = match namespace {
        Some(namespace) => file_name(namespace, pid, status),
        None => status.map_or_else(|| pid.to_string(), |status: i32| format!("{pid}.{status}")),
    };
    (written == file).then_some((namespace, pid, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_process_and_a_status_or_none_of_ours() {
        assert_eq!(read_name("4711"), Some((None, 4711, None)));
        assert_eq!(read_name("4711.0"), Some((None, 4711, Some(0))));
        assert_eq!(read_name("4711.-1"), Some((None, 4711, Some(-1))));
        for foreign in
            ["", ".", "x", "4711.", ".0", "+1", "01", "-1", "4711.0.0", "4711.00", "99999999999"]
        {
            assert_eq!(read_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn names_tell_the_namespace_that_wrote_them() {
        let namespace = PidNamespace::own().expect("/proc");
        for status in [None, Some(0), Some(-1), Some(23)] {
            assert_eq!(
                read_name(&file_name(namespace, 7, status)),
                Some((Some(namespace), 7, status))
            );
        }
        let name = file_name(namespace, 7, None);
        for foreign in
            [format!("{name}."), format!("{name}-7"), format!("-{name}"), format!("{name}.00")]
        {
            assert_eq!(read_name(&foreign), None, "{foreign}");
        }
    }
}
