//! `check` behind a real daemon over time: a client that no longer pushes never looks alive, and
//! one that does raises no alarm.

use crate::support;

use std::fs;
use std::path::Path;
use std::process::Child;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use support::daemon::{Daemon, GOOD, client, kill, paired};
use support::module::{Module, ledger};
use support::run::Run;
use support::subvolumes::are_subvolumes;
use support::time::{now, wait_until};
use support::tree;

const HOUR: &str = "[defaults]\nmax_age = \"1h\"\n";

/// Moves the last good push of each client, or of `user`, into the past.
fn age_pushes(module: &Module, minutes: i64, user: Option<&str>) {
    let file = module.private("state.toml");
    let mut state = module.state();
    let clients = state["pushes"]["client"].as_array_mut().expect("clients");
    let earlier = (now() - TimeDelta::minutes(minutes)).to_rfc3339();
    for client in clients {
        let is_it = user.is_none_or(|user| client["who"]["user"].as_str() == Some(user));
        if let Some(good) = client.get_mut("good").filter(|_| is_it) {
            *good = toml::Value::String(earlier.clone());
        }
    }
    fs::write(file, toml::to_string(&state).expect("text")).expect("the state");
}

fn check(module: &Module, code: i32) -> Run {
    module.run(&["check", "data"]).exits(&[code])
}

/// The one client of a module, as `check --json` shows it.
fn clients(module: &Module) -> Vec<Value> {
    let json = module.run(&["check", "data", "--json"]).json();
    json["modules"][0]["clients"].as_array().expect("clients").clone()
}

/// A module to which one good push has come.
fn pushed(module: &Module, source: &Path) {
    let daemon = Daemon::of_pair(module);
    daemon.push(source, "data", &[]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(1), GOOD);
}

#[test]
fn snapshots_from_a_timer_do_not_hide_a_dead_client() {
    slow!();
    let Some((module, source)) = paired() else { return };
    pushed(&module, &source);
    module.write_policy(HOUR);
    check(&module, 0).says("last good push").says("localhost");
    for (minutes, code) in [(30, 0), (90, 1), (150, 2)] {
        age_pushes(&module, minutes, None);
        check(&module, code);
        // What cron runs, with a change by hand and without.
        tree::write(&module.latest.join("by hand"), &minutes.to_string());
        module.run(&["snapshot", "--all"]).exits(&[0]);
        check(&module, code);
        module.run(&["snapshot", "--all"]).exits(&[0]);
        let found = check(&module, code).stdout();
        assert_eq!(found.contains("the last good push ended"), code > 0, "{found}");
    }
    // The client comes back, and changes nothing.
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &["--delete"]).exits(&[0]);
    daemon.await_hooks(2);
    check(&module, 0);
    age_pushes(&module, 150, None);
    daemon.push(&source, "data", &["--delete"]).exits(&[0]);
    daemon.await_hooks(3);
    check(&module, 0);
    // Neither a listing, nor a download, nor a dry run is a push.
    age_pushes(&module, 150, None);
    daemon.list("data").exits(&[0]);
    daemon.pull("data/", &module.directory.join("pulled/")).exits(&[0]);
    daemon.push(&source, "data", &["--dry-run"]).exits(&[0]);
    daemon.await_hooks(6);
    check(&module, 2);
}

#[test]
fn each_client_has_its_own_last_push() {
    slow!();
    let Some((module, source)) = paired() else { return };
    let secrets = module.directory.join("secrets");
    fs::write(&secrets, "anna:a\nberta:b\n").expect("secrets");
    tree::set_mode(&secrets, 0o600);
    let more = format!("auth users = anna, berta\n    secrets file = {}", secrets.display());
    let section = Daemon::pair_section(&module, "data", &module.latest, &more);
    let daemon = Daemon::start(&module, &section);
    let push = |user: &str, password: &str| {
        let url = daemon.url("data/").replace("rsync://", &format!("rsync://{user}@"));
        let source = format!("{}/", source.display());
        let status = client().env("RSYNC_PASSWORD", password).args(["-a", &source, &url]).status();
        assert!(status.expect("a client").success());
    };
    push("anna", "a");
    push("berta", "b");
    daemon.await_hooks(2);
    assert_eq!(clients(&module).len(), 2, "{:?}", clients(&module));

    let policy = "[module.data]\nmax_age = \"1h\"\n[module.data.client.anna]\nmax_age = \"1h\"\n\
                  [module.data.client.berta]\nmax_age = \"1d\"\n";
    module.write_policy(policy);
    check(&module, 0);
    age_pushes(&module, 150, Some("anna"));
    let found = check(&module, 2).stdout();
    assert!(found.contains("client anna: the last good push ended 2h ago"), "{found}");
    assert!(!found.contains("client berta"), "{found}");
    age_pushes(&module, 150, Some("berta"));
    let found = check(&module, 2).stdout();
    assert!(!found.contains("client berta"), "its max_age is a day: {found}");
    push("anna", "a");
    daemon.await_hooks(3);
    check(&module, 0);
    // A name that no client has.
    module.write_policy(&policy.replace("anna", "ana").replace("\"1h\"", "\"1s\""));
    std::thread::sleep(std::time::Duration::from_secs(2));
    check(&module, 2).says("client ana: no good push has ever come").says("anna@");
}

