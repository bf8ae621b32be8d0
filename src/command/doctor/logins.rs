//! What `check` finds about the users and passwords of a module.

use std::path::Path;

use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::auth_users::{UserAccess, UserRule, wildcard};
use crate::config::rsyncd_module::{RsyncdModule, has_variable};
use crate::tell::escape::{escape, escape_path, shell_path};

/// What a secrets file holds, without the passwords.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SecretsFile {
    pub(crate) mode: u32,
    pub(crate) owner: u32,
    /// The names before the first colon of each line, but those of groups.
    pub(crate) users: Vec<Vec<u8>>,
    /// The names of groups, without their `@`.
    pub(crate) groups: Vec<Vec<u8>>,
}

impl SecretsFile {
    /// Reads the names. rsync compares a line from its first byte on.
    pub(crate) fn parse(text: &[u8], mode: u32, owner: u32) -> Self {
        let mut secrets = SecretsFile { mode, owner, ..SecretsFile::default() };
        for line in text.split(|byte| b"\n\r".contains(byte)) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            match line[..colon].strip_prefix(b"@") {
                Some(group) => secrets.groups.push(group.to_vec()),
                None if line.starts_with(b"#") => {}
                None => secrets.users.push(line[..colon].to_vec()),
            }
        }
        secrets
    }
}

/// The secrets file as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Secrets {
    Unset,
    Missing,
    /// Something else is in its place.
    NoFile {
        is_directory: bool,
    },
    /// Why it cannot be read.
    Unclear(String),
    Read(SecretsFile),
}

/// What is known of the logins of a module.
#[derive(Debug)]
pub(crate) struct LoginFacts<'a> {
    pub(crate) rules: Vec<UserRule>,
    /// `read only` of the module; none if it is not certain.
    pub(crate) is_read_only: Option<bool>,
    /// Place and value of an `auth digest`, escaped, that rsync does not know.
    pub(crate) unknown_digest: Option<(String, String)>,
    /// File and line of `auth users`.
    pub(crate) users_place: String,
    /// File and line of `secrets file`, or of the module.
    pub(crate) secrets_place: String,
    pub(crate) secrets_path: &'a Path,
    pub(crate) secrets: Secrets,
    /// `strict modes`; none if it is not certain.
    pub(crate) is_strict: Option<bool>,
    /// Whether the daemon is root; none if it is not known.
    pub(crate) daemon_is_root: Option<bool>,
}

/// The findings. Without rules, all clients get in without a name.
pub(crate) fn findings(facts: &LoginFacts) -> Vec<Finding> {
    let may_log_in = |rule: &&UserRule| rule.access != UserAccess::Denied;
    if facts.rules.is_empty() || !facts.rules.iter().any(|rule| may_log_in(&rule)) {
        return Vec::new();
    }
    let mut found = secrets_findings(facts);
    found.extend(hidden_rules(facts));
    found.extend(facts.unknown_digest.as_ref().map(|(place, digest)| {
        let message = format!(
            "{place}: rsync knows no `auth digest = {digest}`, so no user can log in; write one of \
             {}, or take it out",
            DIGESTS.join(", ")
        );
        Finding::new(FindingId::AuthUsers, Severity::Critical, message)
    }));
    found
}

/// The digests that rsync 3.5 can ask clients for.
const DIGESTS: [&str; 5] = ["sha512", "sha256", "sha1", "md5", "md4"];

pub(crate) fn unknown_digest(module: &RsyncdModule) -> Option<(String, String)> {
    let value =
        module.get("auth digest").filter(|value| !value.is_empty() && !has_variable(value))?;
    let is_known = DIGESTS.iter().any(|known| value.eq_ignore_ascii_case(known.as_bytes()));
    (!is_known).then(|| (module.place_of("auth digest").to_string(), escape(value)))
}

/// Rules that give their users more than an earlier one, which counts instead.
fn hidden_rules(facts: &LoginFacts) -> Vec<Finding> {
    let rank = |rule: &UserRule| match rule.access {
        UserAccess::Denied => Some(0),
        UserAccess::ReadOnly => Some(1),
        UserAccess::ReadWrite => Some(2),
        UserAccess::AsModule => facts.is_read_only.map(|is_so| if is_so { 1 } else { 2 }),
    };
    let rules: Vec<&UserRule> =
        facts.rules.iter().take_while(|it| !it.who.starts_with(b"#")).collect();
    let finding = |(number, rule): (usize, &&UserRule)| {
        let first = rules[..number].iter().find(|earlier| earlier.hides(rule))?;
        let (given, meant) = rank(first).zip(rank(rule)).filter(|(given, meant)| given < meant)?;
        let effect = match (given, meant) {
            (0, _) => "cannot log in",
            _ => "may only read",
        };
        let message = format!(
            "{}: `{rule}` of `auth users` never counts, since `{}` stands before it and the first \
             rule for a user counts, so {} {effect}; move `{rule}` to the front",
            facts.users_place,
            first.shown(),
            escape(&rule.who),
            rule = rule.shown(),
        );
        Some(Finding::new(FindingId::AuthUsers, Severity::Critical, message))
    };
    rules.iter().enumerate().filter_map(finding).collect()
}

