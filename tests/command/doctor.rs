//! `check` as a doctor: each typical mistake is made in the configuration of a real rsync daemon,
//! `check` names it before any push, and mended as told, `check` is content and a push brings a
//! snapshot. Beside each mistake stands its look-alike that works: no word about that.

use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::daemon::{Daemon, await_snapshots, client, source};
use support::file_system::{FileSystem, Kind, Mount};
use support::module::{Module, names_in};
use support::run::{Run, copy_program, tool};
use support::time::wait_until;
use support::{BINARY, have, is_root, root, tree};

/// A server whose hooks are the program alone, as administrators write them.
pub(crate) struct Patient {
    pub(crate) module: Module,
    pub(crate) source: PathBuf,
}

impl Patient {
    pub(crate) fn new() -> Option<Patient> {
        if !have(&["rsync"]) {
            return None;
        }
        let module = Module::new();
        module.write_policy("[defaults]\n");
        let source = source(&module);
        let patient = Patient { module, source };
        patient.write(&patient.good());
        Some(patient)
    }

    /// The program with the options of this server.
    pub(crate) fn hook(&self, program: &Path) -> String {
        let (policy, conf) = (self.module.policy.display(), self.module.rsyncd_conf.display());
        format!("{} --config {policy} --rsyncd-conf {conf}", program.display())
    }

    pub(crate) fn pre(&self) -> String {
        format!("pre-xfer exec = {} pre-xfer", self.hook(Path::new(BINARY)))
    }

    pub(crate) fn post(&self) -> String {
        format!("post-xfer exec = {}", self.hook(Path::new(BINARY)))
    }

    /// What stands above all modules.
    pub(crate) fn global(&self) -> String {
        let account = if is_root() { "uid = root\ngid = root\n" } else { "" };
        format!("use chroot = no\ntimeout = 60\n{account}")
    }

    /// A configuration without a mistake.
    pub(crate) fn good(&self) -> String {
        format!(
            "{}[data]\npath = {}\nread only = no\n{}\n{}\n",
            self.global(),
            self.module.latest.display(),
            self.pre(),
            self.post()
        )
    }

    pub(crate) fn write(&self, conf: &str) {
        self.module.write_rsyncd_conf(conf);
    }

    /// The findings about all modules, without notes that are no trouble.
    pub(crate) fn troubles(&self) -> Vec<(String, String, String)> {
        let json = self.module.run(&["check", "--json"]).json();
        let text = |value: &Value| value.as_str().expect("text").to_string();
        let modules = json["modules"].as_array().expect("modules").iter();
        let findings = modules.flat_map(|module| module["findings"].as_array().expect("findings"));
        let told = findings.filter(|finding| finding["level"] != "ok");
        told.map(|finding| {
            (text(&finding["id"]), text(&finding["level"]), text(&finding["message"]))
        })
        .collect()
    }

    /// `check` names exactly this mistake, before any push.
    #[track_caller]
    pub(crate) fn is_told(&self, id: &str, level: &str, words: &str) -> String {
        let found = self.troubles();
        let is_it = |found: &&(String, String, String)| {
            found.0 == id && found.1 == level && found.2.contains(words)
        };
        let conf = fs::read_to_string(&self.module.rsyncd_conf).expect("it");
        assert!(found.iter().any(|one| is_it(&one)), "{id} {words}: {found:#?}\n{conf}");
        assert_eq!(found.len(), 1, "one mistake, one finding: {found:#?}\n{conf}");
        let codes = [("warning", 1), ("critical", 2), ("unknown", 3)];
        let code = codes.iter().find(|(name, _)| *name == level).expect("a level").1;
        self.module.run(&["check"]).exits(&[code]);
        found.into_iter().next().expect("one").2
    }

    /// `check` has nothing to say but notes.
    #[track_caller]
    pub(crate) fn is_well(&self) {
        let conf = fs::read_to_string(&self.module.rsyncd_conf).expect("it");
        assert_eq!(self.troubles(), [], "{conf}");
        self.module.run(&["check"]).exits(&[0]);
    }

