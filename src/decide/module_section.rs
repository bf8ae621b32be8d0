//! The sections of `rsyncd.conf` that `setup` writes for a module, and whether what the
//! configuration has already is the same.
//!
//! Each section says by itself all that the module needs, whatever the parameters above all
//! sections are.

/// What a module is to be. Everything is bytes, as in `rsyncd.conf`.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModuleFacts {
    pub(crate) name: Vec<u8>,
    /// The snapshot root. The module's own directory is [`LATEST`] in it.
    pub(crate) root: Vec<u8>,
    /// Who may log in; none lets each client in.
    pub(crate) user: Option<Vec<u8>>,
    /// Where that user's secret is.
    pub(crate) secrets_file: Vec<u8>,
    /// The addresses of clients; none lets all in.
    pub(crate) hosts: Vec<Vec<u8>>,
    /// Whether there is a restore module, too.
    pub(crate) has_restore: bool,
    /// Whether the daemon is root.
    pub(crate) is_root: bool,
    /// Whether its directory lies on CephFS.
    pub(crate) is_on_ceph: bool,
    /// This program and its options, as a hook.
    pub(crate) hook: Vec<u8>,
}

/// The name of the module's directory in its snapshot root.
pub(crate) const LATEST: &str = "latest";

/// What the name of a restore module ends with.
const RESTORE_SUFFIX: &[u8] = b"-snapshots";

/// The section of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModuleSection {
    pub(crate) name: Vec<u8>,
    /// What the module is for.
    comment: &'static str,
    pub(crate) parameters: Vec<(&'static str, Vec<u8>)>,
}

/// The sections: that of the module, and that of its restore module.
pub(crate) fn sections(facts: &ModuleFacts) -> Vec<ModuleSection> {
    let mut sections = vec![ModuleSection {
        name: facts.name.clone(),
        comment: "# Clients push to this module. Each push that changes something makes a snapshot \
                  beside the\n# directory.\n",
        parameters: parameters(facts, false),
    }];
    if facts.has_restore {
        sections.push(ModuleSection {
            name: restore_name(&facts.name),
            comment: "# Clients read the snapshots here. No snapshot expires while a client reads \
                      it.\n",
            parameters: parameters(facts, true),
        });
    }
    sections
}

/// The name of the restore module of a module.
pub(crate) fn restore_name(name: &[u8]) -> Vec<u8> {
    [name, RESTORE_SUFFIX].concat()
}

fn parameters(facts: &ModuleFacts, is_restore: bool) -> Vec<(&'static str, Vec<u8>)> {
    let yes_or_no = |is_so: bool| if is_so { b"yes".to_vec() } else { b"no".to_vec() };
    let path = match is_restore {
        // CephFS keeps the snapshots in the module.
        true if facts.is_on_ceph => {
            [facts.root.as_slice(), b"/", LATEST.as_bytes(), b"/.snap"].concat()
        }
        true => facts.root.clone(),
        false => [facts.root.as_slice(), b"/", LATEST.as_bytes()].concat(),
    };
    let mut parameters = vec![
        ("path", path),
        ("read only", yes_or_no(is_restore)),
        ("list", yes_or_no(false)),
        // Only root may change its root directory, and store the owners that clients send. On
        // CephFS a link of a client could then lead to snapshots.
        ("use chroot", yes_or_no(facts.is_root && (is_restore || !facts.is_on_ceph))),
    ];
    if facts.is_root {
        parameters.extend([("uid", b"root".to_vec()), ("gid", b"root".to_vec())]);
    }
    parameters.push(("numeric ids", yes_or_no(true)));
    parameters.push(("timeout", b"600".to_vec()));
    if let Some(user) = &facts.user {
        parameters.push(("auth users", user.clone()));
        parameters.push(("secrets file", facts.secrets_file.clone()));
    }
    if !facts.hosts.is_empty() {
        parameters.push(("hosts allow", facts.hosts.join(&b' ')));
    }
    match is_restore {
        true => parameters.push(("exclude", b"/.rsyncd-snapshot".to_vec())),
        false => parameters.extend([
            ("refuse options", b"inplace append* write-devices".to_vec()),
            ("filter", filter(facts.is_on_ceph)),
        ]),
    }
    parameters.push(("pre-xfer exec", [facts.hook.as_slice(), b" pre-xfer"].concat()));
    parameters.push(("post-xfer exec", facts.hook.clone()));
    parameters
}

/// Clients send no links in the place of partial directories, and on CephFS reach no snapshots.
fn filter(is_on_ceph: bool) -> Vec<u8> {
    let of_snapshots = if is_on_ceph { "- .snap/ " } else { "" };
    let of_partial_dirs = "+ .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~";
    [of_snapshots, of_partial_dirs].concat().into_bytes()
}

/// The sections as text.
pub(crate) fn text_of<'a>(sections: impl IntoIterator<Item = &'a ModuleSection>) -> Vec<u8> {
    let text = |section: &ModuleSection| {
        let mut text = section.comment.as_bytes().to_vec();
        text.extend([b"[", section.name.as_slice(), b"]\n"].concat());
        for (name, value) in &section.parameters {
            text.extend([b"    ", name.as_bytes(), b" = ", value, b"\n"].concat());
        }
        text
    };
    sections.into_iter().map(text).collect::<Vec<_>>().join(&b'\n')
}

/// What the configuration has under the name of a section.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SectionState {
    /// No module has the name.
    Missing,
    /// A module has all parameters of the section, with the same values.
    Same,
    /// A module has another value for this parameter, or none.
    Differs { parameter: &'static str, has: Option<Vec<u8>>, wanted: Vec<u8> },
}