/// What is wrong with the secrets file, or with its lines.
fn secrets_findings(facts: &LoginFacts) -> Vec<Finding> {
    let path = escape_path(facts.secrets_path);
    let critical =
        |message: String| Finding::new(FindingId::SecretsFile, Severity::Critical, message);
    match &facts.secrets {
        Secrets::Unset => vec![critical(format!(
            "{}: `auth users` without `secrets file`, so no user can log in; add `secrets file = \
             /etc/rsyncd.secrets`, with a line USER:PASSWORD for each user and mode 0600",
            facts.users_place
        ))],
        Secrets::Missing => vec![critical(format!(
            "{}: the secrets file {path} does not exist, so no user can log in; make it, with a \
             line USER:PASSWORD for each user and mode 0600",
            facts.secrets_place
        ))],
        Secrets::NoFile { is_directory } => vec![critical(format!(
            "{}: the secrets file {path} is {}, so no user can log in; name a file, with a line \
             USER:PASSWORD for each user and mode 0600",
            facts.secrets_place,
            if *is_directory { "a directory" } else { "no file" }
        ))],
        Secrets::Unclear(why) => {
            let why = format!("{}: secrets file {path}: {why}", facts.secrets_place);
            vec![Finding::cannot_tell(FindingId::SecretsFile, why)]
        }
        Secrets::Read(file) => {
            let mut found: Vec<Finding> =
                refused_by_mode(facts, file).map(critical).into_iter().collect();
            found.extend(users_without_line(facts, file));
            found
        }
    }
}

/// rsync's own test: others may have no right to read or write, and if the daemon is root the file
/// must be root's.
fn refused_by_mode(facts: &LoginFacts, file: &SecretsFile) -> Option<String> {
    if facts.is_strict != Some(true) {
        return None;
    }
    let (place, path) = (&facts.secrets_place, escape_path(facts.secrets_path));
    let named = shell_path(facts.secrets_path);
    if file.mode & 0o006 != 0 {
        return Some(format!(
            "{place}: other users can read or write the secrets file {path} (mode {:04o}), so \
             rsync lets no user log in; run `chmod 0600 {named}`",
            file.mode & 0o7777
        ));
    }
    (facts.daemon_is_root == Some(true) && file.owner != 0).then(|| {
        format!(
            "{place}: the secrets file {path} belongs to user {}, so rsync, which runs as root, \
             lets no user log in; run `chown root {named}`",
            file.owner
        )
    })
}

