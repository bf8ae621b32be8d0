//! The health of a snapshot root: marks, the ledger, pauses, what rsync left behind, and the age of
//! the newest snapshot.
//!
//! Looks only, and takes no lock: what a running hook is just about to change may be told as it
//! was.

use chrono::{DateTime, TimeDelta, Utc};

use crate::command::finding::{Finding, Severity};
use crate::command::irremovable::irremovable;
use crate::decide::duration_text::roughly;
use crate::decide::grade::Grade;
use crate::decide::liveness::{Liveness, unseen_limit};
use crate::decide::shortfall::{SHORTFALL_LIMIT, Shortfall};
use crate::decide::snapshot_reason::Pause;
use crate::decide::snapshot_verdict::Decision;
use crate::decide::torn_mark::{TornMark, UNHEALED_LIMIT};
use crate::decide::transfer_reason::TransferReason;
use crate::decide::verdict::has_waited;
use crate::decide::verdict_facts::DueReason;
use crate::module::target::Target;
use crate::run::rotate::{self, ExaminedRoot};
use crate::run::{losses, order};
use crate::store::completion::{self, UnfinishedFile};
use crate::store::job_queue::{LONG_JOB, QUEUE, long_jobs};
use crate::store::ledger::Ledger;
use crate::store::ledger_entry::LedgerLine;
use crate::store::lock;
use crate::store::record::Record;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::ListedSnapshot;
use crate::store::state::{DueMark, State};
use crate::system::clock::Clock;
use crate::system::pid_namespace::PidNamespace;
use crate::system::syscalls::stat_below;
use crate::tell::counted;
use crate::tell::error::Error;
use crate::tell::escape::{escape_path, unescape};

/// What there is to say about the root of a module.
///
/// # Errors
/// What keeps it from being looked at.
pub(crate) fn of_root(target: &Target) -> Result<Vec<Finding>, Error> {
    let now = Clock::System.now();
    if target.root_is_to_come() {
        let message = format!("no run yet; the first one makes {}", escape_path(&target.root_path));
        return Ok(vec![Finding::new(Severity::Ok, message)]);
    }
    let root = target.look_at_root()?;
    let ExaminedRoot { list, state, decision } =
        rotate::examine(target, &root, now, Some(Clock::System.reading()))?;
    let mut findings = Vec::new();
    let mut warn = |message: String| findings.push(Finding::new(Severity::Warning, message));
    root.file_system_warning().into_iter().chain(root.untried()).for_each(&mut warn);
    long_run(&root, now).into_iter().for_each(&mut warn);
    let advice = root.file_system_advice();
    list.warnings.iter().for_each(|warning| warn(warning.clone()));
    if let Some(message) = users_let_in(target, &root)? {
        warn(message);
    }
    if let Some(when) = state.records_lost {
        warn(format!("{}, found at {}", root.lost_records(), when.format("%FT%TZ")));
    }
    let awaits_client =
        state.due.as_ref().is_some_and(|due| order::awaits_client(target, &root, due, now));
    let lines = Ledger::look(&root, &target.memory.ledgers(&target.module_path))?;
    let limit = unseen_limit(target.policy.max_defer);
    marks(&state, awaits_client, &lines, now, target.policy.max_defer.delta(), limit)
        .into_iter()
        .for_each(&mut warn);
    unseen(&lines, now, limit).into_iter().for_each(&mut warn);
    state.torn.as_ref().map(evidence).unwrap_or_default().into_iter().for_each(&mut warn);
    if let Some(message) = state.shortfall.as_ref().and_then(shortfall) {
        warn(message);
    }
    if let Some(message) = unfinished(&root, now) {
        warn(message);
    }
    let newest = list.newest(Grade::Partial, now).and_then(|item| item.record.as_ref());
    if let Some(message) = newest.and_then(|record| stale_temporaries(&root, record, now)) {
        warn(message);
    }
    if let (Some(pause), Some(line)) = (&decision.pause, decision.pause_line()) {
        let level = if matches!(pause, Pause::Anomaly(_) | Pause::Damage(_)) {
            Severity::Critical
        } else {
            Severity::Warning
        };
        findings.push(Finding::new(level, line));
    }
    if let Some((newest, record)) =
        list.newest(Grade::Complete, now).and_then(|item| Some((item, item.record.as_ref()?)))
    {
        let losses = losses::standing(&root, &newest.name.text, record);
        findings.extend(losses.into_iter().map(|loss| Finding::new(Severity::Warning, loss)));
    }
    findings.extend(
        irremovable(target, &root, &decision)
            .into_iter()
            .map(|message| Finding::new(Severity::Warning, message)),
    );
    findings.extend(undated(&decision).map(|message| Finding::new(Severity::Warning, message)));
    findings.extend(long_job(target).map(|message| Finding::new(Severity::Ok, message)));
    findings.extend(advice.map(|advice| Finding::new(Severity::Ok, advice)));
    let newest = list.newest(Grade::Complete, now);
    let mut finding = age(target, newest, list.items.len(), root.is_registered(), now);
    let pinned = list.items.iter().filter(|item| item.pin.is_some()).count();
    if pinned > 0 {
        finding.message += &format!(", {pinned} pinned");
    }
    findings.push(finding);
    Ok(findings)
}

