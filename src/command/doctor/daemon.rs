//! What `check` finds about the rsync daemon that serves the configuration: rights that its systemd
//! unit takes from it, and what it does to hooks that outlive their connection.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::command::doctor::prober::{NO_HOOKS, Prober};
use crate::command::doctor::units::Unit;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::tell::escape::escape;

/// The kernel's number of the capability.
const CAP_MKNOD: u32 = 27;

/// The setting of a unit that lets its service make device files.
const MAY_MAKE_DEVICES: &str = "PrivateDevices=no";

/// A running daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DaemonFacts {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    /// The capabilities that it and its connections have.
    pub(crate) capabilities: u64,
    /// The systemd unit that it belongs to, escaped.
    pub(crate) unit: Option<String>,
    /// Whether none of its programs gets other rights than it has, as sudo would.
    pub(crate) no_new_privileges: bool,
    /// Whether rsyncd was told to run no hooks.
    pub(crate) runs_no_hooks: bool,
    /// The groups that it has.
    pub(crate) groups: Vec<u32>,
    /// The settings on its command line that go before those of rsyncd.conf, escaped.
    pub(crate) overrides: Vec<String>,
}

impl DaemonFacts {
    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }

    fn may(&self, capability: u32) -> bool {
        self.capabilities & (1 << capability) != 0
    }
}

/// The listening daemon that serves this configuration; none if there is none, or several.
/// `prober`: sees what the kernel hides from this process.
pub(crate) fn find(
    conf: &Path,
    is_default: bool,
    mut prober: Option<&mut Prober>,
) -> Option<DaemonFacts> {
    let conf = fs::canonicalize(conf).ok()?;
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<(u32, String)> = Vec::new();
    for pid in pids {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name != b"rsync\n" {
            continue;
        }
        let arguments = DaemonArguments::of(&command_line(pid));
        let directory = || prober.as_mut()?.working_directory(pid);
        if arguments.is_some_and(|it| it.names(&conf, is_default, directory)) {
            // One in a container has a configuration of its own under that name.
            let status = status_of(pid).filter(|status| words(status, "NSpid").count() < 2);
            found.extend(status.map(|status| (pid, status)));
        }
    }
    // A connection is a child of the daemon with the same command line.
    let is_child = |(_, status): &&(u32, String)| {
        let parent = field(status, "PPid").and_then(|parent| parent.parse().ok());
        found.iter().any(|(pid, _)| Some(*pid) == parent)
    };
    let mut listening = found.iter().filter(|process| !is_child(process));
    let (pid, status) = listening.next()?;
    if listening.next().is_some() {
        return None;
    }
    let cgroup = fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    Some(DaemonFacts {
        pid: *pid,
        uid: field(status, "Uid")?.parse().ok()?,
        groups: ["Gid", "Groups"].iter().flat_map(|name| numbers(status, name)).collect(),
        capabilities: u64::from_str_radix(field(status, "CapEff")?, 16).ok()?,
        unit: unit_of(&cgroup),
        no_new_privileges: field(status, "NoNewPrivs") == Some("1"),
        runs_no_hooks: prober.and_then(|prober| prober.runs_no_hooks(*pid)) == Some(true),
        overrides: DaemonArguments::of(&command_line(*pid)).map_or(Vec::new(), |it| it.overrides),
    })
}

fn status_of(pid: u32) -> Option<String> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    Some(String::from_utf8_lossy(&status).into_owned())
}

/// The words of a line of `/proc/PID/status`.
fn words<'a>(status: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.into_iter().flat_map(str::split_whitespace)
}

/// The first word of such a line.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    words(status, name).next()
}

fn numbers(status: &str, name: &str) -> Vec<u32> {
    words(status, name).filter_map(|word| word.parse().ok()).collect()
}

