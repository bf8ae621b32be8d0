//! `post-xfer`: what rsyncd runs after every transfer.

use std::fs::File;
use std::os::fd::AsFd;

use super::Context;
use crate::clock::Clock;
use crate::config::environment::Transfer;
use crate::config::target::Target;
use crate::decide::finish::{Finish, PARTIAL_TRANSFER};
use crate::decide::grade::Intent;
use crate::decide::policy::Policy;
use crate::run::{self, Request};
use crate::store::memory::{Failure, Work};
use crate::tell::error::Result;
use crate::tell::escape::escape_path;
use crate::tell::exit::Exit;

/// Reads rsyncd's environment and runs.
pub fn run(context: &Context) -> Result<Exit> {
    let transfer = Transfer::from_environment()?;
    let target = Target::of_module(&context.settings, transfer.module_name.clone(), &transfer.module_path)
        .inspect_err(|error| remember_failure(context, &transfer, &error.to_string()))?;
    context.set_level(&target);
    after_transfer(&target, &transfer, context, &Clock::System)
}

/// The hook for a module that is known, at a time that is given.
pub fn after_transfer(
    target: &Target,
    transfer: &Transfer,
    context: &Context,
    clock: &Clock,
) -> Result<Exit> {
    let client = &transfer.client;
    log::debug!(
        "{}: transfer of process {} from {} ({}) as '{}' ended with status {} (raw {})",
        target.label(),
        transfer.pid.unwrap_or_default(),
        client.address,
        client.name,
        client.user,
        transfer.status,
        transfer.raw_status.unwrap_or_default(),
    );
    let Policy { snapshot_on_exit, partial_on_exit, .. } = &target.policy;
    let mut status = transfer.status;
    let mut intent = Intent::of_status(status, snapshot_on_exit, partial_on_exit);
    if intent == Intent::Complete {
        match finish(target) {
            Finish::Done => {}
            Finish::Unfinished => {
                log::info!("{}: no snapshot yet, for the client has not finished", target.label());
                return Ok(Exit::Done);
            }
            Finish::Partial => {
                status = PARTIAL_TRANSFER;
                intent = Finish::intent_of_status(status, snapshot_on_exit, partial_on_exit);
            }
        }
    }
    let request = Request {
        started: context.started.clone(),
        ..Request::transfer(intent, status, transfer.client.clone())
    };
    Ok(run::run(target, &request, clock)?.exit())
}

/// What the client says in the module; a run tells why that cannot be read.
fn finish(target: &Target) -> Finish {
    File::open(&target.module_path).map_or(Finish::Done, |module| Finish::of_module(module.as_fd()))
}

/// A module that cannot even be resolved is remembered by the path that rsyncd gave.
fn remember_failure(context: &Context, transfer: &Transfer, message: &str) {
    let failure = Failure::now(Work::Snapshot, message.to_string());
    let remembered = context
        .settings
        .memory
        .change(&transfer.module_path, |memory| memory.failure = Some(failure.clone()));
    if let Err(error) = remembered {
        log::debug!("{}: nothing remembered: {error}", escape_path(&transfer.module_path));
    }
}
