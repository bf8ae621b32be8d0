//! Finds the snapshots that a command names, and the modules that they belong to.
//!
//! All of the named snapshots are found before the first one is changed. So a wrong name changes
//! nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::store::pinning::is_visible;
use crate::store::root::SnapshotRoot;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path, shell_word};

/// The arguments of such a command: a module, then names of snapshots. The module may be left out
/// if no other module has a snapshot of that name.
pub(crate) type ModuleAndSnapshots<'a> = &'a [OsString];

/// The named snapshots that `has` accepts, each once, with their modules. `what` says in messages
/// what `has` accepts.
///
/// # Errors
/// [`Error::Usage`] if no module has one of them, or several have it.
pub(crate) fn find_all<'a>(
    context: &Context,
    named: ModuleAndSnapshots<'a>,
    what: &str,
    has: impl Fn(&SnapshotRoot, &str) -> Result<bool>,
) -> Result<Vec<(Target, &'a str)>> {
    let (module, names) = split(named);
    let mut found: Vec<(Target, &str)> = Vec::new();
    for name in names {
        let (target, name) = find(context, module, name, what, &has)?;
        if !found.iter().any(|(_, known)| *known == name) {
            found.push((target, name));
        }
    }
    Ok(found)
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
        (module, [name]) => find(context, module, name, "snapshot", &is_visible),
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
    // A command reads names of snapshots; a path is accepted for the module alone.
    let path = Path::new(name);
    let in_module = path.is_absolute().then(|| path.parent().zip(path.file_name())).flatten();
    let in_module =
        in_module.filter(|(_, last)| SnapshotName::parse(last.as_bytes(), &Zone::utc()).is_some());
    let is_module = || context.configured_path(OsStr::from_bytes(name.as_bytes())).is_some();
    let nowhere = match module {
        None if in_module.is_some() => in_module.map(by_module).unwrap_or_default(),
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

/// What to say of a snapshot that was named by its path.
fn by_module((root, name): (&Path, &OsStr)) -> String {
    format!(
        "{} is the path of a snapshot: name its module, and then the snapshot, {}",
        escape_path(&root.join(name)),
        shell_word(name.as_bytes())
    )
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