#[test]
fn a_module_that_never_had_a_push_is_critical_after_max_age() {
    slow!();
    let Some((module, source)) = paired() else { return };
    let section = Daemon::pair_section(&module, "data", &module.latest, "");
    let daemon = Daemon::start(&module, &section);
    check(&module, 0);
    module.write_policy(HOUR);
    check(&module, 0).says("no run yet");
    module.write_policy("[defaults]\nmax_age = \"1s\"\n");
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    check(&module, 2).says("no good push has ever come");
    assert!(!module.private(".").exists(), "check changes nothing");
    daemon.list("data").exits(&[0]);
    daemon.await_hooks(1);
    check(&module, 2);
    // One that only reads, or runs no hook, expects none.
    for conf in [section.replace("read only = no", "read only = yes"), plain(&module)] {
        let text = fs::read_to_string(&module.rsyncd_conf).expect("rsyncd.conf");
        module.write_rsyncd_conf(&conf);
        std::thread::sleep(std::time::Duration::from_millis(1_100));
        let found = module.run(&["check", "data"]).stdout();
        assert!(!found.contains("no good push"), "{found}");
        module.write_rsyncd_conf(&text);
    }
    module.write_policy(HOUR);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(2);
    check(&module, 0);
}

fn plain(module: &Module) -> String {
    format!("[data]\npath = {}\nread only = no\n", module.latest.display())
}

/// An edit of rsyncd.conf puts the alarm off only where no timer runs.
#[test]
fn a_timer_notes_since_when_pushes_are_expected() {
    let Some((module, _)) = paired() else { return };
    let section = Daemon::pair_section(&module, "data", &module.latest, "");
    // A daemon of an ordinary user cannot become root.
    let account = if support::is_root() { "uid = root\ngid = root\n" } else { "" };
    let section = format!("{account}{section}");
    module.write_rsyncd_conf(&section);
    module.write_policy("[module.data.client.anna]\nmax_age = \"1d\"\n");
    module.run(&["snapshot", "--all", "--due"]).exits(&[0]);
    let text = fs::read_to_string(module.state_directory().join("expected.toml")).expect("a note");
    assert!(text.contains("anna") && text.matches("[[expected]]").count() == 2, "{text}");
    let since =
        DateTime::<Utc>::from(fs::metadata(&module.rsyncd_conf).unwrap().modified().unwrap());
    std::thread::sleep(std::time::Duration::from_secs(2));
    module.write_rsyncd_conf(&format!("# edited since {since}\n{section}"));
    module.write_policy("[defaults]\nmax_age = \"1s\"\n");
    check(&module, 2).says("no good push has ever come");
    module.write_policy("[defaults]\nmax_age = \"1h\"\n");
    check(&module, 0);
}

#[test]
fn a_directory_that_another_program_fills_is_watched_by_its_snapshots() {
    let Some((module, _)) = paired() else { return };
    module.write_rsyncd_conf("");
    module.write_policy(HOUR);
    let path = module.latest.to_str().expect("a path");
    tree::write(&module.latest.join("file"), "1");
    module.run(&["snapshot", path]).exits(&[0]);
    module.run(&["check", path]).exits(&[0]);
    let found = module.run(&["check", path]).stdout();
    assert!(!found.contains("good push"), "{found}");
    // With `--status`, the caller tells of a push.
    module.run(&["snapshot", path, "--status", "0"]).exits(&[0]);
    module.run(&["check", path]).exits(&[0]).says("a transfer without a daemon");
    age_pushes(&module, 150, None);
    module.run(&["snapshot", path]).exits(&[0]);
    module.run(&["check", path]).exits(&[2]).says("the last good push ended");
    module.run(&["snapshot", path, "--status", "23"]).exits(&[4]);
    module.run(&["check", path]).exits(&[2]).says("status 23: some files could not be read");
    module.run(&["snapshot", path, "--status", "0"]).exits(&[0, 4]);
    let json = module.run(&["check", path, "--json"]).json();
    assert_eq!(json["modules"][0]["clients"][0]["last_failed_push"]["status"], 23, "{json}");
}

