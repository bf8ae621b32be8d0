//! Text and JSON of `restore`.

use std::path::Path;

use serde::Serialize;

use crate::command::restore_options::RestoreOptions;
use crate::command::snapshot_choice::ChosenSnapshot;
use crate::decide::free_space::bytes_text;
use crate::decide::restore_step::RestoreStep;
use crate::run::report::Ending;
use crate::run::restore::Restored;
use crate::tell::counted;
use crate::tell::escape::{escape, escape_path};
use crate::tell::terminal::shorten;

/// The JSON that docs describe.
#[derive(Serialize)]
pub(crate) struct RestoreView {
    module: Option<String>,
    snapshot_root: String,
    pub(crate) snapshot: String,
    destination: String,
    pub(crate) in_place: bool,
    pub(crate) dry_run: bool,
    entries: u64,
    made: u64,
    replaced: u64,
    kept: u64,
    directories: u64,
    linked: u64,
    reflinked: u64,
    munged_links: u64,
    dropped_rights: u64,
    bytes: u64,
    verified: u64,
    conflict_count: u64,
    conflicts: Vec<ConflictView>,
    damage_count: u64,
    error_count: u64,
    errors: Vec<String>,
    not_compared: Vec<GapView>,
    snapshot_taken: Option<TakenView>,
}

/// Something of the snapshot that could not be compared with what was recorded when it was taken.
#[derive(Serialize)]
struct GapView {
    lost: bool,
    why: String,
}

#[derive(Serialize)]
struct ConflictView {
    path: String,
    why: &'static str,
}

/// The snapshot after a restore in place.
#[derive(Serialize)]
struct TakenView {
    #[serde(skip)]
    ending: Ending,
    outcome: &'static str,
    name: Option<String>,
    warnings: Vec<String>,
}

impl RestoreView {
    pub(crate) fn new(
        chosen: &ChosenSnapshot,
        destination: &Path,
        restored: &Restored,
        options: &RestoreOptions,
    ) -> Self {
        let Restored { written, errors, damage, report, run_error, .. } = restored;
        let name = chosen.target.as_ref().and_then(|target| target.name.as_deref());
        let conflicts = written.conflicts.first.iter();
        let errors_of_run = u64::from(run_error.is_some());
        RestoreView {
            module: name.map(escape),
            snapshot_root: escape_path(&chosen.root_path),
            snapshot: chosen.name.text.clone(),
            destination: escape_path(destination),
            in_place: options.to.is_none(),
            dry_run: options.dry_run,
            entries: written.entries,
            made: written.made,
            replaced: written.replaced,
            kept: written.kept,
            directories: written.directories,
            linked: restored.linked,
            reflinked: restored.reflinked,
            munged_links: restored.munged_links,
            dropped_rights: restored.dropped_rights,
            bytes: written.bytes,
            verified: restored.verified,
            conflict_count: written.conflicts.count,
            conflicts: conflicts
                .map(|it| ConflictView { path: escape(&it.path), why: it.obstacle.word() })
                .collect(),
            damage_count: damage.count,
            error_count: errors.count + damage.count + errors_of_run,
            errors: errors
                .first
                .iter()
                .chain(&damage.first)
                .chain(run_error)
                .map(ToString::to_string)
                .collect(),
            not_compared: restored
                .gaps
                .iter()
                .map(|gap| GapView { lost: gap.is_loss, why: gap.text.clone() })
                .collect(),
            snapshot_taken: report.as_ref().map(|report| TakenView {
                ending: report.ending,
                outcome: report.ending.word(),
                name: report.snapshot.clone(),
                warnings: report.all_warnings(),
            }),
        }
    }

