//! The findings of `check` about a snapshot root.
//!
//! Reads only, and takes no lock. While a run is working, a finding may show what that run is about
//! to change.

use std::cell::Cell;
use std::io::ErrorKind;
use std::path::Path;

use chrono::{DateTime, Utc};

use crate::command::age_findings::Ages;
use crate::command::doctor::roots::history_elsewhere;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::command::lease_findings::long_leases;
use crate::command::module_findings::place_of_root;
use crate::command::push_findings::{
    PushSurroundings, failed_pushes, pushes_without_snapshot, stale_temporaries, torn_module,
    unfinished_backup,
};
use crate::command::run_findings::{Activity, long_job, long_run};
use crate::command::snapshot_limit;
use crate::command::unremovable_findings::unremovable_snapshots;
use crate::decide::file_system::Expectation;
use crate::decide::grade::Grade;
use crate::decide::push_history::PushHistory;
use crate::decide::snapshot_limit::LimitFinding;
use crate::decide::snapshot_reason::ExpiryPause;
use crate::decide::snapshot_verdict::Decision;
use crate::decide::torn_mark::TornMark;
use crate::decide::verdict_facts::PARTIAL_TRANSFER;
use crate::module::target::Target;
use crate::run::rotate::{self, ExaminedRoot};
use crate::run::session::lease_terms;
use crate::run::{losses, order, vanished};
use crate::store::expected_pushes::NotedPushes;
use crate::store::leases::Leases;
use crate::store::ledger::Ledger;
use crate::store::record::Record;
use crate::store::root::SnapshotRoot;
use crate::store::root_checks;
use crate::store::snapshot_method::SnapshotMethod;
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::system::mounts::Mounts;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// What the findings about a root take from elsewhere, and give to the findings about the daemon.
pub(crate) struct RootSurroundings<'a> {
    /// Whether the file system of a directory has hard links, if that can be tried.
    pub(crate) has_links: &'a dyn Fn(&Path) -> Option<bool>,
    /// How many bytes the children of a process have written, if that can be seen.
    pub(crate) written: &'a dyn Fn(u32) -> Option<u64>,
    /// Since when pushes are expected.
    pub(crate) noted: &'a NotedPushes<'a>,
    /// Whether rsyncd.conf has a hook that certainly fails, which is told of it.
    pub(crate) hook_fails: bool,
    /// Set if the last pushes to the module have ended with status 23.
    pub(crate) ended_with_23: Cell<bool>,
    /// Called with what is known of the root.
    pub(crate) note: &'a dyn Fn(&RootFacts),
}

/// What is known of a root that is or can be registered, and what its findings rest on.
pub(crate) struct RootFacts<'a> {
    pub(crate) target: &'a Target,
    pub(crate) root: &'a SnapshotRoot,
    pub(crate) examined: &'a ExaminedRoot,
    pub(crate) activity: &'a Activity<'a>,
    /// With what is remembered outside the root, as the torn mark.
    pub(crate) history: &'a PushHistory,
    pub(crate) torn: Option<&'a TornMark>,
    pub(crate) now: DateTime<Utc>,
}

