//! Shell patterns: `*` stands for any characters, `?` for one, and `[a-z]` for one of a class.
//!
//! Python's `fnmatch`, by which rotate-backups compares whole paths, and a shell, which compares
//! name by name, read the same pattern in two ways.

/// A pattern for a whole text, as Python's `fnmatch` reads it: `*` crosses slashes, too.
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
        Self::read(text, Reader::Python)
    }

    fn read(text: &str, reader: Reader) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            parts.push(match first {
                '*' => GlobPart::Many,
                '?' => GlobPart::Any,
                '[' => match class(rest, reader) {
                    Some((class, remaining)) => {
                        rest = remaining;
                        class
                    }
                    None => GlobPart::Exactly('['),
                },
                '\\' if reader == Reader::Shell => {
                    let quoted = rest.chars().next();
                    rest = &rest[quoted.map_or(0, char::len_utf8)..];
                    GlobPart::Exactly(quoted.unwrap_or('\\'))
                }
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

/// A pattern for one name of a path, as a shell reads it: a dot at the beginning of a name is
/// matched by a dot only, and a backslash takes the meaning from the character behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(GlobPattern);

impl NamePattern {
    /// The pattern that `name` is; none if it stands for itself alone.
    pub fn of(name: &[u8]) -> Option<Self> {
        let is_pattern = name.iter().any(|byte| b"*?[".contains(byte));
        is_pattern.then(|| NamePattern(GlobPattern::read(&as_characters(name), Reader::Shell)))
    }

    /// Whether it stands for `name`.
    pub fn matches(&self, name: &[u8]) -> bool {
        let begins_with_dot = self.0.parts.first() == Some(&GlobPart::Exactly('.'));
        (begins_with_dot || !name.starts_with(b".")) && self.0.matches(&as_characters(name))
    }
}

/// A name as characters. A byte that is not UTF-8 counts as one character, too: one of those that
/// Unicode leaves to private use.
fn as_characters(name: &[u8]) -> String {
    let private = |byte: &u8| char::from_u32(0x10_ff00 + u32::from(*byte)).unwrap_or('\u{fffd}');
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(private));
    }
    text
}

/// Which program's rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Python,
    Shell,
}

/// The class that begins after a `[`, and what follows it; `None` where no bracket closes it.
fn class(text: &str, reader: Reader) -> Option<(GlobPart, &str)> {
    let negated = text.starts_with('!') || reader == Reader::Shell && text.starts_with('^');
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
            (r"\*", r"\x", true),
            ("[^a]", "b", false),
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

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            (&b"*"[..], &b"fstab"[..], true),
            (b"*", b".bashrc", false),
            (b".*", b".bashrc", true),
            (br"\.*", b".bashrc", true),
            (b"[.]*", b".bashrc", false),
            (b"?bashrc", b".bashrc", false),
            (b"*.conf", b".conf", false),
            (b"f?tab", b"fstab", true),
            (b"gr?n", "grün".as_bytes(), true),
            (b"gr?n", b"gr\xfcn", true),
            (b"gr\xfc*", b"gr\xfcn", true),
            (b"gr\xfc*", b"gr\xfdn", false),
            (b"gr?n", b"gr\xfc\xfcn", false),
            (b"[!a-c]x", b"bx", false),
            (b"[^a-c]x", b"dx", true),
            (br"a\*?", b"a*b", true),
            (br"a\*?", b"axb", false),
            (b"*", b"a\nb\x1b", true),
            (br"*\", br"a\", true),
            (b"[x*", b"[xy", true),
        ] {
            let found = NamePattern::of(pattern).map(|pattern| pattern.matches(name));
            assert_eq!(found, Some(expected), "{pattern:?} {name:?}");
        }
        for name in [&b"fstab"[..], br"a\b", b"", b"]"] {
            assert_eq!(NamePattern::of(name), None, "{name:?}");
        }
    }
}