    pub(crate) fn push_as(&self, daemon: &Daemon, user: &str) -> Run {
        let url = daemon.url("data/").replace("rsync://", &format!("rsync://{user}"));
        Run::of(
            client()
                .env("RSYNC_PASSWORD", "secret")
                .arg("--archive")
                .arg(format!("{}/", self.source.display()))
                .arg(url),
        )
    }

    /// `check` is content before the push and after it, and the push brings a snapshot.
    #[track_caller]
    pub(crate) fn works_as(&self, user: &str) {
        self.is_well();
        let daemon = Daemon::serve(&self.module);
        let count = self.module.snapshots().len();
        tree::write(&self.source.join(format!("another {count}")), "x\n");
        self.push_as(&daemon, user).exits(&[0]);
        self.await_snapshot(&daemon, &self.module.root, count + 1);
        self.is_well();
    }

    #[track_caller]
    pub(crate) fn works(&self) {
        self.works_as("");
    }

    /// A push fails with the configuration as it is. If it was the first one, what its hooks have
    /// noted is forgotten, so that later findings are about the configuration alone.
    pub(crate) fn fails_as(&self, user: &str) {
        let is_first = !self.module.private("").exists();
        let daemon = Daemon::serve(&self.module);
        let run = self.push_as(&daemon, user);
        assert!(!run.succeeded(), "{run}");
        daemon.await_connections();
        if is_first {
            let _ = fs::remove_dir_all(self.module.private(""));
            for directory in [self.module.state_directory(), self.module.runtime_directory()] {
                fs::remove_dir_all(&directory).expect("removed");
                fs::create_dir(&directory).expect("a directory");
            }
        }
    }

    /// The hooks have ended, and the root has so many snapshots.
    #[track_caller]
    pub(crate) fn await_snapshot(&self, daemon: &Daemon, root: &Path, count: usize) {
        await_snapshots(root, count);
        daemon.await_connections();
        // A hook that was handed over is no child of the daemon.
        wait_until("no transfer is left", || {
            names_in(&root.join(".rsyncd-snapshot/transfers")).is_empty()
        });
    }
}

/// The command in backticks that a message tells, which is run as root would.
#[track_caller]
pub(crate) fn run_told(message: &str, begins: &str) {
    let begin = message.find(begins).unwrap_or_else(|| panic!("no {begins} in {message}"));
    let command = message[begin..].split('`').next().expect("text");
    Run::of(tool("sh").args(["-c", command])).exits(&[0]);
}

#[test]
fn a_configuration_without_mistakes_works() {
    let Some(patient) = Patient::new() else { return };
    patient.works();
}

#[test]
fn each_mistake_of_a_hook_is_named_with_its_line() {
    let Some(patient) = Patient::new() else { return };
    let directory = &patient.module.directory;
    let copy = |name: &str| {
        let path = directory.join(name).join("rsyncd-snapshot");
        fs::create_dir(directory.join(name)).expect("a directory");
        path
    };
    let (plain, impostor, empty) = (copy("plain"), copy("impostor"), copy("empty"));
    let folder = copy("folder");
    fs::create_dir(&folder).expect("a directory");
    copy_program(Path::new(BINARY), &plain);
    tree::set_mode(&plain, 0o644);
    copy_program(Path::new("/bin/true"), &impostor);
    fs::write(&empty, "").expect("a file");
    tree::set_mode(&empty, 0o755);
    let good = patient.good();
    let (pre, post) = (patient.pre(), patient.post());
    let with = |path: &Path| post.replace(BINARY, &path.display().to_string());
    let missing = "/no/such/sbin/rsyncd-snapshot";
    for (line, mistake, words) in [
        (&post, post.replace(BINARY, missing), "does not exist (this program is"),
        (&pre, pre.replace(BINARY, missing), "so every transfer is turned away"),
        (&post, "post-xfer exec = /usr/bin/rsync-snapshot".to_string(), "does not exist"),
        (&post, with(&plain), "chmod +x"),
        (&post, with(&impostor), "is not rsyncd-snapshot"),
        (&post, with(&empty), "is not rsyncd-snapshot"),
        (&post, with(&folder), "is no file"),
        (&post, format!("{post} post-xfer --now"), "--now"),
        (&post, format!("{post} snapshot data"), "runs another command"),
        (&post, format!("{post} pre-xfer"), "so no snapshot is made"),
        (&pre, pre.replace(" pre-xfer", " post-xfer"), "every transfer is turned away"),
        (
            &post,
            post.replace("policy.toml", "no-policy.toml"),
            "no-policy.toml does not exist, so nothing ever expires",
        ),
    ] {
        // pre-xfer holds the same words.
        patient.write(&good.replace(&format!("{line}\n"), &format!("{mistake}\n")));
        let above = if is_root() { 4 } else { 2 };
        let number = format!("{}:", above + if *line == pre { 4 } else { 5 });
        let told = patient.is_told("hook", "critical", words);
        assert!(told.contains(&format!("rsyncd.conf:{number}")), "{told}");
    }
    let request = format!("{post} post-xfer %RSYNC_REQUEST%");
    patient.write(&good.replace(&post, &request));
    let found = patient.troubles();
    assert!(found.iter().any(|one| one.0 == "hook-variable" && one.1 == "critical"), "{found:?}");
    patient.write(&good.replace(&post, ""));
    patient.is_told("hook-missing", "critical", "pre-xfer exec without post-xfer exec");
    patient.write(&good.replace(&pre, &format!("{pre}\nearly exec = {BINARY} pre-xfer")));
    patient.is_told("hook", "critical", "early exec");
    patient.write(&good);
    patient.works();
}

