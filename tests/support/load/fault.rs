//! Faults of the server, one after the other, and the commands that run meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::process::{self, Process, Role};
use super::site::Site;
use crate::support::daemon::Daemon;
use crate::support::random::Random;

/// A fault of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    ConnectionKilled,
    /// SIGTERM to the process of the connection: the transfer goes on, and no hook follows.
    ConnectionTerminated,
    TransferKilled,
    PreXferKilled,
    PostXferKilled,
    /// The listening process restarts; connections and hooks continue.
    DaemonRestarted,
    /// All of its processes are killed at once, as systemd does.
    ServiceKilled,
}

use Fault::*;

/// Likelier faults are listed more than once.
const FAULTS: [Fault; 15] = [
    ConnectionKilled,
    ConnectionKilled,
    ConnectionTerminated,
    ConnectionTerminated,
    TransferKilled,
    TransferKilled,
    TransferKilled,
    PreXferKilled,
    PreXferKilled,
    PostXferKilled,
    PostXferKilled,
    PostXferKilled,
    PostXferKilled,
    DaemonRestarted,
    ServiceKilled,
];

/// Commands that run during the storm. The timer runs more often than the others.
const VISITS: [&[&str]; 6] = [
    &["snapshot", "--all", "--due"],
    &["snapshot", "--all", "--due"],
    &["snapshot", "--all", "--due"],
    &["rotate", "--all"],
    &["list", "--all"],
    &["check"],
];

/// Causes faults until that time; returns how often each occurred.
pub(crate) fn storm(site: &Site, daemon: &mut Daemon, until: Instant) -> BTreeMap<Fault, usize> {
    let mut random = Random::new(site.size.seed * 1_000 + 999);
    let mut count = BTreeMap::new();
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20 + random.below(200) as u64));
        let fault = *random.of(&FAULTS).expect("faults");
        if happen(fault, site, daemon, &mut random) {
            *count.entry(fault).or_default() += 1;
        }
    }
    count
}

/// Whether a process was found and signalled.
fn happen(fault: Fault, site: &Site, daemon: &mut Daemon, random: &mut Random) -> bool {
    let listening = daemon.process_id();
    let is_connection =
        |process: &Process| process.role == Role::Rsync && process.parent == listening;
    match fault {
        ConnectionKilled => strike(site, random, Signal::SIGKILL, is_connection),
        ConnectionTerminated => strike(site, random, Signal::SIGTERM, is_connection),
        TransferKilled => strike(site, random, Signal::SIGKILL, |process| {
            process.role == Role::Rsync && process.parent != listening && process.pid != listening
        }),
        PreXferKilled => {
            strike(site, random, Signal::SIGKILL, |process| process.role == Role::PreXfer)
        }
        PostXferKilled => {
            strike(site, random, Signal::SIGKILL, |process| process.role == Role::PostXfer)
        }
        DaemonRestarted => {
            daemon.restart(false);
            true
        }
        ServiceKilled => {
            daemon.restart(true);
            true
        }
    }
}

/// Waits a moment for a process of that kind, and sends it a signal.
fn strike(
    site: &Site,
    random: &mut Random,
    signal: Signal,
    is_victim: impl Fn(&Process) -> bool,
) -> bool {
    let deadline = Instant::now() + Duration::from_millis(400);
    while Instant::now() < deadline {
        let victims: Vec<Process> =
            process::of(&site.server).into_iter().filter(|process| is_victim(process)).collect();
        if let Some(victim) = random.of(&victims) {
            std::thread::sleep(Duration::from_micros(random.below(15_000) as u64));
            process::signal(victim.pid, signal);
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Runs the commands of timer and administrator until that time. Their output is checked later.
pub(crate) fn visit(site: &Site, until: Instant) {
    let mut random = Random::new(site.size.seed * 1_000 + 998);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(random.below(1_000) as u64));
        let _ = site.server.run(random.of(&VISITS).expect("visits"));
    }
}