#[test]
fn a_failed_push_is_told_with_its_status_and_what_to_type() {
    let Some((module, source)) = paired() else { return };
    pushed(&module, &source);
    let daemon = Daemon::of_pair(&module);
    let slow = start_slow_push(&daemon, &module);
    kill(slow);
    daemon.await_hooks(2);
    let found = check(&module, 1);
    let found = found.says("torn since").says("status 12: the connection broke");
    found
        .says("rsyncd-snapshot release data --torn")
        .says("run the same push again on that client");
    let client = clients(&module).remove(0);
    assert_eq!(client["last_failed_push"]["status"], 12, "{client}");
    assert!(client["last_failed_push"]["free_bytes"].is_number(), "{client}");
    assert!(client["last_good_push"].is_string(), "it is kept: {client}");
    assert!(client["last_snapshot"].is_string(), "{client}");
    // A day later `check` says that nothing has made up for it.
    let mut state = module.state();
    state["torn"]["since"] = toml::Value::String((now() - TimeDelta::hours(75)).to_rfc3339());
    fs::write(module.private("state.toml"), toml::to_string(&state).expect("text")).expect("it");
    check(&module, 1).says("for 3d now");
    module.run(&["release", "data", "--torn"]).exits(&[0]);
    check(&module, 0).says("a push of localhost failed");
}

fn start_slow_push(daemon: &Daemon, module: &Module) -> Child {
    let source = module.directory.join("large source");
    fs::create_dir_all(source.join("b")).expect("a directory");
    tree::write(&source.join("b/arrives first"), "1");
    fs::write(source.join("b/zz large"), vec![b'x'; 1 << 20]).expect("a large file");
    let client = daemon.push_slowly(&source, "data");
    wait_until("the first file has arrived", || module.latest.join("b/arrives first").exists());
    client
}

#[test]
fn a_running_push_is_named_and_one_that_hangs_is_a_warning() {
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    for count in 1..=3 {
        daemon.push(&source, "data", &[]).exits(&[0]);
        daemon.await_hooks(count);
    }
    let slow = start_slow_push(&daemon, &module);
    wait_until("the push is entered", || ledger(&module).len() == 1);
    let found = check(&module, 0).says("a push of localhost has been running since");
    wait_until("bytes are told", || {
        module.run(&["check", "data"]).stdout().contains("written so far")
    });
    assert!(!found.stdout().contains("as usual"), "{found}");
    // As if it had begun in the morning, by a boot clock that says nothing about it.
    let file = module.private("transfers").join(&ledger(&module)[0]);
    let mut entry: toml::Table = fs::read_to_string(&file).expect("it").parse().expect("an entry");
    entry["began"] = toml::Value::String((now() - TimeDelta::hours(5)).to_rfc3339());
    entry["began_at"]["boot"] = toml::Value::String("another".to_string());
    fs::write(&file, entry.to_string()).expect("an entry");
    check(&module, 1).says("more than 10 times as long as usual").says("run `kill ");
    kill(slow);
    daemon.await_hooks(4);
}

#[test]
fn a_hook_at_work_on_the_first_snapshot_is_no_alarm() {
    let Some((module, _)) = paired() else { return };
    module.register();
    fs::write(module.private("lock"), "").expect("the lock");
    module.write_policy(HOUR);
    check(&module, 1).says("no complete snapshot yet");
    let lock = module.hold_lock();
    let since = now().format("%FT%TZ");
    let text = format!("process {} for data (run by hand) since {since}\n", std::process::id());
    fs::write(module.private("lock"), text).expect("its holder");
    check(&module, 0).says("a run is at work: process").says("one is being made");
    drop(lock);
    check(&module, 1);
}

