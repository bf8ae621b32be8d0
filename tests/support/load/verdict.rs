//! The invariants after a storm.

use std::collections::{BTreeMap, BTreeSet};

use super::connection::Connection;
use super::event::Action;
use super::manifest;
use super::shown::{Content, Shown, Tree};
use super::site::{Kind, Place, Site};
use crate::support::fingerprint;

pub(crate) struct Verdict<'a> {
    site: &'a Site,
    connections: &'a [Connection],
    violations: Vec<String>,
}

/// The complete states of each client that the snapshots of a module contain.
type States = BTreeSet<(usize, u64)>;

impl<'a> Verdict<'a> {
    pub(crate) fn new(site: &'a Site, connections: &'a [Connection]) -> Verdict<'a> {
        Verdict { site, connections, violations: Vec::new() }
    }

    /// Checks after all processes have ended and the timer has run.
    pub(crate) fn of_storm(mut self) -> Vec<String> {
        for module in 0..self.site.modules.len() {
            let mut shown = Shown::default();
            let states = self.no_complete_snapshot_is_torn(module, &mut shown);
            self.no_push_is_lost(module, &states, &mut shown);
            self.no_snapshot_is_there_twice(module, &mut shown);
            self.nothing_is_left(module);
        }
        self.no_connection_hung();
        self.violations
    }

    /// Checks after each client has then made a good push.
    pub(crate) fn of_calm(mut self) -> Vec<String> {
        for place in &self.site.modules {
            for mark in ["torn", "due"] {
                if let Some(value) = place.mark(mark) {
                    self.violations
                        .push(format!("{}: still {mark} after good pushes: {value}", place.name));
                }
            }
            self.newest_is_the_module(place);
        }
        self.check_finds_nothing_critical();
        self.violations
    }

    fn no_complete_snapshot_is_torn(&mut self, module: usize, shown: &mut Shown) -> States {
        let place = &self.site.modules[module];
        let mut states = States::new();
        for name in place.snapshots() {
            for client in self.site.writers(module) {
                let directory = place.root.join(&name).join(self.site.client_name(client));
                if !directory.exists() {
                    continue;
                }
                match manifest::verify(&directory, shown) {
                    Ok(sequence) => drop(states.insert((client, sequence))),
                    Err(_) if name.ends_with("-partial") => {}
                    Err(why) => {
                        self.violations.push(format!("torn: {}: {why}", directory.display()))
                    }
                }
            }
        }
        states
    }

    fn no_push_is_lost(&mut self, module: usize, states: &States, shown: &mut Shown) {
        let place = &self.site.modules[module];
        if place.kind == Kind::KeepsAll {
            for connection in self.lonely(module) {
                self.expect(states, connection, "a push that nothing disturbed");
            }
        }
        let mut all_are_good = true;
        for client in self.site.writers(module) {
            let Some(last) =
                self.writes(module).filter(|write| write.event.client == client).last()
            else {
                continue;
            };
            all_are_good &= last.is_good();
            if last.event.action == Action::Push && last.event.succeeded() {
                self.expect(states, last, "the last push of its client");
            }
        }
        if all_are_good {
            self.last_state_is_safe(place, shown);
        }
        // A failed push is made good by one of the same client with `--delete`: another one may
        // leave files of the failed one. The end of a push may be noticed after the next one has
        // begun; then the one after that makes it good.
        let is_mended = |client| {
            let writes = self.writes(module).filter(|write| write.event.client == client);
            let writes: Vec<&Connection> = writes.collect();
            let failed = writes.iter().rposition(|write| !write.is_good());
            let makes_good = |write: &&&Connection| {
                write.event.action == Action::Push && write.event.options.contains(&"--delete")
            };
            failed.is_none_or(|at| writes[at + 1..].iter().filter(makes_good).count() >= 2)
        };
        // A connection that ended before pre-xfer recorded it tears the module without a client,
        // and only a push that begins later repairs that.
        let can_be_mended = |torn: &toml::Value| {
            let noticed = torn["noticed"]["nanoseconds"].as_integer().expect("a time") / 1_000_000;
            let last = self.writes(module).map(|write| write.event.began.milliseconds).max();
            torn.get("by").is_some()
                || last.is_some_and(|last| i128::from(last) > i128::from(noticed))
        };
        let torn = place.mark("torn").filter(can_be_mended);
        if let Some(torn) = torn.filter(|_| self.site.writers(module).all(is_mended)) {
            self.violations
                .push(format!("{}: torn, but each client has pushed well: {torn}", place.name));
        }
    }

    fn expect(&mut self, states: &States, connection: &Connection, what: &str) {
        if !states.contains(&(connection.event.client, connection.event.sequence)) {
            self.violations
                .push(format!("lost: {what} is in no snapshot: {}", connection.tell(self.site)));
        }
    }

    fn last_state_is_safe(&mut self, place: &Place, shown: &mut Shown) {
        let now = shown.contents(&place.latest);
        match place.snapshots().last() {
            None if now.is_empty() => {}
            None => self.violations.push(format!("lost: {} has no snapshot at all", place.name)),
            Some(newest) => {
                let there = shown.contents(&place.root.join(newest));
                if there != now {
                    let differences = differences(&there, &now);
                    self.violations.push(format!(
                        "lost: the last state of {} is not in {newest}: {differences}",
                        place.name
                    ));
                }
            }
        }
    }

    fn no_snapshot_is_there_twice(&mut self, module: usize, shown: &mut Shown) {
        let place = &self.site.modules[module];
        let mut before: Option<(String, Tree)> = None;
        for name in place.complete() {
            let tree = shown.tree(&place.root.join(&name));
            if let Some((earlier, same)) = before.filter(|(_, earlier)| *earlier == tree) {
                let count = same.len();
                self.violations
                    .push(format!("twice: {}: {earlier} and {name}, {count} entries", place.name));
            }
            before = Some((name, tree));
        }
    }

    fn nothing_is_left(&mut self, module: usize) {
        let place = &self.site.modules[module];
        for entry in place.ledger() {
            let path = place.root.join(".rsyncd-snapshot/transfers").join(&entry);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| error.to_string());
            self.violations.push(format!("left: {}: {text}", path.display()));
        }
        let staging = std::fs::read_dir(place.root.join(".rsyncd-snapshot/staging"));
        for entry in staging.into_iter().flatten().flatten() {
            self.violations.push(format!("left: {}", entry.path().display()));
        }
        if let Some(due) = place.mark("due") {
            self.violations
                .push(format!("left: {} is still due after the timer came: {due}", place.name));
        }
    }

    fn no_connection_hung(&mut self) {
        let hung = |connection: &&Connection| connection.event.ending == super::event::Ending::Hung;
        let told: Vec<String> =
            self.connections.iter().filter(hung).map(|one| one.tell(self.site)).collect();
        self.violations.extend(told.into_iter().map(|what| format!("never ended: {what}")));
    }

    fn newest_is_the_module(&mut self, place: &Place) {
        let Some(newest) = place.complete().pop() else {
            self.violations.push(format!("{}: no complete snapshot after good pushes", place.name));
            return;
        };
        let (snapshot, now) =
            (fingerprint::of(&place.root.join(&newest)), fingerprint::of(&place.latest));
        if snapshot != now {
            let paths: BTreeSet<_> = snapshot.keys().chain(now.keys()).collect();
            let different: Vec<String> = paths
                .into_iter()
                .filter(|path| snapshot.get(*path) != now.get(*path))
                .take(4)
                .map(|path| path.escape_ascii().to_string())
                .collect();
            self.violations.push(format!(
                "{}: {newest} is not the module as it is now: {different:?}",
                place.name
            ));
        }
    }

    fn check_finds_nothing_critical(&mut self) {
        let run = self.site.server.run(&["check", "--json"]);
        let found = run.json();
        for module in found["modules"].as_array().expect("modules") {
            for finding in module["findings"].as_array().expect("findings") {
                if finding["level"] == "critical" || finding["level"] == "unknown" {
                    self.violations.push(format!("check: {}: {finding}", module["module"]));
                } else if finding["level"] != "ok" {
                    eprintln!("check: {}: {}", module["module"], finding["message"]);
                }
            }
        }
    }

    fn writes(&self, module: usize) -> impl Iterator<Item = &'a Connection> + use<'a> {
        let is_here =
            move |one: &&Connection| one.event.module == module && one.event.action.writes();
        self.connections.iter().filter(is_here)
    }

    /// Good pushes during which, their hook included, no other client wrote into the module.
    fn lonely(&self, module: usize) -> Vec<&'a Connection> {
        let is_alone = |one: &&Connection| {
            self.writes(module).all(|other| std::ptr::eq(*one, other) || !one.overlaps(other))
        };
        let is_push = |one: &&Connection| one.event.action == Action::Push && one.is_good();
        self.writes(module).filter(is_push).filter(is_alone).collect()
    }
}

fn differences(left: &BTreeMap<String, Content>, right: &BTreeMap<String, Content>) -> String {
    let paths: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let different = paths.into_iter().filter(|path| left.get(*path) != right.get(*path));
    different
        .take(4)
        .map(|path| format!("{path} {:?} {:?}", left.get(path), right.get(path)))
        .collect::<Vec<_>>()
        .join(", ")
}
