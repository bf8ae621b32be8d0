//! `post-xfer`: what rsyncd runs after every transfer.

use super::Context;
use crate::clock::Clock;
use crate::config::environment::Transfer;
use crate::config::target::Target;
use crate::decide::grade::Intent;
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
    let policy = &target.policy;
    let intent = Intent::of_status(transfer.status, &policy.snapshot_on_exit, &policy.partial_on_exit);
    let request = Request {
        started: context.started.clone(),
        ..Request::transfer(intent, transfer.status, transfer.client.clone())
    };
    Ok(run::run(target, &request, clock)?.exit())
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
