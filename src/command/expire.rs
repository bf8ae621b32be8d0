//! `expire`: deletes snapshots that the administrator names.
//!
//! [`expire_by_hand`] says why the order of its steps is safe. This file finds the modules, holds
//! the locks of all of them before the first snapshot is touched, and prints what was done.

use serde::Serialize;

use crate::command::freed_space::{USUAL_MAX_ENTRIES, freed_line};
use crate::command::list_view::rfc3339;
use crate::command::named_snapshots::{ModuleAndSnapshots, by_names, find_all, visible};
use crate::command::pin::retired;
use crate::command::{print_done, print_json};
use crate::decide::snapshot_reason::ExpiryPause;
use crate::engine::usage::Usage;
use crate::module::confine;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::expire_by_hand::{
    self, ExpireOrder, ExpireOutcome, ExpireReport, ExpiredSnapshot, JudgedOrder, carry_out,
    half_removed, judge, would_free,
};
use crate::run::order::{due_snapshot_failed, release_or_serve};
use crate::run::request::Request;
use crate::run::session::Session;
use crate::store::root::SnapshotRoot;
use crate::system::clock::Clock;
use crate::system::priority::lower_priority;
use crate::tell::error::Result;
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;

#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpireOptions {
    pub order: ExpireOrder,
    /// Judge the order, say what it would do, and change nothing.
    pub dry_run: bool,
}

/// The names that belong to one module.
struct NamesOfModule {
    target: Target,
    names: Vec<String>,
}

impl NamesOfModule {
    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }
}

/// Retires or removes the named snapshots.
///
/// # Errors
/// [`Error::Usage`](crate::tell::error::Error::Usage) if no module has one of them, several have
/// it, or one has to stay; then nothing is changed.
pub(crate) fn run(
    context: &Context,
    named: ModuleAndSnapshots,
    options: ExpireOptions,
    json: bool,
) -> Result<Exit> {
    let visible_or_retired = |target: &Target, root: &SnapshotRoot| {
        let half_removed = by_names(&half_removed(root)?, &target.policy.time_zone);
        let all = [visible(target, root)?, retired(target, root)?, half_removed].concat();
        Ok(by_names(all.iter().map(|name| &name.text), &target.policy.time_zone))
    };
    let found = find_all(context, named, "snapshot", &visible_or_retired)?;
    let modules = by_module(found);
    let judged = judge_all(&modules, options.order)?;
    let views = match options.dry_run {
        true => dry_run(&modules, judged, options.order)?,
        false => {
            confine::to(modules.iter().map(|of| &of.target), context.write_scope);
            carry_out_all(&modules, options.order)?
        }
    };
    let mut exit = Exit::Done;
    for (NamesOfModule { target, .. }, view) in modules.iter().zip(&views) {
        for warning in &view.warnings {
            log::warn!("{}: {warning}", target.label());
        }
        for error in &view.errors {
            log::error!("{}: {error}", target.label());
            exit = Exit::Failed;
        }
        if !json {
            view.lines().iter().try_for_each(|line| print_done(context, target, line).map(drop))?;
        }
    }
    if json {
        print_json(views.len() == 1, &views)?;
    }
    Ok(exit)
}

/// The modules in the order of their roots, in which their locks are taken: so two orders never
/// wait for each other.
fn by_module(found: Vec<(Target, String)>) -> Vec<NamesOfModule> {
    let mut modules: Vec<NamesOfModule> = Vec::new();
    for (target, name) in found {
        match modules.iter_mut().find(|of| of.target.root_path == target.root_path) {
            Some(of) => of.names.push(name),
            None => modules.push(NamesOfModule { target, names: vec![name] }),
        }
    }
    modules.sort_by(|one, other| one.target.root_path.cmp(&other.target.root_path));
    modules
}

fn judge_all(modules: &[NamesOfModule], order: ExpireOrder) -> Result<Vec<JudgedOrder>> {
    let each = modules.iter().map(|of| {
        let target = &of.target;
        let root = target.look_at_root()?;
        judge(Session { target, root: &root, clock: &Clock::System }, &of.names(), order)
    });
    each.collect()
}

fn dry_run(
    modules: &[NamesOfModule],
    judged: Vec<JudgedOrder>,
    order: ExpireOrder,
) -> Result<Vec<ExpireView>> {
    let each = modules.iter().zip(judged).map(|(NamesOfModule { target, .. }, judged)| {
        let freed = would_free(&target.look_at_root()?, &judged, Some(USUAL_MAX_ENTRIES))?;
        let report = ExpireReport { freed, ..ExpireReport::expected(&judged, order) };
        Ok(ExpireView::new(target, &judged, report, true))
    });
    each.collect()
}

