//! What `check` finds about lines of the whole daemon with which it does not start, or lets no
//! client in.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

use crate::command::doctor::accounts::NoAccount;
use crate::command::doctor::{Doctor, accounts, files, hosts};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::{RsyncdModule, has_variable};
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
            if self.daemon().is_some() || value.is_empty() || has_variable(value) {
                continue;
            }
            let (level, why) = match is_foreign(value) {
                Some(true) => (Severity::Critical, "is no address of this machine"),
                None if !hosts::is_known(&escape(value)) => {
                    (Severity::Warning, "is no address, and no name that resolves within a second")
                }
                _ => continue,
            };
            let text = format!(
                "{} {why}, so the rsync daemon does not start; correct it, or take it out",
                escape(value)
            );
            tell(parameter, level, text);
        }
        for (parameter, why) in self.connection_mistakes(module) {
            let text = format!("{why}, so rsync turns every connection away; correct it");
            tell(parameter, Severity::Critical, text);
        }
        if self.daemon().is_none() {
            match files::number(module, "port") {
                port if port < 0 => {
                    let text = "with a negative number, the rsync daemon does not start; write one \
                                from 1 to 65535";
                    tell("port", Severity::Critical, text.to_string());
                }
                port if port > 0xffff => {
                    let text = format!(
                        "there is no such port, and the rsync daemon listens at {} instead; write \
                         a number from 1 to 65535",
                        port & 0xffff
                    );
                    tell("port", Severity::Warning, text);
                }
                _ => {}
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

    /// What is wrong with lines of the daemon that rsync looks at in each connection.
    fn connection_mistakes(&self, module: &RsyncdModule) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let group = module.get("daemon gid").filter(|it| !it.is_empty() && !has_variable(it));
        if let Some(Err(NoAccount::Invalid(_, name))) = group.map(accounts::gid_of) {
            found.push(("daemon gid", format!("this system knows no group {name}")));
        }
        let absolute = |parameter| {
            let path = files::named(module, parameter).filter(|path| path.is_absolute())?;
            is_responsive(&path).then_some(path)
        };
        let chroot = absolute("daemon chroot");
        found.extend(chroot.as_ref().filter(|path| !path.is_dir()).map(|path| {
            ("daemon chroot", format!("{} is not there or no directory", escape_path(path)))
        }));
        // rsync reads a directory for ever.
        let motd = absolute("motd file").filter(|path| chroot.is_none() && path.is_dir());
        found.extend(
            motd.map(|path| ("motd file", format!("{} is a directory", escape_path(&path)))),
        );
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

/// Whether an address is surely none of this machine; none for a name.
fn is_foreign(address: &[u8]) -> Option<bool> {
    let address = std::str::from_utf8(address).ok()?.trim().parse::<IpAddr>().ok()?;
    let bound = UdpSocket::bind((address, 0));
    Some(bound.is_err_and(|error| error.raw_os_error() == Some(libc::EADDRNOTAVAIL)))
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
            ("10.99.99.99", Some(true)),
            ("127.0.0.1", Some(false)),
            ("0.0.0.0", Some(false)),
            ("127.4.5.6", Some(false)),
            ("localhost", None),
            ("", None),
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
