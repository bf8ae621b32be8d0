//! What a run did.

use crate::decide::name::PARTIAL;
use crate::module::target::Target;
use crate::tell::exit::Exit;

/// How a run ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A new snapshot is visible.
    Published,
    /// Nothing changed since the newest snapshot; it is verified until now.
    Unchanged,
    /// Another run, whose scan began after this one was asked for, has done the work.
    Covered,
    /// The module is torn and has not changed since: nothing to publish.
    Torn,
    /// The transfer failed and the policy wants no partial snapshot.
    FailedTransfer,
    /// Sooner than `min_interval`: the root is marked due.
    TooSoon,
    /// Another push is still running: the root is marked due, and the last one takes the snapshot.
    Deferred,
    /// Only a due snapshot was asked for, and none is.
    NotDue,
}

impl Ending {
    /// The word for it in JSON.
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
    /// Problems that did not stop it; each is in the log.
    pub warnings: Vec<String>,
    /// What its snapshot lacks; in the log, and told by `check` from the snapshot's record.
    pub losses: Vec<String>,
    /// Snapshots whose new files are to be hashed once the lock is released.
    pub(crate) unhashed: Vec<String>,
    /// Whether the policy could not be used.
    pub policy_trouble: bool,
}

impl Report {
    pub(crate) fn new(target: &Target, ending: Ending) -> Self {
        let policy_trouble = !target.trouble.is_empty();
        let (warnings, losses, unhashed) = (Vec::new(), Vec::new(), Vec::new());
        Report { ending, snapshot: None, warnings, losses, unhashed, policy_trouble }
    }

    /// Whether the module's present state is safe: that, and nothing else, makes up for an earlier
    /// failure.
    pub(crate) fn is_success(&self) -> bool {
        matches!(self.ending, Ending::Published | Ending::Unchanged)
    }

    /// Whether a transfer failed and nothing was made of it.
    pub(crate) fn is_failed_transfer(&self) -> bool {
        matches!(self.ending, Ending::FailedTransfer | Ending::Torn)
    }

    /// Whether what came out, or stands for it, is a partial snapshot.
    pub fn is_partial(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|name| name.ends_with(PARTIAL))
    }

    /// Logs a problem that does not stop the run, and remembers it for the exit status.
    pub(crate) fn warn(&mut self, label: &str, message: String) {
        log::warn!("{label}: {message}");
        self.warnings.push(message);
    }

    /// Logs what the snapshot lacks. It is not remembered beside the record.
    pub(crate) fn warn_of_loss(&mut self, label: &str, message: String) {
        log::warn!("{label}: {message}");
        self.losses.push(message);
    }

    /// All that was warned of.
    pub fn all_warnings(&self) -> Vec<String> {
        self.warnings.iter().chain(&self.losses).cloned().collect()
    }

    /// The exit status that tells it.
    pub fn exit(&self) -> Exit {
        match (self.policy_trouble, self.warnings.is_empty() && self.losses.is_empty()) {
            (true, _) => Exit::Usage,
            (false, false) => Exit::Warnings,
            (false, true) => Exit::Done,
        }
    }
}
