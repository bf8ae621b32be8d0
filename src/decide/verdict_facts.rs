//! The facts that a [verdict](crate::decide::transfer_decision) about a transfer or a run rests on:
//! who asks for a snapshot, what is known of the transfer and of others, and how the tree differs
//! from the snapshots.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::boot_time::BootTime;
use crate::decide::failed_push::{LedgerPush, UnfinishedDirectories};
use crate::decide::grade::Grade;
use crate::decide::torn_mark::{TornEvidence, TornMark};

/// rsync's status for a transfer that could not read or write everything.
pub const PARTIAL_TRANSFER: i32 = 23;

/// The statuses that a policy lists.
#[derive(Debug, Clone, Copy)]
pub struct Statuses<'a> {
    /// `snapshot_on_exit`.
    pub complete: &'a [i32],
    /// `partial_on_exit`.
    pub partial: &'a [i32],
}

/// Who reports how a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporter {
    /// The daemon, which does not know of files that the client could not read.
    Daemon,
    /// The client itself.
    Client,
}

/// The best snapshot that the end of a transfer allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AllowedSnapshot {
    /// It ended badly: no snapshot.
    None,
    /// It ended badly, and the policy wants a partial snapshot of it.
    Partial,
    /// It ended well: a complete snapshot, if anything changed.
    Complete,
}

impl AllowedSnapshot {
    /// The snapshot that `status` allows. If the client itself says that something could not be
    /// transferred, it has done all that it could: that allows a partial snapshot.
    pub fn of_status(status: i32, reporter: Reporter, statuses: Statuses) -> Self {
        if statuses.complete.contains(&status) {
            AllowedSnapshot::Complete
        } else if statuses.partial.contains(&status)
            || status == PARTIAL_TRANSFER && reporter == Reporter::Client
        {
            AllowedSnapshot::Partial
        } else {
            AllowedSnapshot::None
        }
    }
}

/// How far a client says that its backup has come.
///
/// To rsyncd a push looks well even if its client could not read some of its files: the client
/// alone knows. So `rsync-system-backup` sends a file with each push that says *unfinished*, and
/// takes it away, in a small second push, when all has gone well; when rsync could not transfer
/// everything, it puts another one there that says *partial*. A client that pushes without these
/// files is believed as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCompletion {
    /// Nothing is left to be done; or the client does not say.
    Done,
    /// All that could be transferred is there, but something could not.
    Partial,
    /// The client is at work, or was interrupted.
    Unfinished,
}

impl ClientCompletion {
    /// Whether a tree that says this may become a complete snapshot.
    pub fn allows_complete(self, statuses: Statuses) -> bool {
        match self {
            ClientCompletion::Done => true,
            ClientCompletion::Partial => statuses.complete.contains(&PARTIAL_TRANSFER),
            ClientCompletion::Unfinished => false,
        }
    }

    /// The less complete of two.
    pub fn worse(self, other: Self) -> Self {
        match (self, other) {
            (ClientCompletion::Unfinished, _) | (_, ClientCompletion::Unfinished) => {
                ClientCompletion::Unfinished
            }
            (ClientCompletion::Partial, _) | (_, ClientCompletion::Partial) => {
                ClientCompletion::Partial
            }
            _ => ClientCompletion::Done,
        }
    }
}

/// How much the ledger saw of the transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerCoverage {
    /// pre-xfer does not run for the module, and what else is writing is unknown.
    None,
    /// This transfer is missing in the ledger: what else was running is not known.
    TransferMissing,
    /// The ledger knows all of them.
    All,
}

/// Why a transfer cannot have written anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NothingWritten {
    /// It was a download, a listing or a dry run, or pre-xfer turned it away.
    NotAPush,
    /// The module, or its user, may only read, as rsyncd told the client.
    ReadOnly,
    /// `refuse options` names one of its options, as rsyncd told the client.
    RefusedOption,
}

/// What forbids a push in `rsyncd.conf`, as pre-xfer read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forbidden {
    /// The module, or its user, may only read.
    ReadOnly,
    /// `refuse options` names one of its options.
    Option,
}

/// rsyncd's status for a push to a module that its client may only read.
const READ_ONLY_STATUS: i32 = 1;

/// rsyncd's status for an option that it refuses.
const REFUSED_OPTION_STATUS: i32 = 4;

/// A transfer that has ended.
#[derive(Debug, Clone, Copy)]
pub struct TransferEnd<'a> {
    /// The best snapshot that its end allows.
    pub allowed: AllowedSnapshot,
    /// Its exit status.
    pub status: i32,
    /// What the ledger knows of it, if it does and it is a push.
    pub push: Option<&'a LedgerPush>,
    /// The ledger says that it was a download, a listing or a dry run, or that pre-xfer turned it
    /// away.
    pub is_no_push: bool,
    /// What `rsyncd.conf` forbade when it began. A client can bring about any status at any time,
    /// so only both together prove that nothing was written.
    pub forbidden: Option<Forbidden>,
    /// Whether this very push brought the client's token that says *unfinished*.
    pub brought_unfinished: bool,
}

/// What asks for a snapshot.
#[derive(Debug, Clone, Copy)]
pub enum Occasion<'a> {
    /// A transfer that has just ended.
    Transfer(TransferEnd<'a>),
    /// The administrator.
    ByHand,
    /// A snapshot is due from an earlier run; a timer asks for it.
    Due {
        /// Who asked for it then.
        asked: Asked,
        /// Whether the machine has not been started again since. rsync does not sync what it
        /// writes, so after a restart a part of an earlier push may never have reached the disk.
        is_of_this_boot: bool,
    },
}

