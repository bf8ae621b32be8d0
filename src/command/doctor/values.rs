//! What `check` finds about single values of a module with which rsync turns clients away, though
//! nothing that they name is missing.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::command::doctor::hooks::{NAME_CONVERTER, file_finding};
use crate::command::doctor::{Doctor, files};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::{RsyncdModule, has_variable};
use crate::engine::responsiveness::is_responsive;
use crate::tell::escape::{escape, escape_path};

impl Doctor<'_> {
    pub(crate) fn value_findings(&self, module: &RsyncdModule) -> Vec<Finding> {
        let found = [
            self.charset_finding(module),
            name_finding(module),
            self.munged_directory(module),
            self.converter_finding(module),
            self.relative_path(module),
        ];
        found.into_iter().flatten().collect()
    }

    /// A character set that this system does not know.
    fn charset_finding(&self, module: &RsyncdModule) -> Option<Finding> {
        let value = module.get("charset").filter(|value| !has_variable(value))?;
        // A daemon takes what precedes the comma, and the one of its locale for none and for a dot.
        let name = value.split(|byte| *byte == b',').next()?;
        let is_open = name.is_empty() || name == b"." || name.contains(&b'/');
        let is_known = || self.prober.borrow_mut().as_mut()?.knows_charset(name);
        (!is_open && is_known() == Some(false)).then(|| {
            let text = format!(
                "this system knows no character set `{}`, so rsync turns every connection away; \
                 write one that `iconv -l` lists, such as `charset = UTF-8`, or take the line out",
                escape(name)
            );
            critical(module, "charset", &text)
        })
    }

    /// A directory with which rsync refuses to munge symbolic links.
    fn munged_directory(&self, module: &RsyncdModule) -> Option<Finding> {
        let is_set = |parameter: &str| module.get(parameter).is_some_and(|it| !it.is_empty());
        let path = module.path().ok().filter(|_| !is_set("daemon chroot"))?;
        let own = module.get("path")?;
        let inner = own.windows(3).position(|part| part == b"/./");
        // Unset, a daemon of root changes its root directory.
        let is_root = self.daemon_user(module).is_some_and(|user| user.is_root());
        let changes_root = match is_set("use chroot") {
            true => module.boolean("use chroot", true)?,
            false => is_root,
        };
        let munges = match is_set("munge symlinks") {
            true => module.boolean("munge symlinks", false)?,
            false => !changes_root || inner.is_some(),
        };
        let root = match (changes_root, inner) {
            (false, _) => PathBuf::from("/"),
            (true, None) => path,
            (true, Some(at)) => PathBuf::from(OsStr::from_bytes(&own[..at])),
        };
        let directory = root.join("rsyncd-munged");
        (munges && is_responsive(&directory) && directory.is_dir()).then(|| {
            critical(
                module,
                "munge symlinks",
                &format!(
                    "rsync does not munge symbolic links while {} exists, and turns every \
                     connection away; rename that directory, or set `munge symlinks = no`",
                    escape_path(&directory)
                ),
            )
        })
    }

    /// A relative path that the running daemon does not find where it works.
    fn relative_path(&self, module: &RsyncdModule) -> Option<Finding> {
        let value = module.get("path").filter(|path| !path.is_empty() && !has_variable(path))?;
        // What is meant for a shell, or stands in quotes, has a finding of its own.
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"._".contains(byte);
        let path = Path::new(OsStr::from_bytes(value));
        if !value.first().is_some_and(is_name)
            || module.get("daemon chroot").is_some_and(|it| !it.is_empty())
        {
            return None;
        }
        let pid = self.daemon()?.pid;
        let directory = self.prober.borrow_mut().as_mut()?.working_directory(pid)?;
        files::is_missing(&directory.join(path)).then(|| {
            let text = format!(
                "it is relative, and the rsync daemon works in {}, where it does not exist, so \
                 rsync turns every connection away; write the whole path, which begins with `/`",
                escape_path(&directory)
            );
            critical(module, "path", &text)
        })
    }

    /// A program for names of users that cannot run. rsync then ends at the first owner that is not
    /// root.
    fn converter_finding(&self, module: &RsyncdModule) -> Option<Finding> {
        let by_number = module.boolean("numeric ids", false) != Some(false);
        let hook = self.programs.hook(module, NAME_CONVERTER);
        let found = file_finding(&hook, &self.programs.this_program());
        found.filter(|found| !by_number && found.level == Severity::Critical)
    }
}

fn critical(module: &RsyncdModule, parameter: &str, text: &str) -> Finding {
    let message = format!("{}: {parameter}: {text}", module.place_of(parameter));
    Finding::new(FindingId::ConfParameter, Severity::Critical, message)
}

/// A line that gives the module another name than its header.
fn name_finding(module: &RsyncdModule) -> Option<Finding> {
    let setting = module.setting("name").filter(|setting| setting.is_own)?;
    let file: &Path = &module.place.file;
    let text = fs::read(file).ok()?;
    let header = text.split(|byte| *byte == b'\n').nth(module.place.line.checked_sub(1)?)?;
    let header = header.trim_ascii().strip_prefix(b"[")?.split(|byte| *byte == b']').next()?;
    (header != setting.value).then(|| {
        let message = format!(
            "{}: with `name = {}`, rsync turns away clients that push to `{}`, the name in the \
             brackets; take the line out (a description is written `comment = ...`)",
            setting.place,
            escape(&setting.value),
            escape(header)
        );
        Finding::new(FindingId::ConfParameter, Severity::Warning, message)
    })
}