fn command_line(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// What the command line of a daemon says.
#[derive(Debug, Default, PartialEq, Eq)]
struct DaemonArguments {
    config: Option<PathBuf>,
    /// Escaped.
    overrides: Vec<String>,
}

impl DaemonArguments {
    /// Reads a command line, its words ended by zero bytes; none if it is not that of a daemon.
    fn of(line: &[u8]) -> Option<Self> {
        let mut found = DaemonArguments::default();
        let mut is_daemon = false;
        let mut words = line.split(|byte| *byte == 0).skip(1);
        while let Some(word) = words.next() {
            is_daemon |= word == b"--daemon";
            let mut value = |option: &[u8], separator: &[u8]| match word.strip_prefix(option)? {
                b"" => words.next(),
                rest => rest.strip_prefix(separator),
            };
            if let Some(config) = value(b"--config", b"=") {
                found.config = Some(PathBuf::from(OsStr::from_bytes(config)));
            } else if let Some(setting) = value(b"--dparam", b"=").or_else(|| value(b"-M", b"")) {
                found.overrides.push(escape(setting));
            }
        }
        is_daemon.then_some(found)
    }

    /// Whether that is this configuration. `is_default`: it is the one that rsync uses unless it is
    /// told. `directory`: where the daemon works, from which a relative name counts.
    fn names(
        &self,
        conf: &Path,
        is_default: bool,
        directory: impl FnOnce() -> Option<PathBuf>,
    ) -> bool {
        let named = match &self.config {
            None => return is_default,
            Some(named) if named.is_relative() => {
                directory().map(|directory| directory.join(named))
            }
            Some(named) => Some(named.clone()),
        };
        named.and_then(|named| fs::canonicalize(named).ok()).is_some_and(|named| named == conf)
    }
}

/// The innermost service in a process's list of control groups.
fn unit_of(cgroup: &[u8]) -> Option<String> {
    let text = escape(cgroup).replace("\\x0a", "\n");
    let groups = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let services = groups.flat_map(|group| group.rsplit('/').map(str::to_string));
    let mut services = services.filter(|name| name.ends_with(".service"));
    services.find(|name| name.contains("rsync"))
}

/// What is known besides the daemon itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ServedModules {
    /// Whether the hook of some module hands its work over.
    pub(crate) detach: bool,
    /// Whether the last pushes to some module have ended with status 23.
    pub(crate) ended_with_23: bool,
}

/// The findings about the daemon.
pub(crate) fn findings(daemon: &DaemonFacts, modules: ServedModules) -> Vec<Finding> {
    let unit = daemon.unit.as_deref().unwrap_or("rsync.service");
    let told = |level, message| Finding::new(FindingId::Daemon, level, message);
    let mut found = Vec::new();
    if daemon.runs_no_hooks {
        found.push(told(
            Severity::Critical,
            format!(
                "the rsync daemon (process {}) runs no hooks, since {NO_HOOKS} is in its \
                 environment; take that out and restart it",
                daemon.pid
            ),
        ));
    }
    if !daemon.overrides.is_empty() {
        found.push(told(
            Severity::Ok,
            format!(
                "the rsync daemon (process {}) has `{}` on its command line, which goes before \
                 rsyncd.conf and is not considered here",
                daemon.pid,
                daemon.overrides.join("`, `")
            ),
        ));
    }
    if daemon.is_root() && !daemon.may(CAP_MKNOD) {
        let subject = format!("the rsync daemon (process {})", daemon.pid);
        // Process 1 has no unit: it is the main program of a container.
        let remedy = match daemon.pid {
            1 => "start its container with this right, by `--cap-add MKNOD` of podman or docker"
                .to_string(),
            _ => how_to_set(MAY_MAKE_DEVICES, unit),
        };
        found.push(without_devices(&subject, &remedy, modules));
    }
    // Whether its unit lets hooks end is not known if its files cannot be found.
    let ends_hooks = || Unit::read(Path::new("/"), unit).is_none_or(|unit| unit.ends_hooks());
    if modules.detach && daemon.unit.is_some() && ends_hooks() {
        found.push(told(Severity::Ok, restart_ends_hooks(unit)));
    }
    found
}

/// The finding about a daemon without the right to make device files.
fn without_devices(subject: &str, remedy: &str, modules: ServedModules) -> Finding {
    let (level, since) = match modules.ended_with_23 {
        true => (Severity::Warning, "; pushes have ended with status 23, and this may be why"),
        false => (Severity::Ok, ""),
    };
    let message = format!(
        "{subject} may not make device files, so one device file of a client makes every push end \
         with status 23{since}: if clients have some, {remedy}; or let the clients push with \
         `--no-devices`"
    );
    Finding::new(FindingId::Daemon, level, message)
}

fn restart_ends_hooks(unit: &str) -> String {
    format!(
        "`post-xfer --detach`: a restart of {unit} also ends hooks that have outlived their \
         connections, and the next push then does their work; `KillMode=process` in its \
         `[Service]` section lets them end by themselves"
    )
}

/// How a setting gets into a unit. A template is that of daemons which have one connection each.
pub(crate) fn how_to_set(setting: &str, unit: &str) -> String {
    let (name, then) = match unit.split_once('@') {
        Some((before, _)) => (format!("{before}@.service"), "daemon-reload".to_string()),
        None => (unit.to_string(), format!("restart {unit}")),
    };
    format!(
        "write `[Service]` and `{setting}` into \
         /etc/systemd/system/{name}.d/rsyncd-snapshot.conf (`systemctl edit {name}`) and run \
         `systemctl {then}`"
    )
}

