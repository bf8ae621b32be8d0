//! `check` about hooks that certainly fail, that another program stands in for, or that the daemon
//! does not run at all: before any push, and as what a push shows.

use crate::doctor::Patient;
use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::daemon::Daemon;
use support::run::copy_program;
use support::time::wait_until;
use support::{BINARY, have, is_root, tree};

/// A directory whose name does not hold the program's, which would tell what its files are for.
fn elsewhere() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    tree::set_mode(directory.path(), 0o755);
    directory
}

#[test]
fn a_hook_of_any_name_that_cannot_run_is_critical() {
    let Some(patient) = Patient::new() else { return };
    let elsewhere = elsewhere();
    let plain = elsewhere.path().join("push-hook");
    fs::write(&plain, format!("#!/bin/sh\nexec {} pre-xfer\n", patient.hook(Path::new(BINARY))))
        .expect("it");
    tree::set_mode(&plain, 0o644);
    let good = patient.good();
    let (pre, post) = (patient.pre(), patient.post());
    let quoted = format!("pre-xfer exec = \"{BINARY} pre-xfer\"");
    for (line, mistake, words) in [
        (&pre, format!("{pre}\nearly exec = /no/such/early"), "/no/such/early does not exist"),
        (
            &pre,
            "pre-xfer exec = /no/such/hook pre-xfer".to_string(),
            "every transfer is turned away",
        ),
        (&pre, format!("pre-xfer exec = {}", plain.display()), "chmod +x"),
        (&pre, quoted, "quotes around a whole command"),
        (&post, "post-xfer exec = /no/such/hook".to_string(), "so no snapshot is made"),
    ] {
        patient.write(&good.replace(&format!("{line}\n"), &format!("{mistake}\n")).replace(
            "read only",
            "refuse options = inplace append* partial-dir delay-updates\nread only",
        ));
        patient.is_told("hook", "critical", words);
    }
    tree::set_mode(&plain, 0o755);
    patient.write(&good.replace(&pre, &format!("pre-xfer exec = {}", plain.display())));
    patient.works();
}

#[test]
fn a_program_that_runs_no_other_is_a_warning() {
    let Some(patient) = Patient::new() else { return };
    let (good, post) = (patient.good(), patient.post());
    for program in ["/bin/true", "/usr/bin/logger -t rsync done"] {
        patient.write(&good.replace(&post, &format!("post-xfer exec = {program}")));
        patient.is_told("hook", "warning", "so it seems that no snapshot is made");
    }
    // A shell may run this program.
    let elsewhere = elsewhere();
    let script = elsewhere.path().join("hook");
    fs::write(&script, format!("exec {}\n", patient.hook(Path::new(BINARY)))).expect("it");
    patient.write(&good.replace(&post, &format!("post-xfer exec = /bin/sh {}", script.display())));
    patient.works();
}

#[test]
fn pushes_without_a_hook_after_them_are_told_as_that() {
    slow!();
    let Some(patient) = Patient::new() else { return };
    let (good, post) = (patient.good(), patient.post());
    patient.works();
    patient.write(&good.replace(&post, "post-xfer exec = /bin/true"));
    let daemon = Daemon::serve(&patient.module);
    let mut torn_since = Vec::new();
    for count in 1..=3 {
        tree::write(&patient.source.join(format!("file {count}")), "x\n");
        patient.push_as(&daemon, "").exits(&[0]);
        daemon.await_connections();
        patient.module.run(&["snapshot", "--all", "--due"]);
        let found = patient.module.run(&["check", "data"]).exits(&[1]);
        let found = found.says("the hook after the push of").says("post-xfer exec");
        let found = found.says("check data -v");
        assert!(!found.stdout().contains("status -"), "{found}");
        assert_eq!(found.stdout().contains("the last 3 pushes"), count == 3, "{found}");
        let since = found.stdout().split("torn since ").nth(1).expect("it is torn").to_string();
        torn_since.push(since.split([':', ',']).next().expect("a time").to_string());
        std::thread::sleep(std::time::Duration::from_millis(1_100));
    }
    assert!(torn_since.windows(2).all(|two| two[0] == two[1]), "{torn_since:?}");
    drop(daemon);
    patient.write(&good);
    let daemon = Daemon::serve(&patient.module);
    patient.push_as(&daemon, "").exits(&[0]);
    daemon.await_connections();
    patient.is_well();
}

