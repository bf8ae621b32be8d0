//! The options with which rsync writes into files that are there. This is the one list of them.

use serde::{Deserialize, Serialize};

/// An option with which a push writes into files that are there, and so into every snapshot that
/// shares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewritingOption {
    /// `--inplace`.
    Inplace,
    /// `--append`.
    Append,
    /// `--append-verify`, which clients send as `--append` twice.
    AppendVerify,
    /// `--write-devices`, which rsyncd takes for `--inplace` as well.
    WriteDevices,
}

impl RewritingOption {
    /// All of them.
    pub const ALL: [RewritingOption; 4] = [
        RewritingOption::Inplace,
        RewritingOption::Append,
        RewritingOption::AppendVerify,
        RewritingOption::WriteDevices,
    ];

    /// The option as it is typed, with its dashes.
    pub fn option(self) -> &'static str {
        match self {
            RewritingOption::Inplace => "--inplace",
            RewritingOption::Append => "--append",
            RewritingOption::AppendVerify => "--append-verify",
            RewritingOption::WriteDevices => "--write-devices",
        }
    }

    /// The long name without dashes, as in a policy and in `refuse options`.
    pub fn name(self) -> &'static str {
        self.option().trim_start_matches('-')
    }
}
