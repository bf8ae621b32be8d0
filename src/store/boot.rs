//! Time as it cannot be set: nanoseconds since this boot, and which boot that is.
//!
//! Whether one run's scan began after another run started must not depend on the wall clock,
//! which people and daemons set. The boot-time clock also runs while the machine sleeps.

use std::fs;
use std::sync::OnceLock;

use nix::time::{ClockId, clock_gettime};

pub use crate::decide::boot_time::BootTime;

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

    /// Whether the machine has not been started again since.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot == BootTime::now().boot
    }
}