#[test]
fn hooks_that_work_in_another_form_are_no_mistake() {
    slow!();
    let Some(patient) = Patient::new() else { return };
    let directory = &patient.module.directory;
    let link = directory.join("rsyncd-snapshot");
    symlink(BINARY, &link).expect("a link");
    let copied = directory.join("copied dir");
    fs::create_dir(&copied).expect("a directory");
    let copied = copied.join("rsyncd-snapshot");
    copy_program(Path::new(BINARY), &copied);
    let script = directory.join("backup-hook");
    fs::write(&script, format!("#!/bin/sh\nexec {}\n", patient.hook(Path::new(BINARY))))
        .expect("it");
    tree::set_mode(&script, 0o755);
    let post = patient.post();
    let command = patient.hook(Path::new(BINARY));
    for hook in [
        command.replace(BINARY, &link.display().to_string()),
        command.replace(BINARY, &format!("'{}'", copied.display())),
        script.display().to_string(),
        format!("exec {command} post-xfer > /dev/null 2>&1"),
        format!("{command} post-xfer --detach"),
        format!("{command}; true"),
        format!("nice -n 5 {command}"),
        format!("[ -x /no/such ] || {command}"),
        format!("{command} # as documented"),
    ] {
        patient.write(&patient.good().replace(&post, &format!("post-xfer exec = {hook}")));
        patient.works();
    }
}

#[test]
fn another_version_of_the_program_is_a_warning() {
    let Some(patient) = Patient::new() else { return };
    let other = patient.module.directory.join("rsyncd-snapshot");
    copy_program(Path::new(BINARY), &other);
    Run::of(tool("sh").args(["-c", &format!("echo x >> {}", other.display())])).exits(&[0]);
    let post = format!("post-xfer exec = {}", patient.hook(&other));
    patient.write(&patient.good().replace(&patient.post(), &post));
    let told = patient.is_told("hook", "warning", "another version");
    assert!(told.contains(BINARY) && told.contains(&other.display().to_string()), "{told}");
}

#[test]
fn a_module_that_clients_cannot_write_to_is_named() {
    let Some(patient) = Patient::new() else { return };
    let good = patient.good();
    for (mistake, words) in [
        (good.replace("read only = no\n", ""), "add `read only = no`"),
        (good.replace("read only = no", "read only = no # writable"), "neither yes nor no"),
        (good.replace("read only = no", "read only = yes"), "change that to `read only = no`"),
        (good.replace("read only = no", "read_only = no"), "add `read only = no`"),
    ] {
        patient.write(&mistake);
        let found = patient.troubles();
        let told = found.iter().find(|one| one.0 == "read-only").expect("it is told");
        assert!(told.1 == "critical" && told.2.contains(words), "{found:#?}");
        // Besides, an unknown parameter is told as such.
        assert!(found.iter().all(|one| one.0 == "read-only" || one.0 == "conf-parameter"));
        patient.fails_as("");
    }
    patient.write(&good);
    patient.works();
}

