//! `check` about the policy that hooks name, modules that no push has come to, restore modules
//! without hooks, two daemons on one machine, and the commands in its messages.

use crate::doctor::Patient;
use crate::support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::BINARY;
use support::daemon::Daemon;
use support::module::names_in;
use support::run::{PATH, Run, tool};
use support::tree;

/// A program in the environment of the server, without options.
pub(crate) fn in_environment<'a>(patient: &Patient, command: &'a mut Command) -> &'a mut Command {
    command
        .env_clear()
        .env("PATH", PATH)
        .env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", patient.module.state_directory())
        .env("RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY", patient.module.runtime_directory())
}

/// `check` without a policy on its command line.
fn check_by_hooks(patient: &Patient) -> Run {
    let mut command = Command::new(BINARY);
    let conf = &patient.module.rsyncd_conf;
    Run::of(in_environment(patient, &mut command).arg("check").arg("--rsyncd-conf").arg(conf))
}

#[test]
fn a_module_is_judged_by_the_policy_that_its_hooks_name() {
    let Some(patient) = Patient::new() else { return };
    let directory = &patient.module.directory;
    let (other, root) = (directory.join("other.toml"), directory.join("root2"));
    fs::create_dir(&root).expect("a directory");
    tree::set_mode(&root, 0o700);
    let named = other.display().to_string();
    let policy = patient.module.policy.display().to_string();
    patient.write(&patient.good().replace(&policy, &named));

    fs::write(&other, "[defaults]\nmax_agee = \"1d\"\n").expect("written");
    check_by_hooks(&patient).exits(&[2]).says("max_agee").says(&named);
    // The one that this `check` is told to judge by has no mistake, the other has.
    patient.module.run(&["check"]).exits(&[2]).says("max_agee").says(&named).says(&policy);

    fs::write(&other, format!("[defaults]\nsnapshot_root = \"{}\"\n", root.display()))
        .expect("written");
    check_by_hooks(&patient).exits(&[0]).says(&format!("use the policy {named}"));
    patient.module.run(&["check"]).exits(&[0]).says(&named).says(&policy);
    let daemon = Daemon::serve(&patient.module);
    patient.push_as(&daemon, "").exits(&[0]);
    patient.await_snapshot(&daemon, &root, 1);
    let found = check_by_hooks(&patient).exits(&[0]);
    assert!(!found.stdout().contains("history"), "{found}");
}

#[test]
fn a_module_of_unknown_path_that_never_had_a_push_is_critical() {
    let Some(patient) = Patient::new() else { return };
    let latest = patient.module.latest.display().to_string();
    let secrets = patient.module.directory.join("secrets");
    fs::write(&secrets, "anna:secret\n").expect("secrets");
    tree::set_mode(&secrets, 0o600);
    patient.write(&format!(
        "{}auth users = anna\nsecrets file = {}\n",
        patient.good().replace(&latest, &format!("{latest}/%RSYNC_USER_NAME%")),
        secrets.display()
    ));
    patient.module.run(&["snapshot", "--all", "--due"]).exits(&[0]);
    patient.module.write_policy("[defaults]\nmax_age = \"1d\"\n");
    patient.is_well();
    patient.module.write_policy("[defaults]\nmax_age = \"1s\"\n");
    std::thread::sleep(Duration::from_millis(2_100));
    patient.is_told("push-age", "critical", "no good push has ever come");
    patient.module.run(&["check", "data"]).exits(&[2]).says("no good push has ever come");
}

