//! What a run is asked to do, and what of it is still owed when it could not be done.

use chrono::{DateTime, Utc};

use crate::decide::grade::{Intent, Occasion};
use crate::store::boot::BootTime;
use crate::store::record::Client;
use crate::store::state::{Asked, DueMark, DueReason};

/// What a run is asked to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub occasion: Occasion,
    /// The transfer's exit status, if there was one.
    pub status: Option<i32>,
    /// Who transferred, if anybody.
    pub client: Option<Client>,
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
            only_if_due,
            rotates: true,
            started: BootTime::now(),
        }
    }

    /// A person asks for rotation alone.
    pub(super) fn rotation() -> Self {
        Request { occasion: Occasion::Transfer(Intent::Nothing), ..Request::manual(false) }
    }

    /// A transfer has ended.
    pub fn transfer(intent: Intent, status: i32, client: Client) -> Self {
        Request {
            occasion: Occasion::Transfer(intent),
            status: Some(status),
            client: Some(client),
            only_if_due: false,
            rotates: true,
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
