//! Desktop notifications, by `notify-send`, in the session of whoever is logged in.
//!
//! A session is found in the environment of the processes that run in it, since a cron job has none
//! of its own: of each user the one that most of their processes name. Root tells every user, as
//! that user and in that user's environment; anybody else only themselves. That nobody could be
//! told is no failure.
//!
//! An environment is what a user says. An address such as `unixexec:` would have D-Bus run a
//! program, and processes that became somebody else's may still carry it: so only sockets are
//! believed, and root believes nobody who seems to be root.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::client::external::Call;
use crate::client::signals;
use crate::system::syscalls::is_privileged;

/// What leads to a session; the first is what notify-send cannot do without.
const VARIABLES: [&str; 5] =
    ["DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR"];

/// A desktop that does not answer must not hold up a backup.
const LIMIT: Duration = Duration::from_secs(10);

/// How urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A person may want to know.
    Normal,
    /// A person should look.
    Critical,
}

type Variables = Vec<(OsString, OsString)>;

/// A desktop session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Session {
    user: u32,
    group: u32,
    environment: Variables,
}

/// Shows `body` on every desktop that we may reach.
pub(crate) fn tell(body: &str, urgency: Urgency) {
    let me = rustix::process::geteuid().as_raw();
    let may_be_told =
        |session: &Session| if is_privileged() { session.user != 0 } else { session.user == me };
    for session in sessions().into_iter().filter(may_be_told) {
        let mut words = vec!["notify-send"];
        if urgency == Urgency::Critical {
            words.push("--urgency=critical");
        }
        words.extend(["System backups", body]);
        let mut call = Call::new(words);
        call.account = (session.user != me).then_some((session.user, session.group));
        call.environment = session.environment;
        call.limit = Some(LIMIT);
        // The end of a run that a signal ended is told, too.
        if let Err(failure) = signals::shielded(|| call.succeed()) {
            log::debug!("no desktop notification for user {}: {failure}", session.user);
        }
    }
}

/// The session of each user who has one.
fn sessions() -> Vec<Session> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    most_popular(processes.filter_map(|process| session_of(&process.path())))
}

fn session_of(process: &Path) -> Option<Session> {
    let environment = session_variables(&fs::read(process.join("environ")).ok()?)?;
    // Its files belong to whom the process runs as.
    let owner = fs::metadata(process.join("environ")).ok()?;
    Some(Session { user: owner.uid(), group: owner.gid(), environment })
}

/// The variables of a session in an environment as the kernel shows it; none outside of a desktop.
fn session_variables(environ: &[u8]) -> Option<Variables> {
    let pairs = environ.split(|&byte| byte == 0).filter_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        Some((&pair[..at], &pair[at + 1..]))
    });
    let mut variables: Variables = pairs
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

fn most_popular(sessions: impl Iterator<Item = Session>) -> Vec<Session> {
    let mut counts: BTreeMap<Session, u32> = BTreeMap::new();
    for session in sessions {
        *counts.entry(session).or_default() += 1;
    }
    let mut best: BTreeMap<u32, (u32, Session)> = BTreeMap::new();
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

    fn session(user: u32, environ: &[u8]) -> Option<Session> {
        Some(Session { user, group: user, environment: session_variables(environ)? })
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
    fn each_user_is_told_once_in_the_session_that_most_processes_name() {
        let of = |user, bus: &str| {
            session(
                user,
                format!("DBUS_SESSION_BUS_ADDRESS=unix:path={bus}\0DISPLAY=:0").as_bytes(),
            )
        };
        let all = [of(1, "old"), of(1, "new"), of(1, "new"), of(2, "other")];
        let found = most_popular(all.into_iter().flatten());
        let buses: Vec<_> = found
            .iter()
            .map(|session| session.environment[0].1.to_string_lossy().into_owned())
            .collect();
        assert_eq!(buses, ["unix:path=new", "unix:path=other"]);
    }
}