#[test]
fn a_restore_module_without_hooks_is_told_the_lines() {
    let Some(patient) = Patient::new() else { return };
    let restore = |hooks: &str| {
        let root = patient.module.root.display();
        patient.write(&format!("{}[restore]\npath = {root}\n{hooks}\n", patient.good()));
    };
    restore("");
    let found = patient.module.run(&["check"]).exits(&[0]).says("restore: ");
    let found = found.says("files of two states").stdout();
    let line = |parameter: &str| {
        let begin = found.find(&format!("`{parameter} = ")).expect("a line") + 1;
        found[begin..].split('`').next().expect("text").to_string()
    };
    let lines = format!("{}\n{}", line("pre-xfer exec"), line("post-xfer exec"));
    restore(&lines);
    let found = patient.module.run(&["check"]).exits(&[0]).stdout();
    assert!(!found.contains("two states"), "{found}");
    let daemon = Daemon::serve(&patient.module);
    patient.push_as(&daemon, "").exits(&[0]);
    patient.await_snapshot(&daemon, &patient.module.root, 1);
    daemon.list("restore").exits(&[0]);
    daemon.await_connections();
    patient.is_well();
}

#[test]
fn a_command_in_a_message_works_as_it_is_printed() {
    // A name that could be an option stands for its directory.
    ["data", "-data", "a b"].into_iter().for_each(a_command_works_as_it_is_printed);
}

fn a_command_works_as_it_is_printed(name: &str) {
    let Some(patient) = Patient::new() else { return };
    patient.write(&patient.good().replace("[data]", &format!("[{name}]")));
    let daemon = Daemon::serve(&patient.module);
    daemon.push(&patient.source, name, &[]).exits(&[0]);
    patient.await_snapshot(&daemon, &patient.module.root, 1);
    let mut state = patient.module.state();
    let mark = "since = \"2026-11-22T19:08:31Z\"\nstatus = 12\n";
    let noticed = "boot = \"x\"\nnanoseconds = 1\n";
    let mut torn: toml::Table = mark.parse().expect("a mark");
    torn.insert("noticed".into(), toml::Value::Table(noticed.parse().expect("a time")));
    state.insert("torn".into(), toml::Value::Table(torn));
    fs::write(patient.module.private("state.toml"), toml::to_string(&state).expect("text"))
        .expect("the state");
    let found = patient.module.run(&["check"]).exits(&[1]).says("torn since").stdout();
    let begin = found.find("rsyncd-snapshot release").expect("a command");
    let told = found[begin..].split('`').next().expect("text");
    let typed = told.replacen("rsyncd-snapshot", BINARY, 1);
    let mut shell = tool("sh");
    Run::of(in_environment(&patient, shell.args(["-c", &typed]))).exits(&[0]);
    patient.is_well();
}

#[test]
fn a_module_of_another_daemon_is_not_taken_for_one_of_this_name() {
    let Some(patient) = Patient::new() else { return };
    let daemon = Daemon::serve(&patient.module);
    patient.push_as(&daemon, "").exits(&[0]);
    patient.await_snapshot(&daemon, &patient.module.root, 1);
    drop(daemon);
    // The rsyncd.conf of another daemon, whose module has a mistake.
    let second = patient.module.directory.join("second/latest");
    fs::create_dir_all(&second).expect("a directory");
    tree::set_mode(second.parent().expect("a parent"), 0o700);
    let conf = patient
        .good()
        .replace(&patient.module.latest.display().to_string(), &second.display().to_string())
        .replace("read only = no", "read only = no\nauth users = anna\nsecrets file = /no/such");
    patient.write(&conf);
    let json = patient.module.run(&["check", "--json"]).exits(&[2]).json();
    let modules = json["modules"].as_array().expect("modules");
    let of = |label: &str| {
        let found = modules.iter().find(|module| module["module"] == label);
        found.unwrap_or_else(|| panic!("no {label}: {json}")).clone()
    };
    assert_eq!(of("data")["status"], "critical");
    let first = of(&format!("data ({})", patient.module.latest.display()));
    assert!(!first.to_string().contains("/no/such"), "{first}");
    let list = patient.module.run(&["list"]).exits(&[0, 4]);
    list.says(&format!("data ({})", patient.module.latest.display()));
    assert!(names_in(Path::new(&second)).is_empty());
}
