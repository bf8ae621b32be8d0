//! Whether `rsyncd.conf` forbids a push, so that the push writes nothing, whatever its client does.
//!
//! rsyncd runs its hooks for such a push, too. It ends with status 1 if the module or its user may
//! only read, and with 4 if an option is refused. Only certain rules count: a rule about groups, or
//! a value with a variable in it, forbids nothing here.

use std::path::Path;

use crate::config::auth_users::{self, UserAccess, wildcard};
use crate::config::rsyncd_module::{ModuleDirectory, RsyncdModule};
use crate::decide::arguments::Arguments;
use crate::decide::arguments::option_name::OptionName;
use crate::decide::verdict_facts::Forbidden;

/// Why the push of `user` with these arguments is certainly forbidden; none if it may be allowed.
pub(crate) fn forbids(
    module: &RsyncdModule,
    user: &[u8],
    arguments: &Arguments,
) -> Option<Forbidden> {
    if is_read_only(module, user) == Some(true) {
        return Some(Forbidden::ReadOnly);
    }
    refuses(module, arguments).then_some(Forbidden::Option)
}

/// Whether certainly no client may write to the module.
pub(crate) fn offers_only_reading(module: &RsyncdModule) -> bool {
    let of_module = module.boolean("read only", true);
    let mut rules = auth_users::rules(module).peekable();
    if rules.peek().is_none() {
        return of_module == Some(true);
    }
    rules.all(|rule| match rule.access {
        UserAccess::AsModule => of_module == Some(true),
        UserAccess::ReadOnly | UserAccess::Denied => true,
        UserAccess::ReadWrite => false,
    })
}

/// Whether the transfer of `user` to the module at `path` certainly writes nothing. False if
/// `module` is not the one that the daemon runs the hook for.
pub(crate) fn is_reader(module: &RsyncdModule, user: &[u8], path: &Path) -> bool {
    let is_it = match module.whereabouts() {
        Ok(ModuleDirectory::At(known)) => known == path,
        Ok(ModuleDirectory::Unknown { .. }) => true,
        Err(_) => false,
    };
    is_it && is_read_only(module, user) == Some(true)
}

/// Whether `user` may only read; none where that is not certain.
fn is_read_only(module: &RsyncdModule, user: &[u8]) -> Option<bool> {
    let of_module = module.boolean("read only", true);
    let mut rules = auth_users::rules(module).peekable();
    if user.is_empty() || rules.peek().is_none() {
        return of_module;
    }
    for rule in rules {
        if rule.is_group() || rule.is_unclear() {
            // Whom the rule is for, and so whether a later rule counts, is not known here.
            return None;
        }
        if !wildcard(&rule.who, user)? {
            continue;
        }
        return match rule.access {
            UserAccess::ReadOnly => Some(true),
            UserAccess::ReadWrite => Some(false),
            UserAccess::AsModule | UserAccess::Denied => of_module,
        };
    }
    None
}

/// Options that rsyncd refuses unless `refuse options` says otherwise.
const REFUSED_BY_DEFAULT: &[&str] = &["copy-devices", "write-devices"];

/// The options of a backup by rsync-system-backup, as a server gets them: the letter or name, and
/// how the client's command line has it.
const OF_BACKUPS: [(&str, &str); 14] = [
    ("r", "--recursive"),
    ("l", "--links"),
    ("p", "--perms"),
    ("t", "--times"),
    ("g", "--group"),
    ("o", "--owner"),
    ("D", "-D"),
    ("H", "--hard-links"),
    ("A", "--acls"),
    ("X", "--xattrs"),
    ("delete", "--delete"),
    ("delete-excluded", "--delete-excluded"),
    ("numeric-ids", "--numeric-ids"),
    ("timeout", "--timeout"),
];

/// The options of a backup by rsync-system-backup that the module certainly refuses.
pub(crate) fn refused_of_backups(module: &RsyncdModule) -> Vec<&'static str> {
    let name = |name: &str| match name.as_bytes() {
        [letter] => OptionName::Letter(char::from(*letter)),
        _ => OptionName::Long(name.to_string()),
    };
    let refused = OF_BACKUPS.iter().filter(|(option, _)| refuses_option(module, &name(option)));
    refused.map(|(_, shown)| *shown).collect()
}

/// Options that no pattern refuses, only their own name.
const EXACT_ONLY: &[&str] = &[
    "e",
    "rsh",
    "0",
    "from0",
    "s",
    "secluded-args",
    "protect-args",
    "n",
    "dry-run",
    "iconv",
    "no-iconv",
    "checksum-seed",
    "copy-devices",
    "write-devices",
    "log-format",
    "out-format",
    "sender",
    "server",
];

fn refuses(module: &RsyncdModule, arguments: &Arguments) -> bool {
    arguments.options.iter().any(|option| refuses_option(module, &option.name))
}

