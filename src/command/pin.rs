//! `pin`, `unpin`, `undelete` and `release`: what a person says about single snapshots, and the word
//! that ends the anomaly brake.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::{Context, print};
use crate::clock::Clock;
use crate::config::target::Target;
use crate::confine;
use crate::decide::own_output::Opener;
use crate::run;
use crate::store::pin::{self, Pin};
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::tell::counted;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;
use crate::tell::exit::Exit;

/// A snapshot's name after the module's; or alone, if only one module has it.
pub type Named<'a> = &'a [OsString];

/// Pins a snapshot.
///
/// # Errors
/// [`Error::Usage`] if no module has it, or several.
pub fn pin(context: &Context, named: Named, reason: &str) -> Result<Exit> {
    let (target, name) = find(context, named, "snapshot", pin::is_visible)?;
    pin::pin(&target.open_root()?, &name, Pin::new(Clock::System.now(), reason))?;
    done(&target, &format!("{name} is pinned: it stays until `unpin`"))
}

/// Takes the pin from a snapshot.
///
/// # Errors
/// As [`pin()`].
pub fn unpin(context: &Context, named: Named) -> Result<Exit> {
    let is_pinned =
        |root: &SnapshotRoot, name: &str| Ok(State::read(root.private())?.pins.contains_key(name));
    let (target, name) = find(context, named, "pinned snapshot", is_pinned)?;
    pin::unpin(&target.open_root()?, &name)?;
    done(&target, &format!("{name} is no longer pinned: it stays as long as the policy keeps it"))
}

/// Brings a retired snapshot back.
///
/// # Errors
/// As [`pin()`].
pub fn undelete(context: &Context, named: Named) -> Result<Exit> {
    let is_retired = |root: &SnapshotRoot, name: &str| {
        Ok(root.is_registered() && retire::retired(root)?.iter().any(|retired| retired == name))
    };
    let (target, name) = find(context, named, "retired snapshot", is_retired)?;
    retire::undelete(&target.open_root()?, &name, Clock::System.now())?;
    done(&target, &format!("{name} is back, and pinned: it stays until `unpin`"))
}

/// Lets expiry go on after the anomaly brake; the pin that the brake set stays. Or, for `torn`, takes the torn
/// mark away instead: a person vouches for the tree.
///
/// # Errors
/// If the module or its state cannot be used.
pub fn release(context: &Context, module: Option<&OsStr>, torn: bool) -> Result<Exit> {
    context.change_each(module, None, Opener::Upkeep, |target| {
        if torn {
            let was_torn = run::release_torn(target, &Clock::System)?;
            return done(target, if was_torn { "no longer torn" } else { "not torn" });
        }
        let root = target.open_root()?;
        let mut brake = None;
        State::update(root.private(), |state| brake = state.brake.take())?;
        done(
            target,
            &match brake {
                Some(brake) => format!("released; {} stays pinned until `unpin`", brake.before),
                None => "nothing to release".to_string(),
            },
        )
    })
}

/// Counts pushes that cannot be seen from here as ended: a container that was removed, another machine.
///
/// # Errors
/// If the module, its ledger or its state cannot be used.
pub fn release_unseen(context: &Context, module: Option<&OsStr>) -> Result<Exit> {
    context.change_each(module, None, Opener::Upkeep, |target| {
        let said = match run::end_unseen(target, &Clock::System)? {
            0 => "no push whose process cannot be seen from here".to_string(),
            1 => "1 push counts as ended; `snapshot --due` takes its snapshot".to_string(),
            count => format!("{count} pushes count as ended; `snapshot --due` takes their snapshot"),
        };
        done(target, &said)
    })
}

/// Accepts what was altered in snapshots, and lets expiry go on.
///
/// # Errors
/// If the module, its catalogue or its state cannot be used.
pub fn release_damage(context: &Context, module: Option<&OsStr>) -> Result<Exit> {
    context.change_each(module, None, Opener::Upkeep, |target| {
        let accepted = run::verify::accept(target, &Clock::System)?.altered_inodes.len();
        let message = match accepted {
            0 => "nothing is altered".to_string(),
            count => format!("{} accepted as found", counted(count, "altered file")),
        };
        done(target, &message)
    })
}

fn done(target: &Target, message: &str) -> Result<Exit> {
    print(&format!("{}: {message}\n", target.label()))?;
    Ok(Exit::Done)
}

/// The module, to which this process is confined from now on, and the name of the snapshot that was named; alone, the name has to be one
/// module's only.
fn find(
    context: &Context,
    named: Named,
    what: &str,
    has: impl Fn(&SnapshotRoot, &str) -> Result<bool>,
) -> Result<(Target, String)> {
    let (module, name) = match named {
        [name] => (None, name),
        [module, name] => (Some(module.as_os_str()), name),
        _ => return Err(Error::Usage("name a module and a snapshot".to_string())),
    };
    let told = escape(name.as_bytes());
    let name = name.to_str().ok_or_else(|| Error::Usage(format!("{told} is no snapshot's name")))?;
    let mut having = Vec::new();
    for (label, target) in context.targets(module)? {
        let found = target.and_then(|target| Ok((has(&target.look_at_root()?, name)?, target)));
        match found {
            Ok((true, target)) => having.push(target),
            Ok((false, _)) => {}
            Err(error) if module.is_some() => return Err(error),
            Err(error) => log::warn!("{label}: {error}"),
        }
    }
    let place = module.map_or("any registered module".to_string(), |module| escape(module.as_bytes()));
    let labels: Vec<String> = having.iter().map(Target::label).collect();
    match having.pop() {
        None => Err(Error::Usage(format!(
            "{place} has no {what} {told}; `list` shows snapshots and pins, `list --expired` what is retired"
        ))),
        Some(target) if having.is_empty() => {
            confine::to([&target], context.reach);
            Ok((target, name.to_string()))
        }
        Some(_) => {
            Err(Error::Usage(format!("several modules have {told}: name one of {}", labels.join(", "))))
        }
    }
}
