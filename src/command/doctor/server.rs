//! What `check` finds about the whole of rsyncd.conf and the daemon that serves it, once for all
//! modules.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::command::doctor::daemon::{self, ServedModules};
use crate::command::doctor::units::Unit;
use crate::command::doctor::{Doctor, daemon_mounts};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::refused_push::offers_only_reading;
use crate::config::rsyncd_conf::{ConfRemark, Misread};
use crate::config::rsyncd_module::{IgnoredBecause, IgnoredSetting, RsyncdModule};
use crate::config::rsyncd_parameters;
use crate::config::settings::RSYNCD_CONF;
use crate::decide::similar::closest;
use crate::engine::responsiveness::is_responsive;
use crate::tell::escape::{escape, shell_path};

/// This many names of modules are told; then how many more there are.
const MAX_NAMED: usize = 3;

impl Doctor<'_> {
    /// The findings about these modules together and about the daemon. `ended_with_23`: the last
    /// pushes to one of them have ended with that status.
    pub(crate) fn of_server(&self, modules: &[&RsyncdModule], ended_with_23: bool) -> Vec<Finding> {
        let concerned = modules.iter().copied().filter(|module| self.concerns(module));
        let hooked: Vec<&RsyncdModule> = concerned.collect();
        // The first line may have been the header of the only module with hooks.
        let mut found: Vec<Finding> = self
            .conf
            .remarks
            .iter()
            .filter(|remark| !hooked.is_empty() || !matches!(remark.what, Misread::Line(_)))
            .map(remark_finding)
            .collect();
        if hooked.is_empty() {
            return found;
        }
        found.extend(ignored_lines(modules));
        found.extend(misread_values(&hooked));
        found.extend(without_timeout(&hooked));
        // Each module has the lines of the whole daemon.
        found.extend(hooked.first().into_iter().flat_map(|module| self.startup_findings(module)));
        let modules = ServedModules {
            detach: hooked.iter().any(|module| self.hooks(module).post.detaches()),
            ended_with_23,
        };
        match self.daemon() {
            Some(daemon) => {
                found.extend(daemon::findings(daemon, modules));
                let mounts = self.mounts();
                let memory = &self.settings.memory;
                found.extend(
                    mounts.and_then(|(theirs, _)| daemon_mounts::proc_finding(daemon, theirs)),
                );
                found.extend(mounts.and_then(|(theirs, own)| {
                    daemon_mounts::memory_finding(daemon, theirs, own, memory)
                }));
            }
            // Such a unit names no other configuration.
            None if self.settings.rsyncd_conf == Path::new(RSYNCD_CONF) => {
                let unit = Unit::enabled(Path::new("/"));
                found.extend(
                    unit.into_iter().flat_map(|unit| daemon::unit_findings(&unit, modules)),
                );
            }
            None => {}
        }
        found
    }
}

/// What rsync reads otherwise than it was meant, with the edit.
fn remark_finding(remark: &ConfRemark) -> Finding {
    let place = &remark.place;
    let (level, text) = match &remark.what {
        Misread::ByteOrderMark(line) => {
            let (level, effect) = match line.first() {
                None | Some(b'#' | b';') => {
                    (Severity::Ok, "which does no harm before a comment".to_string())
                }
                _ => {
                    let is_setting = !line.starts_with(b"[") && line.contains(&b'=');
                    let level = if is_setting { Severity::Warning } else { Severity::Critical };
                    (level, format!("so rsync ignores this line, `{}`", escape(line)))
                }
            };
            let remedy = format!(r"sed -i '1s/^\xEF\xBB\xBF//' {}", shell_path(&place.file));
            (level, format!("the file begins with a byte order mark, {effect}; run `{remedy}`"))
        }
        Misread::Line(text) => (
            Severity::Warning,
            format!(
                "rsync ignores this line, `{}`, since it has no `=`; write `NAME = VALUE`, or `#` \
                 before a comment",
                escape(text)
            ),
        ),
        Misread::OtherNames(other, suffix) => {
            let mut renamed = other.clone().into_os_string();
            renamed.push(suffix);
            let text = format!(
                "rsync reads no file of this directory, since it reads only those whose names end \
                 in `{suffix}`; if one of them is meant, run `mv {} {}`",
                shell_path(other),
                shell_path(Path::new(&renamed))
            );
            (Severity::Ok, text)
        }
    };
    Finding::new(FindingId::ConfParameter, level, format!("{place}: {text}"))
}

