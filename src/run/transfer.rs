//! The end of a transfer, as the ledger knows it.
//!
//! A transfer that changed nothing is struck out at once. A push stays in the ledger as running
//! until its torn mark, or the removal of one, is on disk. After that it stays there as ended, with
//! the process of its hook, until its snapshot is safe or marked due. So at whatever instant the
//! hook is killed, the next run finds what is left to do.

use std::fs::File;
use std::os::fd::AsFd;

use chrono::{DateTime, SubsecRound, Utc};

use crate::config::environment::FinishedTransfer;
use crate::config::settings::Settings;
use crate::decide::boot_time::BootTime;
use crate::decide::client::Client;
use crate::decide::grade::Grade;
use crate::decide::push_history::{EndedPush, PushOutcome};
use crate::decide::root_overlap::Opener;
use crate::decide::transfer_decision::{self, end_of_transfer, grade_alone};
use crate::decide::transfer_verdict::TransferVerdict;
use crate::decide::verdict_facts::{
    AllowedSnapshot, Asked, ClientCompletion, DueReason, LedgerCoverage, Occasion, RunningPushes,
    TransferEnd, VerdictFacts, VerdictStage,
};
use crate::module::target::Target;
use crate::run::dead_transfers::{highest_marked, reap};
use crate::run::request::Request;
use crate::run::session::Session;
use crate::store::ledger::Ledger;
use crate::store::ledger_entry::{LedgerEntry, StoredEntry};
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, State};
use crate::system::clock::Clock;
use crate::system::process::Process;
use crate::tell::error::{Error, Result};

/// What the ledger says of a transfer that has ended.
#[derive(Debug)]
pub(crate) enum LedgerAnswer {
    /// The transfer is no push, or pre-xfer turned it away.
    NoPush,
    /// The transfer was a push, with this entry.
    Push(Box<StoredEntry>),
    /// The transfer was a push, and its entry has been struck out.
    AlreadyStruck,
    /// pre-xfer runs for this module, but has not entered this transfer. So other pushes without an
    /// entry may be running, too.
    Missing,
    /// pre-xfer does not run for this module.
    NoPreXfer,
}

/// A transfer that has ended, with nothing known of the root yet.
pub(crate) struct EndedTransfer<'a> {
    pub target: &'a Target,
    /// What rsyncd tells its hook about the transfer.
    pub transfer: &'a FinishedTransfer,
}

impl EndedTransfer<'_> {
    /// The status that the transfer ended with, and whether that allows a complete snapshot, a
    /// partial one, or none.
    pub(crate) fn status_and_allowed_snapshot(&self) -> (i32, AllowedSnapshot) {
        end_of_transfer(self.transfer.status, self.completion(), self.target.policy.statuses())
    }

    fn completion(&self) -> ClientCompletion {
        completion(self.target)
    }

    /// The end of the push for the history of pushes; `None` if it is not known whether the
    /// transfer was a push. Without pre-xfer, that is never known, and a listing counts as a push.
    /// `has_more`: the client has more to send.
    pub(crate) fn ended_push(
        &self,
        answer: &LedgerAnswer,
        has_more: bool,
        clock: &Clock,
    ) -> Option<EndedPush> {
        let (status, allowed) = self.status_and_allowed_snapshot();
        let outcome = match (allowed, answer) {
            (AllowedSnapshot::Complete, _) if has_more => PushOutcome::Part,
            (AllowedSnapshot::Complete, LedgerAnswer::Missing) => return None,
            (AllowedSnapshot::Complete, _) => PushOutcome::Good,
            _ => PushOutcome::Failed { status, free_bytes: free_bytes(self.target) },
        };
        let entry = match answer {
            LedgerAnswer::Push(stored) => stored.entry.as_ref(),
            _ => None,
        };
        let seconds = entry.and_then(|entry| {
            let now = BootTime::now();
            let passed = now.seconds().saturating_sub(entry.began_at.seconds());
            let is_known = now.is_certain() && now.boot == entry.began_at.boot;
            u64::try_from(passed).ok().filter(|_| is_known)
        });
        let who = self.transfer.connection.client.clone();
        Some(EndedPush { who, time: ended_now(clock), outcome, seconds })
    }

    /// The verdict from what is known of the transfer alone. `brought_unfinished`: whether the file
    /// that says that the backup is unfinished came with this transfer.
    pub(crate) fn verdict(
        &self,
        answer: &LedgerAnswer,
        brought_unfinished: bool,
    ) -> TransferVerdict {
        let (status, allowed) = self.status_and_allowed_snapshot();
        let entry = match answer {
            LedgerAnswer::Push(stored) => stored.entry.as_ref(),
            _ => None,
        };
        let push = entry.map(LedgerEntry::push);
        let occasion = Occasion::Transfer(TransferEnd {
            allowed,
            status,
            push: push.as_ref(),
            is_no_push: matches!(answer, LedgerAnswer::NoPush),
            forbidden: entry.and_then(|entry| entry.forbidden),
            brought_unfinished,
        });
        let coverage = match answer {
            LedgerAnswer::NoPreXfer => LedgerCoverage::None,
            LedgerAnswer::Missing => LedgerCoverage::TransferMissing,
            LedgerAnswer::NoPush | LedgerAnswer::Push(_) | LedgerAnswer::AlreadyStruck => {
                LedgerCoverage::All
            }
        };
        transfer_decision::verdict(&VerdictFacts {
            occasion,
            stage: VerdictStage::BeforeComparison,
            coverage,
            has_pre_xfer: coverage != LedgerCoverage::None,
            running: RunningPushes::default(),
            has_waited: false,
            has_deferred: false,
            completion: self.completion(),
            torn: None,
            due: None,
            statuses: self.target.policy.statuses(),
        })
    }
}

