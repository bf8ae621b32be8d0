//! A moment by a clock that cannot be set: nanoseconds since a boot, and which boot that is.

use serde::{Deserialize, Serialize};

/// Nanoseconds in a second.
const NANOSECONDS: i64 = 1_000_000_000;

/// A moment of one boot of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootTime {
    /// The kernel's random id of the boot.
    pub boot: String,
    /// Nanoseconds since then.
    pub nanoseconds: i64,
}

impl BootTime {
    /// The moment `seconds` after the boot with this id.
    pub fn from_seconds(boot: String, seconds: i64) -> Self {
        BootTime { boot, nanoseconds: seconds.saturating_mul(NANOSECONDS) }
    }

    /// Whole seconds since the boot.
    pub fn seconds(&self) -> i64 {
        self.nanoseconds / NANOSECONDS
    }

    /// Whether this is after `other`: moments of different boots do not compare.
    pub fn is_after(&self, other: &BootTime) -> bool {
        self.boot == other.boot && self.nanoseconds > other.nanoseconds
    }

    /// Whether this is after `earlier`, a moment that has passed. A moment of another boot counts
    /// as earlier.
    pub fn is_later_than(&self, earlier: &BootTime) -> bool {
        self.boot != earlier.boot || self.nanoseconds > earlier.nanoseconds
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
