//! Text and JSON of `diff`.
//!
//! Each difference is printed as it is found, so memory does not grow with their number. The counts
//! of a top directory are printed when the walk has left it.

use std::ops::ControlFlow;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::decide::entry_changes::EntryChange;
use crate::decide::free_space::bytes_text;
use crate::decide::restore_step::EntryState;
use crate::engine::diff::{DiffReport, TreeDifference};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;
use crate::tell::line_output::LineOutput;
use crate::tell::terminal::{line_width, shorten};

/// How many things that could not be compared are told one by one.
const MOST_TOLD: u64 = 20;

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiffFormat {
    Lines,
    Json,
    Counts { json: bool },
}

/// Prints differences and counts them.
pub(crate) struct DiffPrinter {
    format: DiffFormat,
    output: LineOutput,
    has_heading: bool,
    /// Of the top directory that the walk is in.
    top: Option<(Vec<u8>, DiffCounts)>,
    total: DiffCounts,
    unread: u64,
    /// A line that could not be made.
    failure: Option<Error>,
}

/// The counts of one top directory, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct DiffCounts {
    added: u64,
    removed: u64,
    changed: u64,
    bytes_added: u64,
    bytes_removed: u64,
}

/// A line of `--stat --json`.
#[derive(Serialize)]
struct CountsView {
    /// `None` for the sum.
    directory: Option<String>,
    #[serde(flatten)]
    counts: DiffCounts,
}

/// A line of `--json`.
#[derive(Serialize)]
struct DifferenceView {
    path: String,
    difference: &'static str,
    what: Vec<&'static str>,
    old: Option<StateView>,
    new: Option<StateView>,
}

#[derive(Serialize)]
struct StateView {
    kind: &'static str,
    bytes: Option<u64>,
    time: Option<String>,
    user: u32,
    group: u32,
    mode: String,
}

impl StateView {
    fn new(state: &EntryState) -> Self {
        let (seconds, rest) =
            (state.mtime_ns.div_euclid(1_000_000_000), state.mtime_ns.rem_euclid(1_000_000_000));
        let time = i64::try_from(seconds).ok().zip(u32::try_from(rest).ok());
        let time = time.and_then(|(seconds, rest)| DateTime::<Utc>::from_timestamp(seconds, rest));
        StateView {
            kind: state.kind(),
            bytes: state.is_regular().then(|| bytes_of(state)),
            // Two times may differ by less than a second.
            time: time.map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            user: state.uid,
            group: state.gid,
            mode: format!("{:04o}", state.mode & 0o7_777),
        }
    }
}

/// What a regular file takes by its size; 0 for all else.
fn bytes_of(state: &EntryState) -> u64 {
    if state.is_regular() { u64::try_from(state.size_bytes).unwrap_or(0) } else { 0 }
}

impl DiffCounts {
    fn note(&mut self, difference: &TreeDifference) {
        let bytes = |state: &Option<EntryState>| state.as_ref().map_or(0, bytes_of);
        match difference {
            TreeDifference::Added(new) => {
                self.added += 1;
                self.bytes_added += bytes(new);
            }
            TreeDifference::Removed(old) => {
                self.removed += 1;
                self.bytes_removed += bytes(old);
            }
            TreeDifference::Changed { old, new, what } => {
                self.changed += 1;
                let is_other =
                    |it: &EntryChange| matches!(it, EntryChange::Kind | EntryChange::Content);
                if what.iter().any(is_other) {
                    self.bytes_added += bytes_of(new);
                    self.bytes_removed += bytes_of(old);
                }
            }
        }
    }

    fn to_text(self, directory: &str) -> String {
        let DiffCounts { added, removed, changed, bytes_added, bytes_removed } = self;
        counts_line(
            [&added.to_string(), &removed.to_string(), &changed.to_string()],
            [&bytes_text(bytes_added), &bytes_text(bytes_removed)],
            directory,
        )
    }
}

/// The directory comes last, so its width does not matter.
fn counts_line(counts: [&str; 3], bytes: [&str; 2], directory: &str) -> String {
    let [added, removed, changed] = counts;
    let [new, old] = bytes;
    format!("{added:>8} {removed:>8} {changed:>8} {new:>13} {old:>13}  {directory}")
}

impl DiffPrinter {
    pub(crate) fn new(format: DiffFormat) -> Self {
        DiffPrinter {
            format,
            output: LineOutput::new(),
            has_heading: false,
            top: None,
            total: DiffCounts::default(),
            unread: 0,
            failure: None,
        }
    }

