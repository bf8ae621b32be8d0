//! A real daemon under load: clients that push, pull, list and die at random, and a server side
//! that suffers.
//!
//! In a normal run a few clients for some seconds; with `RSYNCD_SNAPSHOT_SWEEP=full` 50 clients and
//! 20 modules for five minutes. `RSYNCD_SNAPSHOT_LOAD_SECONDS` says how long,
//! `RSYNCD_SNAPSHOT_LOAD_CLIENTS` how many, `RSYNCD_SNAPSHOT_SEED` what happens: what each client
//! does is decided by the seed that a failure names, although never at quite the same moments
//! again. `RSYNCD_SNAPSHOT_LOAD_KEEP=1` leaves the server's directory behind.

use crate::{load_rig as load, support};

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use load::client::Client;
use load::note::{self, Hooks};
use load::process::await_quiet;
use load::site::Site;
use load::size::{Size, seed_of_this_moment};
use load::source::{Change, Source};
use load::storm::{judge, storm};
use support::daemon::Daemon;
use support::have;
use support::module::Module;
use support::random::Random;
use support::run::{Run, tool};
use support::server::{QUIET_POLICY, Server};
use support::time::name_of_age;
use support::{fingerprint, tree};

#[test]
fn a_storm_tears_no_snapshot_and_loses_no_push() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let size = Size::of_this_run();
    let hooks = match std::env::var_os("RSYNCD_SNAPSHOT_LOAD_HOOKS") {
        Some(hooks) if hooks == "post" => Hooks::PostOnly,
        _ => Hooks::Pair,
    };
    let violations = storm(size, hooks);
    let count = violations.len();
    let told = violations.join("\n");
    assert!(count == 0, "{count} violations, RSYNCD_SNAPSHOT_SEED={}:\n{told}", size.seed);
}

#[test]
fn without_the_pair_the_same_storm_tears_snapshots() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let seed = seed_of_this_moment();
    let tears = (seed..seed + 5).any(|seed| {
        let size = Size { clients: 8, modules: 2, seconds: 4, seed };
        storm(size, Hooks::PostOnly).iter().any(|violation| violation.starts_with("torn"))
    });
    assert!(tears, "seeds {seed} to {}: five storms found nothing", seed + 4);
}

/// A server after two pushes by one client, and what it did.
fn after_two_pushes() -> (Site, Vec<load::event::Event>) {
    let site = Site::new(Size { clients: 1, modules: 1, seconds: 0, seed: 1 }, Hooks::PostOnly);
    let daemon = Daemon::start(&site.server, &site.sections());
    let mut client = Client::new(&site, 0, &daemon.url(""));
    let events = (0..2)
        .map(|_| {
            let event = client.calm_push();
            assert!(
                await_quiet(&site.server, daemon.process_id(), Duration::from_secs(30)).is_empty()
            );
            event
        })
        .collect();
    drop(client);
    drop(daemon);
    (site, events)
}

#[test]
fn the_verdict_notices_each_thing_that_it_is_there_for() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    type Damage = fn(root: &Path, newest: &Path);
    let damages: [(&str, Damage); 4] = [
        ("torn", |_, newest| tree::write(&newest.join("c00/zz/more"), "x")),
        ("lost", |_, newest| fs::remove_dir_all(newest).expect("removed")),
        ("twice", |root, newest| {
            let again = root.join("2099-01-01T00-00-00Z");
            Run::of(tool("cp").arg("-al").arg(newest).arg(again)).exits(&[0]);
        }),
        ("left", |root, _| {
            fs::create_dir_all(root.join(".rsyncd-snapshot/transfers")).expect("a directory");
            fs::write(root.join(".rsyncd-snapshot/transfers/4711"), "").expect("an entry");
        }),
    ];
    for (word, damage) in damages {
        let (site, events) = after_two_pushes();
        assert_eq!(judge(&site, &events), [""; 0], "before {word}");
        let root = &site.modules[0].root;
        damage(root, &root.join(site.modules[0].complete().pop().expect("a snapshot")));
        let violations = judge(&site, &events);
        assert!(
            violations.iter().any(|violation| violation.starts_with(word)),
            "{word}: {violations:?}"
        );
    }
}

