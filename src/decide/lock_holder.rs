//! What the lock file of a root says about the run that holds the lock: one line of text.
//!
//! The line is `process PID for MODULE (OCCASION, PHASE) since TIME`. An earlier version writes no
//! phase, and reads a line with one: it looks only at the number and at the time.

use std::fmt;

use chrono::{DateTime, Utc};

/// The run that holds the lock of a root, as it describes itself in the lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// The number of its process, in its own PID namespace.
    pub pid: u32,
    /// The module, as messages name it.
    pub module: String,
    /// What the run was started by.
    pub occasion: String,
    /// What it does now; none of an earlier version.
    pub phase: Option<String>,
    /// When it asked for the lock.
    pub since: DateTime<Utc>,
}

impl LockHolder {
    /// Reads the line; none if it has another form.
    pub fn parse(line: &str) -> Option<Self> {
        let (run, since) = line.trim_end().strip_prefix("process ")?.rsplit_once(" since ")?;
        let since = DateTime::parse_from_rfc3339(since).ok()?.to_utc();
        let (pid, run) = run.split_once(" for ")?;
        let (module, occasion) = run.strip_suffix(')')?.rsplit_once(" (")?;
        let (occasion, phase) = match occasion.rsplit_once(", ") {
            Some((occasion, phase)) => (occasion, Some(phase.to_string())),
            None => (occasion, None),
        };
        let (module, occasion) = (module.to_string(), occasion.to_string());
        Some(LockHolder { pid: pid.parse().ok()?, module, occasion, phase, since })
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LockHolder { pid, module, occasion, phase, since } = self;
        write!(f, "process {pid} for {module} ({occasion}")?;
        if let Some(phase) = phase {
            write!(f, ", {phase}")?;
        }
        write!(f, ") since {}", since.format("%FT%TZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_as_it_was_written() {
        for (module, occasion, phase) in [
            ("laptop", "run by hand", None),
            ("laptop", "run by hand", Some("comparing")),
            ("web (/srv/web for all since 2020)", "after a transfer from ::1", Some("rotating")),
        ] {
            let holder = LockHolder {
                pid: 4_711,
                module: module.to_string(),
                occasion: occasion.to_string(),
                phase: phase.map(str::to_string),
                since: DateTime::from_timestamp(1_795_000_000, 0).expect("a time"),
            };
            let line = holder.to_string() + "\n";
            assert_eq!(LockHolder::parse(&line), Some(holder), "{line}");
        }
    }

    #[test]
    fn another_text_names_no_holder() {
        for line in [
            "",
            "an unknown process",
            "process x for data (run by hand) since 2026-11-22T19:08:31Z",
            "process 1 for data (run by hand) since yesterday",
            "process 1 for data since 2026-11-22T19:08:31Z",
            "process 1 since 2026-11-22T19:08:31Z",
        ] {
            assert_eq!(LockHolder::parse(line), None, "{line}");
        }
    }
}
