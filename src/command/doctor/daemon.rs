//! What `check` finds about the rsync daemon that serves the configuration: rights that its systemd
//! unit takes from it, and what it does to hooks that outlive their connection.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::command::doctor::prober::{NO_HOOKS, Prober};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::tell::escape::{escape, escape_path};

/// The kernel's number of the capability.
const CAP_MKNOD: u32 = 27;

/// A running daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DaemonFacts {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    /// The capabilities that it and its connections have.
    pub(crate) capabilities: u64,
    /// The systemd unit that it belongs to, escaped.
    pub(crate) unit: Option<String>,
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
        let level = if modules.ended_with_23 { Severity::Warning } else { Severity::Ok };
        let since = if modules.ended_with_23 {
            "; pushes have ended with status 23, and this may be why"
        } else {
            ""
        };
        found.push(told(
            level,
            format!(
                "the rsync daemon (process {}) may not make device files, so one device file of a \
                 client makes every push end with status 23{since}: if clients have some, write \
                 `[Service]` and `PrivateDevices=no` into \
                 /etc/systemd/system/{unit}.d/rsyncd-snapshot.conf (`systemctl edit {unit}`) and \
                 run `systemctl restart {unit}`; or let the clients push with `--no-devices`",
                daemon.pid
            ),
        ));
    }
    if modules.detach && daemon.unit.is_some() {
        found.push(told(
            Severity::Ok,
            format!(
                "`post-xfer --detach`: a restart of {unit} also ends hooks that have outlived \
                 their connections, and the next push then does their work; \
                 `KillMode=process` in its `[Service]` section lets them end by themselves"
            ),
        ));
    }
    found
}

/// What the daemon's hooks need of `/proc` and cannot see: whether the processes of other pushes
/// still run, and which boot of the machine this is. `mounts`: the mounts of the daemon.
pub(crate) fn proc_finding(daemon: &DaemonFacts, mounts: &str) -> Option<Finding> {
    let is_proc = |line: &&str| line.split(' ').nth(4) == Some("/proc");
    let (_, options) = mounts.lines().rfind(is_proc)?.split_once(" - proc ")?;
    let mut options = options.split([' ', ',']);
    let value = |name: &str| options.clone().find_map(|option| option.strip_prefix(name));
    // The hook gives up most rights, so it may not trace even processes of its own user. But one of
    // the mount's group sees all, and that is root's group unless the mount says otherwise.
    let hidden = value("hidepid=").filter(|hidden| match *hidden {
        "0" | "off" => false,
        "4" | "ptraceable" => true,
        _ => {
            let group = value("gid=").and_then(|group| group.parse().ok()).unwrap_or(0);
            !daemon.groups.contains(&group)
        }
    });
    let (option, setting) = match hidden {
        Some(hidden) => (format!("hidepid={hidden}"), "ProtectProc=default"),
        None if options.any(|option| option == "subset=pid") => {
            ("subset=pid".to_string(), "ProcSubset=all")
        }
        None => return None,
    };
    let unit = daemon.unit.as_deref().unwrap_or("rsync.service");
    let message = format!(
        "the rsync daemon (process {}) sees /proc with `{option}`, so its hooks cannot tell \
         running pushes from dead ones, and every snapshot is partial: write `[Service]` and \
         `{setting}` into /etc/systemd/system/{unit}.d/rsyncd-snapshot.conf (`systemctl edit \
         {unit}`) and run `systemctl restart {unit}`",
        daemon.pid
    );
    Some(Finding::new(FindingId::Daemon, Severity::Critical, message))
}

/// A mount that the daemon sees.
struct DaemonMount<'a> {
    id: &'a str,
    is_read_only: bool,
}

/// The mount that `path` lies on, in a `/proc/PID/mountinfo`.
fn mount_of<'a>(list: &'a str, path: &Path) -> Option<DaemonMount<'a>> {
    let mut best: Option<(usize, DaemonMount)> = None;
    for line in list.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [id, _, _, _, point, options, ..] = fields.as_slice() else { continue };
        // Names with blanks are written otherwise, and then only their parent is compared.
        if !path.starts_with(point) || best.as_ref().is_some_and(|best| best.0 > point.len()) {
            continue;
        }
        let is_read_only = options.split(',').any(|option| option == "ro");
        best = Some((point.len(), DaemonMount { id, is_read_only }));
    }
    best.map(|(_, mount)| mount)
}

/// The findings about what the daemon sees of a module and its root, if its unit gives it other
/// mounts than this process has. `own`: the mounts of this process.
pub(crate) fn mount_findings(
    daemon: &DaemonFacts,
    mounts: &str,
    own: &str,
    module: &Path,
    root: &Path,
) -> Option<Finding> {
    let unit = daemon.unit.as_deref().unwrap_or("rsync.service");
    let sees = (mount_of(mounts, module)?, mount_of(mounts, root)?);
    let see = (mount_of(own, module)?, mount_of(own, root)?);
    let both: PathBuf =
        module.iter().zip(root).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    // A list in a drop-in adds to that of the unit, and each directory in it is a mount of its own.
    let remedy = match both == Path::new("/") {
        true => {
            "move module and snapshots below one directory, which the unit can name".to_string()
        }
        false => format!(
            "write `[Service]`, then `ReadWritePaths=` alone, which takes back what the unit \
             names, then `ReadWritePaths={}`, which holds both, into \
             /etc/systemd/system/{unit}.d/rsyncd-snapshot.conf (`systemctl edit {unit}`), and run \
             `systemctl restart {unit}`",
            escape_path(&both)
        ),
    };
    let critical = |message| Some(Finding::new(FindingId::Daemon, Severity::Critical, message));
    let is_taken =
        |theirs: &DaemonMount, ours: &DaemonMount| theirs.is_read_only && !ours.is_read_only;
    let taken = [(module, is_taken(&sees.0, &see.0)), (root, is_taken(&sees.1, &see.1))];
    let taken: Vec<String> =
        taken.iter().filter(|(_, is_taken)| *is_taken).map(|(path, _)| escape_path(path)).collect();
    if !taken.is_empty() {
        return critical(format!(
            "the rsync daemon (process {}) sees {} read only, since its unit protects it; {remedy}",
            daemon.pid,
            taken.join(" and ")
        ));
    }
    if sees.0.id != sees.1.id && see.0.id == see.1.id {
        return critical(format!(
            "the rsync daemon (process {}) sees the module's directory {} and its snapshot root {} \
             as two mounts, and links cannot cross mounts: its unit names both of them; {remedy}",
            daemon.pid,
            escape_path(module),
            escape_path(root)
        ));
    }
    None
}

