//! `plan --replay`: the snapshots that a policy would hold after years of regular, simulated
//! pushes.
//!
//! The JSON is one object: `module` (null for `[defaults]`), `policy_file` (null for the built-in
//! policy), `replay`, and `compared` (null, or `policy_file` and `replay` of `--policy` where a
//! module is named). A `replay` is `from`, `to`, `every_seconds`, `pushes`, `held` (how many
//! snapshots), and `snapshots`, oldest first: a list of `name`, `time`, `grade`, `keep` (always
//! true), `reasons`.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::command::list_view::rfc3339;
use crate::command::plan_options::{PlanOptions, YEAR_SECONDS, time_of};
use crate::command::print_json;
use crate::command::timeline::{TimelineRow, strip};
use crate::config::settings::{PolicySource, Settings};
use crate::decide::duration_text::{DurationText, roughly};
use crate::decide::grade::Grade;
use crate::decide::policy::Policy;
use crate::decide::replay::Replay;
use crate::decide::snapshot_verdict::SnapshotVerdict;
use crate::module::context::Context;
use crate::tell::counted;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;
use crate::tell::output::print;
use crate::tell::table::TextTable;
use crate::tell::terminal::{Terminal, line_width};

/// The time between pushes without `--every`.
const USUAL_DISTANCE: DurationText = DurationText::from_seconds(3_600);

#[derive(Serialize)]
struct ReplayedModuleView {
    module: Option<String>,
    #[serde(flatten)]
    present: PolicyView,
    compared: Option<PolicyView>,
    /// How the text names the module.
    #[serde(skip)]
    label: Option<String>,
}

#[derive(Serialize)]
struct PolicyView {
    policy_file: Option<String>,
    replay: ReplayView,
}

#[derive(Serialize)]
struct ReplayView {
    from: String,
    to: String,
    every_seconds: u64,
    pushes: u64,
    held: usize,
    snapshots: Vec<HeldView>,
    #[serde(skip)]
    span: DurationText,
    #[serde(skip)]
    every: DurationText,
}

#[derive(Serialize)]
struct HeldView {
    name: String,
    time: String,
    grade: Grade,
    keep: bool,
    reasons: Vec<String>,
    #[serde(skip)]
    taken: DateTime<Utc>,
    #[serde(skip)]
    age: TimeDelta,
}

/// Replays the policy of each named module. Without a module, replays the defaults of `--policy` or
/// of the present policy.
///
/// # Errors
/// [`Error::Policy`] if a policy cannot be used; [`Error::Usage`] if there are too many pushes.
pub(crate) fn run(
    context: &Context,
    options: &PlanOptions,
    span: DurationText,
    other: Option<&Settings>,
    json: bool,
) -> Result<Exit> {
    let every = options.every.unwrap_or(USUAL_DISTANCE);
    let replay = |settings: &Settings, module: Option<&[u8]>| -> Result<PolicyView> {
        let policy = settings.policy(module);
        let replay = ReplayView::new(&policy, time_of(options, &policy), span, every)?;
        Ok(PolicyView { policy_file: file_of(settings), replay })
    };
    let mut views = Vec::new();
    let exit = if options.module.is_none() && !options.all {
        let settings = other.unwrap_or(&context.settings);
        usable(settings)?;
        let present = replay(settings, None)?;
        views.push(ReplayedModuleView { module: None, present, compared: None, label: None });
        Exit::Done
    } else {
        context.for_each(options.module.as_deref(), |target| {
            let module = target.name.as_deref();
            let settings = context.settings.of_module(module, &target.module_path);
            usable(&settings)?;
            let present = replay(&settings, module)?;
            let compared = other.map(|settings| replay(settings, module)).transpose()?;
            let label = Some(target.label());
            views.push(ReplayedModuleView { module: module.map(escape), present, compared, label });
            Ok(Exit::Done)
        })?
    };
    if json {
        print_json(!options.all, &views)?;
    } else {
        let terminal = Terminal::of_stdout();
        let is_verbose = context.level == Some(log::LevelFilter::Debug);
        let texts = views.iter().map(|view| view.to_text(terminal.as_ref(), is_verbose));
        print(&texts.collect::<String>())?;
    }
    Ok(exit)
}

fn usable(settings: &Settings) -> Result<()> {
    match &settings.source {
        PolicySource::Trouble(mistakes) => Err(Error::Policy(mistakes.clone())),
        _ => Ok(()),
    }
}

fn file_of(settings: &Settings) -> Option<String> {
    (settings.source == PolicySource::File).then(|| escape_path(&settings.policy_file))
}

