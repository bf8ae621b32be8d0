//! What the units of systemd say about the rsync daemon, also while it does not run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::tell::escape::escape;

/// Where systemd has its units. A file in an earlier directory replaces one of its name in a later
/// one.
const DIRECTORIES: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// What starts an rsync daemon at boot, and the unit of the daemon.
const STARTS: [(&str, &str); 4] = [
    ("multi-user.target.wants/rsync.service", "rsync.service"),
    ("multi-user.target.wants/rsyncd.service", "rsyncd.service"),
    ("sockets.target.wants/rsync.socket", "rsync@.service"),
    ("sockets.target.wants/rsyncd.socket", "rsyncd@.service"),
];

/// Which units of rsync daemons there are below the directory `top`, or in the directory `own`.
pub(crate) fn of_daemons(top: &Path, own: &Path) -> Vec<&'static str> {
    let directories = DIRECTORIES.map(|directory| top.join(directory));
    let is_there =
        |name: &str| own.join(name).exists() || directories.iter().any(|it| it.join(name).exists());
    STARTS.into_iter().map(|(_, name)| name).filter(|name| is_there(name)).collect()
}

/// The unit of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Escaped.
    pub(crate) name: String,
    /// The lines of its files, those of drop-ins last.
    lines: Vec<(String, String)>,
}

impl Unit {
    /// The unit of this name below the directory `top`; none if it is not there or empty.
    pub(crate) fn read(top: &Path, name: &str) -> Option<Self> {
        // An instance is made by its template.
        let template = name.split_once('@').map(|(before, _)| format!("{before}@.service"));
        let names = [Some(name.to_string()), template];
        let names: Vec<&String> = names.iter().flatten().collect();
        let directories = DIRECTORIES.map(|directory| top.join(directory));
        let files = names
            .iter()
            .flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
        let main = files.into_iter().find_map(|file| fs::read_to_string(file).ok())?;
        let mut drop_ins = BTreeMap::new();
        for directory in directories.iter().rev() {
            for name in names.iter().rev() {
                let found = fs::read_dir(directory.join(format!("{name}.d")));
                for entry in found.into_iter().flatten().flatten() {
                    let is_conf = entry.path().extension().is_some_and(|it| it == "conf");
                    let text = fs::read_to_string(entry.path()).ok().filter(|_| is_conf);
                    drop_ins.extend(text.map(|text| (entry.file_name(), text)));
                }
            }
        }
        let texts = std::iter::once(&main).chain(drop_ins.values());
        let lines: Vec<(String, String)> = texts.flat_map(|text| lines_of(text)).collect();
        (!lines.is_empty()).then(|| Unit { name: escape(name.as_bytes()), lines })
    }

    /// The unit that starts the daemon at boot.
    pub(crate) fn enabled(top: &Path) -> Option<Self> {
        let is_on =
            |wants: &str| fs::symlink_metadata(top.join("etc/systemd/system").join(wants)).is_ok();
        let (_, name) = STARTS.iter().find(|(wants, _)| is_on(wants))?;
        Unit::read(top, name)
    }

    /// Whether systemd starts a daemon for each connection.
    pub(crate) fn is_per_connection(&self) -> bool {
        self.name.contains('@')
    }

    /// The values of a setting that count: an empty one takes back those before it.
    fn values<'a>(&'a self, setting: &'a str) -> Vec<&'a str> {
        let mut values = Vec::new();
        for (_, value) in self.lines.iter().filter(|(name, _)| name == setting) {
            match value.as_str() {
                "" => values.clear(),
                value => values.push(value),
            }
        }
        values
    }

    fn value<'a>(&'a self, setting: &'a str) -> Option<&'a str> {
        self.values(setting).last().copied()
    }

    /// Whether the daemon is root's and may not make device files.
    pub(crate) fn takes_devices(&self) -> bool {
        let is_root = self.value("User").is_none_or(|user| ["root", "0"].contains(&user));
        let is_private = self.value("PrivateDevices").is_some_and(is_true);
        let sets = self.values("CapabilityBoundingSet");
        let names = |set: &str| set.split_whitespace().any(|name| name == "CAP_MKNOD");
        let (taken, kept): (Vec<&str>, Vec<&str>) =
            sets.into_iter().partition(|set| set.starts_with('~'));
        let is_taken = taken.iter().any(|set| names(&set[1..]))
            || !kept.is_empty() && !kept.iter().any(|set| names(set));
        is_root && (is_private || is_taken)
    }

    /// Whether no program of the daemon gets other rights than it has, as sudo would.
    pub(crate) fn forbids_new_privileges(&self) -> bool {
        self.value("NoNewPrivileges").is_some_and(is_true)
    }

    /// Whether a hook that is still at work ends with the daemon or its connection.
    pub(crate) fn ends_hooks(&self) -> bool {
        !matches!(self.value("KillMode"), Some("process" | "none"))
    }

