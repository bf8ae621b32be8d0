//! Finds the directories of a module whose path in `rsyncd.conf` holds variables, by the snapshot
//! roots on disk. It is needed when this machine has lost its memory of them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::rsyncd_module::{RsyncdModule, variable};
use crate::config::settings::Settings;
use crate::module::root_location::fill_template;
use crate::module::target::Target;
use crate::store::memory::path_of;
use crate::store::root::SnapshotRoot;
use crate::system::mounts::Mounts;
use crate::tell::escape::escape;

/// At most this number of directories is read.
const MAX_DIRECTORIES: usize = 4_096;

/// A part of one name in the path of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PathPiece {
    Literal(Vec<u8>),
    /// A variable of rsyncd: any bytes, at least one.
    Any,
}

/// A directory of the module, and the root that is registered for it.
pub(crate) struct RegisteredDirectory {
    pub(crate) directory: PathBuf,
    pub(crate) root: PathBuf,
}

/// The directories that the module's path can stand for and that have roots registered under the
/// module's name; none for a path that is relative or lies in a `daemon chroot`.
pub(crate) fn of_module(settings: &Settings, module: &RsyncdModule) -> Vec<RegisteredDirectory> {
    let is_in_chroot = module.get("daemon chroot").is_some_and(|chroot| !chroot.is_empty());
    let Some(pattern) = module.get("path").filter(|_| !is_in_chroot) else { return Vec::new() };
    let Some(mut names) = names_of(pattern, &module.name) else { return Vec::new() };
    names.pop();
    let template = settings.of_configured(module).policy(Some(&module.name)).snapshot_root;
    let roots = match template.map(|template| fill_template(&template, Some(&module.name))) {
        Some(root) => root.into_iter().collect(),
        None => matching(&names),
    };
    let own = escape(&module.name);
    let registered = |root: PathBuf| {
        let registration = SnapshotRoot::registration(&root).ok().flatten()?;
        let is_own = registration.module.as_ref() == Some(&own);
        let directory = path_of(&registration.path).filter(|_| is_own)?;
        Some(RegisteredDirectory { directory, root })
    };
    roots.into_iter().filter_map(registered).collect()
}

impl Target {
    /// The warning for a module with several directories if this machine does not remember this
    /// one, and only its root on disk shows it.
    pub fn lost_memory(&self) -> Option<String> {
        let is_forgotten = self.memory.recall(&self.module_path).is_none();
        (self.has_ambiguous_name && is_forgotten && self.is_surely_registered()).then(|| {
            "this machine has lost what it remembered of this directory, such as a failed run; it \
             was \
             found by its snapshot root, and the next push or `rsyncd-snapshot rotate --all` \
             remembers it again"
                .to_string()
        })
    }
}

/// The names in an absolute path, each split into pieces.
fn names_of(path: &[u8], module: &[u8]) -> Option<Vec<Vec<PathPiece>>> {
    let path = path.strip_prefix(b"/")?;
    let names = path.split(|byte| *byte == b'/');
    let names = names.filter(|name| !name.is_empty() && *name != b".");
    names.map(|name| (name != b"..").then(|| pieces(name, module))).collect()
}

fn pieces(name: &[u8], module: &[u8]) -> Vec<PathPiece> {
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        match variable(rest) {
            Some(variable) => {
                rest = &rest[variable.len() + 2..];
                if variable == b"RSYNC_MODULE_NAME" {
                    literal.extend_from_slice(module);
                } else {
                    pieces.push(PathPiece::Literal(std::mem::take(&mut literal)));
                    pieces.push(PathPiece::Any);
                }
            }
            None => {
                literal.push(first);
                rest = tail;
            }
        }
    }
    pieces.push(PathPiece::Literal(literal));
    pieces
}

/// Whether the pieces match `name`.
fn is_of(pieces: &[PathPiece], name: &[u8]) -> bool {
    match pieces.split_first() {
        None => name.is_empty(),
        Some((PathPiece::Literal(text), rest)) => {
            name.strip_prefix(text.as_slice()).is_some_and(|name| is_of(rest, name))
        }
        Some((PathPiece::Any, rest)) => (1..=name.len()).any(|length| is_of(rest, &name[length..])),
    }
}

/// The existing directories that the names match.
fn matching(names: &[Vec<PathPiece>]) -> Vec<PathBuf> {
    let mounts = Mounts::read().unwrap_or_default();
    let mut directories = vec![PathBuf::from("/")];
    for pieces in names {
        let mut below = Vec::new();
        for directory in directories {
            if let [PathPiece::Literal(name)] = pieces.as_slice() {
                below.push(directory.join(std::ffi::OsStr::from_bytes(name)));
            } else if !mounts.may_wait_for(&directory, Path::new("/")) {
                below.extend(matching_in(&directory, pieces));
            }
        }
        below.truncate(MAX_DIRECTORIES);
        directories = below;
    }
    directories
}

fn matching_in(directory: &Path, pieces: &[PathPiece]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| {
        let kind = entry.file_type();
        kind.is_ok_and(|kind| kind.is_dir() || kind.is_symlink() && entry.path().is_dir())
    });
    let is_one = |entry: &std::fs::DirEntry| is_of(pieces, entry.file_name().as_bytes());
    let mut found: Vec<PathBuf> = directories.filter(is_one).map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_variables_matches_names_that_could_come_of_it() {
        let names = names_of(b"/srv//a-%USER%/./%RSYNC_MODULE_NAME%", b"home").expect("a path");
        assert_eq!(names.len(), 3);
        assert_eq!(names[2], [PathPiece::Literal(b"home".to_vec())]);
        for (name, expected) in [("a-anna", true), ("a-", false), ("b-anna", false), ("a", false)] {
            assert_eq!(is_of(&names[1], name.as_bytes()), expected, "{name}");
        }
        assert!(is_of(&pieces(b"%HOST%-%USER%.d", b"x"), b"h-u-v.d"));
        assert!(!is_of(&pieces(b"%HOST%-%USER%.d", b"x"), b"h-u"));
        assert_eq!(names_of(b"relative/%USER%", b"x"), None);
        assert_eq!(names_of(b"/srv/../%USER%", b"x"), None);
    }
}
