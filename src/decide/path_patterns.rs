//! Which entries of a tree are meant by paths or shell patterns on a command line.
//!
//! A pattern is matched name by name from the tree's root on: `etc/*.conf` matches in `etc` only,
//! and `**` stands for any number of directories. What a pattern matches is meant with all that is
//! in it. A name that equals the pattern's text is meant, too, so a file `a[1]` needs no quoting.
//!
//! A walk asks about each directory before it enters it, and leaves out those in which nothing can
//! be meant.

use crate::decide::glob_pattern::NamePattern;

/// Paths and patterns; none of them means everything.
#[derive(Debug, Clone, Default)]
pub struct PathPatterns {
    patterns: Vec<Vec<PatternPart>>,
}

#[derive(Debug, Clone)]
enum PatternPart {
    /// `**`: any number of directories, also none.
    AnyDepth,
    /// One name.
    Name { text: Vec<u8>, pattern: Option<NamePattern> },
}

/// What the patterns say of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternReach {
    /// It is meant, with all that is in it.
    Inside,
    /// It may lead to what is meant. Each pair is a pattern, and which part of it comes next.
    Towards(Vec<(usize, usize)>),
    /// Neither.
    Outside,
}

impl PathPatterns {
    /// From the names of each path, from the tree's root on. A path without names is the root.
    pub fn new(paths: &[Vec<Vec<u8>>]) -> Self {
        let part = |name: &Vec<u8>| match name.as_slice() {
            b"**" => PatternPart::AnyDepth,
            name => PatternPart::Name { text: name.to_vec(), pattern: NamePattern::of(name) },
        };
        PathPatterns {
            patterns: paths.iter().map(|names| names.iter().map(part).collect()).collect(),
        }
    }

    /// What the patterns say of the tree's root.
    pub fn root(&self) -> PatternReach {
        let mut places = Places { patterns: self, list: Vec::new(), is_inside: false };
        places.is_inside = self.patterns.is_empty();
        (0..self.patterns.len()).for_each(|pattern| places.add(pattern, 0));
        places.reach()
    }

    /// What the patterns say of `name` in a directory of which they say `directory`.
    pub fn step(&self, directory: &PatternReach, name: &[u8]) -> PatternReach {
        let known = match directory {
            PatternReach::Inside => return PatternReach::Inside,
            PatternReach::Outside => return PatternReach::Outside,
            PatternReach::Towards(places) => places,
        };
        let mut places = Places { patterns: self, list: Vec::new(), is_inside: false };
        for &(pattern, part) in known {
            match &self.patterns[pattern][part] {
                PatternPart::AnyDepth => places.add(pattern, part),
                PatternPart::Name { text, pattern: glob } => {
                    if text == name || glob.as_ref().is_some_and(|glob| glob.matches(name)) {
                        places.add(pattern, part + 1);
                    }
                }
            }
        }
        places.reach()
    }
}

/// Whether a path of these names means one entry at most.
pub fn is_plain(names: &[Vec<u8>]) -> bool {
    names.iter().all(|name| NamePattern::of(name).is_none())
}

struct Places<'a> {
    patterns: &'a PathPatterns,
    list: Vec<(usize, usize)>,
    is_inside: bool,
}

impl Places<'_> {
    fn add(&mut self, pattern: usize, part: usize) {
        let parts = &self.patterns.patterns[pattern];
        match parts.get(part) {
            None => self.is_inside = true,
            Some(_) if self.list.contains(&(pattern, part)) => {}
            Some(next) => {
                self.list.push((pattern, part));
                if matches!(next, PatternPart::AnyDepth) {
                    self.add(pattern, part + 1);
                }
            }
        }
    }

    fn reach(self) -> PatternReach {
        match (self.is_inside, self.list.is_empty()) {
            (true, _) => PatternReach::Inside,
            (false, true) => PatternReach::Outside,
            (false, false) => PatternReach::Towards(self.list),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Vec<Vec<u8>> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .map(|name| name.as_bytes().to_vec())
            .collect()
    }

    /// `in`, `to` or `no`.
    fn said_of(patterns: &[&str], path: &str) -> &'static str {
        let patterns: Vec<_> = patterns.iter().map(|pattern| names(pattern)).collect();
        let patterns = PathPatterns::new(&patterns);
        let mut reach = patterns.root();
        for name in names(path) {
            reach = patterns.step(&reach, &name);
        }
        match reach {
            PatternReach::Inside => "in",
            PatternReach::Towards(_) => "to",
            PatternReach::Outside => "no",
        }
    }

    #[test]
    fn a_pattern_means_what_it_matches_with_all_in_it() {
        for (patterns, path, expected) in [
            (&[][..], "", "in"),
            (&[], "etc/fstab", "in"),
            (&[""], "etc/fstab", "in"),
            (&["etc"], "", "to"),
            (&["etc"], "etc", "in"),
            (&["etc"], "etc/ssh/config", "in"),
            (&["etc"], "home", "no"),
            (&["etc/*.conf"], "etc", "to"),
            (&["etc/*.conf"], "etc/a.conf", "in"),
            (&["etc/*.conf"], "etc/a.conf/b", "in"),
            (&["etc/*.conf"], "etc/sub", "no"),
            (&["*.conf"], "etc", "no"),
            (&["**/*.conf"], "a.conf", "in"),
            (&["**/*.conf"], "a/b/c.conf", "in"),
            (&["**/*.conf"], "a/b/c", "to"),
            (&["a/**/b/c"], "a/b/x/b/c", "in"),
            (&["a/**/b/c"], "a/b/x/b", "to"),
            (&["a/**"], "a", "in"),
            (&["**"], "", "in"),
            (&["etc", "home/*"], "home", "to"),
            (&["etc", "home/*"], "home/anna", "in"),
            (&["a[1]"], "a[1]", "in"),
            (&["a[1]"], "a1", "in"),
            (&["a[1]"], "a2", "no"),
            (&["?"], "ä", "in"),
        ] {
            assert_eq!(said_of(patterns, path), expected, "{patterns:?} {path}");
        }
    }

    #[test]
    fn many_stars_take_no_more_steps_than_there_are_parts() {
        let pattern = "**/".repeat(50) + "x";
        let patterns = PathPatterns::new(&[names(&pattern)]);
        let mut reach = patterns.root();
        for _ in 0..1_000 {
            reach = patterns.step(&reach, b"a");
        }
        let PatternReach::Towards(places) = &reach else { panic!("{reach:?}") };
        assert_eq!(places.len(), 51);
    }

    #[test]
    fn only_a_path_without_patterns_is_plain() {
        for (path, expected) in [("", true), ("a/b", true), ("a*", false), ("**/a", false)] {
            assert_eq!(is_plain(&names(path)), expected, "{path}");
        }
    }
}
