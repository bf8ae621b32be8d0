//! What `check` finds about the directory of a module: whether it is there, whether rsyncd can
//! enter it, and whether the module's user can write into it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::command::doctor::accounts::{Account, NoAccount};
use crate::command::doctor::prober::WriteTrial;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::tell::escape::{escape, escape_path, shell_path, shell_word};

/// The commands that make the missing directory of a module; none if something else is in its
/// place, such as a symbolic link that leads nowhere. `is_root`: the daemon is root. Another one
/// needs the parent, too, for its snapshots.
pub(crate) fn how_to_make(path: &Path, account: Option<&Account>, is_root: bool) -> Option<String> {
    let parent = path.parent()?;
    if path.is_symlink() || parent.is_symlink() && !parent.exists() {
        return None;
    }
    let owner = account.filter(|account| account.uid != 0 || account.gids.first() != Some(&0));
    let owner = owner.map(|account| {
        let group = account.gids.first().copied().unwrap_or_default();
        let user =
            if account.user.is_empty() { account.uid.to_string() } else { account.user.clone() };
        let group = match account.group.as_str() {
            "*" => group.to_string(),
            name => name.to_string(),
        };
        format!("-o {} -g {} ", shell_word(user.as_bytes()), shell_word(group.as_bytes()))
    });
    let (own, above) = (shell_path(path), shell_path(parent));
    Some(match (parent.is_dir(), owner) {
        (true, owner) => format!("`install -d -m 0700 {}{own}`", owner.unwrap_or_default()),
        (false, None) => format!("`install -d -m 0700 {above} {own}`"),
        (false, Some(owner)) if !is_root => format!("`install -d -m 0700 {owner}{above} {own}`"),
        (false, Some(owner)) => {
            format!("`install -d -m 0700 {above}` and then `install -d -m 0700 {owner}{own}`")
        }
    })
}

/// The text about a missing directory. `only_shows`: the module is for reading only. `root`: where
/// its history was. `make`: the commands that make the directory.
pub(crate) fn missing(
    error: &str,
    only_shows: bool,
    root: Option<&Path>,
    make: Option<String>,
) -> String {
    if only_shows {
        return format!(
            "{error}; the module only offers files for reading: mount their disk, correct `path` \
             if they have moved, or take the module out if they are gone"
        );
    }
    match (root, make) {
        (Some(root), _) => format!(
            "{error}; it has had snapshots in {}: mount its disk, or correct `path` if it has \
             moved, or take the module out if it is given up",
            escape_path(root)
        ),
        (None, None) => format!("{error}; mount its disk, or correct `path`"),
        (None, Some(make)) => {
            format!("{error}; if its disk is mounted and the module is new, make it: {make}")
        }
    }
}

/// The finding about a path in quotes, which rsync takes for part of it.
pub(crate) fn quoted_path(module: &RsyncdModule) -> Option<Finding> {
    let value = module.get("path")?;
    let inner = match value {
        [first @ (b'"' | b'\''), inner @ .., last] if first == last => inner,
        _ => return None,
    };
    let message = format!(
        "{}: rsync takes the quotes for part of the path, and so finds no directory and turns \
         every connection away; write `path = {}`",
        module.place_of("path"),
        escape(inner)
    );
    Some(Finding::new(FindingId::ModuleDirectory, Severity::Critical, message))
}

/// The finding about a path that only a shell would expand.
pub(crate) fn unexpanded_path(module: &RsyncdModule) -> Option<Finding> {
    let value = module.get("path")?;
    let is_for_a_shell = value.starts_with(b"~") || value.starts_with(b"$");
    if !is_for_a_shell || Path::new("/").join(OsStr::from_bytes(value)).exists() {
        return None;
    }
    let message = format!(
        "{}: rsync does not expand the path {} as a shell does, so it finds no directory and turns \
         every connection away; write the whole path",
        module.place_of("path"),
        escape(value)
    );
    Some(Finding::new(FindingId::ModuleDirectory, Severity::Critical, message))
}

/// The remedy for a path with a comment behind it, which rsync takes for part of the path.
pub(crate) fn commented_path(module: &RsyncdModule) -> Option<String> {
    let value = module.get("path")?;
    let starts = |pair: &[u8]| pair[0].is_ascii_whitespace() && b"#;".contains(&pair[1]);
    let at = value.windows(2).position(starts)?;
    Some(format!(
        "rsync takes `{}` for part of the path; write `path = {}` ({}), and a comment on a line of \
         its own",
        escape(value[at..].trim_ascii()),
        escape(value[..at].trim_ascii()),
        module.place_of("path")
    ))
}

