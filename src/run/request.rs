//! What a run is asked to do, and what of it is still owed when it could not be done.

use chrono::{DateTime, Utc};

use crate::decide::grade::{Intent, Occasion};
use crate::decide::overlap::Patience;
use crate::store::boot::BootTime;
use crate::store::ledger::{Entry, Line};
use crate::store::record::Client;
use crate::store::state::{Asked, DueMark, DueReason};
use crate::store::torn::Tear;

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
    /// It serves a mark that another run has left.
    pub is_owed: bool,
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
            occasion: Occasion::Manual,
            status: None,
            client: None,
            witness: Witness::Ledger,
            line: None,
            taken_over: None,
            is_owed: false,
            only_if_due,
            rotates: true,
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
            is_owed: false,
            only_if_due: false,
            rotates: true,
            started: BootTime::now(),
        }
    }

    /// What a run that gave up, or was put off, would have done. Of a push that ended before the machine
    /// was started anew, part may never have reached the disk.
    pub(super) fn owed(mark: &DueMark) -> Self {
        let occasion = match mark.asked {
            Asked::GoodTransfer if mark.marked.is_of_this_boot() => Occasion::Transfer(Intent::Complete),
            Asked::ByHand => Occasion::Manual,
            Asked::GoodTransfer | Asked::FailedTransfer => Occasion::Transfer(Intent::Partial),
        };
        Request { occasion, is_owed: true, ..Request::manual(false) }
    }

    /// What a failed transfer has torn, if the ledger knows it. Without an entry it may have been a listing of
    /// somebody who never pushes, and could not mend anything.
    pub(super) fn tear(&self) -> Option<Tear> {
        let entry = self.line.as_ref()?.entry.as_ref()?;
        Some(Tear::of(entry, self.started.clone()))
    }

    /// The entry of the push that has ended well.
    pub(super) fn good_push(&self) -> Option<&Entry> {
        let is_good = self.occasion == Occasion::Transfer(Intent::Complete);
        self.line.as_ref().filter(|_| is_good)?.entry.as_ref()
    }

    /// The same request, also for pushes that were put off when this one was still running, if there are any: if this one
    /// failed, what all of them have left is worth a partial snapshot.
    pub(super) fn with_deferred(self, has_deferred: bool) -> Self {
        match self.occasion {
            Occasion::Transfer(Intent::Nothing) if has_deferred && self.status.is_some() => {
                Request { occasion: Occasion::Transfer(Intent::Partial), ..self }
            }
            _ => self,
        }
    }

    /// How long it can wait for others that are writing, where snapshots are deferred `since` then.
    pub(super) fn patience(&self, since: Option<DateTime<Utc>>) -> Patience {
        let is_by_hand = self.occasion == Occasion::Manual && !self.only_if_due;
        if is_by_hand { Patience::None } else { Patience::Waits(since) }
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
