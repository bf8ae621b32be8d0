//! What `check` finds about the place of a snapshot root before the first run makes it: whether
//! another module would have its snapshots there, and whether an earlier history is elsewhere.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::refused_push::offers_only_reading;
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::rsyncd_module::RsyncdModule;
use crate::decide::name::SnapshotName;
use crate::decide::path_index::PathIndex;
use crate::decide::zone::Zone;
use crate::module::root_location::{filled, is_registered_for, parent_of, remembered_root};
use crate::module::target::Target;
use crate::store::layout::is_private;
use crate::store::root::SnapshotRoot;
use crate::tell::escape::{escape, escape_path};

/// A module that gets snapshots, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedRoot {
    pub(crate) module: Vec<u8>,
    pub(crate) directory: PathBuf,
    pub(crate) root: PathBuf,
}

/// The roots that the modules of `rsyncd.conf` have or will have, by the text of the configuration.
#[derive(Default)]
pub(crate) struct PlannedRoots {
    by_root: BTreeMap<PathBuf, Vec<PlannedRoot>>,
    roots: PathIndex<()>,
    directories: PathIndex<Vec<u8>>,
}

impl PlannedRoots {
    /// The roots of all writable modules that `gets_snapshots`. `template`: the `snapshot_root` of
    /// the policy.
    pub(crate) fn of(
        conf: &RsyncdConf,
        gets_snapshots: impl Fn(&RsyncdModule) -> bool,
        template: impl Fn(&RsyncdModule) -> Option<String>,
    ) -> Self {
        let planned = |module: &RsyncdModule| {
            let directory = module.path().ok()?;
            let root = planned_root(&module.name, &directory, template(module))?;
            Some(PlannedRoot { module: module.name.clone(), directory, root })
        };
        let writable = conf.modules.iter().filter(|module| !offers_only_reading(module));
        PlannedRoots::from_iter(
            writable.filter(|module| gets_snapshots(module)).filter_map(planned),
        )
    }

    /// Whether the module's directory shows what another module has: snapshots of it, or its files.
    pub(crate) fn are_shown_by(&self, module: &[u8], path: &Path) -> bool {
        let shows = self.roots.overlapping(path).any(|(root, ())| reaches_snapshots(path, root));
        let mut directories = self.directories.overlapping(path);
        shows || directories.any(|(other, name)| path.starts_with(other) && name != module)
    }

    /// The other modules that have the same root.
    fn sharing<'a>(&'a self, own: &'a PlannedRoot) -> impl Iterator<Item = &'a PlannedRoot> {
        let there = self.by_root.get(&own.root).map(Vec::as_slice).unwrap_or_default();
        there.iter().filter(|other| other.module != own.module)
    }
}

impl FromIterator<PlannedRoot> for PlannedRoots {
    fn from_iter<T: IntoIterator<Item = PlannedRoot>>(planned: T) -> Self {
        let mut by_root: BTreeMap<PathBuf, Vec<PlannedRoot>> = BTreeMap::new();
        for one in planned {
            by_root.entry(one.root.clone()).or_default().push(one);
        }
        let all = by_root.values().flatten();
        let directories = all.map(|one| (one.directory.clone(), one.module.clone())).collect();
        let roots = by_root.keys().map(|root| (root.clone(), ())).collect();
        PlannedRoots { by_root, roots, directories }
    }
}

/// The root of a module by the text of the configuration. `template`: its `snapshot_root`.
pub(crate) fn planned_root(
    module: &[u8],
    directory: &Path,
    template: Option<String>,
) -> Option<PathBuf> {
    match template {
        Some(template) => filled(&template, Some(module)).ok(),
        None => parent_of(directory).ok(),
    }
}

/// Whether `path` is above the root, or within one of its snapshots or `.rsyncd-snapshot`.
pub(crate) fn reaches_snapshots(path: &Path, root: &Path) -> bool {
    let within = path.strip_prefix(root).ok().and_then(|rest| rest.components().next());
    let is_ours =
        |name: &[u8]| is_private(name) || SnapshotName::parse(name, &Zone::utc()).is_some();
    root.starts_with(path) || within.is_some_and(|first| is_ours(first.as_os_str().as_bytes()))
}

/// The finding about a root that no module has used yet, and that two modules would use.
pub(crate) fn shared(
    planned: &PlannedRoots,
    own: &PlannedRoot,
    place: &str,
    policy_file: &str,
) -> Option<Finding> {
    let other = planned.sharing(own).next()?;
    let (name, others) = (escape(&own.module), escape(&other.module));
    let message = if other.directory == own.directory {
        format!(
            "{place}: the modules '{name}' and '{others}' have the same directory {}, and only one \
             of them can get snapshots; take the hooks out of the other",
            escape_path(&own.directory)
        )
    } else {
        format!(
            "{place}: the snapshots of the modules '{name}' and '{others}' would both be in {}, \
             and a root holds the snapshots of one module only; give one of them a root of its \
             own, as with \
             `[module.{}]` and `snapshot_root = \"{}.snapshots\"` in {policy_file}, or let each \
             `path` have a parent directory of its own",
            escape_path(&own.root),
            toml_key(&own.module),
            escape_path(&own.directory),
        )
    };
    Some(Finding::new(FindingId::RootShared, Severity::Critical, message))
}

