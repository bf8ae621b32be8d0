//! A year of pushes: what is on disk after each is exactly what `rotation.md` promises.
//!
//! The time is passed in. Once every hour of ten weeks goes through the whole pipeline in this
//! process (lock, compare, clone, publish, rotate, remove), with quiet nights and failed transfers;
//! once a real rsync daemon runs the hook for pushes spread over a year. With
//! `RSYNCD_SNAPSHOT_SWEEP=full` both get every hour of a year.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use rsyncd_snapshot::decide::client::Client;
use rsyncd_snapshot::decide::verdict_facts::AllowedSnapshot;
use rsyncd_snapshot::internals::{Clock, Ending, MachineMemory, Request, Settings, Target, order};
use support::apart;
use support::daemon::Daemon;
use support::module::visible;
use support::server::Server;
use support::simulated::hook_at;

const POLICY: &str = "[defaults]\nkeep = { hourly = 24, daily = 7, weekly = 4, monthly = \"always\" }\n\
                      time_zone = \"UTC\"\nclock_jump = \"31d\"\n";

/// The rules of rotation for the policy above, spelled out once more and as simply as possible:
/// every quiet hour is written down as a moment at which its snapshot held.
#[derive(Default)]
struct Expectation {
    /// Name → the moments at which it held; the first is when it was taken.
    snapshots: BTreeMap<String, Vec<DateTime<Utc>>>,
}

impl Expectation {
    fn published(&mut self, name: &str, time: DateTime<Utc>) {
        self.snapshots.insert(name.to_string(), vec![time]);
    }

    fn verified(&mut self, name: &str, time: DateTime<Utc>) {
        let moments = self.snapshots.get_mut(name).expect("a snapshot that is kept");
        // It held in every hour between, also in those whose transfer failed.
        while let Some(next) =
            moments.last().map(|last| *last + TimeDelta::hours(1)).filter(|next| *next <= time)
        {
            moments.push(next);
        }
    }

    /// The tree is torn, but still equals the newest snapshot.
    fn newest_verified(&mut self, time: DateTime<Utc>) {
        if let Some(newest) = self.snapshots.keys().next_back().cloned() {
            self.verified(&newest, time);
        }
    }

    fn rotate(&mut self, now: DateTime<Utc>) {
        let hour = |time: DateTime<Utc>| time.format("%F %H").to_string();
        let day = |time: DateTime<Utc>| time.format("%F").to_string();
        let week = |time: DateTime<Utc>| format!("{:?}", time.iso_week());
        let month = |time: DateTime<Utc>| time.format("%Y-%m").to_string();
        let mut kept = BTreeSet::new();
        kept.extend(self.represent(hour, Some(now - TimeDelta::hours(24)), 24));
        kept.extend(self.represent(day, Some(now - TimeDelta::days(7)), 7));
        kept.extend(self.represent(week, Some(now - TimeDelta::weeks(4)), 4));
        kept.extend(self.represent(month, None, usize::MAX));
        // The newest, min_keep 3, and what is younger than min_age 1 h.
        kept.extend(self.snapshots.keys().rev().take(1).cloned());
        for name in self.snapshots.keys().rev().cloned().collect::<Vec<_>>() {
            if kept.len() < 3 {
                kept.insert(name);
            }
        }
        let young =
            |moments: &Vec<DateTime<Utc>>| now - *moments.last().unwrap() < TimeDelta::hours(1);
        kept.extend(
            self.snapshots
                .iter()
                .filter(|(_, moments)| young(moments))
                .map(|(name, _)| name.clone()),
        );
        self.snapshots.retain(|name, _| kept.contains(name));
    }

    /// Who stands for the newest `count` slots: the first to hold in each, if it is not before
    /// `cutoff`.
    fn represent(
        &self,
        slot: impl Fn(DateTime<Utc>) -> String,
        cutoff: Option<DateTime<Utc>>,
        count: usize,
    ) -> Vec<String> {
        let mut slots: BTreeMap<DateTime<Utc>, String> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (name, moments) in &self.snapshots {
            for &moment in moments {
                if seen.insert(slot(moment)) {
                    slots.insert(moment, name.clone());
                }
            }
        }
        let within = slots
            .into_iter()
            .rev()
            .filter(|(moment, _)| cutoff.is_none_or(|cutoff| *moment >= cutoff));
        within.take(count).map(|(_, name)| name).collect()
    }
}

/// Quiet at night, a failed transfer now and then: (changes, exit status).
fn what_happens(time: DateTime<Utc>) -> (bool, i32) {
    let failed = time.ordinary() % 41 == 7;
    (time.hour() >= 6, if failed { 12 } else { 0 })
}

trait Ordinary {
    /// Hours since the year 1.
    fn ordinary(&self) -> i64;
}

impl Ordinary for DateTime<Utc> {
    fn ordinary(&self) -> i64 {
        self.timestamp() / 3_600
    }
}

#[test]
fn every_hour_leaves_exactly_the_promised_set() {
    // A process that another test starts would hold this one's locks, too, until it is another
    // program.
    if !apart::is_own_process() {
        return;
    }
    // docs/policy.md says what the default costs beside "0s".
    let graces: &[&str] = if support::is_full_sweep() { &["6h", "0s"] } else { &["6h"] };
    graces.iter().for_each(|grace| push_each_hour(grace));
}

/// What the grace costs.
#[derive(Default)]
struct Cost {
    runs: usize,
    /// Snapshots in `expired/`, added up over all runs, and at most.
    retired: usize,
    most_retired: usize,
    recycled: usize,
    afresh: usize,
}

