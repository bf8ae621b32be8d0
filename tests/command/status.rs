//! `status`: one line for each module, the worst first, and all of it with `-v`.

use crate::support;

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde_json::Value;
use support::module::Module;
use support::run::{Run, tool};
use support::terminal::script;
use support::time::name_of_age;
use support::{AS_ORDINARY_USER, have, is_root, tree};

/// A process in place of the one that serves a connection; ended when this value is dropped.
pub(crate) struct Connection(Child);

impl Connection {
    pub(crate) fn new() -> Self {
        let mut sleep = tool("sleep");
        Connection(sleep.arg("600").stdout(Stdio::null()).spawn().expect("a process"))
    }

    /// pre-xfer before a push of this connection.
    pub(crate) fn begin(&self, module: &Module) {
        let section = module.rsyncd_conf_section("data", &module.latest);
        let gate = format!("pre-xfer exec = {} pre-xfer\n", module.program.display());
        module.write_rsyncd_conf(&(section + &gate));
        let mut gate = module.gate_through(&[""; 0]);
        Run::of(gate.env("RSYNC_PID", self.0.id().to_string())).exits(&[0]);
    }

    /// post-xfer after it.
    fn end(&self, module: &Module, status: &str) {
        let mut hook = module.hook();
        hook.env("RSYNC_PID", self.0.id().to_string()).env("RSYNC_EXIT_STATUS", status);
        Run::of(&mut hook).exits(&[0, 4]);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("gone");
    }
}

