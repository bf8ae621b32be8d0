//! Partial directories: where rsync keeps the received part of a file, and continues it *in place*
//! at the next push.
//!
//! With `--partial-dir=NAME` and with `--delay-updates` rsync looks for `D/NAME/f` before it writes
//! `D/f`, in every directory `D`. If that is a regular file, rsync 3.2 and later writes into it. A
//! snapshot that had a link to it would be rewritten. So only a few names are accepted, and below
//! them snapshots hold copies, never links.
//!
//! A name is relative: an absolute partial directory is one for files of *all* directories, so a
//! push could first fill it with links and then write into them. With a relative one rsync handles
//! `D/f` before anything in `D/NAME`.

/// The names that are accepted although no policy lists them: the one that rsync's manual suggests,
/// and that of `--delay-updates`.
pub const BUILT_IN: [&str; 2] = [".rsync-partial", DELAYED];

/// Where `--delay-updates` keeps files unless the client says otherwise.
pub const DELAYED: &str = ".~tmp~";

/// The accepted names, each as its components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialDirs(Vec<Vec<Vec<u8>>>);

impl Default for PartialDirs {
    fn default() -> Self {
        PartialDirs::listed(&[])
    }
}

impl PartialDirs {
    /// The built-in names and those that a policy lists, which are valid.
    pub fn listed(names: &[String]) -> Self {
        let all = BUILT_IN.into_iter().chain(names.iter().map(String::as_str));
        let mut names: Vec<Vec<Vec<u8>>> = all.map(|name| components(name.as_bytes())).collect();
        names.sort();
        names.dedup();
        PartialDirs(names)
    }

    /// Whether a client may name this directory as its partial directory.
    pub fn accepts(&self, value: &[u8]) -> bool {
        !value.starts_with(b"/") && self.0.contains(&components(value))
    }

    /// Whether a directory of this name may be a partial directory. This test is cheap and needs no
    /// path.
    pub fn may_be(&self, name: &[u8]) -> bool {
        self.0.iter().any(|names| names.last().is_some_and(|last| last == name))
    }

    /// Whether the directory at `path`, relative to the module, is a partial directory.
    pub fn includes(&self, path: &[u8]) -> bool {
        let path = components(path);
        self.0.iter().any(|names| path.ends_with(names))
    }

    /// Whether `path` lies in a partial directory, or is one.
    pub fn contain(&self, path: &[u8]) -> bool {
        let path = components(path);
        self.0.iter().any(|names| path.windows(names.len()).any(|part| part == names))
    }

    /// Whether a symbolic link of this name would lead rsync to another directory.
    pub fn lead_through(&self, name: &[u8]) -> bool {
        self.0.iter().flatten().any(|component| component == name)
    }

    /// The components of all names, each once: rsync would follow a link in place of any of them.
    pub fn components(&self) -> Vec<String> {
        let text = |component: &Vec<u8>| String::from_utf8_lossy(component).into_owned();
        let mut all: Vec<String> = self.0.iter().flatten().map(text).collect();
        all.sort();
        all.dedup();
        all
    }

    /// The names, as a record keeps them.
    pub fn names(&self) -> Vec<String> {
        let text = |names: &Vec<Vec<u8>>| String::from_utf8_lossy(&names.join(&b'/')).into_owned();
        self.0.iter().map(text).collect()
    }
}

/// What a search for files that a push could write into has found; paths are relative to the
/// module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// No such file.
    Nothing,
    /// A regular file with more than one link.
    File(Vec<u8>),
    /// A symbolic link in the place of a partial directory, or within one: rsync would follow it.
    Link(Vec<u8>),
    /// The time ran out, or a directory could not be read.
    Unknown,
}

/// The components of a path as rsync reads it; `..` stays one and so matches no name.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/');
    parts.filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

/// Whether rsync uses no partial directory at all if it is given this value.
pub fn is_none(value: &[u8]) -> bool {
    !value.starts_with(b"/") && components(value).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> PartialDirs {
        PartialDirs::listed(&names.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn only_relative_names_that_are_known_are_accepted() {
        let dirs = listed(&["a/parts"]);
        for value in [".rsync-partial", "./.rsync-partial/", ".~tmp~", "a/parts", "a//parts"] {
            assert!(dirs.accepts(value.as_bytes()), "{value}");
        }
        let others = [
            "docs",
            "/.rsync-partial",
            "x/.rsync-partial",
            "x/../.rsync-partial",
            "parts",
            "a",
            "",
            "/",
        ];
        for value in others {
            assert!(!dirs.accepts(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn a_name_counts_in_every_directory() {
        let dirs = listed(&["a/parts"]);
        for path in [".rsync-partial", "x/y/.~tmp~", "a/parts", "x/a/parts"] {
            assert!(dirs.includes(path.as_bytes()) && dirs.contain(path.as_bytes()), "{path}");
        }
        for path in ["", "parts", "x/parts", ".rsync-partial/x"] {
            assert!(!dirs.includes(path.as_bytes()), "{path}");
        }
        assert!(dirs.contain(b"x/.rsync-partial/y"));
        assert!(dirs.may_be(b"parts") && !dirs.may_be(b"a"));
        assert!(dirs.lead_through(b"parts") && dirs.lead_through(b"a"));
    }

    #[test]
    fn an_empty_value_and_a_dot_are_no_directory() {
        for (value, is_nothing) in
            [("", true), (".", true), ("./", true), ("/", false), ("x", false)]
        {
            assert_eq!(is_none(value.as_bytes()), is_nothing, "{value:?}");
        }
    }
}