/// Compares a section with the module of its name. `module`: its values by the names of
/// parameters; none if there is no such module.
pub(crate) fn state<'a>(
    section: &ModuleSection,
    module: Option<impl Fn(&str) -> Option<&'a [u8]>>,
) -> SectionState {
    let Some(value) = module else { return SectionState::Missing };
    let differs = |(name, wanted): &&(&'static str, Vec<u8>)| value(name) != Some(wanted);
    match section.parameters.iter().find(differs) {
        None => SectionState::Same,
        Some((parameter, wanted)) => SectionState::Differs {
            parameter,
            has: value(parameter).map(<[u8]>::to_vec),
            wanted: wanted.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn facts() -> ModuleFacts {
        ModuleFacts {
            name: b"laptop".to_vec(),
            root: b"/srv/backup/laptop".to_vec(),
            secrets_file: b"/etc/rsyncd.secrets".to_vec(),
            is_root: true,
            hook: b"/usr/bin/rsyncd-snapshot".to_vec(),
            ..ModuleFacts::default()
        }
    }

    fn values(section: &ModuleSection) -> BTreeMap<&str, String> {
        let text = |value: &Vec<u8>| String::from_utf8_lossy(value).into_owned();
        section.parameters.iter().map(|(name, value)| (*name, text(value))).collect()
    }

    #[test]
    fn a_section_says_what_was_asked_for_and_no_more() {
        let with = |change: fn(&mut ModuleFacts)| {
            let mut facts = facts();
            change(&mut facts);
            sections(&facts)
        };
        for (case, sections, parameter, expected) in [
            ("plain", with(|_| ()), "path", Some("/srv/backup/laptop/latest")),
            ("plain", with(|_| ()), "auth users", None),
            ("plain", with(|_| ()), "secrets file", None),
            ("plain", with(|_| ()), "hosts allow", None),
            ("plain", with(|_| ()), "uid", Some("root")),
            ("plain", with(|_| ()), "pre-xfer exec", Some("/usr/bin/rsyncd-snapshot pre-xfer")),
            ("plain", with(|_| ()), "use chroot", Some("yes")),
            ("CephFS", with(|it| it.is_on_ceph = true), "use chroot", Some("no")),
            (
                "CephFS",
                with(|it| it.is_on_ceph = true),
                "filter",
                Some("- .snap/ + .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~"),
            ),
            ("not root", with(|it| it.is_root = false), "uid", None),
            ("not root", with(|it| it.is_root = false), "use chroot", Some("no")),
            ("user", with(|it| it.user = Some(b"ann".to_vec())), "auth users", Some("ann")),
            (
                "user",
                with(|it| it.user = Some(b"ann".to_vec())),
                "secrets file",
                Some("/etc/rsyncd.secrets"),
            ),
            (
                "hosts",
                with(|it| it.hosts = vec![b"10.0.0.1".to_vec(), b"::1".to_vec()]),
                "hosts allow",
                Some("10.0.0.1 ::1"),
            ),
        ] {
            let values = values(&sections[0]);
            let found = values.get(parameter).map(String::as_str);
            assert_eq!(found, expected, "{case}: {parameter}");
            assert_eq!(sections.len(), 1, "{case}");
        }
    }

    #[test]
    fn the_restore_module_shows_the_root_and_hides_our_own_directory() {
        let sections = sections(&ModuleFacts { has_restore: true, ..facts() });
        let [module, restore] = sections.as_slice() else { panic!("{sections:?}") };
        assert_eq!(restore.name, b"laptop-snapshots");
        let (module, restore) = (values(module), values(restore));
        for (parameter, of_module, of_restore) in [
            ("path", Some("/srv/backup/laptop/latest"), Some("/srv/backup/laptop")),
            ("read only", Some("no"), Some("yes")),
            ("exclude", None, Some("/.rsyncd-snapshot")),
            ("filter", Some("+ .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~"), None),
        ] {
            assert_eq!(module.get(parameter).map(String::as_str), of_module, "{parameter}");
            assert_eq!(restore.get(parameter).map(String::as_str), of_restore, "{parameter}");
        }
    }

    #[test]
    fn a_module_is_the_same_if_it_has_at_least_the_same_parameters() {
        let section = &sections(&facts())[0];
        let own: BTreeMap<&str, Vec<u8>> = section.parameters.iter().cloned().collect();
        let compare = |module: &BTreeMap<&str, Vec<u8>>| {
            state(section, Some(|name: &str| module.get(name).map(Vec::as_slice)))
        };
        let with = |name: &'static str, value: Option<&str>| {
            let mut module = own.clone();
            match value {
                Some(value) => module.insert(name, value.into()),
                None => module.remove(name),
            };
            module
        };
        let differs = |parameter, has: Option<&str>, wanted: &str| SectionState::Differs {
            parameter,
            has: has.map(Into::into),
            wanted: wanted.into(),
        };
        for (module, expected) in [
            (own.clone(), SectionState::Same),
            (with("max connections", Some("4")), SectionState::Same),
            (with("list", Some("yes")), differs("list", Some("yes"), "no")),
            (with("uid", None), differs("uid", None, "root")),
        ] {
            assert_eq!(compare(&module), expected, "{module:?}");
        }
        assert_eq!(
            state(section, None::<fn(&str) -> Option<&'static [u8]>>),
            SectionState::Missing
        );
    }

    #[test]
    fn the_text_has_a_line_for_each_parameter() {
        let sections = sections(&ModuleFacts { has_restore: true, ..facts() });
        let text = String::from_utf8(text_of(&sections)).expect("UTF-8");
        for section in &sections {
            for (name, value) in values(section) {
                assert!(text.contains(&format!("    {name} = {value}\n")), "{text}");
            }
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
