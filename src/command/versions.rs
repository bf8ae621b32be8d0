//! `versions`: the versions of files and directories, across all snapshots and the module itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::Args;

use crate::command::path_place::place_of_paths;
use crate::command::print_json;
use crate::command::snapshot_choice::Place;
use crate::command::versions_view::{PathView, VersionsView};
use crate::decide::path_patterns::{PathNames, is_plain, path_text};
use crate::decide::path_versions::{Sighting, path_versions};
use crate::decide::restore_paths::{SnapshotPlace, read_path};
use crate::decide::similar::nearest;
use crate::engine::content::HashLimit;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::copy_comparison::CopyComparison;
use crate::run::path_history::{PathHistory, PathSurvey};
use crate::run::verify::known_damage::KnownDamage;
use crate::store::layout::{PRIVATE, Subdir};
use crate::store::root::SnapshotRoot;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;
use crate::tell::output::print;

/// How long the content of copies may be compared. Few files have copies.
const HASHING: Duration = Duration::from_secs(5);

/// How many of the nearest names a message lists.
const NEAREST: usize = 3;

/// How `versions` is used.
pub(crate) const VERSIONS_USAGE: &str = "rsyncd-snapshot versions [OPTIONS] [MODULE] PATH...";

/// What `versions --help` says below the options.
pub(crate) const VERSIONS_HELP: &str = "\
PATH is relative to the module's directory. Without MODULE it is a path in the module's directory
or in a snapshot, absolute or relative to the working directory. In it, `*`, `?` and `[...]` match
as in a shell, and `**` stands for any number of directories:
    rsyncd-snapshot versions laptop etc/fstab
    rsyncd-snapshot versions laptop 'home/anna/**/*.odt'
    cd /srv/backup/laptop/latest/etc && rsyncd-snapshot versions fstab

Each version comes with the first and the last snapshot that has it, how many have it, its size, the
time when it was changed, and the path to copy it from; `restore` copies that with all attributes.
`live` is the module itself. A directory has a new version when its own time, owner or mode changes:
name what is in it to see versions of that.";

/// What the command line asks for.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct VersionsOptions {
    /// The files or directories, after the module that they are in
    #[arg(num_args = 1.., required = true, value_name = "PATH")]
    pub named: Vec<OsString>,
}

/// Prints the versions of each path.
///
/// # Errors
/// If no path has any.
pub(crate) fn run(context: &Context, options: &VersionsOptions, json: bool) -> Result<Exit> {
    let (place, given) = place_of_paths(context, &options.named)?;
    let module = place.target.as_ref().map(|target| target.module_path.as_path());
    if let Some(target) = &place.target {
        context.set_level(target);
    }
    let paths = given.iter().map(|path| names_of(&place, path)).collect::<Result<Vec<_>>>()?;
    let history = PathHistory::open(&place.root_path, module, &place.zone)?;
    let has_snapshots = history.trees.iter().any(|tree| tree.kind.snapshot().is_some());
    if let Some(lost) =
        place.target.as_ref().filter(|_| !has_snapshots).and_then(Target::lost_history)
    {
        return Err(lost);
    }
    if let Some(error) = &history.no_retired {
        log::info!("{}: retired snapshots are left out: {error}", place.label);
    }
    let mut found = find(&place, &history, paths)?;
    if let Some((count, error)) = &found.survey.trouble {
        log::warn!(
            "{}: not everything could be looked at, so versions may be missing: {error}{}",
            place.label,
            if *count > 1 { format!(", and {} more", count - 1) } else { String::new() }
        );
    }
    let damage = KnownDamage::read(&place.root_path);
    if let Some(gap) = &damage.unread {
        log::warn!("{}: {}", place.label, gap.text);
    }
    if damage.is_cut {
        log::warn!(
            "{}: more files of snapshots were altered than are known by name: run `verify` to see \
             them",
            place.label
        );
    }
    let mut limit = HashLimit::of(HASHING, u64::MAX);
    let mut views = Vec::new();
    for (path, sightings) in found.paths.iter().zip(&found.survey.sightings) {
        let mut comparison = CopyComparison {
            history: &history,
            path,
            sightings,
            limit: &mut limit,
            hashes: BTreeMap::new(),
            is_uncertain: false,
        };
        let versions = path_versions(sightings, |one, two| comparison.is_copy(one, two));
        let is_compared = !comparison.is_uncertain;
        views.push(PathView::new(&history, path, sightings, &versions, &damage, is_compared));
    }
    if views.is_empty() && found.missing.len() == 1 {
        return Err(found.missing.remove(0));
    }
    let view = VersionsView::new(&place, &history, views);
    if json {
        print_json(true, &[&view])?;
    } else {
        print(&view.to_text(&place))?;
    }
    for error in &found.missing {
        log::error!("{error}");
    }
    Ok(if found.missing.is_empty() { Exit::Done } else { Exit::Usage })
}

