//! `check` about a daemon that runs as an ordinary user, or becomes one by `daemon uid`: what that
//! user cannot do is told before a push, to that user and to root, and mended as told, pushes work.

use crate::doctor::{Patient, run_told};
use crate::doctor_paths::as_user;
use crate::support;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use support::daemon::{Daemon, await_snapshots};
use support::run::{Run, copy_program, tool};
use support::{BINARY, have, root, tree};

const USER: u32 = 4711;

/// A server of an ordinary user.
struct Ordinary {
    patient: Patient,
    /// Starts rsync as that user.
    rsync: PathBuf,
    conf: String,
}

impl Ordinary {
    fn new() -> Option<Ordinary> {
        let patient = Patient::new()?;
        if !root() || !have(&["setpriv"]) {
            return None;
        }
        let directory = &patient.module.directory;
        let program = directory.join("program");
        copy_program(std::path::Path::new(BINARY), &program);
        let rsync = directory.join("rsync-of-a-user");
        let become_user = format!("setpriv --reuid={USER} --regid={USER} --clear-groups");
        fs::write(&rsync, format!("#!/bin/sh\nexec {become_user} rsync \"$@\"\n")).expect("it");
        tree::set_mode(&rsync, 0o755);
        let secrets = directory.join("secrets");
        fs::write(&secrets, "laptop:secret\n").expect("secrets");
        tree::set_mode(&secrets, 0o600);
        let lines =
            format!("read only = no\nauth users = laptop\nsecrets file = {}", secrets.display());
        let conf = patient.good().replace("uid = root\ngid = root\n", "");
        let conf =
            conf.replace("read only = no", &lines).replace(BINARY, &program.display().to_string());
        let server = Ordinary { patient, rsync, conf };
        server.write(&server.conf);
        server.shell(&format!("chown -R {USER}:{USER} ."));
        Some(server)
    }

    fn write(&self, conf: &str) {
        self.patient.write(conf);
    }

    /// Runs a command as root in the directory of the server.
    fn shell(&self, command: &str) {
        let directory = self.patient.module.directory.display();
        Run::of(tool("sh").args(["-c", &format!("cd {directory} && {command}")])).exits(&[0]);
    }

    /// What `check` of that user tells, and what root's tells.
    fn told(&self) -> [Vec<(String, String, String)>; 2] {
        let json = as_user(&self.patient, USER, &["check", "--json"]).json();
        let text = |value: &Value| value.as_str().expect("text").to_string();
        let modules = json["modules"].as_array().expect("modules").iter();
        let findings = modules.flat_map(|it| it["findings"].as_array().expect("findings"));
        let told = findings.filter(|finding| finding["level"] != "ok");
        let of_user = told.map(|it| (text(&it["id"]), text(&it["level"]), text(&it["message"])));
        [of_user.collect(), self.patient.troubles()]
    }

    /// Both are told this mistake, and nothing else.
    #[track_caller]
    fn is_told(&self, id: &str, words: &str) -> String {
        let told = self.told();
        for (number, found) in told.iter().enumerate() {
            let critical = found.iter().filter(|one| one.1 == "critical");
            let messages: Vec<&String> = critical.clone().map(|one| &one.2).collect();
            assert!(!messages.is_empty(), "{number} {words}: {found:#?}");
            assert!(critical.clone().all(|one| one.0 == id), "{words}: {found:#?}");
            assert!(messages.iter().all(|text| text.contains(words)), "{words}: {found:#?}");
            assert!(found.iter().all(|one| one.1 == "critical"), "{number} {found:#?}");
        }
        told[0][0].2.clone()
    }

    fn serve(&self) -> Daemon<'_> {
        Daemon::serve_by(&self.patient.module, self.rsync.to_str().expect("text"))
    }

    /// No push brings a snapshot, whether or not it fails, and that is told while the daemon runs.
    fn gets_no_snapshot(&self, id: &str, words: &str) {
        let daemon = self.serve();
        self.is_told(id, words);
        self.patient.push_as(&daemon, "laptop@");
        daemon.await_connections();
        assert!(self.patient.module.snapshots().is_empty());
        drop(daemon);
        self.shell("rm -rf root/.rsyncd-snapshot state/* run/* home root/latest/*");
    }

    /// `check` of the user and of root is content, and a push brings a snapshot.
    #[track_caller]
    fn works(&self) {
        let [of_user, of_root] = self.told();
        assert!(of_user.is_empty() && of_root.is_empty(), "{of_user:#?} {of_root:#?}");
        let daemon = self.serve();
        let [of_user, of_root] = self.told();
        assert!(of_user.is_empty() && of_root.is_empty(), "{of_user:#?} {of_root:#?}");
        let count = self.patient.module.snapshots().len();
        self.patient.push_as(&daemon, "laptop@").exits(&[0]);
        await_snapshots(&self.patient.module.root, count + 1);
        daemon.await_connections();
        as_user(&self.patient, USER, &["check"]).exits(&[0]);
    }
}

