//! The beginning of a transfer: what is let in, what waits, what is turned away.
//!
//! Order for a push: look whether it would rewrite history, before anything can fail; wait until no
//! run reads the module's tree, look once more, and enter it in the ledger, these in one step under
//! the ledger's lock. A run closes the gate under the same lock, so none begins to read while a
//! push is about to begin. Only deliberate refusals turn a client away: whatever else goes wrong
//! here costs the snapshot its grade, not the client its backup.

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::config::settings::Settings;
use crate::decide::boot_time::BootTime;
use crate::decide::grade::Grade;
use crate::decide::root_overlap::Opener;
use crate::hook::shared_files::{SharedFileChecks, refused};
use crate::hook::transfer_request::{NOTHING, TransferRequest};
use crate::hook::waiting_client::{WaitingClient, patience};
use crate::module::target::Target;
use crate::run::reap::{highest_marked, reap};
use crate::store::format::FORMAT;
use crate::store::gate::Gate;
use crate::store::ledger::{Ledger, LedgerEntry};
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::system::process::Process;
use crate::tell::error::{Error, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(200);

/// The answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is in the ledger and may begin.
    Entered,
    /// It is turned away, and told this.
    Refused(String),
}

/// What a client is told whose push could change or delete snapshots themselves.
const HOLDS_SNAPSHOTS: &str = "this module reaches snapshots of another one, which a push could destroy; please push to the module itself (to the administrator: `rsyncd-snapshot check` says what to change)";

/// What nobody will read any more.
const ENDED: &str = "the connection has ended";

