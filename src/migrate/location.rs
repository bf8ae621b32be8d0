//! The directory, or the directories, that the name of a section of `rotate-backups.ini` stands
//! for.
//!
//! rotate-backups compares a directory with its sections in the order of their names and takes the
//! first that matches. So the matching decides which policy was in force, and follows Python's
//! `fnmatch`, `expandvars`, `expanduser` and `abspath` exactly.

use std::path::Path;

use crate::decide::glob_pattern::GlobPattern;

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
}
