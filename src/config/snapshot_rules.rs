//! Whether a module keeps its clients from the snapshots that CephFS shows in each directory as
//! `.snap`.
//!
//! pre-xfer sees what a client names on its command line. It does not see the files that a client
//! sends: a directory `.snap`, or a symbolic link to one, which rsync then follows in the same
//! push. With rsync 3.2.7 and 3.5.0 two lines of `rsyncd.conf` together keep clients out, also
//! without pre-xfer:
//!
//! * A filter that excludes `.snap/`. The slash at its end matters: for rsyncd that pattern covers
//!   all that is below, at each level of the module, while `.snap` covers the name alone, so that
//!   `--partial-dir=.snap/NAME` is let in.
//! * `use chroot = no`, with which rsync munges links unless `munge symlinks` says otherwise, since
//!   no filter knows where a link leads. With `use chroot = yes` [munged links](munges_links) are
//!   no help.

use crate::config::partial_dir_symlinks::{is_plain, keeps_filter, munges_links, value};
use crate::config::rsyncd_module::RsyncdModule;
use crate::decide::arguments::snapshot_words::SNAPSHOT_DIRECTORY;
use crate::tell::escape::escape;

/// The rule that excludes the snapshots.
pub(crate) const RULE: &str = "- .snap/";

/// The patterns that exclude the directory and all that is below it.
const PATTERNS: [&[u8]; 2] = [b".snap/", b".snap/***"];

/// What a module lacks to keep its clients from snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotRules {
    /// A filter excludes `.snap/` for sure.
    pub(crate) are_excluded: bool,
    /// Symbolic links of clients lead nowhere.
    pub(crate) are_links_harmless: bool,
}

impl SnapshotRules {
    /// The rules of a module.
    pub(crate) fn of(module: &RsyncdModule) -> Self {
        SnapshotRules {
            are_excluded: keeps_filter(module) && excludes_snapshots(module),
            are_links_harmless: munges_links(module),
        }
    }
}

/// The line that excludes the snapshots, before what the module's `filter` says already; it is to
/// be the only one of that name.
pub(crate) fn filter_line(module: &RsyncdModule) -> String {
    let before = escape(value(module, "filter"));
    format!("filter = {RULE} {before}").trim_end().to_string()
}

/// Whether lists of rules could take the rule back.
pub(crate) fn may_clear_rules(module: &RsyncdModule) -> bool {
    !keeps_filter(module)
}

/// rsync reads `filter`, `include` and `exclude` in this order, and the first rule that matches
/// counts. A rule in front that is not understood could admit the directory.
fn excludes_snapshots(module: &RsyncdModule) -> bool {
    let words = |parameter| {
        value(module, parameter).split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
    };
    let mut filter = words("filter");
    while let Some(rule) = filter.next() {
        let Some(pattern) = filter.next() else { return false };
        match rule {
            b"-" if PATTERNS.contains(&pattern) => return true,
            b"-" => {}
            b"+" if admits_no_snapshots(pattern) => {}
            _ => return false,
        }
    }
    // Here a pattern may stand alone.
    for (parameter, includes) in [("include", true), ("exclude", false)] {
        let mut sign = None;
        for word in words(parameter) {
            match word {
                b"+" => sign = Some(true),
                b"-" => sign = Some(false),
                pattern => match sign.take().unwrap_or(includes) {
                    true if admits_no_snapshots(pattern) => {}
                    true => return false,
                    false if PATTERNS.contains(&pattern) => return true,
                    false => {}
                },
            }
        }
    }
    false
}

/// Whether a rule that includes this pattern leaves the directory excluded. An included directory
/// includes nothing of what is in it.
fn admits_no_snapshots(pattern: &[u8]) -> bool {
    let pattern = String::from_utf8_lossy(pattern);
    let name = pattern.trim_end_matches('/').rsplit('/').next();
    is_plain(&pattern) && name != Some(SNAPSHOT_DIRECTORY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::partial_dir_symlinks::missing_for_munged_links;
    use crate::config::rsyncd_conf::RsyncdConf;

    fn module(parameters: &str) -> RsyncdModule {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("rsyncd.conf");
        std::fs::write(&file, format!("[m]\npath = /m\n{parameters}\n")).expect("written");
        let conf = RsyncdConf::read(&file).expect("read");
        conf.module(b"m").expect("the module").clone()
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        for (parameters, expected) in [
            ("", false),
            ("exclude = .snap/", true),
            ("exclude = .snap/***", true),
            ("exclude = *.o .snap/ *.a", true),
            ("exclude = - .snap/", true),
            ("exclude = + *.c .snap/", false),
            ("exclude = + .snap/ .snap/", false),
            ("exclude = .snap", false),
            ("exclude = /.snap/", false),
            ("exclude = *.snap", false),
            ("exclude = .snap/*", false),
            ("exclude = .snapshots/", false),
            ("exclude = .snap/ !", false),
            ("include = *\nexclude = .snap/", false),
            ("include = */\nexclude = .snap/", false),
            ("include = .snap/\nexclude = .snap/", false),
            ("include = a/b\nexclude = .snap/", true),
            ("include = - .snap/", true),
            ("include from = /x\nexclude = .snap/", false),
            ("exclude = .snap/\nexclude from = /x", false),
            ("filter = - .snap/", true),
            ("filter = - .snap/ + *", true),
            ("filter = - *.o - .snap/", true),
            ("filter = + * - .snap/", false),
            ("filter = + .rsync-partial/ - .rsync-partial - .snap/", true),
            ("filter = + .rsync-partial/ - .rsync-partial\nexclude = .snap/", true),
            ("filter = + a/.snap/ - .snap/", false),
            ("filter = + a/*** - .snap/", false),
            ("filter = merge /x - .snap/", false),
            ("filter = -s .snap/", false),
            ("filter = - .snap/ !", false),
            ("filter = -", false),
        ] {
            assert_eq!(
                SnapshotRules::of(&module(parameters)).are_excluded,
                expected,
                "{parameters}"
            );
        }
    }

    #[test]
    fn links_are_harmless_where_rsync_munges_them_without_chroot() {
        let (chroot, munged) = ("use chroot = no", "munge symlinks = yes");
        for (parameters, missing) in [
            ("", &[chroot][..]),
            ("use chroot = yes", &[chroot]),
            ("use chroot = yes\nmunge symlinks = yes", &[chroot]),
            ("munge symlinks = no", &[chroot, munged]),
            ("use chroot = no", &[]),
            ("use chroot = no\nmunge symlinks = yes", &[]),
            ("use chroot = no\nmunge symlinks = no", &[munged]),
        ] {
            let module = module(parameters);
            assert_eq!(missing_for_munged_links(&module), missing, "{parameters}");
            let rules = SnapshotRules::of(&module);
            assert_eq!(rules.are_links_harmless, missing.is_empty(), "{parameters}");
        }
    }

    #[test]
    fn the_line_to_write_excludes_whatever_was_there() {
        for parameters in
            ["", "exclude = .snap", "include = *", "filter = + a/ - *", "filter = + *"]
        {
            let line = filter_line(&module(parameters));
            let after = format!("{parameters}\n{line}");
            assert!(SnapshotRules::of(&module(&after)).are_excluded, "{after}");
        }
        assert_eq!(filter_line(&module("filter = + a/ - *")), "filter = - .snap/ + a/ - *");
        assert!(may_clear_rules(&module("exclude from = /x")));
    }
}
