//! The directory, or the directories, that the name of a section of `rotate-backups.ini` stands
//! for.
//!
//! rotate-backups compares a directory with its sections in the order of their names and takes the
//! first that matches. So the matching decides which policy was in force, and follows Python's
//! `fnmatch`, `expandvars`, `expanduser` and `abspath` exactly.

use std::path::Path;

/// The meaning of a section's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SectionLocation {
    /// `host:directory`, on another machine.
    Remote {
        /// The host, with the user if one is named.
        host: String,
        /// What stands after the colon.
        directory: String,
    },
    /// A directory that depends on where rotate-backups was started.
    Relative,
    /// One directory, absolute.
    Directory(String),
    /// All directories that match.
    Pattern(GlobPattern),
}

impl SectionLocation {
    /// Understands the `name` of a section; `variable` and `home` know the environment and home
    /// directories.
    pub fn parse(
        name: &str,
        variable: impl Fn(&str) -> Option<String>,
        home: impl Fn(&str) -> Option<String>,
    ) -> Self {
        if let Some((host, directory)) = name.split_once(':')
            && !host.is_empty()
            && !directory.is_empty()
            && !host.contains('/')
        {
            return SectionLocation::Remote {
                host: host.to_string(),
                directory: directory.to_string(),
            };
        }
        let expanded = with_home(&with_variables(name, variable), home);
        if !expanded.starts_with('/') {
            return SectionLocation::Relative;
        }
        let directory = normalized(&expanded);
        match directory.contains('*') {
            true => SectionLocation::Pattern(GlobPattern::new(&directory)),
            false => SectionLocation::Directory(directory),
        }
    }

    /// Whether rotate-backups takes this section for `directory`.
    pub fn matches(&self, directory: &Path) -> bool {
        match self {
            SectionLocation::Remote { .. } | SectionLocation::Relative => false,
            SectionLocation::Directory(own) => Path::new(own) == directory,
            SectionLocation::Pattern(pattern) => {
                directory.to_str().is_some_and(|text| pattern.matches(text))
            }
        }
    }
}

/// Replaces `$NAME` and `${NAME}`; a variable that is not set stays as it is.
fn with_variables(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let length = match after.strip_prefix('{') {
            Some(braced) => braced.find('}').map_or(0, |end| end + 2),
            None => {
                after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())
            }
        };
        let (name, remaining) = after.split_at(length);
        let bare = name.strip_prefix('{').map_or(name, |braced| &braced[..braced.len() - 1]);
        match variable(bare) {
            Some(value) if length > 0 => expanded.push_str(&value),
            _ => expanded.extend(["$", name]),
        }
        rest = remaining;
    }
    expanded + rest
}

/// Replaces a leading `~` or `~user`.
fn with_home(text: &str, home: impl Fn(&str) -> Option<String>) -> String {
    let Some(rest) = text.strip_prefix('~') else { return text.to_string() };
    let (user, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    home(user).map_or_else(|| text.to_string(), |home| home + path)
}

/// An absolute path without doubled slashes, `.` and `..`, by its text alone.
fn normalized(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A shell pattern as `fnmatch` reads it: `*` crosses slashes too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobPattern {
    /// The pattern as it is written.
    pub text: String,
    parts: Vec<GlobPart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum GlobPart {
    Exactly(char),
    Any,
    Many,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl GlobPart {
    fn admits(&self, character: char) -> bool {
        match self {
            GlobPart::Exactly(own) => *own == character,
            GlobPart::Any | GlobPart::Many => true,
            GlobPart::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&character)) != *negated
            }
        }
    }
}

/// The shapes of snapshot names, `0` for any digit.
const NAME_SHAPES: [&str; 3] =
    ["0000-00-00 00:00:00", "0000-00-00T00-00-00Z", "0000-00-00T00-00-00Z-partial"];

impl GlobPattern {
    /// Reads a pattern; every text is one.
    pub fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            parts.push(match first {
                '*' => GlobPart::Many,
                '?' => GlobPart::Any,
                '[' => match class(rest) {
                    Some((class, remaining)) => {
                        rest = remaining;
                        class
                    }
                    None => GlobPart::Exactly('['),
                },
                other => GlobPart::Exactly(other),
            });
        }
        GlobPattern { text: text.to_string(), parts }
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_by(text, GlobPart::admits)
    }

    /// Whether some snapshot could have a name that matches.
    pub fn may_match_a_snapshot(&self) -> bool {
        let admits = |part: &GlobPart, character: char| match character {
            '0' => ('0'..='9').any(|digit| part.admits(digit)),
            other => part.admits(other),
        };
        NAME_SHAPES.iter().any(|shape| self.matches_by(shape, admits))
    }

    fn matches_by(&self, text: &str, admits: impl Fn(&GlobPart, char) -> bool) -> bool {
        let characters: Vec<char> = text.chars().collect();
        // Whether the parts so far can match that many characters.
        let mut reached = vec![false; characters.len() + 1];
        reached[0] = true;
        for part in &self.parts {
            let mut next = vec![false; reached.len()];
            for position in 0..reached.len() {
                let before = position.checked_sub(1);
                next[position] = match part {
                    GlobPart::Many => {
                        reached[position] || before.is_some_and(|before| next[before])
                    }
                    part => before
                        .is_some_and(|before| reached[before] && admits(part, characters[before])),
                };
            }
            reached = next;
        }
        reached.last() == Some(&true)
    }
}

