//! What `check` finds in `filter`, `include` and `exclude` of a module. rsync ends at the first
//! rule that it does not understand, in each connection, before the client can be told why. The
//! rules are read here as rsync's `exclude.c` reads them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::command::doctor::files::is_missing;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::{RsyncdModule, has_variable};
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

/// The findings about a module.
pub(crate) fn findings(module: &RsyncdModule) -> Vec<Finding> {
    let mut found = Vec::new();
    for parameter in ["filter", "include", "exclude"] {
        let value = module.with_name(module.get(parameter).unwrap_or_default());
        if has_variable(&value) {
            continue;
        }
        let wrong = match parameter {
            "filter" => mistake_in_rules(&value),
            _ => mistake_in_patterns(&value),
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
                let sign = char::from(rest[0]);
                return Some(format!(
                    "one blank and a pattern have to follow `{sign}`; write `{sign} PATTERN`"
                ));
            }
            rest = behind;
        }
        rest = rest[word(rest).len()..].trim_ascii_start();
    }
    None
}

/// The first mistake in a value of `filter`.
fn mistake_in_rules(value: &[u8]) -> Option<String> {
    let mut rest = value.trim_ascii_start();
    while !rest.is_empty() {
        let (kind, behind) = match kind_of(rest) {
            Some(found) => found,
            None => {
                return Some(format!(
                    "`{}` is no rule; write `- PATTERN` to leave files out, or `+ PATTERN`",
                    escape(word(rest))
                ));
            }
        };
        let modifiers: &[u8] = match kind {
            b'!' => b"",
            _ => {
                let end =
                    behind.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'_');
                &behind[..end.unwrap_or(behind.len())]
            }
        };
        if let Some(wrong) = wrong_modifier(kind, modifiers) {
            return Some(format!(
                "`{}` has `{}`, which is no modifier of that rule; write a blank before the \
                 pattern",
                escape(word(rest)),
                char::from(wrong).escape_default()
            ));
        }
        let behind = &behind[modifiers.len()..];
        let pattern = match kind {
            b'!' => behind,
            _ => behind.get(1..).unwrap_or_default(),
        };
        let pattern = word(pattern);
        match (kind, pattern) {
            (b'!', b"") => {}
            (b'!', _) => {
                return Some(format!(
                    "nothing may follow the rule that clears all, as in `{}`; write `!` alone",
                    escape(word(rest))
                ));
            }
            (_, b"") if !modifiers.contains(&b'C') => {
                return Some(format!(
                    "one blank and a pattern have to follow the rule `{}`",
                    escape(word(rest))
                ));
            }
            (b'.', [b'/', ..]) => {
                let path = PathBuf::from(OsString::from_vec(pattern.to_vec()));
                if is_missing(&path) {
                    return Some(format!(
                        "{} does not exist; make it, or correct the path",
                        escape_path(&path)
                    ));
                }
            }
            _ => {}
        }
        let used = rest.len() - behind.len() + usize::from(kind != b'!' && !behind.is_empty());
        rest = rest[used + pattern.len()..].trim_ascii_start();
    }
    None
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
            assert_eq!(mistake_in_rules(value.as_bytes()), None, "{value}");
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
            let found = mistake_in_rules(value.as_bytes()).unwrap_or_default();
            assert!(found.contains(words), "{value}: {found}");
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