/// Lines that rsync reads and ignores, and that were meant to say something.
fn ignored_lines(modules: &[&RsyncdModule]) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let all = modules.iter().flat_map(|module| {
        let is_read_only = offers_only_reading(module);
        module.parameters.ignored.iter().filter(move |line| {
            // This one is told as what it means for the module.
            !(is_read_only && is_named(line, "read only"))
        })
    });
    let finding = |line: &IgnoredSetting| {
        let (name, value) = (escape(&line.name), escape(&line.value));
        let text = match line.because {
            IgnoredBecause::NoBoolean => format!(
                "rsync ignores `{name} = {value}`, which is neither yes nor no; write only yes \
                 or no (a comment needs its own line)"
            ),
            IgnoredBecause::Global => format!(
                "rsync ignores `{name}` in the section of a module; move it above the first module"
            ),
            // A later version of rsync may know others, so only a likely slip is told.
            IgnoredBecause::Unknown => {
                let known = closest(&name, rsyncd_parameters::names())?;
                format!("rsync knows no parameter `{name}` and ignores it; did you mean `{known}`?")
            }
        };
        seen.insert(line.place.to_string()).then(|| {
            let message = format!("{}: {text}", line.place);
            Finding::new(FindingId::ConfParameter, Severity::Warning, message)
        })
    };
    all.filter_map(finding).collect()
}

/// Values that no quotes may enclose and no comment may follow, since rsync takes these for parts
/// of them. Others are numbers, of which rsync reads the digits, or commands of a shell, which
/// knows quotes and comments.
const TAKEN_WHOLE: [&str; 12] = [
    "auth users",
    "exclude from",
    "gid",
    "hosts allow",
    "hosts deny",
    "include from",
    "lock file",
    "path",
    "refuse options",
    "secrets file",
    "temp dir",
    "uid",
];

/// Values with what is meant as a comment or as quotes. A file may have such a name.
fn misread_values(hooked: &[&RsyncdModule]) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let pairs = hooked.iter().flat_map(|module| TAKEN_WHOLE.map(|parameter| (*module, parameter)));
    let finding = |(module, parameter): (&RsyncdModule, &str)| {
        let setting = module.setting(parameter)?;
        let path = Path::new(OsStr::from_bytes(&setting.value));
        if path.is_absolute() && (!is_responsive(path) || path.exists()) {
            return None;
        }
        let value = setting.value.as_slice();
        let comment = value.windows(2).position(|pair| matches!(pair, b" #" | b"\t#"));
        let text = match (comment, value) {
            (Some(at), _) => format!(
                "`{}` for a part of `{parameter}`; write it on a line of its own",
                escape(&value[at + 1..])
            ),
            // Quotes around a path have a finding of their own.
            (None, [first @ (b'"' | b'\''), .., last]) if first == last && parameter != "path" => {
                format!("the quotes for a part of `{parameter}`; leave them out")
            }
            _ => return None,
        };
        let message = format!("{}: rsync takes {text}", setting.place);
        seen.insert(setting.place.to_string())
            .then(|| Finding::new(FindingId::ConfParameter, Severity::Warning, message))
    };
    pairs.filter_map(finding).collect()
}

fn is_named(line: &IgnoredSetting, parameter: &str) -> bool {
    use crate::config::rsyncd_module::canonical;
    canonical(&line.name) == canonical(parameter.as_bytes())
}