/// A module's name as a key of the policy.
pub(crate) fn toml_key(name: &[u8]) -> String {
    let is_bare = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let text = escape(name);
    if !name.is_empty() && name.iter().all(is_bare) { text } else { format!("\"{text}\"") }
}

/// The finding about a root that is not in use, while the module's history is in another place.
pub(crate) fn history_elsewhere(target: &Target) -> Option<Finding> {
    let own = &target.root_path;
    let parent = parent_of(&target.module_path).ok();
    let remembered = remembered_root(&target.memory, &target.module_path);
    let candidates = remembered.into_iter().chain(parent.clone()).filter(|root| root != own);
    let is_history = |root: &PathBuf| is_registered_for(root, &target.module_path).unwrap_or(false);
    let own = escape_path(own);
    if let Some(history) = candidates.into_iter().find(is_history) {
        let is_parent = parent.as_ref() == Some(&history);
        let history = escape_path(&history);
        let edit = if is_parent {
            "take `snapshot_root` out of the policy for this module".to_string()
        } else {
            format!("set `snapshot_root = \"{history}\"` for this module in the policy")
        };
        let message = format!(
            "the policy puts the snapshots of this module into {own}, but its history is in \
             {history}, and a push would begin a new one; {edit}, or move all snapshots and \
             `.rsyncd-snapshot` from there to {own}"
        );
        return Some(Finding::new(FindingId::RootPlace, Severity::Critical, message));
    }
    let parent = parent.filter(|parent| escape_path(parent) != own)?;
    let count = snapshots_in(target, &parent);
    let is_free = matches!(SnapshotRoot::registration(&parent), Ok(None));
    (count > 0 && is_free).then(|| {
        let parent = escape_path(&parent);
        let message = format!(
            "{parent} holds {count} directories with names of snapshots, but the policy puts the \
             snapshots of this module into {own}: if they are its history, take `snapshot_root` \
             out of the policy for this module, or move them to {own}"
        );
        Finding::new(FindingId::RootPlace, Severity::Warning, message)
    })
}

fn snapshots_in(target: &Target, directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_snapshot = |entry: &std::fs::DirEntry| {
        SnapshotName::parse(entry.file_name().as_bytes(), &target.policy.time_zone).is_some()
    };
    entries.filter(is_snapshot).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(module: &str, directory: &str, root: &str) -> PlannedRoot {
        PlannedRoot { module: module.into(), directory: directory.into(), root: root.into() }
    }

    #[test]
    fn two_modules_do_not_share_a_root() {
        let all = [
            planned("a", "/srv/b/a", "/srv/b"),
            planned("b", "/srv/b/b", "/srv/b"),
            planned("c", "/srv/b/c", "/srv/c"),
            planned("d", "/srv/d/latest", "/srv/d"),
            planned("twin", "/srv/d/latest", "/srv/d"),
        ];
        let roots: PlannedRoots = all.iter().cloned().collect();
        for (own, expected) in [
            (0, Some("'a' and 'b' would both be in /srv/b")),
            (1, Some("'b' and 'a'")),
            (2, None),
            (3, Some("have the same directory /srv/d/latest")),
        ] {
            let found = shared(&roots, &all[own], "c:1", "/etc/p.toml");
            assert_eq!(found.is_some(), expected.is_some(), "{own}");
            let message = found.map(|finding| finding.message).unwrap_or_default();
            assert!(message.contains(expected.unwrap_or_default()), "{message}");
        }
        for (path, expected) in [
            ("/srv/b", true),
            ("/srv", true),
            ("/srv/b/x", false),
            ("/srv/b/2026-11-22T19-08-31Z", true),
            ("/srv/b/a/docs", true),
            ("/srv/x", false),
        ] {
            assert_eq!(roots.are_shown_by(b"x", Path::new(path)), expected, "{path}");
        }
        assert!(!roots.are_shown_by(b"c", Path::new("/srv/b/c")), "its own directory");
    }

    #[test]
    fn a_name_is_quoted_as_a_key_needs_it() {
        assert_eq!(toml_key(b"laptop-1"), "laptop-1");
        assert_eq!(toml_key(b"two words"), "\"two words\"");
        assert_eq!(toml_key(b"a.b"), "\"a.b\"");
    }
}
