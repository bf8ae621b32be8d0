//! Says for whom and for what a command waits, once it has waited for a second.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A shorter wait is not worth a line.
const SHORT: Duration = Duration::from_secs(1);

/// A wait that has begun.
pub(crate) struct WaitNotice {
    began: Instant,
    is_told: Cell<bool>,
}

impl WaitNotice {
    pub(crate) fn begin() -> Self {
        WaitNotice { began: Instant::now(), is_told: Cell::new(false) }
    }

    /// Logs the message, unless the wait has been short so far or the message was told before.
    pub(crate) fn tell_once(&self, message: impl FnOnce() -> String) {
        if self.began.elapsed() >= SHORT && !self.is_told.replace(true) {
            log::info!("{}", message());
        }
    }
}
