//! What a decision knows of one snapshot.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::decide::boot_time::BootTime;
use crate::decide::grade::Grade;
use crate::decide::lease::SnapshotReader;
use crate::decide::obstacle::Obstacle;

/// Why a snapshot's date is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undated {
    /// The clock that dated it was wrong, or may be.
    Doubted,
    /// It is dated before any snapshot can have been taken.
    Implausible,
    /// Its date contradicts the order in which snapshots were taken.
    OutOfOrder,
    /// Its date and that of another one of the same boot contradict the boot clock.
    BootClock,
}

impl fmt::Display for Undated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Undated::Doubted => "the clock that dated it was wrong or may have been",
            Undated::Implausible => "the clock had not been set when it was taken",
            Undated::OutOfOrder => "its date contradicts the order in which snapshots were taken",
            Undated::BootClock => "its date contradicts the boot clock",
        };
        write!(f, "undated: {why}; `rotate --confirm` believes its date")
    }
}

/// What rotation needs to know about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its directory's name.
    pub name: String,
    /// When it was taken.
    pub time: DateTime<Utc>,
    /// Until when later runs found the module unchanged; never before `time`.
    pub verified_until: DateTime<Utc>,
    /// Complete or partial.
    pub grade: Grade,
    /// Whether this program made it, rather than adopted it by its name.
    pub recorded: bool,
    /// Why it is pinned, if it is.
    pub pinned: Option<String>,
    /// Its record cannot be read, so it is not known how long it showed the module.
    pub unreadable: bool,
    /// Its sequence number; `None` for adopted snapshots and for those of older versions.
    pub sequence: Option<u64>,
    /// When it was taken by the boot clock.
    pub taken_at: Option<BootTime>,
    /// Why its date is not believed; [`decide`](crate::decide::rotation::decide) notes it.
    pub undated: Option<Undated>,
    /// What keeps it from being retired, whatever is decided.
    pub obstacle: Option<Obstacle>,
    /// Who reads it, under a lease that holds.
    pub reader: Option<SnapshotReader>,
}
