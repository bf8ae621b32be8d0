//! `post-xfer`: the hook that rsyncd runs after every transfer.
//!
//! It looks the transfer up in the ledger and decides whether anything was written. If the client
//! has said that more pushes of its backup follow, the snapshot is left to the last of them.
//! Otherwise it starts a [run](crate::run::order). The entry stays in the ledger until the work is
//! done, so the next run finds what a killed hook left.

use std::fs::File;
use std::os::fd::AsFd;

use chrono::TimeDelta;

use crate::config::environment::{FinishedTransfer, HookConnection};
use crate::config::refused_push;
use crate::decide::clock_tick::SETTLED_AFTER_NS;
use crate::decide::root_overlap::Opener;
use crate::decide::transfer_reason::TransferReason;
use crate::decide::transfer_verdict::DueMarkChange;
use crate::decide::verdict_facts::LedgerCoverage;
use crate::hook::detach;
use crate::hook::read_lease;
use crate::module::confine;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::order;
use crate::run::request::Request;
use crate::run::transfer::{self, LedgerAnswer};
use crate::store::completion::UnfinishedFile;
use crate::store::memory::{RunFailure, RunKind};
use crate::system::clock::Clock;
use crate::tell::error::Result;
use crate::tell::escape::{escape, escape_path, unescape};
use crate::tell::exit::Exit;
use crate::tell::log::set_subject;

/// The process that does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookMode {
    /// This process: the hook, which rsyncd waits for.
    InHook,
    /// A detached process, which the hook has yet to start.
    Detach,
    /// This process, which the hook has started.
    Detached,
}

/// Reads rsyncd's environment and runs.
pub(crate) fn run(context: &Context, mode: HookMode) -> Result<Exit> {
    let transfer = FinishedTransfer::from_environment()?;
    set_subject(Some(transfer.connection.label()));
    match mode {
        HookMode::InHook => {}
        HookMode::Detached => detach::leave_session(),
        HookMode::Detach => match detach::hand_over() {
            Ok(true) => return Ok(Exit::Done),
            Ok(false) => {
                log::error!("the detached process has failed; the hook takes the snapshot itself")
            }
            Err(error) => log::error!(
                "the detached process could not start; the hook takes the snapshot itself: {error}"
            ),
        },
    }
    let HookConnection { module_name, module_path, .. } = &transfer.connection;
    let target = Target::of_module(&context.settings, module_name.clone(), module_path)
        .inspect_err(|error| remember_failure(context, &transfer, &error.to_string()))?;
    let is_reader = is_reader(context, &transfer) || transfer::is_noted_reader(&target, &transfer);
    let target = target.opened_by(if is_reader { Opener::Reader } else { Opener::Push });
    context.set_level(&target);
    set_subject(Some(target.label()));
    let finished = transfer.connection.pid.filter(|_| !target.is_registered()).and_then(|pid| {
        Some((read_lease::finished_root(&target.module_path, &target.memory, pid)?, pid))
    });
    let read = finished.iter().map(|(root, _)| root);
    confine::to_reading([&target], read, context.write_scope);
    if let Some((root, pid)) = &finished {
        read_lease::end(root, *pid);
    }
    let report_taken_over =
        (mode == HookMode::Detached).then_some(detach::report_taken_over as fn());
    after_transfer(&target, &transfer, report_taken_over, context, &Clock::System)
}

/// The hook for a known module and clock. A detached process gets `report_taken_over`, by which it
/// lets the hook end as soon as the marks and the ledger hold all that is known of the transfer.
pub fn after_transfer(
    target: &Target,
    transfer: &FinishedTransfer,
    report_taken_over: Option<fn()>,
    context: &Context,
    clock: &Clock,
) -> Result<Exit> {
    let client = &transfer.connection.client;
    log::debug!(
        "{}: transfer of process {} from {} ({}) as '{}' ended with status {} (wait status {})",
        target.label(),
        transfer.connection.pid.unwrap_or_default(),
        client.address,
        client.name,
        client.user,
        transfer.status,
        transfer.raw_status.unwrap_or_default(),
    );
    // A client that can only read changes nothing, so only the entry that pre-xfer made is removed.
    if target.opener == Opener::Reader
        && (!target.is_registered() || target.check_nesting_in_hook().is_err())
    {
        transfer::forget_reader(target, transfer);
        log::debug!("{}: nothing can have been written, so there is nothing to do", target.label());
        return Ok(Exit::Done);
    }
    let mut seen = look_up(target, context, transfer);
    // Without an entry nothing shows what this transfer was. Another program may fill the module,
    // and may not have finished, so the client's visit is no reason for a snapshot.
    if target.opener == Opener::Reader && matches!(seen, LedgerAnswer::NoPreXfer) {
        log::debug!("{}: the client could only read, so no snapshot is taken", target.label());
        return Ok(Exit::Done);
    }
    let ended = transfer::EndedTransfer { target, transfer };
    let verdict = ended.verdict(&seen, brought_unfinished_file(target, &seen));
    match (&verdict.because, verdict.due_mark) {
        (because @ TransferReason::NothingWritten { .. }, _) => {
            log::debug!("{}: {because}", target.label());
            return nothing_written(target, seen, context, clock);
        }
        (TransferReason::LeftToClient, DueMarkChange::Set { reason, asked }) => {
            let push = ended.ended_push(&seen, true, clock);
            seen = transfer::leave_to_client(target, seen, (reason, asked), push, clock)?;
            // Another push of the client may have ended meanwhile, found the backup finished, and
            // left the snapshot to this hook. So the client's files are looked up once more.
            if ended.verdict(&seen, true).because == TransferReason::LeftToClient {
                log::info!(
                    "{}: no snapshot yet: the client has not finished its backup",
                    target.label()
                );
                return Ok(Exit::Done);
            }
        }
        (TransferReason::ClientUnfinished, _) => log::warn!(
            "{}: another client has begun a backup here and not finished it, so a snapshot is \
             partial",
            target.label()
        ),
        _ => {}
    }
    let push = ended.ended_push(&seen, false, clock);
    let started = context.started.clone();
    let request = Request { started, report_taken_over, ended: push, ..request(&ended, seen) };
    Ok(order::run(target, &request, clock)?.exit())
}

