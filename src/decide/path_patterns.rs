//! Which entries of a tree are meant by paths or shell patterns on a command line.
//!
//! A pattern is matched name by name from the tree's root on: `etc/*.conf` matches in `etc` only,
//! and `**` stands for any number of directories. What a pattern matches is meant with all that is
//! in it. A name that equals the pattern's text is meant, too, so a file `a[1]` needs no quoting.
//!
//! A walk asks about each directory before it enters it, and leaves out those in which nothing can
//! be meant. `diff` takes what is in a directory that matches; `versions` takes each entry
//! that matches by itself, and goes on by [`PatternPlaces`].

use crate::decide::glob_pattern::NamePattern;
use crate::tell::escape::escape;

/// The names of a path from a tree's top down.
pub type PathNames = Vec<Vec<u8>>;

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
        match self.patterns.is_empty() {
            true => PatternReach::Inside,
            false => self.begin().reach(),
        }
    }

    /// What the patterns say of `name` in a directory of which they say `directory`.
    pub fn step(&self, directory: &PatternReach, name: &[u8]) -> PatternReach {
        match directory {
            PatternReach::Inside => PatternReach::Inside,
            PatternReach::Outside => PatternReach::Outside,
            PatternReach::Towards(places) => self.advance(places, name).reach(),
        }
    }

    /// Which parts of the patterns apply in the tree's root.
    pub fn begin(&self) -> PatternPlaces {
        let mut places = PatternPlaces::default();
        (0..self.patterns.len()).for_each(|pattern| self.add(&mut places, (pattern, 0)));
        places
    }

    /// Which parts apply in `name`, in a directory in which those of `places` do.
    pub fn next(&self, places: &PatternPlaces, name: &[u8]) -> PatternPlaces {
        self.advance(&places.list, name)
    }

    /// The name that alone leads on, if no other name can.
    pub fn only_name(&self, places: &PatternPlaces) -> Option<&[u8]> {
        match places.list.as_slice() {
            [place] => match self.part(*place) {
                Some(PatternPart::Name { text, pattern: None }) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether all directories below lead on, at any depth.
    pub fn is_at_any_depth(&self, places: &PatternPlaces) -> bool {
        places.list.iter().any(|place| matches!(self.part(*place), Some(PatternPart::AnyDepth)))
    }

    fn part(&self, (pattern, part): (usize, usize)) -> Option<&PatternPart> {
        self.patterns[pattern].get(part)
    }

    fn advance(&self, known: &[(usize, usize)], name: &[u8]) -> PatternPlaces {
        let mut places = PatternPlaces::default();
        for &(pattern, part) in known {
            match &self.patterns[pattern][part] {
                PatternPart::AnyDepth => self.add(&mut places, (pattern, part)),
                PatternPart::Name { text, pattern: glob } => {
                    if text == name || glob.as_ref().is_some_and(|glob| glob.matches(name)) {
                        self.add(&mut places, (pattern, part + 1));
                    }
                }
            }
        }
        places
    }

    fn add(&self, places: &mut PatternPlaces, (pattern, part): (usize, usize)) {
        match self.part((pattern, part)) {
            None => places.is_match = true,
            Some(_) if places.list.contains(&(pattern, part)) => {}
            Some(next) => {
                places.list.push((pattern, part));
                if matches!(next, PatternPart::AnyDepth) {
                    self.add(places, (pattern, part + 1));
                }
            }
        }
    }
}

/// A path for a message or a view, escaped; that of the top itself is a dot.
pub fn path_text(names: &[Vec<u8>]) -> String {
    if names.is_empty() { ".".to_string() } else { escape(&names.join(&b'/')) }
}

/// Whether a path of these names means one entry at most.
pub fn is_plain(names: &[Vec<u8>]) -> bool {
    names.iter().all(|name| NamePattern::of(name).is_none())
}

/// Where patterns stand at one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatternPlaces {
    /// Each pair is a pattern, and which part of it comes next.
    list: Vec<(usize, usize)>,
    /// Whether a pattern matches the entry.
    pub is_match: bool,
}

impl PatternPlaces {
    /// Whether nothing in the entry can match.
    pub fn is_end(&self) -> bool {
        self.list.is_empty()
    }

    fn reach(self) -> PatternReach {
        match (self.is_match, self.list.is_empty()) {
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
    /// The entries that a pattern matches by themselves, of these paths.
    fn matches_of(pattern: &str, paths: &[&str]) -> Vec<String> {
        let patterns = PathPatterns::new(&[names(pattern)]);
        let is_match = |path: &&&str| {
            let all = names(path);
            all.iter().fold(patterns.begin(), |at, name| patterns.next(&at, name)).is_match
        };
        paths.iter().filter(is_match).map(ToString::to_string).collect()
    }

    #[test]
    fn an_entry_matches_by_itself_also_in_one_that_does() {
        let paths = ["", "a", "a/a", "a/b", "a/b/a", "b", "b/.c/a"];
        for (pattern, expected) in [
            ("a", &["a"][..]),
            ("*", &["a", "b"]),
            ("**/a", &["a", "a/a", "a/b/a", "b/.c/a"]),
            ("**", &paths),
            ("a/**", &["a", "a/a", "a/b", "a/b/a"]),
            ("**/b/**/a", &["a/b/a", "b/.c/a"]),
            ("**/*", &["a", "a/a", "a/b", "a/b/a", "b", "b/.c/a"]),
        ] {
            assert_eq!(matches_of(pattern, &paths), expected, "{pattern}");
        }
    }

    #[test]
    fn a_plain_name_that_alone_leads_on_is_told() {
        let patterns = PathPatterns::new(&[names("etc/**/x")]);
        let begin = patterns.begin();
        assert_eq!(patterns.only_name(&begin), Some(&b"etc"[..]));
        assert!(!patterns.is_at_any_depth(&begin));
        let inside = patterns.next(&begin, b"etc");
        assert_eq!(patterns.only_name(&inside), None);
        assert!(patterns.is_at_any_depth(&inside) && !inside.is_match);
        assert!(patterns.next(&begin, b"home").is_end());
    }
}
