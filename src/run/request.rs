//! What a run is asked to do, and what of it is still owed when it could not be done.

use chrono::{DateTime, Utc};

use crate::decide::grade::{Intent, Occasion};
use crate::decide::overlap::Patience;
use crate::store::boot::BootTime;
use crate::store::ledger::{Entry, Line};
use crate::store::record::Client;
use crate::store::state::{Asked, DueMark, DueReason};

/// Whether the ledger vouches for what is known of the transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// pre-xfer does not run for the module, and nobody knows who else is writing.
    None,
    /// The transfer is missing in the ledger: what else was running is not known.
    Missing,
    /// The ledger knows all of them.
    Ledger,
}

/// What a run is asked to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub occasion: Occasion,
    /// The transfer's exit status, if there was one.
    pub status: Option<i32>,
    /// Who transferred, if anybody.
    pub client: Option<Client>,
    /// Whether the ledger vouches for it.
    pub witness: Witness,
    /// The transfer's entry in the ledger.
    pub line: Option<Line>,
    /// To be told when nothing of the transfer can be lost any more, whoever dies.
    pub taken_over: Option<fn()>,
    /// Do something only if a snapshot is due.
    pub only_if_due: bool,
    /// When the process that asks was started.
    pub started: BootTime,
}

impl Request {
    /// A person or a timer asks, at this moment.
    pub fn manual(only_if_due: bool) -> Self {
        Request {
            occasion: Occasion::Manual,
            status: None,
            client: None,
            witness: Witness::Ledger,
            line: None,
            taken_over: None,
            only_if_due,
            started: BootTime::now(),
        }
    }

    /// A person asks for rotation alone.
    pub(super) fn rotation() -> Self {
        Request { occasion: Occasion::Transfer(Intent::Nothing), ..Request::manual(false) }
    }

    /// A transfer has ended of which there is no ledger.
    pub fn transfer(intent: Intent, status: i32, client: Client) -> Self {
        Request {
            occasion: Occasion::Transfer(intent),
            status: Some(status),
            client: Some(client),
            witness: Witness::None,
            line: None,
            taken_over: None,
            only_if_due: false,
            started: BootTime::now(),
        }
    }

    /// What a run that gave up, or was put off, would have done.
    pub(super) fn owed(mark: &DueMark) -> Self {
        let occasion = match mark.asked {
            Asked::GoodTransfer => Occasion::Transfer(Intent::Complete),
            Asked::ByHand => Occasion::Manual,
            Asked::FailedTransfer => Occasion::Transfer(Intent::Partial),
        };
        Request { occasion, ..Request::manual(false) }
    }

    /// Who transferred, if the ledger or its absence there vouches that others did not.
    pub(super) fn known_client(&self) -> Option<String> {
        let client = self.client.as_ref().filter(|_| self.witness != Witness::None);
        client.map(Client::identity)
    }

    /// The entry of the push that has ended well.
    pub(super) fn good_push(&self) -> Option<&Entry> {
        let is_good = self.occasion == Occasion::Transfer(Intent::Complete);
        self.line.as_ref().filter(|_| is_good)?.entry.as_ref()
    }

    /// The same request, also for the push that was put off when this one was still running: if this one
    /// failed, what both have left is worth a partial snapshot.
    pub(super) fn with_deferred(self, due: Option<&DueMark>) -> Self {
        let has_deferred = due.is_some_and(|due| due.reason == DueReason::Deferred);
        match self.occasion {
            Occasion::Transfer(Intent::Nothing) if has_deferred && self.status.is_some() => {
                Request { occasion: Occasion::Transfer(Intent::Partial), ..self }
            }
            _ => self,
        }
    }

    /// How long it can wait for others that are writing.
    pub(super) fn patience(&self, due: Option<&DueMark>) -> Patience {
        let is_by_hand = self.occasion == Occasion::Manual && !self.only_if_due;
        let deferred = due.filter(|due| due.reason == DueReason::Deferred);
        if is_by_hand { Patience::None } else { Patience::Waits(deferred.map(|due| due.since)) }
    }

    /// Who asks; none if the transfer earns no snapshot.
    pub(super) fn asked(&self) -> Option<Asked> {
        match self.occasion {
            Occasion::Manual => Some(Asked::ByHand),
            Occasion::Transfer(Intent::Complete) => Some(Asked::GoodTransfer),
            Occasion::Transfer(Intent::Partial) => Some(Asked::FailedTransfer),
            Occasion::Transfer(Intent::Nothing) => None,
        }
    }

    /// What is owed if this request is not served now; a mark that stands already may be worth more.
    pub(super) fn due_mark(
        &self,
        reason: DueReason,
        now: DateTime<Utc>,
        standing: Option<&DueMark>,
    ) -> Option<DueMark> {
        let asked = self.asked()?.max(standing.map_or(Asked::FailedTransfer, |mark| mark.asked));
        let since = standing.map_or(now, |mark| mark.since);
        Some(DueMark { since, marked: BootTime::now(), asked, reason })
    }
}
