//! The wall clock and the boot clock as a value that is passed in, so that tests can simulate a
//! year.

use std::cell::{Cell, RefCell};
use std::thread::sleep;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use crate::decide::boot_time::BootTime;
use crate::decide::clock_reading::ClockReading;

/// Where a run gets the time from.
pub enum Clock {
    /// The system's clock.
    System,
    /// Clocks that stand still until the program waits for the next second; for tests.
    Standing {
        /// The wall clock.
        time: Cell<DateTime<Utc>>,
        /// The boot clock.
        boot: RefCell<BootTime>,
    },
}

impl Clock {
    /// A clock that stands at `time`, in a boot that began with the year 1970 and in which the wall
    /// clock was never set.
    pub fn standing(time: DateTime<Utc>) -> Self {
        let nanoseconds = time.timestamp_nanos_opt().unwrap_or(i64::MAX);
        Clock::standing_at(time, BootTime { boot: "standing".to_string(), nanoseconds })
    }

    /// A wall clock that stands at `time` and a boot clock that stands at `boot`.
    pub fn standing_at(time: DateTime<Utc>, boot: BootTime) -> Self {
        Clock::Standing { time: Cell::new(time), boot: RefCell::new(boot) }
    }

    /// What the wall clock and the boot clock show.
    pub fn reading(&self) -> ClockReading {
        let boot = match self {
            Clock::System => BootTime::now(),
            Clock::Standing { boot, .. } => boot.borrow().clone(),
        };
        ClockReading {
            time: self.now(),
            uptime_seconds: boot.nanoseconds / 1_000_000_000,
            boot: boot.boot,
        }
    }

    /// The time, to the second.
    pub fn now(&self) -> DateTime<Utc> {
        match self {
            Clock::System => Utc::now().trunc_subsecs(0),
            Clock::Standing { time, .. } => time.get(),
        }
    }

    /// The time to the nanosecond, to compare with the kernel's change times.
    pub fn exact_now(&self) -> DateTime<Utc> {
        match self {
            Clock::System => Utc::now(),
            Clock::Standing { time, .. } => time.get(),
        }
    }

    /// Returns when the next second has begun.
    pub fn wait_for_next_second(&self) {
        match self {
            Clock::System => {
                let into_second = u64::from(Utc::now().timestamp_subsec_millis().min(999));
                sleep(Duration::from_millis(1_000 - into_second));
            }
            Clock::Standing { time, boot } => {
                time.set(time.get() + TimeDelta::seconds(1));
                let nanoseconds = &mut boot.borrow_mut().nanoseconds;
                *nanoseconds = nanoseconds.saturating_add(1_000_000_000);
            }
        }
    }
}