#[test]
fn the_manifest_is_the_last_file_of_a_push() {
    if !have(&["rsync"]) {
        return;
    }
    let server = Server::new();
    let mut random = Random::new(1);
    let mut source = Source::new(server.directory.join("source"), "somebody", &mut random);
    let module = server.directory.join("module");
    fs::create_dir(&module).expect("the module");
    let section = format!(
        "[data]\n    path = {}\n    read only = no\n    transfer logging = yes\n    log format = took %f\n",
        module.display()
    );
    let daemon = Daemon::start(&server, &section);
    for options in
        [&[][..], &["--delete"], &["--delay-updates"], &["--no-inc-recursive"], &["--checksum"]]
    {
        source.change(Change::Large, &mut random);
        source.litter();
        let before = received(&server.directory).len();
        daemon.push(&source.directory, "data", options).exits(&[0]);
        let files = received(&server.directory).split_off(before);
        assert!(files.len() > 2, "{options:?}: {files:?}");
        let last = files.last().expect("counted");
        assert!(last.ends_with("zz/manifest"), "{options:?}: {last} came last");
    }
}

/// The files that the daemon has received, directories not counted.
fn received(server: &Path) -> Vec<String> {
    let log = fs::read_to_string(server.join("rsyncd.log")).expect("its log");
    let files = log.lines().filter_map(|line| Some(line.split_once("] took ")?.1.to_string()));
    files.filter(|path| !path.ends_with('/')).collect()
}

/// Expires all but the newest snapshots as soon as anything rotates.
const GREEDY: &str =
    "[defaults]\nkeep = { minutely = 1 }\nmin_keep = 1\nmin_age = \"0s\"\nlock_wait = \"20s\"\n";

#[test]
fn listings_pulls_and_dry_runs_make_no_snapshot_and_expire_nothing() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let count = support::by_sweep(50, 100, 10_000);
    let module = Module::new();
    let source = support::daemon::source(&module);
    let sections = format!(
        "[data]\n    path = {}\n    read only = no\n{}",
        module.latest.display(),
        Hooks::Pair.settings(&module, "post-xfer")
    );
    let daemon = Daemon::start(&module, &sections);
    let wait = || await_quiet(&module, daemon.process_id(), Duration::from_secs(60));
    module.write_policy(QUIET_POLICY);
    daemon.push(&source, "data", &[]).exits(&[0]);
    assert!(wait().is_empty(), "the hook of the first push ends");
    for days in 1..=30 {
        module.make_old_snapshot(&name_of_age(chrono::TimeDelta::days(days)));
    }
    module.write_policy(GREEDY);
    tree::write(&source.join("not yet pushed"), "x");
    let (before, snapshots) = (remembered(&module), module.snapshots());
    assert_eq!(snapshots.len(), 31);

    thread::scope(|scope| {
        for reader in 0..4 {
            let (daemon, module, source) = (&daemon, &module, &source);
            scope.spawn(move || {
                for number in (reader..count).step_by(4) {
                    match number % 10 {
                        8 => {
                            daemon.pull("data/", &module.directory.join(format!("pulled {reader}")))
                        }
                        9 => daemon.push(source, "data", &["--dry-run", "--delete"]),
                        _ => daemon.list("data"),
                    }
                    .exits(&[0]);
                }
            });
        }
    });
    assert!(wait().is_empty(), "all hooks end");

    assert_eq!(module.snapshots(), snapshots);
    assert_eq!(differing(&before, &remembered(&module)), [""; 0], "nothing is written for them");
    let notes = note::read(&module);
    let hooks =
        |is_pre: bool| notes.iter().filter(|note| note.is_pre == is_pre && note.exit == 0).count();
    assert_eq!(
        (hooks(true), hooks(false)),
        (count + 1, count + 1),
        "both hooks ran, and ended well"
    );

    // The same policy, and a client that does push.
    daemon.push(&source, "data", &[]).exits(&[0]);
    assert!(wait().is_empty(), "the hook of the last push ends");
    assert!(module.snapshots().len() < snapshots.len() / 2, "{:?}", module.snapshots());
}

/// All that the program has written about the module, by path.
fn remembered(module: &Module) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut contents = fingerprint::contents(&module.private(""));
    let elsewhere = fingerprint::contents(&module.state_directory());
    contents.extend(
        elsewhere.into_iter().map(|(path, bytes)| (Path::new("elsewhere").join(path), bytes)),
    );
    contents
}

fn differing(left: &BTreeMap<PathBuf, Vec<u8>>, right: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<String> {
    let paths: std::collections::BTreeSet<&PathBuf> = left.keys().chain(right.keys()).collect();
    let different = paths.into_iter().filter(|path| left.get(*path) != right.get(*path));
    different.map(|path| path.display().to_string()).collect()
}
