//! Time as it cannot be set: nanoseconds since this boot, and which boot that is.
//!
//! Whether one run's scan began after another run started must not depend on the wall clock,
//! which people and daemons set. The boot-time clock also runs while the machine sleeps.

use std::fs;
use std::sync::OnceLock;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment of one boot of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootTime {
    /// The kernel's random id of the boot.
    pub boot: String,
    /// Nanoseconds since then.
    pub nanoseconds: i64,
}

/// The id of this boot, once it could be read; else nothing.
fn this_boot() -> String {
    static BOOT: OnceLock<String> = OnceLock::new();
    let read = || fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let boot = BOOT.get().cloned().or_else(|| Some(read()?.trim().to_string()));
    boot.map_or_else(String::new, |boot| BOOT.get_or_init(|| boot).clone())
}

impl BootTime {
    /// This moment.
    pub fn now() -> Self {
        let nanoseconds = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec());
        BootTime { boot: this_boot(), nanoseconds }
    }

    /// Whether this is after `other`: moments of different boots do not compare.
    pub fn is_after(&self, other: &BootTime) -> bool {
        self.boot == other.boot && self.nanoseconds > other.nanoseconds
    }

    /// Whether this is after `earlier`, which has been; what is of another boot has been before this one.
    pub fn is_later_than(&self, earlier: &BootTime) -> bool {
        self.boot != earlier.boot || self.nanoseconds > earlier.nanoseconds
    }

    /// Whether the machine has not been started again since.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot == BootTime::now().boot
    }

    /// Whether the boot is known at all; without `/proc` any two boots look the same.
    pub fn is_certain(&self) -> bool {
        !self.boot.is_empty()
    }

    /// Milliseconds since `earlier`, a moment of the same boot.
    pub fn milliseconds_since(&self, earlier: &BootTime) -> f64 {
        (self.nanoseconds - earlier.nanoseconds) as f64 / 1_000_000.0
    }
}
