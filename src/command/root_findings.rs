//! The findings of `check` about a snapshot root.
//!
//! Reads only, and takes no lock. While a run is working, a finding may show what that run is about
//! to change.

use crate::command::age_findings::Ages;
use crate::command::finding::{Finding, Severity};
use crate::command::lease_findings::long_leases;
use crate::command::push_findings::{
    failed_pushes, pushes_without_snapshot, stale_temporaries, torn_module, unfinished_backup,
};
use crate::command::run_findings::{Activity, long_job, long_run};
use crate::command::unremovable_findings::unremovable_snapshots;
use crate::decide::grade::Grade;
use crate::decide::push_history::PushHistory;
use crate::decide::snapshot_reason::Pause;
use crate::decide::snapshot_verdict::Decision;
use crate::decide::torn_mark::TornMark;
use crate::module::target::Target;
use crate::run::rotate::{self, ExaminedRoot};
use crate::run::session::lease_terms;
use crate::run::{losses, order, vanished};
use crate::store::leases::Leases;
use crate::store::ledger::Ledger;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// The findings about the root of a module, in the order in which `check` prints them.
///
/// # Errors
/// If the root, its state or its ledger cannot be read.
pub(crate) fn of_root(target: &Target) -> Result<Vec<Finding>, Error> {
    let now = Clock::System.now();
    if target.is_root_to_be_created() {
        let list = SnapshotList::default();
        let ages = Ages::of(target, PushHistory::default(), &list, false, now);
        let mut findings = ages.findings(false);
        let message = format!("the first run makes {}", escape_path(&target.root_path));
        findings.push(Finding::new(Severity::Ok, message));
        return Ok(findings);
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
    let entries = Ledger::look(&root, &target.memory.ledgers(&target.module_path))?;
    let activity = Activity::of(target, &root, state, &entries, now);
    let history = push_history(target, state);
    let failed = history.last_failed().map(|(_, end)| end);
    let ages = Ages::of(target, history.clone(), list, activity.at_work().is_some(), now);
    let awaits_client =
        state.due.as_ref().is_some_and(|due| order::awaits_client(target, &root, due, now));
    let torn = torn_mark(target, state);
    warnings.extend(torn.as_ref().map(|torn| torn_module(target, torn, failed, now)));
    warnings.extend(activity.due_mark(awaits_client));
    warnings.extend(activity.orphans());
    warnings.extend(activity.unseen_pushes());
    warnings.extend(torn.iter().flat_map(|torn| failed_pushes(target, torn)));
    warnings.extend(
        state
            .pushes_without_snapshot
            .as_ref()
            .and_then(|found| pushes_without_snapshot(target, found, &ages.log())),
    );
    warnings.extend(unfinished_backup(&root, now));
    warnings.extend(newest.and_then(|record| stale_temporaries(&root, record, now)));
    let mut findings = of_severity(Severity::Warning, warnings);
    let running = activity.running_pushes().into_iter();
    findings.extend(running.map(|(severity, message)| Finding::new(severity, message)));
    findings.extend(of_severity(Severity::Ok, activity.at_work()));
    findings.extend(pause_finding(decision));

    let recorded = newest_complete.and_then(|item| Some((item, item.record.as_ref()?)));
    let losses = recorded.map(|(item, record)| losses::remaining(&root, &item.name.text, record));
    findings.extend(of_severity(Severity::Warning, losses.unwrap_or_default()));
    let copies = recorded
        .iter()
        .flat_map(|(item, record)| losses::remaining_copies(target, &item.name.text, record));
    findings.extend(copies.map(|(can_mend, message)| {
        Finding::new(if can_mend { Severity::Warning } else { Severity::Ok }, message)
    }));
    findings.extend(of_severity(Severity::Warning, unremovable_snapshots(target, &root, decision)));
    findings.extend(of_severity(Severity::Warning, undated_snapshots(decision)));
    findings.extend(of_severity(Severity::Ok, long_job(target)));
    let leases = Leases::look(&root)?;
    findings.extend(of_severity(Severity::Ok, long_leases(&leases, lease_terms(target, now))));
    findings.extend(of_severity(Severity::Ok, root.file_system_advice()));

    findings.extend(ages.findings(root.is_registered()));
    Ok(findings)
}

fn of_severity(severity: Severity, messages: impl IntoIterator<Item = String>) -> Vec<Finding> {
    messages.into_iter().map(|message| Finding::new(severity, message)).collect()
}

fn lost_records(root: &SnapshotRoot, state: &State) -> Option<String> {
    let found = state.records_lost?;
    Some(format!("{}, found at {}", root.lost_records(), found.format("%FT%TZ")))
}

/// The torn mark, with one that this machine remembers outside the root.
fn torn_mark(target: &Target, state: &State) -> Option<TornMark> {
    let memory = target.memory.recall(&target.module_path);
    match memory.and_then(|memory| memory.torn) {
        Some(mark) => Some(mark.merged_with(state.torn.as_ref())),
        None => state.torn.clone(),
    }
}

/// The pushes of each client, with a failed one that this machine remembers outside the root.
pub(crate) fn push_history(target: &Target, state: &State) -> PushHistory {
    let mut history = state.pushes.clone();
    let memory = target.memory.recall(&target.module_path);
    if let Some(push) = memory.and_then(|memory| memory.failed_push) {
        history.note(&push, |client| target.policy.watches(client));
    }
    history
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
