//! `rotate`: expire now what the policy no longer keeps.

use std::ffi::OsStr;

use crate::command::view::DecisionView;
use crate::command::{plan, print_json};
use crate::decide::root_overlap::Opener;
use crate::module::context::Context;
use crate::run::disposal::Disposal;
use crate::run::rotate_by_hand;
use crate::store::memory::RunKind;
use crate::system::clock::Clock;
use crate::tell::error::Result;
use crate::tell::exit::Exit;
use crate::tell::output::print;

/// What a person wants of a rotation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RotateOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// End pauses first: clock, state and policy are right.
    pub confirm: bool,
    /// Remove what is retired at once, too.
    pub purge: bool,
}

impl RotateOptions {
    fn disposal(self) -> Disposal {
        if self.purge { Disposal::Now } else { Disposal::Later }
    }
}

/// Rotates each module.
pub(crate) fn run(
    context: &Context,
    module: Option<&OsStr>,
    orders: RotateOptions,
    json: bool,
) -> Result<Exit> {
    if orders.dry_run {
        return plan::run(context, module, json);
    }
    let mut views = Vec::new();
    let exit = context.change_each(module, Some(RunKind::Rotation), Opener::Upkeep, |target| {
        let rotated =
            rotate_by_hand::rotate(target, orders.confirm, orders.disposal(), &Clock::System)?;
        let view = DecisionView::new(target, &rotated.decision);
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