#[test]
fn modules_that_are_read_only_on_purpose_are_no_mistake() {
    slow!();
    let Some(patient) = Patient::new() else { return };
    let (root, directory) = (&patient.module.root, &patient.module.directory);
    let downloads = directory.join("downloads");
    fs::create_dir(&downloads).expect("a directory");
    let restore =
        |hooks: &str| format!("[restore]\npath = {}\nread only = yes\n{hooks}\n", root.display());
    let hooks = format!("{}\n{}", patient.pre(), patient.post());
    let good = patient.good();
    for conf in [
        format!("{good}{}", restore("")),
        format!("{good}{}", restore(&hooks)),
        // A view of the module itself, and of all roots.
        format!("{good}[view]\npath = {}\n{hooks}\n", patient.module.latest.display()),
        format!("{good}[all]\npath = {}\n{hooks}\n", directory.display()),
        // Hooks above all modules, and one for downloads.
        format!(
            "{}{hooks}\n[data]\npath = {}\nread only = no\n[downloads]\npath = {}\n",
            patient.global(),
            patient.module.latest.display(),
            downloads.display()
        ),
        good.replace("read only = no", "read only = N O"),
        good.replace("read only = no", "read only = 0\nread only = perhaps")
            .replace("perhaps", "false"),
    ] {
        patient.write(&conf);
        patient.works();
    }
    // A machine that no longer pushes.
    patient.write(&good.replace("read only = no", "read only = yes"));
    patient.is_well();
}

#[test]
fn users_who_cannot_log_in_are_named() {
    slow!();
    let Some(patient) = Patient::new() else { return };
    let secrets = patient.module.directory.join("secrets");
    let path = secrets.display();
    let conf = |users: &str, more: &str| {
        patient.good().replace(
            "read only = no",
            &format!("read only = no\nauth users = {users}\nsecrets file = {path}\n{more}"),
        )
    };
    let write = |text: &str, mode: u32| {
        fs::write(&secrets, text).expect("secrets");
        tree::set_mode(&secrets, mode);
    };
    patient.write(&conf("laptop", "").replace(&format!("secrets file = {path}"), ""));
    patient.is_told("secrets-file", "critical", "without `secrets file`");
    patient.fails_as("laptop@");
    patient.write(&conf("laptop", ""));
    patient.is_told("secrets-file", "critical", "does not exist");
    write("laptop:secret\n", 0o644);
    let told = patient.is_told("secrets-file", "critical", "chmod 0600");
    patient.fails_as("laptop@");
    run_told(&told, "chmod 0600");
    patient.works_as("laptop@");
    write("desktop:secret\n", 0o600);
    let told = patient.is_told("auth-users", "critical", "no line for user laptop");
    assert!(!told.contains("secret\n") && !told.contains(":secret"), "{told}");
    patient.fails_as("laptop@");
    write("laptop:secret\n", 0o600);
    patient.write(&conf("laptop:ro", ""));
    patient.is_told("read-only", "critical", "`laptop:rw` instead of `laptop:ro`");
    patient.fails_as("laptop@");

    // What works.
    for (users, more, text, mode) in [
        ("laptop", "strict modes = no", "laptop:secret\n", 0o644),
        ("laptop", "", "# a:b\n\nlaptop:secret\n", 0o640),
        ("desk*:ro, lap*", "", "desk1:x\nlaptop:secret\n", 0o600),
        ("x:deny laptop", "", "laptop:secret\n", 0o600),
        ("@no-such-group laptop", "", "laptop:secret\n", 0o600),
        ("l[ab]ptop", "", "laptop:secret\n", 0o600),
        (", laptop:rw", "read only = yes", "laptop:secret\n", 0o600),
    ] {
        write(text, mode);
        patient.write(&conf(users, more));
        patient.works_as("laptop@");
    }
}

