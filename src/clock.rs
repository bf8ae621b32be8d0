//! The wall clock, passed in: a simulated year need not be waited for.

use std::cell::Cell;
use std::thread::sleep;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Where a run gets the time from.
pub enum Clock {
    /// The system's clock.
    System,
    /// A clock that stands still until somebody waits for it.
    Standing(Cell<DateTime<Utc>>),
}

impl Clock {
    /// A clock that stands at `time`.
    pub fn standing(time: DateTime<Utc>) -> Self {
        Clock::Standing(Cell::new(time))
    }

    /// The time, to the second.
    pub fn now(&self) -> DateTime<Utc> {
        match self {
            Clock::System => Utc::now().trunc_subsecs(0),
            Clock::Standing(time) => time.get(),
        }
    }

    /// The time as exactly as it is known, to compare with the kernel's change times.
    pub fn exact_now(&self) -> DateTime<Utc> {
        match self {
            Clock::System => Utc::now(),
            Clock::Standing(time) => time.get(),
        }
    }

    /// Returns when the next second has begun.
    pub fn wait_for_next_second(&self) {
        match self {
            Clock::System => {
                let into_second = u64::from(Utc::now().timestamp_subsec_millis().min(999));
                sleep(Duration::from_millis(1_000 - into_second));
            }
            Clock::Standing(time) => time.set(time.get() + TimeDelta::seconds(1)),
        }
    }
}
