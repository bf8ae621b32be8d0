//! The course of a storm: clients and faults at once, then the checks after it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::connection;
use super::event::{Ending, Event};
use super::fault::{self, Fault};
use super::note::{self, Hooks};
use super::observer::{self, Seen};
use super::process;
use super::site::{SPACING_SECONDS, Site};
use super::size::Size;
use super::verdict::Verdict;
use crate::support::daemon::Daemon;

/// Within this time after the last client, all processes must have ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a storm of that size, and returns the violations.
pub(crate) fn storm(size: Size, hooks: Hooks) -> Vec<String> {
    let mut site = Site::new(size, hooks);
    if std::env::var_os("RSYNCD_SNAPSHOT_LOAD_KEEP").is_some() {
        eprintln!("stays: {}", site.server.keep().display());
    }
    let site = site;
    let mut daemon = Daemon::start(&site.server, &site.sections());
    let url = daemon.url("");
    let mut clients: Vec<Client> =
        (0..size.clients).map(|number| Client::new(&site, number, &url)).collect();
    let mut violations = Vec::new();

    let (mut events, faults, seen) = rage(&site, &mut daemon, &mut clients);
    violations.extend(seen.violations.iter().cloned());
    violations.extend(settle(&site, &daemon));
    tell(&site, &events, &faults, &seen);
    let after_storm = judge(&site, &events);

    events.extend(calm(&site, &daemon, &mut clients, &mut violations));
    violations.extend(settle(&site, &daemon));
    let after_calm =
        judge(&site, &events).into_iter().filter(|violation| !after_storm.contains(violation));
    violations.extend(after_calm.map(|violation| format!("in the calm: {violation}")));
    violations.extend(Verdict::new(&site, &[]).of_calm());
    violations.extend(after_storm);
    if hooks == Hooks::Pair && seen.entries == 0 {
        violations.push("no entry of the ledger was ever seen".to_string());
    }
    violations
}

type Course = (Vec<Event>, BTreeMap<Fault, usize>, Seen);

fn rage(site: &Site, daemon: &mut Daemon, clients: &mut [Client]) -> Course {
    let until = Instant::now() + Duration::from_secs(site.size.seconds);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let observer = scope.spawn(|| observer::watch(site, &is_over));
        let clients: Vec<_> =
            clients.iter_mut().map(|client| scope.spawn(move || client.storm(until))).collect();
        let visits = scope.spawn(|| fault::visit(site, until));
        let faults = fault::storm(site, daemon, until);
        let events =
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        visits.join().expect("the administrator");
        is_over.store(true, Ordering::Relaxed);
        (events, faults, observer.join().expect("the observer"))
    })
}

/// Waits for the last hook, then lets the timer come; once more for where snapshots are spaced.
fn settle(site: &Site, daemon: &Daemon) -> Vec<String> {
    let left = process::await_quiet(&site.server, daemon.process_id(), PATIENCE);
    let mut violations: Vec<String> = left
        .iter()
        .map(|process| format!("never ended: {} {}", process.pid, process.line))
        .collect();
    for pause_milliseconds in [0, SPACING_SECONDS * 1_000 + 100] {
        thread::sleep(Duration::from_millis(pause_milliseconds));
        let run = site.server.run(&["snapshot", "--all", "--due"]);
        if !run.code().is_some_and(|code| [0, 4].contains(&code)) {
            violations.push(format!("the timer failed: {run}"));
        }
    }
    violations
}

/// Compares the events of the clients with the disk.
pub(crate) fn judge(site: &Site, events: &[Event]) -> Vec<String> {
    let connections = connection::join(site, events, &note::read(&site.server));
    // For an administrator who keeps the directory of the test.
    let told: Vec<String> =
        connections.iter().map(|connection| connection.tell(site) + "\n").collect();
    std::fs::write(site.server.directory.join("connections"), told.concat()).expect("a file");
    Verdict::new(site, &connections).of_storm()
}

/// One good push by each client, one after the other.
fn calm(
    site: &Site,
    daemon: &Daemon,
    clients: &mut [Client],
    violations: &mut Vec<String>,
) -> Vec<Event> {
    let mut events = Vec::new();
    for client in clients {
        let event = client.calm_push();
        if event.ending != Ending::Exited(0) {
            violations.push(format!("a push in the calm failed: {event:?}"));
        }
        events.push(event);
        process::await_quiet(&site.server, daemon.process_id(), PATIENCE);
    }
    events
}

/// Prints what the storm was like.
fn tell(site: &Site, events: &[Event], faults: &BTreeMap<Fault, usize>, seen: &Seen) {
    let mut actions: BTreeMap<_, usize> = BTreeMap::new();
    for event in events {
        *actions.entry((event.action, event.ending)).or_default() += 1;
    }
    let (mut complete, mut partial) = (0, 0);
    for module in &site.modules {
        complete += module.complete().len();
        partial += module.snapshots().len() - module.complete().len();
    }
    eprintln!(
        "{:?}: {} actions {actions:?}\nfaults {faults:?}\n{complete} complete and {partial} partial snapshots; runs seen at \
         work {} times, {} entries of the ledger",
        site.size,
        events.len(),
        seen.at_work,
        seen.entries
    );
}