#[test]
fn hosts_that_no_client_can_be_are_named() {
    slow!();
    let Some(patient) = Patient::new() else { return };
    let good = patient.good();
    let with = |hosts: &str| {
        patient.write(
            &good.replace("read only = no", &format!("read only = no\nhosts allow = {hosts}")),
        );
    };
    with("192.0.2.17");
    patient.is_told("hosts-example", "warning", "192.0.2.17 is an address for examples");
    patient.fails_as("");
    with("127.0.0.1 no-such-host.invalid");
    patient.is_told("hosts-unresolved", "unknown", "no-such-host.invalid");
    for hosts in ["127.0.0.1", "127.0.0.0/8, 10.0.0.1", "localhost", "*", "127.0.0.1 *.invalid"] {
        with(hosts);
        patient.works();
    }
    with("127.0.0.1 no-such-host.invalid\nforward lookup = no");
    patient.works();
}

#[test]
fn modules_that_would_share_a_root_are_named() {
    let Some(patient) = Patient::new() else { return };
    let other = patient.module.root.join("other");
    fs::create_dir(&other).expect("a module");
    let hooks = format!("{}\n{}", patient.pre(), patient.post());
    let second = format!("[other]\npath = {}\nread only = no\n{hooks}\n", other.display());
    let both = format!("{}{second}", patient.good());
    patient.write(&both);
    let found = patient.troubles();
    assert_eq!(found.len(), 2, "{found:#?}");
    for one in &found {
        assert!(one.0 == "root-shared" && one.1 == "critical", "{one:?}");
        assert!(one.2.contains("'data' and 'other'") || one.2.contains("'other' and 'data'"));
    }
    // As told for the second one.
    let told = &found[1].2;
    let root = told.split("`snapshot_root = \"").nth(1).and_then(|rest| rest.split('"').next());
    let root = root.expect("a root");
    patient.module.write_policy(&format!("[module.other]\nsnapshot_root = \"{root}\"\n"));
    patient.works();
    let daemon = Daemon::serve(&patient.module);
    daemon.push(&patient.source, "other", &[]).exits(&[0]);
    patient.await_snapshot(&daemon, Path::new(root), 1);
    patient.is_well();
    drop(daemon);

    // Two names of one directory, of which one only reads.
    let view =
        second.replace(&other.display().to_string(), &patient.module.latest.display().to_string());
    patient.write(&format!(
        "{}{}",
        patient.good(),
        view.replace("read only = no", "read only = yes")
    ));
    patient.module.write_policy("[defaults]\n");
    patient.works();
}

#[test]
fn a_root_that_cannot_hold_links_is_named_before_it_exists() {
    let Some(patient) = Patient::new() else { return };
    if !root() {
        return;
    }
    let place = patient.module.directory.join("elsewhere");
    fs::create_dir(&place).expect("a mount point");
    let Some(mount) = Mount::tmpfs(&place) else { return };
    let root = place.join("roots");
    patient.module.write_policy(&format!("[defaults]\nsnapshot_root = \"{}\"\n", root.display()));
    let told = patient.is_told("root", "critical", "is on another file system than the module");
    assert!(!told.contains("chmod"), "{told}");
    let place = format!("is in {}:2)", patient.module.policy.display());
    assert!(told.contains("take `snapshot_root` out") && told.contains(&place), "{told}");
    assert!(!root.exists(), "check makes nothing");
    drop(mount);
    patient.works_at(&root);
}

impl Patient {
    /// The push brings the first snapshot into `root`.
    fn works_at(&self, root: &Path) {
        self.is_well();
        let daemon = Daemon::serve(&self.module);
        self.push_as(&daemon, "").exits(&[0]);
        self.await_snapshot(&daemon, root, 1);
        self.is_well();
    }
}