/// What the client says in the module about its backup. A module that cannot be read counts as
/// finished here; the run reports the error.
fn completion(target: &Target) -> ClientCompletion {
    let module = File::open(&target.module_path);
    module.map_or(ClientCompletion::Done, |module| ClientCompletion::of_module(module.as_fd()))
}

fn free_bytes(target: &Target) -> Option<u64> {
    let facts = rustix::fs::statvfs(&target.module_path).ok()?;
    Some(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// The time to the millisecond: two pushes may end in one second.
fn ended_now(clock: &Clock) -> DateTime<Utc> {
    clock.exact_now().trunc_subsecs(3)
}

/// The end of a push without a daemon, as `snapshot --status` reports it.
pub(crate) fn told_push(target: &Target, status: i32, clock: &Clock) -> EndedPush {
    let statuses = target.policy.statuses();
    let outcome = match grade_alone(status, completion(target), statuses) {
        Grade::Complete => PushOutcome::Good,
        Grade::Partial => PushOutcome::Failed { status, free_bytes: free_bytes(target) },
    };
    EndedPush { who: Client::default(), time: ended_now(clock), outcome, seconds: None }
}

/// Strikes a transfer that wrote nothing out of the ledger.
///
/// # Errors
/// If the ledger cannot be changed.
pub(crate) fn strike(target: &Target, answer: &LedgerAnswer) -> Result<()> {
    let LedgerAnswer::Push(stored) = answer else { return Ok(()) };
    target.open_ledger(&target.open_root()?)?.strike(stored)
}

/// Looks the transfer up in the ledger, and strikes it out if it needs no more work. Creates no
/// root: the run decides about that, after it has looked for a lost history.
pub(crate) fn look_up(
    target: &Target,
    settings: &Settings,
    transfer: &FinishedTransfer,
) -> Result<LedgerAnswer> {
    // pre-xfer enters a transfer that reads from a module without a root in a ledger outside any
    // root.
    if !target.is_registered() && strike_reader(target, transfer)? {
        return Ok(LedgerAnswer::NoPush);
    }
    let root = match target.look_at_root() {
        Ok(root) if root.is_registered() => root,
        Ok(_) => return Ok(LedgerAnswer::NoPreXfer),
        // The first run creates the root.
        Err(error) if error.is_not_found() => return Ok(LedgerAnswer::NoPreXfer),
        Err(error) => return Err(error),
    };
    let ledger = match target.open_ledger(&root) {
        Ok(ledger) => ledger,
        // An earlier version, which had no ledger, has created the root.
        Err(error) if error.is_not_found() => return Ok(LedgerAnswer::NoPreXfer),
        Err(error) => return Err(error),
    };
    let found = transfer.connection.pid.map(|pid| ledger.running(pid)).transpose()?.flatten();
    match found {
        Some(stored) if stored.writes() => Ok(LedgerAnswer::Push(Box::new(stored))),
        Some(stored) => ledger.strike(&stored).map(|()| LedgerAnswer::NoPush),
        None if has_pre_xfer(target, settings, &root)? => Ok(LedgerAnswer::Missing),
        None => Ok(LedgerAnswer::NoPreXfer),
    }
}

/// The entry of a transfer that reads from a module without a root, and the ledger that holds it.
fn reader(target: &Target, transfer: &FinishedTransfer) -> Result<Option<(Ledger, StoredEntry)>> {
    let places = target.memory.ledgers(&target.module_path);
    let (Some(pid), true) = (transfer.connection.pid, places.iter().any(|path| path.is_dir()))
    else {
        return Ok(None);
    };
    let ledger = Ledger::apart(places)?;
    let stored = ledger.running(pid)?.filter(|stored| !stored.writes());
    Ok(stored.map(|stored| (ledger, stored)))
}

/// Whether pre-xfer has noted that the transfer reads from a module without a root.
pub(crate) fn is_noted_reader(target: &Target, transfer: &FinishedTransfer) -> bool {
    !target.is_registered() && reader(target, transfer).is_ok_and(|found| found.is_some())
}

/// Strikes out the entry of a transfer that reads from a module without a root. Returns whether
/// there was one.
fn strike_reader(target: &Target, transfer: &FinishedTransfer) -> Result<bool> {
    match reader(target, transfer)? {
        Some((ledger, stored)) => ledger.strike(&stored).map(|()| true),
        None => Ok(false),
    }
}

/// [`strike_reader`] for a hook that does nothing else; an error is only logged.
pub(crate) fn forget_reader(target: &Target, transfer: &FinishedTransfer) {
    if let Err(error) = strike_reader(target, transfer) {
        log::debug!(
            "{}: the entry of this transfer could not be removed from the ledger: {error}",
            target.label()
        );
    }
}

/// Leaves the snapshot of a push to the next push of its client, which has more to send. The root
/// is marked due before the push is struck out, so that a later run takes a snapshot if the client
/// never pushes again. An earlier due mark keeps its time, or a client that begins again and again
/// would never be overdue.
pub(crate) fn leave_to_client(
    target: &Target,
    answer: LedgerAnswer,
    (reason, asked): (DueReason, Asked),
    push: Option<EndedPush>,
    clock: &Clock,
) -> Result<LedgerAnswer> {
    let root = target.clone().opened_by(Opener::Push).open_root()?;
    let marked = BootTime::now();
    State::update(root.private(), |state| {
        state.due = Some(match state.due.take() {
            Some(existing) => DueMark { marked, ..existing },
            None => DueMark { since: clock.now(), marked, asked, reason },
        });
        if let Some(push) = &push {
            state.pushes.note(push, |client| target.policy.watches(client));
        }
    })?;
    if let LedgerAnswer::Push(stored) = answer {
        target.open_ledger(&root)?.strike(&stored)?;
        return Ok(LedgerAnswer::AlreadyStruck);
    }
    Ok(answer)
}

/// Whether pre-xfer runs for the module: it has done so before, and rsyncd.conf still has a
/// `pre-xfer exec`.
fn has_pre_xfer(target: &Target, settings: &Settings, root: &SnapshotRoot) -> Result<bool> {
    match State::read(root.private()) {
        Ok(state) if state.has_pre_xfer => {}
        // If the state is damaged, the run that follows assumes the worst anyway.
        Ok(_) | Err(Error::Damaged { .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    let conf = settings.rsyncd().ok();
    let module = target.name.as_deref().and_then(|name| conf?.module(name));
    // Any command counts as pre-xfer, because it may be a script that runs this program.
    let is_removed =
        module.is_some_and(|module| module.get("pre-xfer exec").is_none_or(<[u8]>::is_empty));
    if is_removed {
        State::update(root.private(), |state| state.has_pre_xfer = false)?;
    }
    Ok(!is_removed)
}

/// Notes in the ledger that the request's transfer has ended and that this process works for it,
/// after the entries of dead processes are struck out. Returns the entry.
pub(crate) fn note_end(session: Session, request: &Request) -> Result<Option<StoredEntry>> {
    let Session { target, root, clock } = session;
    let ledger = target.open_ledger(root)?;
    reap(session, &ledger)?;
    let Some(status) = request.status else { return Ok(None) };
    let process = match Process::own() {
        // A request without an entry has none to take over, and its snapshot needs none.
        Err(error) if request.ledger_entry.is_none() => {
            log::warn!(
                "{}: the end of the transfer could not be noted in the ledger of running \
                 transfers: {error}",
                target.label()
            );
            None
        }
        process => process?,
    };
    let Some(process) = process else { return Ok(None) };
    match &request.ledger_entry {
        Some(stored) => ledger.end(stored, status, process).map(Some),
        // A detached process may be killed, and rsyncd does not wait for it: the next run has to
        // find this entry.
        None if request.report_taken_over.is_some() => {
            let client = request.client.clone().unwrap_or_default();
            let entry = LedgerEntry::without_pre_xfer(client, process, clock);
            ledger.enter_ended(root, entry, status, highest_marked(root)).map(Some)
        }
        None => Ok(None),
    }
}

/// Strikes out a transfer whose snapshot is safe, marked due, or not wanted. After any other
/// failure the entry stays in the ledger; once this process has ended, the next run marks it due.
pub(crate) fn settle<T>(session: Session, stored: &StoredEntry, result: &Result<T>) -> Result<()> {
    match result {
        Ok(_) | Err(Error::Busy { .. } | Error::Queue { .. }) => {
            session.target.open_ledger(session.root)?.strike(stored)
        }
        Err(_) => Ok(()),
    }
}

/// Removes the torn mark of a module whose tree the administrator has found to be right. Returns
/// false if there was none. Entries of dead processes are removed from the ledger first, or the
/// next run would mark the module torn again for them.
pub(crate) fn release_torn(target: &Target, clock: &Clock) -> Result<bool> {
    let root = target.open_root()?;
    let ledger = target.open_ledger(&root)?;
    reap(Session { target, root: &root, clock }, &ledger)?;
    let mut mark = None;
    State::update(root.private(), |state| mark = state.torn.take())?;
    let is_remembered =
        target.memory.recall(&target.module_path).is_some_and(|memory| memory.torn.is_some());
    if is_remembered {
        target.memory.change(&target.module_path, |memory| memory.torn = None)?;
    }
    Ok(mark.is_some() || is_remembered)
}
