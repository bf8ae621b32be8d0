//! Finds the module or snapshot root around a path of the command line.
//!
//! The way to the path is walked from `/` down, and the first directory on it that is a snapshot or
//! the directory of a module decides. What lies below that one, a client may have made; it is
//! neither resolved nor believed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::command::snapshot_choice::{Place, holds_snapshots, is_snapshot_name, one_place};
use crate::engine::responsiveness::{ensure_responsive, is_responsive};
use crate::module::context::Context;
use crate::module::known_modules::{Needs, resolved_for};
use crate::module::named_module::named;
use crate::module::target::Target;
use crate::store::layout::{PRIVATE, Subdir};
use crate::store::shelf::Shelf;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;

/// A path of the command line without a module, and what is around it.
pub(crate) struct LocatedPath {
    pub place: Place,
    /// The path in the module's directory or in a snapshot, by a canonical path of that.
    pub path: PathBuf,
}

/// The module or the snapshot root around `given`; none if there is none. A relative path begins in
/// the working directory.
///
/// # Errors
/// If the working directory is not known, or a file system does not answer.
pub(crate) fn place_around(context: &Context, given: &OsStr) -> Result<Option<LocatedPath>> {
    let path = plain(given)?;
    let components: Vec<Component> = path.components().collect();
    let prefixes = || (2..=components.len()).map(|end| components[..end].iter().collect());
    let prefixes: Vec<PathBuf> = prefixes().collect();
    let below = |prefix: &Path| path.strip_prefix(prefix).unwrap_or(Path::new("")).to_path_buf();
    for prefix in &prefixes {
        ensure_responsive(prefix)?;
        if let Some(root) = root_of_snapshot(prefix) {
            let name = prefix.file_name().unwrap_or_default();
            // What is in a retired subvolume is asked for by the snapshot's name.
            let name = expired_subvolume(name).map_or(name, OsStr::new);
            let snapshot = canonical_parent(prefix).join(name);
            let path = snapshot.join(below(prefix));
            return Ok(Some(LocatedPath { place: Place::of_root(context, &root), path }));
        }
        if let Some(target) = module_at(context, None, prefix, Target::is_surely_registered) {
            return Ok(Some(of_target(target, &below(prefix))));
        }
    }
    // The registration of a root is hidden from an ordinary user, but rsyncd.conf is not.
    let configured = context.settings.rsyncd().ok().into_iter().flat_map(|conf| &conf.modules);
    for module in configured {
        let Some(directory) = module.path().ok().filter(|path| is_responsive(path)) else {
            continue;
        };
        let Ok(canonical) = std::fs::canonicalize(directory) else { continue };
        let own = prefixes.iter().find(|prefix| resolved(prefix) == canonical);
        let has_history = |target: &Target| holds_snapshots(&target.root_path);
        if let Some(prefix) = own
            && let Some(target) = module_at(context, Some(module.name.clone()), prefix, has_history)
        {
            return Ok(Some(of_target(target, &below(prefix))));
        }
    }
    Ok(None)
}

fn of_target(target: Target, below: &Path) -> LocatedPath {
    let path = target.module_path.join(below);
    LocatedPath { place: Place::of_target(target), path }
}

/// The module with the directory `path`, if it `has_history`.
fn module_at(
    context: &Context,
    name: Option<Vec<u8>>,
    path: &Path,
    has_history: impl Fn(&Target) -> bool,
) -> Option<Target> {
    let target = resolved_for(&context.settings, name, path, Needs::Root).ok()?;
    has_history(&target).then_some(target)
}

/// The snapshot root, canonical, of the snapshot at `path`, which may be a retired one.
fn root_of_snapshot(path: &Path) -> Option<PathBuf> {
    let is_name =
        |name: &OsStr| is_snapshot_name(name.as_bytes()) || expired_subvolume(name).is_some();
    if !path.file_name().is_some_and(is_name) || !path.parent().is_some_and(holds_snapshots) {
        return None;
    }
    let root = canonical_parent(path);
    let expired = Path::new(PRIVATE).join(Subdir::Expired.name());
    match root.ends_with(&expired) {
        true => root.ancestors().nth(2).map(Path::to_path_buf),
        false => Some(root),
    }
}

