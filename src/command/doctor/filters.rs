//! What `check` finds in `filter`, `include` and `exclude` of a module. rsync ends at the first
//! rule that it does not understand, in each connection, before the client can be told why. The
//! rules are read here as rsync's `exclude.c` reads them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::command::doctor::files::is_missing;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::{RsyncdModule, has_variable};
use crate::engine::responsiveness::is_responsive;
use crate::tell::escape::{escape, escape_path};

/// The words for rules, and their letters.
const RULES: [(&str, u8); 9] = [
    ("clear", b'!'),
    ("dir-merge", b':'),
    ("exclude", b'-'),
    ("hide", b'H'),
    ("include", b'+'),
    ("merge", b'.'),
    ("protect", b'P'),
    ("risk", b'R'),
    ("show", b'S'),
];

/// Files of rules that name each other deeper than this are not followed.
const MAX_DEPTH: usize = 8;

/// A larger file of rules is not read.
const MAX_BYTES: u64 = 1 << 20;

/// The findings about a module.
pub(crate) fn findings(module: &RsyncdModule) -> Vec<Finding> {
    let mut found = Vec::new();
    // The files are then those below that directory.
    let has_chroot = module.get("daemon chroot").is_some_and(|it| !it.is_empty());
    let depth = if has_chroot { MAX_DEPTH } else { 0 };
    for parameter in ["filter", "include", "exclude", "include from", "exclude from"] {
        let value = module.with_name(module.get(parameter).unwrap_or_default());
        if has_variable(&value) {
            continue;
        }
        let wrong = match parameter {
            "filter" => mistake_in_rules(&value, depth),
            "include" | "exclude" => mistake_in_patterns(&value),
            _ => mistake_in_file(&value, b"", depth, &|line, _| mistake_in_pattern(line)),
        };
        found.extend(wrong.map(|wrong| {
            let message = format!(
                "{}: {parameter}: {wrong}, so rsync turns every connection away",
                module.place_of(parameter)
            );
            Finding::new(FindingId::ConfParameter, Severity::Critical, message)
        }));
    }
    found
}

/// The files with absolute paths that the rules of `filter` name, apart from those in files.
pub(crate) fn merged_files(module: &RsyncdModule) -> Vec<PathBuf> {
    let value = module.with_name(module.get("filter").unwrap_or_default());
    let mut found = Vec::new();
    let mut rest = value.trim_ascii_start();
    let has_variable = has_variable(&value);
    while let (false, Ok(rule)) = (has_variable, Rule::read(rest, true)) {
        found.extend(rule.file());
        rest = rest[rule.length..].trim_ascii_start();
    }
    found
}

/// What the rest of a value begins with, up to the next blank.
fn word(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| byte.is_ascii_whitespace()).unwrap_or(text.len());
    &text[..end]
}

/// The first mistake in a value of `include` or `exclude`.
fn mistake_in_patterns(value: &[u8]) -> Option<String> {
    let mut rest = value.trim_ascii_start();
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix(b"- ").or_else(|| rest.strip_prefix(b"+ ")) {
            if word(behind).is_empty() {
                return mistake_in_pattern(&rest[..2]);
            }
            rest = behind;
        }
        rest = rest[word(rest).len()..].trim_ascii_start();
    }
    None
}

/// The mistake in a line of a file of patterns.
fn mistake_in_pattern(line: &[u8]) -> Option<String> {
    let sign = line.first().filter(|_| [b"- ", b"+ "].iter().any(|sign| line == *sign))?;
    let sign = char::from(*sign);
    Some(format!("one blank and a pattern have to follow `{sign}`; write `{sign} PATTERN`"))
}

/// The first mistake in a value of `filter`. `depth`: of the files of rules that it may name.
fn mistake_in_rules(value: &[u8], depth: usize) -> Option<String> {
    let mut rest = value.trim_ascii_start();
    while !rest.is_empty() {
        let rule = match Rule::read(rest, true) {
            Ok(rule) => rule,
            Err(wrong) => return Some(wrong),
        };
        if let Some(wrong) = rule.mistake_in_its_file(depth) {
            return Some(wrong);
        }
        rest = rest[rule.length..].trim_ascii_start();
    }
    None
}

/// The mistake in one rule of a file.
fn mistake_in_rule(text: &[u8], depth: usize) -> Option<String> {
    match Rule::read(text, false) {
        Ok(rule) => rule.mistake_in_its_file(depth),
        Err(wrong) => Some(wrong),
    }
}