fn refuses_option(module: &RsyncdModule, name: &OptionName) -> bool {
    let spellings = name.spellings();
    let rules = module.get("refuse options").unwrap_or_default();
    let rules: Vec<&[u8]> =
        rules.split(|byte| *byte == b' ').filter(|rule| !rule.is_empty()).collect();
    let is_meant = |rule: &[u8]| spellings.iter().any(|name| names(rule, name));
    // Which of several rules counts depends on rsync's table of synonyms: one that takes the option
    // out makes it uncertain.
    let is_taken_out = rules.iter().filter_map(|rule| rule.strip_prefix(b"!")).any(is_meant);
    let is_named = rules.iter().any(|rule| is_meant(rule));
    let by_default = spellings.iter().any(|name| REFUSED_BY_DEFAULT.contains(&name.as_str()));
    (is_named || by_default) && !is_taken_out
}

/// Whether a rule of `refuse options` means the option of that name or letter. A rule with a
/// character class is not read, but for rsync's own for `archive`.
fn names(rule: &[u8], name: &str) -> bool {
    if rule == b"a" || rule == b"archive" {
        return name.len() == 1 && "ardlptgoD".contains(name);
    }
    let is_pattern = rule.iter().any(|byte| b"*?".contains(byte));
    if is_pattern && EXACT_ONLY.contains(&name) {
        return false;
    }
    wildcard(rule, name.as_bytes()).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rsyncd_conf::RsyncdConf;

    fn module(parameters: &str) -> RsyncdModule {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("rsyncd.conf");
        std::fs::write(&file, format!("[m]\npath = /m\n{parameters}\n")).expect("written");
        RsyncdConf::read(&file).expect("read").module(b"m").expect("the module").clone()
    }

    fn push(words: &[&str]) -> Arguments {
        let all = ["rsyncd", "--server"].iter().chain(words).chain(&[".", "m/"]);
        Arguments::parse(&all.map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn a_user_may_write_as_the_first_rule_that_names_them_says() {
        for (parameters, user, expected) in [
            ("", "", Some(true)),
            ("read only = no", "", Some(false)),
            ("read only = no # a comment", "", Some(true)),
            ("read only = %NO%", "", None),
            ("read only = false\nauth users = a:rw b:ro", "b", Some(true)),
            ("read only = yes\nauth users = a:rw, b:ro", "a", Some(false)),
            ("auth users = a:RW", "a", Some(false)),
            ("read only = no\nauth users = view*:ro *", "viewer", Some(true)),
            ("read only = no\nauth users = view*:ro *", "writer", Some(false)),
            ("read only = no\nauth users = @staff:rw viewer:ro", "viewer", None),
            ("read only = no\nauth users = viewer:ro @staff:rw", "viewer", Some(true)),
            ("read only = no\nauth users = view[er]:ro", "viewe", None),
        ] {
            assert_eq!(
                is_read_only(&module(parameters), user.as_bytes()),
                expected,
                "{parameters}: {user}"
            );
        }
    }

    #[test]
    fn a_module_that_some_user_may_write_to_does_not_only_offer_reading() {
        for (parameters, expected) in [
            ("", true),
            ("read only = yes\nauth users = a b:ro", true),
            ("read only = yes\nauth users = a b:RW", false),
            ("read only = no", false),
            ("read only = no\nauth users = a:ro, b:deny", true),
            ("read only = no\nauth users = a:ro, b", false),
            // rsync ignores what it does not understand.
            ("read only = no\nread only = perhaps", false),
            ("read only = no # writable", true),
            ("read only = n O", false),
            ("read only = %WHETHER%", false),
        ] {
            assert_eq!(offers_only_reading(&module(parameters)), expected, "{parameters}");
        }
        let offered = module("read only = yes");
        assert!(is_reader(&offered, b"", Path::new("/m")));
        assert!(
            !is_reader(&offered, b"", Path::new("/other")),
            "another daemon's module of that name"
        );
    }

    #[test]
    fn options_are_refused_by_name_letter_or_pattern() {
        for (rules, words, expected) in [
            ("", &["-a"][..], false),
            ("", &["--write-devices"][..], true),
            ("!write-devices", &["--write-devices"][..], false),
            ("delete*", &["-r", "--delete-during"][..], true),
            ("c xattrs", &["-rc"][..], true),
            ("checksum", &["-r"][..], false),
            ("a", &["-t"][..], true),
            ("* !r !t", &["-rt", "-e.iLs"][..], false),
            ("* !r", &["-rt"][..], true),
            ("[ce]", &["-c"][..], false),
        ] {
            let module = module(&format!("refuse options = {rules}"));
            assert_eq!(refuses(&module, &push(words)), expected, "{rules}: {words:?}");
        }
    }

    #[test]
    fn what_a_backup_gives_and_a_module_refuses_is_named_as_the_client_knows_it() {
        for (rules, expected) in [
            ("", &[][..]),
            ("inplace append* partial-dir delay-updates checksum", &[]),
            ("delete", &["--delete", "--delete-excluded"]),
            ("delete* !delete", &[]),
            ("links H", &["--links", "--hard-links"]),
            ("xattrs timeout", &["--xattrs", "--timeout"]),
        ] {
            let module = module(&format!("refuse options = {rules}"));
            assert_eq!(refused_of_backups(&module), expected, "{rules}");
        }
    }
}