/// The status of the module `name`.
fn status(module: &Module, name: &str) -> Value {
    let all = module.run(&["status", "--json"]).exits(&[0]).json();
    let found = all.as_array().expect("a list").iter().find(|one| one["module"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {all}")).clone()
}

/// A push to the module breaks off half-way.
fn tear(module: &Module) {
    let connection = Connection::new();
    connection.begin(module);
    tree::write(&module.latest.join("half"), "x");
    connection.end(module, "12");
}

/// Gives the server a second module of that name with one snapshot.
fn second(module: &Module, name: &str) {
    let other = module.directory.join("second/latest");
    fs::create_dir_all(&other).expect("the other module");
    tree::set_mode(&module.directory.join("second"), 0o700);
    let sections = [
        module.rsyncd_conf_section("data", &module.latest),
        module.rsyncd_conf_section(name, &other),
    ];
    module.write_rsyncd_conf(&sections.concat());
    module.run(&["snapshot", name]).exits(&[0]);
}

#[test]
fn the_worst_module_comes_first_with_its_reason_below() {
    let (module, newest) = Module::with_snapshot();
    tear(&module);
    second(&module, "well");
    let text = module.run(&["status"]).exits(&[0]).stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("MODULE") && !lines[0].contains("NEXT EXPIRY"), "{text}");
    assert!(lines[1].starts_with("data") && lines[1].contains("WARNING"), "{text}");
    assert!(lines[1].contains(&newest) && lines[1].contains("failed"), "{text}");
    let torn = "  torn since ";
    assert!(lines[2].starts_with(torn) && lines[2].contains("192.0.2.7"), "{text}");
    let well = lines.iter().position(|line| line.starts_with("well")).expect("its line");
    assert!(lines[well].contains("OK") && well == lines.len() - 1, "{text}");

    let quiet = module.run(&["status", "-q"]).exits(&[0]).stdout();
    assert!(quiet.contains("\ndata") && !quiet.contains("well"), "{quiet}");
    module.run(&["release", "data", "--torn"]).exits(&[0]);
    let run = module.run(&["status", "-q"]).exits(&[0]);
    assert_eq!((run.stdout(), run.stderr()), (String::new(), String::new()));
}

#[test]
fn json_tells_what_the_line_tells() {
    let (module, newest) = Module::with_snapshot();
    let found = status(&module, "data");
    let root = &found["root"];
    assert_eq!((&found["status"], &root["newest_complete"]), (&"ok".into(), &newest.into()));
    assert_eq!(root["snapshot_root"], module.root.to_str().expect("UTF-8"));
    assert!(root["free_bytes"].as_u64() < root["total_bytes"].as_u64(), "{root}");
    for unknown in ["lock_holder", "due_since", "torn_since", "pause", "next_expiry"] {
        assert_eq!(root[unknown], Value::Null, "{unknown}: {root}");
    }

    tear(&module);
    let root = &status(&module, "data")["root"];
    assert_eq!((&root["last_push"]["status"], root["torn_since"].is_string()), (&12.into(), true));
    assert_eq!(root["last_push"]["meaning"], "the connection broke, or the client was stopped");
    assert!(root["torn_by"][0].as_str().expect("a push").contains("192.0.2.7"), "{root}");
}

/// The same as `check` says, with the command that helps.
#[test]
fn a_named_module_is_told_in_full() {
    let (module, newest) = Module::with_snapshot();
    tear(&module);
    let text = module.run(&["status", "-v", "data"]).exits(&[0]).stdout();
    assert!(text.starts_with("data: WARNING\n"), "{text}");
    let conf = module.rsyncd_conf.display();
    let policy = module.policy.display();
    for told in [
        format!("snapshots in      {}", module.root.display()),
        format!("newest complete   {newest}, equalled the module "),
        "status 12: the connection broke".to_string(),
        format!("`rsyncd-snapshot release data --torn --config {policy} --rsyncd-conf {conf}`"),
    ] {
        assert!(text.contains(&told), "no {told:?} in {text}");
    }
    let check = module.run(&["check", "data"]).exits(&[1]).stdout();
    let torn = check.lines().find(|line| line.contains("torn since")).expect("the alert");
    let torn = torn.strip_prefix("WARNING - data: ").expect("its level");
    let torn = torn.split("; 1 more problem").next().expect("its text");
    assert!(text.contains(&format!("  WARNING - {torn}\n")), "{torn}\n{text}");
}

#[test]
fn a_running_push_and_a_due_snapshot_are_told() {
    let (module, _) = Module::with_snapshot();
    let connection = Connection::new();
    connection.begin(&module);
    let pushes = status(&module, "data")["root"]["running_pushes"].clone();
    assert_eq!(pushes[0]["pid"], connection.0.id(), "{pushes}");
    assert_eq!(pushes[0]["client"], "laptop.example", "{pushes}");
    module.run(&["status"]).exits(&[0]).says("\n  a push of laptop.example has been running ");
    // Its hook never runs.
    drop(connection);
    let run = module.run(&["status", "data"]).exits(&[0]);
    run.says("\n  the push of address 192.0.2.7 (process ");
    assert_eq!(status(&module, "data")["status"], "warning");
}

#[test]
fn the_run_that_holds_the_lock_is_told_with_its_phase_and_not_waited_for() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let (module, _) = Module::with_snapshot();
    tree::write(&module.latest.join("more"), "x");
    let mut run = super::waiting::begin_slow_snapshot(&module);
    let began = Instant::now();
    let root = status(&module, "data")["root"].clone();
    module.run(&["status"]).exits(&[0]).says("\n  a run is at work: process ");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(root["lock_phase"], "writing to the disk", "{root}");
    assert!(root["lock_since"].is_string() && root["lock_pid"].is_u64(), "{root}");
    assert!(run.0.wait().expect("an end").success());
    assert_eq!(status(&module, "data")["root"]["lock_holder"], Value::Null);
}

#[test]
fn the_next_expiry_is_that_of_the_plan() {
    let (module, _) = Module::with_snapshot();
    module.write_policy(
        "[defaults]\nkeep = { daily = 5 }\nmin_keep = 1\nmin_age = \"0s\"\ntime_zone = \"UTC\"\n",
    );
    (1..4).for_each(|days| module.make_old_snapshot(&name_of_age(TimeDelta::days(days))));
    let plan = module.json(&["plan", "data", "--json"]);
    let snapshots = plan["snapshots"].as_array().expect("snapshots");
    let first = snapshots.iter().filter(|one| one["expires_at"].is_string());
    let first = first.min_by_key(|one| one["expires_at"].as_str()).expect("one that goes");
    let root = &status(&module, "data")["root"];
    assert_eq!(root["next_expiry"], first["name"], "{root}");
    let time = |text: &Value| {
        let text = text.as_str().expect("a time");
        chrono::DateTime::parse_from_rfc3339(text).expect("RFC 3339").timestamp()
    };
    let apart = time(&root["next_expiry_time"]) - time(&first["expires_at"]);
    assert!(apart.abs() < 60, "{apart} s: {root}");
}

