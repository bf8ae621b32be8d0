//! Reads the boot clock, which nothing can set: nanoseconds since this boot, and the boot's id.
//!
//! Whether one run's scan began after another run started must not depend on the wall clock, which
//! administrators and time daemons set. The boot clock also runs while the machine sleeps.

use std::sync::OnceLock;

use nix::time::{ClockId, clock_gettime};

use crate::decide::boot_time::BootTime;
use crate::system::small_file;

/// The id of this boot; empty as long as it cannot be read.
fn this_boot() -> String {
    static BOOT: OnceLock<String> = OnceLock::new();
    let read = || small_file::read_text("/proc/sys/kernel/random/boot_id").ok();
    let boot = BOOT.get().cloned().or_else(|| Some(read()?.trim().to_string()));
    boot.map_or_else(String::new, |boot| BOOT.get_or_init(|| boot).clone())
}

/// How far the boot clock of this time namespace is ahead of the kernel's own, in nanoseconds. It
/// is subtracted, so that two containers read equal times at one moment.
pub(crate) fn namespace_offset() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        small_file::read_text("/proc/self/timens_offsets")
            .ok()
            .and_then(|text| parse_offset(&text))
            .unwrap_or(0)
    })
}

fn parse_offset(text: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix("boottime"))?;
    let mut words = line.split_ascii_whitespace().map(|word| word.parse::<i64>().ok());
    words.next()??.checked_mul(1_000_000_000)?.checked_add(words.next()??)
}

impl BootTime {
    /// The present moment.
    pub fn now() -> Self {
        let nanoseconds = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec());
        BootTime { boot: this_boot(), nanoseconds: nanoseconds - namespace_offset() }
    }

    /// Whether the machine has not been rebooted since.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot == BootTime::now().boot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_read_as_the_kernel_writes_it() {
        assert_eq!(
            parse_offset("monotonic           0         0\nboottime       100000         5\n"),
            Some(100_000_000_000_005)
        );
        assert_eq!(parse_offset("boottime -1 0\n"), Some(-1_000_000_000));
        for other in
            ["", "boottime", "boottime 1", "boottime x 0", "boottime 9999999999999999999 0"]
        {
            assert_eq!(parse_offset(other), None, "{other}");
        }
    }
}
