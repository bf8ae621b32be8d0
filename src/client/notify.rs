//! Desktop notifications, by `notify-send`, in the desktop session of each logged-in user.
//!
//! A cron job has no session of its own. So the session of a user is found in the environments of
//! the user's processes; the one that most processes name counts. Root notifies every user, as that
//! user and in that user's environment; another account notifies only itself. A notification that
//! fails does not fail the backup.
//!
//! The environment is not trusted, because the user chooses it. With an address such as `unixexec:`
//! D-Bus would run a program, and a process that has changed its user ID may still carry an
//! environment of the user before. So only addresses of sockets are used, and root uses no session
//! of a process that runs as root.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::client::external_command::ExternalCommand;
use crate::client::signals;
use crate::system::syscalls::is_privileged;

/// The variables that name a session. notify-send needs the first.
const VARIABLES: [&str; 5] =
    ["DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR"];

/// So that a desktop that does not answer cannot delay a backup.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    Normal,
    /// The notification stays until the user closes it.
    Critical,
}

type SessionVariables = Vec<(OsString, OsString)>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct DesktopSession {
    user: u32,
    group: u32,
    environment: SessionVariables,
}

/// Shows `body` on the desktop of every user whom this process may notify.
pub(crate) fn show(body: &str, urgency: Urgency) {
    let me = rustix::process::geteuid().as_raw();
    let is_allowed = |session: &DesktopSession| {
        if is_privileged() { session.user != 0 } else { session.user == me }
    };
    for session in sessions().into_iter().filter(is_allowed) {
        let mut args = vec!["notify-send"];
        if urgency == Urgency::Critical {
            args.push("--urgency=critical");
        }
        args.extend(["System backups", body]);
        let mut command = ExternalCommand::new(args);
        command.account = (session.user != me).then_some((session.user, session.group));
        command.environment = session.environment;
        command.limit = Some(LIMIT);
        // A run that a signal has ended is notified, too.
        if let Err(error) = signals::without_interruption(|| command.succeed()) {
            log::debug!("no desktop notification for user {}: {error}", session.user);
        }
    }
}

/// At most one session for each user.
fn sessions() -> Vec<DesktopSession> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    one_for_each_user(processes.filter_map(|process| session_of(&process.path())))
}

fn session_of(process: &Path) -> Option<DesktopSession> {
    let environment = session_variables(&fs::read(process.join("environ")).ok()?)?;
    // The files in /proc/PID belong to the user that the process runs as.
    let owner = fs::metadata(process.join("environ")).ok()?;
    Some(DesktopSession { user: owner.uid(), group: owner.gid(), environment })
}

/// The variables of a session in `/proc/PID/environ`; `None` if the process has no desktop session.
fn session_variables(environ: &[u8]) -> Option<SessionVariables> {
    let pairs = environ.split(|&byte| byte == 0).filter_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        Some((&pair[..at], &pair[at + 1..]))
    });
    let mut variables: SessionVariables = pairs
        .filter(|(name, value)| {
            !value.is_empty() && VARIABLES.iter().any(|known| known.as_bytes() == *name)
        })
        .map(|(name, value)| {
            (OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec()))
        })
        .collect();
    variables.sort();
    let value = |wanted: &str| {
        variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_bytes())
    };
    let is_socket = value(VARIABLES[0])?
        .split(|&byte| byte == b';')
        .all(|address| address.starts_with(b"unix:"));
    let has_display = value("DISPLAY").or(value("WAYLAND_DISPLAY")).is_some();
    (is_socket && has_display).then_some(variables)
}

/// The session of each user that most processes name.
fn one_for_each_user(sessions: impl Iterator<Item = DesktopSession>) -> Vec<DesktopSession> {
    let mut counts: BTreeMap<DesktopSession, u32> = BTreeMap::new();
    for session in sessions {
        *counts.entry(session).or_default() += 1;
    }
    let mut best: BTreeMap<u32, (u32, DesktopSession)> = BTreeMap::new();
    for (session, count) in counts {
        let known = best.get(&session.user).map_or(0, |(count, _)| *count);
        if count > known {
            best.insert(session.user, (count, session));
        }
    }
    best.into_values().map(|(_, session)| session).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(user: u32, environ: &[u8]) -> Option<DesktopSession> {
        Some(DesktopSession { user, group: user, environment: session_variables(environ)? })
    }

    #[test]
    fn a_session_has_a_bus_and_a_display() {
        assert!(
            session(1, b"DBUS_SESSION_BUS_ADDRESS=unix:path=/x\0DISPLAY=:0\0SECRET=x\0").is_some()
        );
        assert!(
            session(1, b"DBUS_SESSION_BUS_ADDRESS=unix:path=/x\0WAYLAND_DISPLAY=wayland-0\0")
                .is_some()
        );
        for environ in [
            b"DISPLAY=:0\0".as_slice(),
            b"DBUS_SESSION_BUS_ADDRESS=unix:path=/x\0",
            b"DBUS_SESSION_BUS_ADDRESS=\0DISPLAY=:0\0",
            b"DBUS_SESSION_BUS_ADDRESS=unixexec:path=/tmp/x\0DISPLAY=:0\0",
            b"DBUS_SESSION_BUS_ADDRESS=unix:path=/x;unixexec:path=/tmp/x\0DISPLAY=:0\0",
            b"\0\0=",
            b"",
        ] {
            assert_eq!(session(1, environ), None);
        }
    }

    #[test]
    fn each_user_is_notified_in_the_session_of_most_processes() {
        let of = |user, bus: &str| {
            session(
                user,
                format!("DBUS_SESSION_BUS_ADDRESS=unix:path={bus}\0DISPLAY=:0").as_bytes(),
            )
        };
        let all = [of(1, "old"), of(1, "new"), of(1, "new"), of(2, "other")];
        let found = one_for_each_user(all.into_iter().flatten());
        let buses: Vec<_> = found
            .iter()
            .map(|session| session.environment[0].1.to_string_lossy().into_owned())
            .collect();
        assert_eq!(buses, ["unix:path=new", "unix:path=other"]);
    }
}
