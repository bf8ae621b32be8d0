//! Finds the module that a command line names.
//!
//! [`meant_module`] decides; this file gathers its facts and makes the target. Nothing is read that
//! a client has made: only rsyncd.conf, this machine's memory, and the registrations of roots.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::refused_push::offers_only_reading;
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::rsyncd_module::{ModuleDirectory, RsyncdModule};
use crate::config::settings::Settings;
use crate::decide::arguments::read_paths::ReadPaths;
use crate::decide::module_argument::{ArgumentFacts, MeantModule, ModuleCandidate, meant_module};
use crate::decide::name::SnapshotName;
use crate::decide::similar::{did_you_mean, nearest};
use crate::decide::zone::Zone;
use crate::engine::responsiveness::{ensure_responsive, is_responsive};
use crate::module::known_modules::{
    KnownModule, Needs, RememberedModule, ensure_answers, forgotten, resolved_for,
};
use crate::module::shown_roots::shown_roots;
use crate::module::target::Target;
use crate::store::layout::PRIVATE;
use crate::store::memory::path_of;
use crate::store::root::SnapshotRoot;
use crate::store::root_checks::of_another_user;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path, shell_path, shell_word, unescape};

/// The module that the command line names. One name of rsyncd.conf may stand for several
/// directories.
///
/// # Errors
/// If there is no such module, several could be meant, or nothing is known of its directory.
pub(crate) fn named(
    settings: &Settings,
    argument: &OsStr,
    needs: Needs,
) -> Result<Vec<(String, Result<Target>)>> {
    let shown_argument = escape(argument.as_bytes());
    let (mut facts, itself) = match Path::new(argument).is_absolute() {
        true => facts_of_path(settings, Path::new(argument))?,
        false => facts_of_name(settings, argument.as_bytes())?,
    };
    if needs == Needs::Itself {
        facts.shown.clear();
    }
    let one = |target: Target| vec![(target.label(), Ok(target))];
    match meant_module(facts) {
        MeantModule::Itself => match itself {
            Itself::At(name, path) => resolved_for(settings, name, &path, needs).map(one),
            Itself::Anywhere(module) => everywhere(settings, module, needs),
        },
        MeantModule::Other(module) => of_candidate(settings, &module, needs).map(one),
        MeantModule::Shown(module) => {
            let target = of_candidate(settings, &module, needs)?;
            if needs != Needs::Root {
                return Err(Error::Usage(format!(
                    "{shown_argument} shows the snapshots of {label}, and no snapshots are made \
                     of it: name {label}",
                    label = target.label()
                )));
            }
            log::info!("{shown_argument} shows the snapshots of {}", target.label());
            Ok(one(target))
        }
        MeantModule::Snapshot(module, name) => Err(Error::Usage(format!(
            "{shown_argument} is no module: it is or lies in the snapshot {name} of {}",
            argument_of(&module)
        ))),
        MeantModule::Ambiguous(modules) => {
            let modules: Vec<String> = modules.iter().map(argument_of).collect();
            Err(Error::Usage(format!(
                "{shown_argument} may mean several modules: name one of {}",
                modules.join(", ")
            )))
        }
        MeantModule::Unknown => Err(no_such_module(settings, argument.as_bytes())),
    }
}

/// What an argument stands for if it means no other module.
enum Itself<'a> {
    /// A directory, with the module's name if that was given.
    At(Option<Vec<u8>>, PathBuf),
    /// A module whose directory rsyncd.conf does not tell.
    Anywhere(&'a RsyncdModule),
}