fn request(ended: &transfer::EndedTransfer, answer: LedgerAnswer) -> Request {
    let (status, allowed) = ended.status_and_allowed_snapshot();
    let request = Request::transfer(allowed, status, ended.transfer.connection.client.clone());
    match answer {
        LedgerAnswer::Push(stored) => request.entered(*stored),
        LedgerAnswer::AlreadyStruck => Request { coverage: LedgerCoverage::All, ..request },
        LedgerAnswer::Missing => Request { coverage: LedgerCoverage::TransferMissing, ..request },
        LedgerAnswer::NoPreXfer | LedgerAnswer::NoPush => request,
    }
}

/// Whether rsyncd.conf lets the client only read. False if that is not certain.
fn is_reader(context: &Context, transfer: &FinishedTransfer) -> bool {
    let HookConnection { module_name, module_path, client, .. } = &transfer.connection;
    let (Some(name), Ok(conf)) = (module_name, context.settings.rsyncd()) else { return false };
    let (Some(module), Some(user)) = (conf.module(name), unescape(&client.user)) else {
        return false;
    };
    refused_push::is_reader(module, &user, module_path)
}

/// Removes the entry of a transfer that wrote nothing, and takes the snapshot that other pushes
/// left to it.
fn nothing_written(
    target: &Target,
    seen: LedgerAnswer,
    context: &Context,
    clock: &Clock,
) -> Result<Exit> {
    if matches!(seen, LedgerAnswer::NoPush) {
        return Ok(Exit::Done);
    }
    transfer::strike(target, &seen)?;
    let report = order::serve_deferred(target, context.started.clone(), clock)?;
    Ok(report.map_or(Exit::Done, |report| report.exit()))
}

/// Whether this push brought the file that says that the backup is unfinished. A file that an
/// earlier push left must not keep later pushes from their snapshots. Without an entry in the
/// ledger, the file counts as brought by this push.
fn brought_unfinished_file(target: &Target, seen: &LedgerAnswer) -> bool {
    let module = File::open(&target.module_path).ok();
    let Some(token) = module.and_then(|module| UnfinishedFile::of_module(module.as_fd())) else {
        return false;
    };
    let LedgerAnswer::Push(stored) = seen else { return true };
    let began = stored.entry.as_ref().map(|entry| entry.began);
    began.is_none_or(|began| token.arrived >= began - TimeDelta::nanoseconds(SETTLED_AFTER_NS))
}

/// Looks the transfer up in the ledger. If the ledger cannot be read twice, the transfer counts as
/// missing in it.
fn look_up(target: &Target, context: &Context, transfer: &FinishedTransfer) -> LedgerAnswer {
    let look = || transfer::look_up(target, &context.settings, transfer);
    let look_again = |error| {
        log::warn!(
            "{}: the ledger of running transfers is read once more: {error}",
            target.label()
        );
        look()
    };
    look().or_else(look_again).unwrap_or_else(|error| {
        log::error!("{}: the ledger of running transfers cannot be read: {error}", target.label());
        LedgerAnswer::Missing
    })
}

/// Remembers the failure of a module that cannot be resolved, under the path that rsyncd gave.
fn remember_failure(context: &Context, transfer: &FinishedTransfer, message: &str) {
    let failure = RunFailure::now(RunKind::Snapshot, message.to_string());
    let remembered = context.settings.memory.change(&transfer.connection.module_path, |memory| {
        memory.module = transfer.connection.module_name.as_deref().map(escape);
        memory.failure = Some(failure.clone());
    });
    if let Err(error) = remembered {
        log::debug!(
            "{}: what this machine remembers of it cannot be written: {error}",
            escape_path(&transfer.connection.module_path)
        );
    }
}
