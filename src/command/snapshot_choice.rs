//! Finds the snapshot that a command line means, also where the module, its configuration or its
//! root cannot be used.
//!
//! `[MODULE] NAME`, or `MODULE` with a time; `NAME` may be what one name begins with, `newest`, a
//! day, or the absolute path of a snapshot or of something in one. `MODULE` may also be a snapshot
//! root: on a rescue system there is no `rsyncd.conf`, and the disk is mounted elsewhere. So
//! nothing but names in a directory is needed here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::decide::name::SnapshotName;
use crate::decide::restore_paths::SnapshotPlace;
use crate::decide::similar::did_you_mean;
use crate::decide::snapshot_choice::{
    DayMeans, LIVE, NEWEST, NoChoice, WordContext, choose_by_word, is_snapshot_word, last_moment,
    may_begin_name, nearest_of_all, newest_up_to, proposals,
};
use crate::decide::zone::Zone;
use crate::engine::responsiveness::ensure_responsive;
use crate::module::context::Context;
use crate::module::known_modules::{Needs, resolved_for};
use crate::module::named_module::named;
use crate::module::target::Target;
use crate::run::restore_source::{named_snapshot, snapshot_names};
use crate::store::layout::PRIVATE;
use crate::store::memory::path_of;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::Shelf;
use crate::store::snapshots_place::module_of_snapshots;
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};

/// The snapshot that is meant.
#[derive(Debug)]
pub(crate) struct ChosenSnapshot {
    pub root_path: PathBuf,
    /// The directory that it is in.
    snapshots_path: PathBuf,
    pub name: SnapshotName,
    /// The module, if it can be found.
    pub target: Option<Target>,
}

impl ChosenSnapshot {
    /// Where absolute paths mean something in it.
    pub(crate) fn place(&self) -> SnapshotPlace<'_> {
        let module = self.target.as_ref().map(|target| target.module_path.as_os_str().as_bytes());
        SnapshotPlace {
            module,
            root: self.snapshots_path.as_os_str().as_bytes(),
            retired: None,
            snapshot: Some(&self.name.text),
        }
    }
}

/// A directory with snapshots, and its module if that can be found.
pub(crate) struct Place {
    /// The module's name or the root's path, escaped.
    pub label: String,
    /// The directory.
    pub root_path: PathBuf,
    /// The module, if it can be found.
    pub target: Option<Target>,
    /// The time zone of its policy.
    pub zone: Zone,
}

impl Place {
    pub(crate) fn of_target(target: Target) -> Self {
        Place {
            label: target.label(),
            root_path: target.root_path.clone(),
            zone: target.policy.time_zone.clone(),
            target: Some(target),
        }
    }