/// Who asked for a snapshot that is due. The better the snapshot asked for, the greater the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// A transfer that ended badly, where the policy wants a partial one.
    FailedTransfer,
    /// A person or a timer.
    ByHand,
    /// A transfer that ended well.
    GoodTransfer,
}

impl Asked {
    /// The grade that the snapshot has if nothing stands against it.
    pub fn grade(self) -> Grade {
        match self {
            Asked::FailedTransfer => Grade::Partial,
            Asked::ByHand | Asked::GoodTransfer => Grade::Complete,
        }
    }
}

/// Why a snapshot is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DueReason {
    /// A run gave up waiting for the lock.
    LockBusy,
    /// A push came sooner than `min_interval` after the last snapshot.
    MinInterval,
    /// A push ended while another one was still running, or while its client had more to send.
    Deferred,
    /// A push ended, and its hook never ran or was killed.
    Interrupted,
}

impl TransferEnd<'_> {
    /// Why it cannot have written anything, if that is known.
    pub fn wrote_nothing(&self) -> Option<NothingWritten> {
        match (self.is_no_push, self.forbidden, self.status) {
            (true, ..) => Some(NothingWritten::NotAPush),
            (_, Some(Forbidden::ReadOnly), READ_ONLY_STATUS) => Some(NothingWritten::ReadOnly),
            (_, Some(Forbidden::Option), REFUSED_OPTION_STATUS) => {
                Some(NothingWritten::RefusedOption)
            }
            _ => None,
        }
    }
}

impl Occasion<'_> {
    /// Who asks; `None` if the transfer earns no snapshot.
    pub fn asked(&self) -> Option<Asked> {
        match self {
            Occasion::ByHand => Some(Asked::ByHand),
            Occasion::Due { asked, .. } => Some(*asked),
            Occasion::Transfer(transfer) => match transfer.allowed {
                _ if transfer.wrote_nothing().is_some() => None,
                AllowedSnapshot::Complete => Some(Asked::GoodTransfer),
                AllowedSnapshot::Partial => Some(Asked::FailedTransfer),
                AllowedSnapshot::None => None,
            },
        }
    }

    pub(crate) fn is_good_transfer(&self) -> bool {
        match self {
            Occasion::Transfer(it) => {
                it.allowed == AllowedSnapshot::Complete && it.wrote_nothing().is_none()
            }
            Occasion::Due { asked, is_of_this_boot } => {
                *asked == Asked::GoodTransfer && *is_of_this_boot
            }
            Occasion::ByHand => false,
        }
    }
}

/// The other pushes that are running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunningPushes {
    /// How many.
    pub count: usize,
    /// Whether one of them writes into files that a snapshot would share.
    pub in_place: bool,
}

/// The due mark, as far as it matters for a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Who asked for the snapshot.
    pub asked: Asked,
    /// Why it is due.
    pub reason: DueReason,
    /// The mark was set before the last start of the machine.
    pub is_of_earlier_boot: bool,
    /// The mark was set after the comparison began, which may have missed the changes that the mark
    /// is for.
    pub is_newer_than_look: bool,
}

/// How the tree differs from the newest snapshots, and what it shows about failed pushes.
#[derive(Debug, Clone, Copy)]
pub struct TreeComparison<'a> {
    /// What the tree shows about failed pushes.
    pub failed_pushes: &'a TornEvidence<'a>,
    /// Whether the tree differs from the newest complete snapshot, writes in place included; none
    /// if there is no such snapshot.
    pub differs_from_complete: Option<bool>,
    /// Whether the tree differs from the newest snapshot of any grade; none if that was not
    /// compared, or there is none.
    pub differs_from_newest: Option<bool>,
    /// The newest complete snapshot is younger than `min_interval`, and the run can wait.
    pub is_too_soon_for_complete: bool,
    /// The newest snapshot of any grade is younger than `min_interval`, and the run can wait.
    pub is_too_soon_for_partial: bool,
}

/// The stage of a run at which the verdict is asked for.
#[derive(Debug, Clone, Copy)]
pub enum VerdictStage<'a> {
    /// The transfer has ended, and nothing has waited yet.
    Ended {
        /// The time by the wall clock.
        now: DateTime<Utc>,
        /// When the run noticed the end, by the boot clock.
        noticed: &'a BootTime,
        /// The directories that failed pushes did not finish, as they are now.
        unfinished: &'a UnfinishedDirectories,
    },
    /// The tree is about to be read, and it is known which pushes are running.
    BeforeComparison,
    /// The tree was compared.
    Compared(TreeComparison<'a>),
}

/// All facts that a verdict rests on.
#[derive(Debug, Clone, Copy)]
pub struct VerdictFacts<'a> {
    /// What asks for a snapshot.
    pub occasion: Occasion<'a>,
    /// The stage at which the verdict is asked for.
    pub stage: VerdictStage<'a>,
    /// How many of the transfers the ledger saw.
    pub coverage: LedgerCoverage,
    /// Whether pre-xfer runs for the module, so that the ledger shows who is pushing.
    pub has_pre_xfer: bool,
    /// Who else is pushing.
    pub running: RunningPushes,
    /// The snapshot has been left to running pushes for `max_defer` already, or since a time in the
    /// future, which a wrong clock noted.
    pub has_waited: bool,
    /// Pushes that ended well have been left to this one.
    pub has_deferred: bool,
    /// What the client says in the module.
    pub completion: ClientCompletion,
    /// The torn mark, if there is one.
    pub torn: Option<&'a TornMark>,
    /// The due mark, if there is one.
    pub due: Option<Due>,
    /// The policy's statuses.
    pub statuses: Statuses<'a>,
}
