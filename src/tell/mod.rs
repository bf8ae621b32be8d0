//! Errors, log lines, exit statuses, tables and progress.
//!
//! Nothing here decides or changes anything. Every value that a client can influence passes through
//! [`escape`] on its way out.

pub(crate) mod duration;
pub(crate) mod error;
pub(crate) mod error_hints;
pub(crate) mod escape;
pub(crate) mod exit;
pub(crate) mod line_output;
pub(crate) mod log;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod terminal;
pub(crate) mod usage;
pub(crate) mod wait_notice;

/// The name of the program: in `rsyncd.conf`, in paths of this machine and in messages.
pub(crate) const PROGRAM: &str = "rsyncd-snapshot";

/// A number with its noun: `1 snapshot`, `2 snapshots`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
