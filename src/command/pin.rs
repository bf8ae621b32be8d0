//! `pin`, `unpin` and `undelete`: commands for single snapshots.
//!
//! All of the named snapshots are found before the first one is changed. So a wrong name changes
//! nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::command::print_done;
use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;
use crate::module::confine;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::store::pin::Pin;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::store::{pinning, retire};
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;
use crate::tell::exit::Exit;

/// The arguments of these commands: a module, then names of snapshots. The module may be left out
/// if no other module has a snapshot of that name.
pub(crate) type ModuleAndSnapshots<'a> = &'a [OsString];

/// Pins snapshots.
///
/// # Errors
/// [`Error::Usage`] if no module has one of them, or several have it; then nothing is pinned.
pub(crate) fn pin(context: &Context, named: ModuleAndSnapshots, reason: &str) -> Result<Exit> {
    change(context, named, "snapshot", pinning::is_visible, |root, name| {
        pinning::pin(root, name, Pin::new(Clock::System.now(), reason))?;
        Ok(format!("{name} is pinned: it stays until `unpin`"))
    })
}

/// Unpins snapshots.
///
/// # Errors
/// As [`pin()`].
pub(crate) fn unpin(context: &Context, named: ModuleAndSnapshots) -> Result<Exit> {
    let is_pinned =
        |root: &SnapshotRoot, name: &str| Ok(State::read(root.private())?.pins.contains_key(name));
    change(context, named, "pinned snapshot", is_pinned, |root, name| {
        pinning::unpin(root, name)?;
        Ok(format!("{name} is no longer pinned: it stays as long as the policy keeps it"))
    })
}

/// Brings retired snapshots back.
///
/// # Errors
/// As [`pin()`].
pub(crate) fn undelete(context: &Context, named: ModuleAndSnapshots) -> Result<Exit> {
    let is_retired = |root: &SnapshotRoot, name: &str| {
        Ok(root.is_registered() && retire::retired(root)?.iter().any(|retired| retired == name))
    };
    change(context, named, "retired snapshot", is_retired, |root, name| {
        retire::undelete(root, name, Clock::System.now())?;
        Ok(format!("{name} is back, and pinned: it stays until `unpin`"))
    })
}

/// Finds all of the named snapshots that `has` accepts, confines this process to their modules, and
/// changes one after the other. `work` returns what it did, as text.
fn change(
    context: &Context,
    named: ModuleAndSnapshots,
    what: &str,
    has: impl Fn(&SnapshotRoot, &str) -> Result<bool>,
    work: impl Fn(&SnapshotRoot, &str) -> Result<String>,
) -> Result<Exit> {
    let (module, names) = split(named);
    let mut found: Vec<(Target, &str)> = Vec::new();
    for name in names {
        let (target, name) = find(context, module, name, what, &has)?;
        if !found.iter().any(|(_, known)| *known == name) {
            found.push((target, name));
        }
    }
    confine::to(found.iter().map(|(target, _)| target), context.write_scope);
    for (target, name) in &found {
        let message = work(&target.open_root()?, name)?;
        print_done(context, target, &message)?;
    }
    Ok(Exit::Done)
}

/// The one visible snapshot that is named, and its module.
///
/// # Errors
/// [`Error::Usage`] if none or several are named, if no module has it, or if several have it.
pub(crate) fn find_visible<'a>(
    context: &Context,
    named: ModuleAndSnapshots<'a>,
) -> Result<(Target, &'a str)> {
    match split(named) {
        (module, [name]) => find(context, module, name, "snapshot", &pinning::is_visible),
        _ => Err(Error::Usage("name one snapshot, after the name of its module".to_string())),
    }
}

/// The module, if one is named, and the names of snapshots. The first of several arguments is a
/// module unless it has the form of a snapshot's name. A module with such a name is given by its
/// path.
fn split(named: ModuleAndSnapshots<'_>) -> (Option<&OsStr>, &[OsString]) {
    match named {
        [first, rest @ ..] if !rest.is_empty() => {
            match SnapshotName::parse(first.as_bytes(), &Zone::utc()) {
                None => (Some(first), rest),
                Some(_) => (None, named),
            }
        }
        names => (None, names),
    }
}

/// The module that has the snapshot `name`, and that name as text. Without `module`, exactly one
/// module has to have it.
fn find<'a>(
    context: &Context,
    module: Option<&OsStr>,
    name: &'a OsStr,
    what: &str,
    has: &impl Fn(&SnapshotRoot, &str) -> Result<bool>,
) -> Result<(Target, &'a str)> {
    let shown_name = escape(name.as_bytes());
    let name =
        name.to_str().ok_or_else(|| Error::Usage(format!("{shown_name} is no snapshot's name")))?;
    let mut owners = Vec::new();
    for (label, target) in context.targets(module, false)? {
        let found = target.and_then(|target| Ok((has(&target.look_at_root()?, name)?, target)));
        match found {
            Ok((true, target)) => owners.push(target),
            Ok((false, _)) => {}
            Err(error) if module.is_some() => return Err(error),
            Err(error) => log::warn!("{label}: {error}"),
        }
    }
    let is_module = || context.configured_path(OsStr::from_bytes(name.as_bytes())).is_some();
    let nowhere = match module {
        Some(module) => format!("{} has no {what} {shown_name}", escape(module.as_bytes())),
        None if is_module() => format!("{shown_name} is a module: name one of its snapshots, too"),
        None => format!("no module has a {what} {shown_name}"),
    };
    let labels: Vec<String> = owners.iter().map(Target::label).collect();
    match owners.pop() {
        None => Err(Error::Usage(format!(
            "{nowhere}; `list` shows snapshots and pins, `list --expired` what is retired"
        ))),
        Some(target) if owners.is_empty() => Ok((target, name)),
        Some(_) => Err(Error::Usage(format!(
            "several modules have {shown_name}: name one of {}",
            labels.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_argument_is_a_module_unless_it_looks_like_a_snapshot() {
        let arguments = |text: &str| text.split(',').map(OsString::from).collect::<Vec<_>>();
        let (first, second) = ("2026-11-22T19-08-31Z", "2019-08-02 12:00:00");
        for (named, module, count) in [
            (first.to_string(), None, 1),
            ("laptop".to_string(), None, 1),
            (format!("laptop,{first}"), Some("laptop"), 1),
            (format!("laptop,{first},{second}"), Some("laptop"), 2),
            (format!("{first},{second}"), None, 2),
            (format!("/srv/2026-11-22T19-08-31Z,{second}"), Some("/srv/2026-11-22T19-08-31Z"), 1),
        ] {
            let named = arguments(&named);
            let (found, names) = split(&named);
            assert_eq!((found, names.len()), (module.map(OsStr::new), count), "{named:?}");
        }
    }
}