fn users_without_line(facts: &LoginFacts, file: &SecretsFile) -> Vec<Finding> {
    let path = escape_path(facts.secrets_path);
    let mut found = Vec::new();
    let has_line =
        |rule: &UserRule| file.users.iter().any(|user| wildcard(&rule.who, user).unwrap_or(true));
    let can_log_in = |rule: &UserRule| rule.access != UserAccess::Denied && has_line(rule);
    // What follows is meant as a comment, and told as such.
    let rules = facts.rules.iter().take_while(|rule| !rule.who.starts_with(b"#"));
    for (number, rule) in rules.enumerate().filter(|(_, rule)| rule.access != UserAccess::Denied) {
        // Such a rule never counts, or has been told with the one before it.
        if facts.rules[..number].iter().any(|earlier| earlier.hides(rule)) {
            continue;
        }
        if rule.is_unclear() {
            let why = format!("{}: for which users `{}` is", facts.users_place, rule.shown());
            found.push(Finding::cannot_tell(FindingId::AuthUsers, why));
            continue;
        }
        if rule.is_group() {
            let why = format!(
                "{}: who is in the group {}, and so who of them has a line in {path}",
                facts.users_place,
                escape(&rule.who)
            );
            found.push(Finding::cannot_tell(FindingId::AuthUsers, why));
            continue;
        }
        if has_line(rule) {
            continue;
        }
        let who = escape(&rule.who);
        let message = match rule.is_name() {
            true => format!(
                "{}: {path} has no line for user {who} of `auth users`, who therefore cannot log \
                 in; add the line `{who}:PASSWORD` to that file, with the password that {who} \
                 types and no blank before or after it, or take {who} out of `auth users`",
                facts.users_place
            ),
            false => format!(
                "{}: {path} has no line for a user that matches {who} in `auth users`, so no \
                 such user can log in; add a line `USER:PASSWORD` to that file, or take {who} out \
                 of `auth users`",
                facts.users_place
            ),
        };
        // A pattern may be meant for users to come; a name is of a client that cannot log in.
        let level = match !rule.is_name() && facts.rules.iter().any(can_log_in) {
            true => Severity::Ok,
            false => Severity::Critical,
        };
        found.push(Finding::new(FindingId::AuthUsers, level, message));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(who: &str, access: UserAccess) -> UserRule {
        UserRule { who: who.as_bytes().to_vec(), access }
    }

    fn worst(rules: &[UserRule], secrets: Secrets, strict: bool, root: bool) -> Option<FindingId> {
        let facts = LoginFacts {
            rules: rules.to_vec(),
            is_read_only: Some(false),
            unknown_digest: None,
            users_place: "c:1".to_string(),
            secrets_place: "c:2".to_string(),
            secrets_path: Path::new("/etc/rsyncd.secrets"),
            secrets,
            is_strict: Some(strict),
            daemon_is_root: Some(root),
        };
        let found = findings(&facts);
        let told = found.iter().find(|finding| finding.level > Severity::Ok);
        assert!(told.is_none_or(|finding| finding.level == Severity::Critical));
        told.map(|finding| finding.id)
    }

    #[test]
    fn a_secrets_file_is_read_as_rsync_reads_it() {
        let text = b"#a:x\nlaptop:secret:with colon\r\n no:x\n@staff:y\nwithout\n";
        let read = SecretsFile::parse(text, 0o100600, 0);
        assert_eq!(read.users, [b"laptop".to_vec(), b" no".to_vec()]);
        assert_eq!(read.groups, [b"staff".to_vec()]);
    }

    #[test]
    fn a_user_who_cannot_log_in_is_named() {
        use UserAccess::{AsModule, Denied, ReadOnly, ReadWrite};
        let file = |text: &str, mode, owner| {
            Secrets::Read(SecretsFile::parse(text.as_bytes(), mode, owner))
        };
        let laptop = [rule("laptop", AsModule)];
        let good = || file("laptop:x\n", 0o100640, 0);
        let (secrets, users) = (Some(FindingId::SecretsFile), Some(FindingId::AuthUsers));
        for (rules, given, strict, root, expected) in [
            (&laptop[..], good(), true, true, None),
            (&[], Secrets::Unset, true, true, None),
            (&laptop, Secrets::Unset, true, true, secrets),
            (&laptop, Secrets::Missing, false, true, secrets),
            (&laptop, Secrets::Unclear("x".to_string()), true, true, None),
            (&laptop, Secrets::NoFile { is_directory: true }, true, true, secrets),
            (
                &[laptop[0].clone(), rule("#", AsModule), rule("work", AsModule)],
                good(),
                true,
                true,
                None,
            ),
            (&laptop, file("laptop:x\n", 0o100644, 0), true, true, secrets),
            (&laptop, file("laptop:x\n", 0o100602, 0), true, true, secrets),
            (&laptop, file("laptop:x\n", 0o100644, 0), false, true, None),
            (&laptop, file("laptop:x\n", 0o100600, 1000), true, true, secrets),
            (&laptop, file("laptop:x\n", 0o100600, 1000), true, false, None),
            (&laptop, file("lap:x\nlaptops:x\n", 0o100600, 0), true, true, users),
            (&laptop, file("", 0o100600, 0), true, true, users),
            (&[rule("lap*", ReadWrite)], good(), true, true, None),
            (&[rule("desk*", ReadWrite)], good(), true, true, users),
            (&[rule("la[pq]top", ReadWrite)], good(), true, true, None),
            (&[rule("@staff", ReadWrite)], file("", 0o100600, 0), true, true, None),
            (&[rule("x", Denied), rule("*", AsModule)], good(), true, true, None),
            (&[rule("*", Denied), rule("laptop", AsModule)], good(), true, true, users),
            (&[rule("laptop", ReadOnly), rule("laptop", AsModule)], good(), true, true, users),
            (&[rule("laptop", ReadWrite), rule("*", ReadOnly)], good(), true, true, None),
            (&[rule("*", ReadWrite), rule("laptop", ReadOnly)], good(), true, true, None),
            (&[rule("%WHO%", AsModule)], good(), true, true, None),
            (&[rule("%WHO%", Denied), rule("laptop", AsModule)], good(), true, true, None),
        ] {
            assert_eq!(worst(rules, given.clone(), strict, root), expected, "{rules:?} {given:?}");
        }
    }
}
