//! The documented JSON of `rotate`, and its text; `plan` has its own
//! ([`plan_view`](crate::command::plan_view)).

use serde::Serialize;

use crate::command::freed_space::freed_line;
use crate::command::list_view::{local_time, rfc3339};
use crate::decide::grade::Grade;
use crate::decide::snapshot_reason::{SnapshotReason, pause_line, split_shared};
use crate::decide::snapshot_verdict::{Decision, SnapshotVerdict};
use crate::engine::usage::Usage;
use crate::module::target::Target;
use crate::tell::escape::{escape, escape_path};
use crate::tell::table::TextTable;
use crate::tell::terminal::line_width;

/// Titles of columns.
pub(crate) const LOCAL_TIME: &str = "LOCAL TIME";
pub(crate) const BECAUSE: &str = "BECAUSE";

/// What `rotate` prints for one module.
#[derive(Debug, Serialize)]
pub(crate) struct DecisionView {
    module: Option<String>,
    snapshot_root: String,
    pause: Option<String>,
    deferred: usize,
    snapshots: Vec<VerdictView>,
    bytes_freed: Option<u64>,
    entries_freed: Option<u64>,
    #[serde(skip)]
    freed: Option<Usage>,
}

#[derive(Debug, Serialize)]
struct VerdictView {
    name: String,
    time: String,
    grade: Grade,
    keep: bool,
    reasons: Vec<String>,
    #[serde(skip)]
    brief_reasons: Vec<String>,
    #[serde(skip)]
    local_time: Option<String>,
}

impl DecisionView {
    /// The decision on the snapshots of `target`, and what a purge has freed.
    pub(crate) fn new(target: &Target, decision: &Decision, freed: Option<Usage>) -> Self {
        let view = |verdict: &SnapshotVerdict| VerdictView {
            name: verdict.snapshot.name.clone(),
            time: rfc3339(verdict.snapshot.time),
            grade: verdict.snapshot.grade,
            keep: verdict.keep,
            reasons: verdict.reasons.iter().map(ToString::to_string).collect(),
            brief_reasons: verdict
                .reasons
                .iter()
                .map(SnapshotReason::brief)
                .chain(verdict.reader_note())
                .collect(),
            local_time: local_time(&target.policy.time_zone, verdict.snapshot.time),
        };
        DecisionView {
            module: target.name.as_deref().map(escape),
            snapshot_root: escape_path(&target.root_path),
            pause: decision.pause.as_ref().map(ToString::to_string),
            deferred: decision.deferred,
            snapshots: decision.verdicts.iter().map(view).collect(),
            bytes_freed: freed.map(|freed| freed.bytes),
            entries_freed: freed.map(|freed| freed.entries),
            freed,
        }
    }

    /// The text for people.
    pub(crate) fn to_text(&self, label: &str) -> String {
        let width = line_width();
        let reasons = self.snapshots.iter().map(|verdict| verdict.brief_reasons.as_slice());
        let (shared, reasons) = split_shared(&reasons.collect::<Vec<_>>(), width.is_some());
        let mut table = TextTable::new(&["SNAPSHOT", LOCAL_TIME, "", BECAUSE])
            .folding(&[BECAUSE])
            .optional(&[LOCAL_TIME])
            .sparing(&[LOCAL_TIME]);
        for (verdict, reasons) in self.snapshots.iter().zip(reasons) {
            let word = if verdict.keep { "keep" } else { "expired" };
            table.push(vec![
                verdict.name.clone(),
                verdict.local_time.clone().unwrap_or_default(),
                word.to_string(),
                reasons.join("; "),
            ]);
        }
        let expired = self.snapshots.iter().filter(|verdict| !verdict.keep).count();
        let kept = self.snapshots.len() - expired;
        let mut text =
            format!("{label}: {kept} kept, {expired} expired, in {}\n", self.snapshot_root);
        if let Some(pause) = &self.pause {
            text += &(pause_line(pause, expired) + "\n");
        }
        text += &shared_line(&shared);
        if !self.snapshots.is_empty() {
            text += &table.to_text(width);
        }
        if let Some(freed) = &self.freed {
            text += &(freed_line(freed, false) + "\n");
        }
        text
    }
}

/// The line for the reasons that all snapshots have; empty if there are none.
pub(crate) fn shared_line(shared: &[String]) -> String {
    match shared {
        [] => String::new(),
        reasons => format!("each of them: {}\n", reasons.join("; ")),
    }
}
