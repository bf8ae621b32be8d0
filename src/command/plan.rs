//! `plan`, which is also `rotate --dry-run`: what rotation would do and why, doing nothing.

use std::ffi::OsStr;

use super::view::DecisionView;
use super::{Context, print, print_json};
use crate::clock::Clock;
use crate::run;
use crate::tell::error::{Error, Result};
use crate::tell::exit::Exit;

/// Prints the decision on each module.
///
/// # Errors
/// [`Error::Policy`] if the policy cannot be used: then there is nothing to decide by.
pub fn run(context: &Context, module: Option<&OsStr>, json: bool) -> Result<Exit> {
    let mut views = Vec::new();
    let exit = context.for_each(module, |target| {
        if !target.trouble.is_empty() {
            return Err(Error::Policy(target.trouble.clone()));
        }
        let root = target.look_at_root()?;
        let (catalog, decision) = run::look(target, &root, Clock::System.now())?;
        let view = DecisionView::new(target, &decision);
        if !json {
            print(&view.to_text(&target.label(), false))?;
        }
        views.push(view);
        for warning in &catalog.warnings {
            log::warn!("{}: {warning}", target.label());
        }
        Ok(if catalog.warnings.is_empty() { Exit::Done } else { Exit::Warnings })
    })?;
    if json {
        print_json(module.is_some(), &views)?;
    }
    Ok(exit)
}
