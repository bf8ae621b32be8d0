//! The wait at the gate of a push, or of a restore in place, which writes as a push does.
//!
//! The gate is checked under the ledger's lock. The caller gets the ledger while it is still
//! locked, and enters what it is about to do. So no run closes the gate in between.

use std::time::{Duration, Instant};

use crate::run::session::Session;
use crate::store::gate::Gate;
use crate::store::ledger::Ledger;
use crate::tell::error::Result;

/// The pause between two looks at the gate doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(200);

/// How a wait at the gate ended.
pub(crate) enum GateAnswer {
    /// The gate is open, and stays so as long as this ledger is locked.
    Open(Ledger),
    /// It was closed until the deadline.
    StaysClosed,
    /// The client that waits has gone.
    Gone,
}

/// A wait at the gate, of a push or of a restore in place.
#[derive(Clone, Copy)]
pub(crate) struct GateWait<'a> {
    /// How long to wait; asked for only if the gate is closed.
    pub deadline: &'a dyn Fn() -> Instant,
    /// Waits for this long; returns whether the client that waits has gone.
    pub is_gone_after: &'a dyn Fn(Duration) -> bool,
}

impl GateWait<'_> {
    /// Waits until the gate is open.
    ///
    /// # Errors
    /// If the ledger or the gate cannot be used.
    pub(crate) fn until_open(self, session: Session) -> Result<GateAnswer> {
        let Session { target, root, .. } = session;
        let mut deadline = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let ledger = target.open_ledger(root)?;
            if !Gate::is_closed(root, &ledger)? {
                return Ok(GateAnswer::Open(ledger));
            }
            drop(ledger);
            let deadline = *deadline.get_or_insert_with(self.deadline);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(GateAnswer::StaysClosed);
            }
            if (self.is_gone_after)(pause.min(left)) {
                return Ok(GateAnswer::Gone);
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}
