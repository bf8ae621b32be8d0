//! `plan` and `rotate --dry-run`: what rotation would do, and why. Nothing is changed.
//!
//! Beside the decision, `plan` shows when each snapshot that stays will go
//! ([`forecast`](crate::decide::forecast)), how much space those that go would free
//! ([`freed_space`]), what another policy would decide on these snapshots, and what a policy would
//! hold after years of simulated pushes ([`replay`]).

use std::ffi::OsStr;
use std::path::Path;

use chrono::{DateTime, Utc};

use crate::command::plan_options::{ANY_JUMP, PlanOptions, time_of};
use crate::command::plan_view::PlanView;
use crate::command::policy_effect::PolicyEffect;
use crate::command::snapshot_limit;
use crate::command::{freed_space, print_json, replay};
use crate::config::settings::{PolicySource, Settings};
use crate::decide::clock_reading::ClockReading;
use crate::decide::decision_before_guards::decide_before_guards;
use crate::decide::forecast::forecast;
use crate::decide::policy::Policy;
use crate::decide::rotation::decide;
use crate::decide::snapshot::Snapshot;
use crate::decide::snapshot_limit::LimitFinding;
use crate::decide::snapshot_reason::ExpiryPause;
use crate::decide::snapshot_verdict::{Decision, RotationHistory};
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::rotate::{self, ExaminedRoot};
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};
use crate::tell::exit::Exit;
use crate::tell::output::print;
use crate::tell::terminal::Terminal;

/// Prints the decision on one module, or on all. With `--quiet` only if expiry is paused.
///
/// # Errors
/// As [`run_with`].
pub(crate) fn dry_run(context: &Context, module: Option<&OsStr>, json: bool) -> Result<Exit> {
    let module = module.map(OsStr::to_os_string);
    let all = module.is_none();
    let options = PlanOptions { module, all, ..PlanOptions::default() };
    explain(context, &options, json, context.is_quiet())
}

/// Prints what the options ask for.
///
/// # Errors
/// [`Error::Policy`] if a policy cannot be used: then there is nothing to decide by.
pub(crate) fn run_with(context: &Context, options: &PlanOptions, json: bool) -> Result<Exit> {
    explain(context, options, json, false)
}

fn explain(context: &Context, options: &PlanOptions, json: bool, is_quiet: bool) -> Result<Exit> {
    let other = options.policy.as_deref().map(|file| other_policy(context, file)).transpose()?;
    if let Some(span) = options.replay {
        return replay::run(context, options, span, other.as_ref(), json);
    }
    let terminal = Terminal::of_stdout();
    let mut views = Vec::new();
    let exit = context.for_each(options.module.as_deref(), |target| {
        let (view, warnings) = plan(target, other.as_ref(), options)?;
        if !json && (!is_quiet || view.is_paused()) {
            print(&view.to_text(&target.label(), terminal.as_ref()))?;
        }
        views.push(view);
        for warning in &warnings {
            log::warn!("{}: {warning}", target.label());
        }
        Ok(if warnings.is_empty() { Exit::Done } else { Exit::Warnings })
    })?;
    if json {
        print_json(!options.all, &views)?;
    }
    Ok(exit)
}

/// Reads the policy of `--policy`, which has to be usable.
fn other_policy(context: &Context, file: &Path) -> Result<Settings> {
    let settings = Settings::read(Some(file), Some(&context.settings.rsyncd_conf));
    match settings.source {
        PolicySource::Trouble(mistakes) => Err(Error::Policy(mistakes)),
        _ => Ok(settings),
    }
}