/// Modules in which a client that falls asleep holds its connection for ever.
fn without_timeout(hooked: &[&RsyncdModule]) -> Option<Finding> {
    // rsync reads the digits that a number begins with.
    let waits_forever = |module: &&&RsyncdModule| {
        let value = module.get("timeout").unwrap_or_default().trim_ascii();
        let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
        !offers_only_reading(module) && digits.into_iter().all(|digit| *digit == b'0')
    };
    let without: Vec<String> =
        hooked.iter().filter(waits_forever).map(|module| escape(&module.name)).collect();
    let named = without.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match without.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!without.is_empty()).then(|| {
        let message = format!(
            "no `timeout` is set for {named}{more}: a client that stops answering in a push blocks \
             its module for ever; set `timeout = 600` above the first module"
        );
        Finding::new(FindingId::Timeout, Severity::Ok, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rsyncd_conf::RsyncdConf;

    fn conf(text: &str) -> RsyncdConf {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("rsyncd.conf");
        std::fs::write(&file, text).expect("written");
        RsyncdConf::read(&file).expect("read")
    }

    #[test]
    fn a_line_that_rsync_ignores_is_told_once_if_it_was_meant() {
        for (line, expected) in [
            ("read only = yes # really", Some("neither yes nor no")),
            ("post xfer exec = /x", Some("did you mean `post-xfer exec`?")),
            ("auth user = x", Some("did you mean `auth users`?")),
            ("port = 1", Some("above the first module")),
            ("quantum flux = 1", None),
            ("read only = NO", None),
            ("ReadOnly = no", None),
            ("use chroot = unset", None),
        ] {
            let conf = conf(&format!("[m]\nread only = no\n{line}\n"));
            let found = ignored_lines(&conf.modules.iter().collect::<Vec<_>>());
            assert_eq!(found.len(), usize::from(expected.is_some()), "{line}: {found:?}");
            let message = found.first().map(|one| one.message.clone()).unwrap_or_default();
            assert!(message.contains(expected.unwrap_or_default()), "{message}");
        }
        let twice = conf("read only = no\nlist = nope\n[a]\n[b]\n");
        assert_eq!(ignored_lines(&twice.modules.iter().collect::<Vec<_>>()).len(), 1);
    }

    #[test]
    fn what_rsync_misreads_is_as_serious_as_what_it_hides() {
        use Severity::{Critical, Ok, Warning};
        for (text, expected) in [
            ("\u{feff}", Ok),
            ("\u{feff}# of this server", Ok),
            ("\u{feff}[m]", Critical),
            ("\u{feff}&include /etc/rsyncd.d", Critical),
            ("\u{feff}uid = root", Warning),
            ("[m]\nread only no", Warning),
        ] {
            let conf = conf(text);
            let [remark] = conf.remarks.as_slice() else { panic!("{text}: {:?}", conf.remarks) };
            let found = remark_finding(remark);
            assert_eq!(found.level, expected, "{text}: {found:?}");
        }
    }

    #[test]
    fn quotes_and_comments_that_rsync_takes_for_the_value_are_told_once() {
        let there = tempfile::tempdir().expect("a directory");
        let odd = there.path().join("a #b");
        std::fs::create_dir(&odd).expect("a directory");
        let odd = format!("path = {}", odd.display());
        for (line, expected) in [
            ("auth users = u # the laptop", 1),
            ("hosts allow = 127.0.0.1\t# laptop", 1),
            ("uid = root # x", 1),
            ("path = /no/such # x", 1),
            (odd.as_str(), 0),
            ("timeout = 600 # x", 0),
            ("secrets file = \"/etc/rsyncd.secrets\"", 1),
            ("hosts allow = '10.0.0.1'", 1),
            ("path = \"/srv\"", 0),
            ("hosts allow = 127.0.0.1#x", 0),
            ("comment = a # b", 0),
        ] {
            let conf = conf(&format!("{line}\n[a]\n[b]\n"));
            let found = misread_values(&conf.modules.iter().collect::<Vec<_>>());
            assert_eq!(found.len(), expected, "{line}: {found:?}");
        }
    }

    #[test]
    fn modules_without_a_timeout_are_told_in_one_line() {
        let text = "[a]\nread only = no\n[b]\nread only = no\ntimeout = 600\n[c]\nread only = no\n\
                    timeout = 0\n[d]\n[e]\nread only = no\n[f]\nread only = no\n";
        let conf = conf(text);
        let hooked: Vec<&RsyncdModule> = conf.modules.iter().collect();
        let found = without_timeout(&hooked).expect("a note");
        assert!(found.message.contains("for a, c, e and 1 more"), "{}", found.message);
        assert_eq!(found.level, Severity::Ok);
        assert!(without_timeout(&hooked[1..2]).is_none());
    }
}
