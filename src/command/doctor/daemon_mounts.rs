//! What `check` finds about the files that the rsync daemon sees: its unit may give it other mounts
//! than this process has.

use std::path::{Path, PathBuf};

use crate::command::doctor::daemon::{DaemonFacts, how_to_set};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::store::memory::MachineMemory;
use crate::tell::PROGRAM;
use crate::tell::escape::escape_path;

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
         running pushes from dead ones, and every snapshot is partial: {}",
        daemon.pid,
        how_to_set(setting, unit)
    );
    Some(Finding::new(FindingId::Daemon, Severity::Critical, message))
}

/// The mount on which a process sees a path.
struct SeenMount<'a> {
    id: &'a str,
    /// Where it is mounted.
    point: &'a str,
    is_read_only: bool,
    /// The number of its file system, and the path in that.
    place: (&'a str, PathBuf),
}

/// The mount that `path` lies on, in a `/proc/PID/mountinfo`.
fn mount_of<'a>(list: &'a str, path: &Path) -> Option<SeenMount<'a>> {
    let mut best: Option<SeenMount> = None;
    for line in list.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [id, _, device, inner, point, options, ..] = fields.as_slice() else { continue };
        // Names with blanks are written otherwise, and then only their parent is compared.
        let Ok(rest) = path.strip_prefix(point) else { continue };
        if best.as_ref().is_some_and(|best| best.point.len() > point.len()) {
            continue;
        }
        let is_read_only = options.split(',').any(|option| option == "ro");
        let place = (*device, Path::new(inner).join(rest));
        best = Some(SeenMount { id, point, is_read_only, place });
    }
    best
}

