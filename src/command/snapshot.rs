//! `snapshot`: takes a snapshot now, for an administrator, a timer or a client.

use std::ffi::OsStr;

use serde::Serialize;

use crate::command::print_json;
use crate::decide::client::Client;
use crate::decide::root_overlap::Opener;
use crate::decide::verdict_facts::{AllowedSnapshot, Reporter};
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::request::Request;
use crate::run::{order, transfer};
use crate::store::memory::RunKind;
use crate::system::clock::Clock;
use crate::tell::error::Result;
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;

#[derive(Serialize)]
struct SnapshotRunView {
    module: Option<String>,
    snapshot_root: String,
    outcome: &'static str,
    name: Option<String>,
    warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct SnapshotOptions {
    /// Only if a snapshot is due.
    pub due: bool,
    /// The status of the transfer that has just filled the directory.
    pub status: Option<i32>,
    /// Rotate after the snapshot.
    pub rotates: bool,
}

impl SnapshotOptions {
    /// The request for a run on `target`.
    pub(crate) fn request(self, target: &Target) -> Request {
        let request = match self.status {
            None => Request::manual(self.due),
            Some(status) => {
                let allowed =
                    AllowedSnapshot::of_status(status, Reporter::Client, target.policy.statuses());
                let push = transfer::told_push(target, status, &Clock::System);
                // Without a daemon, the client is not known.
                let request = Request::transfer(allowed, status, Client::default());
                Request { client: None, ended: Some(push), ..request }
            }
        };
        Request { rotates: self.rotates, ..request }
    }
}

/// Takes a snapshot of each module; with `due`, of each that has a due mark.
pub(crate) fn run(
    context: &Context,
    module: Option<&OsStr>,
    options: SnapshotOptions,
    json: bool,
) -> Result<Exit> {
    let mut views = Vec::new();
    let opener = if options.due { Opener::Due } else { Opener::Snapshot };
    let exit = context.change_each(module, Some(RunKind::Snapshot), opener, |target| {
        if options.rotates {
            context.tell_other_policy(target);
        }
        let request = Request { started: context.started.clone(), ..options.request(target) };
        let report = order::run(target, &request, &Clock::System)?;
        views.push(SnapshotRunView {
            module: target.name.as_deref().map(escape),
            snapshot_root: escape_path(&target.root_path),
            outcome: report.ending.word(),
            name: report.snapshot.clone(),
            warnings: report.all_warnings(),
        });
        // A client that has just transferred learns by the exit status that its snapshot is
        // partial.
        let is_partial_backup = options.status.is_some() && report.is_partial();
        Ok(report.exit().max(if is_partial_backup { Exit::Warnings } else { Exit::Done }))
    })?;
    if json {
        print_json(module.is_some(), &views)?;
    }
    Ok(exit)
}