/// The first mistake in a file of rules or patterns, of which `mistake` reads one. `modifiers`: of
/// the rule that names the file.
fn mistake_in_file(
    name: &[u8],
    modifiers: &[u8],
    depth: usize,
    mistake: &dyn Fn(&[u8], usize) -> Option<String>,
) -> Option<String> {
    let path = PathBuf::from(OsString::from_vec(name.to_vec()));
    if !path.is_absolute() || depth >= MAX_DEPTH || !is_responsive(&path) {
        return None;
    }
    // What cannot be read here, rsync may read.
    let found = fs::metadata(&path).ok().filter(|it| it.is_file() && it.len() <= MAX_BYTES)?;
    let text = fs::read(&path).ok().filter(|text| text.len() as u64 <= found.len())?;
    let splits_words = modifiers.contains(&b'w');
    // A line may end in two bytes, between which rsync sees an empty one.
    text.split(|byte| *byte == b'\n').enumerate().find_map(|(at, line)| {
        let ends = |byte: &u8| *byte == b'\r' || splits_words && byte.is_ascii_whitespace();
        let is_read =
            |text: &&[u8]| !text.is_empty() && (splits_words || !matches!(text[0], b'#' | b';'));
        let wrong = line.split(ends).filter(is_read).find_map(|text| mistake(text, depth + 1))?;
        Some(format!("{}:{}: {wrong}", escape_path(&path), at + 1))
    })
}

/// One rule as rsync reads it.
struct Rule<'a> {
    kind: u8,
    modifiers: &'a [u8],
    pattern: &'a [u8],
    /// Up to where its text goes.
    length: usize,
}

impl<'a> Rule<'a> {
    /// Reads the rule that a text begins with, or says what is wrong with it. `is_split`: it ends
    /// at a blank, and not with the text.
    fn read(text: &'a [u8], is_split: bool) -> Result<Self, String> {
        let shown = || escape(if is_split { word(text) } else { text });
        let Some((kind, behind)) = kind_of(text) else {
            return Err(format!(
                "`{}` is no rule; write `- PATTERN` to leave files out, or `+ PATTERN`",
                shown()
            ));
        };
        let ends_modifiers =
            |byte: &u8| b" _".contains(byte) || is_split && byte.is_ascii_whitespace();
        let end = behind.iter().position(ends_modifiers).unwrap_or(behind.len());
        let modifiers = &behind[..if kind == b'!' { 0 } else { end }];
        if let Some(wrong) = wrong_modifier(kind, modifiers) {
            return Err(format!(
                "`{}` has `{}`, which is no modifier of that rule; write a blank before the \
                 pattern",
                shown(),
                char::from(wrong).escape_default()
            ));
        }
        let behind = &behind[modifiers.len()..];
        let gap = usize::from(kind != b'!' && !behind.is_empty());
        let pattern = if is_split { word(&behind[gap..]) } else { &behind[gap..] };
        match (kind, pattern) {
            (b'!', b"") => {}
            (b'!', _) => {
                return Err(format!(
                    "nothing may follow the rule that clears all, as in `{}`; write `!` alone",
                    shown()
                ));
            }
            (_, b"") if !modifiers.contains(&b'C') => {
                return Err(format!(
                    "one blank and a pattern have to follow the rule `{}`",
                    shown()
                ));
            }
            _ => {}
        }
        let length = text.len() - behind.len() + gap + pattern.len();
        Ok(Rule { kind, modifiers, pattern, length })
    }

    /// The file with an absolute path whose rules it stands for.
    fn file(&self) -> Option<PathBuf> {
        let is_merge = self.kind == b'.' && self.pattern.starts_with(b"/");
        is_merge.then(|| PathBuf::from(OsString::from_vec(self.pattern.to_vec())))
    }

    /// What is wrong with that file, in which it may name others.
    fn mistake_in_its_file(&self, depth: usize) -> Option<String> {
        let path = self.file().filter(|_| depth < MAX_DEPTH)?;
        if is_missing(&path) {
            let path = escape_path(&path);
            return Some(format!("{path} does not exist; make it, or correct the path"));
        }
        // These modifiers make patterns of its lines.
        if self.modifiers.iter().any(|modifier| b"+-C".contains(modifier)) {
            return None;
        }
        mistake_in_file(self.pattern, self.modifiers, depth, &mistake_in_rule)
    }
}

/// The letter of the rule that a text begins with, and what follows it; none for no rule.
fn kind_of(text: &[u8]) -> Option<(u8, &[u8])> {
    let first = *text.first()?;
    let is_spelled = |word: &str| word.as_bytes().first() == Some(&first);
    if let Some((word, kind)) = RULES.iter().find(|(word, _)| is_spelled(word)) {
        let behind = text.strip_prefix(word.as_bytes())?;
        return match behind.first() {
            Some(b',') => Some((*kind, &behind[1..])),
            Some(byte) if !byte.is_ascii_whitespace() && *byte != b'_' => None,
            _ => Some((*kind, behind)),
        };
    }
    if !b":.+-SHRP!".contains(&first) {
        return None;
    }
    Some((first, text[1..].strip_prefix(b",").unwrap_or(&text[1..])))
}