/// The names of a path of the command line, from the module's directory on.
fn names_of(place: &Place, given: &[u8]) -> Result<PathNames> {
    let module = place.target.as_ref().map(|target| target.module_path.as_os_str().as_bytes());
    let retired = place.root_path.join(PRIVATE).join(Subdir::Expired.name());
    let snapshots_path = SnapshotRoot::snapshots_path(&place.root_path)?;
    let snapshot_place = SnapshotPlace {
        module,
        root: snapshots_path.as_os_str().as_bytes(),
        retired: Some(retired.as_os_str().as_bytes()),
        snapshot: None,
    };
    read_path(given, snapshot_place).map(|path| path.names).map_err(Error::Usage)
}

/// The paths that any tree has.
struct FoundPaths {
    paths: Vec<PathNames>,
    /// What was seen of them.
    survey: PathSurvey,
    /// An error for each path or pattern that no tree has.
    missing: Vec<Error>,
}

/// Looks at `given`. What no tree has by that name may be a pattern.
fn find(place: &Place, history: &PathHistory, given: Vec<PathNames>) -> Result<FoundPaths> {
    let is_seen = |sightings: &[Sighting]| {
        sightings.iter().any(|sighting| matches!(sighting, Sighting::Present(_)))
    };
    let mut survey = history.survey(&given);
    let mut missing = Vec::new();
    let mut paths: Vec<PathNames> = Vec::new();
    let mut sightings = Vec::new();
    for (path, seen) in given.into_iter().zip(std::mem::take(&mut survey.sightings)) {
        if is_seen(&seen) {
            paths.push(path);
            sightings.push(seen);
            continue;
        }
        if is_plain(&path) {
            let is_known = !seen.contains(&Sighting::Unknown);
            missing.push(no_version(place, history, &path, is_known));
            continue;
        }
        let expanded = history.matches(&path, &mut survey)?;
        let of_expanded = history.survey(&expanded);
        survey.note_all(of_expanded.trouble);
        let before = paths.len();
        for (path, seen) in expanded.into_iter().zip(of_expanded.sightings) {
            if is_seen(&seen) {
                paths.push(path);
                sightings.push(seen);
            }
        }
        if paths.len() == before {
            missing.push(error_of(place, format!("nothing matches {}", path_text(&path))));
        }
    }
    survey.sightings = sightings;
    Ok(FoundPaths { paths, survey, missing })
}

/// Why there is no version of `path`, with the nearest names if that `is_known` of all trees.
fn no_version(place: &Place, history: &PathHistory, path: &[Vec<u8>], is_known: bool) -> Error {
    if !is_known {
        let looked_at = format!("no snapshot that could be looked at has {}", path_text(path));
        return error_of(place, looked_at);
    }
    let beside = history.beside(path);
    if let Some((link, target)) = &beside.link {
        let link = escape_path(link);
        let target = escape(target);
        return error_of(
            place,
            format!(
                "there is no {}: {link} is a symbolic link to {target}, which is not followed",
                path_text(path)
            ),
        );
    }
    let (above, wrong) = path.split_at(beside.depth.min(path.len().saturating_sub(1)));
    let wrong = wrong.first().map(|name| escape(name)).unwrap_or_default();
    let names: Vec<String> = beside.names.iter().map(|name| escape(name)).collect();
    let in_directory = |name: &str| match above {
        [] => name.to_string(),
        above => format!("{}/{name}", path_text(above)),
    };
    let near = nearest(&wrong, names.iter().map(String::as_str), NEAREST);
    let near: Vec<String> = near.into_iter().map(in_directory).collect();
    let near = match near.as_slice() {
        [] => String::new(),
        near => format!(" (the nearest: {})", near.join(", ")),
    };
    let module = if place.target.is_some() { ", nor has the module" } else { "" };
    error_of(place, format!("no snapshot has {}{module}{near}", path_text(path)))
}

fn error_of(place: &Place, problem: String) -> Error {
    Error::Snapshot {
        root: place.label.clone(),
        problem,
        remedy: "name a path from the module's directory on",
    }
}
