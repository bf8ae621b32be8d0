//! A finding of `check` and its severity, which decides the exit status.

use std::ops::Not;

use serde::{Deserialize, Serialize};

use crate::command::finding_id::FindingId;

/// How serious a finding is; a worse one compares greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Nothing to do.
    Ok,
    /// The administrator should look at it within days.
    Warning,
    /// The state could not be read.
    Unknown,
    /// The administrator should look at it now.
    Critical,
}

impl Severity {
    pub(crate) fn code(self) -> u8 {
        match self {
            Severity::Ok => 0,
            Severity::Warning => 1,
            Severity::Critical => 2,
            Severity::Unknown => 3,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Severity::Ok => "OK",
            Severity::Warning => "WARNING",
            Severity::Critical => "CRITICAL",
            Severity::Unknown => "UNKNOWN",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub id: FindingId,
    pub level: Severity,
    /// What was found, and what to do about it.
    pub message: String,
    /// Whether it comes of another finding, and ends with it.
    #[serde(default, rename = "consequence", skip_serializing_if = "Not::not")]
    pub is_consequence: bool,
    /// Whether only `--verbose` and JSON show it.
    #[serde(skip)]
    pub is_detail: bool,
}

impl Finding {
    pub(crate) fn new(id: FindingId, level: Severity, message: impl Into<String>) -> Self {
        Finding { id, level, message: message.into(), is_consequence: false, is_detail: false }
    }

    /// Whether it is something to solve that no other finding stands for.
    pub(crate) fn is_problem(&self) -> bool {
        self.level != Severity::Ok && !self.is_consequence
    }

    /// What could not be examined, and why. Nothing needs to be wrong, so only `--verbose` and JSON
    /// show it.
    pub(crate) fn cannot_tell(id: FindingId, why: impl std::fmt::Display) -> Self {
        let message = format!("cannot tell: {why}");
        Finding { is_detail: true, ..Finding::new(id, Severity::Ok, message) }
    }
}

/// Marks what another finding about the same module is the cause of: snapshots get old if no push
/// comes, and a push that was not made up for leaves the module torn.
pub(crate) fn mark_consequences(findings: &mut [Finding]) {
    for (cause, effect) in
        [(FindingId::PushAge, FindingId::Age), (FindingId::Marks, FindingId::FailedPush)]
    {
        if findings.iter().any(|one| one.id == cause && one.is_problem()) {
            let effects = findings.iter_mut().filter(|one| one.id == effect);
            effects.for_each(|one| one.is_consequence = one.level != Severity::Ok);
        }
    }
}
