//! `check` about paths, access and owners: what would turn pushes away is named before one comes,
//! advice that is followed ends the trouble, and what this user cannot see is unknown, not wrong.

use crate::support;

use std::fs;
use std::path::Path;

use crate::doctor::Patient;
use support::daemon::{Daemon, await_snapshots};
use support::run::{Run, copy_program, tool};
use support::{BINARY, have, root, tree};

/// A second module of the patient's server, with hooks.
fn section(patient: &Patient, name: &str, path: &Path, more: &str) -> String {
    let hooks = format!("{}\n{}", patient.pre(), patient.post());
    format!("[{name}]\npath = {}\n{hooks}\n{more}\n", path.display())
}

#[test]
fn a_path_that_rsync_cannot_enter_is_named() {
    let Some(patient) = Patient::new() else { return };
    let latest = patient.module.latest.display().to_string();
    let good = patient.good();
    let line = format!("path = {latest}\n");
    patient.write(&good.replace(&line, &format!("path = \"{latest}\"\n")));
    patient.is_told("module-directory", "critical", &format!("write `path = {latest}`"));
    let daemon = Daemon::serve(&patient.module);
    assert!(!patient.push_as(&daemon, "").succeeded());
    daemon.await_connections();
    // The hooks have noted a directory of that name.
    patient.is_told("module-directory", "critical", &format!("write `path = {latest}`"));
    drop(daemon);
    if root() {
        let chroot = good.replace("use chroot = no", "use chroot = yes");
        patient.write(&chroot.replace(&line, &format!("path = /.{latest}\n")));
        // Whether the daemon was started in / is not known.
        patient.is_told("module-chroot", "warning", &format!("write `path = {latest}`"));
    }
    patient.write(&good.replace(&line, &format!("path = /.{latest}\n")));
    patient.works();
}

#[test]
fn what_else_turns_every_push_away_is_named() {
    slow!();
    let Some(patient) = Patient::new() else { return };
    let good = patient.good();
    let secrets = patient.module.directory.join("secrets");
    fs::create_dir(&secrets).expect("a directory");
    let login = format!("auth users = laptop\nsecrets file = {}", secrets.display());
    for (lines, id, words) in [
        ("hosts deny = *", "hosts-refused", "lets no client in"),
        ("hosts allow = 127.0.0.*", "hosts-refused", "write a network"),
        ("hosts allow = 127.0.0.1/33", "hosts-refused", "mask"),
        (login.as_str(), "secrets-file", "is a directory"),
        ("temp dir = /no-such", "conf-file", "temp dir"),
        ("temp dir = /no/such", "conf-file", "temp dir"),
        ("lock file = /no-such/lock\nmax connections = 4", "conf-file", "lock file"),
        ("exclude from = /no-such", "conf-file", "exclude from"),
    ] {
        patient.write(&good.replace("read only = no", &format!("read only = no\n{lines}")));
        patient.is_told(id, "critical", words);
        patient.fails_as("laptop@");
    }
    let list = patient.module.directory.join("list");
    fs::write(&list, "*.o\n").expect("a file");
    fs::create_dir(patient.module.latest.join("tmp")).expect("a directory");
    for lines in [
        "hosts allow = 127.0.0.0/8\nhosts deny = *".to_string(),
        "hosts deny = *.invalid".to_string(),
        format!("exclude from = {}", list.display()),
        "temp dir = /tmp".to_string(),
        "lock file = /no-such/lock".to_string(),
    ] {
        patient.write(&good.replace("read only = no", &format!("read only = no\n{lines}")));
        patient.works();
    }
}

