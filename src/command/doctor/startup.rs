//! What `check` finds about lines of the whole daemon with which it does not start, or lets no
//! client in.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

use crate::command::doctor::{Doctor, files};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::engine::responsiveness::is_responsive;
use crate::tell::escape::{escape, escape_path};

/// Where systemd has its units.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

impl Doctor<'_> {
    /// The findings about the lines of the daemon, which each of its modules has.
    pub(crate) fn startup_findings(&self, module: &RsyncdModule) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut tell = |parameter: &str, level, text: String| {
            let message = format!("{}: {parameter}: {text}", module.place_of(parameter));
            found.push(Finding::new(FindingId::Daemon, level, message));
        };
        if let Some(why) = self.pid_file_mistake(module) {
            let text = format!(
                "{why}, so the rsync daemon does not start; correct the path, or take it out"
            );
            tell("pid file", Severity::Critical, text);
        }
        for parameter in ["address", "bind address"] {
            let value = module.get(parameter).unwrap_or_default();
            if self.daemon().is_none() && is_foreign(value) {
                let text = format!(
                    "{} is no address of this machine, so the rsync daemon does not start; correct \
                     it, or take it out",
                    escape(value)
                );
                tell(parameter, Severity::Critical, text);
            }
        }
        if module.boolean("proxy protocol", false) == Some(true) {
            let (level, text) =
                match module.get("proxy protocol hosts").is_some_and(|it| !it.is_empty()) {
                    true => (
                        Severity::Ok,
                        "only clients behind a proxy that speaks the PROXY protocol get in"
                            .to_string(),
                    ),
                    false => (
                        Severity::Warning,
                        "rsync 3.5 lets no client in without `proxy protocol hosts`, and earlier \
                     versions only those behind a proxy; take the line out, or add `proxy protocol \
                     hosts` with the addresses of the proxies"
                            .to_string(),
                    ),
                };
            tell("proxy protocol", level, text);
        }
        found
    }

    fn pid_file_mistake(&self, module: &RsyncdModule) -> Option<String> {
        let path = files::named(module, "pid file").filter(|path| path.is_absolute())?;
        let parent = path.parent()?;
        if files::is_missing(parent) {
            let is_made = units().iter().any(|unit| makes(unit, parent));
            return (!is_made).then(|| format!("{} does not exist", escape_path(parent)));
        }
        (is_responsive(&path) && path.is_dir())
            .then(|| format!("{} is a directory", escape_path(&path)))
    }
}

/// Whether an address is surely none of this machine.
fn is_foreign(address: &[u8]) -> bool {
    let parsed = std::str::from_utf8(address).ok().and_then(|it| it.trim().parse::<IpAddr>().ok());
    let bound = parsed.map(|address| UdpSocket::bind((address, 0)));
    bound.is_some_and(|bound| {
        bound.is_err_and(|error| error.raw_os_error() == Some(libc::EADDRNOTAVAIL))
    })
}

/// The unit files whose names begin as rsync's do, with their drop-ins.
fn units() -> Vec<PathBuf> {
    let entries =
        |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|it| it.path());
    let is_rsync = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"rsync"))
    };
    let named = UNITS.iter().flat_map(|units| entries(Path::new(units))).filter(is_rsync);
    named
        .flat_map(|path| if path.is_dir() { entries(&path).collect() } else { vec![path] })
        .collect()
}

/// Whether a unit makes the directory when it starts.
fn makes(unit: &Path, directory: &Path) -> bool {
    let text = fs::read_to_string(unit).unwrap_or_default();
    let below = ["/run", "/var/run"].iter().find_map(|run| directory.strip_prefix(run).ok());
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("RuntimeDirectory="));
    let mut names = lines.flat_map(str::split_whitespace);
    below.is_some_and(|below| names.any(|name| Path::new(name).starts_with(below)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_another_machine_is_foreign() {
        for (address, expected) in [
            ("10.99.99.99", true),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("127.4.5.6", false),
            ("localhost", false),
            ("", false),
        ] {
            assert_eq!(is_foreign(address.as_bytes()), expected, "{address}");
        }
    }

    #[test]
    fn a_directory_that_a_unit_makes_is_not_missing() {
        let unit = tempfile::NamedTempFile::new().expect("a file");
        fs::write(unit.path(), "[Service]\nRuntimeDirectory=other rsyncd/a\n").expect("written");
        for (directory, expected) in [
            ("/run/rsyncd", true),
            ("/var/run/rsyncd/a", true),
            ("/run/rsync", false),
            ("/srv/rsyncd", false),
        ] {
            assert_eq!(makes(unit.path(), Path::new(directory)), expected, "{directory}");
        }
    }
}
