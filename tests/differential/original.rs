//! The real rotate-backups 8.1 from PyPI: its command line, and its decision alone.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::support::original::original;
use crate::support::run::{Run, tool};

const QUESTIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential/original.py");

pub(crate) struct Original {
    environment: PathBuf,
}

impl Original {
    /// The program; `None`, with the reason said, where it cannot be had.
    pub(crate) fn get() -> Option<Original> {
        original().map(|environment| Original { environment })
    }

    fn python(&self) -> Command {
        tool(&self.environment.join("bin/python").to_string_lossy())
    }

    /// Runs `rotate-backups` with `arguments`, in a home of its own.
    pub(crate) fn run<'a>(&self, home: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Run {
        let mut python = self.python();
        python.env("HOME", home).env("TZ", "UTC").arg(self.environment.join("bin/rotate-backups"));
        Run::of(python.args(["--syslog=no"]).args(arguments))
    }
}

/// What of a policy rotate-backups understands.
#[derive(Debug, Clone)]
pub(crate) struct Scheme {
    /// Frequency and count in words.
    pub(crate) keep: Vec<(&'static str, &'static str)>,
    pub(crate) strict: bool,
    pub(crate) prefer_recent: bool,
}

impl Scheme {
    /// It as options of the command line.
    pub(crate) fn options(&self) -> Vec<String> {
        let mut options: Vec<String> =
            self.keep.iter().map(|(frequency, count)| format!("--{frequency}={count}")).collect();
        options.extend((!self.strict).then(|| "--relaxed".to_string()));
        options.extend(self.prefer_recent.then(|| "--prefer-recent".to_string()));
        options
    }

    /// It as a policy of ours in UTC, without anything that rotate-backups does not have.
    pub(crate) fn policy(&self) -> String {
        let counts: Vec<String> = self
            .keep
            .iter()
            .map(|(frequency, count)| format!("{frequency} = {}", toml_count(count)))
            .collect();
        format!(
            "[defaults]\nkeep = {{ {} }}\nstrict = {}\nprefer = \"{}\"\n{BARE}",
            counts.join(", "),
            self.strict,
            if self.prefer_recent { "newest" } else { "oldest" }
        )
    }
}

/// The rest of a policy that decides by its slots alone.
pub(crate) const BARE: &str =
    "min_keep = 1\nmin_age = \"0s\"\nmax_expire = 100000\nkeep_partial = 0\ntime_zone = \"UTC\"\n";

fn toml_count(count: &str) -> String {
    if count.parse::<i64>().is_ok() { count.to_string() } else { format!("\"{count}\"") }
}

/// What rotate-backups keeps of a set of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// As it is.
    pub(crate) kept: BTreeSet<String>,
    /// With weekly slots of ISO years, and otherwise as it is.
    pub(crate) kept_by_iso_weeks: BTreeSet<String>,
}

/// The decision of rotate-backups without its command line: one process answers everything.
pub(crate) struct Decision {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Decision {
    pub(crate) fn of(original: &Original) -> Decision {
        let mut python = original.python();
        python.arg(QUESTIONS).env("TZ", "UTC").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = python.spawn().expect("Python starts");
        let questions = process.stdin.take().expect("its input");
        let answers = BufReader::new(process.stdout.take().expect("its output"));
        Decision { process, questions, answers }
    }

    pub(crate) fn on<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a str>,
        scheme: &Scheme,
    ) -> Answer {
        let keep: serde_json::Map<String, Value> = scheme
            .keep
            .iter()
            .map(|&(frequency, count)| (frequency.to_string(), json!(count)))
            .collect();
        let names: Vec<&str> = names.into_iter().collect();
        let question = json!({
            "names": names,
            "scheme": keep,
            "strict": scheme.strict,
            "prefer_recent": scheme.prefer_recent,
        });
        writeln!(self.questions, "{question}").expect("it listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        let answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{line:?} for {question}: {error}"));
        Answer {
            kept: names_in(&answer["kept"]),
            kept_by_iso_weeks: names_in(&answer["kept_by_iso_weeks"]),
        }
    }
}

impl Drop for Decision {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn names_in(list: &Value) -> BTreeSet<String> {
    let names = list.as_array().expect("a list").iter();
    names.map(|name| name.as_str().expect("a name").to_string()).collect()
}
