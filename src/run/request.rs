//! What a run is asked to do, and what of it is still owed when it could not be done.

use chrono::{DateTime, Utc};

use crate::decide::boot_time::BootTime;
use crate::decide::client::Client;
use crate::decide::failed_push::LedgerPush;
use crate::decide::root_overlap::Opener;
use crate::decide::verdict_facts::{
    Asked, DueReason, LedgerCoverage, Occasion, TransferEnd, Worth,
};
use crate::store::ledger::LedgerLine;
use crate::store::state::DueMark;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requester {
    /// A transfer that has ended, and what its end is worth.
    Transfer(Worth),
    /// A person.
    ByHand,
    /// A debt that an earlier run left.
    Owed {
        /// Who asked then.
        asked: Asked,
        /// Whether the machine has been running since.
        is_of_this_boot: bool,
    },
    /// A person who asks for rotation alone.
    Rotation,
}

/// What a run is asked to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub requester: Requester,
    /// The transfer's exit status, if there was one.
    pub status: Option<i32>,
    /// Who transferred, if it was a transfer.
    pub client: Option<Client>,
    /// Whether the ledger vouches for what is known of the transfers.
    pub coverage: LedgerCoverage,
    /// The transfer's entry in the ledger.
    pub line: Option<LedgerLine>,
    /// The push of that entry.
    pub push: Option<LedgerPush>,
    /// To be told when nothing of the transfer can be lost any more, whichever process dies.
    pub taken_over: Option<fn()>,
    /// Do something only if a snapshot is due.
    pub only_if_due: bool,
    /// Rotate once the present state is safe.
    pub rotates: bool,
    /// When the process that asks was started.
    pub started: BootTime,
}

impl Request {
    /// A person or a timer asks, at this moment.
    pub fn manual(only_if_due: bool) -> Self {
        Request {
            requester: Requester::ByHand,
            status: None,
            client: None,
            coverage: LedgerCoverage::All,
            line: None,
            push: None,
            taken_over: None,
            only_if_due,
            rotates: true,
            started: BootTime::now(),
        }
    }

    /// A person asks for rotation alone.
    pub(crate) fn rotation() -> Self {
        Request { requester: Requester::Rotation, ..Request::manual(false) }
    }

    /// A transfer has ended of which there is no ledger.
    pub fn transfer(worth: Worth, status: i32, client: Client) -> Self {
        Request {
            requester: Requester::Transfer(worth),
            status: Some(status),
            client: Some(client),
            coverage: LedgerCoverage::None,
            ..Request::manual(false)
        }
    }

    /// The same transfer with its entry in the ledger.
    pub fn entered(self, line: LedgerLine) -> Self {
        let push = line.entry.as_ref().map(|entry| entry.push());
        Request { coverage: LedgerCoverage::All, line: Some(line), push, ..self }
    }

    /// What a run that gave up, or was put off, would have done.
    pub(crate) fn owed(mark: &DueMark) -> Self {
        let debt =
            Requester::Owed { asked: mark.asked, is_of_this_boot: mark.marked.is_of_this_boot() };
        Request { requester: debt, ..Request::manual(false) }
    }

    /// Who opens the root.
    pub(crate) fn opener(&self) -> Opener {
        match self.requester {
            Requester::Transfer(_) => Opener::Push,
            Requester::ByHand if !self.only_if_due => Opener::Snapshot,
            Requester::ByHand | Requester::Owed { .. } => Opener::Due,
            Requester::Rotation => Opener::Upkeep,
        }
    }

    /// The occasion for a verdict.
    pub(crate) fn occasion(&self) -> Occasion<'_> {
        let transfer = |worth| TransferEnd {
            worth,
            status: self.status.unwrap_or_default(),
            push: self.push.as_ref(),
            // Such a transfer never comes to a run.
            is_no_push: self.requester == Requester::Rotation,
            forbidden: None,
            brought_unfinished: false,
        };
        match self.requester {
            Requester::Transfer(worth) => Occasion::Transfer(transfer(worth)),
            Requester::Rotation => Occasion::Transfer(transfer(Worth::Nothing)),
            Requester::Owed { asked, is_of_this_boot } => Occasion::Owed { asked, is_of_this_boot },
            // A timer that finds a debt asks as that.
            Requester::ByHand => Occasion::ByHand,
        }
    }

    /// Who asks for a snapshot; none if the transfer earns none.
    pub(crate) fn asked(&self) -> Option<Asked> {
        self.occasion().asked()
    }

    /// What is owed if this request is not served now; a mark that stands already may be worth
    /// more.
    pub(crate) fn due_mark(
        &self,
        reason: DueReason,
        now: DateTime<Utc>,
        standing: Option<&DueMark>,
    ) -> Option<DueMark> {
        self.asked().map(|asked| DueMark::on_top_of(standing, asked, reason, now))
    }
}
