//! What a run did, for the exit status, JSON and what this machine remembers.

use crate::decide::name::PARTIAL;
use crate::module::target::Target;
use crate::tell::exit::Exit;

/// How a run ended, if it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A new snapshot is visible.
    Published,
    /// Nothing changed since the newest snapshot; it is verified until now.
    Unchanged,
    /// Another run, whose scan began after this one was asked for, has done the work.
    Covered,
    /// The module is torn and has not changed since: no snapshot.
    Torn,
    /// The transfer failed and the policy wants no partial snapshot.
    FailedTransfer,
    /// The last snapshot is younger than `min_interval`: the root is marked due.
    TooSoon,
    /// Another push is still running: the root is marked due, and the hook of the last push takes
    /// the snapshot.
    Deferred,
    /// Only a due snapshot was asked for, and none is.
    NotDue,
}

impl Ending {
    /// The word for this ending in JSON output.
    pub fn word(self) -> &'static str {
        match self {
            Ending::Published => "published",
            Ending::Unchanged => "unchanged",
            Ending::Covered => "covered",
            Ending::Torn => "torn",
            Ending::FailedTransfer => "failed-transfer",
            Ending::TooSoon => "too-soon",
            Ending::Deferred => "deferred",
            Ending::NotDue => "not-due",
        }
    }
}

/// What a run did.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// The snapshot that was published, or that stands unchanged.
    pub snapshot: Option<String>,
    /// Problems that did not stop the run; each is in the log.
    pub warnings: Vec<String>,
    /// Warnings whose cause `check` finds by itself for as long as it lasts: what the snapshot
    /// lacks of the module, and a pause of expiry. They are in the log, and this machine does not
    /// remember them: a warning that is remembered would outlive its cause.
    pub standing: Vec<String>,
    /// Snapshots whose new files are to be hashed once the lock is released.
    pub(crate) unhashed: Vec<String>,
    /// Whether the policy could not be used.
    pub policy_trouble: bool,
    /// How messages name the module.
    pub(crate) label: String,
}

impl Report {
    pub(crate) fn new(target: &Target, ending: Ending) -> Self {
        let policy_trouble = !target.trouble.is_empty();
        Report {
            ending,
            snapshot: None,
            warnings: Vec::new(),
            standing: Vec::new(),
            unhashed: Vec::new(),
            policy_trouble,
            label: target.label(),
        }
    }

    /// Whether a snapshot holds the module's present state. Only that makes up for an earlier
    /// failure.
    pub(crate) fn is_success(&self) -> bool {
        matches!(self.ending, Ending::Published | Ending::Unchanged)
    }

    /// Whether a transfer failed and got no snapshot.
    pub(crate) fn is_failed_transfer(&self) -> bool {
        matches!(self.ending, Ending::FailedTransfer | Ending::Torn)
    }

    /// Whether the snapshot that was published, or that stands unchanged, is partial.
    pub fn is_partial(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|name| name.ends_with(PARTIAL))
    }

    /// Logs a problem that does not stop the run.
    pub(crate) fn warn(&mut self, message: String) {
        log::warn!("{}: {message}", self.label);
        self.warnings.push(message);
    }

    /// Logs a warning whose cause `check` finds by itself for as long as it lasts.
    pub(crate) fn warn_of_standing(&mut self, message: String) {
        log::warn!("{}: {message}", self.label);
        self.standing.push(message);
    }

    /// All warnings, those that stand included.
    pub fn all_warnings(&self) -> Vec<String> {
        self.warnings.iter().chain(&self.standing).cloned().collect()
    }

    pub fn exit(&self) -> Exit {
        match (self.policy_trouble, self.warnings.is_empty() && self.standing.is_empty()) {
            (true, _) => Exit::Usage,
            (false, false) => Exit::Warnings,
            (false, true) => Exit::Done,
        }
    }
}