#[test]
fn a_daemon_that_runs_no_hooks_is_critical() {
    let Some(patient) = Patient::new() else { return };
    let wrapper = patient.module.directory.join("rsync-without-hooks");
    fs::write(&wrapper, "#!/bin/sh\nRSYNC_NO_XFER_EXEC=1 exec rsync \"$@\"\n").expect("it");
    tree::set_mode(&wrapper, 0o755);
    let daemon = Daemon::serve_by(&patient.module, wrapper.to_str().expect("text"));
    patient.is_told("daemon", "critical", "runs no hooks");
    patient.push_as(&daemon, "").exits(&[0]);
    daemon.await_connections();
    assert!(patient.module.snapshots().is_empty());
    drop(daemon);
    patient.works();
}

#[test]
fn a_hook_by_a_link_or_a_script_of_another_name_is_the_same_hook() {
    let Some(patient) = Patient::new() else { return };
    let elsewhere = elsewhere();
    let directory = elsewhere.path();
    let link = directory.join("backup-hook");
    symlink(BINARY, &link).expect("a link");
    let linked = patient.good().replace(BINARY, &link.display().to_string());
    patient.write(&linked);
    // Another module under the same parent would have its snapshots in the same place.
    let other = patient.module.latest.with_file_name("other");
    fs::create_dir(&other).expect("a directory");
    let second = linked
        .split_once("[data]")
        .expect("a section")
        .1
        .replace(&patient.module.latest.display().to_string(), &other.display().to_string());
    patient.write(&format!("{linked}[other]{second}"));
    let found = patient.troubles();
    assert!(found.len() == 2 && found.iter().all(|one| one.0 == "root-shared"), "{found:?}");
    fs::remove_dir(&other).expect("removed");
    patient.write(&linked);
    patient.works();

    let script = |name: &str, arguments: &str| {
        let path = directory.join(name);
        let command = patient.hook(Path::new(BINARY));
        fs::write(&path, format!("#!/bin/sh\nexec {command} {arguments}\n")).expect("it");
        tree::set_mode(&path, 0o755);
        path.display().to_string()
    };
    let scripts = patient
        .good()
        .replace(&patient.pre(), &format!("pre-xfer exec = {}", script("before", "pre-xfer")))
        .replace(&patient.post(), &format!("post-xfer exec = {}", script("after", "")));
    patient.write(&scripts);
    patient.works();
}

#[test]
fn scripts_as_hooks_before_the_first_push_are_no_unknown_state() {
    let Some(patient) = Patient::new() else { return };
    let elsewhere = elsewhere();
    let script = elsewhere.path().join("after");
    fs::write(&script, "#!/bin/sh\nexit 0\n").expect("it");
    tree::set_mode(&script, 0o755);
    let conf = patient
        .good()
        .replace(&format!("{}\n", patient.pre()), "")
        .replace(&patient.post(), &format!("post-xfer exec = {}", script.display()));
    patient.write(&conf);
    patient.module.run(&["check"]).exits(&[0]).says("cannot tell").says("data");
    // Without any hook, nothing is known to be checked.
    patient.write(&conf.replace("post-xfer exec", "# post-xfer exec"));
    patient.module.run(&["check"]).exits(&[3]);
    // A program of the same content is this program, too.
    let copied = elsewhere.path().join("copied");
    copy_program(Path::new(BINARY), &copied);
    patient.write(&patient.good().replace(BINARY, &copied.display().to_string()));
    patient.works();
    wait_until("it is well", || patient.troubles().is_empty());
}

/// As with `ProtectProc=ptraceable` or `ProcSubset=pid` in the daemon's unit.
#[test]
fn a_daemon_that_hides_processes_from_its_hooks_is_critical() {
    let Some(patient) = Patient::new() else { return };
    if !is_root() || !have(&["unshare", "mount"]) {
        return;
    }
    let wrapper = patient.module.directory.join("rsync-in-unit");
    let mount = |option: &str| {
        let inner = format!("mount -t proc -o {option} proc /proc && exec rsync \"$0\" \"$@\"");
        let text = format!("#!/bin/sh\nexec unshare --mount sh -c '{inner}' \"$@\"\n");
        fs::write(&wrapper, text).expect("it");
        tree::set_mode(&wrapper, 0o755);
        Daemon::serve_by(&patient.module, wrapper.to_str().expect("text"))
    };
    for (option, words) in [
        ("hidepid=ptraceable", "ProtectProc=default"),
        ("hidepid=invisible,gid=5", "ProtectProc=default"),
        ("subset=pid", "ProcSubset=all"),
    ] {
        let daemon = mount(option);
        patient.is_told("daemon", "critical", words);
        drop(daemon);
    }
    // As with `ProtectProc=invisible`, root's hooks see all.
    let daemon = mount("hidepid=invisible");
    patient.is_well();
    patient.push_as(&daemon, "").exits(&[0]);
    patient.await_snapshot(&daemon, &patient.module.root, 1);
    patient.is_well();
}