    /// Prints what is left, and returns how much differs, as text.
    ///
    /// # Errors
    /// If standard output cannot be written to.
    pub(crate) fn finish(mut self) -> Result<String> {
        let left = self.unread.saturating_sub(MOST_TOLD);
        if left > 0 {
            log::warn!("{left} more could not be compared");
        }
        if let DiffFormat::Counts { json } = self.format {
            let last = self.top.take();
            // Further lines do no harm where one could not be printed.
            let _ = last.map(|(top, counts)| self.print_counts(json, Some(&top), counts));
            let _ = self.print_counts(json, None, self.total);
        }
        if let Some(error) = self.failure {
            return Err(error);
        }
        self.output.finish()?;
        let DiffCounts { added, removed, changed, .. } = self.total;
        Ok(format!("{added} added, {removed} removed, {changed} changed"))
    }

    fn print_json(&mut self, view: &impl Serialize) -> ControlFlow<()> {
        match serde_json::to_string(view) {
            Ok(line) => self.output.line(&line),
            Err(_) => {
                self.failure = Some(Error::Bug("a difference could not be written as JSON"));
                ControlFlow::Break(())
            }
        }
    }

    fn print_counts(
        &mut self,
        json: bool,
        top: Option<&[u8]>,
        counts: DiffCounts,
    ) -> ControlFlow<()> {
        let directory = top.map(escape);
        if json {
            return self.print_json(&CountsView { directory, counts });
        }
        if !std::mem::replace(&mut self.has_heading, true) {
            let heading = ["ADDED", "REMOVED", "CHANGED"];
            let bytes = ["BYTES ADDED", "BYTES REMOVED"];
            self.output.line(&counts_line(heading, bytes, "DIRECTORY"))?;
        }
        self.output.line(&counts.to_text(directory.as_deref().unwrap_or("total")))
    }

    fn count(
        &mut self,
        json: bool,
        path: &[u8],
        is_directory: bool,
        difference: &TreeDifference,
    ) -> ControlFlow<()> {
        let top = match path.iter().position(|byte| *byte == b'/') {
            Some(slash) => &path[..slash],
            None if is_directory && !path.is_empty() => path,
            // The entries of the tree's root itself.
            None => b".",
        };
        if self.top.as_ref().is_none_or(|(known, _)| known != top)
            && let Some((last, counts)) = self.top.replace((top.to_vec(), DiffCounts::default()))
        {
            self.print_counts(json, Some(&last), counts)?;
        }
        if let Some((_, counts)) = &mut self.top {
            counts.note(difference);
        }
        ControlFlow::Continue(())
    }
}

impl DiffReport for DiffPrinter {
    fn wants_states(&self) -> bool {
        self.format != DiffFormat::Lines
    }

    fn differs(
        &mut self,
        path: &[u8],
        is_directory: bool,
        difference: &TreeDifference,
    ) -> ControlFlow<()> {
        self.total.note(difference);
        let (word, what, old, new) = match difference {
            TreeDifference::Added(new) => ("added", &[][..], &None, new),
            TreeDifference::Removed(old) => ("removed", &[][..], old, &None),
            TreeDifference::Changed { old, new, what } => {
                ("changed", what.as_slice(), &Some(*old), &Some(*new))
            }
        };
        let what: Vec<&str> = what.iter().map(|change| change.word()).collect();
        let shown = if path.is_empty() { ".".to_string() } else { escape(path) };
        match self.format {
            DiffFormat::Counts { json } => self.count(json, path, is_directory, difference),
            DiffFormat::Lines => {
                let is_directory = match difference {
                    TreeDifference::Changed { new, .. } => new.is_directory(),
                    _ => is_directory,
                };
                let slash = if is_directory { "/" } else { "" };
                let start = format!("{word:<7}  {:<17}  ", what.join(","));
                let path = shown + slash;
                let path = match line_width() {
                    Some(width) => shorten(&path, width.saturating_sub(start.len()).max(20)),
                    None => path,
                };
                self.output.line(&(start + &path))
            }
            DiffFormat::Json => {
                let state = |state: &Option<EntryState>| state.as_ref().map(StateView::new);
                let (old, new) = (state(old), state(new));
                self.print_json(&DifferenceView { path: shown, difference: word, what, old, new })
            }
        }
    }

    fn unread(&mut self, error: Error) {
        self.unread += 1;
        if self.unread <= MOST_TOLD {
            log::warn!("not compared: {error}");
        }
    }
}