impl Cost {
    fn count(&mut self, root: &Path, published: Option<&str>) {
        let retired =
            fs::read_dir(root.join(".rsyncd-snapshot/expired")).map_or(0, Iterator::count);
        self.runs += 1;
        self.retired += retired;
        self.most_retired = self.most_retired.max(retired);
        let Some(name) = published else { return };
        let record = root.join(format!(".rsyncd-snapshot/records/{name}.toml"));
        match fs::read_to_string(record).expect("a record").contains("recycled = ") {
            true => self.recycled += 1,
            false => self.afresh += 1,
        }
    }
}

fn push_each_hour(grace: &str) {
    // Syncing is what a year would spend its time on, and in memory it costs nothing.
    let scratch = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a scratch directory");
    let policy = scratch.path().join("policy.toml");
    fs::write(&policy, format!("{POLICY}grace = \"{grace}\"\n")).unwrap();
    let module = scratch.path().join("root/latest");
    fs::create_dir_all(module.join("documents")).unwrap();
    let mut settings = Settings::read(Some(&policy), Some(Path::new("/nonexistent")));
    settings.memory = MachineMemory::new(vec![scratch.path().join("memory")]);
    let target = Target::of_module(&settings, None, &module).expect("a target");
    let mut expectation = Expectation::default();
    let mut time: DateTime<Utc> = "2025-12-01T00:17:00Z".parse().unwrap();
    let (mut published, mut failed) = (0, 0);
    let mut cost = Cost::default();
    // Whether the failed transfer that tore the module has changed it.
    let mut torn_by_change = None;
    // Ten weeks have ends of days, weeks, months and a year.
    let hours = support::by_sweep(70 * 24, 70 * 24, 365 * 24);
    for hour in 0..hours {
        let (changes, status) = what_happens(time);
        if changes {
            fs::write(module.join("documents/new"), hour.to_string()).unwrap();
            fs::rename(module.join("documents/new"), module.join("documents/diary")).unwrap();
        }
        let allowed = if status == 0 { AllowedSnapshot::Complete } else { AllowedSnapshot::None };
        let request = Request::transfer(allowed, status, Client::default());
        let report = order::run(&target, &request, &Clock::standing(time)).expect("a run");
        let made = report.snapshot.as_deref().filter(|_| report.ending == Ending::Published);
        cost.count(&scratch.path().join("root"), made);
        match report.ending {
            Ending::Published => {
                expectation.published(&report.snapshot.unwrap(), time);
                expectation.rotate(time);
                published += 1;
                torn_by_change = None;
            }
            Ending::Unchanged => {
                expectation.verified(&report.snapshot.unwrap(), time);
                expectation.rotate(time);
            }
            Ending::FailedTransfer => {
                failed += 1;
                torn_by_change = Some(torn_by_change == Some(true) || changes);
            }
            Ending::Torn if torn_by_change.expect("a failed transfer before") => {}
            Ending::Torn => expectation.newest_verified(time),
            other => panic!("{time}: {other:?}"),
        }
        let expected: Vec<String> = expectation.snapshots.keys().cloned().collect();
        assert_eq!(visible(&scratch.path().join("root")), expected, "{time}");
        time += TimeDelta::hours(1);
    }
    assert!(
        published > hours * 6 / 10 && failed > hours / 80,
        "{published} published, {failed} failed"
    );
    assert!(expectation.snapshots.len() > 30);
    let Cost { runs, retired, most_retired, recycled, afresh } = cost;
    let average = retired as f64 / runs as f64;
    println!(
        "grace {grace}: {average:.1} retired snapshots on average and {most_retired} at most; \
         {recycled} snapshots recycled, {afresh} made afresh"
    );
}

#[test]
fn a_real_daemon_keeps_rotating_over_a_year() {
    if !support::have(&["rsync"]) {
        return;
    }
    let step = TimeDelta::hours(support::by_sweep(73, 73, 1));
    let server = Server::new();
    server.write_policy(POLICY);
    let source = server.directory.join("source");
    let root = server.directory.join("root");
    fs::create_dir_all(&source).unwrap();
    fs::create_dir_all(root.join("latest")).unwrap();
    let (clock, notes) = (server.directory.join("clock"), server.directory.join("hooks"));
    let account = if support::is_root() { "uid = root\ngid = root\n" } else { "" };
    let hook = hook_at();
    server.write_rsyncd_conf(&format!(
        "use chroot = no\n{account}[data]\npath = {}\nread only = no\n\
         post-xfer exec = '{}' '{}' '{}'; echo \"$RSYNC_EXIT_STATUS $?\" >> '{}'\n",
        root.join("latest").display(),
        hook.display(),
        clock.display(),
        server.policy.display(),
        notes.display()
    ));
    let daemon = Daemon::serve(&server);
    let mut expectation = Expectation::default();
    let start: DateTime<Utc> = "2025-12-01T00:17:00Z".parse().unwrap();
    let mut time = start;
    let mut pushes = 0;
    while time < start + TimeDelta::days(365) {
        fs::write(&clock, time.to_rfc3339()).unwrap();
        fs::write(source.join("diary"), format!("{time}")).unwrap();
        assert!(daemon.push(&source, "data", &["--ignore-times"]).succeeded());
        pushes += 1;
        let hook = daemon.await_last_hook(pushes);
        assert_eq!((hook.transfer, hook.exit), (0, 0), "{time}");
        expectation.published(&time.format("%Y-%m-%dT%H-%M-%SZ").to_string(), time);
        expectation.rotate(time);
        let expected: Vec<String> = expectation.snapshots.keys().cloned().collect();
        assert_eq!(visible(&root), expected, "{time}");
        time += step;
    }
    assert!(pushes >= 100);
}