/// Lets a transfer in, or turns it away.
///
/// # Errors
/// If it cannot be entered in the ledger; it may begin all the same.
pub(crate) fn admit(
    target: &Target,
    settings: &Settings,
    applicant: &TransferRequest,
    clock: &Clock,
) -> Result<Admission> {
    let began = Instant::now();
    let target = &target.clone().opened_by(applicant.opener());
    if target.opener == Opener::Reader && !target.is_registered() {
        return admit_reader(target, applicant, clock);
    }
    // The push begins a new one, and nobody could tell afterwards.
    if let Some(lost) = target.lost_history() {
        log::warn!("{}: {lost}", target.label());
    }
    let nesting = target.check_nesting_in_hook();
    if let Err(refusal) = &nesting
        && applicant.arguments.kind.writes()
        && target.reaches_snapshots()
    {
        log::error!("{}: {refusal}", target.label());
        return Ok(Admission::Refused(HOLDS_SNAPSHOTS.to_string()));
    }
    let opened = nesting.and_then(|()| target.open_root());
    let looks = SharedFileChecks::default();
    let why = refused(target, settings, opened.as_ref().ok(), applicant, &looks);
    let root = match (opened, why) {
        (Ok(root), None) => root,
        (Ok(root), Some(why)) => return Ok(turn_away(target, &root, applicant, why, clock)),
        // Nothing can be entered, but history is safe.
        (Err(_), Some(why)) => return Ok(Admission::Refused(why)),
        (Err(error), None) => return Err(error),
    };
    if applicant.request == NOTHING {
        return Ok(turn_away(target, &root, applicant, ENDED.to_string(), clock));
    }
    note_pair(target, &root);
    // Most pushes wait for nothing.
    let waiting = OnceCell::new();
    let mut pause = FIRST_PAUSE;
    loop {
        let ledger = target.open_ledger(&root)?;
        if !applicant.arguments.kind.writes() || !Gate::is_closed(&root, &ledger)? {
            // The first snapshot may have been made while we waited.
            return match refused(target, settings, Some(&root), applicant, &looks) {
                None => enter(target, &root, ledger, applicant, clock),
                Some(why) => {
                    drop(ledger);
                    Ok(turn_away(target, &root, applicant, why, clock))
                }
            };
        }
        drop(ledger);
        let (deadline, caller) = waiting.get_or_init(|| {
            (began + patience_with(target, settings, applicant), WaitingClient::new())
        });
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let why = come_back(target, &root, clock.now());
            return Ok(turn_away(target, &root, applicant, why, clock));
        }
        if caller.is_gone_after(pause.min(left)) {
            return Ok(turn_away(target, &root, applicant, ENDED.to_string(), clock));
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// What cannot write needs no root. That it came is noted apart, or the hook after it could not
/// tell it from a push.
fn admit_reader(target: &Target, applicant: &TransferRequest, clock: &Clock) -> Result<Admission> {
    let is_ended = applicant.request == NOTHING;
    if !applicant.reads_only {
        note_reader(target, applicant, is_ended, clock);
    }
    Ok(if is_ended { Admission::Refused(ENDED.to_string()) } else { Admission::Entered })
}

/// Where it cannot be noted, its hook takes it for a push that changed nothing.
fn note_reader(target: &Target, applicant: &TransferRequest, refused: bool, clock: &Clock) {
    let note = || {
        let entry = entry(applicant, refused, clock)?;
        Ledger::apart(target.memory.ledgers(&target.module_path))?.enter_reader(&entry)
    };
    if let Err(error) = note() {
        log::debug!("{}: a transfer that reads is not noted: {error}", target.label());
    }
}

/// post-xfer has to know that the transfers that it finds no entry of are not all there are.
fn note_pair(target: &Target, root: &SnapshotRoot) {
    if let Err(error) = State::update(root.private(), |state| state.paired = true) {
        log::error!("{}: {error}", target.label());
    }
}

fn enter(
    target: &Target,
    root: &SnapshotRoot,
    ledger: Ledger,
    applicant: &TransferRequest,
    clock: &Clock,
) -> Result<Admission> {
    // An earlier transfer may have been served by a process of the same number.
    reap(target, root, &ledger, clock)?;
    let entry = match entry(applicant, false, clock) {
        Ok(entry) => entry,
        // The connection has ended while we waited, and a transfer that goes on all the same would
        // be followed by no hook.
        Err(Error::Environment { .. }) if Process::own()?.is_some() => {
            return Ok(Admission::Refused(ENDED.to_string()));
        }
        Err(error) => return Err(error),
    };
    ledger.begin(root, &entry, highest_marked(root))?;
    Ok(Admission::Entered)
}

/// The hook that follows has to know that nothing was transferred.
fn turn_away(
    target: &Target,
    root: &SnapshotRoot,
    applicant: &TransferRequest,
    why: String,
    clock: &Clock,
) -> Admission {
    let enter = || {
        let ledger = target.open_ledger(root)?;
        reap(target, root, &ledger, clock)?;
        ledger.begin(root, &entry(applicant, true, clock)?, highest_marked(root))
    };
    if let Err(error) = enter() {
        log::error!(
            "{}: it cannot be recorded that this push was turned away, so it may be taken for one that failed half-way: {error}",
            target.label()
        );
    }
    Admission::Refused(why)
}

/// Notes that a transfer is turned away that could change nothing.
///
/// # Errors
/// If it cannot be entered in the ledger.
pub(crate) fn note_refusal(
    target: &Target,
    applicant: &TransferRequest,
    clock: &Clock,
) -> Result<()> {
    if !target.is_registered() {
        note_reader(target, applicant, true, clock);
        return Ok(());
    }
    let root = target.open_root()?;
    State::update(root.private(), |state| state.paired = true)?;
    let ledger = target.open_ledger(&root)?;
    // An earlier push may have been served by a process of the same number.
    reap(target, &root, &ledger, clock)?;
    ledger.begin(&root, &entry(applicant, true, clock)?, highest_marked(&root))
}

fn entry(applicant: &TransferRequest, refused: bool, clock: &Clock) -> Result<LedgerEntry> {
    let TransferRequest { arguments, forbidden, request, client, pid, .. } = applicant;
    // First: once the connection's process is dead, nobody descends from it any more.
    let worker = Process::branch_of(*pid)?;
    let owner = Process::of(*pid)?.ok_or_else(|| Error::Environment {
        variable: "RSYNC_PID",
        problem: format!("names process {pid}, which does not exist"),
    })?;
    Ok(LedgerEntry {
        format: FORMAT,
        kind: arguments.kind,
        refused,
        began: clock.exact_now(),
        began_at: BootTime::now(),
        sequence: 0,
        request: request.clone(),
        rewriting: arguments.rewriting.clone(),
        job: arguments.job(),
        forbidden: *forbidden,
        client: client.clone(),
        owner,
        worker,
    })
}

/// How long the push may wait: no longer than the policy says, nor than its client or the module's
/// own `timeout`.
fn patience_with(target: &Target, settings: &Settings, applicant: &TransferRequest) -> Duration {
    let of_module = || {
        let conf = settings.rsyncd().ok()?;
        let value = conf.module(target.name.as_deref()?)?.get("timeout")?.to_vec();
        String::from_utf8(value).ok()?.trim().parse().ok().filter(|seconds| *seconds > 0)
    };
    let timeouts = applicant.arguments.timeout_seconds().into_iter().chain(of_module());
    let limit = Duration::from_secs(target.policy.push_wait.seconds());
    timeouts.map(patience).fold(limit, Duration::min)
}

fn come_back(target: &Target, root: &SnapshotRoot, now: DateTime<Utc>) -> String {
    let minutes = usual_minutes(target, root, now).unwrap_or(1);
    let plural = if minutes == 1 { "" } else { "s" };
    format!(
        "a snapshot of this module is being taken; please come back in {minutes} minute{plural}"
    )
}

/// How long the newest snapshot took, rounded up.
fn usual_minutes(target: &Target, root: &SnapshotRoot, now: DateTime<Utc>) -> Option<u64> {
    let catalog = SnapshotList::read(root, &target.policy.time_zone).ok()?;
    let seconds = catalog.newest(Grade::Partial, now)?.record.as_ref()?.duration_seconds;
    Some(((seconds / 60.0).ceil() as u64).clamp(1, 24 * 60))
}