#[test]
fn a_comment_behind_a_list_is_told_as_one() {
    let Some(patient) = Patient::new() else { return };
    let secrets = patient.module.directory.join("secrets");
    fs::write(&secrets, "laptop:secret\n").expect("secrets");
    tree::set_mode(&secrets, 0o600);
    let good = patient.good();
    for lines in [
        format!("auth users = laptop # the laptop\nsecrets file = {}", secrets.display()),
        "hosts allow = 127.0.0.1 # laptop".to_string(),
    ] {
        patient.write(&good.replace("read only = no", &format!("read only = no\n{lines}")));
        patient.is_told("conf-parameter", "warning", "write it on a line of its own");
    }
    let quoted = format!("auth users = laptop\nsecrets file = \"{}\"", secrets.display());
    patient.write(&good.replace("read only = no", &format!("read only = no\n{quoted}")));
    patient.is_told("conf-parameter", "warning", "the quotes for a part of `secrets file`");
    patient.fails_as("laptop@");
}

#[test]
fn a_module_closed_after_pushes_to_it_is_no_peace() {
    let Some(patient) = Patient::new() else { return };
    patient.works();
    let above = patient.module.root.parent().expect("a parent").to_path_buf();
    let conf = |path: &Path, more: &str| {
        patient.write(&format!("{}{}", patient.good(), section(&patient, "server", path, more)));
    };
    conf(&above, "read only = no");
    let daemon = Daemon::serve(&patient.module);
    assert!(!daemon.push(&patient.source, "server", &[]).succeeded());
    daemon.await_connections();
    let text = patient.module.run(&["check", "server"]).exits(&[2]).stdout();
    assert_eq!(text.matches("holds the snapshot root").count(), 1, "told once: {text}");
    assert!(text.contains("a `path` with a parent directory of its own"), "{text}");
    assert!(!text.contains("chmod 0700"), "no root can be there: {text}");
    drop(daemon);
    // The module is closed, and its client does not know.
    conf(&above, "read only = yes");
    for arguments in [&["check"][..], &["check", "server"]] {
        patient.module.run(arguments).exits(&[2]).says("every push fails").says("rm ");
    }
    // As told: a directory of its own. The old one is no matter any more.
    let own = patient.module.directory.join("server/latest");
    fs::create_dir_all(&own).expect("a module");
    tree::set_mode(own.parent().expect("a root"), 0o700);
    conf(&own, "read only = no");
    let daemon = Daemon::serve(&patient.module);
    daemon.push(&patient.source, "server", &[]).exits(&[0]);
    await_snapshots(own.parent().expect("a root"), 1);
    daemon.await_connections();
    patient.is_well();
}

#[test]
fn an_owner_of_a_closed_directory_can_write() {
    let Some(patient) = Patient::new() else { return };
    if !root() {
        return;
    }
    let latest = patient.module.latest.clone();
    Run::of(tool("chown").arg("4711:4711").arg(&latest)).exits(&[0]);
    patient.write(&patient.good().replace("uid = root\ngid = root", "uid = 4711\ngid = 4711"));
    // The client's directory has that mode, and so has the module after each push.
    tree::set_mode(&patient.source, 0o555);
    for _ in 0..2 {
        tree::set_mode(&latest, 0o555);
        patient.works();
    }
    tree::set_mode(&latest, 0o000);
    patient.is_told("module-access", "critical", "chmod u+rwx");
}

#[test]
fn another_owners_directory_is_a_warning_before_the_first_push() {
    let Some(patient) = Patient::new() else { return };
    if !root() {
        return;
    }
    Run::of(tool("chown").arg("0:4712").arg(&patient.module.latest)).exits(&[0]);
    tree::set_mode(&patient.module.latest, 0o770);
    patient.write(&patient.good().replace("uid = root\ngid = root", "uid = 4711\ngid = 4712"));
    let told = patient.is_told("module-access", "warning", "ends with status 23");
    let daemon = Daemon::serve(&patient.module);
    patient.push_as(&daemon, "").exits(&[23]);
    assert!(told.contains("chown 4711"), "{told}");
}

/// The program as another user.
pub(crate) fn as_user(patient: &Patient, user: u32, arguments: &[&str]) -> Run {
    let program = patient.module.directory.join("program");
    if !program.exists() {
        copy_program(Path::new(BINARY), &program);
    }
    let mut command = tool("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups");
    command.arg(&program).arg("--config").arg(&patient.module.policy);
    command.arg("--rsyncd-conf").arg(&patient.module.rsyncd_conf).args(arguments);
    command.env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", patient.module.directory.join("home"));
    Run::of(&mut command)
}

