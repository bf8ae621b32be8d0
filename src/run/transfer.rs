//! The end of a transfer, as the ledger knows it.
//!
//! What changed nothing is struck out, and that is all. A push stays in the ledger as one that is running until its
//! torn mark, or the end of one, is on disk; then as one that has ended, in the care of its hook, until its snapshot
//! is safe or owed. So whatever instant the hook is killed at, the next run finds what is left to do.

use super::Request;
use super::reap::reap;
use crate::clock::Clock;
use crate::config::environment::Transfer;
use crate::config::settings::Settings;
use crate::config::target::Target;
use crate::store::ledger::{Ledger, Line};
use crate::store::process::Process;
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueReason, State};
use crate::tell::error::{Error, Result};

/// What the ledger says of a transfer that has ended.
#[derive(Debug)]
pub enum Seen {
    /// It could not change anything: a download, a listing, a dry run, or it was turned away.
    Idle,
    /// It was a push.
    Push(Box<Line>),
    /// pre-xfer runs for this module, and has left no word of this transfer: others may be running, too.
    Missing,
    /// pre-xfer does not run for this module.
    Unpaired,
}

/// Looks the transfer up, and strikes it out if nothing more has to be done about it.
pub fn look_up(target: &Target, settings: &Settings, transfer: &Transfer) -> Result<Seen> {
    let root = target.open_root()?;
    let ledger = Ledger::open(&root)?;
    let found = transfer.connection.pid.map(|pid| ledger.running(pid)).transpose()?.flatten();
    match found {
        Some(line) if line.writes() => Ok(Seen::Push(Box::new(line))),
        Some(line) => ledger.strike(&line).map(|()| Seen::Idle),
        None if is_paired(target, settings, &root)? => Ok(Seen::Missing),
        None => Ok(Seen::Unpaired),
    }
}

/// Whether pre-xfer runs for the module: as rsyncd.conf says, or where that does not name it, if it ever did.
fn is_paired(target: &Target, settings: &Settings, root: &SnapshotRoot) -> Result<bool> {
    if !State::read(root.private())?.paired {
        return Ok(false);
    }
    let conf = settings.rsyncd().ok();
    let module = target.name.as_deref().and_then(|name| conf.as_ref()?.module(name));
    let is_paired = module.is_none_or(|module| module.runs_us("pre-xfer exec"));
    if !is_paired {
        State::update(root.private(), |state| state.paired = false)?;
    }
    Ok(is_paired)
}

/// Buries the dead, and notes that the request's own transfer has ended and that this process takes care of it.
pub(super) fn note_end(
    target: &Target,
    root: &SnapshotRoot,
    request: &Request,
    clock: &Clock,
) -> Result<Option<Line>> {
    let ledger = Ledger::open(root)?;
    let own = match (&request.line, request.status, Process::own()) {
        (Some(line), Some(status), Some(process)) => Some(ledger.end(line, status, process)?),
        _ => None,
    };
    reap(target, root, &ledger, clock)?;
    Ok(own)
}

/// What the ledger does not know to be owed is owed by a mark.
pub(super) fn record_debt(root: &SnapshotRoot, request: &Request, clock: &Clock) -> Result<()> {
    if request.line.is_some() {
        return Ok(());
    }
    State::update(root.private(), |state| {
        let mark = request.due_mark(DueReason::Detached, clock.now(), state.due.as_ref());
        state.due = mark.or(state.due.take());
    })
    .map(drop)
}

/// Strikes out a transfer whose snapshot is safe, owed by a mark, or not to be had. What failed stays in the ledger:
/// when this process is gone, the next run makes it due.
pub(super) fn settle<T>(root: &SnapshotRoot, line: &Line, result: &Result<T>) -> Result<()> {
    match result {
        Ok(_) | Err(Error::Busy { .. } | Error::Queue { .. }) => Ledger::open(root)?.strike(line),
        Err(_) => Ok(()),
    }
}
