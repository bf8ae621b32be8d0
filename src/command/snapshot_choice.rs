//! Finds the snapshot that a command line means, also where the module, its configuration or its
//! root cannot be used.
//!
//! `[MODULE] NAME`, or `MODULE` with a time; `NAME` may be `newest`, or the absolute path of a
//! snapshot or of something in one. `MODULE` may also be a snapshot root: on a rescue system there
//! is no `rsyncd.conf`, and the disk is mounted elsewhere. So nothing but names in a directory is
//! needed here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::decide::name::SnapshotName;
use crate::decide::snapshot_choice::{NEWEST, SnapshotWish, is_snapshot_word, last_moment};
use crate::decide::zone::Zone;
use crate::engine::responsiveness::ensure_responsive;
use crate::module::context::Context;
use crate::module::known_modules;
use crate::module::target::Target;
use crate::run::restore_source::{named_snapshot, snapshot_names};
use crate::store::layout::{PRIVATE, Subdir};
use crate::store::memory::path_of;
use crate::store::root::SnapshotRoot;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};

/// The snapshot that is meant.
#[derive(Debug)]
pub(crate) struct ChosenSnapshot {
    pub root_path: PathBuf,
    pub name: SnapshotName,
    /// The module, if it can be found.
    pub target: Option<Target>,
}

/// A directory with snapshots, and its module if that can be found.
struct Place {
    label: String,
    root_path: PathBuf,
    target: Option<Target>,
    zone: Zone,
}

impl Place {
    fn of_target(target: Target) -> Self {
        Place {
            label: target.label(),
            root_path: target.root_path.clone(),
            zone: target.policy.time_zone.clone(),
            target: Some(target),
        }
    }

    /// The snapshot root at `path`, whose module is looked for by its registration.
    fn of_root(context: &Context, path: &Path) -> Self {
        let registered = SnapshotRoot::registration(path).ok().flatten();
        let module = registered.and_then(|registered| path_of(&registered.path));
        let target = module
            .filter(|module| ensure_responsive(module).is_ok())
            .and_then(|module| Target::of_module(&context.settings, None, &module).ok())
            .filter(|target| target.root_path == path);
        match target {
            Some(target) => Place::of_target(target),
            None => Place {
                label: escape_path(path),
                root_path: path.to_path_buf(),
                zone: context.settings.policy(None).time_zone,
                target: None,
            },
        }
    }

    fn names(&self) -> Result<Vec<SnapshotName>> {
        snapshot_names(&self.root_path, &self.zone)
    }
}

/// The snapshot that `arguments` begin with, and the arguments after that. With `at`, they begin
/// with the module.
///
/// # Errors
/// [`Error::Usage`] or [`Error::Snapshot`] if there is no such snapshot, or several modules have
/// it.
pub(crate) fn choose<'a>(
    context: &Context,
    arguments: &'a [OsString],
    at: Option<&str>,
) -> Result<(ChosenSnapshot, Vec<&'a OsStr>)> {
    let rest = |from: usize| arguments[from..].iter().map(OsString::as_os_str).collect();
    let first = arguments[0].as_os_str();
    if let Some(at) = at {
        if is_snapshot_word(first.as_bytes()) {
            return Err(Error::Usage(format!(
                "{} and --at both say which snapshot is meant: give one of them, --at after a \
                 module",
                escape(first.as_bytes())
            )));
        }
        let place = one_place(context, first)?;
        let moment = last_moment(at, &place.zone).map_err(|accepted| {
            Error::Usage(format!("--at {}: {accepted}", escape(at.as_bytes())))
        })?;
        return Ok((pick(place, &SnapshotWish::At(moment), at)?, rest(1)));
    }
    if let Some((root, name, inside)) = path_in_snapshot(first) {
        let place = Place::of_root(context, &root);
        let mut paths = rest(1);
        // The path itself is what to restore, unless it is that of the snapshot.
        if inside {
            paths.insert(0, first);
        }
        return Ok((pick(place, &SnapshotWish::Named(name.clone()), &name)?, paths));
    }
    if is_snapshot_word(first.as_bytes()) {
        let word = first.to_string_lossy();
        return Ok((of_any_module(context, &word)?, rest(1)));
    }
    let Some(word) = arguments.get(1) else {
        return Err(Error::Usage(format!(
            "{} is no snapshot: name the module and then its snapshot, or `{NEWEST}`; `list` shows \
             the names",
            escape(first.as_bytes())
        )));
    };
    let shown = escape(word.as_bytes());
    let place = one_place(context, first)?;
    if !is_snapshot_word(word.as_bytes()) {
        return Err(Error::Usage(format!(
            "{shown} is no snapshot's name: after {} comes the name of a snapshot, or `{NEWEST}`; \
             `list` shows the names, and --at TIME chooses by time",
            escape(first.as_bytes())
        )));
    }
    Ok((pick(place, &SnapshotWish::of_word(&word.to_string_lossy()), &shown)?, rest(2)))
}

