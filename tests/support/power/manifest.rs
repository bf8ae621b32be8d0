//! What a snapshot has to hold: every entry with its attributes, every file with its content.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::fingerprint::{self, Fingerprint};

pub(crate) struct Manifest {
    entries: Fingerprint,
    contents: BTreeMap<PathBuf, Vec<u8>>,
}

impl Manifest {
    pub(crate) fn of(directory: &Path) -> Manifest {
        Manifest { entries: fingerprint::of(directory), contents: fingerprint::contents(directory) }
    }

    /// How `other` differs, if it does: how often, and the first difference.
    pub(crate) fn difference(&self, other: &Manifest) -> Option<String> {
        let entries = differing(&self.entries, &other.entries);
        let contents = differing(&self.contents, &other.contents);
        let first = match (entries.first(), contents.first()) {
            (Some(path), _) => format!(
                "{}: {:?} instead of {:?}",
                path.escape_ascii(),
                other.entries.get(*path),
                self.entries.get(*path)
            ),
            (None, Some(path)) => format!("{}: other bytes", path.display()),
            (None, None) => return None,
        };
        Some(format!(
            "{} entries and {} contents differ, first {first}",
            entries.len(),
            contents.len()
        ))
    }
}

fn differing<'a, K: Ord, V: PartialEq>(
    left: &'a BTreeMap<K, V>,
    right: &'a BTreeMap<K, V>,
) -> Vec<&'a K> {
    let only_right = right.keys().filter(|key| !left.contains_key(*key));
    left.keys().filter(|key| left.get(*key) != right.get(*key)).chain(only_right).collect()
}
