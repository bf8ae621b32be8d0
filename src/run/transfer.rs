//! The end of a transfer, as the ledger knows it.
//!
//! What changed nothing is struck out, and that is all. A push stays in the ledger as one that is
//! running until its torn mark, or the end of one, is on disk; then as one that has ended, in the
//! care of its hook, until its snapshot is safe or owed. So whatever instant the hook is killed at,
//! the next run finds what is left to do.

use std::fs::File;
use std::os::fd::AsFd;

use crate::config::environment::FinishedTransfer;
use crate::config::settings::Settings;
use crate::decide::boot_time::BootTime;
use crate::decide::root_overlap::Opener;
use crate::decide::transfer_verdict::TransferVerdict;
use crate::decide::verdict::{self, end_of_transfer};
use crate::decide::verdict_facts::{
    Asked, ClientCompletion, DueReason, LedgerCoverage, Occasion, RunningPushes, TransferEnd,
    VerdictFacts, VerdictStage, Worth,
};
use crate::module::target::Target;
use crate::run::reap::{highest_marked, reap};
use crate::run::request::Request;
use crate::store::ledger::{Ledger, LedgerEntry, LedgerLine};
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, State};
use crate::system::clock::Clock;
use crate::system::process::Process;
use crate::tell::error::{Error, Result};

/// What the ledger says of a transfer that has ended.
#[derive(Debug)]
pub(crate) enum LedgerAnswer {
    /// It is no push, or pre-xfer turned it away.
    NoPush,
    /// It was a push.
    Push(Box<LedgerLine>),
    /// It was a push, and is in the ledger no more.
    AlreadyStruck,
    /// pre-xfer runs for this module, and has left no word of this transfer: others may be running,
    /// too.
    Missing,
    /// pre-xfer does not run for this module.
    Unpaired,
}

/// A transfer that has ended, before anything is known of its root.
pub(crate) struct EndedTransfer<'a> {
    /// The module.
    pub target: &'a Target,
    /// What the daemon says.
    pub transfer: &'a FinishedTransfer,
}