/// The findings about the root of a module, in the order in which `check` prints them.
///
/// # Errors
/// If the root, its state or its ledger cannot be read.
pub(crate) fn of_root(target: &Target, around: &RootSurroundings) -> Result<Vec<Finding>, Error> {
    let now = Clock::System.now();
    if target.is_root_to_be_created() {
        return of_future_root(target, around, now);
    }
    let parent = target.root_path.parent();
    if parent.is_some_and(is_missing) && target.lost_history().is_none() {
        return Err(root_checks::without_parent(&target.root_path));
    }
    let root = target.look_at_root()?;
    let examined = rotate::examine(target, &root, now, Some(Clock::System.reading()))?;
    let ExaminedRoot { list, state, decision } = &examined;
    let newest = list.newest(Grade::Partial, now).and_then(|item| item.record.as_ref());
    let newest_complete = list.newest(Grade::Complete, now);
    let failing = state.pushes_without_snapshot.as_ref();
    let statuses = [failing.map(|it| it.status), state.torn.as_ref().map(|it| it.status)];
    around.ended_with_23.set(statuses.contains(&Some(23)));

    let elsewhere = if root.is_registered() { None } else { history_elsewhere(target) };
    let mut findings = Findings(elsewhere.into_iter().collect());
    if let Err(refused) = root.check_method() {
        let message = format!("{refused}{}", place_of_root(target, &refused));
        findings.0.push(Finding::new(FindingId::Root, Severity::Critical, message));
    }
    findings.warn(FindingId::FileSystem, root.file_system_warning());
    if let Some(untried) = root.untried() {
        match (around.has_links)(&root.path) {
            Some(true) => {}
            Some(false) => return Err(root_checks::no_links_at(&root.path, &root.path)),
            None => findings.warn(FindingId::HardLinks, [untried]),
        }
    }
    findings.warn(FindingId::LongRun, long_run(&root, now));
    findings.warn(FindingId::SnapshotList, list.warnings.iter().cloned());
    findings.warn(FindingId::RootOpen, users_let_in(target, &root)?);
    findings.warn(FindingId::RecordsLost, lost_records(&root, state));
    match vanished::look_at(&root, state, list) {
        Ok(gone) => {
            findings.note(FindingId::Vanished, gone.pin_lines());
            findings.warn(FindingId::Vanished, gone.message);
        }
        Err(error) => findings.warn(FindingId::Vanished, [error.to_string()]),
    }
    let entries = Ledger::look(&root, &target.memory.ledgers(&target.module_path))?;
    let activity = Activity::of(target, &root, state, &entries, now);
    let history = push_history(target, state);
    let failed = history.last_failed().map(|(_, end)| end);
    let is_at_work = activity.at_work().is_some();
    let ages = Ages::of(target, history.clone(), list, around.noted, is_at_work, now);
    let awaits_client =
        state.due.as_ref().is_some_and(|due| order::awaits_client(target, &root, due, now));
    let torn = torn_mark(target, state);
    (around.note)(&RootFacts {
        target,
        root: &root,
        examined: &examined,
        activity: &activity,
        history: &history,
        torn: torn.as_ref(),
        now,
    });
    let was_good = |record: &Record| record.status.is_some_and(|status| status != PARTIAL_TRANSFER);
    let of_push = PushSurroundings {
        target,
        log: ages.log(),
        has_good_push: history.last_good().is_some()
            || newest_complete.and_then(|item| item.record.as_ref()).is_some_and(was_good),
    };
    let mark = torn.as_ref().map(|torn| torn_module(&of_push, torn, failed, now));
    findings.warn(FindingId::Marks, mark);
    findings.warn(FindingId::Marks, activity.due_mark(awaits_client));
    findings.warn(FindingId::Marks, activity.orphans(around.hook_fails));
    findings.warn(FindingId::Marks, activity.unseen_pushes());
    let failed_pushes = torn.iter().flat_map(|torn| failed_pushes(target, torn));
    findings.warn(FindingId::FailedPush, failed_pushes);
    findings.warn(
        FindingId::PushesWithoutSnapshot,
        failing.and_then(|found| pushes_without_snapshot(&of_push, found)),
    );
    findings.warn(FindingId::UnfinishedBackup, unfinished_backup(&root, now));
    findings.warn(
        FindingId::StaleTemporaries,
        newest.and_then(|record| stale_temporaries(&root, record, now)),
    );
    for (severity, message) in activity.running_pushes(around.written) {
        findings.0.push(Finding::new(FindingId::RunningPush, severity, message));
    }
    findings.note(FindingId::AtWork, activity.at_work());
    findings.0.extend(pause_finding(decision));

    let recorded = newest_complete.and_then(|item| Some((item, item.record.as_ref()?)));
    let losses = recorded.map(|(item, record)| losses::remaining(&root, &item.name.text, record));
    findings.warn(FindingId::SnapshotLosses, losses.unwrap_or_default());
    let copies = recorded
        .iter()
        .flat_map(|(item, record)| losses::remaining_copies(target, &item.name.text, record));
    findings.0.extend(copies.map(|(can_mend, message)| {
        let level = if can_mend { Severity::Warning } else { Severity::Ok };
        Finding::new(FindingId::SnapshotCopies, level, message)
    }));
    findings.warn(FindingId::Unremovable, unremovable_snapshots(target, &root, decision));
    findings.warn(FindingId::Undated, undated_snapshots(decision));
    findings.note(FindingId::LongJob, long_job(target));
    let leases = Leases::look(&root)?;
    findings.note(FindingId::Lease, long_leases(&leases, lease_terms(target, now)));
    findings.note(FindingId::FileSystem, root.file_system_advice());
    findings.note(FindingId::FileSystem, method_notes(&root));
    match snapshot_limit::finding(target, &root, list) {
        LimitFinding::Far => {}
        LimitFinding::Near(message) => findings.warn(FindingId::SnapshotLimit, [message]),
        LimitFinding::Met(message) => {
            let finding = Finding::new(FindingId::SnapshotLimit, Severity::Critical, message);
            findings.0.push(finding);
        }
    }

    findings.0.extend(ages.findings(root.is_registered()));
    Ok(findings.0)
}

