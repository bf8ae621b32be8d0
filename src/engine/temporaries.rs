//! Files that look like those that rsync is still writing: `.NAME.XXXXXX`.
//!
//! The name alone proves nothing: a user's `.bashrc.backup` looks the same. So they are in every
//! snapshot like any other file, and only counted. A directory that holds one is never taken for
//! known by the [index](crate::engine::index), so that each snapshot counts all of them.

use std::ffi::CStr;

use crate::engine::listing::Listing;

/// So many are remembered by their path.
pub(crate) const MAX_PATHS: usize = 20;

/// rsync ends a temporary name with a dot and so many letters and digits.
const SUFFIX_BYTES: usize = 6;

/// Whether rsync could have made up this name for a file that it is receiving.
pub(crate) fn looks_temporary(name: &CStr) -> bool {
    let name = name.to_bytes();
    let Some(dot) = name.len().checked_sub(SUFFIX_BYTES + 1) else { return false };
    // The dot in front and the one of the suffix are two, with something in between.
    dot >= 2
        && name[0] == b'.'
        && name[dot] == b'.'
        && name[dot + 1..].iter().all(u8::is_ascii_alphanumeric)
}

/// What was found of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Temporaries {
    /// How many.
    pub count: u64,
    /// The first [`MAX_PATHS`] of them.
    pub paths: Vec<Vec<u8>>,
}

impl Temporaries {
    /// Counts those of a listing, by their names alone.
    pub fn note_names(&mut self, listing: &Listing) {
        for entry in listing.entries().iter().filter(|entry| !entry.is_directory) {
            let name = listing.name(entry);
            if looks_temporary(name) {
                self.note(|| name.to_bytes().to_vec());
            }
        }
    }

    /// Counts one, whose `path` is only asked for if it is remembered.
    pub fn note(&mut self, path: impl FnOnce() -> Vec<u8>) {
        self.count += 1;
        if self.paths.len() < MAX_PATHS {
            self.paths.push(path());
        }
    }

    /// These names as those of files in the directory whose path, ending in a slash, is
    /// `directory`.
    pub fn within(self, directory: &[u8]) -> Self {
        let paths = self.paths.iter().map(|name| [directory, name].concat()).collect();
        Temporaries { paths, ..self }
    }

    /// Whether no more paths are remembered.
    pub fn is_full(&self) -> bool {
        self.paths.len() >= MAX_PATHS
    }

    /// Adds what has been found elsewhere.
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