impl EndedTransfer<'_> {
    /// How it ended, and what that is worth.
    pub(crate) fn worth(&self) -> (i32, Worth) {
        end_of_transfer(self.transfer.status, self.completion(), self.target.policy.statuses())
    }

    /// What the client says in the module. That it cannot be read is told by the run.
    fn completion(&self) -> ClientCompletion {
        let module = File::open(&self.target.module_path);
        module.map_or(ClientCompletion::Done, |module| ClientCompletion::of_module(module.as_fd()))
    }

    /// The verdict as far as the transfer alone tells; `brought_unfinished` says whether the
    /// client's word that it has not finished came with it.
    pub(crate) fn verdict(&self, seen: &LedgerAnswer, brought_unfinished: bool) -> TransferVerdict {
        let (status, worth) = self.worth();
        let entry = match seen {
            LedgerAnswer::Push(line) => line.entry.as_ref(),
            _ => None,
        };
        let push = entry.map(LedgerEntry::push);
        let occasion = Occasion::Transfer(TransferEnd {
            worth,
            status,
            push: push.as_ref(),
            is_no_push: matches!(seen, LedgerAnswer::NoPush),
            forbidden: entry.and_then(|entry| entry.forbidden),
            brought_unfinished,
        });
        let coverage = match seen {
            LedgerAnswer::Unpaired => LedgerCoverage::None,
            LedgerAnswer::Missing => LedgerCoverage::TransferMissing,
            LedgerAnswer::NoPush | LedgerAnswer::Push(_) | LedgerAnswer::AlreadyStruck => {
                LedgerCoverage::All
            }
        };
        verdict::verdict(&VerdictFacts {
            occasion,
            moment: VerdictStage::Approach,
            coverage,
            is_paired: coverage != LedgerCoverage::None,
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

/// Strikes a transfer that wrote nothing out of the ledger.
///
/// # Errors
/// If the ledger cannot be changed.
pub(crate) fn strike(target: &Target, seen: &LedgerAnswer) -> Result<()> {
    let LedgerAnswer::Push(line) = seen else { return Ok(()) };
    target.open_ledger(&target.open_root()?)?.strike(line)
}

/// Looks the transfer up, and strikes it out if nothing more has to be done about it. Makes
/// nothing: whether the history of the module is where it was is for the run to see.
pub(crate) fn look_up(
    target: &Target,
    settings: &Settings,
    transfer: &FinishedTransfer,
) -> Result<LedgerAnswer> {
    // Of what reads from a module without a root there is a note elsewhere.
    if !target.is_registered() && strike_reader(target, transfer)? {
        return Ok(LedgerAnswer::NoPush);
    }
    let root = match target.look_at_root() {
        Ok(root) if root.is_registered() => root,
        Ok(_) => return Ok(LedgerAnswer::Unpaired),
        // The first run is going to make it.
        Err(error) if error.is_not_found() => return Ok(LedgerAnswer::Unpaired),
        Err(error) => return Err(error),
    };
    let ledger = match target.open_ledger(&root) {
        Ok(ledger) => ledger,
        // A version that had none has made the root.
        Err(error) if error.is_not_found() => return Ok(LedgerAnswer::Unpaired),
        Err(error) => return Err(error),
    };
    let found = transfer.connection.pid.map(|pid| ledger.running(pid)).transpose()?.flatten();
    match found {
        Some(line) if line.writes() => Ok(LedgerAnswer::Push(Box::new(line))),
        Some(line) => ledger.strike(&line).map(|()| LedgerAnswer::NoPush),
        None if is_paired(target, settings, &root)? => Ok(LedgerAnswer::Missing),
        None => Ok(LedgerAnswer::Unpaired),
    }
}

/// What was noted apart of a transfer that reads, with the ledger that has it.
fn reader(target: &Target, transfer: &FinishedTransfer) -> Result<Option<(Ledger, LedgerLine)>> {
    let places = target.memory.ledgers(&target.module_path);
    let (Some(pid), true) = (transfer.connection.pid, places.iter().any(|path| path.is_dir()))
    else {
        return Ok(None);
    };
    let ledger = Ledger::apart(places)?;
    let line = ledger.running(pid)?.filter(|line| !line.writes());
    Ok(line.map(|line| (ledger, line)))
}

/// Whether pre-xfer has noted that the transfer reads from a module without a root.
pub(crate) fn is_noted_reader(target: &Target, transfer: &FinishedTransfer) -> bool {
    !target.is_registered() && reader(target, transfer).is_ok_and(|found| found.is_some())
}

/// Strikes out what was noted apart of a transfer that reads; whether there was anything.
fn strike_reader(target: &Target, transfer: &FinishedTransfer) -> Result<bool> {
    match reader(target, transfer)? {
        Some((ledger, line)) => ledger.strike(&line).map(|()| true),
        None => Ok(false),
    }
}

/// The same where nothing else is done about the transfer.
pub(crate) fn forget_reader(target: &Target, transfer: &FinishedTransfer) {
    if let Err(error) = strike_reader(target, transfer) {
        log::debug!("{}: what was noted of it stays: {error}", target.label());
    }
}

/// Leaves the snapshot of a push to the next one of its client, who has more to send. Should that
/// never come, what there is becomes due: the mark is there before the push is struck out. A mark
/// that stands keeps its time, or a client that begins again and again would never be overdue.
pub(crate) fn leave_to_client(
    target: &Target,
    seen: LedgerAnswer,
    (reason, asked): (DueReason, Asked),
    clock: &Clock,
) -> Result<LedgerAnswer> {
    let root = target.clone().opened_by(Opener::Push).open_root()?;
    let marked = BootTime::now();
    State::update(root.private(), |state| {
        state.due = Some(match state.due.take() {
            Some(standing) => DueMark { marked, ..standing },
            None => DueMark { since: clock.now(), marked, asked, reason },
        });
    })?;
    if let LedgerAnswer::Push(line) = seen {
        target.open_ledger(&root)?.strike(&line)?;
        return Ok(LedgerAnswer::AlreadyStruck);
    }
    Ok(seen)
}

/// Whether pre-xfer runs for the module: it has, and rsyncd.conf does not say that it no longer
/// does.
fn is_paired(target: &Target, settings: &Settings, root: &SnapshotRoot) -> Result<bool> {
    match State::read(root.private()) {
        Ok(state) if state.paired => {}
        // A damaged one makes the run think the worst in any case.
        Ok(_) | Err(Error::Damaged { .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    let conf = settings.rsyncd().ok();
    let module = target.name.as_deref().and_then(|name| conf.as_ref()?.module(name));
    // It may well be a script that runs us.
    let is_given_up =
        module.is_some_and(|module| module.get("pre-xfer exec").is_none_or(<[u8]>::is_empty));
    if is_given_up {
        State::update(root.private(), |state| state.paired = false)?;
    }
    Ok(!is_given_up)
}

/// Notes that the request's own transfer has ended and that this process takes care of it, and
/// buries the dead.
pub(crate) fn note_end(
    target: &Target,
    root: &SnapshotRoot,
    request: &Request,
    clock: &Clock,
) -> Result<Option<LedgerLine>> {
    let ledger = target.open_ledger(root)?;
    reap(target, root, &ledger, clock)?;
    let process = match Process::own() {
        // There is no entry whose care it could take over, and the snapshot does not need one.
        Err(error) if request.line.is_none() => {
            log::warn!(
                "{}: the end of the transfer is not in the ledger of running transfers: {error}",
                target.label()
            );
            None
        }
        process => process?,
    };
    let (Some(status), Some(process)) = (request.status, process) else { return Ok(None) };
    match &request.line {
        Some(line) => ledger.end(line, status, process).map(Some),
        // A process apart may be killed like any other, and nobody waits for it.
        None if request.taken_over.is_some() => {
            let client = request.client.clone().unwrap_or_default();
            let entry = LedgerEntry::unannounced(client, process, clock);
            ledger.enter_ended(root, entry, status, highest_marked(root)).map(Some)
        }
        None => Ok(None),
    }
}

/// Strikes out a transfer whose snapshot is safe, owed by a mark, or not to be had. What failed
/// stays in the ledger: when this process is gone, the next run makes it due.
pub(crate) fn settle<T>(
    target: &Target,
    root: &SnapshotRoot,
    line: &LedgerLine,
    result: &Result<T>,
) -> Result<()> {
    match result {
        Ok(_) | Err(Error::Busy { .. } | Error::Queue { .. }) => {
            target.open_ledger(root)?.strike(line)
        }
        Err(_) => Ok(()),
    }
}

/// Takes away the torn mark of a module that a person vouches for; false if there was none. What
/// the dead leave is marked first, or the next run would do so.
pub(crate) fn release_torn(target: &Target, clock: &Clock) -> Result<bool> {
    let root = target.open_root()?;
    let ledger = target.open_ledger(&root)?;
    reap(target, &root, &ledger, clock)?;
    let mut mark = None;
    State::update(root.private(), |state| mark = state.torn.take())?;
    let is_remembered =
        target.memory.recall(&target.module_path).is_some_and(|memory| memory.torn.is_some());
    if is_remembered {
        target.memory.change(&target.module_path, |memory| memory.torn = None)?;
    }
    Ok(mark.is_some() || is_remembered)
}