fn facts_of_name<'a>(settings: &'a Settings, name: &[u8]) -> Result<(ArgumentFacts, Itself<'a>)> {
    let conf = settings.rsyncd()?;
    let Some(module) = conf.module(name) else {
        let remembered = RememberedModule::all(settings, &BTreeSet::new());
        let own = remembered.into_iter().filter(|one| one.name.as_deref() == Some(name));
        let candidate = |one: RememberedModule| {
            // Without a root there is no history that could be meant.
            one.memory.snapshot_root.as_deref().and_then(path_of)?;
            Some(ModuleCandidate { name: one.name, directory: one.path, root: None })
        };
        let remembered = own.filter_map(candidate).collect();
        let facts = ArgumentFacts { remembered, ..ArgumentFacts::default() };
        return Ok((facts, Itself::At(Some(name.to_vec()), PathBuf::new())));
    };
    match module.whereabouts()? {
        ModuleDirectory::Unknown { .. } => {
            let facts = ArgumentFacts { is_known: true, ..ArgumentFacts::default() };
            Ok((facts, Itself::Anywhere(module)))
        }
        ModuleDirectory::At(path) => {
            let mut facts = facts_of_directory(settings, Some(module), &path)?;
            // The name is that of the restore module; its path is that of the root, too.
            facts.root_of = facts.root_of.filter(|_| facts.shown.is_empty());
            Ok((facts, Itself::At(Some(name.to_vec()), path)))
        }
    }
}

fn facts_of_path<'a>(settings: &'a Settings, path: &Path) -> Result<(ArgumentFacts, Itself<'a>)> {
    ensure_responsive(path)?;
    let canonical = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let module = settings.rsyncd().ok().and_then(|conf| module_at(conf, &canonical));
    let facts = facts_of_directory(settings, module, path)?;
    let in_snapshot = in_snapshot(&canonical)?;
    Ok((ArgumentFacts { in_snapshot, ..facts }, Itself::At(None, path.to_path_buf())))
}

/// The module of rsyncd.conf that has this directory and is only read.
fn module_at<'a>(conf: &'a RsyncdConf, canonical: &Path) -> Option<&'a RsyncdModule> {
    let is_there = |module: &&RsyncdModule| {
        let path = module.path().ok().filter(|path| is_responsive(path));
        path.and_then(|path| std::fs::canonicalize(path).ok()).as_deref() == Some(canonical)
    };
    conf.modules.iter().filter(|module| offers_only_reading(module)).find(is_there)
}

/// What is known of the directory of `module`, or of one that no module has.
fn facts_of_directory(
    settings: &Settings,
    module: Option<&RsyncdModule>,
    path: &Path,
) -> Result<ArgumentFacts> {
    let facts = ArgumentFacts { is_known: true, ..ArgumentFacts::default() };
    let name = module.map(|module| module.name.clone());
    let itself = resolved_for(settings, name, path, Needs::Root);
    if itself.as_ref().is_ok_and(Target::is_registered) || !is_responsive(path) {
        return Ok(ArgumentFacts { has_history: true, ..facts });
    }
    let Ok(canonical) = std::fs::canonicalize(path) else { return Ok(facts) };
    let private = canonical.join(PRIVATE);
    if let Ok(metadata) = std::fs::symlink_metadata(&private)
        && std::fs::read_dir(&private)
            .is_err_and(|cause| cause.kind() == ErrorKind::PermissionDenied)
    {
        return Err(of_another_user(&canonical, metadata.uid()));
    }
    let root_of = match SnapshotRoot::registration(&canonical)? {
        Some(registration) => candidate(&registration.path, registration.module, &canonical),
        None => None,
    };
    let shown = match module.is_some_and(offers_only_reading) {
        true => shown_by(settings, &canonical)?,
        false => Vec::new(),
    };
    Ok(ArgumentFacts { root_of, shown, ..facts })
}