#[test]
fn an_earlier_version_that_noted_no_pushes_raises_no_alarm() {
    let Some((module, source)) = paired() else { return };
    pushed(&module, &source);
    module.write_policy(HOUR);
    let mut state = module.state();
    state.remove("pushes");
    fs::write(module.private("state.toml"), toml::to_string(&state).expect("text")).expect("it");
    check(&module, 0);
    // From its first run on, this version takes no timer's run for a push.
    module.run(&["snapshot", "data"]).exits(&[0]);
    check(&module, 0);
    let mut state = module.state();
    let earlier = (now() - TimeDelta::minutes(150)).to_rfc3339();
    state["pushes"]["since"] = toml::Value::String(earlier);
    fs::write(module.private("state.toml"), toml::to_string(&state).expect("text")).expect("it");
    module.run(&["snapshot", "data"]).exits(&[0]);
    check(&module, 2).says("the last good push ended");
}

/// Three pushes that fail in different ways are no less an alarm than three that fail alike.
#[test]
fn pushes_that_bring_nothing_complete_are_counted_whatever_the_reasons() {
    let Some((module, _)) = paired() else { return };
    tree::small(&module.latest);
    module.expect_snapshot();
    module.write_policy("[defaults]\npartial_on_exit = [23]\n");
    for status in [23, 25, 23] {
        assert!(
            !check(&module, i32::from(module.is_marked("torn"))).stdout().contains("pushes, since")
        );
        tree::write(&module.latest.join("file"), &format!("{}", now()));
        module.run_hook_after(status);
    }
    let found = check(&module, 1).says("the last 3 pushes").says("snapshot_on_exit = [0, 23, 24]");
    found.says("[module.data]");
}

#[test]
fn nothing_is_synced_more_often_than_before_pushes_were_noted() {
    if !support::have(&["strace"]) {
        return;
    }
    let Some((module, _)) = paired() else { return };
    tree::small(&module.latest);
    module.expect_snapshot();
    let trace = module.directory.join("trace");
    let strace = ["strace", "-f", "-e", "trace=fsync,fdatasync,syncfs", "-o"];
    let syncs = |status: &str| {
        let mut words: Vec<&str> = strace.to_vec();
        words.push(trace.to_str().expect("a path"));
        Run::of(module.hook_through(&words).env("RSYNC_EXIT_STATUS", status));
        let text = fs::read_to_string(&trace).expect("a trace");
        text.lines().filter(|line| line.contains("sync")).count()
    };
    let unchanged = syncs("0");
    if are_subvolumes() {
        // That run made a snapshot to compare, and removed it. The next one sees at once that
        // nothing has changed, and writes the state alone.
        return assert_eq!(syncs("0"), 3, "the module, the draft of the state, its name");
    }
    assert_eq!(unchanged, 4, "the record, its name, the draft of the state, the state's name");
}

/// A crash of the machine before pre-xfer let the push in may leave a file of zeros.
#[test]
fn an_unwritten_entry_of_an_earlier_boot_is_no_failed_push() {
    let Some((module, source)) = paired() else { return };
    pushed(&module, &source);
    let daemon = Daemon::of_pair(&module);
    let slow = start_slow_push(&daemon, &module);
    let name = ledger(&module).remove(0);
    kill(slow);
    daemon.await_hooks(2);
    module.run(&["release", "data", "--torn"]).exits(&[0]);
    let parts: Vec<&str> = name.split('-').collect();
    let boot = if parts[1] == "00000000" { "00000001" } else { "00000000" };
    let entry = module.private("transfers").join(format!("{}-{boot}-{}-7", parts[0], parts[2]));
    for (content, is_push) in
        [(vec![0; 700], false), (b"format = 1\nkind = \"new\"\n".to_vec(), true)]
    {
        fs::write(&entry, content).expect("an entry");
        check(&module, i32::from(is_push));
        daemon.list("data").exits(&[0]);
        daemon.await_hooks(if is_push { 4 } else { 3 });
        assert!(!entry.exists());
        assert_eq!(module.is_marked("torn"), is_push, "{:?}", module.state());
    }
}

#[test]
fn an_entry_of_a_newer_version_is_refused_and_kept() {
    let Some((module, source)) = paired() else { return };
    pushed(&module, &source);
    let entry = module.private("transfers/4711");
    fs::write(&entry, "format = 3\nkind = \"new\"\n").expect("an entry");
    let run = module.run(&["snapshot", "data"]).exits(&[1]).says("newer version");
    assert!(!run.stderr().contains("disk"), "{run}");
    let found = check(&module, 2).says("newer version").stdout();
    assert_eq!(found.matches("newer version").count(), 1, "{found}");
    assert!(entry.exists() && !module.is_marked("torn"), "{:?}", module.state());
    fs::remove_file(&entry).expect("removed");
    module.run(&["snapshot", "data"]).exits(&[0]);
    check(&module, 0);
}
