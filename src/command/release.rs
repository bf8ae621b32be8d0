//! `release`: ends the pause of the large-change guard, the torn mark, the pause for damage, or
//! pushes that cannot be seen from here. The administrator decides that.
//!
//! The printed line also says what else still keeps snapshots from expiring or from being complete.

use std::ffi::OsStr;

use crate::command::print_done;
use crate::decide::root_overlap::Opener;
use crate::decide::snapshot_reason::Pause;
use crate::decide::verdict_facts::ClientCompletion;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::verify::commands;
use crate::run::{reap, rotate, transfer};
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::tell::counted;
use crate::tell::error::Result;
use crate::tell::exit::Exit;

/// Ends the pause of the large-change guard, and removes each pin that it set. With `torn`, removes
/// the torn mark instead: the administrator has found the live tree to be right.
///
/// # Errors
/// If the module or its state cannot be used.
pub(crate) fn release(context: &Context, module: Option<&OsStr>, torn: bool) -> Result<Exit> {
    context.change_each(module, None, Opener::Upkeep, |target| {
        if torn {
            let was_torn = transfer::release_torn(target, &Clock::System)?;
            let message = if was_torn { "no longer torn" } else { "not torn" };
            return print_done(context, target, &(message.to_string() + &still_partial(target)?));
        }
        let root = target.open_root()?;
        let mut unpinned = None;
        let mut anomaly = None;
        State::update(root.private(), |state| {
            anomaly = state.anomaly.clone();
            unpinned = state.release_anomaly();
        })?;
        forget_pause(target, anomaly.map(Pause::Anomaly));
        let message = match unpinned.as_deref() {
            None => "nothing to release".to_string(),
            Some([]) => "released".to_string(),
            Some(names) => format!(
                "released; no longer pinned, so that the policy decides: {}; `pin` keeps what is \
                 to stay",
                names.join(", ")
            ),
        };
        print_done(context, target, &(message + &still_paused(target)?))
    })
}

/// Ends pushes whose processes cannot be seen from here: those of another machine, or of a
/// container that was removed.
///
/// # Errors
/// If the module, its ledger or its state cannot be used.
pub(crate) fn release_unseen(context: &Context, module: Option<&OsStr>) -> Result<Exit> {
    context.change_each(module, None, Opener::Upkeep, |target| {
        let message = match reap::end_unseen(target, &Clock::System)? {
            0 => "no push whose process cannot be seen from here".to_string(),
            1 => "1 push counts as ended; `snapshot --due` takes its snapshot".to_string(),
            count => {
                format!("{count} pushes count as ended; `snapshot --due` takes their snapshot")
            }
        };
        print_done(context, target, &message)
    })
}

/// Accepts the altered files of snapshots as they are, and ends the pause for damage.
///
/// # Errors
/// If the module, its inode log or its state cannot be used.
pub(crate) fn release_damage(context: &Context, module: Option<&OsStr>) -> Result<Exit> {
    context.change_each(module, None, Opener::Upkeep, |target| {
        let damage = State::read(target.look_at_root()?.private())?.damage;
        let accepted = commands::accept(target, &Clock::System)?.altered_inodes.len();
        forget_pause(target, damage.map(Pause::Damage));
        let message = match accepted {
            0 => "nothing is altered".to_string(),
            count => format!("{} accepted as found", counted(count, "altered file")),
        };
        print_done(context, target, &(message + &still_paused(target)?))
    })
}

/// Removes the warning of a pause that has ended from what the last run warned of, which `check`
/// shows.
fn forget_pause(target: &Target, ended: Option<Pause>) {
    let Some(ended) = ended.map(|pause| pause.to_string()) else { return };
    let forgotten = target.memory.change(&target.module_path, |memory| {
        memory.warnings.retain(|warning| !warning.ends_with(&ended));
    });
    if let Err(error) = forgotten {
        log::debug!("{}: the last run's warnings stay remembered: {error}", target.label());
    }
}

/// Why nothing expires yet, as the end of a message; empty if snapshots expire.
fn still_paused(target: &Target) -> Result<String> {
    if let Some(mistake) = target.trouble.first() {
        return Ok(format!("; nothing expires yet, since the policy cannot be used: {mistake}"));
    }
    let root = target.look_at_root()?;
    let clock = Clock::System;
    let examined = rotate::examine(target, &root, clock.now(), Some(clock.reading()))?;
    let mut text = match examined.decision.pause {
        Some(pause) => format!("; nothing expires yet: {pause}"),
        None => String::new(),
    };
    if examined.state.torn.is_some() {
        text += "; the module is still torn by a failed push: `check` says which, `release --torn` \
            ends it";
    }
    Ok(text)
}

/// Why the next snapshot is still partial, as the end of a message; empty if it is not.
fn still_partial(target: &Target) -> Result<String> {
    let root = target.look_at_root()?;
    Ok(match ClientCompletion::of_module(root.module()) {
        ClientCompletion::Done => "",
        ClientCompletion::Partial | ClientCompletion::Unfinished => {
            "; snapshots are partial until the client has finished the backup that it has begun"
        }
    }
    .to_string())
}
