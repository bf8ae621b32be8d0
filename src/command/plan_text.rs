//! The text of `plan`, with a time line and colours on a terminal.

use chrono::TimeDelta;
use indicatif::HumanBytes;

use crate::command::decision_view::{BECAUSE, LOCAL_TIME, shared_line};
use crate::command::freed_space::USUAL_MAX_ENTRIES;
use crate::command::plan_view::{ExpiryTime, PlanVerdictView, PlanView, SnapshotView, TotalsView};
use crate::command::timeline::{TimelineRow, strip};
use crate::decide::duration_text::roughly;
use crate::decide::snapshot_reason::{pause_line, split_shared};
use crate::tell::counted;
use crate::tell::table::TextTable;
use crate::tell::terminal::{Colour, Terminal, line_width};

impl PlanView {
    /// The text of a plan; `terminal` if it is printed on one.
    pub(crate) fn to_text(&self, label: &str, terminal: Option<&Terminal>) -> String {
        // Of one policy the totals are those of the next rotation; of two, of all that it takes.
        let runs = self.compared.as_ref().map_or(String::new(), |_| in_runs(&self.present));
        let mut text =
            format!("{label}: {}{runs}, in {}\n", self.totals(present), self.snapshot_root);
        text += &pause(&self.present, self.going(present));
        text += &self.timeline(terminal, present);
        if let Some(compared) = &self.compared {
            text += &format!(
                "{}: {}{}\n{}",
                compared.policy_file,
                self.totals(other),
                in_runs(&compared.totals),
                pause_of_other(&compared.totals, self.going(other))
            );
            text += &self.timeline(terminal, other);
        }
        if !self.snapshots.is_empty() {
            text += &self.table(terminal);
        }
        text += &freed("", self.going(present), &self.present);
        if let Some(compared) = &self.compared {
            text +=
                &freed(&format!("{}: ", compared.policy_file), self.going(other), &compared.totals);
        }
        text
    }

    fn going(&self, verdict: VerdictOf) -> usize {
        self.snapshots.iter().filter_map(verdict).filter(|verdict| !verdict.keep).count()
    }

    fn totals(&self, verdict: VerdictOf) -> String {
        let going = self.going(verdict);
        format!(
            "{} kept, {going} expire",
            self.snapshots.iter().filter_map(verdict).count() - going
        )
    }

    fn timeline(&self, terminal: Option<&Terminal>, verdict: VerdictOf) -> String {
        let Some(terminal) = terminal else { return String::new() };
        let row = |snapshot: &SnapshotView| Some((snapshot.age, verdict(snapshot)?.row));
        let rows: Vec<(TimeDelta, TimelineRow)> = self.snapshots.iter().filter_map(row).collect();
        strip(&rows, terminal)
    }

    fn table(&self, terminal: Option<&Terminal>) -> String {
        let width = line_width();
        let (shared, table) = match &self.compared {
            None => self.plain_table(width.is_some()),
            Some(compared) => (Vec::new(), self.compared_table(&compared.policy_file)),
        };
        let table = table.fit(width);
        let colours = self.snapshots.iter().map(colour);
        let colours = std::iter::once(None).chain(colours).chain(std::iter::repeat(None));
        let mut painted = shared_line(&shared);
        for (row, colour) in table.rows.iter().zip(colours) {
            for line in row.lines() {
                painted += &match (terminal, colour) {
                    (Some(terminal), Some(colour)) => terminal.paint(line, colour),
                    _ => line.to_string(),
                };
                painted.push('\n');
            }
        }
        painted + &table.note()
    }

    /// The table, and the reasons that all snapshots have, if they are told apart.
    fn plain_table(&self, tells_apart: bool) -> (Vec<String>, TextTable) {
        let reasons = self.snapshots.iter().map(|one| one.verdict.brief_reasons.as_slice());
        let (shared, reasons) = split_shared(&reasons.collect::<Vec<_>>(), tells_apart);
        let mut table = TextTable::new(&["SNAPSHOT", LOCAL_TIME, "", "GOES", BECAUSE])
            .folding(&[BECAUSE])
            .optional(&[LOCAL_TIME])
            .sparing(&[LOCAL_TIME]);
        for (snapshot, reasons) in self.snapshots.iter().zip(reasons) {
            table.push(vec![
                snapshot.name.clone(),
                snapshot.local_time.clone().unwrap_or_default(),
                word(&snapshot.verdict).into(),
                end(&snapshot.verdict),
                reasons.join("; "),
            ]);
        }
        (shared, table)
    }