#[test]
fn what_an_ordinary_user_may_not_see_is_unknown() {
    let Some(patient) = Patient::new() else { return };
    if !root() || !have(&["setpriv"]) {
        return;
    }
    patient.works();
    for mode in [0o700, 0o755] {
        tree::set_mode(&patient.module.root, mode);
        let run = as_user(&patient, 65534, &["check"]).exits(&[3]).says("run `sudo ");
        assert!(!run.stdout().contains("CRITICAL"), "{run}");
    }
    tree::set_mode(&patient.module.root, 0o700);
    as_user(&patient, 65534, &["check", "data"]).exits(&[3]).says("run `sudo ");
    let run = as_user(&patient, 65534, &["list"]);
    assert!(run.code() != Some(0) && !run.stderr().contains("remembers none"), "{run}");
}

#[test]
fn a_history_of_an_ordinary_user_is_checked_as_that_user() {
    let Some(patient) = Patient::new() else { return };
    if !root() || !have(&["setpriv"]) {
        return;
    }
    Run::of(tool("chown").args(["-R", "4711:4711"]).arg(&patient.module.directory)).exits(&[0]);
    // With these lines, no daemon of that user lets a client in.
    patient.write(&patient.good().replace("uid = root\ngid = root\n", ""));
    as_user(&patient, 4711, &["snapshot", "data"]).exits(&[0]);
    as_user(&patient, 4711, &["check"]).exits(&[0]);
    let run = patient.module.run(&["check"]).exits(&[0]).says("1 snapshot; the newest complete");
    assert!(!run.stdout().contains("chown"), "{run}");
    // Where that user cannot read the configuration, it is left to the administrator.
    Run::of(tool("chown").args(["0:0"]).arg(&patient.module.rsyncd_conf)).exits(&[0]);
    tree::set_mode(&patient.module.rsyncd_conf, 0o600);
    patient.module.run(&["check"]).exits(&[3]).says("run `sudo -u '#4711'");
    tree::set_mode(&patient.module.rsyncd_conf, 0o644);
    // A root that a user got by mistake, with a history of root, is a fault as before.
    let private = patient.module.private("");
    Run::of(tool("chown").args(["-R", "0:0"]).arg(private)).exits(&[0]);
    patient.module.run(&["check"]).exits(&[2]).says("who could exchange snapshots");
}

#[test]
fn users_who_can_write_to_snapshots_are_named() {
    let Some(patient) = Patient::new() else { return };
    patient.works();
    let secrets = patient.module.directory.join("secrets");
    fs::write(&secrets, "u:secret\n").expect("secrets");
    tree::set_mode(&secrets, 0o600);
    let all = |users: &str| {
        let (path, secrets) = (patient.module.directory.display(), secrets.display());
        let lines = format!("read only = yes\nauth users = {users}\nsecrets file = {secrets}");
        patient.write(&format!("{}[all]\npath = {path}\n{lines}\n", patient.good()));
    };
    all("u:rw");
    let told = patient.is_told("writes-snapshots", "critical", "`u:rw` of `auth users`");
    assert!(!told.contains("read only = yes"), "{told}");
    for users in ["u:ro", "u"] {
        all(users);
        patient.is_well();
    }
}

#[test]
fn a_directory_that_is_only_shown_is_not_made_writable() {
    let Some(patient) = Patient::new() else { return };
    let gone = patient.module.directory.join("gone");
    patient.write(&format!(
        "{}{}",
        patient.good(),
        section(&patient, "restore", &gone, "read only = yes")
    ));
    let told = patient.is_told("module-directory", "critical", "only offers files for reading");
    assert!(!told.contains("install -d") && !told.contains("read only = no"), "{told}");
    // A snapshot that has expired, in a module that is read only by default.
    let gone = patient.module.root.join("2020-01-01T00-00-00Z");
    patient.write(&format!("{}{}", patient.good(), section(&patient, "restore", &gone, "")));
    let told = patient.is_told("module-directory", "critical", "only offers files for reading");
    assert!(!told.contains("install -d"), "{told}");
}

