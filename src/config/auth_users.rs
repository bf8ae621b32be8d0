//! `auth users` of `rsyncd.conf`: who may log in, and who of them may write.
//!
//! rsync goes through the rules in their order, and the first one that a user matches counts.

use crate::config::rsyncd_module::{RsyncdModule, has_variable};
use crate::tell::escape::escape;

/// What a rule lets its users do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserAccess {
    /// What `read only` of the module says.
    AsModule,
    ReadOnly,
    ReadWrite,
    Denied,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserRule {
    /// A user's name, a pattern for names, or `@` and a pattern for groups.
    pub(crate) who: Vec<u8>,
    pub(crate) access: UserAccess,
}

impl UserRule {
    /// Whether it is about the members of groups.
    pub(crate) fn is_group(&self) -> bool {
        self.who.starts_with(b"@")
    }

    /// The rule as `rsyncd.conf` has it, escaped.
    pub(crate) fn shown(&self) -> String {
        let end = match self.access {
            UserAccess::AsModule => "",
            UserAccess::ReadOnly => ":ro",
            UserAccess::ReadWrite => ":rw",
            UserAccess::Denied => ":deny",
        };
        format!("{}{end}", escape(&self.who))
    }

    /// Whether it depends on a variable for which users it is.
    pub(crate) fn is_unclear(&self) -> bool {
        has_variable(&self.who)
    }

    /// Whether it surely is for all users that `later` is for, so that a `later` one never counts.
    pub(crate) fn hides(&self, later: &UserRule) -> bool {
        let is_known = !self.is_unclear() && !later.is_unclear() && !self.is_group();
        let is_for_all = self.who.iter().all(|byte| *byte == b'*') && !self.who.is_empty();
        let has_it = later.is_name() && wildcard(&self.who, &later.who) == Some(true);
        is_known && (is_for_all || has_it || self.who == later.who)
    }

    /// Whether it names one user.
    pub(crate) fn is_name(&self) -> bool {
        !self.is_group() && !self.who.iter().any(|byte| b"*?[\\".contains(byte))
    }
}

/// The rules of a module. Without any, all clients get in without a name.
pub(crate) fn rules(module: &RsyncdModule) -> impl Iterator<Item = UserRule> {
    let value = module.with_name(module.get("auth users").unwrap_or_default());
    words(&value).map(rule).collect::<Vec<_>>().into_iter()
}

fn rule(word: &[u8]) -> UserRule {
    let colon = word.iter().position(|byte| *byte == b':');
    let access = colon.map_or(&b""[..], |colon| &word[colon + 1..]).to_ascii_lowercase();
    let access = match access.as_slice() {
        [b'r', b'o', ..] => UserAccess::ReadOnly,
        [b'r', b'w', ..] => UserAccess::ReadWrite,
        [b'd', ..] => UserAccess::Denied,
        _ => UserAccess::AsModule,
    };
    UserRule { who: word[..colon.unwrap_or(word.len())].to_vec(), access }
}

/// rsync splits at blanks and commas, or at commas alone if the value begins with one.
pub(crate) fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let only_commas = value.trim_ascii_start().starts_with(b",");
    let is_separator = move |byte: &u8| *byte == b',' || !only_commas && byte.is_ascii_whitespace();
    value.split(is_separator).map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
}

/// Whether `pattern` stands for `text`; none for a pattern with more than `*` and `?`.
pub(crate) fn wildcard(pattern: &[u8], text: &[u8]) -> Option<bool> {
    if pattern.iter().any(|byte| b"[]\\".contains(byte)) {
        return None;
    }
    Some(matches(pattern, text))
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // The place after the last star, and what it has taken so far.
    let (mut star, mut taken) = (None, 0);
    let (mut at, mut in_text) = (0, 0);
    while in_text < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some(at + 1);
                taken = in_text;
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[in_text] => {
                at += 1;
                in_text += 1;
            }
            _ => match star {
                Some(after) => {
                    taken += 1;
                    (at, in_text) = (after, taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_a_name_and_an_access() {
        for (word, who, access) in [
            (&b"laptop"[..], &b"laptop"[..], UserAccess::AsModule),
            (b"laptop:rw", b"laptop", UserAccess::ReadWrite),
            (b"laptop:ROX", b"laptop", UserAccess::ReadOnly),
            (b"laptop:deny", b"laptop", UserAccess::Denied),
            (b"laptop:x", b"laptop", UserAccess::AsModule),
            (b"@staff:rw", b"@staff", UserAccess::ReadWrite),
        ] {
            assert_eq!(rule(word), UserRule { who: who.to_vec(), access });
        }
        assert!(rule(b"a").is_name() && !rule(b"a*").is_name() && !rule(b"@a").is_name());
    }

    #[test]
    fn a_rule_behind_one_for_all_its_users_never_counts() {
        for (earlier, later, expected) in [
            ("*:deny", "u:rw", true),
            ("*", "*:rw", true),
            ("*", "@staff", true),
            ("u:ro", "u:rw", true),
            ("u*", "user", true),
            ("u*", "u*:rw", true),
            ("user", "u*", false),
            ("u*", "us*", false),
            ("v", "u", false),
            ("@staff:deny", "u", false),
            ("u[a-s]er", "user", false),
            ("%WHO%", "u", false),
            ("u*", "u%WHO%", false),
        ] {
            let rules = [earlier, later].map(|word| rule(word.as_bytes()));
            assert_eq!(rules[0].hides(&rules[1]), expected, "{earlier} {later}");
        }
    }

    #[test]
    fn words_are_split_as_rsync_splits_them() {
        let all = |value| words(value).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(all(b"a, b\tc"), [b"a", b"b", b"c"]);
        assert_eq!(all(b" , a b ,@domain users:rw,"), [&b"a b"[..], b"@domain users:rw"]);
        assert!(all(b" ,").is_empty());
    }
}