/// The plan for one module, and warnings about records and state that could not be read.
fn plan(
    target: &Target,
    other: Option<&Settings>,
    options: &PlanOptions,
) -> Result<(PlanView, Vec<String>)> {
    if !target.trouble.is_empty() {
        return Err(Error::Policy(target.trouble.clone()));
    }
    let root = target.look_at_root()?;
    let now = time_of(options, &target.policy);
    let mut target = target.clone();
    if options.at.is_some() {
        target.policy.clock_jump = ANY_JUMP;
    }
    let max_expire = target.policy.max_expire;
    if other.is_some() {
        target.policy.max_expire = in_the_end(max_expire);
    }
    let reading = options.at.is_none().then(|| Clock::System.reading());
    let mut examined = rotate::examine(&target, &root, now, reading.clone())?;
    if options.at.is_some() {
        leave_out_later(&mut examined, &target.policy, now);
    }
    let effect = |target: &Target, max_expire, list: &SnapshotList, decision: Decision| {
        // Taken from the verdicts, which say which dates are not believed.
        let snapshots: Vec<Snapshot> =
            decision.verdicts.iter().map(|verdict| verdict.snapshot.clone()).collect();
        PolicyEffect {
            unguarded: decide_before_guards(&snapshots, &target.policy, now),
            forecast: forecast(&snapshots, &target.policy, now),
            freed: freed_space::count(&root, list, &decision, options.sizes),
            max_expire,
            decision,
        }
    };
    let present = effect(&target, max_expire, &examined.list, examined.decision);
    let compared = match other {
        None => None,
        Some(settings) => {
            let clock_jump = target.policy.clock_jump;
            let policy = settings.policy(target.name.as_deref());
            let per_run = policy.max_expire;
            let policy = Policy { clock_jump, max_expire: in_the_end(per_run), ..policy };
            let other = Target { policy, ..target.clone() };
            let (list, decision) =
                decision_once_confirmed(&other, &root, &examined.state, now, reading)?;
            Some((settings.policy_file.as_path(), effect(&other, per_run, &list, decision)))
        }
    };
    let compared = compared.as_ref().map(|(file, effect)| (*file, effect));
    let view = PlanView::new(&target, now, &examined.list, &present, compared);
    let limit = match snapshot_limit::finding(&target, &root, &examined.list) {
        LimitFinding::Far => None,
        LimitFinding::Near(message) | LimitFinding::Met(message) => Some(message),
    };
    let mut warnings = examined.list.warnings;
    warnings.extend(limit);
    warnings.extend(root.check_method().err().map(|refused| refused.to_string()));
    Ok((view, warnings))
}

/// The `max_expire` for a comparison of what two policies keep in the end. With the one of a single
/// run, a backlog that both have would make them look alike.
fn in_the_end(max_expire: usize) -> usize {
    if max_expire == 0 { 0 } else { usize::MAX }
}

/// Decides as at `now`, when snapshots that are dated later did not exist.
fn leave_out_later(examined: &mut ExaminedRoot, policy: &Policy, now: DateTime<Utc>) {
    let count = examined.list.items.len();
    examined.list.items.retain(|snapshot| snapshot.name.time <= now);
    if examined.list.items.len() < count {
        let snapshots = examined.list.snapshots();
        examined.decision = decide(&snapshots, &examined.state.history(None), policy, now);
    }
}

/// What another policy decides once `rotate --confirm` has confirmed it. If the change of policy
/// alone would pause expiry until then, the decision still names that pause.
fn decision_once_confirmed(
    other: &Target,
    root: &SnapshotRoot,
    state: &State,
    now: DateTime<Utc>,
    reading: Option<ClockReading>,
) -> Result<(SnapshotList, Decision)> {
    let mut examined = rotate::examine(other, root, now, reading.clone())?;
    if reading.is_none() {
        leave_out_later(&mut examined, &other.policy, now);
    }
    let ExaminedRoot { list, decision, .. } = examined;
    if !matches!(decision.pause, Some(ExpiryPause::MostOfHistory { .. })) {
        return Ok((list, decision));
    }
    let confirmed = RotationHistory { rules: None, ..state.history(reading) };
    let Decision { verdicts, deferred, .. } =
        decide(&list.snapshots(), &confirmed, &other.policy, now);
    Ok((list, Decision { verdicts, pause: decision.pause, deferred }))
}
