//! Finds the directories that overlap with one directory, without comparing it with each of them.
//!
//! A server may have hundreds of modules, and each of them is checked against all others. So the
//! directories are sorted once: those below a directory follow it, and those above it are few
//! enough to be looked up one by one.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// Values by directory. All paths are absolute and without `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathIndex<T> {
    by_path: BTreeMap<PathBuf, Vec<T>>,
}

impl<T> Default for PathIndex<T> {
    fn default() -> Self {
        PathIndex { by_path: BTreeMap::new() }
    }
}

impl<T> FromIterator<(PathBuf, T)> for PathIndex<T> {
    fn from_iter<I: IntoIterator<Item = (PathBuf, T)>>(entries: I) -> Self {
        let mut index = PathIndex::default();
        for (path, value) in entries {
            index.by_path.entry(path).or_default().push(value);
        }
        index
    }
}

impl<T> PathIndex<T> {
    /// The values of every directory that is `path`, above it or below it, with that directory.
    pub fn overlapping<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a Path, &'a T)> {
        let above = path.ancestors().skip(1).filter_map(|above| self.by_path.get_key_value(above));
        let from = self.by_path.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
        let at_or_below = from.take_while(move |(below, _)| below.starts_with(path));
        let found = above.chain(at_or_below);
        found.flat_map(|(path, values)| values.iter().map(move |value| (path.as_path(), value)))
    }

    /// All values with their directories, by directory.
    pub fn all(&self) -> impl Iterator<Item = (&Path, &T)> {
        let all = self.by_path.iter();
        all.flat_map(|(path, values)| values.iter().map(move |value| (path.as_path(), value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_overlapping_directories_are_found() {
        let paths = [
            "/",
            "/srv",
            "/srv/a",
            "/srv/a-b",
            "/srv/a b",
            "/srv/a/b",
            "/srv/a/b/c",
            "/srv/a.b",
            "/srv/a0",
            "/srv/b",
            "/home/a",
            "/srv/a/b",
        ];
        let numbered = || paths.iter().enumerate();
        let index: PathIndex<usize> =
            numbered().map(|(number, path)| (PathBuf::from(path), number)).collect();
        for own in paths.into_iter().chain(["/srv/a/b/x", "/nothing", "/srv/a/b/c/d/e"]) {
            let mut found: Vec<usize> =
                index.overlapping(Path::new(own)).map(|(_, number)| *number).collect();
            found.sort_unstable();
            let overlaps =
                |path: &str| Path::new(path).starts_with(own) || Path::new(own).starts_with(path);
            let expected: Vec<usize> =
                numbered().filter(|(_, path)| overlaps(path)).map(|(number, _)| number).collect();
            assert_eq!(found, expected, "{own}");
        }
    }
}
