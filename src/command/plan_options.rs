//! The options of `plan`.

use std::ffi::OsString;
use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::decide::duration_text::DurationText;
use crate::decide::policy::Policy;
use crate::decide::time_text::TimeText;
use crate::system::clock::Clock;

/// The length of a year in a replay, in seconds.
pub(crate) const YEAR_SECONDS: u64 = 365 * 86_400;

/// What `plan` is asked for.
#[derive(Debug, Default, clap::Args)]
#[group(skip)]
#[command(
    group = clap::ArgGroup::new("subject")
        .args(["module", "all", "replay"])
        .multiple(true)
        .required(true)
)]
pub(crate) struct PlanOptions {
    /// A module's name in rsyncd.conf, or the absolute path of its directory
    #[arg(conflicts_with = "all")]
    pub module: Option<OsString>,
    /// Every module that a run has worked on before
    #[arg(long)]
    pub all: bool,
    /// Another policy file, to see side by side with the present one
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Simulate regular pushes for this long, and show which snapshots the policy of MODULE
    /// (without MODULE: the `defaults` of the policy) then keeps
    #[arg(long, value_name = "DURATION", value_parser = long_duration, conflicts_with = "sizes")]
    pub replay: Option<DurationText>,
    /// How often these pushes come [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = long_duration, requires = "replay")]
    pub every: Option<DurationText>,
    /// Decide as if it were this time, such as 2026-12-24, '2026-12-24 18:00' or
    /// 2026-12-24T18:00:00Z; snapshots with a later date are left out
    #[arg(long, value_name = "TIME", value_parser = TimeText::parse)]
    pub at: Option<TimeText>,
    /// Count the bytes that would be freed, even if that takes long
    #[arg(long)]
    pub sizes: bool,
}

/// A duration as in a policy, or of years.
pub(crate) fn long_duration(text: &str) -> std::result::Result<DurationText, String> {
    let years = text.strip_suffix('y').and_then(|years| {
        // The number is read as a duration of so many seconds, so both accept the same numbers.
        let count = DurationText::parse(&format!("{years}s"))?.seconds();
        DurationText::parse(&format!("{}s", count.checked_mul(YEAR_SECONDS)?))
    });
    DurationText::parse(text).or(years).ok_or_else(|| {
        "a number and a unit are needed: s, m, h, d, w or y, at most 1000y".to_string()
    })
}

/// For `--at`, longer than any step of a clock: the administrator chose that time, so it is no
/// clock jump.
pub(crate) const ANY_JUMP: DurationText = DurationText::from_seconds(1_000 * 365 * 86_400);

/// The time of `--at`, or now.
pub(crate) fn time_of(options: &PlanOptions, policy: &Policy) -> DateTime<Utc> {
    options.at.map_or_else(|| Clock::System.now(), |at| at.in_zone(&policy.time_zone))
}
