//! A year of pushes: what is on disk after each is exactly what `rotation.md` promises.
//!
//! The time is passed in. Once every hour of ten weeks goes through the whole pipeline in this
//! process (lock, compare, clone, publish, rotate, remove), with quiet nights and failed transfers;
//! once a real rsync daemon runs the hook for pushes spread over a year. With
//! `RSYNCD_SNAPSHOT_SWEEP=full` both get every hour of a year.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use rsyncd_snapshot::decide::client::Client;
use rsyncd_snapshot::decide::verdict_facts::AllowedSnapshot;
use rsyncd_snapshot::internals::{Clock, Ending, MachineMemory, Request, Settings, Target, order};
use support::apart;
use support::daemon::Daemon;
use support::fingerprint;
use support::module::visible;
use support::server::Server;
use support::simulated::hook_at;
use support::subvolumes::{are_subvolumes, make_module_directory};

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
    slow!();
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

/// What the module was when each snapshot was taken, by `cp -a`.
struct Copies {
    copies: PathBuf,
    root: PathBuf,
}

impl Copies {
    fn new(copies: &Path, root: &Path) -> Self {
        fs::create_dir(copies).unwrap();
        Copies { copies: copies.to_path_buf(), root: root.to_path_buf() }
    }

    fn add(&mut self, name: &str, module: &Path) {
        let copied = Command::new("cp").arg("-a").arg(module).arg(self.copies.join(name)).status();
        assert!(copied.is_ok_and(|copied| copied.success()));
    }

    /// Each snapshot that is there equals its copy. Copies of the others go.
    fn compare(&mut self, snapshots: &[String]) {
        for copy in fs::read_dir(&self.copies).unwrap() {
            let path = copy.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if snapshots.contains(&name) {
                let snapshot = self.root.join(&name);
                let of = |tree: &Path| fingerprint::without_inodes(&fingerprint::of(tree));
                assert_eq!(of(&snapshot), of(&path), "{name}");
                let contents = fingerprint::contents;
                assert_eq!(contents(&snapshot), contents(&path), "{name}");
            } else {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
}

fn push_each_hour(grace: &str) {
    // Syncing is what a year would spend its time on, and in memory it costs nothing.
    let in_memory = (!are_subvolumes()).then(|| tempfile::tempdir_in("/dev/shm").ok()).flatten();
    let scratch = in_memory.unwrap_or_else(|| tempfile::tempdir().expect("a scratch directory"));
    let policy = scratch.path().join("policy.toml");
    fs::write(&policy, format!("{POLICY}grace = \"{grace}\"\n")).unwrap();
    let module = scratch.path().join("root/latest");
    fs::create_dir(scratch.path().join("root")).unwrap();
    make_module_directory(&module);
    fs::create_dir(module.join("documents")).unwrap();
    let mut copies = Copies::new(&scratch.path().join("copies"), &scratch.path().join("root"));
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
        if changes && are_subvolumes() {
            // No snapshot of hard links outlives this unchanged.
            fs::write(module.join("documents/log"), time.to_rfc3339()).unwrap();
            let mode = fs::Permissions::from_mode(if hour % 2 == 0 { 0o600 } else { 0o644 });
            fs::set_permissions(module.join("documents/log"), mode).unwrap();
            // What changes just before its snapshot is made counts as changed since, and in the
            // night that would make a difference to the time until which the snapshot was the
            // present.
            if time.hour() == 23 {
                std::thread::sleep(std::time::Duration::from_millis(60));
            }
        }
        let allowed = if status == 0 { AllowedSnapshot::Complete } else { AllowedSnapshot::None };
        let request = Request::transfer(allowed, status, Client::default());
        let report = order::run(&target, &request, &Clock::standing(time)).expect("a run");
        let made = report.snapshot.as_deref().filter(|_| report.ending == Ending::Published);
        cost.count(&scratch.path().join("root"), made);
        match report.ending {
            Ending::Published => {
                let name = report.snapshot.unwrap();
                copies.add(&name, &module);
                expectation.published(&name, time);
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
        if hour % 100 == 0 {
            copies.compare(&expected);
        }
        time += TimeDelta::hours(1);
    }
    copies.compare(&visible(&scratch.path().join("root")));
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
    slow!();
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
