//! An event: one action of a client with its times.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since the boot: what `/proc/uptime` shows to the notes of the hooks, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    pub(crate) milliseconds: u64,
}

/// `/proc/uptime` is in hundredths of a second, and cut off.
pub(crate) const TICK_MILLISECONDS: u64 = 10;

impl Moment {
    pub(crate) fn now() -> Moment {
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("a clock");
        Moment { milliseconds: time.tv_sec() as u64 * 1_000 + time.tv_nsec() as u64 / 1_000_000 }
    }

    /// Reads seconds with two decimals.
    pub(crate) fn of_uptime(text: &str) -> Option<Moment> {
        let (seconds, hundredths) = text.split_once('.')?;
        let milliseconds =
            seconds.parse::<u64>().ok()? * 1_000 + hundredths.parse::<u64>().ok()? * 10;
        Some(Moment { milliseconds })
    }

    pub(crate) fn plus(self, milliseconds: u64) -> Moment {
        Moment { milliseconds: self.milliseconds + milliseconds }
    }

    pub(crate) fn minus(self, milliseconds: u64) -> Moment {
        Moment { milliseconds: self.milliseconds.saturating_sub(milliseconds) }
    }
}

/// What a client wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    /// Pushes the whole source, the manifest last.
    Push,
    /// Only removes files, and only files that no manifest lists.
    Deletion,
    Pull,
    Listing,
    DryRun,
}

impl Action {
    pub(crate) fn writes(self) -> bool {
        matches!(self, Action::Push | Action::Deletion)
    }
}

/// How a client's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    Exited(i32),
    Killed,
    /// It did not end, and was killed.
    Hung,
}

/// What a client did.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) client: usize,
    pub(crate) module: usize,
    pub(crate) action: Action,
    pub(crate) options: Vec<&'static str>,
    /// Which of its states the client pushed.
    pub(crate) sequence: u64,
    pub(crate) began: Moment,
    pub(crate) ended: Moment,
    pub(crate) ending: Ending,
    /// The last line of its output.
    pub(crate) complaint: String,
}

impl Event {
    pub(crate) fn succeeded(&self) -> bool {
        self.ending == Ending::Exited(0)
    }
}