/// What lets the daemon see a directory that it sees otherwise than this process does.
fn how_to_show(theirs: &SeenMount, ours: &SeenMount, unit: &str) -> String {
    let point = theirs.point;
    let setting = match point {
        "/home" | "/root" | "/run/user" => "ProtectHome=no",
        "/tmp" | "/var/tmp" => "PrivateTmp=no",
        _ if point.len() < ours.point.len() => {
            return format!(
                "{} was mounted after it had been started; run `systemctl restart {unit}`",
                ours.point
            );
        }
        _ => {
            return format!(
                "its unit mounts or hides {point}; take that out of it (`systemctl cat {unit}` \
                 shows it), and run `systemctl restart {unit}`"
            );
        }
    };
    format!("its unit hides {point}; {}", how_to_set(setting, unit))
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
    for (path, theirs, ours) in [(module, &sees.0, &see.0), (root, &sees.1, &see.1)] {
        if theirs.place != ours.place {
            return critical(format!(
                "the rsync daemon (process {}) sees something else in the place of {}, so pushes \
                 go elsewhere or fail: {}",
                daemon.pid,
                escape_path(path),
                how_to_show(theirs, ours, unit)
            ));
        }
    }
    let is_taken = |theirs: &SeenMount, ours: &SeenMount| theirs.is_read_only && !ours.is_read_only;
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

/// The finding about a daemon whose unit lets its hooks write to none of the directories of this
/// machine's memory.
pub(crate) fn memory_finding(
    daemon: &DaemonFacts,
    mounts: &str,
    own: &str,
    memory: &MachineMemory,
) -> Option<Finding> {
    let is_taken = |directory: &PathBuf| {
        let see = (mount_of(mounts, directory), mount_of(own, directory));
        matches!(see, (Some(theirs), Some(ours)) if theirs.is_read_only && !ours.is_read_only)
    };
    let first = memory.directories.first()?;
    if !memory.directories.iter().all(is_taken) {
        return None;
    }
    let setting = match first == &Path::new("/var/lib").join(PROGRAM) {
        true => format!("StateDirectory={PROGRAM}"),
        false => format!("ReadWritePaths={}", escape_path(first)),
    };
    let message = format!(
        "the rsync daemon (process {}) sees {} read only, since its unit protects it, so its hooks \
         cannot remember what goes wrong when the backup disk fails: {}",
        daemon.pid,
        escape_path(first),
        how_to_set(&setting, daemon.unit.as_deref().unwrap_or("rsync.service"))
    );
    Some(Finding::new(FindingId::Daemon, Severity::Warning, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon() -> DaemonFacts {
        DaemonFacts {
            no_new_privileges: false,
            pid: 1,
            uid: 0,
            capabilities: u64::MAX,
            unit: None,
            runs_no_hooks: false,
            groups: vec![0],
            overrides: Vec::new(),
        }
    }

    #[test]
    fn mounts_that_only_the_daemon_has_are_named() {
        let own = "20 1 8:1 / / rw - ext4 /dev/a rw\n30 20 8:2 / /srv rw - ext4 /dev/b rw\n";
        let protected = "90 1 8:1 / / ro - ext4 /dev/a rw\n91 90 8:2 / /srv ro - ext4 /dev/b rw\n";
        let one = format!("{protected}92 91 8:2 /b /srv/b rw - ext4 /dev/b rw\n");
        let two = format!(
            "{protected}92 91 8:2 /b /srv/b rw - ext4 /dev/b rw\n\
             93 92 8:2 /b/latest /srv/b/latest rw - ext4 /dev/b rw\n"
        );
        let (module, root) = (Path::new("/srv/b/latest"), Path::new("/srv/b"));
        for (mounts, expected) in [
            (own, None),
            (protected, Some("read only")),
            (one.as_str(), None),
            (two.as_str(), Some("two mounts")),
        ] {
            let found = mount_findings(&daemon(), mounts, own, module, root);
            assert_eq!(found.is_some(), expected.is_some(), "{mounts}");
            let message = found.map(|finding| finding.message).unwrap_or_default();
            assert!(message.contains(expected.unwrap_or_default()), "{message}");
        }
        // Each directory that a unit names is a mount of its own, so it may name only one.
        let snaps = Path::new("/srv/b/snaps");
        let apart = format!(
            "{protected}92 91 8:2 /b/latest /srv/b/latest rw - ext4 /dev/b rw\n\
             93 91 8:2 /b/snaps /srv/b/snaps rw - ext4 /dev/b rw\n"
        );
        let half = format!("{protected}92 91 8:2 /b/snaps /srv/b/snaps rw - ext4 /dev/b rw\n");
        for (mounts, words) in [(&apart, "two mounts"), (&half, "sees /srv/b/latest read only")] {
            let found = mount_findings(&daemon(), mounts, own, module, snaps);
            let message = found.map(|finding| finding.message).unwrap_or_default();
            let remedy = "`ReadWritePaths=` alone, which takes back what the unit names, then \
                          `ReadWritePaths=/srv/b`,";
            assert!(message.contains(words) && message.contains(remedy), "{message}");
        }
        // What this process sees read only as well is told otherwise.
        assert!(mount_findings(&daemon(), protected, protected, module, root).is_none());
    }

    #[test]
    fn another_directory_in_the_place_of_the_modules_is_named() {
        let own = "20 1 8:1 / / rw - ext4 /dev/a rw\n30 20 8:2 / /srv rw - ext4 /dev/b rw\n";
        let hidden = "40 20 0:9 /systemd/inaccessible/dir /home ro - tmpfs tmpfs rw\n";
        let private = "40 20 8:1 /tmp/systemd-private-1/tmp /tmp rw - ext4 /dev/a rw\n";
        let bound = "40 30 8:2 /b /srv/b rw - ext4 /dev/b rw\n";
        let elsewhere = "40 30 8:1 /c /srv/b rw - ext4 /dev/a rw\n";
        let without_disk = "20 1 8:1 / / rw - ext4 /dev/a rw\n";
        for (mounts, root, words) in [
            (format!("{own}{hidden}"), "/home/b", Some("`ProtectHome=no`")),
            (format!("{own}{private}"), "/tmp/b", Some("`PrivateTmp=no`")),
            (format!("{own}{private}"), "/srv/b", None),
            (format!("{own}{bound}"), "/srv/b", None),
            (without_disk.to_string(), "/srv/b", Some("/srv was mounted after")),
            (format!("{own}{elsewhere}"), "/srv/b", Some("its unit mounts or hides /srv/b;")),
        ] {
            let root = Path::new(root);
            let found = mount_findings(&daemon(), &mounts, own, &root.join("latest"), root);
            assert_eq!(found.is_some(), words.is_some(), "{mounts}: {found:?}");
            let message = found.map(|finding| finding.message).unwrap_or_default();
            assert!(message.contains(words.unwrap_or_default()), "{message}");
        }
    }

    #[test]
    fn a_memory_that_the_hooks_cannot_write_is_named() {
        let own = "20 1 8:1 / / rw - ext4 /dev/a rw\n";
        let strict = "90 1 8:1 / / ro - ext4 /dev/a rw\n";
        let with_run = format!("{strict}91 90 0:5 / /run rw - tmpfs tmpfs rw\n");
        let directories =
            |names: &[&str]| MachineMemory::new(names.iter().map(PathBuf::from).collect());
        let usual = directories(&["/var/lib/rsyncd-snapshot", "/run/rsyncd-snapshot"]);
        let other = directories(&["/srv/memory"]);
        for (mounts, memory, words) in [
            (strict, &usual, Some("`StateDirectory=rsyncd-snapshot`")),
            (strict, &other, Some("`ReadWritePaths=/srv/memory`")),
            (with_run.as_str(), &usual, None),
            (own, &usual, None),
            (strict, &directories(&[]), None),
        ] {
            let found = memory_finding(&daemon(), mounts, own, memory);
            assert_eq!(found.is_some(), words.is_some(), "{mounts} {memory:?}");
            let message = found.map(|finding| finding.message).unwrap_or_default();
            assert!(message.contains(words.unwrap_or_default()), "{message}");
        }
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
            let found = proc_finding(&daemon(), &mounts).map(|finding| finding.message);
            assert_eq!(found.is_some(), expected.is_some(), "{mounts}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
    }
}
