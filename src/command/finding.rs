//! What `check` says of one thing, and how bad it is.

use serde::Serialize;

/// How bad something is; worse compares greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// A person should look at it some day.
    Warning,
    /// It could not be found out.
    Unknown,
    /// A person should look at it now.
    Critical,
}

impl Level {
    pub(crate) fn code(self) -> u8 {
        match self {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Critical => 2,
            Level::Unknown => 3,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
            Level::Unknown => "UNKNOWN",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is, and what to do about it.
    pub message: String,
}

impl Finding {
    /// A finding.
    pub(crate) fn new(level: Level, message: impl Into<String>) -> Self {
        Finding { level, message: message.into() }
    }
}
