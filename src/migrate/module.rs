//! Finds the modules of `rsyncd.conf` that the sections of a `rotate-backups.ini` apply to.
//!
//! A section names a directory of backups, which is our snapshot root; a module's own directory is
//! `latest` in it. If several sections match one directory, the one whose name sorts first was in
//! force and is taken, although the administrator may have meant another one.

use std::fs::canonicalize;
use std::path::{Path, PathBuf};

use crate::config::rsyncd_module::RsyncdModule;
use crate::config::settings::{RSYNCD_CONF, Settings};
use crate::migrate::TranslatedSection;
use crate::migrate::location::SectionLocation;
use crate::module::target::Target;
use crate::tell::error::Result;
use crate::tell::escape::escape;

/// Which sections apply to which modules.
pub(crate) struct SectionAssignment {
    /// The modules that a section applies to, in the order of `rsyncd.conf`.
    pub assigned: Vec<AssignedModule>,
    /// The names of the others, escaped.
    pub left: Vec<String>,
    /// Whether there was an `rsyncd.conf` to look into.
    pub has_conf: bool,
    /// The sections by name, as indices: the order in which they are looked up.
    order: Vec<usize>,
}

/// A module that a section applies to.
pub(crate) struct AssignedModule {
    /// The name of the module, without control characters.
    pub name: String,
    /// The index of the section.
    pub section: usize,
    /// The directory of its snapshots.
    pub root: PathBuf,
    /// `snapshot_root` for it in the policy in use.
    pub snapshot_root: Option<String>,
    /// Whether the module's own directory is the one that holds the snapshots.
    pub is_root_itself: bool,
}

/// A module whose name a policy can hold.
struct CandidateModule {
    name: String,
    path: PathBuf,
    /// Its snapshot root, as rsyncd.conf spells it and without symbolic links.
    roots: Vec<PathBuf>,
    snapshot_root: Option<String>,
}

impl SectionAssignment {
    /// Looks for the modules of `sections` in `rsyncd.conf`.
    ///
    /// # Errors
    /// An `rsyncd.conf` that was named, or is there, but cannot be read.
    pub(crate) fn of(sections: &[TranslatedSection], settings: &Settings) -> Result<Self> {
        let mut order: Vec<usize> = (0..sections.len()).collect();
        order.sort_by(|one, other| sections[*one].name.cmp(&sections[*other].name));
        let has_conf =
            settings.rsyncd_conf != Path::new(RSYNCD_CONF) || settings.rsyncd_conf.exists();
        let mut assignment =
            SectionAssignment { assigned: Vec::new(), left: Vec::new(), has_conf, order };
        let modules: &[RsyncdModule] = if has_conf { &settings.rsyncd()?.modules } else { &[] };
        let candidates = candidates(modules, settings);
        let by_root = |candidate: &CandidateModule| {
            assignment.assigned(sections, candidate, &candidate.roots, false)
        };
        let mut assigned: Vec<AssignedModule> = candidates.iter().filter_map(by_root).collect();
        for candidate in &candidates {
            let own = spellings(candidate.path.clone());
            let is_taken = assigned
                .iter()
                .any(|other| other.name == candidate.name || own.contains(&other.root));
            if !is_taken {
                assigned.extend(assignment.assigned(sections, candidate, &own, true));
            }
        }
        let is_assigned = |module: &&RsyncdModule| {
            assigned.iter().any(|other| other.name.as_bytes() == module.name)
        };
        let left = modules.iter().filter(|module| !is_assigned(module));
        assignment.left = left.map(|module| escape(&module.name)).collect();
        assignment.assigned = assigned;
        Ok(assignment)
    }

    fn assigned(
        &self,
        sections: &[TranslatedSection],
        candidate: &CandidateModule,
        directories: &[PathBuf],
        is_root_itself: bool,
    ) -> Option<AssignedModule> {
        let section = self.in_force(sections, directories)?;
        let root = directories.last()?.clone();
        let CandidateModule { name, snapshot_root, .. } = candidate;
        Some(AssignedModule {
            name: name.clone(),
            section,
            root,
            snapshot_root: snapshot_root.clone(),
            is_root_itself,
        })
    }

    /// The section that was in force for a directory, given in all its spellings.
    pub(crate) fn in_force(
        &self,
        sections: &[TranslatedSection],
        directories: &[PathBuf],
    ) -> Option<usize> {
        let matches = |index: &&usize| {
            let location = &sections[**index].location;
            directories.iter().any(|directory| location.matches(directory))
                || is_same(location, directories)
        };
        self.order.iter().find(matches).copied()
    }
}

/// Whether symbolic links lead from the location to one of the directories.
fn is_same(location: &SectionLocation, directories: &[PathBuf]) -> bool {
    let SectionLocation::Directory(directory) = location else { return false };
    canonicalize(directory).is_ok_and(|directory| directories.contains(&directory))
}

/// A path as it is spelt, and without symbolic links if it is there.
pub(crate) fn spellings(path: PathBuf) -> Vec<PathBuf> {
    let canonical = canonicalize(&path).ok();
    std::iter::once(path).chain(canonical).collect()
}

/// The modules that can have a table; of several on one directory, those with the hook.
fn candidates(modules: &[RsyncdModule], settings: &Settings) -> Vec<CandidateModule> {
    let found: Vec<(bool, CandidateModule)> = modules
        .iter()
        .enumerate()
        // A later module of the same name is the one that clients reach.
        .filter(|(index, module)| {
            modules[index + 1..].iter().all(|later| later.name != module.name)
        })
        .filter_map(|(_, module)| {
            Some((module.get("post-xfer exec").is_some(), candidate(module, settings)?))
        })
        .collect();
    let has_hook = |path: &Path| found.iter().any(|(hooked, other)| *hooked && other.path == path);
    let hooked_only =
        |(hooked, candidate): &&(bool, CandidateModule)| *hooked || !has_hook(&candidate.path);
    let chosen: Vec<String> =
        found.iter().filter(hooked_only).map(|(_, one)| one.name.clone()).collect();
    found.into_iter().map(|(_, one)| one).filter(|one| chosen.contains(&one.name)).collect()
}

fn candidate(module: &RsyncdModule, settings: &Settings) -> Option<CandidateModule> {
    let name = std::str::from_utf8(&module.name).ok()?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return None;
    }
    let path = module.path().ok()?;
    let snapshot_root = settings.of_configured(module).policy(Some(&module.name)).snapshot_root;
    let target = Target::of_module(settings, Some(module.name.clone()), &path).ok();
    let mut roots: Vec<PathBuf> =
        path.parent().filter(|_| snapshot_root.is_none()).map(spellings_of).unwrap_or_default();
    roots.extend(target.map(|target| target.root_path));
    Some(CandidateModule { name: name.to_string(), path, roots, snapshot_root })
}

fn spellings_of(path: &Path) -> Vec<PathBuf> {
    spellings(path.to_path_buf())
}