/// Who may change history besides root, unless the policy says that it is meant.
fn users_let_in(target: &Target, root: &SnapshotRoot) -> Result<Option<String>, Error> {
    if target.policy.open_root { Ok(None) } else { root.open_to_users() }
}

/// A run on this root that has worked for so long that others no longer wait for it.
fn long_job(target: &Target) -> Option<String> {
    let queue = target.memory.directories.last()?.join(QUEUE);
    let own = escape_path(&target.root_path);
    let job = long_jobs(&queue, LONG_JOB).into_iter().find(|job| job.label == own)?;
    let worked = TimeDelta::from_std(job.worked).unwrap_or(TimeDelta::MAX);
    Some(format!(
        "a run has been at work for {}; it no longer counts for max_parallel, so others do not \
         wait for it",
        roughly(worked)
    ))
}

/// How long a run may take before `check` names it.
const LONG_RUN: TimeDelta = TimeDelta::hours(6);

/// A run that has held the lock for so long that it may wait for a disk or a server.
fn long_run(root: &SnapshotRoot, now: DateTime<Utc>) -> Option<String> {
    if !root.is_registered() {
        return None;
    }
    let text = lock::holder_of(root.private(), &|text| {
        began(text).is_some_and(|since| now - since > LONG_RUN)
    })?;
    Some(format!(
        "a run has held the lock for more than {}: {text}; others wait for it in vain. It may wait \
         for a disk or a server that does not answer, or have much to do: look at that process",
        roughly(LONG_RUN)
    ))
}

/// When a run began, by what it says of itself.
fn began(holder: &str) -> Option<DateTime<Utc>> {
    let since = holder.rsplit_once(" since ")?.1.trim();
    DateTime::parse_from_rfc3339(since).ok().map(|since| since.to_utc())
}