fn carry_out_all(modules: &[NamesOfModule], order: ExpireOrder) -> Result<Vec<ExpireView>> {
    let roots: Vec<SnapshotRoot> =
        modules.iter().map(|of| of.target.open_root()).collect::<Result<_>>()?;
    let sessions = modules.iter().zip(&roots).map(|(NamesOfModule { target, .. }, root)| Session {
        target,
        root,
        clock: &Clock::System,
    });
    let sessions: Vec<Session> = sessions.collect();
    let mut locks = Vec::new();
    for session in &sessions {
        locks.push(expire_by_hand::lock(*session)?);
    }
    let mut judged = Vec::new();
    for (session, of) in sessions.iter().zip(modules) {
        judged.push(judge(*session, &of.names(), order)?);
    }
    let mut views = Vec::new();
    for ((session, judged), mut lock) in sessions.iter().zip(&judged).zip(locks) {
        lower_priority(&session.target.policy);
        let queue_warning = match order.now {
            true => lock.join_job_queue(*session, &Request::rotation())?,
            false => None,
        };
        let mut report = carry_out(*session, judged, order)?;
        report.warnings.extend(queue_warning);
        if let Err(error) = release_or_serve(*session, lock)? {
            report.warnings.push(due_snapshot_failed(&error));
        }
        views.push(ExpireView::new(session.target, judged, report, false));
    }
    Ok(views)
}

/// The JSON that docs describe.
#[derive(Debug, Serialize)]
struct ExpireView {
    module: Option<String>,
    snapshot_root: String,
    dry_run: bool,
    pause: Option<String>,
    grace: String,
    #[serde(skip)]
    has_no_grace: bool,
    snapshots: Vec<ExpiredSnapshotView>,
    bytes_freed: Option<u64>,
    entries_freed: Option<u64>,
    unreadable: Option<u64>,
    #[serde(skip)]
    freed: Option<Usage>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ExpiredSnapshotView {
    name: String,
    outcome: &'static str,
    retired: Option<String>,
    until: Option<String>,
    #[serde(skip)]
    kind: ExpireOutcome,
}

impl ExpireView {
    fn new(target: &Target, judged: &JudgedOrder, report: ExpireReport, dry_run: bool) -> Self {
        let ExpireReport { named, freed, errors, warnings } = report;
        let grace = target.policy.grace();
        let view = |one: ExpiredSnapshot| ExpiredSnapshotView {
            name: one.name,
            outcome: word(one.outcome),
            retired: one.retired.map(rfc3339),
            until: one.retired.map(|since| rfc3339(since + grace.delta())),
            kind: one.outcome,
        };
        let pause = judged.pause.as_ref().map(|pause| pause_warning(pause, dry_run));
        let snapshots: Vec<ExpiredSnapshotView> = named.into_iter().map(view).collect();
        let stays =
            |one: &&ExpiredSnapshotView| one.kind == ExpireOutcome::Stays && errors.is_empty();
        let stays = snapshots
            .iter()
            .filter(stays)
            .map(|one| format!("{} stays: it was pinned or brought back meanwhile", one.name));
        ExpireView {
            module: target.name.as_deref().map(escape),
            snapshot_root: escape_path(&target.root_path),
            dry_run,
            pause: judged.pause.as_ref().map(ToString::to_string),
            grace: grace.to_string(),
            has_no_grace: grace.seconds() == 0,
            errors: errors.iter().map(ToString::to_string).chain(stays).collect(),
            snapshots,
            bytes_freed: freed.map(|freed| freed.bytes),
            entries_freed: freed.map(|freed| freed.entries),
            unreadable: freed.map(|freed| freed.unreadable),
            freed,
            warnings: pause.into_iter().chain(warnings).collect(),
        }
    }

    /// One line for each snapshot, and one for the space.
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.snapshots.iter().filter_map(|one| self.line(one)).collect();
        lines.extend(self.freed.map(|freed| freed_line(&freed, self.dry_run)));
        lines
    }

    fn line(&self, one: &ExpiredSnapshotView) -> Option<String> {
        let ExpiredSnapshotView { name, retired, until, kind, .. } = one;
        let is = if self.dry_run { "would be" } else { "is" };
        let until = match until {
            // Without a grace, any later run may remove it.
            _ if until == retired && until.is_some() => "until a later run".to_string(),
            Some(until) => format!("until {until}"),
            None if self.has_no_grace => "until a later run".to_string(),
            // When it is retired is not known yet.
            None => format!("for {}", self.grace),
        };
        let until = format!("`undelete` brings it back {until}");
        match kind {
            ExpireOutcome::Retired => Some(format!("{name} {is} retired: {until}")),
            ExpireOutcome::WasRetired => {
                Some(format!("{name} was retired before: {until}; `--now` removes it"))
            }
            ExpireOutcome::Removed => Some(format!("{name} {is} removed for good")),
            ExpireOutcome::SetAside | ExpireOutcome::Stays => None,
        }
    }
}

fn word(outcome: ExpireOutcome) -> &'static str {
    match outcome {
        ExpireOutcome::Retired => "retired",
        ExpireOutcome::WasRetired => "was-retired",
        ExpireOutcome::Removed => "removed",
        ExpireOutcome::SetAside => "set-aside",
        ExpireOutcome::Stays => "stays",
    }
}

fn pause_warning(pause: &ExpiryPause, dry_run: bool) -> String {
    let expired = if dry_run { "would be expired" } else { "were expired" };
    let more = match pause {
        ExpiryPause::Damage(_) | ExpiryPause::Anomaly(_) => {
            "; look at them first: they may hold the last good state of files"
        }
        _ => "",
    };
    format!(
        "expiry is paused; the named snapshots {expired} all the same, because you named \
         them{more}. The pause: {pause}"
    )
}