#[test]
fn lost_and_broken_roots_are_told_beside_the_others() {
    let (module, _) = Module::with_snapshot();
    second(&module, "od\u{1b}d");
    fs::remove_dir_all(&module.latest).expect("removed");
    let run = module.run(&["status"]).exits(&[0]);
    run.says("data").says("CRITICAL").says("  the module directory ").says("od\\x1bd");
    assert_eq!(status(&module, "data")["findings"][0]["id"], "module-directory");
    assert!(status(&module, "data")["root"]["newest_complete"].is_string());

    fs::create_dir(&module.latest).expect("made");
    let state = module.private("state.toml");
    fs::write(&state, "format = 99\n").expect("written");
    let found = status(&module, "data");
    assert_eq!((&found["status"], &found["root"]), (&"critical".into(), &Value::Null));
    fs::remove_dir_all(&module.root).expect("removed");
    assert_eq!(status(&module, "data")["status"], "critical");

    module.write_policy("[defaults]\nkeep = 7\n");
    assert_eq!(status(&module, "policy")["status"], "critical");
    fs::remove_file(&module.rsyncd_conf).expect("removed");
    module.run(&["status"]).exits(&[2]);
}

#[test]
fn several_modules_can_be_named_and_a_wrong_name_hides_none() {
    let (module, _) = Module::with_snapshot();
    second(&module, "well");
    let run = module.run(&["status", "well", "datta", "data"]).exits(&[2]);
    run.says("did you mean data?").says("\ndata ").says("\nwell ");
    module.run(&["status", "datta"]).exits(&[2]).says("did you mean data?");
    let fresh = module.directory.join("third/latest");
    fs::create_dir_all(&fresh).expect("a module");
    tree::set_mode(&module.directory.join("third"), 0o700);
    module.write_rsyncd_conf(&module.rsyncd_conf_section("fresh", &fresh));
    assert_eq!(status(&module, "fresh")["findings"][0]["message"], "no run yet");
}

#[test]
fn an_ordinary_user_is_told_that_the_state_is_unknown() {
    if !is_root() || !have(&["setpriv"]) {
        return;
    }
    let (mut module, _) = Module::with_snapshot();
    let program = module.directory.join("program");
    support::run::copy_program(support::BINARY.as_ref(), &program);
    module.server.program = program;
    let mut command = module.command_through(&AS_ORDINARY_USER, &["status"]);
    Run::of(&mut command).exits(&[0]).says("UNKNOWN").says("  cannot tell how the backups are: ");
}

#[test]
fn a_terminal_of_eighty_columns_wraps_no_line() {
    if !have(&["script"]) {
        return;
    }
    let (module, _) = Module::with_snapshot();
    tear(&module);
    second(&module, &"long".repeat(30));
    let (policy, conf) = (module.policy.display(), module.rsyncd_conf.display());
    let command = format!("{} --config {policy} --rsyncd-conf {conf} status", support::BINARY);
    let mut script = script(&module);
    let shown = Run::of(script.env("COLUMNS", "80").args(["-qec", &command, "/dev/null"]))
        .exits(&[0])
        .stdout();
    assert!(shown.contains("\n  torn since ") && shown.contains("\n…"), "{shown}");
    let widest = shown.lines().map(|line| line.trim_end().chars().count()).max();
    assert!(widest.is_some_and(|widest| widest <= 80), "{shown}");
    // A pipe gets all of it.
    let whole = module.run(&["status"]).exits(&[0]).stdout();
    assert!(whole.contains(&"long".repeat(30)) && whole.contains("release data --torn"), "{whole}");
}