/// The root and the name of the snapshot that an absolute path is, or lies in; and whether it lies
/// in it. The live tree of a module may have directories with such names, so there has to be a
/// snapshot root around it.
fn path_in_snapshot(path: &OsStr) -> Option<(PathBuf, String, bool)> {
    let path = Path::new(path);
    path.is_absolute().then_some(())?;
    let is_in_root = |at: &&Path| {
        let name = at.file_name().is_some_and(|name| is_snapshot_name(name.as_bytes()));
        name && at.parent().is_some_and(holds_snapshots)
    };
    // The uppermost: a snapshot may hold directories that look like snapshots.
    let above: Vec<&Path> = path.ancestors().collect();
    let snapshot = above.iter().rev().copied().find(is_in_root)?;
    let root = std::fs::canonicalize(snapshot.parent()?).ok()?;
    let name = snapshot.file_name()?.to_str()?.to_string();
    Some((root, name, snapshot != path))
}

fn is_snapshot_name(name: &[u8]) -> bool {
    SnapshotName::parse(name, &Zone::utc()).is_some()
}

/// Whether a directory is a snapshot root, as far as names tell.
fn holds_snapshots(path: &Path) -> bool {
    let has_snapshot = || {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| is_snapshot_name(entry.file_name().as_bytes()))
    };
    path.join(PRIVATE).is_dir() || has_snapshot()
}

/// The directory with the snapshots of the module that is named.
fn one_place(context: &Context, module: &OsStr) -> Result<Place> {
    let path = Path::new(module);
    if path.is_absolute() {
        ensure_responsive(path)?;
        let canonical = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let found = known_modules::resolved(&context.settings, None, path);
        // Its own root comes first: a module's directory may hold a root of another one.
        if let Ok(target) = &found
            && holds_snapshots(&target.root_path)
        {
            return Ok(Place::of_target(found?));
        }
        for root in [Some(canonical.as_path()), canonical.parent()].into_iter().flatten() {
            if holds_snapshots(root) {
                return Ok(Place::of_root(context, root));
            }
        }
        return found.map(Place::of_target);
    }
    let mut found = Vec::new();
    for (_, target) in known_modules::named(&context.settings, module)? {
        found.push(Place::of_target(target?));
    }
    let labels: Vec<String> = found.iter().map(|place| place.label.clone()).collect();
    match (found.pop(), found.is_empty()) {
        (Some(place), true) => Ok(place),
        _ => Err(Error::Usage(format!(
            "{} has several directories: name one of {}",
            escape(module.as_bytes()),
            labels.join(", ")
        ))),
    }
}

/// The snapshot of that name, which one module has to have.
fn of_any_module(context: &Context, word: &str) -> Result<ChosenSnapshot> {
    let wish = SnapshotWish::of_word(word);
    let mut found: Vec<Place> = Vec::new();
    for (label, target) in context.targets(None, false)? {
        let named = target.and_then(|target| {
            let place = Place::of_target(target);
            let has_it = wish.choose(&place.names()?).is_some();
            Ok((place, has_it))
        });
        match named {
            Ok((place, true)) if found.iter().all(|known| known.root_path != place.root_path) => {
                found.push(place);
            }
            Ok(_) => {}
            Err(error) => log::warn!("{label}: {error}"),
        }
    }
    let labels: Vec<String> = found.iter().map(|place| place.label.clone()).collect();
    match (found.pop(), found.is_empty()) {
        (Some(place), true) => pick(place, &wish, word),
        (None, _) => Err(Error::Usage(format!(
            "no module has a snapshot {}; `list` shows them, and where no module is known, name \
             the snapshot by its absolute path",
            escape(word.as_bytes())
        ))),
        (Some(_), false) => Err(Error::Usage(format!(
            "several modules have {}: name one of {} before it",
            escape(word.as_bytes()),
            labels.join(", ")
        ))),
    }
}

fn pick(place: Place, wish: &SnapshotWish, shown: &str) -> Result<ChosenSnapshot> {
    let names = match (place.names(), wish) {
        (Err(error), SnapshotWish::Named(name)) if error.is_denied() => {
            let named = named_snapshot(&place.root_path, name, &place.zone);
            vec![named.ok_or(error)?]
        }
        (names, _) => names?,
    };
    if let Some(name) = wish.choose(&names) {
        let Place { root_path, target, .. } = place;
        return Ok(ChosenSnapshot { root_path, name: name.clone(), target });
    }
    let retired = place.root_path.join(PRIVATE).join(Subdir::Expired.name()).join(shown);
    let complete = SnapshotWish::Newest.choose(&names).map(|name| &name.text);
    let oldest = names.first().map(|name| &name.text);
    let (problem, remedy) = match (wish, complete, oldest) {
        (SnapshotWish::Named(name), ..) if retired.is_dir() => (
            format!("the snapshot {} is retired", escape(name.as_bytes())),
            "bring it back with `undelete` first",
        ),
        (SnapshotWish::Named(name), ..) => {
            (format!("there is no snapshot {}", escape(name.as_bytes())), "`list` shows the names")
        }
        (SnapshotWish::At(_), Some(_), Some(oldest)) => (
            format!(
                "no complete snapshot is as old as {}, the oldest one is {oldest}",
                escape(shown.as_bytes())
            ),
            "name it, or a later time",
        ),
        _ => ("there is no complete snapshot".to_string(), "`list` shows what there is"),
    };
    Err(Error::Snapshot { root: escape_path(&place.root_path), problem, remedy })
}