    pub(crate) fn to_text(&self) -> String {
        let count =
            |number: u64, noun: &str| counted(usize::try_from(number).unwrap_or(usize::MAX), noun);
        let verb = if self.dry_run { "would restore" } else { "restored" };
        let were = match (self.dry_run, self.kept) {
            (true, 1) => "is",
            (true, _) => "are",
            (false, 1) => "was",
            (false, _) => "were",
        };
        let files = self.made + self.replaced;
        let mut text = format!(
            "{verb} {} ({}) and {} from {} into {}; {} {were} as in the snapshot already\n",
            count(files, "file"),
            bytes_text(self.bytes),
            match self.directories {
                1 => "1 new directory".to_string(),
                number => format!("{number} new directories"),
            },
            self.snapshot,
            self.destination,
            count(self.kept, "file"),
        );
        if self.replaced > 0 {
            let replaced = match self.dry_run {
                true => "would replace what is there",
                false => "replaced what was there",
            };
            text += &format!("{} of them {replaced}\n", self.replaced);
        }
        if self.conflict_count > 0 {
            text += &match self.conflict_count {
                1 => "1 entry of the destination is in the way".to_string(),
                number => format!("{number} entries of the destination are in the way"),
            };
            let is_overwritable = |one: &ConflictView| ["newer", "no-directory"].contains(&one.why);
            let are_all_known = self.conflicts.len() as u64 == self.conflict_count;
            text += match are_all_known && self.conflicts.iter().all(is_overwritable) {
                true => "; --overwrite replaces what is there\n",
                false => "; nothing is restored as long as they are there\n",
            };
        }
        if self.error_count > 0 && self.error_count == self.damage_count {
            text += "the snapshot is damaged: not everything is as it was backed up\n";
        } else if self.error_count > 0 {
            text += &format!(
                "{}: not everything is as in the snapshot\n",
                count(self.error_count, "error")
            );
        } else if !self.dry_run && self.conflict_count == 0 {
            text += "all of it was read again and is as in the snapshot\n";
        }
        for GapView { why, .. } in self.not_compared.iter().filter(|gap| !gap.lost) {
            text +=
                &format!("not compared with what {} was when it was taken: {why}\n", self.snapshot);
        }
        if let Some(taken) = &self.snapshot_taken {
            text += &taken.to_text();
        }
        text
    }
}

impl TakenView {
    fn to_text(&self) -> String {
        let name = self.name.as_deref();
        let taken = || name.map_or(String::new(), |name| format!(": {name}"));
        let since = || name.map_or(String::new(), |name| format!(" since {name}"));
        let text = match self.ending {
            Ending::Published => return format!("a snapshot was taken after that{}\n", taken()),
            Ending::Unchanged => {
                return format!("no snapshot was needed: nothing has changed{}\n", since());
            }
            Ending::Covered => "another run has taken a snapshot after that, if one was needed",
            Ending::Torn => "no snapshot was taken: a push failed half-way, so the module is torn",
            Ending::FailedTransfer => "no snapshot was taken: the policy wants none after an error",
            Ending::TooSoon => "no snapshot yet: the last one is younger than min_interval",
            Ending::Deferred => "no snapshot yet: a push is running, and its hook takes it",
            Ending::NotDue => "no snapshot was due after that",
        };
        format!("{text}\n")
    }
}

/// A line of a dry run; none for a directory that is there. On a terminal of this `width`, a long
/// path loses its beginning.
pub(crate) fn step_line(step: RestoreStep, path: &[u8], width: Option<usize>) -> Option<String> {
    const WORD: usize = "REFUSED  ".len();
    let path = match width {
        Some(width) => shorten(&escape(path), width.saturating_sub(WORD)),
        None => escape(path),
    };
    Some(match step {
        RestoreStep::Make => format!("new      {path}\n"),
        RestoreStep::Replace => format!("replace  {path}\n"),
        RestoreStep::Keep => format!("keep     {path}\n"),
        RestoreStep::Refuse(obstacle) => format!("REFUSED  {path}: {obstacle}\n"),
        RestoreStep::Enter => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshot_after_a_restore_is_told_in_words() {
        for (ending, name, expected) in [
            (Ending::Published, Some("S"), "a snapshot was taken after that: S\n"),
            (Ending::Unchanged, Some("S"), "no snapshot was needed: nothing has changed since S\n"),
            (Ending::Unchanged, None, "no snapshot was needed: nothing has changed\n"),
            (Ending::TooSoon, None, "no snapshot yet: the last one is younger than min_interval\n"),
        ] {
            let name = name.map(str::to_string);
            let taken = TakenView { ending, outcome: ending.word(), name, warnings: Vec::new() };
            assert_eq!(taken.to_text(), expected);
        }
    }
}
