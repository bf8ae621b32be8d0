//! `snapshot`: one now, by hand or from a timer.

use std::ffi::OsStr;

use serde::Serialize;

use super::{Context, print_json};
use crate::clock::Clock;
use crate::run::{self, Request};
use crate::tell::error::Result;
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;

#[derive(Serialize)]
struct View {
    module: Option<String>,
    snapshot_root: String,
    outcome: &'static str,
    name: Option<String>,
    warnings: Vec<String>,
}

/// Takes a snapshot of each module; with `due`, of those that are owed one.
pub fn run(context: &Context, module: Option<&OsStr>, due: bool, json: bool) -> Result<Exit> {
    let mut views = Vec::new();
    let exit = context.for_each(module, |target| {
        let request = Request { started: context.started.clone(), ..Request::manual(due) };
        let report = run::run(target, &request, &Clock::System)?;
        views.push(View {
            module: target.name.as_deref().map(escape),
            snapshot_root: escape_path(&target.root_path),
            outcome: report.ending.word(),
            name: report.snapshot.clone(),
            warnings: report.warnings.clone(),
        });
        Ok(report.exit())
    })?;
    if json {
        print_json(module.is_some(), &views)?;
    }
    Ok(exit)
}
