//! `rotate`: expire now what the policy no longer keeps.

use std::ffi::OsStr;

use super::view::DecisionView;
use super::{Context, plan, print, print_json};
use crate::clock::Clock;
use crate::run;
use crate::tell::error::Result;
use crate::tell::exit::Exit;

/// Rotates each module; with `dry_run` only says what it would do.
pub fn run(
    context: &Context,
    module: Option<&OsStr>,
    dry_run: bool,
    confirm: bool,
    json: bool,
) -> Result<Exit> {
    if dry_run {
        return plan::run(context, module, json);
    }
    let mut views = Vec::new();
    let exit = context.for_each(module, |target| {
        let rotated = run::rotate(target, confirm, &Clock::System)?;
        let view = DecisionView::new(target, &rotated.decision);
        if !json {
            print(&view.to_text(&target.label(), true))?;
        }
        views.push(view);
        Ok(rotated.exit())
    })?;
    if json {
        print_json(module.is_some(), &views)?;
    }
    Ok(exit)
}