/// The class that begins after a `[`, and what follows it; `None` where no bracket closes it.
fn class(text: &str) -> Option<(GlobPart, &str)> {
    let negated = text.starts_with('!');
    let inside = if negated { &text[1..] } else { text };
    // A bracket that comes first belongs to the class.
    let end = inside.char_indices().skip(1).find(|(_, character)| *character == ']')?.0;
    let characters: Vec<char> = inside[..end].chars().collect();
    let mut ranges = Vec::new();
    let mut rest = characters.as_slice();
    while let Some((&first, remaining)) = rest.split_first() {
        match remaining {
            ['-', last, following @ ..] => {
                ranges.push((first, *last));
                rest = following;
            }
            _ => {
                ranges.push((first, first));
                rest = remaining;
            }
        }
    }
    Some((GlobPart::Class { negated, ranges }, &inside[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> SectionLocation {
        let variable = |name: &str| (name == "DISK").then(|| "/disk".to_string());
        let home = |user: &str| match user {
            "" => Some("/root".to_string()),
            "joe" => Some("/home/joe".to_string()),
            _ => None,
        };
        SectionLocation::parse(name, variable, home)
    }

    #[test]
    fn names_become_directories_as_python_makes_them() {
        let directory = |path: &str| SectionLocation::Directory(path.to_string());
        assert_eq!(parse("/srv//a/./b/../c/"), directory("/srv/a/c"));
        assert_eq!(parse("~/x"), directory("/root/x"));
        assert_eq!(parse("~joe"), directory("/home/joe"));
        assert_eq!(parse("$DISK/x${DISK}y"), directory("/disk/x/disky"));
        assert_eq!(parse("/a/$NONE${NONE}$/${DISK$"), directory("/a/$NONE${NONE}$/${DISK$"));
        assert_eq!(parse("/a:b"), directory("/a:b"));
        assert_eq!(parse("/a?[b]"), directory("/a?[b]"), "only a * makes a pattern");
        for name in ["srv", " /srv", "~nobody/x", "", ":/srv"] {
            assert_eq!(parse(name), SectionLocation::Relative, "{name}");
        }
    }

    #[test]
    fn a_host_stands_before_a_colon() {
        let host = |name: &str| match parse(name) {
            SectionLocation::Remote { host, directory } => (host, directory),
            other => panic!("{other:?}"),
        };
        assert_eq!(host("joe@nas:/srv/a"), ("joe@nas".to_string(), "/srv/a".to_string()));
        assert_eq!(host("nas:a:b"), ("nas".to_string(), "a:b".to_string()));
    }

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, text, expected) in [
            ("/srv/*", "/srv/a/b", true),
            ("/srv/*", "/srv", false),
            ("*a*b", "xaxbab", true),
            ("*a*b", "xaxba", false),
            ("?[a-c]", "xb", true),
            ("?[!a-c]", "xb", false),
            ("[]x]*", "]", true),
            ("[!]x]*", "]", false),
            ("[x", "[x", true),
            ("[c-a]", "b", false),
            ("[a-]", "-", true),
            ("", "", true),
            ("*", "ä\n", true),
        ] {
            assert_eq!(GlobPattern::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_that_could_match_a_snapshot_is_told_from_one_that_cannot() {
        for pattern in ["*", "2019-*", "*[5-7]", "*-partial", "????-??-?? *", "20[12]*Z", "*[!x]"] {
            assert!(GlobPattern::new(pattern).may_match_a_snapshot(), "{pattern}");
        }
        for pattern in ["*.tar", "latest", "2019", "*x*", "????-??-??", "a*"] {
            assert!(!GlobPattern::new(pattern).may_match_a_snapshot(), "{pattern}");
        }
    }
}