    /// The snapshot root at `path`, whose module is looked for by its registration.
    pub(crate) fn of_root(context: &Context, path: &Path) -> Self {
        let registered = SnapshotRoot::registration(path).ok().flatten();
        let module = registered.and_then(|registered| path_of(&registered.path));
        // CephFS snapshots are in the module.
        let module = module.or_else(|| module_of_snapshots(path).map(Path::to_path_buf));
        let is_place = |target: &Target| {
            let snapshots_path = || SnapshotRoot::snapshots_path(&target.root_path);
            target.root_path == path || snapshots_path().is_ok_and(|snapshots| snapshots == path)
        };
        let target = module
            .and_then(|module| resolved_for(&context.settings, None, &module, Needs::Root).ok())
            .filter(is_place);
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
/// [`Error::Usage`] or [`Error::Snapshot`] if there is no such snapshot, or several are meant.
pub(crate) fn choose<'a>(
    context: &Context,
    arguments: &'a [OsString],
    at: Option<&str>,
) -> Result<(ChosenSnapshot, Vec<&'a OsStr>)> {
    let rest = |from: usize| arguments[from..].iter().map(OsString::as_os_str).collect();
    let first = arguments[0].as_os_str();
    if let Some(at) = at {
        if means_snapshot(context, first) {
            return Err(Error::Usage(format!(
                "{} and --at both say which snapshot is meant: give one of them, --at after a \
                 module",
                escape(first.as_bytes())
            )));
        }
        let place = one_place(context, first)?;
        let moment = last_moment(at, &place.zone, Clock::System.now()).map_err(|accepted| {
            Error::Usage(format!("--at {}: {accepted}", escape(at.as_bytes())))
        })?;
        return Ok((pick(place, SnapshotWish::At(moment), at.as_ref())?, rest(1)));
    }
    if let Some((root, name, inside)) = path_in_snapshot(first) {
        let place = Place::of_root(context, &root);
        let mut paths = rest(1);
        // The path itself is what to restore, unless it is that of the snapshot.
        if inside {
            paths.insert(0, first);
        }
        return Ok((pick(place, SnapshotWish::Word, name.as_ref())?, paths));
    }
    if means_snapshot(context, without_slashes(first)) {
        return Ok((of_any_module(context, without_slashes(first))?, rest(1)));
    }
    let Some(word) = arguments.get(1) else {
        return Err(Error::Usage(format!(
            "{} is no snapshot{}: name the module and then its snapshot, or `{NEWEST}`; `list` \
             shows the names",
            escape(first.as_bytes()),
            proposals(&first.to_string_lossy(), &[])
        )));
    };
    let place = one_place(context, first)?;
    // The path of a snapshot in place of its name, and the name with a slash, as a shell adds it.
    if let Some((root, name, inside)) = path_in_snapshot(word)
        && root == place.root_path
    {
        let paths = rest(if inside { 1 } else { 2 });
        return Ok((pick(place, SnapshotWish::Word, name.as_ref())?, paths));
    }
    let word = without_slashes(word);
    if !is_snapshot_word(word.as_bytes()) && !may_begin_name(word.as_bytes()) {
        return Err(Error::Usage(format!(
            "{} is no snapshot's name{}: after {} comes the name of a snapshot, or `{NEWEST}`; \
             `list` shows the names, and --at TIME chooses by time",
            escape(word.as_bytes()),
            proposals(&word.to_string_lossy(), &[]),
            escape(first.as_bytes())
        )));
    }
    Ok((pick(place, SnapshotWish::Word, word)?, rest(2)))
}

/// The snapshot in the root of `chosen` that `word` means.
///
/// # Errors
/// As [`choose`], and if `word` is the path of something else.
pub(crate) fn choose_beside(
    context: &Context,
    chosen: &ChosenSnapshot,
    word: &OsStr,
) -> Result<ChosenSnapshot> {
    let shown = || escape(word.as_bytes());
    let name = match path_in_snapshot(word) {
        Some((root, name, false)) if root == chosen.root_path => OsString::from(name),
        Some((_, name, true)) => {
            return Err(Error::Usage(format!(
                "{} lies in the snapshot {name}: name that, and the path after `--`",
                shown()
            )));
        }
        Some(_) => {
            return Err(Error::Usage(format!(
                "{} is no snapshot in {}: only snapshots of one module are compared",
                shown(),
                escape_path(&chosen.root_path)
            )));
        }
        None => without_slashes(word).to_os_string(),
    };
    let remark = did_you_mean(&name.to_string_lossy(), [LIVE]);
    if !remark.is_empty() && !may_begin_name(name.as_bytes()) {
        return Err(Error::Usage(format!("{} is no snapshot{remark}", shown())));
    }
    let zone = match &chosen.target {
        Some(target) => target.policy.time_zone.clone(),
        None => context.settings.policy(None).time_zone,
    };
    let root_path = chosen.root_path.clone();
    let place = Place { label: escape_path(&root_path), root_path, target: None, zone };
    pick(place, SnapshotWish::Word, &name)
}

/// A name without the slashes that a shell adds when it completes the name of a directory.
pub(crate) fn without_slashes(word: &OsStr) -> &OsStr {
    let bytes = word.as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    OsStr::from_bytes(&bytes[..end])
}

/// Whether the first of several arguments means a snapshot, and no module. What a name only begins
/// with may be a module's name, too.
pub(crate) fn means_snapshot(context: &Context, first: &OsStr) -> bool {
    let first = first.as_bytes();
    let is_module = || context.settings.rsyncd().is_ok_and(|conf| conf.module(first).is_some());
    is_snapshot_word(first) || may_begin_name(first) && !is_module()
}

/// The root and the name of the snapshot that an absolute path is, or lies in; and whether it lies
/// in it. The live tree of a module may have directories with such names, so there has to be a
/// snapshot root around it.
pub(crate) fn path_in_snapshot(path: &OsStr) -> Option<(PathBuf, String, bool)> {
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

pub(crate) fn is_snapshot_name(name: &[u8]) -> bool {
    SnapshotName::parse(name, &Zone::utc()).is_some()
}

/// Whether a directory is a snapshot root, as far as names tell.
pub(crate) fn holds_snapshots(path: &Path) -> bool {
    let has_snapshot = || {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| is_snapshot_name(entry.file_name().as_bytes()))
    };
    path.join(PRIVATE).is_dir() || has_snapshot()
}

/// The directory with the snapshots of the module that is named.
pub(crate) fn one_place(context: &Context, module: &OsStr) -> Result<Place> {
    let path = Path::new(module);
    if path.is_absolute() {
        ensure_responsive(path)?;
        let canonical = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let found = one_target(context, module);
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
    one_target(context, module).map(Place::of_target)
}

/// The one module that is named, whose directory may be lost.
fn one_target(context: &Context, module: &OsStr) -> Result<Target> {
    let mut found = Vec::new();
    for (_, target) in named(&context.settings, module, Needs::Root)? {
        found.push(target?);
    }
    let labels: Vec<String> = found.iter().map(Target::label).collect();
    match (found.pop(), found.is_empty()) {
        (Some(target), true) => Ok(target),
        _ => Err(Error::Usage(format!(
            "{} has several directories: name one of {}",
            escape(module.as_bytes()),
            labels.join(", ")
        ))),
    }
}

/// What is asked for: by a word, or the newest complete one up to a time.
#[derive(Debug, Clone, Copy)]
enum SnapshotWish {
    Word,
    At(DateTime<Utc>),
}

impl Place {
    fn choose<'a>(&self, word: &OsStr, names: &'a [SnapshotName]) -> Chosen<'a> {
        let context =
            WordContext { zone: &self.zone, now: Clock::System.now(), day: DayMeans::Newest };
        choose_by_word(&word.to_string_lossy(), names, context)
    }
}