/// The modules whose snapshots the restore module in this directory shows.
fn shown_by(settings: &Settings, canonical: &Path) -> Result<Vec<ModuleCandidate>> {
    let shown = shown_roots(canonical, &ReadPaths::Any, &settings.memory);
    let candidate = |root: &Path| {
        let found = SnapshotRoot::registration(root)?;
        Ok(found.and_then(|found| candidate(&found.path, found.module, root)))
    };
    let found = shown.roots.iter().map(|root| candidate(&root.path));
    Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The snapshot that a path is or lies in.
fn in_snapshot(canonical: &Path) -> Result<Option<(ModuleCandidate, String)>> {
    for path in canonical.ancestors() {
        let (Some(name), Some(root)) = (path.file_name(), path.parent()) else { continue };
        if SnapshotName::parse(name.as_bytes(), &Zone::utc()).is_none() {
            continue;
        }
        let found = SnapshotRoot::registration(root)?;
        let found = found.and_then(|found| candidate(&found.path, found.module, root));
        if let Some(module) = found {
            return Ok(Some((module, escape(name.as_bytes()))));
        }
    }
    Ok(None)
}

fn candidate(path: &str, name: Option<String>, root: &Path) -> Option<ModuleCandidate> {
    Some(ModuleCandidate {
        name: name.as_deref().and_then(unescape),
        directory: path_of(path)?,
        root: Some(root.to_path_buf()),
    })
}

/// The target of a module that was found by its root or in this machine's memory.
fn of_candidate(settings: &Settings, module: &ModuleCandidate, needs: Needs) -> Result<Target> {
    let target = resolved_for(settings, module.name.clone(), &module.directory, needs)?;
    match &module.root {
        Some(root) if *root != target.root_path && needs != Needs::Root => {
            Err(Error::Usage(format!(
                "{} is not the snapshot root of {} now, which is {}: name the module",
                escape_path(root),
                target.label(),
                escape_path(&target.root_path)
            )))
        }
        // What is in that root is meant, though the policy has another one now.
        Some(root) => {
            let target = Target { root_path: root.clone(), ..target };
            ensure_answers(&target)?;
            Ok(target)
        }
        None => Ok(target),
    }
}

/// The directories of a module whose path in rsyncd.conf holds variables.
fn everywhere(
    settings: &Settings,
    module: &RsyncdModule,
    needs: Needs,
) -> Result<Vec<(String, Result<Target>)>> {
    let name = module.name.as_slice();
    let conf = settings.rsyncd()?;
    let remembered = RememberedModule::all(settings, &BTreeSet::new());
    let (own, _): (Vec<_>, Vec<_>) =
        remembered.into_iter().partition(|one| one.name.as_deref() == Some(name));
    let forgotten = forgotten(settings, module, &own);
    let all = own.into_iter().filter_map(|one| one.resolve(settings, conf, needs));
    let found: Vec<_> = all.chain(forgotten).filter_map(KnownModule::target).collect();
    // The error says why the module's path is not known, and what to name instead.
    if found.is_empty() {
        let unknown = || format!("the directory of module {} is not known", escape(name));
        Err(module.path().err().unwrap_or_else(|| Error::Usage(unknown())))
    } else {
        Ok(found)
    }
}

/// How a command line names the module.
fn argument_of(module: &ModuleCandidate) -> String {
    match (&module.name, &module.root) {
        (Some(name), Some(_)) => shell_word(name),
        _ => shell_path(&module.directory),
    }
}

/// How many modules a message lists.
const MOST_LISTED: usize = 8;

/// How many of the nearest ones it lists if there are more.
const MOST_PROPOSALS: usize = 3;

fn no_such_module(settings: &Settings, name: &[u8]) -> Error {
    let conf = settings.rsyncd().ok();
    let configured = conf.into_iter().flat_map(|conf| &conf.modules);
    let names: Vec<String> = configured.map(|module| escape(&module.name)).collect();
    let remembered = RememberedModule::all(settings, &BTreeSet::new()).into_iter();
    let retired: Vec<String> = remembered.filter_map(|one| Some(escape(&one.name?))).collect();
    let name = escape(name);
    let known = || names.iter().map(String::as_str);
    let has = match names.len() {
        0 => "none".to_string(),
        1..=MOST_LISTED => format!("'{}'", names.join("', '")),
        count => {
            let near = nearest(&name, known(), MOST_PROPOSALS);
            format!("{count}, the nearest are '{}'", near.join("', '"))
        }
    };
    Error::Usage(format!(
        "no module '{name}'{} in {} (it has {has}); name one of them, or an absolute path",
        did_you_mean(&name, known().chain(retired.iter().map(String::as_str))),
        escape_path(&settings.rsyncd_conf),
    ))
}