/// What is known of the rights of a module's user on its directory.
#[derive(Debug)]
pub(crate) struct RightFacts<'a> {
    /// File and line of `uid`, or of the module.
    pub(crate) place: String,
    pub(crate) has_uid: bool,
    pub(crate) directory: &'a Path,
    /// The directory's owner, group and mode.
    pub(crate) owner: (u32, u32, u32),
    pub(crate) account: Result<&'a Account, &'a NoAccount>,
    pub(crate) trial: WriteTrial,
    /// Whether the module has snapshots.
    pub(crate) has_history: bool,
}

/// The finding about the rights of the module's user.
pub(crate) fn right_finding(facts: &RightFacts) -> Option<Finding> {
    let critical = |message| Finding::new(FindingId::ModuleAccess, Severity::Critical, message);
    let (place, directory) = (&facts.place, escape_path(facts.directory));
    let account = match facts.account {
        Ok(account) => account,
        Err(NoAccount::Invalid(parameter, name)) => {
            let remedy = match name.as_str() {
                "*" => "write `*` before the other groups",
                _ => "correct it",
            };
            return Some(critical(format!(
                "{place}: `{parameter} = {name}` is unknown to this system, so rsync turns every \
                 connection away; {remedy}"
            )));
        }
        Err(NoAccount::Unclear(why)) => {
            return Some(Finding::cannot_tell(FindingId::ModuleAccess, format!("{place}: {why}")));
        }
    };
    let own = shell_path(facts.directory);
    let is_owner = account.uid == facts.owner.0;
    let errno = match facts.trial {
        WriteTrial::Can if account.uid == 0 || is_owner => return None,
        // A client may have made its top directory read only, and rsync sets a mode with which its
        // owner can write for as long as a push lasts.
        WriteTrial::Cannot(libc::EACCES) if is_owner && facts.owner.2 & 0o100 != 0 => return None,
        WriteTrial::Can => {
            let message = format!(
                "{place}: user {} can write into {directory}, but does not own it and so cannot \
                 set its time and mode: a push with `-a` of the whole module ends with status 23; \
                 run `chown {} {own}`",
                account.user, account.uid
            );
            // Once pushes have come, how they ended says more.
            let level = if facts.has_history { Severity::Ok } else { Severity::Warning };
            return Some(Finding::new(FindingId::ModuleAccess, level, message));
        }
        WriteTrial::Cannot(errno) => Errno::from_raw(errno),
        WriteTrial::Unknown => {
            let why = format!(
                "{place}: whether user {} can write into {directory}, which only root can try",
                account.user
            );
            return Some(Finding::cannot_tell(FindingId::ModuleAccess, why));
        }
    };
    Some(critical(match errno {
        Errno::EROFS => format!(
            "{directory} is on a file system that is mounted read only, so every push fails; mount \
             it writable (`mount -o remount,rw` if its disk is in order)"
        ),
        Errno::EPERM => format!(
            "{directory} is immutable, so every push fails; run `chattr -i {own}` if that is not \
             meant"
        ),
        _ if is_owner => format!(
            "{place}: pushes are written as user {}, who owns {directory} and may not enter it \
             (mode {:04o}), so every push fails; run `chmod u+rwx {own}`",
            account.user,
            facts.owner.2 & 0o7777
        ),
        _ => {
            let (uid, gid, mode) = facts.owner;
            let runs_as = if facts.has_uid {
                format!("pushes are written as user {} (uid {})", account.user, account.uid)
            } else {
                format!(
                    "no `uid` is set, so pushes are written as user {} (uid {})",
                    account.user, account.uid
                )
            };
            format!(
                "{place}: {runs_as}, who cannot write into {directory} (mode {:04o}, owner \
                 {uid}:{gid}); set `uid = root` and `gid = root` to keep owners, or run \
                 `chown {}:{} {own}`",
                mode & 0o7777,
                account.uid,
                account.gids.first().copied().unwrap_or_default()
            )
        }
    }))
}

