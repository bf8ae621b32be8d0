//! What is told: errors, log lines, exit statuses and tables.
//!
//! Nothing here decides or changes anything. Every value that a client can
//! influence passes through [`escape`] on its way out.

pub mod duration;
pub mod error;
pub mod escape;
pub mod exit;
pub mod log;
pub mod output;
pub mod progress;
pub mod table;
pub mod usage;

/// A number with its noun: `1 snapshot`, `2 snapshots`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
