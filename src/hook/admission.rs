//! The beginning of a transfer: it is let in, waits, or is turned away.
//!
//! The hook first finds out whether the push would rewrite snapshots, before anything can fail.
//! Then the push waits until no run reads the live tree. Under the ledger's lock, the hook sees
//! that the gate is open, checks the push once more, and enters it in the ledger. A run closes the
//! gate under the same lock, so no run begins to read while a push begins. Only deliberate refusals
//! turn a client away. After any other failure here the client's backup goes on, and the next
//! snapshot is partial.

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::config::settings::Settings;
use crate::decide::boot_time::BootTime;
use crate::decide::grade::Grade;
use crate::decide::root_overlap::Opener;
use crate::hook::shared_files::{SharedFileChecks, refused};
use crate::hook::snapshot_directory::refused_for_snapshots;
use crate::hook::transfer_request::{NOTHING, TransferRequest};
use crate::hook::waiting_client::{WaitingClient, wait_within};
use crate::module::target::Target;
use crate::run::dead_transfers::{highest_marked, reap};
use crate::run::gate_wait::{GateAnswer, GateWait};
use crate::run::session::Session;
use crate::store::format::FORMAT;
use crate::store::ledger::Ledger;
use crate::store::ledger_entry::LedgerEntry;
use crate::store::one_gateway;
use crate::store::root::SnapshotRoot;
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::system::process::Process;
use crate::tell::error::{Error, Result};

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The transfer is in the ledger and may begin.
    Entered,
    /// The transfer is turned away, and the client gets this sentence.
    Refused(String),
}

/// The sentence for a client whose push could change or delete snapshots themselves.
const HOLDS_SNAPSHOTS: &str = "this module reaches snapshots of another one, which a push could \
    destroy; please push to the module itself (to the administrator: `rsyncd-snapshot check` says \
    what to change)";

/// This sentence is only logged, because the client is gone.
const ENDED: &str = "the connection has ended";

/// What the client of a second gateway is told.
const OTHER_GATEWAY: &str = "another machine serves this module, too, and has not settled a push: \
                             the log of this server says what to do";

/// Lets a transfer in, or turns it away.
///
/// # Errors
/// If the transfer cannot be entered in the ledger. The caller lets it begin all the same.
pub(crate) fn admit(
    target: &Target,
    settings: &Settings,
    request: &TransferRequest,
    clock: &Clock,
) -> Result<Admission> {
    let began = Instant::now();
    let target = &target.clone().opened_by(request.opener());
    if target.opener == Opener::Reader && !target.is_registered() {
        return admit_reader(target, request, clock);
    }
    // This push begins a new history. Afterwards the program can no longer see that an earlier one
    // was lost, so it warns now.
    if let Some(lost) = target.lost_history() {
        log::warn!("{}: {lost}", target.label());
    }
    let nesting = target.check_nesting_in_hook();
    if let Err(refusal) = &nesting
        && request.arguments.kind.writes()
        && target.reaches_snapshots()
    {
        log::error!("{}: {refusal}", target.label());
        return Ok(Admission::Refused(HOLDS_SNAPSHOTS.to_string()));
    }
    let opened = nesting.and_then(|()| target.open_root());
    let checks = SharedFileChecks::default();
    let why = refused_for_snapshots(&target.module_path, request)
        .or_else(|| refused(target, settings, opened.as_ref().ok(), request, &checks));
    let root = match (opened, why) {
        (Ok(root), None) => root,
        (Ok(root), Some(why)) => {
            return Ok(turn_away(Session { target, root: &root, clock }, request, why));
        }
        // The refusal cannot be entered in the ledger, but the snapshots are safe.
        (Err(_), Some(why)) => return Ok(Admission::Refused(why)),
        (Err(error), None) => return Err(error),
    };
    let session = Session { target, root: &root, clock };
    if request.path == NOTHING {
        return Ok(turn_away(session, request, ENDED.to_string()));
    }
    note_pre_xfer(session);
    wait_at_gate(session, settings, request, &checks, began)
}

/// Waits until the gate is open, and enters the transfer in the ledger.
fn wait_at_gate(
    session: Session,
    settings: &Settings,
    request: &TransferRequest,
    checks: &SharedFileChecks,
    began: Instant,
) -> Result<Admission> {
    let Session { target, root, clock } = session;
    // Few pushes have to wait, so this is made only when one does.
    let waiting = OnceCell::new();
    let wait = GateWait {
        deadline: &|| began + longest_wait(target, settings, request),
        is_gone_after: &|pause| waiting.get_or_init(WaitingClient::new).is_gone_after(pause),
    };
    let waited = match request.arguments.kind.writes() {
        true => wait.until_open(session)?,
        false => GateAnswer::Open(target.open_ledger(root)?),
    };
    match waited {
        // A run may have made the first snapshot since the first check.
        GateAnswer::Open(ledger) => match refused(target, settings, Some(root), request, checks) {
            None => enter(session, ledger, request),
            Some(why) => {
                drop(ledger);
                Ok(turn_away(session, request, why))
            }
        },
        GateAnswer::StaysClosed => {
            Ok(turn_away(session, request, retry_message(target, root, clock.now())))
        }
        GateAnswer::Gone => Ok(turn_away(session, request, ENDED.to_string())),
    }
}

/// Lets a transfer in that cannot write, and so needs no root. Its entry is in a ledger outside the
/// root; without it, post-xfer could not tell the transfer from a push.
fn admit_reader(target: &Target, request: &TransferRequest, clock: &Clock) -> Result<Admission> {
    let is_ended = request.path == NOTHING;
    if !request.reads_only {
        enter_reader(target, request, is_ended, clock);
    }
    Ok(if is_ended { Admission::Refused(ENDED.to_string()) } else { Admission::Entered })
}