    /// The setting by which hooks cannot see other processes, and the one that lets them.
    pub(crate) fn hides_processes(&self) -> Option<(String, &'static str)> {
        let hidden = self.value("ProtectProc").filter(|value| *value == "ptraceable");
        if let Some(value) = hidden {
            return Some((format!("ProtectProc={value}"), "ProtectProc=default"));
        }
        let is_only_pid = self.value("ProcSubset") == Some("pid");
        is_only_pid.then(|| ("ProcSubset=pid".to_string(), "ProcSubset=all"))
    }
}

fn is_true(value: &str) -> bool {
    ["1", "yes", "true", "on", "y", "t"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// The settings of the section `[Service]`.
fn lines_of(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let mut section = "";
    let mut found = Vec::new();
    for line in joined.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let Some((name, value)) = line.split_once('=')
            && section == "[Service]"
            && !line.starts_with(['#', ';'])
        {
            found.push((name.trim().to_string(), value.trim().to_string()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let top = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let file = top.path().join(name);
            fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            fs::write(file, text).expect("written");
        }
        top
    }

    const STOCK: &str = "[Unit]\nPrivateDevices=no\n[Service]\nExecStart=/usr/bin/rsync --daemon\n\
                         #ProtectHome=on\nPrivateDevices=on\nNoNewPrivileges=on\n";

    #[test]
    fn a_unit_is_read_with_its_drop_ins() {
        for (files, takes_devices, ends_hooks) in [
            (&[("lib/systemd/system/rsync.service", STOCK)][..], true, true),
            (
                &[
                    ("lib/systemd/system/rsync.service", STOCK),
                    (
                        "etc/systemd/system/rsync.service.d/a.conf",
                        "[Service]\nPrivateDevices=no\nKillMode=process\n",
                    ),
                ],
                false,
                false,
            ),
            (
                &[
                    ("lib/systemd/system/rsync.service", STOCK),
                    ("lib/systemd/system/rsync.service.d/a.conf", "[Service]\nPrivateDevices=no\n"),
                    ("etc/systemd/system/rsync.service.d/a.conf", "[Service]\nKillMode=mixed\n"),
                ],
                true,
                true,
            ),
            (
                &[
                    ("lib/systemd/system/rsync.service", STOCK),
                    ("etc/systemd/system/rsync.service", "[Service]\nType=simple\n"),
                ],
                false,
                true,
            ),
        ] {
            let unit = Unit::read(machine(files).path(), "rsync.service").expect("a unit");
            assert_eq!(unit.takes_devices(), takes_devices, "{files:?}");
            assert_eq!(unit.ends_hooks(), ends_hooks, "{files:?}");
        }
        let masked = machine(&[("etc/systemd/system/rsync.service", "")]);
        assert!(Unit::read(masked.path(), "rsync.service").is_none());
    }

    #[test]
    fn rights_and_processes_that_a_unit_takes_are_seen() {
        for (lines, takes_devices, hides) in [
            ("", false, None),
            ("PrivateDevices=yes\nUser=backup", false, None),
            ("CapabilityBoundingSet=CAP_CHOWN \\\n CAP_MKNOD", false, None),
            ("CapabilityBoundingSet=CAP_CHOWN", true, None),
            ("CapabilityBoundingSet=CAP_CHOWN\nCapabilityBoundingSet=", false, None),
            ("CapabilityBoundingSet=~CAP_MKNOD CAP_SYS_ADMIN", true, None),
            ("ProtectProc=invisible", false, None),
            ("ProtectProc=ptraceable", false, Some("ProtectProc=default")),
            ("ProcSubset=pid", false, Some("ProcSubset=all")),
        ] {
            let text = format!("[Service]\nType=simple\n{lines}\n");
            let top = machine(&[("usr/lib/systemd/system/rsyncd@.service", &text)]);
            let unit = Unit::read(top.path(), "rsyncd@7.service").expect("a unit");
            assert_eq!(unit.takes_devices(), takes_devices, "{lines}");
            assert_eq!(unit.hides_processes().map(|(_, remedy)| remedy), hides, "{lines}");
        }
    }

    #[test]
    fn only_a_unit_that_starts_at_boot_counts() {
        let units = [
            ("lib/systemd/system/rsync.service", STOCK),
            ("lib/systemd/system/rsync@.service", STOCK),
        ];
        assert_eq!(Unit::enabled(machine(&units).path()), None);
        let wants = ("etc/systemd/system/sockets.target.wants/rsync.socket", "");
        let top = machine(&[units[0], units[1], wants]);
        assert!(Unit::enabled(top.path()).is_some_and(|unit| unit.is_per_connection()));
        let wants = ("etc/systemd/system/multi-user.target.wants/rsync.service", "");
        let top = machine(&[units[0], units[1], wants]);
        assert!(Unit::enabled(top.path()).is_some_and(|unit| !unit.is_per_connection()));
    }
}