#[test]
fn what_an_ordinary_users_daemon_cannot_do_is_told_with_its_remedy() {
    let Some(server) = Ordinary::new() else { return };
    server.works();
    let good = server.conf.clone();
    let owned = format!("chown {USER}");
    for (mistake, lines, id, words, begins) in [
        // The last of these is a command that is run, or a line that is written instead.
        ("chown 0:0 root; chmod 755 root", "", "root", "cannot write into", owned.as_str()),
        ("chown 0:0 secrets", "", "secrets-file", "cannot read", &owned),
        ("chown 0:0 root/latest", "", "module-access", "cannot write into", &owned),
        (
            "mv program x; mkdir -m 700 closed; mv x closed/program",
            "",
            "hook",
            "may not enter",
            "chmod o+x",
        ),
        ("true", "uid = root\ngid = root", "module-access", "become no other user", ""),
        ("true", "gid = 4711", "module-access", "`gid = 4711`", ""),
        ("true", "use chroot = yes", "module-chroot", "set `use chroot = no`", ""),
        ("true", "max connections = 4", "conf-file", "/rsyncd.lock", "lock file = "),
    ] {
        server.shell("rm -rf root/.rsyncd-snapshot root/2* state/* run/* home");
        server.shell(mistake);
        let conf = match mistake.contains("closed") {
            true => good.replace("/program", "/closed/program"),
            false => good.replace("read only = no", &format!("read only = no\n{lines}")),
        };
        server.write(&conf);
        let told = server.is_told(id, words);
        server.gets_no_snapshot(id, words);
        match begins {
            "" => server.write(&good),
            "lock file = " => {
                let line = told.split("such as `").nth(1).and_then(|rest| rest.split('`').next());
                let line = format!("read only = no\n{}", line.expect("a line"));
                server.write(&conf.replace("read only = no", &line));
            }
            command => run_told(&told, command),
        }
        server.works();
        if mistake.contains("closed") {
            server.shell("mv closed/program . && rmdir closed");
        }
    }
}

/// A file is no matter of rights: `chmod` would make no directory of it.
#[test]
fn a_file_in_the_place_of_a_directory_is_told_before_rights() {
    let Some(server) = Ordinary::new() else { return };
    let file = server.patient.module.directory.join("file");
    for (owner, mode) in [(USER, 0o644), (0, 0o644), (USER, 0o755)] {
        fs::write(&file, "x").expect("a file");
        tree::set_mode(&file, mode);
        server.shell(&format!("chown {owner}:{owner} file policy.toml"));
        for root in [file.clone(), file.join("root")] {
            let policy = format!("[defaults]\nsnapshot_root = \"{}\"\n", root.display());
            server.patient.module.write_policy(&policy);
            let told = server.is_told("root", "is not a directory");
            assert!(!told.contains("chmod") && !told.contains("chown"), "{told}");
        }
    }
}