/// Snapshots whose dates are not believed.
fn undated(decision: &Decision) -> Option<String> {
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

/// What runs have left for others, and what in the ledger nobody takes care of.
fn marks(
    state: &State,
    awaits_client: bool,
    lines: &[LedgerLine],
    now: DateTime<Utc>,
    max_defer: TimeDelta,
    limit: TimeDelta,
) -> Vec<String> {
    let is_dead = |line: &LedgerLine| line.liveness(now, limit) == Liveness::Dead;
    let is_waiting =
        awaits_client || lines.iter().any(|line| line.is_running_push() && !is_dead(line));
    // A push that is put off is no trouble as long as the one that it waits for is running, or may
    // come; but not for ever.
    let is_left = |due: &DueMark| due.reason == DueReason::Deferred && is_waiting;
    let is_trouble = |due: &&DueMark| !is_left(due) || has_waited(Some(due.since), now, max_defer);
    let due = state.due.as_ref().filter(is_trouble);
    let due = due.map(|due| {
        format!("a snapshot is due since {}: run `snapshot --due`", due.since.format("%FT%TZ"))
    });
    let orphans = lines.iter().filter(|line| line.writes() && is_dead(line)).map(|line| {
        format!(
            "the push of {} (process {}) got no snapshot, for its hook did not run to the end: run \
             `snapshot --due`",
            line.who(),
            line.pid
        )
    });
    state.torn.as_ref().map(describe_torn).into_iter().chain(due).chain(orphans).collect()
}

/// Pushes whose processes cannot be seen from here, as long as they count as running.
fn unseen(lines: &[LedgerLine], now: DateTime<Utc>, limit: TimeDelta) -> Vec<String> {
    let is_unseen =
        |line: &&LedgerLine| line.writes() && line.liveness(now, limit) == Liveness::Unknown;
    let why = PidNamespace::own().err().unwrap_or("it is of another machine or PID namespace");
    let describe = |line: &LedgerLine| {
        let what = if line.status.is_some() { "hook after the push" } else { "push" };
        format!(
            "the {what} of {} (process {} of transfers/{}) began at {} and cannot be seen from \
             here: {why}; it counts as running for {}: if it has ended, run `snapshot --due` where \
             its daemon runs, or as root on the host of that container; if that is gone, run \
             `release --unseen`",
            line.who(),
            line.pid,
            line.file(),
            line.began.format("%FT%TZ"),
            roughly(limit),
        )
    };
    lines.iter().filter(is_unseen).map(describe).collect()
}

/// How long a client may take over a backup.
const UNFINISHED_AFTER: TimeDelta = TimeDelta::days(1);

/// How far the clocks of client and server may differ.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// A backup whose client has died, or cannot say that it is done.
fn unfinished(root: &SnapshotRoot, now: DateTime<Utc>) -> Option<String> {
    let since = UnfinishedFile::of_module(root.module())?.begun;
    if since - now > CLOCK_TOLERANCE {
        return Some(format!(
            "a client has begun a backup and not finished it, at {} by its clock, which is ahead \
             of this server's: set that clock; snapshots are partial until the backup is finished; \
             if it never will be, remove {} from the module",
            since.format("%FT%TZ"),
            completion::UNFINISHED
        ));
    }
    if now - since <= UNFINISHED_AFTER {
        return None;
    }
    Some(format!(
        "a client has begun a backup {} ago and not finished it, so snapshots are partial until it \
         does; if it will never come, remove {} from the module",
        roughly(now - since),
        completion::UNFINISHED
    ))
}

/// How long rsync may take over one file.
const STALE_AFTER: TimeDelta = TimeDelta::days(1);

/// Files that look as if rsync had been stopped over them, of those that the newest snapshot
/// remembers.
fn stale_temporaries(root: &SnapshotRoot, record: &Record, now: DateTime<Utc>) -> Option<String> {
    let is_stale = |path: &&String| {
        let stat = unescape(path).and_then(|path| stat_below(root.module(), &path).ok());
        stat.is_some_and(|stat| stat.st_mtime < (now - STALE_AFTER).timestamp())
    };
    let stale: Vec<&String> = record.temporary_files.iter().filter(is_stale).collect();
    let first = stale.first()?;
    Some(format!(
        "{} that look like what rsync leaves when it is stopped are more than a day old, the first \
         is {first}; a push with `--delete` removes them if they are nobody's",
        counted(stale.len(), "file")
    ))
}

/// What only a person can settle about failed pushes.
fn evidence(torn: &TornMark) -> Vec<String> {
    let unhealed = torn.unhealed().into_iter().map(|(client, request, path)| {
        format!(
            "the failed push of {client} to {request} left the directory {path} unfinished, and \
             {UNHEALED_LIMIT} good pushes to that place have not finished it: it may be another \
             job's, or excluded by now; repeat that job, or if the directory is right as it is, \
             run `release --torn`"
        )
    });
    let mut addresses = torn.only_by_address();
    addresses.sort_unstable();
    addresses.dedup();
    let by_address = (!addresses.is_empty()).then(|| {
        format!(
            "only a push from the same {} that does the same or more makes up for a failed one; \
             where a client's address changes, let it log in (`auth users` in rsyncd.conf), or run \
             `release --torn`",
            addresses.join(", ")
        )
    });
    unhealed.chain(by_address).collect()
}

/// Pushes that again and again bring no complete snapshot.
fn shortfall(shortfall: &Shortfall) -> Option<String> {
    let Shortfall { pushes, since, status, because } = shortfall;
    if *pushes < SHORTFALL_LIMIT {
        return None;
    }
    let remedy = match (status, because) {
        (23, _) => {
            "files could not be read or written: the client's output and rsyncd's log name them; \
             if they may be missing, exclude them, or add 23 to `snapshot_on_exit`"
        }
        (25, _) => {
            "the client's `--max-delete` stopped it from removing what is gone (the client itself \
             may report 0): raise that, or add 25 to `snapshot_on_exit`"
        }
        (_, TransferReason::ClientPartial) => {
            "the client's output names the files; if they may be missing, exclude them, or add 23 \
             to `snapshot_on_exit`"
        }
        (_, TransferReason::ClientUnfinished) => {
            "see what keeps that client from finishing its backup"
        }
        (_, TransferReason::Torn { .. }) => {
            "repeat that push, or run `release --torn` if its client never comes back"
        }
        (_, TransferReason::Running { .. }) => {
            "let pushes to this module overlap less, or give each a module of its own"
        }
        (_, TransferReason::NotInLedger) => "pre-xfer could not do its work: its log lines say why",
        _ => {
            "see the client's output and rsyncd's log; `partial_on_exit` makes partial snapshots \
             of such pushes"
        }
    };
    Some(format!(
        "the last {pushes} pushes, since {}, ended with status {status} and brought no complete \
         snapshot: {because}; {remedy}",
        since.format("%FT%TZ")
    ))
}

fn describe_torn(torn: &TornMark) -> String {
    let since = torn.since.format("%FT%TZ");
    // The daemon knows no negative status: the hook did not run, or the state was lost.
    let end = match torn.status {
        status @ 0.. => format!("a transfer ended with status {status}"),
        _ => "it is not known how the last transfer ended".to_string(),
    };
    let requests = torn.requests();
    if requests.is_empty() {
        return format!(
            "torn since {since}, so the module may be a mixture of old and new files: {end}, and \
             none has ended well and changed anything since; the next push that ends well, a \
             `snapshot` that finds the module equal to the newest complete one, or `release \
             --torn`, ends this"
        );
    }
    format!(
        "torn since {since}, so the module may be a mixture of old and new files: {end}; not \
         repeated yet: the push of {}; if it will never come, `release --torn`",
        requests.join(", of ")
    )
}

/// How old the newest complete snapshot is, against `max_age`.
fn age(
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
