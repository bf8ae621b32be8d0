//! A finished command, with assertions about its status and output.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Where the tools of the tests are looked for, whatever the caller's `PATH`.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A system tool, in a known language and with a known `PATH`.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", PATH).env("LC_ALL", "C");
    command
}

/// Copies a program that is to be run from there. Another process does that: as long as this one,
/// or what another thread has just forked, has the copy open for writing, it is a "text file busy".
#[track_caller]
pub(crate) fn copy_program(from: &Path, to: &Path) {
    Run::of(tool("cp").arg(from).arg(to)).exits(&[0]);
}

pub(crate) struct Run {
    line: String,
    output: Output,
}

impl Run {
    /// Runs `command` to its end.
    pub(crate) fn of(command: &mut Command) -> Run {
        match command.output() {
            Ok(output) => Run { line: format!("{command:?}"), output },
            Err(error) => panic!("{command:?} does not start: {error}"),
        }
    }

    pub(crate) fn from_output(line: &str, output: Output) -> Run {
        Run { line: line.to_string(), output }
    }

    /// Fails the test unless the exit status is one of `codes`.
    #[track_caller]
    pub(crate) fn exits(self, codes: &[i32]) -> Run {
        assert!(
            self.code().is_some_and(|code| codes.contains(&code)),
            "expected exit {codes:?}: {self}"
        );
        assert!(!self.hides_a_warning(), "a warning, and status 0: {self}");
        self
    }

    /// Whether a command of ours has warned and ended with 0: only a hook and `check` may.
    fn hides_a_warning(&self) -> bool {
        let may_warn = ["RSYNC_MODULE_PATH", "\"check\""].iter().any(|w| self.line.contains(w));
        let warnings = ["rsyncd-snapshot: warning: ", "rsyncd-snapshot: error: "];
        let has_warned =
            self.stderr().lines().any(|line| warnings.iter().any(|start| line.starts_with(start)));
        let is_ours = self.line.contains("rsyncd-snapshot\" ");
        self.succeeded() && has_warned && is_ours && !may_warn
    }

    /// Fails the test unless standard error, or output, contains `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Run {
        assert!(
            self.stderr().contains(text) || self.stdout().contains(text),
            "expected {text:?}: {self}"
        );
        self
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.output.status.success()
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    pub(crate) fn signal(&self) -> Option<i32> {
        self.output.status.signal()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Standard output and standard error, as bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.output.stdout.as_slice(), self.output.stderr.as_slice()].concat()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.output.stdout)
            .unwrap_or_else(|error| panic!("standard output is no JSON: {error}: {self}"))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ended with {}\n--- standard error\n{}\n--- standard output\n{}",
            self.line,
            self.output.status,
            self.stderr(),
            self.stdout()
        )
    }
}