/// Whether systemd starts a daemon for each connection.
pub(crate) fn is_started_per_connection() -> bool {
    ["rsync", "rsyncd"].iter().any(|name| {
        let wants = format!("/etc/systemd/system/sockets.target.wants/{name}.socket");
        fs::symlink_metadata(wants).is_ok()
    })
}

/// The finding about hooks that outlive their connection where that ends the whole unit.
pub(crate) fn per_connection_finding() -> Finding {
    let message = "`post-xfer --detach`: systemd starts a daemon for each connection and ends what \
                   is left of it when that has ended, the hook included; leave `--detach` out, or \
                   write `KillMode=process` into the `[Service]` section of that unit";
    Finding::new(FindingId::Daemon, Severity::Warning, message)
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

    #[test]
    fn mounts_that_only_the_daemon_has_are_named() {
        let own = "20 1 8:1 / / rw - ext4 /dev/a rw\n30 20 8:2 / /srv rw - ext4 /dev/b rw\n";
        let protected = "90 1 8:1 / / ro - ext4 /dev/a rw\n91 90 8:2 / /srv ro - ext4 /dev/b rw\n";
        let one = format!("{protected}92 91 8:2 /b /srv/b rw - ext4 /dev/b rw\n");
        let two = format!(
            "{protected}92 91 8:2 /b /srv/b rw - ext4 /dev/b rw\n\
             93 92 8:2 /b/l /srv/b/latest rw - ext4 /dev/b rw\n"
        );
        let (module, root) = (Path::new("/srv/b/latest"), Path::new("/srv/b"));
        for (mounts, expected) in [
            (own, None),
            (protected, Some("read only")),
            (one.as_str(), None),
            (two.as_str(), Some("two mounts")),
        ] {
            let found = mount_findings(&daemon(0, ALL), mounts, own, module, root);
            assert_eq!(found.is_some(), expected.is_some(), "{mounts}");
            let message = found.map(|finding| finding.message).unwrap_or_default();
            assert!(message.contains(expected.unwrap_or_default()), "{message}");
        }
        // Each directory that a unit names is a mount of its own, so it may name only one.
        let snaps = Path::new("/srv/b/snaps");
        let apart = format!(
            "{protected}92 91 8:2 /b/l /srv/b/latest rw - ext4 /dev/b rw\n\
             93 91 8:2 /b/s /srv/b/snaps rw - ext4 /dev/b rw\n"
        );
        let half = format!("{protected}92 91 8:2 /b/s /srv/b/snaps rw - ext4 /dev/b rw\n");
        for (mounts, words) in [(&apart, "two mounts"), (&half, "sees /srv/b/latest read only")] {
            let found = mount_findings(&daemon(0, ALL), mounts, own, module, snaps);
            let message = found.map(|finding| finding.message).unwrap_or_default();
            let remedy = "`ReadWritePaths=` alone, which takes back what the unit names, then \
                          `ReadWritePaths=/srv/b`,";
            assert!(message.contains(words) && message.contains(remedy), "{message}");
        }
        // What this process sees read only as well is told otherwise.
        assert!(mount_findings(&daemon(0, ALL), protected, protected, module, root).is_none());
    }

    #[test]
    fn what_the_hooks_cannot_see_of_proc_is_named() {
        let proc = |options: &str| {
            format!(
                "20 1 8:1 / / rw - ext4 /dev/a rw\n21 20 0:9 / /proc rw - proc proc {options}\n"
            )
        };
        for (mounts, expected) in [
            (proc("rw"), None),
            (proc("rw,hidepid=invisible"), None),
            (proc("rw,hidepid=2,gid=0"), None),
            (proc("rw,hidepid=off,gid=5"), None),
            (proc("rw,hidepid=2,gid=5"), Some("hidepid=2")),
            (proc("rw,gid=5,hidepid=invisible"), Some("ProtectProc=default")),
            (proc("rw,hidepid=ptraceable"), Some("ProtectProc=default")),
            (proc("rw,hidepid=4"), Some("ProtectProc=default")),
            (proc("rw,subset=pid"), Some("ProcSubset=all")),
            (proc("rw,subset=pid") + &proc("rw"), None),
            ("20 1 8:1 / / rw - ext4 /dev/a rw\n".to_string(), None),
        ] {
            let found = proc_finding(&daemon(0, ALL), &mounts).map(|finding| finding.message);
            assert_eq!(found.is_some(), expected.is_some(), "{mounts}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
    }
}
