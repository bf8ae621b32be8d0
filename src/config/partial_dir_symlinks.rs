//! Whether a client's symbolic link could lead rsync from a partial directory to other files.
//!
//! In one push a client can send a link `.rsync-partial -> docs` and use that partial directory:
//! rsync 3.2.7 and 3.5.0 follow it and write into files of `docs`, which snapshots share. pre-xfer
//! sees only links that were there before the push. Two settings of rsyncd prevent it: munged links
//! without chroot, or a filter of the module that admits directories of these names and nothing
//! else.

use crate::config::rsyncd_module::{RsyncdModule, read_bool};
use crate::decide::partial_dirs::PartialDirs;

const NO_CHROOT: &str = "use chroot = no";
const MUNGED: &str = "munge symlinks = yes";

/// Whether rsyncd would follow a client's link in the place of one of these partial directories.
pub(crate) fn follows_links(module: &RsyncdModule, dirs: &PartialDirs) -> bool {
    let excludes = || filter_excludes_links(value(module, "filter"), dirs) && keeps_filter(module);
    !(munges_links(module) || excludes())
}

pub(crate) fn value<'a>(module: &'a RsyncdModule, parameter: &str) -> &'a [u8] {
    module.get(parameter).unwrap_or_default()
}

/// Whether nothing can take the rules of `filter` back: a rule `!` forgets all rules before it,
/// those of other lists included, and a file of rules may hold one.
pub(crate) fn keeps_filter(module: &RsyncdModule) -> bool {
    let clears = |parameter| {
        value(module, parameter).split(u8::is_ascii_whitespace).any(|word| word.contains(&b'!'))
    };
    let reads_file = |parameter| !value(module, parameter).is_empty();
    !["filter", "include", "exclude"].into_iter().any(clears)
        && !["include from", "exclude from"].into_iter().any(reads_file)
}

/// The lines for `rsyncd.conf` that exclude such links.
pub(crate) fn remedy(dirs: &PartialDirs) -> Vec<String> {
    let names = dirs.components();
    if !names.iter().all(|name| is_plain(name)) {
        return [NO_CHROOT, MUNGED].map(str::to_string).into();
    }
    let rules: Vec<String> = names.iter().map(|name| format!("+ {name}/ - {name}")).collect();
    vec![format!("filter = {}", rules.join(" "))]
}

/// Whether a rule of a filter can hold the name as it is.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.contains(|letter: char| letter.is_ascii_whitespace() || "*?[\\".contains(letter))
}

/// Whether rsyncd makes each link that a client sends one that leads nowhere. It does so by default
/// where it does not change its root directory. Where it changes it, munged links are no help: they
/// lead below `/rsyncd-munged`, which is then a directory of the module, and the client can make it
/// in the same push, even where a filter excludes it. Where `use chroot` is not given, it depends
/// on the daemon's rights, so that does not count.
pub(crate) fn munges_links(module: &RsyncdModule) -> bool {
    missing_for_munged_links(module).is_empty()
}

/// The lines that `munges_links` lacks.
pub(crate) fn missing_for_munged_links(module: &RsyncdModule) -> Vec<&'static str> {
    let is_set = |parameter, wanted| module.get(parameter).and_then(read_bool) == Some(wanted);
    let has_no_chroot = is_set("use chroot", false);
    let munges = module.get("munge symlinks").is_none() || is_set("munge symlinks", true);
    let chroot = (!has_no_chroot).then_some(NO_CHROOT);
    chroot.into_iter().chain((!munges).then_some(MUNGED)).collect()
}

/// Whether each name's two rules come first: `+ NAME/`, then `- NAME`. rsync reads `filter` before
/// the other lists, and the first rule that matches a name counts. Any rule between them but an
/// exclusion could admit a link, and what is not understood counts as such a rule.
fn filter_excludes_links(filter: &[u8], dirs: &PartialDirs) -> bool {
    let mut words = filter.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut missing = dirs.components();
    if !missing.iter().all(|name| is_plain(name)) {
        return false;
    }
    while let (false, Some(rule), Some(pattern)) = (missing.is_empty(), words.next(), words.next())
    {
        let pattern = String::from_utf8_lossy(pattern);
        match rule {
            b"+" if missing.iter().any(|name| *pattern == format!("{name}/")) => {}
            b"-" => missing.retain(|name| *pattern != **name),
            _ => return false,
        }
    }
    missing.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rsyncd_conf::RsyncdConf;

    fn follows(parameters: &str, names: &[&str]) -> bool {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("rsyncd.conf");
        std::fs::write(&file, format!("[m]\npath = /m\n{parameters}\n")).expect("written");
        let conf = RsyncdConf::read(&file).expect("read");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        follows_links(conf.module(b"m").expect("the module"), &PartialDirs::listed(&names))
    }

    #[test]
    fn munged_links_lead_nowhere() {
        for (parameters, expected) in [
            ("", true),
            ("use chroot = yes", true),
            ("use chroot = no", false),
            ("use chroot = no\nmunge symlinks = no", true),
            ("use chroot = no\nmunge symlinks = yes", false),
            ("munge symlinks = yes", true),
            ("use chroot = yes\nmunge symlinks = yes", true),
            // rsync ignores a value that is neither yes nor no.
            ("use chroot = no\nmunge symlinks = maybe", false),
        ] {
            assert_eq!(follows(parameters, &[]), expected, "{parameters}");
        }
    }

    #[test]
    fn a_filter_admits_directories_only_if_its_first_rules_say_so() {
        let ours = "+ .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~";
        for (filter, names, expected) in [
            (ours, &[][..], false),
            ("- *.o + .~tmp~/ - .~tmp~ + .rsync-partial/ - .rsync-partial + *", &[], false),
            ("- .rsync-partial - .~tmp~", &[], false),
            ("+ .rsync-partial - .rsync-partial + .~tmp~/ - .~tmp~", &[], true),
            ("+ * + .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~", &[], true),
            ("+ .rsync-partial/ - .rsync-partial", &[], true),
            ("+ .rsync-partial/ + .~tmp~/", &[], true),
            ("merge /etc/rules", &[], true),
            ("+ .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~ !", &[], true),
            ("+ .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~\nexclude = ! *.o", &[], true),
            ("+ .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~\ninclude = !", &[], true),
            ("+ .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~\nexclude from = /x", &[], true),
            ("+ .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~\nexclude = *.o", &[], false),
            (ours, &["a/parts"], true),
            (
                "+ .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~ + a/ - a + parts/ - parts",
                &["a/parts"],
                false,
            ),
        ] {
            assert_eq!(follows(&format!("filter = {filter}"), names), expected, "{filter}");
        }
    }

    #[test]
    fn the_line_to_add_is_one_that_is_understood() {
        for names in [&["a/parts", "parts"][..], &["a b"], &["[a]"], &[]] {
            let listed: Vec<String> = names.iter().map(ToString::to_string).collect();
            let lines = remedy(&PartialDirs::listed(&listed)).join("\n");
            assert!(!follows(&lines, names), "{names:?}");
        }
        assert_eq!(
            remedy(&PartialDirs::default()),
            ["filter = + .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~"]
        );
    }
}
