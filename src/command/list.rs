//! `list`: the snapshots with their records and sizes, and `list --expired`.

use std::ffi::OsStr;

use chrono::{DateTime, Utc};

use crate::command::expired::ExpiredView;
use crate::command::list_view::{ListView, VanishedView};
use crate::command::print_json;
use crate::decide::undated;
use crate::module::context::Context;
use crate::run::session::lease_terms;
use crate::run::snapshot_sizes::{self, SizesFound, TreeNames};
use crate::run::vanished::{self, UnacceptedSnapshots};
use crate::store::leases::Leases;
use crate::store::root::SnapshotRoot;
use crate::store::sizes_file::CountedSizes;
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::tell::error::Result;
use crate::tell::escape::escape;
use crate::tell::exit::Exit;
use crate::tell::output::print;
use crate::tell::terminal::line_width;

/// Lists the retired snapshots of each module.
pub(crate) fn expired(context: &Context, module: Option<&OsStr>, json: bool) -> Result<Exit> {
    let mut views = Vec::new();
    let exit = context.for_each(module, |target| {
        let view = ExpiredView::new(target, &target.look_at_root()?, Clock::System.now())?;
        if !json {
            print(&view.to_text(&target.label()))?;
        }
        views.push(view);
        Ok(Exit::Done)
    })?;
    if json {
        print_json(module.is_some(), &views)?;
    }
    Ok(exit)
}

/// Lists the snapshots of each module. `counts`: counts what each takes, and remembers it.
pub(crate) fn run(
    context: &Context,
    module: Option<&OsStr>,
    counts: bool,
    json: bool,
) -> Result<Exit> {
    let mut views = Vec::new();
    let exit = context.for_each(module, |target| {
        let root = target.look_at_root()?;
        let mut list = SnapshotList::read(&root, &target.policy.time_zone)?;
        let mut snapshots = list.snapshots();
        let mut gone = UnacceptedSnapshots::default();
        match State::read(root.private()) {
            Ok(state) => {
                list.pin(&state.pins);
                undated::mark(&mut snapshots, &state.clock_history());
                match vanished::look_at(&root, &state, &list) {
                    Ok(found) => {
                        list.warnings.extend(found.message.clone());
                        gone = found;
                    }
                    Err(error) => list.warnings.push(error.to_string()),
                }
            }
            // Snapshots are listed without pins if the state cannot be read.
            Err(error) => list.warnings.push(error.to_string()),
        }
        let now = Clock::System.now();
        match Leases::look(&root) {
            Ok(leases) => list.note_readers(&leases, lease_terms(target, now)),
            Err(error) => list.warnings.push(error.to_string()),
        }
        let sizes = match counts {
            true => Some(count(&root, &mut list, now)?),
            false => CountedSizes::read(root.private()),
        };
        for warning in &list.warnings {
            log::warn!("{}: {warning}", target.label());
        }
        let mut view = ListView::new(target, &list.items, &snapshots, now);
        view.vanished = gone.snapshots.iter().map(VanishedView::new).collect();
        view.notes = gone.pin_lines().collect();
        view.pins_without_snapshot =
            gone.other_pins.iter().map(|name| escape(name.as_bytes())).collect();
        view.add_disk(&root);
        if let Some(sizes) = sizes {
            let trees = TreeNames::read(&root, &list)?;
            view.add_sizes(&sizes, &trees.refs(), now);
        }
        if !json {
            print(&view.to_text(&target.label(), line_width()))?;
        }
        views.push(view);
        Ok(if list.warnings.is_empty() { Exit::Done } else { Exit::Warnings })
    })?;
    if json {
        print_json(module.is_some(), &views)?;
    }
    Ok(exit)
}

/// Counts what each snapshot takes, and remembers it in the root.
fn count(root: &SnapshotRoot, list: &mut SnapshotList, now: DateTime<Utc>) -> Result<CountedSizes> {
    let SizesFound { sizes, unreadable } = snapshot_sizes::count(root, list, now)?;
    if unreadable > 0 {
        list.warnings.push(format!(
            "{} could not be read, so the sizes are too small; they are not remembered",
            match unreadable {
                1 => "1 directory or file".to_string(),
                number => format!("{number} directories or files"),
            }
        ));
    } else if root.is_registered()
        && let Err(error) = sizes.write(root.private())
    {
        log::info!("the sizes are not remembered: {error}");
    }
    Ok(sizes)
}
