//! `list`: the snapshots and what is known of them.

use std::ffi::OsStr;

use super::view::ListView;
use super::{Context, print, print_json};
use crate::clock::Clock;
use crate::store::catalog::Catalog;
use crate::tell::error::Result;
use crate::tell::exit::Exit;

/// Lists the snapshots of each module.
pub fn run(context: &Context, module: Option<&OsStr>, json: bool) -> Result<Exit> {
    let mut views = Vec::new();
    let exit = context.for_each(module, |target| {
        let root = target.look_at_root()?;
        let catalog = Catalog::read(&root, &target.policy.time_zone)?;
        for warning in &catalog.warnings {
            log::warn!("{}: {warning}", target.label());
        }
        let view = ListView::new(target, &catalog.items, Clock::System.now());
        if !json {
            print(&view.to_text(&target.label()))?;
        }
        views.push(view);
        Ok(if catalog.warnings.is_empty() { Exit::Done } else { Exit::Warnings })
    })?;
    if json {
        print_json(module.is_some(), &views)?;
    }
    Ok(exit)
}
