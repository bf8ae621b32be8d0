//! The findings of `check` about a snapshot root.
//!
//! Reads only, and takes no lock. While a run is working, a finding may show what that run is about
//! to change.

use chrono::{DateTime, Utc};

use crate::command::finding::{Finding, Severity};
use crate::command::lease_findings::long_leases;
use crate::command::push_findings::{
    failed_pushes, pushes_without_snapshot, stale_temporaries, unfinished_backup,
};
use crate::command::run_findings::{long_job, long_run, open_marks, unseen_pushes};
use crate::command::unremovable_findings::unremovable_snapshots;
use crate::decide::duration_text::roughly;
use crate::decide::grade::Grade;
use crate::decide::liveness::unseen_limit;
use crate::decide::snapshot_reason::Pause;
use crate::decide::snapshot_verdict::Decision;
use crate::module::target::Target;
use crate::run::rotate::{self, ExaminedRoot};
use crate::run::session::lease_terms;
use crate::run::{losses, order, vanished};
use crate::store::leases::Leases;
use crate::store::ledger::Ledger;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::ListedSnapshot;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::tell::counted;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// The findings about the root of a module, in the order in which `check` prints them.
///
/// # Errors
/// If the root, its state or its ledger cannot be read.
pub(crate) fn of_root(target: &Target) -> Result<Vec<Finding>, Error> {
    let now = Clock::System.now();
    if target.is_root_to_be_created() {
        let message = format!("no run yet; the first one makes {}", escape_path(&target.root_path));
        return Ok(vec![Finding::new(Severity::Ok, message)]);
    }
    let root = target.look_at_root()?;
    let examined = rotate::examine(target, &root, now, Some(Clock::System.reading()))?;
    let ExaminedRoot { list, state, decision } = &examined;
    let newest = list.newest(Grade::Partial, now).and_then(|item| item.record.as_ref());
    let newest_complete = list.newest(Grade::Complete, now);

    let mut warnings: Vec<String> =
        root.file_system_warning().into_iter().chain(root.untried()).collect();
    warnings.extend(long_run(&root, now));
    warnings.extend(list.warnings.iter().cloned());
    warnings.extend(users_let_in(target, &root)?);
    warnings.extend(lost_records(&root, state));
    let gone = vanished::look_at(&root, state, list).map(|gone| gone.message);
    warnings.extend(gone.unwrap_or_else(|error| Some(error.to_string())));
    warnings.extend(ledger_and_marks(target, &root, state, now)?);
    warnings.extend(state.torn.as_ref().map(failed_pushes).unwrap_or_default());
    warnings.extend(state.pushes_without_snapshot.as_ref().and_then(pushes_without_snapshot));
    warnings.extend(unfinished_backup(&root, now));
    warnings.extend(newest.and_then(|record| stale_temporaries(&root, record, now)));
    let mut findings = of_severity(Severity::Warning, warnings);
    findings.extend(pause_finding(decision));

    let recorded = newest_complete.and_then(|item| Some((item, item.record.as_ref()?)));
    let losses = recorded.map(|(item, record)| losses::remaining(&root, &item.name.text, record));
    findings.extend(of_severity(Severity::Warning, losses.unwrap_or_default()));
    findings.extend(of_severity(Severity::Warning, unremovable_snapshots(target, &root, decision)));
    findings.extend(of_severity(Severity::Warning, undated_snapshots(decision)));
    findings.extend(of_severity(Severity::Ok, long_job(target)));
    let leases = Leases::look(&root)?;
    findings.extend(of_severity(Severity::Ok, long_leases(&leases, lease_terms(target, now))));
    findings.extend(of_severity(Severity::Ok, root.file_system_advice()));

    let count = list.items.len();
    let mut age = age_finding(target, newest_complete, count, root.is_registered(), now);
    let pinned = list.items.iter().filter(|item| item.pin.is_some()).count();
    if pinned > 0 {
        age.message += &format!(", {pinned} pinned");
    }
    findings.push(age);
    Ok(findings)
}

fn of_severity(severity: Severity, messages: impl IntoIterator<Item = String>) -> Vec<Finding> {
    messages.into_iter().map(|message| Finding::new(severity, message)).collect()
}

fn lost_records(root: &SnapshotRoot, state: &State) -> Option<String> {
    let found = state.records_lost?;
    Some(format!("{}, found at {}", root.lost_records(), found.format("%FT%TZ")))
}

fn ledger_and_marks(
    target: &Target,
    root: &SnapshotRoot,
    state: &State,
    now: DateTime<Utc>,
) -> Result<Vec<String>, Error> {
    let awaits_client =
        state.due.as_ref().is_some_and(|due| order::awaits_client(target, root, due, now));
    let lines = Ledger::look(root, &target.memory.ledgers(&target.module_path))?;
    let limit = unseen_limit(target.policy.max_defer);
    let max_defer = target.policy.max_defer.delta();
    let mut warnings = open_marks(state, awaits_client, &lines, now, max_defer, limit);
    warnings.extend(unseen_pushes(&lines, now, limit));
    Ok(warnings)
}

fn pause_finding(decision: &Decision) -> Option<Finding> {
    let (pause, line) = (decision.pause.as_ref()?, decision.pause_line()?);
    let severity = match pause {
        Pause::Anomaly(_) | Pause::Damage(_) => Severity::Critical,
        _ => Severity::Warning,
    };
    Some(Finding::new(severity, line))
}

/// The users who may change snapshots besides root, unless the policy's `open_root` allows that.
fn users_let_in(target: &Target, root: &SnapshotRoot) -> Result<Option<String>, Error> {
    if target.policy.open_root { Ok(None) } else { root.open_to_users() }
}

/// Snapshots whose dates are not believed.
fn undated_snapshots(decision: &Decision) -> Option<String> {
    let undated = decision.verdicts.iter().filter(|verdict| verdict.snapshot.undated.is_some());
    let undated: Vec<&str> = undated.map(|verdict| verdict.snapshot.name.as_str()).collect();
    let first = undated.first()?;
    Some(format!(
        "{} undated, since the clock was or may have been wrong, and kept whatever the policy \
         says, the first is {first}: look at `plan`; if the dates are right, run `rotate \
         --confirm`",
        if undated.len() == 1 {
            "1 snapshot is".to_string()
        } else {
            format!("{} snapshots are", undated.len())
        }
    ))
}

/// How old the newest complete snapshot is, against `max_age`.
fn age_finding(
    target: &Target,
    newest: Option<&ListedSnapshot>,
    count: usize,
    registered: bool,
    now: DateTime<Utc>,
) -> Finding {
    let max_age = target.policy.max_age;
    let Some(newest) = newest else {
        return match (registered, max_age) {
            (false, _) => Finding::new(Severity::Ok, "no run yet"),
            (true, None) => Finding::new(Severity::Ok, "no complete snapshot yet"),
            (true, Some(max_age)) => Finding::new(
                Severity::Warning,
                format!("no complete snapshot yet, and max_age is {max_age}"),
            ),
        };
    };
    let age = now - newest.snapshot().verified_until;
    let text = format!(
        "{}, the newest complete one was current {} ago",
        counted(count, "snapshot"),
        roughly(age)
    );
    match max_age {
        Some(limit) if age > limit.delta() * 2 => {
            Finding::new(Severity::Critical, format!("{text}, more than twice max_age {limit}"))
        }
        Some(limit) if age > limit.delta() => {
            Finding::new(Severity::Warning, format!("{text}, more than max_age {limit}"))
        }
        _ => Finding::new(Severity::Ok, text),
    }
}