/// Root's monitoring sees what the user's own `check` sees, with commands that work for root.
#[test]
fn root_is_told_how_the_backups_of_a_user_are() {
    let Some(server) = Ordinary::new() else { return };
    let module = &server.patient.module;
    server.works();
    module.run(&["check"]).exits(&[0]).says("1 snapshot; the newest complete one");
    let json = module.run(&["check", "data", "--json"]).json();
    assert!(json.to_string().contains("1 snapshot; the newest"), "{json}");
    let numbers = &json["modules"][0]["numbers"];
    assert_eq!((&numbers["complete_snapshots"], &numbers["torn"]), (&1.into(), &false.into()));
    assert!(numbers["free_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{json}");
    assert!(json["modules"][0]["clients"][0]["last_good_push"].is_string(), "{json}");
    let plain = module.run(&["check"]).stdout();
    assert!(plain.contains("'data snapshots'=1;;;0") && plain.contains("'data age'="), "{plain}");
    let metrics = module.run(&["check", "--prometheus"]).exits(&[0]).stdout();
    let complete = "rsyncd_snapshot_snapshots{module=\"data\",grade=\"complete\"} 1\n";
    assert!(metrics.contains(complete), "{metrics}");
    // A policy that only root can read is told here: for root it has no mistake.
    let open = fs::metadata(&module.policy).expect("the policy").permissions();
    Run::of(tool("chown").arg("0:0").arg(&module.policy)).exits(&[0]);
    support::tree::set_mode(&module.policy, 0o600);
    let told = module.run(&["check"]).says("nothing expires").says("cannot be read").stdout();
    assert!(!told.contains("lines of `policy`"), "{told}");
    fs::set_permissions(&module.policy, open).expect("as it was");
    module.write_policy("[defaults]\nmax_age = \"1s\"\n");
    // Ages are in whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    module.run(&["check"]).exits(&[2]).says("the last good push ended").says("twice max_age 1s");
    // The commands in messages are those that root can run.
    module.write_policy("[defaults]\n");
    let mut state = module.state();
    let torn = "since = \"2026-11-22T19:08:31Z\"\nstatus = 12\n\
                noticed = { boot = \"x\", nanoseconds = 1 }\n";
    let torn: toml::Table = torn.parse().expect("a mark");
    state.insert("torn".into(), toml::Value::Table(torn));
    let text = toml::to_string(&state).expect("text");
    fs::write(module.private("state.toml"), text).expect("the state");
    let told = module.run(&["check"]).exits(&[1]).says("torn since").stdout();
    let begin = told.find("sudo -u '#4711' rsyncd-snapshot release").expect("a command");
    let command = told[begin..].split('`').next().expect("text");
    assert!(command.contains("--rsyncd-conf"), "{command}");
    let program = module.directory.join("program").display().to_string();
    let command = command
        .replace("sudo -u '#4711'", "setpriv --reuid=4711 --regid=4711 --clear-groups")
        .replace(" rsyncd-snapshot release", &format!(" {program} release"));
    let mut shell = tool("sh");
    shell.env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", module.state_directory());
    Run::of(shell.args(["-c", &command])).exits(&[0]);
    module.run(&["check"]).exits(&[0]);
}

#[test]
fn a_user_who_only_looks_gets_no_false_alarm() {
    let Some(server) = Ordinary::new() else { return };
    // By these owners the daemon may be root's, whose clients push as that user.
    server.shell("chown 0:0 root rsyncd.conf secrets; chmod 755 root");
    server.write(&format!("uid = {USER}\ngid = {USER}\n{}", server.conf));
    let [of_user, of_root] = server.told();
    assert!(!of_user.iter().any(|one| one.1 == "critical"), "{of_user:#?}");
    assert!(!of_root.iter().any(|one| one.1 == "critical"), "{of_root:#?}");
    let daemon = Daemon::serve(&server.patient.module);
    let [of_user, _] = server.told();
    assert!(!of_user.iter().any(|one| one.1 == "critical"), "{of_user:#?}");
    server.patient.push_as(&daemon, "laptop@").exits(&[0]);
    await_snapshots(&server.patient.module.root, 1);
    daemon.await_connections();
}

#[test]
fn owners_that_agree_tell_the_daemons_user_before_it_runs() {
    let Some(server) = Ordinary::new() else { return };
    // As systemd starts it with `User=`: the configuration is root's.
    server.shell("chown 0:0 rsyncd.conf");
    server.works();
    // Without a secrets file, a daemon of root might become that user for the module.
    server.shell("rm -rf root/.rsyncd-snapshot root/2* state/* run/* home");
    let lines = format!("uid = {USER}\nread only = no\n#");
    server.write(&server.conf.replace("read only = no\nauth users", &lines));
    let found = server.patient.troubles();
    let words = "but if the rsync daemon runs as user #4711, start it and run `check` again";
    assert!(found.len() == 1 && found[0].2.contains(words), "{found:#?}");
    server.write(&server.conf);
    // A daemon of root would refuse that secrets file.
    server.shell("rm -rf root/.rsyncd-snapshot root/2* state/* run/* home");
    let daemon = Daemon::serve(&server.patient.module);
    let found = server.patient.troubles();
    let told = |id: &str, words: &str| found.iter().any(|one| one.0 == id && one.2.contains(words));
    assert!(told("secrets-file", "run `chown root"), "{found:#?}");
    assert!(told("root", "run `chown 0"), "{found:#?}");
    assert!(!server.patient.push_as(&daemon, "laptop@").succeeded());
    daemon.await_connections();
}

#[test]
fn a_daemon_in_a_container_is_another_one() {
    let Some(server) = Ordinary::new() else { return };
    if !have(&["unshare"]) {
        return;
    }
    server.shell("chown -R 0:0 root secrets rsyncd.conf");
    server.write(&format!("uid = root\ngid = root\n{}", server.conf));
    let become_user = format!("setpriv --reuid={USER} --regid={USER} --clear-groups");
    let inner = format!("#!/bin/sh\nexec unshare --pid --fork {become_user} rsync \"$@\"\n");
    fs::write(&server.rsync, inner).expect("it");
    let _daemon = server.serve();
    assert!(server.patient.troubles().is_empty(), "{:#?}", server.patient.troubles());
}

#[test]
fn daemon_uid_is_the_daemons_user() {
    let Some(server) = Ordinary::new() else { return };
    let with = |line: &str, conf: &str| server.write(&format!("{line}\n{conf}"));
    let uid = format!("daemon uid = {USER}\ndaemon gid = {USER}");
    server.shell("chown 0:0 rsyncd.conf");
    with(&uid, &server.conf);
    let works = || {
        let [of_user, of_root] = server.told();
        assert!(of_user.is_empty() && of_root.is_empty(), "{of_user:#?} {of_root:#?}");
    };
    works();
    let daemon = Daemon::serve(&server.patient.module);
    works();
    server.patient.push_as(&daemon, "laptop@").exits(&[0]);
    await_snapshots(&server.patient.module.root, 1);
    daemon.await_connections();
    works();
    drop(daemon);

    // A server of root that says so.
    server.shell("rm -rf root/.rsyncd-snapshot root/2* root/latest/* state/* run/* home");
    server.shell("chown -R 0:0 root secrets");
    let account = "uid = root\ngid = root\nread only = no";
    with(
        &uid,
        &server.conf.replace("read only = no", account).replace("chroot = no", "chroot = yes"),
    );
    let found = server.patient.troubles();
    for (id, words) in [
        ("module-chroot", "set `use chroot = no`"),
        ("module-access", "take out `uid = root`"),
        ("secrets-file", "run `chown 4711"),
        ("root", "run `chown 4711"),
    ] {
        let is_it = |one: &&(String, String, String)| one.0 == id && one.2.contains(words);
        let told = found.iter().find(is_it);
        assert!(told.is_some_and(|it| it.2.contains("`daemon uid = 4711`")), "{id}: {found:#?}");
    }
    let daemon = Daemon::serve(&server.patient.module);
    assert!(!server.patient.push_as(&daemon, "laptop@").succeeded());
    daemon.await_connections();
    drop(daemon);
    with("daemon uid = no-such-user", &server.conf);
    let found = server.patient.troubles();
    assert!(found.iter().any(|one| one.2.contains("`daemon uid = no-such-user` is unknown")));
}

/// As with `NoNewPrivileges` in the daemon's unit.
#[test]
fn sudo_in_a_hook_of_a_daemon_without_new_privileges_is_told() {
    let Some(server) = Ordinary::new().filter(|_| have(&["sudo"])) else { return };
    let conf = server.conf.replace("pre-xfer exec = ", "pre-xfer exec = sudo -n ");
    server.write(&conf);
    let told_of_sudo = || {
        let [_, of_root] = server.told();
        of_root.into_iter().filter(|one| one.2.contains("sudo takes the rights")).collect()
    };
    let daemon = server.serve();
    let found: Vec<(String, String, String)> = told_of_sudo();
    assert_eq!(found, []);
    drop(daemon);
    let text = fs::read_to_string(&server.rsync).expect("it");
    fs::write(&server.rsync, text.replace("setpriv ", "setpriv --no-new-privs ")).expect("it");
    let daemon = server.serve();
    let found: Vec<(String, String, String)> = told_of_sudo();
    assert!(found.len() == 1 && found[0].0 == "hook" && found[0].1 == "critical", "{found:?}");
    assert!(found[0].2.contains("every transfer is turned away"), "{found:?}");
    assert!(found[0].2.contains("start the daemon without `no_new_privs`"), "{found:?}");
    assert!(!server.patient.push_as(&daemon, "laptop@").succeeded());
    daemon.await_connections();
    drop(daemon);
    // A daemon of root needs no other rights for it.
    let wrapper = server.patient.module.directory.join("rsync-of-root");
    fs::write(&wrapper, "#!/bin/sh\nexec setpriv --no-new-privs rsync \"$@\"\n").expect("it");
    tree::set_mode(&wrapper, 0o755);
    let root_conf = server.patient.good().replace("pre-xfer exec = ", "pre-xfer exec = sudo -n ");
    server.shell("chown -R 0:0 .");
    server.write(&root_conf);
    let daemon = Daemon::serve_by(&server.patient.module, wrapper.to_str().expect("text"));
    let found: Vec<(String, String, String)> = told_of_sudo();
    assert_eq!(found, []);
    drop(daemon);
}