    /// Both policies side by side, with a mark where they differ.
    fn compared_table(&self, policy_file: &str) -> TextTable {
        const PRESENT: &str = "PRESENT POLICY";
        let mut table = TextTable::new(&["SNAPSHOT", "", PRESENT, policy_file])
            .folding(&[PRESENT, policy_file]);
        for snapshot in &self.snapshots {
            let mark = if differs(snapshot) { "<>" } else { "" };
            let other_text = other(snapshot).map_or("-".to_string(), briefly);
            table.push(vec![
                snapshot.name.clone(),
                mark.into(),
                briefly(&snapshot.verdict),
                other_text,
            ]);
        }
        table.push(vec!["TOTAL".into(), String::new(), self.totals(present), self.totals(other)]);
        table
    }
}

/// Picks the verdict of one of the two policies on a snapshot.
type VerdictOf = fn(&SnapshotView) -> Option<&PlanVerdictView>;

fn present(snapshot: &SnapshotView) -> Option<&PlanVerdictView> {
    Some(&snapshot.verdict)
}

fn other(snapshot: &SnapshotView) -> Option<&PlanVerdictView> {
    snapshot.compared.as_ref()
}

fn differs(snapshot: &SnapshotView) -> bool {
    other(snapshot).is_some_and(|other| other.keep != snapshot.verdict.keep)
}

/// The colour of a snapshot's line: red for one that goes. With two policies, red for one that only
/// the other policy expires, green for one that only the other policy keeps.
fn colour(snapshot: &SnapshotView) -> Option<Colour> {
    match other(snapshot) {
        None => (!snapshot.verdict.keep).then_some(Colour::Red),
        Some(_) if !differs(snapshot) => None,
        Some(other) => Some(if other.keep { Colour::Green } else { Colour::Red }),
    }
}

fn word(verdict: &PlanVerdictView) -> &'static str {
    if verdict.keep { "keep" } else { "expire" }
}

/// Whether it stays, until when, and the first reason.
fn briefly(verdict: &PlanVerdictView) -> String {
    let first = verdict.brief_reasons.first().map(String::as_str).unwrap_or_default();
    let more = match verdict.brief_reasons.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    format!("{:<6}  {:<10}  {first}{more}", word(verdict), end(verdict))
}

/// When a snapshot goes: how soon if within two days, else the day.
fn end(verdict: &PlanVerdictView) -> String {
    match verdict.end {
        ExpiryTime::Now => "now".to_string(),
        ExpiryTime::NextPush(_) => "next push".to_string(),
        ExpiryTime::At(_, after) if after < TimeDelta::days(2) => format!("in {}", roughly(after)),
        ExpiryTime::At(time, _) => time.format("%F").to_string(),
        ExpiryTime::Stays => "never".to_string(),
        ExpiryTime::HeldBack => "held back".to_string(),
        ExpiryTime::Unknown => "-".to_string(),
    }
}

fn pause(totals: &TotalsView, going: usize) -> String {
    let line = |pause| pause_line(pause, going) + "\n";
    totals.pause.as_ref().map(line).unwrap_or_default()
}

/// As [`pause`], for a policy that is not in force: a change to it may have to be confirmed.
fn pause_of_other(totals: &TotalsView, going: usize) -> String {
    match totals.to_confirm {
        None => pause(totals, going),
        Some((going, of)) => format!(
            "with this policy nothing expires before `rotate --confirm`, because it would expire \
             {going} of {of} complete snapshots; below is what expires then\n"
        ),
    }
}

/// How many runs the expiry takes, if more than one.
fn in_runs(totals: &TotalsView) -> String {
    match totals.runs {
        Some(runs) if runs > 1 => format!(" in {runs} runs of at most max_expire each"),
        _ => String::new(),
    }
}

/// A line that says how much space would be freed; empty if nothing goes.
fn freed(whose: &str, going: usize, totals: &TotalsView) -> String {
    let what = match (going, totals.retired) {
        (0, 0) => return String::new(),
        (going, 0) => format!("the removal of {}", counted(going, "snapshot")),
        (0, retired) => format!("the removal of {}", counted(retired, "retired snapshot")),
        (going, retired) => {
            format!(
                "the removal of {} and {}",
                counted(going, "snapshot"),
                counted(retired, "retired one")
            )
        }
    };
    let (Some(bytes), Some(entries)) = (totals.bytes_freed, totals.entries_freed) else {
        if totals.has_sealed {
            return format!("{whose}{what} frees what only these snapshots hold\n");
        }
        return format!(
            "{whose}{what}: with more than {USUAL_MAX_ENTRIES} entries not counted; plan \
             --sizes counts them\n"
        );
    };
    let at_least = match totals.unreadable {
        0 => String::new(),
        unreadable => format!(" or more ({unreadable} could not be read)"),
    };
    format!("{whose}{what} frees {}{at_least} in {entries} entries\n", HumanBytes(bytes))
}
