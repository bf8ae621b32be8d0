//! What `setup` refuses of its command line, and of a directory that is there already.
//!
//! Names of modules and users are narrow on purpose: they stand in section headers, file names,
//! `auth users`, URLs and shell commands, and each of these has other special characters.

use crate::tell::escape::escape;

/// Why a module or a user cannot have this name; `what`: `module` or `user`.
pub(crate) fn name_refusal(what: &str, name: &[u8]) -> Option<String> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let begins_well = name.first().is_some_and(u8::is_ascii_alphanumeric);
    if !begins_well || !name.iter().all(is_plain) {
        return Some(format!(
            "setup makes no {what} '{}': take ASCII letters, digits, '.', '_' and '-', of which a \
             letter or digit comes first",
            escape(name)
        ));
    }
    (what == "module" && name.eq_ignore_ascii_case(b"global")).then(|| {
        format!("'{}' is no name for a module: rsync takes it for the defaults", escape(name))
    })
}

/// Why this word cannot stand in `hosts allow`.
pub(crate) fn host_refusal(host: &[u8]) -> Option<String> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".:/-_*?@[]".contains(byte);
    (host.is_empty() || !host.iter().all(is_plain)).then(|| {
        format!(
            "'{}' is no address for --hosts: name an address, a network such as 192.0.2.0/24, or a \
             host name, and repeat --hosts for each",
            escape(host)
        )
    })
}

/// Why `--path` cannot be this one, by its text alone.
pub(crate) fn path_refusal(path: &[u8]) -> Option<String> {
    let parts = || path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    let shown = escape(path);
    if !path.starts_with(b"/") || parts().any(|part| part == b".." || part == b".") {
        return Some(format!("--path {shown}: give an absolute path without `.` and `..` in it"));
    }
    if path.iter().any(|byte| b"\n\r\0".contains(byte)) {
        return Some(format!("--path {shown}: rsyncd.conf cannot hold a path with a line break"));
    }
    let last: Vec<&[u8]> = parts().collect();
    match last.as_slice() {
        [] => Some("--path /: name a directory below it for this module".to_string()),
        [above @ .., b"latest"] => Some(format!(
            "--path {shown}: name the directory around it, `--path /{}`: the module's own \
             directory is `latest` in that one, and the snapshots appear beside it",
            escape(&above.join(&b'/'))
        )),
        _ => None,
    }
}

/// What is in the directory of `--path` already.
#[derive(Debug, Default)]
pub(crate) struct FoundDirectory<'a> {
    /// Names of entries that setup, a run or a file system does not make.
    pub(crate) others: Vec<&'a [u8]>,
    /// What `latest` is.
    pub(crate) latest: Option<EntryKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    Symlink,
    Other,
}

/// Why a directory that exists cannot be the root of a new module. With files but without `latest`,
/// it may itself be what clients push to.
pub(crate) fn directory_refusal(shown: &str, found: &FoundDirectory) -> Option<String> {
    match (found.latest, found.others.first()) {
        (Some(EntryKind::Directory), _) | (None, None) => None,
        (Some(EntryKind::Symlink), _) => Some(format!(
            "{shown}/latest is a symbolic link, so the snapshots would be beside the directory \
             that it points to: name the directory around that one with --path"
        )),
        (Some(EntryKind::Other), _) => {
            Some(format!("{shown}/latest is no directory: move it away, or choose another --path"))
        }
        (None, Some(first)) => Some(format!(
            "{shown} has files in it, such as '{0}', and no directory `latest`: if clients push to \
             it now, move the files into {shown}/latest; otherwise name a new directory with \
             --path",
            escape(first)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_words() {
        for (name, is_good) in [
            ("laptop", true),
            ("Laptop-2.home_x", true),
            ("7", true),
            ("", false),
            ("-n", false),
            (".hidden", false),
            ("a b", false),
            (" a", false),
            ("a ", false),
            ("a]", false),
            ("a/b", false),
            ("a%B%", false),
            ("#a", false),
            ("a\nb", false),
            ("a\\", false),
            ("\u{e9}", false),
            ("ann:ro", false),
            ("@staff", false),
            ("*", false),
        ] {
            for what in ["module", "user"] {
                let refusal = name_refusal(what, name.as_bytes());
                assert_eq!(refusal.is_none(), is_good, "{what} {name}: {refusal:?}");
            }
        }
        assert!(name_refusal("module", b"Global").is_some());
        assert!(name_refusal("user", b"global").is_none());
        assert!(name_refusal("module", b"\xff").is_some());
    }

    #[test]
    fn a_path_is_absolute_and_not_that_of_the_module_itself() {
        for (path, expected) in [
            ("/srv/laptop", None),
            ("/srv/laptop/", None),
            ("/srv/my laptop", None),
            ("srv/laptop", Some("absolute")),
            ("", Some("absolute")),
            ("/srv/../laptop", Some("absolute")),
            ("/", Some("below it")),
            ("/srv/laptop/latest", Some("`--path /srv/laptop`")),
            ("/srv/laptop/latest/", Some("`--path /srv/laptop`")),
            ("/srv/a\nb", Some("line break")),
        ] {
            let refusal = path_refusal(path.as_bytes());
            match expected {
                None => assert_eq!(refusal, None, "{path}"),
                Some(part) => {
                    let refusal = refusal.expect(path);
                    assert!(refusal.contains(part), "{path}: {refusal}");
                }
            }
        }
    }

    #[test]
    fn a_directory_with_files_needs_a_latest() {
        let others = || vec![&b"etc"[..]];
        for (found, expected) in [
            (FoundDirectory::default(), None),
            (FoundDirectory { latest: Some(EntryKind::Directory), others: others() }, None),
            (FoundDirectory { latest: None, others: others() }, Some("such as 'etc'")),
            (
                FoundDirectory { latest: Some(EntryKind::Symlink), others: vec![] },
                Some("symbolic link"),
            ),
            (
                FoundDirectory { latest: Some(EntryKind::Other), others: vec![] },
                Some("no directory"),
            ),
        ] {
            let refusal = directory_refusal("/srv/laptop", &found);
            match expected {
                None => assert_eq!(refusal, None, "{found:?}"),
                Some(part) => assert!(refusal.expect("refused").contains(part), "{found:?}"),
            }
        }
    }

    #[test]
    fn hosts_are_single_words() {
        for (host, is_good) in [
            ("192.0.2.17", true),
            ("192.0.2.0/24", true),
            ("fe80::1", true),
            ("client.example.org", true),
            ("*", true),
            ("", false),
            ("a b", false),
            ("a,b", false),
            ("#a", false),
            ("%X%", false),
            ("a\nb", false),
        ] {
            assert_eq!(host_refusal(host.as_bytes()).is_none(), is_good, "{host}");
        }
    }
}
