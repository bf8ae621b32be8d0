//! Counts files whose names look like those of files that rsync is still writing: `.NAME.XXXXXX`.
//!
//! The name alone proves nothing: a user's `.bashrc.backup` looks like one. So these files are in
//! every snapshot like any other file, and are only counted. A directory that holds one is never
//! skipped by the [index](crate::engine::index), so that each snapshot counts all of them.

use std::ffi::CStr;

use crate::engine::listing::Listing;

/// How many paths are kept.
pub(crate) const MAX_PATHS: usize = 20;

/// rsync ends a temporary name with a dot and this many letters and digits.
const SUFFIX_BYTES: usize = 6;

/// Whether rsync could have given this name to a file that it is receiving.
pub(crate) fn looks_temporary(name: &CStr) -> bool {
    let name = name.to_bytes();
    let Some(dot) = name.len().checked_sub(SUFFIX_BYTES + 1) else { return false };
    // Between the first dot and the dot of the suffix is at least one character.
    dot >= 2
        && name[0] == b'.'
        && name[dot] == b'.'
        && name[dot + 1..].iter().all(u8::is_ascii_alphanumeric)
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Temporaries {
    pub count: u64,
    /// The first [`MAX_PATHS`].
    pub paths: Vec<Vec<u8>>,
}

impl Temporaries {
    /// Counts the temporary files of a listing.
    pub fn note_names(&mut self, listing: &Listing) {
        for entry in listing.entries().iter().filter(|entry| !entry.is_directory) {
            let name = listing.name(entry);
            if looks_temporary(name) {
                self.note(|| name.to_bytes().to_vec());
            }
        }
    }

    /// Counts one. `path` is called only if its result is kept.
    pub fn note(&mut self, path: impl FnOnce() -> Vec<u8>) {
        self.count += 1;
        if self.paths.len() < MAX_PATHS {
            self.paths.push(path());
        }
    }

    /// Prefixes each name with `directory`, a path that ends in a slash.
    pub fn within(self, directory: &[u8]) -> Self {
        let paths = self.paths.iter().map(|name| [directory, name].concat()).collect();
        Temporaries { paths, ..self }
    }

    /// Whether no more paths are kept.
    pub fn is_full(&self) -> bool {
        self.paths.len() >= MAX_PATHS
    }

    pub fn add(&mut self, other: Temporaries) {
        self.count += other.count;
        self.paths.extend(other.paths);
        self.paths.truncate(MAX_PATHS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_looks_temporary_if_rsync_could_have_made_it() {
        for name in [c".a.AbCd12", c".bashrc.backup", c".x y\n.000000", c"..a.AbCd12", c"...AbCd12"]
        {
            assert!(looks_temporary(name), "{name:?}");
        }
        for name in [
            c"",
            c"a",
            c".AbCd12",
            c"..AbCd12",
            c"a.AbCd12",
            c".a.AbCd1",
            c".a.AbCd123",
            c".a.AbC-12",
        ] {
            assert!(!looks_temporary(name), "{name:?}");
        }
    }

    #[test]
    fn so_many_are_remembered_and_all_are_counted() {
        let mut found = Temporaries::default();
        (0..30).for_each(|number: u8| found.note(|| vec![number]));
        let mut all = Temporaries::default();
        all.note(|| vec![99]);
        all.add(found);
        assert_eq!((all.count, all.paths.len()), (31, MAX_PATHS));
        assert_eq!(all.paths[..2], [vec![99], vec![0]]);
    }
}
