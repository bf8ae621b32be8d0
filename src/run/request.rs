//! What a run is asked to do, and the due mark that it leaves if it cannot do that.

use chrono::{DateTime, Utc};

use crate::decide::boot_time::BootTime;
use crate::decide::client::Client;
use crate::decide::failed_push::LedgerPush;
use crate::decide::policy::Policy;
use crate::decide::push_history::EndedPush;
use crate::decide::root_overlap::Opener;
use crate::decide::verdict_facts::{
    AllowedSnapshot, Asked, DueReason, LedgerCoverage, Occasion, TransferEnd,
};
use crate::store::ledger_entry::StoredEntry;
use crate::store::state::{DueMark, State};

/// Who asks for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requester {
    /// A transfer that has ended, and what its exit status allows: a complete snapshot, a partial
    /// one, or none.
    Transfer(AllowedSnapshot),
    /// An administrator or a timer.
    ByHand,
    /// A due mark that an earlier run left.
    Due {
        /// Who asked for that snapshot.
        asked: Asked,
        /// Whether the mark was set since the machine was last booted.
        is_of_this_boot: bool,
    },
    /// An administrator who asks only for a rotation.
    Rotation,
}

/// What a run is asked to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks for the run.
    pub requester: Requester,
    /// The exit status of the transfer, if there was one.
    pub status: Option<i32>,
    /// The client of the transfer, if there was one.
    pub client: Option<Client>,
    /// How much of the transfers the ledger has seen.
    pub coverage: LedgerCoverage,
    /// The entry of the transfer in the ledger, if it has one.
    pub ledger_entry: Option<StoredEntry>,
    /// The push of that entry.
    pub push: Option<LedgerPush>,
    /// The end of the push, for the history of pushes; `None` for what is no push.
    pub ended: Option<EndedPush>,
    /// Tells the hook that this detached process has taken over, so that the hook ends; `None` in a
    /// process that is not detached. It is called once the marks and the ledger hold all that is
    /// known of the transfer: from then on nothing is lost if this process or the hook dies.
    pub report_taken_over: Option<fn()>,
    /// Work only if a snapshot is due.
    pub only_if_due: bool,
    /// Rotate once the present state is safe.
    pub rotates: bool,
    /// When the process that asks was started: a scan that began later covers this request.
    pub started: BootTime,
}

impl Request {
    /// A request of an administrator or a timer, as of now.
    pub fn manual(only_if_due: bool) -> Self {
        Request {
            requester: Requester::ByHand,
            status: None,
            client: None,
            coverage: LedgerCoverage::All,
            ledger_entry: None,
            push: None,
            ended: None,
            report_taken_over: None,
            only_if_due,
            rotates: true,
            started: BootTime::now(),
        }
    }

    /// A request only for a rotation.
    pub(crate) fn rotation() -> Self {
        Request { requester: Requester::Rotation, ..Request::manual(false) }
    }

    /// The request after a transfer that has no entry in a ledger.
    pub fn transfer(allowed: AllowedSnapshot, status: i32, client: Client) -> Self {
        Request {
            requester: Requester::Transfer(allowed),
            status: Some(status),
            client: Some(client),
            coverage: LedgerCoverage::None,
            ..Request::manual(false)
        }
    }

    /// This request with the transfer's entry in the ledger.
    pub fn entered(self, stored: StoredEntry) -> Self {
        let push = stored.entry.as_ref().map(|entry| entry.push());
        Request { coverage: LedgerCoverage::All, ledger_entry: Some(stored), push, ..self }
    }

    /// The request of a run that gave up waiting or deferred its snapshot.
    pub(crate) fn for_due_mark(mark: &DueMark) -> Self {
        let requester =
            Requester::Due { asked: mark.asked, is_of_this_boot: mark.marked.is_of_this_boot() };
        Request { requester, ..Request::manual(false) }
    }

    /// The kind of work that the root is opened for.
    pub(crate) fn opener(&self) -> Opener {
        match self.requester {
            Requester::Transfer(_) => Opener::Push,
            Requester::ByHand if !self.only_if_due => Opener::Snapshot,
            Requester::ByHand | Requester::Due { .. } => Opener::Due,
            Requester::Rotation => Opener::Upkeep,
        }
    }

    /// Notes the end of the push in the history of pushes. This is done together with another
    /// change of the state, so that it costs no sync of the disk.
    pub(crate) fn note_push(&self, state: &mut State, policy: &Policy) {
        if let Some(push) = &self.ended {
            state.pushes.note(push, |client| policy.watches(client));
        }
    }

    pub(crate) fn occasion(&self) -> Occasion<'_> {
        let transfer = |allowed| TransferEnd {
            allowed,
            status: self.status.unwrap_or_default(),
            push: self.push.as_ref(),
            // After a transfer that is no push, the hook starts no run, so only a rotation is meant
            // here.
            is_no_push: self.requester == Requester::Rotation,
            forbidden: None,
            brought_unfinished: false,
        };
        match self.requester {
            Requester::Transfer(allowed) => Occasion::Transfer(transfer(allowed)),
            Requester::Rotation => Occasion::Transfer(transfer(AllowedSnapshot::None)),
            Requester::Due { asked, is_of_this_boot } => Occasion::Due { asked, is_of_this_boot },
            // A timer that finds a due mark asks as `Requester::Due`.
            Requester::ByHand => Occasion::ByHand,
        }
    }

    /// Who asks for a snapshot; `None` if the transfer earns none.
    pub(crate) fn asked(&self) -> Option<Asked> {
        self.occasion().asked()
    }

    /// The due mark to leave if this request is not served now. If the `existing` mark asks for
    /// more, that is kept.
    pub(crate) fn due_mark(
        &self,
        reason: DueReason,
        now: DateTime<Utc>,
        existing: Option<&DueMark>,
    ) -> Option<DueMark> {
        self.asked().map(|asked| DueMark::merged_with(existing, asked, reason, now))
    }
}
