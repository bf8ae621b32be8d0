//! `pre-xfer`: the hook that rsyncd runs before every transfer, and waits for.
//!
//! rsyncd sends what a failing pre-xfer prints to the client, and ends the connection. So pre-xfer
//! fails only to turn a client away, with one sentence for it. Its own failures are logged, and the
//! transfer begins.

use crate::config::environment::{self, HookConnection};
use crate::config::refused_push::{forbids, is_reader};
use crate::decide::arguments::Arguments;
use crate::decide::root_overlap::Opener;
use crate::decide::verdict_facts::Forbidden;
use crate::hook::admission::{Admission, admit, note_refusal};
use crate::hook::health_answer;
use crate::hook::read_lease::ReadRoots;
use crate::hook::shared_files::refused_without_target;
use crate::hook::snapshot_directory::refused_for_snapshots;
use crate::hook::transfer_request::TransferRequest;
use crate::module::confine;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};
use crate::tell::escape::unescape;
use crate::tell::exit::Exit;
use crate::tell::log::set_subject;
use crate::tell::output::print;

/// What messages say of a transfer that begins without an entry in the ledger.
const NOT_ENTERED: &str = "could not be entered in the ledger of running transfers";

/// Reads rsyncd's environment, and lets the transfer in or turns it away.
///
/// # Errors
/// If the environment is not that of a hook of rsyncd.
pub(crate) fn run(context: &Context) -> Result<Exit> {
    let connection = HookConnection::from_environment()?;
    let pid = connection.pid.ok_or_else(|| Error::Environment {
        variable: "RSYNC_PID",
        problem: "is not set".to_string(),
    })?;
    let arguments = environment::transfer_arguments().unwrap_or_else(Arguments::unknown);
    let request = TransferRequest {
        forbidden: forbidden(context, &connection, &arguments),
        reads_only: reads_only(context, &connection),
        arguments,
        path: connection.request.clone(),
        client: connection.client.clone(),
        pid,
    };
    let label = connection.label();
    set_subject(Some(label.clone()));
    let name = connection.module_name.clone();
    let target = match Target::of_module(&context.settings, name, &connection.module_path) {
        Ok(target) => target.opened_by(request.opener()),
        Err(error) => return without_target(context, &connection, &request, &error),
    };
    context.set_level(&target);
    let label = target.label();
    set_subject(Some(label.clone()));
    // If that cannot be found out, it may be a restore module.
    let read = match request.opener() == Opener::Reader && !target.is_surely_registered() {
        true => read_roots(context, &connection, &request),
        false => ReadRoots::default(),
    };
    confine::to_reading([&target], read.roots(), context.write_scope);
    if health_answer::is_asked(&request) {
        note_refusal(&target, &request, &Clock::System)?;
        print(&format!("{}\n", health_answer::answer(&target)))?;
        return Ok(Exit::Failed);
    }
    match admit(&target, &context.settings, &request, &Clock::System) {
        Ok(Admission::Refused(why)) => turn_away(&label, &request, &why),
        Ok(Admission::Entered) => {
            let TransferRequest { arguments, path, client, .. } = &request;
            log::debug!("{label}: {} of {path} by {} begins", arguments.kind, client.identity());
            read.lease(&label, &request, &Clock::System);
            Ok(Exit::Done)
        }
        Err(error) => {
            read.lease(&label, &request, &Clock::System);
            Ok(let_in(&label, &request, &error))
        }
    }
}

/// The snapshot roots that a client reads which cannot write.
fn read_roots(
    context: &Context,
    connection: &HookConnection,
    request: &TransferRequest,
) -> ReadRoots {
    let label = connection.label();
    ReadRoots::open(&label, &connection.module_path, request, &context.settings.memory)
}

/// What `rsyncd.conf` forbids of a push. `None` if it cannot be read.
fn forbidden(
    context: &Context,
    connection: &HookConnection,
    arguments: &Arguments,
) -> Option<Forbidden> {
    let name = connection.module_name.as_deref().filter(|_| arguments.kind.writes())?;
    let conf = context.settings.rsyncd().ok()?;
    let user = unescape(&connection.client.user)?;
    forbids(conf.module(name)?, &user, arguments)
}

/// Whether rsyncd.conf lets the client only read, whatever it asks for. False if that is not
/// certain.
fn reads_only(context: &Context, connection: &HookConnection) -> bool {
    let HookConnection { module_name, module_path, client, .. } = connection;
    let (Some(name), Ok(conf)) = (module_name, context.settings.rsyncd()) else { return false };
    let (Some(module), Some(user)) = (conf.module(name), unescape(&client.user)) else {
        return false;
    };
    is_reader(module, &user, module_path)
}

/// Decides for a module whose snapshot root is not known. A push that rewrites files is turned
/// away, because it may rewrite snapshots.
fn without_target(
    context: &Context,
    connection: &HookConnection,
    request: &TransferRequest,
    error: &Error,
) -> Result<Exit> {
    let label = connection.label();
    let name = connection.module_name.as_deref();
    if request.opener() == Opener::Reader {
        let read = read_roots(context, connection, request);
        confine::to_reading([], read.roots(), context.write_scope);
        read.lease(&label, request, &Clock::System);
    }
    let path = &connection.module_path;
    let why = refused_for_snapshots(path, request)
        .or_else(|| refused_without_target(path, &context.settings, name, request));
    match why {
        Some(why) => turn_away(&label, request, &why),
        None => Ok(let_in(&label, request, error)),
    }
}

/// Lets a transfer begin although it could not be entered in the ledger, so that a failure of the
/// server does not cost the client its backup.
fn let_in(label: &str, request: &TransferRequest, error: &Error) -> Exit {
    if request.reads_only {
        // The module may offer snapshots for reading, and have no root of its own.
        log::debug!("{label}: this transfer {NOT_ENTERED}: {error}");
    } else if request.arguments.kind.writes() {
        log::error!("{label}: this push {NOT_ENTERED}, so its snapshot will be partial: {error}");
    } else {
        log::warn!("{label}: this transfer {NOT_ENTERED}: {error}");
    }
    Exit::Done
}

fn turn_away(label: &str, request: &TransferRequest, why: &str) -> Result<Exit> {
    log::warn!("{label}: turned away a push of {}: {why}", request.client.identity());
    print(&format!("{why}\n"))?;
    Ok(Exit::Failed)
}