/// The finding about a path with `/./`, of which rsyncd looks up the second half inside the first.
pub(crate) fn chroot_finding(module: &RsyncdModule) -> Option<Finding> {
    if module.boolean("use chroot", true) == Some(false) {
        return None;
    }
    let path = module.get("path")?;
    let at = path.windows(3).position(|part| part == b"/./")?;
    let outer = PathBuf::from(OsStr::from_bytes(&path[..at]));
    let inner = OsStr::from_bytes(path[at + 2..].trim_ascii_start());
    if at == 0 {
        let message = format!(
            "{}: the path begins with `/./`, so rsync turns every connection away unless the \
             daemon was started in the directory /; write `path = {}`",
            module.place_of("path"),
            escape(&path[at + 2..])
        );
        return Some(Finding::new(FindingId::ModuleChroot, Severity::Warning, message));
    }
    if path.contains(&b'%') || !outer.is_absolute() {
        return None;
    }
    let opened = File::open(&outer).ok()?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let errno = openat2(opened.as_fd(), inner, how).err()?;
    if !matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) {
        return None;
    }
    let message = format!(
        "{}: rsync changes its root directory to {} and does not find {} there ({}), so it turns \
         every connection away: a symbolic link in it must not begin with a slash; correct `path`, \
         or set `use chroot = no`",
        module.place_of("path"),
        escape_path(&outer),
        escape(inner.as_bytes()),
        errno.desc()
    );
    Some(Finding::new(FindingId::ModuleChroot, Severity::Critical, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: u32, gid: u32) -> Account {
        Account { uid, gids: vec![gid], user: "backup".to_string(), group: "staff".to_string() }
    }

    #[test]
    fn a_missing_directory_is_made_with_its_owner() {
        let scratch = tempfile::tempdir().expect("a directory");
        let there = scratch.path().join("latest");
        let deep = scratch.path().join("laptop/latest");
        let at = |path: &Path| path.display().to_string();
        for (path, account, expected) in [
            (&there, None, format!("`install -d -m 0700 {}`", at(&there))),
            (
                &there,
                Some(account(7, 8)),
                format!("`install -d -m 0700 -o backup -g staff {}`", at(&there)),
            ),
            (
                &deep,
                Some(account(0, 0)),
                format!(
                    "`install -d -m 0700 {} {}`",
                    at(&scratch.path().join("laptop")),
                    at(&deep)
                ),
            ),
        ] {
            assert_eq!(how_to_make(path, account.as_ref(), true), Some(expected));
        }
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink("/nowhere/at/all", &link).expect("a link");
        assert_eq!(how_to_make(&link, None, true), None);
    }

    #[test]
    fn a_user_without_the_right_to_write_is_named() {
        let own = account(7, 8);
        let invalid = NoAccount::Invalid("uid", "nobdy".to_string());
        let unclear = NoAccount::Unclear("x".to_string());
        for (account, owner, trial, expected) in [
            (Ok(&own), 7, WriteTrial::Can, None),
            (Ok(&own), 0, WriteTrial::Can, Some((Severity::Ok, "cannot set its time and mode"))),
            (Ok(&own), 0, WriteTrial::Unknown, Some((Severity::Ok, "only root can try"))),
            (
                Ok(&own),
                0,
                WriteTrial::Cannot(libc::EACCES),
                Some((Severity::Critical, "run `chown 7:8 /srv/latest`")),
            ),
            (
                Ok(&own),
                0,
                WriteTrial::Cannot(libc::EROFS),
                Some((Severity::Critical, "mounted read only")),
            ),
            (Ok(&own), 7, WriteTrial::Cannot(libc::EACCES), None),
            (Ok(&own), 0, WriteTrial::Cannot(libc::EPERM), Some((Severity::Critical, "chattr -i"))),
            (Err(&invalid), 0, WriteTrial::Unknown, Some((Severity::Critical, "uid = nobdy"))),
            (Err(&unclear), 0, WriteTrial::Unknown, Some((Severity::Ok, "cannot tell"))),
        ] {
            let facts = RightFacts {
                place: "c:1".to_string(),
                has_uid: true,
                directory: Path::new("/srv/latest"),
                owner: (owner, 0, 0o40700),
                account,
                trial,
                has_history: true,
            };
            let found = right_finding(&facts);
            let told = found.as_ref().map(|finding| finding.level);
            assert_eq!(told, expected.map(|(level, _)| level), "{account:?} {trial:?}");
            if let (Some(found), Some((_, text))) = (found, expected) {
                assert!(found.message.contains(text), "{}", found.message);
            }
        }
    }
}