/// The findings about the daemon that this unit starts, and that does not run now.
pub(crate) fn unit_findings(unit: &Unit, modules: ServedModules) -> Vec<Finding> {
    let told = |level, message| Finding::new(FindingId::Daemon, level, message);
    let name = unit.name.as_str();
    let mut found = Vec::new();
    if unit.takes_devices() {
        let remedy = how_to_set(MAY_MAKE_DEVICES, name);
        found.push(without_devices(&format!("the rsync daemon of {name}"), &remedy, modules));
    }
    if let Some((setting, remedy)) = unit.hides_processes() {
        found.push(told(
            Severity::Critical,
            format!(
                "{name} has `{setting}`, so the hooks of its daemon cannot tell running pushes \
                 from dead ones, and every snapshot is partial: {}",
                how_to_set(remedy, name)
            ),
        ));
    }
    match modules.detach && unit.ends_hooks() {
        true if unit.is_per_connection() => found.push(told(
            Severity::Warning,
            format!(
                "`post-xfer --detach`: systemd starts a daemon for each connection and ends what \
                 is left of it when that has ended, the hook included; leave `--detach` out, or \
                 {}",
                how_to_set("KillMode=process", name)
            ),
        )),
        true => found.push(told(Severity::Ok, restart_ends_hooks(name))),
        false => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = u64::MAX;

    fn daemon(uid: u32, capabilities: u64) -> DaemonFacts {
        DaemonFacts {
            pid: 1,
            uid,
            capabilities,
            unit: None,
            no_new_privileges: false,
            runs_no_hooks: false,
            groups: vec![0],
            overrides: Vec::new(),
        }
    }

    #[test]
    fn a_daemon_without_a_right_is_told_as_seriously_as_it_matters() {
        let none = ServedModules::default();
        let failing = ServedModules { ended_with_23: true, ..none };
        let detach = ServedModules { detach: true, ..none };
        let without_mknod = ALL & !(1 << CAP_MKNOD);
        let in_unit = DaemonFacts { unit: Some("rsync.service".into()), ..daemon(0, ALL) };
        let overridden = DaemonFacts { overrides: vec!["read only=no".into()], ..daemon(0, ALL) };
        let without_hooks = DaemonFacts { runs_no_hooks: true, ..daemon(0, ALL) };
        for (daemon, modules, expected) in [
            (daemon(0, ALL), failing, &[][..]),
            (daemon(0, without_mknod), none, &[Severity::Ok]),
            (daemon(0, without_mknod), failing, &[Severity::Warning]),
            (daemon(1000, without_mknod), failing, &[]),
            (daemon(0, ALL), detach, &[]),
            (in_unit, detach, &[Severity::Ok]),
            (without_hooks, none, &[Severity::Critical]),
            (overridden, none, &[Severity::Ok]),
        ] {
            let found = findings(&daemon, modules);
            let levels: Vec<Severity> = found.iter().map(|finding| finding.level).collect();
            assert_eq!(levels, expected, "{daemon:?} {modules:?}");
        }
    }

    #[test]
    fn a_daemon_is_known_by_its_configuration() {
        let conf = tempfile::NamedTempFile::new().expect("a file");
        let path = fs::canonicalize(conf.path()).expect("its path");
        let named = format!("rsync\0--daemon\0--config={}\0", path.display());
        let apart = format!("rsync\0--daemon\0--config\0{}\0", path.display());
        let file = path.file_name().expect("a name").to_str().expect("text");
        let relative = format!("rsync\0--daemon\0--config={file}\0");
        for (line, is_default, expected) in [
            (named.as_str(), false, true),
            (&apart, false, true),
            (&relative, false, true),
            ("rsync\0--daemon\0--no-detach\0", true, true),
            ("rsync\0--daemon\0--no-detach\0", false, false),
            ("rsync\0--daemon\0--config=/etc/other.conf\0", true, false),
            ("rsync\0--daemon\0--config=other.conf\0", true, false),
            ("rsync\0--server\0", true, false),
        ] {
            let arguments = DaemonArguments::of(line.as_bytes());
            let directory = || path.parent().map(Path::to_path_buf);
            let found = arguments.is_some_and(|it| it.names(&path, is_default, directory));
            assert_eq!(found, expected, "{line}");
            let unseen = DaemonArguments::of(relative.as_bytes()).expect("a daemon");
            assert!(!unseen.names(&path, is_default, || None));
        }
        for line in ["-M\0read only=no\0", "-Mread only=no\0", "--dparam=read only=no\0"] {
            let found = DaemonArguments::of(format!("rsync\0--daemon\0{line}").as_bytes());
            assert_eq!(found.expect("a daemon").overrides, ["read only=no"]);
        }
        let groups = b"1:name=systemd:/x\n0::/system.slice/rsync.service\n";
        assert_eq!(unit_of(groups).as_deref(), Some("rsync.service"));
        assert_eq!(unit_of(b"0::/user.slice/session-1.scope\n"), None);
    }
}
