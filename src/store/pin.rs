//! Pins: snapshots that rotation must keep. The administrator or the large-change guard sets them.
//!
//! A pin is set under the state's short lock, and a snapshot is retired under that lock after its
//! pins were read ([`retire`](crate::store::retire)). So a snapshot that `pin` found cannot be
//! retired between the check and the pin.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::anomaly::{self, Anomaly};
use crate::tell::escape::{deserialize_line, escape};

/// Why a snapshot stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// When it was pinned.
    pub since: DateTime<Utc>,
    /// Why, escaped; may be empty.
    #[serde(default, deserialize_with = "deserialize_line")]
    pub reason: String,
    /// Whether the large-change guard set it; `release` takes such a pin away.
    #[serde(default, rename = "by_brake", skip_serializing_if = "std::ops::Not::not")]
    pub by_anomaly: bool,
}

impl Pin {
    /// A pin by the administrator, for a reason that may hold any text.
    pub fn new(since: DateTime<Utc>, reason: &str) -> Self {
        Pin { since, reason: escape(reason.as_bytes()), by_anomaly: false }
    }

    /// The pin that the large-change guard sets on the snapshot before a large change.
    pub fn of_anomaly(anomaly: &Anomaly) -> Self {
        Pin { by_anomaly: true, ..Pin::new(anomaly.since, &anomaly.pin_reason()) }
    }

    /// Whether the large-change guard set it. Earlier versions did not mark such a pin. Theirs is
    /// recognised by its reason, which has exactly the form of [`Anomaly::pin_reason`].
    pub fn is_of_anomaly(&self) -> bool {
        self.by_anomaly || anomaly::is_pin_reason(&self.reason)
    }
}

/// The pins of a root, by the names of the snapshots.
pub(crate) type Pins = BTreeMap<String, Pin>;
