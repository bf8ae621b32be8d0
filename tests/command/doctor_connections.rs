//! `check` about lines that keep clients out. One real rsync daemon serves a module for each line:
//! `check` names the line, and no push gets in; or the line works, and there is no word about it.

use crate::doctor::Patient;
use crate::support;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;
use support::daemon::{Daemon, client};
use support::run::{Run, tool};
use support::{root, tree};

/// The identification, the level and words of the finding.
type Told = (&'static str, &'static str, &'static str);

/// A server with a module for each of these lines, which are tried with pushes.
fn each(patient: &Patient, prepare: impl Fn(&Path), lines: &[(&str, Option<Told>)]) {
    let directory = &patient.module.directory;
    let secrets = directory.join("secrets");
    fs::write(&secrets, "laptop:secret\nm1:secret\n").expect("secrets");
    tree::set_mode(&secrets, 0o600);
    let mut conf = patient.global();
    // The usual one may be that of another user's daemon.
    writeln!(conf, "lock file = {}", directory.join("lock").display()).expect("it");
    for (number, (lines, _)) in lines.iter().enumerate() {
        let path = directory.join(format!("m{number}/latest"));
        fs::create_dir_all(&path).expect("a module");
        tree::set_mode(path.parent().expect("a root"), 0o700);
        prepare(&path);
        let (hooks, path) = (format!("{}\n{}", patient.pre(), patient.post()), path.display());
        let lines = lines.replace("SECRETS", &format!("secrets file = {}", secrets.display()));
        writeln!(conf, "[m{number}]\npath = {path}\nread only = no\n{hooks}\n{lines}").expect("it");
    }
    patient.write(&conf);
    let json = patient.module.run(&["check", "--json"]).json();
    let daemon = Daemon::serve(&patient.module);
    for (number, (lines, expected)) in lines.iter().enumerate() {
        let name = format!("m{number}");
        let is_it = |one: &&Value| one["module"] == name.as_str();
        let module = json["modules"].as_array().expect("modules").iter().find(is_it);
        let found = module.unwrap_or_else(|| panic!("{name}: {json:#}"))["findings"].as_array();
        let found: Vec<&Value> =
            found.expect("findings").iter().filter(|one| one["level"] != "ok").collect();
        let user = if lines.contains("%RSYNC_MODULE_NAME%") { "m1" } else { "laptop" };
        let url = daemon.url(&format!("{name}/")).replace("rsync://", &format!("rsync://{user}@"));
        let mut push = client();
        push.env("RSYNC_PASSWORD", "secret").arg("--archive").arg(patient.source.join("")).arg(url);
        let run = Run::of(&mut push);
        match expected {
            None => {
                assert_eq!(found, Vec::<&Value>::new(), "{lines}");
                assert!(run.succeeded(), "{lines}: {run}");
            }
            Some((id, level, words)) => {
                assert_eq!(found.len(), 1, "{lines}: {found:#?}");
                let message = found[0]["message"].as_str().expect("text");
                assert!(message.contains(words), "{lines}: {message}");
                assert!(found[0]["id"] == *id && found[0]["level"] == *level, "{found:#?}");
                assert!(!run.succeeded(), "{lines}: {run}");
            }
        }
    }
    daemon.await_connections();
}

#[test]
fn hosts_are_read_as_rsync_reads_them() {
    slow!();
    let Some(patient) = Patient::new() else { return };
    let refused = |words| Some(("hosts-refused", "critical", words));
    each(
        &patient,
        |_| (),
        &[
            ("hosts allow = 127.0.0.", refused("write `127.0.0.0/24`")),
            ("hosts allow = *.%RSYNC_MODULE_NAME% 127.0.0.1", None),
            ("hosts allow = 127.0.0.300", refused("is no address")),
            ("hosts allow = [::1]", refused("write `::1`")),
            ("hosts allow = 127.0.0.1:873", refused("write `127.0.0.1`")),
            ("hosts allow = [127.0.0.1]:873", refused("write `127.0.0.1`")),
            ("hosts allow = 0.0.0.0", refused("write `*`")),
            ("hosts allow = ::ffff:127.0.0.1", refused("write `127.0.0.1`")),
            ("hosts allow = 127/8", refused("write `127.0.0.0/8`")),
            ("hosts allow = ALL", refused("write `*`")),
            ("hosts allow = .localdomain", refused("write `*.localdomain`")),
            ("hosts allow = 127.0.0.1-127.0.0.9", refused("is a range")),
            ("hosts allow = localhost;x", refused("a blank or a comma")),
            ("hosts allow = localhost/8", refused("a name with a mask")),
            ("hosts allow = 127.0.0.1/-1", refused("mask")),
            ("hosts allow = 128.5/16", refused("means 128.0.0.0/16; write `128.5.0.0/16`")),
            ("hosts allow = 127.1", None),
            ("hosts allow = 127.0/16", None),
            ("hosts allow = 2130706433", None),
            ("hosts allow = 0.0.0.0/0", None),
            ("hosts allow = 127.0.0.1/0", None),
            ("hosts allow = 127.0.0.01", None),
            ("hosts allow = %RSYNC_HOST_ADDR%", None),
            ("hosts deny = 0.0.0.0/0", refused("lets no client with an IPv4 address in")),
            ("hosts deny = 0.0.0.0/0.0.0.0, ::/0", refused("lets no client in")),
            ("hosts deny = 0.0.0.0/0\nhosts allow = 127.0.0.1", None),
            ("hosts deny = ::/0", None),
            ("hosts deny = 10.0.0.0/8 0.0.0.0", None),
            (
                "hosts deny = no-such-host.invalid",
                Some(("hosts-unresolved", "unknown", "rsync keeps out each client")),
            ),
            ("hosts deny = no-such-host.invalid\nforward lookup = no", None),
        ],
    );
}

#[test]
fn users_are_matched_as_rsync_matches_them() {
    slow!();
    let Some(patient) = Patient::new() else { return };
    let users = |words| Some(("auth-users", "critical", words));
    each(
        &patient,
        |_| (),
        &[
            ("auth users = *:deny laptop:rw\nSECRETS", users("move `laptop:rw` to the front")),
            // This user's name is that of the module.
            ("auth users = %RSYNC_MODULE_NAME%:rw\nSECRETS", None),
            ("auth users = *:ro laptop:rw\nSECRETS", users("so laptop may only read")),
            ("auth users = laptop:ro, laptop:rw\nSECRETS", users("since `laptop:ro` stands")),
            ("auth users = lap*:deny laptop\nSECRETS", users("so laptop cannot log in")),
            ("auth users = x:deny laptop\nSECRETS", None),
            ("auth users = lap* ?x\nSECRETS", None),
            ("auth users = laptop:rw *:deny\nSECRETS", None),
            ("auth users = *:rw laptop:ro\nSECRETS", None),
            ("auth users = laptop\nauth digest = sha3\nSECRETS", users("sha512, sha256")),
            ("auth users = laptop\nauth digest = sha-256\nSECRETS", users("sha512, sha256")),
            ("auth users = laptop\nauth digest = SHA1\nSECRETS", None),
            ("auth digest = sha3", None),
        ],
    );
}

#[test]
fn filters_are_read_as_rsync_reads_them() {
    let Some(patient) = Patient::new() else { return };
    let wrong = |words| Some(("conf-parameter", "critical", words));
    each(
        &patient,
        |_| (),
        &[
            ("filter = *.tmp", wrong("`*.tmp` is no rule")),
            ("filter = exclud *.tmp", wrong("`exclud` is no rule")),
            ("filter = exclude=*.tmp", wrong("write `- PATTERN`")),
            ("filter = merge_/nope", wrong("/nope does not exist")),
            ("filter = -q *.tmp", wrong("no modifier")),
            ("filter = + a -", wrong("have to follow")),
            ("exclude = -  *.tmp", wrong("write `- PATTERN`")),
            ("filter = - *.tmp", None),
            ("filter = exclude_*.tmp +p keep merge,-_/dev/null", None),
            ("filter = - %RSYNC_MODULE_NAME%.tmp", None),
            ("exclude = - *.tmp + b -", None),
            ("include = *.tmp !", None),
        ],
    );
}

#[test]
fn numbers_and_paths_that_keep_clients_out_are_told() {
    let Some(patient) = Patient::new() else { return };
    let lock = patient.module.directory.join("lock");
    let lock_in = format!("max connections = 4\nlock file = {}", lock.display());
    let lock_at = format!("max connections = 4\nlock file = {}", patient.source.display());
    let mut lines = vec![
        ("max connections = -1", Some(("conf-parameter", "critical", "negative number"))),
        ("max connections = x4", None),
        (lock_at.as_str(), Some(("conf-file", "critical", "is a directory"))),
        (lock_in.as_str(), None),
        ("temp dir = /file", Some(("conf-file", "critical", "is no directory"))),
        ("temp dir = /t", None),
    ];
    if root() {
        let others = "temp dir = /t\nuid = 4711\ngid = 4711";
        lines.push((others, Some(("module-access", "critical", "who cannot write into"))));
    }
    let prepare = |path: &Path| {
        fs::write(path.join("file"), "x").expect("a file");
        fs::create_dir(path.join("t")).expect("a directory");
        if root() && path.parent().is_some_and(|root| root.ends_with("m6")) {
            Run::of(tool("chown").arg("4711:4711").arg(path)).exits(&[0]);
        }
    };
    each(&patient, prepare, &lines);
}

/// Each parameter of a module that `rsyncd.conf(5)` has, with nonsense for its value, apart from
/// those that have a test of their own above or in another file.
#[test]
fn nonsense_in_each_parameter_is_told_if_it_keeps_clients_out() {
    let Some(patient) = Patient::new() else { return };
    let wrong = |words| Some(("conf-parameter", "critical", words));
    let of_users = |words| Some(("module-access", "critical", words));
    let mut lines = vec![
        ("charset = nonsense", wrong("knows no character set `nonsense`")),
        ("charset = UTF-8 # with umlauts", wrong("such as `charset = UTF-8`")),
        ("charset = utf_8", wrong("`utf_8`")),
        ("charset = -,utf-8", wrong("`-`")),
        ("charset = UTF8", None),
        ("charset = iso8859-15", None),
        ("charset = .", None),
        ("charset =", None),
        ("charset = latin1,nonsense", None),
        ("charset = \"utf-8\"", None),
        ("lock file =\nmax connections = 4", Some(("conf-file", "critical", "it is empty"))),
        ("lock file = /no/such/lock", None),
        ("max connections = 2147483649", wrong("above 2147483647")),
        ("max connections = 99999999999", None),
        ("early exec = /bin/false", Some(("hook", "critical", "always fails"))),
        ("early exec = /no/such", Some(("hook", "critical", "does not exist"))),
        ("early exec = /bin/true", None),
        ("name converter = /no/such\nnumeric ids = yes", None),
        ("comment = \\x01", None),
        ("log file = /no/such/log", None),
        ("syslog facility = nonsense", None),
        ("syslog tag = %n%s", None),
        ("max verbosity = x", None),
        ("incoming chmod = nonsense", None),
        ("outgoing chmod = 999", None),
        ("auth digest = nonsense", None),
        ("secrets file = /no/such", None),
        ("log format = %Q%z%\ntransfer logging = yes", None),
        ("timeout = x", None),
        ("timeout = -5", None),
        ("refuse options = nonsense", None),
        ("dont compress = [", None),
        ("exclude = nonsense", None),
        ("include = nonsense", None),
    ];
    if root() {
        let file = patient.source.join("of another");
        fs::write(&file, "x").expect("a file");
        Run::of(tool("chown").arg("1:1").arg(&file)).exits(&[0]);
        lines.extend([
            ("uid = nonsense", of_users("`uid = nonsense` is unknown")),
            ("gid = nonsense", of_users("`gid = nonsense` is unknown")),
            ("gid = 0 *", of_users("write `*` before the other groups")),
            ("gid = *", None),
            ("name converter = /bin/cat", None),
            ("munge symlinks = yes\nuse chroot = yes", wrong("rename that directory")),
            ("munge symlinks = yes", None),
            ("munge symlinks = no\nuse chroot = yes", None),
            ("use chroot = yes", None),
        ]);
    }
    let has_munged = root();
    let prepare = |path: &Path| {
        if has_munged {
            fs::create_dir(path.join("rsyncd-munged")).expect("a directory");
        }
    };
    each(&patient, prepare, &lines);
}

#[test]
fn nonsense_for_yes_or_no_is_told_and_ignored_by_rsync() {
    let Some(patient) = Patient::new() else { return };
    let parameters = [
        "use chroot",
        "list",
        "write only",
        "open noatime",
        "fake super",
        "munge symlinks",
        "insecure links",
        "numeric ids",
        "strict modes",
        "reverse lookup",
        "forward lookup",
        "ignore errors",
        "ignore nonreadable",
        "transfer logging",
    ];
    let lines = parameters.map(|parameter| format!("{parameter} = nonsense\n")).concat();
    patient.write(&format!("{}{lines}", patient.good()));
    let found = patient.troubles();
    for parameter in parameters {
        let words = format!("rsync ignores `{parameter} = nonsense`");
        let of_it = found.iter().filter(|one| one.1 == "warning" && one.2.contains(&words));
        assert_eq!(of_it.count(), 1, "{parameter}: {found:#?}");
    }
    assert_eq!(found.len(), parameters.len(), "{found:#?}");
    let daemon = Daemon::serve(&patient.module);
    patient.push_as(&daemon, "").exits(&[0]);
    daemon.await_connections();
}

#[test]
fn a_name_converter_that_cannot_run_is_told() {
    let Some(patient) = Patient::new().filter(|_| root()) else { return };
    let file = patient.source.join("of another");
    fs::write(&file, "x").expect("a file");
    Run::of(tool("chown").arg("1:1").arg(&file)).exits(&[0]);
    let line = "read only = no\nname converter = /no/such";
    patient.write(&patient.good().replace("read only = no", line));
    patient.is_told(
        "hook",
        "critical",
        "so pushes with files of another owner than root break off",
    );
    let daemon = Daemon::serve(&patient.module);
    // It depends on when rsync sees that the program has ended.
    let fails = |_| !patient.push_as(&daemon, "").succeeded();
    assert!((0..20).any(fails));
    daemon.await_connections();
}

#[test]
fn a_name_that_is_not_that_of_the_header_is_told() {
    let Some(patient) = Patient::new() else { return };
    let with = |line: &str| {
        let line = format!("read only = no\n{line}");
        patient.write(&patient.good().replace("read only = no", &line));
    };
    with("name = my laptop");
    let told = patient.is_told("conf-parameter", "warning", "push to `data`");
    assert!(told.contains("take the line out"), "{told}");
    patient.fails_as("");
    with("name = data");
    patient.works();
}

#[test]
fn a_relative_path_that_the_daemon_does_not_find_is_told() {
    let Some(patient) = Patient::new() else { return };
    let path = format!("path = {}", patient.module.latest.display());
    let daemon = Daemon::serve(&patient.module);
    patient.write(&patient.good().replace(&path, "path = no/such/latest"));
    let told = patient.is_told("conf-parameter", "critical", "it is relative");
    assert!(told.contains("write the whole path"), "{told}");
    assert!(!patient.push_as(&daemon, "").succeeded());
    daemon.await_connections();
}

/// Each parameter of the whole daemon with nonsense for its value.
#[test]
fn nonsense_above_all_modules_is_told_if_it_keeps_clients_out() {
    slow!();
    let Some(patient) = Patient::new() else { return };
    let good = patient.good();
    let directory = patient.source.display().to_string();
    let motd = format!("motd file = {directory}");
    let pipe = patient.module.directory.join("pipe");
    Run::of(tool("mkfifo").arg("-m0600").arg(&pipe)).exits(&[0]);
    let secrets = format!("auth users = laptop\nsecrets file = {}", pipe.display());
    for (line, expected) in [
        ("motd file = /no/such", None),
        (motd.as_str(), Some("is a directory")),
        (secrets.as_str(), Some("is no file")),
        ("pid file =", None),
        ("port = x", None),
        ("socket options = nonsense", None),
        ("socket options = SO_SNDBUF=x", None),
        ("listen backlog = x", None),
        ("listen backlog = -5", None),
        ("proxy protocol = nonsense", None),
        ("proxy protocol hosts = nonsense", None),
        ("daemon chroot = /no/such", Some("is not there")),
        ("daemon gid = no-such-group", Some("knows no group no-such-group")),
        ("daemon uid = no-such-user", Some("is unknown to this system")),
    ] {
        if line.starts_with("daemon ") && !root() {
            continue;
        }
        patient.write(&format!("{line}\n{good}"));
        let Some(words) = expected else {
            patient.works();
            continue;
        };
        let id = match line {
            _ if line == secrets => "secrets-file",
            "daemon uid = no-such-user" => "module-access",
            _ => "daemon",
        };
        patient.is_told(id, "critical", words);
        let daemon = Daemon::serve(&patient.module);
        let mut push = client();
        push.args(["--archive", "--timeout=3"]).arg(patient.source.join(""));
        let run = Run::of(push.arg(daemon.url("data/")));
        assert!(!run.succeeded(), "{line}: {run}");
    }
}

#[test]
fn a_daemon_that_does_not_start_is_told_before() {
    let Some(patient) = Patient::new() else { return };
    let good = patient.good();
    for (line, words, status) in [
        ("pid file = /run/no-such/rsyncd.pid", "/run/no-such does not exist", 11),
        ("address = 10.99.99.99", "no address of this machine", 10),
        ("address = no-such-host.invalid", "no name that resolves", 10),
        ("port = -1", "with a negative number", 10),
    ] {
        patient.write(&format!("{line}\n{good}"));
        let level = if line.contains("invalid") { "warning" } else { "critical" };
        patient.is_told("daemon", level, words);
        let conf = format!("--config={}", patient.module.rsyncd_conf.display());
        let mut arguments = vec!["--daemon", "--no-detach", &conf];
        arguments.extend((!line.starts_with("port")).then_some("--port=47999"));
        Run::of(tool("rsync").args(arguments)).exits(&[status]);
    }
    let pid = patient.module.directory.join("pid");
    patient.write(&format!("pid file = {}\naddress = 127.0.0.1\n{good}", pid.display()));
    patient.works();
    patient.write(&format!("proxy protocol = yes\n{good}"));
    patient.is_told("daemon", "warning", "lets no client in without `proxy protocol hosts`");
    let daemon = Daemon::serve(&patient.module);
    assert!(!patient.push_as(&daemon, "").succeeded());
    patient.write(&format!("proxy protocol = yes\nproxy protocol hosts = 127.0.0.1\n{good}"));
    patient.is_well();
}