impl ReplayView {
    fn new(
        policy: &Policy,
        end: DateTime<Utc>,
        span: DurationText,
        every: DurationText,
    ) -> Result<Self> {
        let mut replay = Replay::new(policy, end, span, every).map_err(Error::Usage)?;
        let (from, pushes) = (replay.from(), replay.pushes());
        while replay.step() {}
        let decision = replay.decision();
        let held = |verdict: &SnapshotVerdict| HeldView {
            name: verdict.snapshot.name.clone(),
            time: rfc3339(verdict.snapshot.time),
            grade: verdict.snapshot.grade,
            keep: true,
            reasons: verdict.reasons.iter().map(ToString::to_string).collect(),
            taken: verdict.snapshot.time,
            age: end - verdict.snapshot.time,
        };
        let snapshots: Vec<HeldView> =
            decision.verdicts.iter().filter(|verdict| verdict.keep).map(held).collect();
        Ok(ReplayView {
            from: rfc3339(from),
            to: rfc3339(end),
            every_seconds: every.seconds(),
            pushes,
            held: snapshots.len(),
            snapshots,
            span,
            every,
        })
    }
}

impl ReplayedModuleView {
    fn to_text(&self, terminal: Option<&Terminal>, is_verbose: bool) -> String {
        let label = self.label.as_ref().map_or(String::new(), |label| format!("{label}: "));
        let policies = std::iter::once(&self.present).chain(&self.compared);
        policies.map(|policy| policy.to_text(&label, terminal, is_verbose)).collect()
    }
}

impl PolicyView {
    fn to_text(&self, label: &str, terminal: Option<&Terminal>, is_verbose: bool) -> String {
        let ReplayView { span, every, pushes, to, snapshots, .. } = &self.replay;
        let policy = self.policy_file.as_deref().unwrap_or("the built-in policy");
        let held = counted(snapshots.len(), "snapshot");
        let mut text = format!(
            "{label}{policy} holds {held} after {} of pushes every {every} ({pushes} until {to})\n",
            in_years(*span)
        );
        if let Some(terminal) = terminal {
            let rows: Vec<_> =
                snapshots.iter().map(|held| (held.age, TimelineRow::Stays)).collect();
            text += &strip(&rows, terminal);
        }
        text += &bands(snapshots).to_text(line_width());
        if is_verbose {
            text += &listing(snapshots).to_text(line_width());
        }
        text
    }
}

/// A duration in years if it is whole years.
fn in_years(span: DurationText) -> String {
    match (span.seconds() / YEAR_SECONDS, span.seconds() % YEAR_SECONDS) {
        (years @ 1.., 0) => format!("{years}y"),
        _ => span.to_string(),
    }
}

/// A distance in the unit that fits it exactly if that is short, else rounded.
fn in_words(distance: TimeDelta) -> String {
    let exactly = DurationText::from_seconds(distance.num_seconds().unsigned_abs()).to_string();
    if exactly.len() <= "31d".len() { exactly } else { roughly(distance) }
}

const DAY: i64 = 86_400;

/// The bands of the table, with the greatest age in each, in seconds.
const BANDS: [(&str, i64); 5] = [
    ("up to a day", DAY),
    ("up to a week", 7 * DAY),
    ("up to a month", 31 * DAY),
    ("up to a year", 366 * DAY),
    ("older", i64::MAX),
];

/// How many snapshots each band of ages holds, and how dense they are.
fn bands(snapshots: &[HeldView]) -> TextTable {
    let mut table = TextTable::new(&["AGE", "SNAPSHOTS", "ONE EVERY", "OLDEST"]);
    let mut younger_than = i64::MIN;
    for (label, until) in BANDS {
        let within =
            |held: &&HeldView| (younger_than + 1..=until).contains(&held.age.num_seconds());
        let band: Vec<&HeldView> = snapshots.iter().filter(within).collect();
        if let Some(oldest) = band.first() {
            let every = usual_distance(&band).map_or("-".to_string(), in_words);
            table.push(vec![
                label.into(),
                band.len().to_string(),
                every,
                oldest.taken.format("%F").to_string(),
            ]);
        }
        younger_than = until;
    }
    table
}

/// The median distance of neighbours.
fn usual_distance(band: &[&HeldView]) -> Option<TimeDelta> {
    let mut distances: Vec<TimeDelta> =
        band.windows(2).map(|pair| pair[1].taken - pair[0].taken).collect();
    distances.sort();
    distances.get(distances.len() / 2).copied()
}

fn listing(snapshots: &[HeldView]) -> TextTable {
    let mut table = TextTable::new(&["SNAPSHOT", "BECAUSE"]).folding(&["BECAUSE"]);
    for held in snapshots {
        table.push(vec![held.name.clone(), held.reasons.join("; ")]);
    }
    table
}