#[test]
fn a_missing_directory_is_told_with_its_command_after_a_failed_push() {
    let Some(patient) = Patient::new() else { return };
    fs::remove_dir_all(&patient.module.root).expect("removed");
    let daemon = Daemon::serve(&patient.module);
    assert!(!patient.push_as(&daemon, "").succeeded());
    daemon.await_connections();
    drop(daemon);
    patient.is_told("module-directory", "critical", "install -d");
}

#[test]
fn the_keys_of_the_policy_are_listed_once() {
    let Some(patient) = Patient::new() else { return };
    let mut conf = patient.good();
    for name in ["b", "c"] {
        let path = patient.module.directory.join(name).join("latest");
        fs::create_dir_all(&path).expect("a module");
        conf += &section(&patient, name, &path, "read only = no");
    }
    patient.write(&conf);
    patient.module.write_policy("[defaults]\ncolour = \"red\"\n");
    let text = patient.module.run(&["check"]).exits(&[2]).stdout();
    assert_eq!(text.matches("the keys are").count(), 1, "{text}");
    assert_eq!(text.matches("nothing expires").count(), 3, "{text}");
    assert!(text.starts_with("CRITICAL - policy: "), "the cause is the headline: {text}");
}

#[test]
fn a_kept_history_of_a_retired_module_does_not_vanish_silently() {
    let Some(patient) = Patient::new() else { return };
    patient.works();
    let other = patient.module.directory.join("other/latest");
    fs::create_dir_all(&other).expect("a module");
    tree::set_mode(other.parent().expect("a root"), 0o700);
    let conf =
        format!("{}{}", patient.global(), section(&patient, "other", &other, "read only = no"));
    patient.write(&conf);
    patient.module.run(&["check"]).exits(&[0]).says("1 snapshot");
    fs::remove_dir_all(&patient.module.root).expect("removed");
    let told = patient.is_told("module-directory", "critical", "if this directory was given up");
    let file = told.rsplit("remove ").next().expect("a file");
    fs::remove_file(file).expect("removed");
    patient.is_well();
}

#[test]
fn a_second_root_of_a_moved_module_is_told_with_its_path() {
    let Some(patient) = Patient::new() else { return };
    patient.works();
    let old = patient.module.latest.display().to_string();
    let new = patient.module.directory.join("new/latest");
    fs::create_dir_all(&new).expect("a module");
    tree::set_mode(new.parent().expect("a root"), 0o700);
    patient.write(&patient.good().replace(&old, &new.display().to_string()));
    let told = patient.is_told("root-place", "warning", "gives this module another directory");
    assert!(told.contains(&patient.module.root.display().to_string()), "{told}");
    let text = patient.module.run(&["check"]).stdout();
    assert!(text.starts_with(&format!("WARNING - data ({old}): ")), "{text}");
}

#[test]
fn a_root_of_another_module_is_not_given_away() {
    let Some(patient) = Patient::new() else { return };
    patient.works();
    let cora = patient.module.root.join("cora");
    fs::create_dir(&cora).expect("a module");
    patient.write(&format!(
        "{}{}",
        patient.good(),
        section(&patient, "cora", &cora, "read only = no")
    ));
    let text = patient.module.run(&["check", "cora"]).exits(&[2]).stdout();
    assert!(text.contains("`snapshot_root` of its own"), "{text}");
    assert!(!text.contains("change `path` in"), "{text}");
}

#[test]
fn a_wrong_command_line_of_check_is_unknown() {
    let Some(patient) = Patient::new() else { return };
    patient.module.run(&["check", "a", "b"]).exits(&[3]);
    patient.module.run(&["list", "check", "b"]).exits(&[2]);
    patient.module.run(&["check", "--help"]).exits(&[0]);
}