/// How the snapshots of a root are made that are no hard links, and what would make that quicker.
fn method_notes(root: &SnapshotRoot) -> Option<String> {
    match root.method() {
        SnapshotMethod::HardLinks => return None,
        SnapshotMethod::Subvolumes => {}
        SnapshotMethod::CephFs if root.must_sync_files() => {
            return Some(
                "its snapshots are CephFS snapshots, made through ceph-fuse: each new file is \
                 synced before, which the kernel client does in one call"
                    .to_string(),
            );
        }
        SnapshotMethod::CephFs => {
            return Some(
                "its snapshots are CephFS snapshots, made through the kernel client: that its \
                 `syncfs` waits until what is new is on the disks of the cluster was read in its \
                 source, and is unproven by a test"
                    .to_string(),
            );
        }
    }
    let mounts = Mounts::read()?;
    let mut note = "its snapshots are btrfs snapshots".to_string();
    if !mounts.may_remove_subvolumes(&root.path) {
        note.push_str(
            "; they are removed file by file, since the file system is mounted without \
             `user_subvol_rm_allowed`",
        );
    }
    if !mounts.has_no_access_times(&root.module_path) {
        note.push_str(
            "; once files of the module have been read, a run looks at all of them, since it is \
             mounted without `noatime`",
        );
    }
    Some(note)
}

fn is_missing(path: &Path) -> bool {
    path.metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// The findings about a root that the first run makes.
fn of_future_root(
    target: &Target,
    around: &RootSurroundings,
    now: DateTime<Utc>,
) -> Result<Vec<Finding>, Error> {
    let parent = target.check_future_root()?;
    let kind = root_checks::kind_of(&parent);
    let is_tried = kind.is_some_and(|kind| kind.expectation() == Expectation::Untried);
    if is_tried && (around.has_links)(&parent) == Some(false) {
        return Err(root_checks::no_links_at(&target.root_path, &parent));
    }
    let mut findings: Vec<Finding> = history_elsewhere(target).into_iter().collect();
    let list = SnapshotList::default();
    let ages = Ages::of(target, PushHistory::default(), &list, around.noted, false, now);
    findings.extend(ages.findings(false));
    let message = format!("the first run makes {}", escape_path(&target.root_path));
    findings.push(Finding::new(FindingId::RootNew, Severity::Ok, message));
    Ok(findings)
}

/// The findings so far.
struct Findings(Vec<Finding>);

impl Findings {
    fn warn(&mut self, id: FindingId, messages: impl IntoIterator<Item = String>) {
        self.add(id, Severity::Warning, messages);
    }

    fn note(&mut self, id: FindingId, messages: impl IntoIterator<Item = String>) {
        self.add(id, Severity::Ok, messages);
    }

    fn add(&mut self, id: FindingId, level: Severity, messages: impl IntoIterator<Item = String>) {
        let found = messages.into_iter().map(|message| Finding::new(id, level, message));
        self.0.extend(found);
    }
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
        ExpiryPause::Anomaly(_) | ExpiryPause::Damage(_) => Severity::Critical,
        _ => Severity::Warning,
    };
    Some(Finding::new(FindingId::ExpiryPaused, severity, line))
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
