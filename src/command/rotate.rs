//! `rotate`: expires the snapshots that the policy no longer keeps.

use std::ffi::OsStr;

use crate::command::decision_view::DecisionView;
use crate::command::{plan, print_json};
use crate::decide::root_overlap::Opener;
use crate::module::context::Context;
use crate::run::disposal::RetiredRemoval;
use crate::run::rotate_by_hand;
use crate::store::memory::RunKind;
use crate::system::clock::Clock;
use crate::tell::error::Result;
use crate::tell::exit::Exit;
use crate::tell::output::print;
use crate::tell::terminal::line_width;

#[derive(Debug, Clone, Copy)]
pub(crate) struct RotateOptions {
    /// Print the decision, and change nothing.
    pub dry_run: bool,
    /// End pauses first: the administrator has checked clock, state and policy.
    pub confirm: bool,
    /// Remove all retired snapshots at once.
    pub purge: bool,
}

impl RotateOptions {
    /// A script that reads no JSON does not wait for what a purge frees to be counted.
    fn removal(self, json: bool) -> RetiredRemoval {
        match self.purge {
            true => RetiredRemoval::All { counts: json || line_width().is_some() },
            false => RetiredRemoval::PastGrace,
        }
    }
}

/// Rotates each module.
pub(crate) fn run(
    context: &Context,
    module: Option<&OsStr>,
    options: RotateOptions,
    json: bool,
) -> Result<Exit> {
    if options.dry_run {
        return plan::dry_run(context, module, json);
    }
    let mut views = Vec::new();
    let exit = context.change_each(module, Some(RunKind::Rotation), Opener::Upkeep, |target| {
        context.tell_other_policy(target);
        let rotated =
            rotate_by_hand::rotate(target, options.confirm, options.removal(json), &Clock::System)?;
        let view = DecisionView::new(target, &rotated.decision, rotated.freed);
        if !json && !context.is_quiet() {
            print(&view.to_text(&target.label()))?;
        }
        views.push(view);
        Ok(rotated.exit())
    })?;
    if json {
        print_json(module.is_some(), &views)?;
    }
    Ok(exit)
}