/// The name of the snapshot that is retired under `name` in its root, as subvolumes are.
fn expired_subvolume(name: &OsStr) -> Option<&str> {
    Shelf::Expired.own(name.to_str()?)
}

fn canonical_parent(path: &Path) -> PathBuf {
    path.parent().map(resolved).unwrap_or_default()
}

fn resolved(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// `given` as an absolute path without `.` and `..`, by its names alone.
fn plain(given: &OsStr) -> Result<PathBuf> {
    let mut whole = PathBuf::from("/");
    if !given.as_bytes().starts_with(b"/") {
        whole = std::env::current_dir().map_err(|cause| {
            Error::Usage(format!(
                "the working directory is not known ({cause}): name {} by an absolute path",
                escape(given.as_bytes())
            ))
        })?;
    }
    for component in Path::new(given).components() {
        match component {
            Component::ParentDir => {
                whole.pop();
            }
            Component::Normal(name) => whole.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(whole)
}

/// Whether the first of several arguments names a module.
pub(crate) fn names_module(context: &Context, first: &OsStr) -> Result<bool> {
    if !first.as_bytes().starts_with(b"/") {
        let is_configured =
            || context.settings.rsyncd().is_ok_and(|conf| conf.module(first.as_bytes()).is_some());
        return Ok(is_configured() || named(&context.settings, first, Needs::Root).is_ok());
    }
    ensure_responsive(Path::new(first))?;
    let path = resolved(Path::new(first));
    if holds_snapshots(&path) {
        return Ok(true);
    }
    let around = place_around(context, first)?;
    Ok(around.is_some_and(|around| {
        around.place.target.is_some_and(|target| target.module_path == around.path)
    }))
}

/// The one place that `arguments` are about, and the paths in it, absolute where no module is
/// named.
///
/// # Errors
/// [`Error::Usage`] if there is none, or if paths lie in several.
pub(crate) fn place_of_paths(
    context: &Context,
    arguments: &[std::ffi::OsString],
) -> Result<(Place, Vec<Vec<u8>>)> {
    let Some((first, others)) = arguments.split_first() else {
        return Err(Error::Usage("name a path".to_string()));
    };
    let bytes = |path: &OsStr| path.as_bytes().to_vec();
    if !others.is_empty() && names_module(context, first)? {
        let paths = others.iter().map(|path| bytes(path)).collect();
        return Ok((one_place(context, first)?, paths));
    }
    let Some(found) = place_around(context, first)? else {
        return Err(no_place(context, first, others));
    };
    let mut paths = vec![bytes(found.path.as_os_str())];
    for other in others {
        let around = place_around(context, other)?;
        let around = around.filter(|around| around.place.root_path == found.place.root_path);
        let Some(around) = around else {
            return Err(Error::Usage(format!(
                "{} does not lie in {}, as {} does: ask for each by itself, or name the module \
                 first",
                escape(other.as_bytes()),
                found.place.label,
                escape(first.as_bytes())
            )));
        };
        paths.push(bytes(around.path.as_os_str()));
    }
    Ok((found.place, paths))
}

fn no_place(context: &Context, first: &OsStr, others: &[std::ffi::OsString]) -> Error {
    let shown = escape(first.as_bytes());
    let is_module = names_module(context, first).unwrap_or(false);
    let is_relative = !first.as_bytes().starts_with(b"/");
    if is_module && others.is_empty() {
        return Error::Usage(format!(
            "{shown} stands for a module: name a path in it, too; `.` is its directory itself"
        ));
    }
    // The first of several words was to be the name of a module.
    if is_relative
        && !others.is_empty()
        && let Err(error) = one_place(context, first)
    {
        return error;
    }
    let where_it_is = if is_relative { "the working directory" } else { shown.as_str() };
    Error::Usage(format!(
        "{where_it_is} lies in no module and no snapshot that is known here: name the module \
         before {shown}, or its snapshot root"
    ))
}
