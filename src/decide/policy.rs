//! What the administrator wants for one module, with the built-in defaults.
//!
//! The defaults are the scheme of the Python program. [`policy_file`](crate::config::policy_file)
//! reads the values; nothing here can be invalid. Only the default of `time_zone`, the system's
//! zone, is set there, since it has to be read.

use std::collections::BTreeMap;

use crate::decide::arguments::rewriting_option::RewritingOption;
use crate::decide::client::Client;
use crate::decide::duration_text::DurationText;
use crate::decide::free_space::FreeSpace;
use crate::decide::frequency::{Frequency, SlotCount};
use crate::decide::partial_dirs::PartialDirs;
use crate::decide::verdict_facts::Statuses;
use crate::decide::zone::Zone;

/// Which snapshot stands for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefer {
    /// The first one in it.
    Oldest,
    /// The last one in it.
    Newest,
}

/// The I/O scheduling class of snapshot and removal work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoNice {
    /// The class stays unchanged.
    None,
    /// Yield to everything else.
    Idle,
    /// Best effort at its lowest level.
    BestEffort,
}

/// How the snapshots of a module are to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodChoice {
    /// As those that are there; in a new root as btrfs snapshots if the module is a subvolume, as
    /// CephFS snapshots if it is on CephFS, else of hard links.
    Auto,
    /// Of hard links.
    HardLink,
    /// As read-only snapshots of the module's btrfs subvolume.
    Btrfs,
    /// As snapshots of the module's directory by CephFS.
    CephFs,
}

/// Everything that can be set for a module.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Slots kept per frequency, finest first; never empty.
    pub keep: Vec<(Frequency, SlotCount)>,
    /// Whether a count is also a time window.
    pub strict: bool,
    /// Whether the contents of files that are new in a snapshot are hashed.
    pub content_hashes: bool,
    /// Other users than root may enter the snapshot root, on purpose.
    pub open_root: bool,
    /// Which snapshot stands for a slot.
    pub prefer: Prefer,
    /// Never fewer complete snapshots than this.
    pub min_keep: usize,
    /// Nothing younger is expired.
    pub min_age: DurationText,
    /// At most this many are expired per run.
    pub max_expire: usize,
    /// How many of the newest partial snapshots stay.
    pub keep_partial: usize,
    /// Where days and weeks begin.
    pub time_zone: Zone,
    /// A larger step of the clock since the last run pauses expiry.
    pub clock_jump: DurationText,
    /// Transfer statuses that earn a complete snapshot.
    pub snapshot_on_exit: Vec<i32>,
    /// Transfer statuses that earn a partial one.
    pub partial_on_exit: Vec<i32>,
    /// Where snapshots live, an absolute path; `{module}` stands for the module's name.
    /// `None` is the module directory's parent.
    pub snapshot_root: Option<String>,
    /// How snapshots are made.
    pub method: MethodChoice,
    /// How long to wait for the lock.
    pub lock_wait: DurationText,
    /// Pushes closer together make one snapshot.
    pub min_interval: DurationText,
    /// How long a snapshot waits for pushes that are still running.
    pub max_defer: DurationText,
    /// How long a push waits at the gate for a snapshot that is being taken.
    pub push_wait: DurationText,
    /// Options that rewrite files in place and are let through all the same.
    pub allow_options: Vec<RewritingOption>,
    /// Names of partial directories that a client may give.
    pub partial_dirs: PartialDirs,
    /// How many jobs work at once on this machine; `None` is one for each processor.
    pub max_parallel: Option<usize>,
    /// How often a run compares the whole tree at least, whatever the index says.
    pub full_comparison: DurationText,
    /// How long a retired snapshot can be brought back, and is not recycled. `None` is
    /// [`DEFAULT_GRACE`], which gives way when the disk is full.
    pub grace: Option<DurationText>,
    /// How long a reader keeps a snapshot from expiring.
    pub max_lease: DurationText,
    /// What has to stay free on the file system, if need be at the cost of snapshots.
    pub free_space: Option<FreeSpace>,
    /// A push that changes or removes a larger share of the tree, in percent, pauses expiry.
    pub anomaly_share: u8,
    /// `check` warns when the last good push, or the newest complete snapshot, is older.
    pub max_age: Option<DurationText>,
    /// `check` warns when the last good push of this client is older, by the name that the policy
    /// gives the client.
    pub client_max_age: BTreeMap<String, DurationText>,
    /// The least severe messages that are logged.
    pub log_level: log::LevelFilter,
    /// Scheduling priority, 0 (unchanged) to 19 (lowest).
    pub nice: i32,
    /// I/O scheduling class.
    pub ionice: IoNice,
}

/// The `grace` of a policy that sets none: time for readers without a lease to finish.
pub const DEFAULT_GRACE: DurationText = DurationText::from_seconds(6 * 3_600);

impl Policy {
    /// How long a retired snapshot can be brought back, and is not recycled.
    pub fn grace(&self) -> DurationText {
        self.grace.unwrap_or(DEFAULT_GRACE)
    }

    /// Which exit statuses of transfers allow a complete or a partial snapshot.
    pub fn statuses(&self) -> Statuses<'_> {
        Statuses { complete: &self.snapshot_on_exit, partial: &self.partial_on_exit }
    }

    /// Whether the pushes of this client have a `max_age` of their own.
    pub fn watches(&self, client: &Client) -> bool {
        self.client_max_age.keys().any(|name| client.is_called(name))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            keep: vec![
                (Frequency::Hourly, SlotCount::Newest(24)),
                (Frequency::Daily, SlotCount::Newest(7)),
                (Frequency::Weekly, SlotCount::Newest(4)),
                (Frequency::Monthly, SlotCount::Always),
            ],
            strict: true,
            content_hashes: false,
            open_root: false,
            prefer: Prefer::Oldest,
            min_keep: 3,
            min_age: DurationText::from_seconds(3_600),
            max_expire: 20,
            keep_partial: 3,
            time_zone: Zone::utc(),
            clock_jump: DurationText::from_seconds(31 * 86_400),
            snapshot_on_exit: vec![0, 24],
            partial_on_exit: Vec::new(),
            snapshot_root: None,
            method: MethodChoice::Auto,
            lock_wait: DurationText::from_seconds(600),
            min_interval: DurationText::from_seconds(0),
            max_defer: DurationText::from_seconds(3_600),
            push_wait: DurationText::from_seconds(300),
            allow_options: Vec::new(),
            partial_dirs: PartialDirs::default(),
            max_parallel: None,
            full_comparison: DurationText::from_seconds(7 * 86_400),
            grace: None,
            max_lease: DurationText::from_seconds(86_400),
            free_space: None,
            anomaly_share: 50,
            max_age: None,
            client_max_age: BTreeMap::new(),
            log_level: log::LevelFilter::Info,
            nice: 0,
            ionice: IoNice::None,
        }
    }
}