/// The first letter behind a rule that does not belong there.
fn wrong_modifier(kind: u8, modifiers: &[u8]) -> Option<u8> {
    let (is_merge, has_side) = (b":.".contains(&kind), b"HSPR".contains(&kind));
    let mut takes_patterns = false;
    modifiers.iter().copied().find(|modifier| match modifier {
        b'/' | b'p' | b'x' => false,
        b'!' => is_merge,
        b'e' | b'n' | b'w' => !is_merge,
        b'r' | b's' => has_side,
        b'+' | b'-' | b'C' => {
            let is_wrong = takes_patterns || if *modifier == b'C' { has_side } else { !is_merge };
            takes_patterns = true;
            is_wrong
        }
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each value was tried on the rsync daemon.
    #[test]
    fn a_rule_that_rsync_does_not_understand_is_named() {
        for value in [
            "- *.tmp",
            "exclude *.tmp",
            "exclude,x *.tmp",
            "-,s *.o",
            ": .filter",
            "dir-merge /.f",
            "!",
            "clear",
            "-_a",
            "-C",
            ":C",
            "H a",
            "P a",
            "hide_a",
            "-! a",
            "-/ /a",
            "-p a",
            "+ .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~",
            "! - a",
            "",
        ] {
            assert_eq!(mistake_in_rules(value.as_bytes(), 0), None, "{value}");
        }
        for (value, words) in [
            ("*.tmp", "`*.tmp` is no rule"),
            ("exclud *.tmp", "`exclud` is no rule"),
            ("exclude=*.tmp", "is no rule"),
            ("- a *.tmp", "`*.tmp` is no rule"),
            ("merge_/nope", "/nope does not exist"),
            ("merge,_/nope/excludes", "/nope/excludes does not exist"),
            (".,e_/no-such", "/no-such does not exist"),
            ("-x,foo", "has `,`"),
            ("-q a", "has `q`"),
            ("H,s a", "has `s`"),
            ("!x", "nothing may follow"),
            ("-", "have to follow the rule `-`"),
            ("+ a -", "have to follow"),
            ("-  a", "have to follow"),
        ] {
            let found = mistake_in_rules(value.as_bytes(), 0).unwrap_or_default();
            assert!(found.contains(words), "{value}: {found}");
        }
    }

    #[test]
    fn mistakes_in_files_of_rules_are_named_with_their_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("rules");
        let nested = directory.path().join("nested");
        let name = file.display().to_string();
        let merge = format!("- *.o merge_{name} + a");
        for (text, expected) in [
            ("- *.tmp\n# a comment\n; another\n\n+ two words\r\n!\n", None),
            ("- a\nfoo\n", Some(":2: `foo` is no rule")),
            ("- a\n-\tb\n", Some(":2: ")),
            ("dir-merge .rules\n-\n", Some(":2: one blank")),
            ("merge /no/such\n", Some(":1: /no/such does not exist")),
            (". @\n", Some("nested:1: `bar` is no rule")),
        ] {
            fs::write(&nested, "bar\n").expect("written");
            let text = text.replace('@', nested.to_str().expect("text"));
            fs::write(&file, text.as_bytes()).expect("written");
            let found = mistake_in_rules(merge.as_bytes(), 0);
            assert_eq!(found.is_some(), expected.is_some(), "{text}: {found:?}");
            let found = found.unwrap_or_default();
            assert!(found.contains(expected.unwrap_or_default()), "{text}: {found}");
        }
        fs::write(&file, "foo bar\n").expect("written");
        for (rule, is_wrong) in [("merge", true), (".-", false), (".w", true), (".e", true)] {
            let value = format!("{rule}_{name}");
            assert_eq!(mistake_in_rules(value.as_bytes(), 0).is_some(), is_wrong, "{rule}");
        }
        // A file that names itself has an end.
        fs::write(&file, format!(". {name}\n")).expect("written");
        assert_eq!(mistake_in_rules(merge.as_bytes(), 0), None);
        for (text, is_wrong) in [("*.o\n- a\n!\n-  b\n# -\n-\n", false), ("a\n- \n", true)] {
            fs::write(&file, text).expect("written");
            let read = |line: &[u8], _| mistake_in_pattern(line);
            let found = mistake_in_file(name.as_bytes(), b"", 0, &read);
            assert_eq!(found.is_some(), is_wrong, "{text}: {found:?}");
        }
    }

    #[test]
    fn a_sign_without_its_pattern_is_named() {
        for (value, expected) in [
            ("- *.tmp - *.bak -", false),
            ("- a", false),
            ("! a", false),
            ("-a *.tmp", false),
            ("", false),
            ("-  a", true),
            ("a +  b", true),
        ] {
            assert_eq!(mistake_in_patterns(value.as_bytes()).is_some(), expected, "{value}");
        }
    }
}