/// Enters a transfer that reads in the ledger outside the root. If that fails, post-xfer takes it
/// for a push that changed nothing.
fn enter_reader(target: &Target, request: &TransferRequest, refused: bool, clock: &Clock) {
    let enter = || {
        let entry = entry(request, refused, clock)?;
        Ledger::apart(target.memory.ledgers(&target.module_path))?.enter_reader(&entry)
    };
    if let Err(error) = enter() {
        log::debug!(
            "{}: a transfer that reads could not be entered in the ledger of running transfers: \
             {error}",
            target.label()
        );
    }
}

/// Notes that pre-xfer runs for this module, so post-xfer knows that a transfer without an entry is
/// one that pre-xfer failed to enter.
fn note_pre_xfer(session: Session) {
    if let Err(error) = State::update(session.root.private(), |state| state.has_pre_xfer = true) {
        log::error!("{}: {error}", session.label());
    }
}

fn enter(session: Session, ledger: Ledger, request: &TransferRequest) -> Result<Admission> {
    // An earlier transfer may have been served by a process of the same number.
    reap(session, &ledger)?;
    if request.arguments.kind.writes()
        && let Err(refusal) = one_gateway::check(session.root, &ledger.entries()?)
    {
        drop(ledger);
        log::error!("{}: {refusal}", session.label());
        return Ok(turn_away(session, request, OTHER_GATEWAY.to_string()));
    }
    let entry = match entry(request, false, session.clock) {
        Ok(entry) => entry,
        // The connection has ended meanwhile. rsyncd would run no post-xfer after this transfer if
        // it went on.
        Err(Error::Environment { .. }) if Process::own()?.is_some() => {
            return Ok(Admission::Refused(ENDED.to_string()));
        }
        Err(error) => return Err(error),
    };
    ledger.begin(session.root, entry, highest_marked(session.root))?;
    Ok(Admission::Entered)
}

/// Turns a transfer away. Its entry in the ledger tells post-xfer that nothing was transferred.
fn turn_away(session: Session, request: &TransferRequest, why: String) -> Admission {
    if let Err(error) = enter_refusal(session, request) {
        log::error!(
            "{}: it cannot be recorded that this push was turned away, so it may be taken for one \
             that failed half-way: {error}",
            session.label()
        );
    }
    Admission::Refused(why)
}

/// Enters in the ledger that a transfer which could change nothing was turned away.
///
/// # Errors
/// If it cannot be entered.
pub(crate) fn note_refusal(
    target: &Target,
    request: &TransferRequest,
    clock: &Clock,
) -> Result<()> {
    if !target.is_registered() {
        enter_reader(target, request, true, clock);
        return Ok(());
    }
    let root = target.open_root()?;
    State::update(root.private(), |state| state.has_pre_xfer = true)?;
    enter_refusal(Session { target, root: &root, clock }, request)
}

fn enter_refusal(session: Session, request: &TransferRequest) -> Result<()> {
    let ledger = session.target.open_ledger(session.root)?;
    // An earlier transfer may have been served by a process of the same number.
    reap(session, &ledger)?;
    let entry = entry(request, true, session.clock)?;
    ledger.begin(session.root, entry, highest_marked(session.root)).map(drop)
}

fn entry(request: &TransferRequest, refused: bool, clock: &Clock) -> Result<LedgerEntry> {
    let TransferRequest { arguments, forbidden, path, client, pid, .. } = request;
    let (owner, worker) = Process::of_connection(*pid)?;
    Ok(LedgerEntry {
        format: FORMAT,
        kind: arguments.kind,
        refused,
        began: clock.exact_now(),
        began_at: BootTime::now(),
        sequence: 0,
        request: path.clone(),
        rewriting: arguments.rewriting.clone(),
        job: arguments.job(),
        forbidden: *forbidden,
        client: client.clone(),
        owner,
        worker,
    })
}

/// How long the push may wait: the shortest of `push_wait`, the client's timeout and the module's
/// `timeout`.
fn longest_wait(target: &Target, settings: &Settings, request: &TransferRequest) -> Duration {
    let of_module = || {
        let conf = settings.rsyncd().ok()?;
        let value = conf.module(target.name.as_deref()?)?.get("timeout")?.to_vec();
        String::from_utf8(value).ok()?.trim().parse().ok().filter(|seconds| *seconds > 0)
    };
    let timeouts = request.arguments.timeout_seconds().into_iter().chain(of_module());
    let limit = Duration::from_secs(target.policy.push_wait.seconds());
    timeouts.map(wait_within).fold(limit, Duration::min)
}

fn retry_message(target: &Target, root: &SnapshotRoot, now: DateTime<Utc>) -> String {
    let minutes = usual_minutes(target, root, now).unwrap_or(1);
    let plural = if minutes == 1 { "" } else { "s" };
    format!(
        "a snapshot of this module is being taken; please come back in {minutes} minute{plural}"
    )
}

/// How long the newest snapshot took, rounded up.
fn usual_minutes(target: &Target, root: &SnapshotRoot, now: DateTime<Utc>) -> Option<u64> {
    let list = SnapshotList::read(root, &target.policy.time_zone).ok()?;
    let seconds = list.newest(Grade::Partial, now)?.record.as_ref()?.duration_seconds;
    Some(((seconds / 60.0).ceil() as u64).clamp(1, 24 * 60))
}
