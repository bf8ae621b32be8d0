//! What `check` says of one thing, and how bad it is.

use serde::Serialize;

/// How bad something is; worse compares greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// A person should look at it some day.
    Warning,
    /// It could not be found out.
    Unknown,
    /// A person should look at it now.
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

/// One thing that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// How bad it is.
    pub level: Severity,
    /// What it is, and what to do about it.
    pub message: String,
}

impl Finding {
    /// A finding.
    pub(crate) fn new(level: Severity, message: impl Into<String>) -> Self {
        Finding { level, message: message.into() }
    }
}