#[test]
fn a_file_system_without_hard_links_is_named_as_such() {
    if !have(&["rsync", "mkfs.vfat", "mount"]) || !root() {
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let (image, point) = (scratch.path().join("image"), scratch.path().join("mounted"));
    fs::create_dir(&point).expect("a mount point");
    let make = format!("truncate -s 32M {0} && mkfs.vfat {0}", image.display());
    Run::of(tool("sh").args(["-c", &make])).exits(&[0]);
    if !Run::of(tool("mount").args(["-o", "loop"]).args([&image, &point])).succeeded() {
        support::skip_in_this_kernel("vfat");
        return;
    }
    let module = Module::at(point.canonicalize().expect("it").join("root"));
    let patient = Patient { source: source(&module), module };
    patient.module.write_policy("[defaults]\n");
    patient.write(&patient.good());
    let told = patient.is_told("root", "critical", "vfat, has no hard links");
    assert!(!told.contains("chmod"), "{told}");
    let root = point.canonicalize().expect("it").join("new");
    patient.module.write_policy(&format!("[defaults]\nsnapshot_root = \"{}\"\n", root.display()));
    patient.is_told("root", "critical", "vfat, has no hard links");
    Run::of(tool("umount").arg(&point)).exits(&[0]);
}

#[test]
fn a_root_apart_from_the_history_is_named() {
    let Some(patient) = Patient::new() else { return };
    patient.works();
    let root = patient.module.directory.join("new-root");
    patient.module.write_policy(&format!("[defaults]\nsnapshot_root = \"{}\"\n", root.display()));
    let told = patient.is_told("root-place", "critical", "its history is in");
    assert!(told.contains("take `snapshot_root` out"), "{told}");
    patient.module.write_policy("[defaults]\n");
    patient.works();

    // Snapshots of another program beside the module, and the other way around.
    let Some(patient) = Patient::new() else { return };
    fs::create_dir(patient.module.root.join("2019-08-02 12:00:00")).expect("a snapshot");
    patient.module.write_policy(&format!("[defaults]\nsnapshot_root = \"{}\"\n", root.display()));
    let root = patient.module.directory.join("apart");
    patient.module.write_policy(&format!("[defaults]\nsnapshot_root = \"{}\"\n", root.display()));
    patient.is_told("root-place", "warning", "names of snapshots");
    patient.module.write_policy("[defaults]\n");
    patient.is_well();
}

#[test]
fn a_missing_directory_comes_with_the_command_that_makes_it() {
    let Some(patient) = Patient::new() else { return };
    fs::remove_dir_all(&patient.module.root).expect("removed");
    let told = patient.is_told("module-directory", "critical", "install -d");
    run_told(&told, "install -d");
    patient.works();
    // A directory that had snapshots is not simply made anew.
    fs::remove_dir_all(&patient.module.root).expect("removed");
    let found = patient.troubles();
    assert!(!found.iter().any(|one| one.2.contains("install -d")), "{found:#?}");
}

#[test]
fn a_user_who_cannot_write_is_named() {
    let Some(patient) = Patient::new() else { return };
    if !root() {
        return;
    }
    let good = patient.good();
    let latest = patient.module.latest.clone();
    tree::set_mode(&latest, 0o755);
    for (account, words) in [
        ("", "no `uid` is set, so pushes are written as user nobody"),
        ("uid = nobody\n", "written as user nobody (uid 65534)"),
        ("uid = 4711\ngid = 4712\n", "run `chown 4711:4712"),
    ] {
        patient.write(&good.replace("uid = root\ngid = root\n", account));
        patient.is_told("module-access", "critical", words);
        patient.fails_as("");
    }
    let told = patient.is_told("module-access", "critical", "run `chown 4711:4712");
    run_told(&told, "chown 4711:4712");
    patient.works();
    // Who does not own the directory cannot set its time, and `check` says so beforehand.
    tree::set_mode(&latest, 0o770);
    let give = |owner: &str| drop(Run::of(tool("chown").arg(owner).arg(&latest)).exits(&[0]));
    give("0:4712");
    patient.is_well();
    let check = patient.module.run(&["check"]).exits(&[0]).says("cannot set its time").stdout();
    run_told(&check, "chown 4711");
    patient.works();
    // Others may not enter the directory above it, and rsyncd does so as root.
    patient.write(&good.replace("uid = root\ngid = root\n", "uid = 4713\ngid = *\n"));
    let found = patient.troubles();
    assert!(found.is_empty(), "the groups of that user are not known: {found:#?}");
    patient.write(&good.replace("uid = root", "uid = no-such-user"));
    patient.is_told("module-access", "critical", "uid = no-such-user");
    patient.fails_as("");
    patient.write(&good);
    give("0:0");
    patient.works();
    patient.write(&good.replace("uid = root\ngid = root\n", "uid = 4711\ngid = 4712\n"));
    give("0:4712");
    tree::write(&patient.source.join("last"), "x");
    let daemon = Daemon::serve(&patient.module);
    patient.push_as(&daemon, "").exits(&[23]);
}

#[test]
fn a_directory_on_a_read_only_disk_is_named() {
    if !have(&["rsync"]) || !root() {
        return;
    }
    let Some(disk) = FileSystem::new(Kind::Ext4) else { return };
    let module = Module::on(&disk);
    let patient = Patient { source: source(&module), module };
    patient.module.write_policy("[defaults]\n");
    patient.write(&patient.good());
    let remount = |how: &str| {
        Run::of(tool("mount").args(["-o", how]).arg(&disk.mount_point)).exits(&[0]);
    };
    remount("remount,ro");
    patient.is_told("module-access", "critical", "mounted read only");
    patient.fails_as("");
    remount("remount,rw");
    patient.works();
}

#[test]
fn a_path_that_does_not_resolve_in_the_chroot_is_named() {
    let Some(patient) = Patient::new() else { return };
    if !root() {
        return;
    }
    let root = &patient.module.root;
    let outer = root.parent().expect("a parent");
    let name = root.file_name().expect("a name").to_string_lossy().into_owned();
    let latest = patient.module.latest.display().to_string();
    let chroot = |path: String| {
        let conf = patient.good().replace("use chroot = no", "use chroot = yes");
        patient.write(&conf.replace(&format!("path = {latest}\n"), &format!("path = {path}\n")));
    };
    symlink(&patient.module.latest, root.join("absolute")).expect("a link");
    symlink("latest", root.join("relative")).expect("a link");
    chroot(format!("{}/./{name}/absolute", outer.display()));
    patient.is_told("module-chroot", "critical", "does not find");
    patient.fails_as("");
    for path in [
        format!("{}/./{name}/latest", outer.display()),
        format!("{}/./{name}/relative", outer.display()),
        format!("{}/absolute", root.display()),
    ] {
        chroot(path);
        patient.works();
    }
}

#[test]
fn a_mistyped_key_is_told_with_the_one_that_was_meant() {
    let Some(patient) = Patient::new() else { return };
    patient.module.write_policy("[defaults]\nmax_agge = \"1d\"\nfre_space = \"5%\"\n");
    let found = patient.troubles();
    let told = |words: &str| found.iter().filter(|one| one.2.contains(words)).count();
    assert!(told("did you mean max_age?") > 0 && told("did you mean free_space?") > 0, "{found:?}");
    let lists = found.iter().filter(|one| one.0 == "policy-mistake" && one.2.contains("keys are"));
    assert!(lists.count() <= 2, "the list stands in one line for the module, and one: {found:#?}");
    patient.module.write_policy("[module.dta]\nmin_keep = 3\n");
    patient.is_told("policy-module", "warning", "did you mean data?");
    patient.module.write_policy("[module.data]\nmax_age = \"1d\"\n");
    patient.is_well();
}

#[test]
fn lines_that_rsync_ignores_are_told() {
    let Some(patient) = Patient::new() else { return };
    let good = patient.good();
    for (line, words) in [
        ("auth user = laptop", "did you mean `auth users`?"),
        ("list = no # hidden", "neither yes nor no"),
        ("pid file = /run/x", "above the first module"),
    ] {
        patient.write(&good.replace("read only = no", &format!("read only = no\n{line}")));
        patient.is_told("conf-parameter", "warning", words);
    }
    patient.write(&good.replace("read only = no", "read only = no\nsome future thing = 1"));
    patient.works();
}

#[test]
fn an_unset_timeout_is_a_note() {
    let Some(patient) = Patient::new() else { return };
    patient.write(&patient.good().replace("timeout = 60", ""));
    patient.module.run(&["check"]).exits(&[0]).says("no `timeout` is set for data");
    patient.write(&patient.good());
    let text = patient.module.run(&["check"]).exits(&[0]).stdout();
    assert!(!text.contains("timeout"), "{text}");
}

#[test]
fn a_daemon_without_a_right_is_noted_while_it_runs() {
    let Some(patient) = Patient::new() else { return };
    if !root() || !have(&["setpriv"]) {
        return;
    }
    let device = patient.source.join("device");
    Run::of(tool("mknod").arg(&device).args(["c", "1", "3"])).exits(&[0]);
    let wrapper = patient.module.directory.join("rsync-without-mknod");
    let text = "#!/bin/sh\nexec setpriv --bounding-set -mknod rsync \"$@\"\n";
    fs::write(&wrapper, text).expect("a wrapper");
    tree::set_mode(&wrapper, 0o755);
    let daemon = Daemon::serve_by(&patient.module, &wrapper.display().to_string());
    let note = "may not make device files";
    patient.module.run(&["check"]).exits(&[0]).says(note).says("PrivateDevices=no");
    patient.push_as(&daemon, "").exits(&[23]);
    daemon.await_connections();
    let found = patient.troubles();
    assert!(found.iter().any(|one| one.0 == "daemon" && one.2.contains(note)), "{found:#?}");
    drop(daemon);
    let daemon = Daemon::serve(&patient.module);
    let text = patient.module.run(&["check"]).stdout();
    assert!(!text.contains(note), "{text}");
    patient.push_as(&daemon, "").exits(&[0]);
}

#[test]
fn mistakes_in_included_files_are_named_with_their_place() {
    let Some(patient) = Patient::new() else { return };
    let directory = patient.module.directory.join("rsyncd.d");
    fs::create_dir(&directory).expect("a directory");
    let good = patient.good();
    let (global, section) = good.split_at(good.find("[data]").expect("a section"));
    let file = directory.join("data.conf");
    fs::write(&file, section.replace("read only = no", "# a line\nread only = no # w"))
        .expect("it");
    patient.write(&format!("{global}&include {}\n", directory.display()));
    let told = patient.is_told("read-only", "critical", "neither yes nor no");
    assert!(told.starts_with(&format!("{}:4: ", file.display())), "{told}");
    fs::write(&file, section).expect("it");
    patient.works();
}

#[test]
fn a_module_whose_path_depends_on_the_user_is_examined_too() {
    let Some(patient) = Patient::new() else { return };
    let secrets = patient.module.directory.join("secrets");
    fs::write(&secrets, "root:secret\n").expect("secrets");
    tree::set_mode(&secrets, 0o600);
    // The module's directory is ROOT/latest, and the user is called as the root is.
    let base = patient.module.directory.display().to_string();
    let good = patient.good().replace(
        &format!("path = {}", patient.module.latest.display()),
        &format!(
            "path = {base}/%RSYNC_USER_NAME%/latest\nauth users = root\nsecrets file = {}",
            secrets.display()
        ),
    );
    patient.write(&good.replace(&patient.post(), "post-xfer exec = /no/such/rsyncd-snapshot"));
    patient.is_told("hook", "critical", "does not exist");
    patient.module.run(&["check", "data"]).exits(&[2]).says("does not exist");
    patient.write(&good.replace("read only = no", ""));
    patient.is_told("read-only", "critical", "every push fails");
    patient.write(&good);
    patient.works_as("root@");
}

#[test]
fn an_ordinary_user_gets_no_false_alarm() {
    let Some(patient) = Patient::new() else { return };
    if !root() || !have(&["setpriv"]) {
        return;
    }
    let secrets = patient.module.directory.join("secrets");
    fs::write(&secrets, "laptop:secret\n").expect("secrets");
    tree::set_mode(&secrets, 0o600);
    let more = format!("read only = no\nauth users = laptop\nsecrets file = {}", secrets.display());
    patient.write(&patient.good().replace("read only = no", &more));
    let program = patient.module.directory.join("program");
    copy_program(Path::new(BINARY), &program);
    tree::set_mode(&patient.module.root, 0o755);
    let mut command = tool("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command.arg("--config").arg(&patient.module.policy);
    command.arg("--rsyncd-conf").arg(&patient.module.rsyncd_conf);
    let told = Run::of(command.args(["check", "--json"])).json();
    let findings = told["modules"][0]["findings"].as_array().expect("findings");
    for id in ["secrets-file", "module-access"] {
        let found: Vec<&Value> = findings.iter().filter(|one| one["id"] == id).collect();
        assert!(!found.is_empty() && found.iter().all(|one| one["level"] == "ok"), "{told:#}");
    }
}