type Chosen<'a> = std::result::Result<&'a SnapshotName, NoChoice>;

/// The snapshot of that name, which one module has to have.
fn of_any_module(context: &Context, word: &OsStr) -> Result<ChosenSnapshot> {
    let mut found: Vec<Place> = Vec::new();
    let mut refusals = Vec::new();
    for (label, target) in context.targets(None, false, Needs::Root)? {
        let named = target.and_then(|target| {
            let place = Place::of_target(target);
            let names = place.names()?;
            let refusal = place.choose(word, &names).err();
            Ok((place, refusal))
        });
        match named {
            Ok((place, None | Some(NoChoice::Several(_)))) => {
                if found.iter().all(|known| known.root_path != place.root_path) {
                    found.push(place);
                }
            }
            Ok((_, Some(why))) => refusals.push(why),
            Err(error) => log::warn!("{label}: {error}"),
        }
    }
    let labels: Vec<String> = found.iter().map(|place| place.label.clone()).collect();
    match (found.pop(), found.is_empty()) {
        (Some(place), true) => pick(place, SnapshotWish::Word, word),
        (None, _) => {
            let shown = word.to_string_lossy();
            Err(Error::Usage(format!(
                "no module has a snapshot {}{}; `list` shows them, and where no module is known, \
                 name the snapshot by its absolute path",
                escape(word.as_bytes()),
                proposals(&shown, &nearest_of_all(&shown, &refusals))
            )))
        }
        (Some(_), false) => Err(Error::Usage(format!(
            "several modules have {}: name one of {} before it",
            escape(word.as_bytes()),
            labels.join(", ")
        ))),
    }
}

fn pick(place: Place, wish: SnapshotWish, shown: &OsStr) -> Result<ChosenSnapshot> {
    let names = match (place.names(), wish, shown.to_str()) {
        (Err(error), SnapshotWish::Word, Some(name)) if error.is_denied() => {
            let named = named_snapshot(&place.root_path, name, &place.zone);
            vec![named.ok_or(error)?]
        }
        (names, ..) => names?,
    };
    let chosen = match wish {
        SnapshotWish::Word => place.choose(shown, &names),
        SnapshotWish::At(moment) => newest_up_to(&names, moment).ok_or(NoChoice::NoneComplete),
    };
    let why = match chosen {
        Ok(name) => {
            let name = name.clone();
            let Place { root_path, target, .. } = place;
            let snapshots_path = SnapshotRoot::snapshots_path(&root_path)?;
            return Ok(ChosenSnapshot { root_path, snapshots_path, name, target });
        }
        Err(why) => why,
    };
    // Another word, such as `..`, may be a path to some directory.
    let has_retired = || {
        let snapshots_path = SnapshotRoot::snapshots_path(&place.root_path)?;
        let paths = Shelf::Expired.paths(&place.root_path, &snapshots_path, shown);
        Ok::<bool, Error>(paths.iter().any(|path| path.is_dir()))
    };
    let retired = is_snapshot_name(shown.as_bytes()) && has_retired().unwrap_or(false);
    let complete = newest_up_to(&names, DateTime::<Utc>::MAX_UTC);
    let shown = escape(shown.as_bytes());
    let (problem, remedy) = match (wish, complete, names.first()) {
        (SnapshotWish::Word, ..) if matches!(why, NoChoice::NoneOf(_)) && retired => {
            (format!("the snapshot {shown} is retired"), "bring it back with `undelete` first")
        }
        (SnapshotWish::At(_), Some(_), Some(oldest)) => (
            format!("no complete snapshot is as old as {shown}, the oldest one is {}", oldest.text),
            "name it, or a later time",
        ),
        _ => (why.problem(&shown), "`list` shows the names"),
    };
    Err(Error::Snapshot { root: escape_path(&place.root_path), problem, remedy })
}
