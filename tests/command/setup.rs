//! `setup`: a module that clients can push to, made by one command, with a real daemon.

use crate::support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use support::daemon::{Daemon, await_snapshots, client};
use support::file_system::{FileSystem, Kind};
use support::run::{Run, tool};
use support::server::Server;
use support::{fingerprint, have, is_root, tree};

/// A server without rsyncd.conf, in a directory of its own for what would be in `/etc`.
fn empty_server() -> Server {
    let mut server = Server::new();
    let etc = server.directory.join("etc");
    fs::create_dir(&etc).expect("a directory");
    server.rsyncd_conf = etc.join("rsyncd.conf");
    server
}

fn with_conf(text: &str) -> Server {
    let server = empty_server();
    let text = text.replace('@', server.directory.to_str().expect("UTF-8"));
    server.write_rsyncd_conf(&text);
    server
}

fn root_of(server: &Server) -> PathBuf {
    server.directory.join("srv/laptop")
}

/// The command for the module `laptop`.
fn setup(server: &Server, more: &[&str]) -> Run {
    let root = root_of(server);
    let words = ["setup", "laptop", "--path", root.to_str().expect("UTF-8")];
    server.run(&[&words, more].concat())
}

/// Every file of the configuration, with its inode, and every directory below `srv`.
fn state(server: &Server) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![server.directory.join("etc"), server.directory.join("srv")];
    while let Some(directory) = left.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let inode = fs::symlink_metadata(&path).expect("there").ino();
            found.insert(path.clone(), (inode, fs::read(&path).unwrap_or_default()));
            left.push(path);
        }
    }
    found
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).expect("there").mode() & 0o7777
}

/// What is at `path` for the user `laptop`.
fn url(daemon: &Daemon, path: &str) -> String {
    daemon.url(path).replace("rsync://", "rsync://laptop@")
}

fn transfer(from: &str, to: &str, password: &str) -> Run {
    Run::of(client().env("RSYNC_PASSWORD", password).arg("--archive").args([from, to]))
}

/// Refused with this text and status 2, and nothing is written.
#[track_caller]
fn assert_refused(server: &Server, words: &[&str], text: &str) {
    let before = state(server);
    let run = setup(server, &[words, &["--write"]].concat()).exits(&[2]);
    let shown = run.stderr().replace(server.directory.to_str().expect("UTF-8"), "@");
    assert!(shown.contains(text), "expected {text:?}: {shown}");
    assert_eq!(state(server), before, "{shown}");
}

#[test]
fn a_module_on_an_empty_server_takes_a_push_and_shows_its_snapshot() {
    if !have(&["rsync"]) {
        return;
    }
    let server = empty_server();
    let options = ["--user", "laptop", "--restore", "--write", "--json"];
    let done = setup(&server, &options).exits(&[0]).json();
    assert_eq!(done["check"]["status"], "ok", "{done:#}");
    assert_eq!(done["is_written"], true);
    let secret = done["secret"].as_str().expect("a secret").to_string();
    assert!(secret.len() >= 24, "{secret}");
    let root = root_of(&server);
    for (path, mode) in [
        (root.clone(), 0o700),
        (root.join("latest"), 0o700),
        (server.directory.join("etc/rsyncd.conf"), 0o644),
        (server.directory.join("etc/rsyncd.d"), 0o755),
        (server.directory.join("etc/rsyncd.d/laptop.conf"), 0o644),
        (server.directory.join("etc/rsyncd.secrets"), 0o600),
    ] {
        assert_eq!(mode_of(&path), mode, "{}", path.display());
    }
    let daemon = Daemon::serve(&server);
    let source = server.directory.join("source");
    tree::small(&source);
    let from = format!("{}/", source.display());
    transfer(&from, &url(&daemon, "laptop/"), "wrong").exits(&[5]);
    transfer(&from, &url(&daemon, "laptop/"), &secret).exits(&[0]);
    let snapshots = await_snapshots(&root, 1);
    let pulled = server.directory.join("pulled");
    let of_snapshot = url(&daemon, &format!("laptop-snapshots/{}/", snapshots[0]));
    transfer(&of_snapshot, &format!("{}/", pulled.display()), &secret).exits(&[0]);
    assert_eq!(fingerprint::contents(&pulled), fingerprint::contents(&source));
    let listed =
        Run::of(client().env("RSYNC_PASSWORD", &secret).arg(url(&daemon, "laptop-snapshots/")));
    assert!(!listed.stdout().contains(".rsyncd-snapshot"), "{listed}");
    daemon.await_connections();
    // With a history it is still the same module.
    setup(&server, &options).exits(&[0]);
}

#[test]
fn a_second_run_changes_nothing_and_shows_no_secret() {
    let server = empty_server();
    let options = ["--user", "laptop", "--restore", "--hosts", "127.0.0.1", "--write"];
    let first = setup(&server, &options).exits(&[0]);
    let text = fs::read_to_string(server.directory.join("etc/rsyncd.secrets")).expect("a file");
    let secret = text.trim().strip_prefix("laptop:").expect("a line").to_string();
    assert!(first.stdout().contains(&secret), "{first}");
    let before = state(&server);
    let second = setup(&server, &options).exits(&[0]).says("Nothing had to be changed.");
    assert!(!second.stdout().contains(&secret) && !second.stderr().contains(&secret), "{second}");
    assert_eq!(state(&server), before);
    let json = setup(&server, &[&options[..], &["--json"]].concat()).exits(&[0]).json();
    assert_eq!(json["secret"], Value::Null);
    let changes = json["changes"].as_array().expect("steps");
    assert!(changes.iter().all(|step| step["changed"] == false), "{json:#}");
}

#[test]
fn without_write_nothing_is_written_and_the_sections_can_be_pasted() {
    let server = empty_server();
    let before = state(&server);
    let shown = setup(&server, &["--user", "laptop", "--restore"]).exits(&[0]).stdout();
    let planned = setup(&server, &["--user", "laptop", "--write", "-n"]).exits(&[0]).stdout();
    assert!(planned.contains("write ") && planned.contains("rsyncd.conf"), "{planned}");
    assert_eq!(state(&server), before);
    // What was pasted counts: only the rest is done then.
    server.write_rsyncd_conf(&shown);
    let done = setup(&server, &["--user", "laptop", "--restore", "--write", "--json"]);
    let done = done.exits(&[0]).json();
    assert_eq!(fs::read_to_string(&server.rsyncd_conf).expect("a file"), shown);
    assert!(!server.directory.join("etc/rsyncd.d").exists(), "{done:#}");
    assert!(done["secret"].is_string(), "{done:#}");
}

#[test]
fn a_restore_module_is_added_to_a_module_that_is_there() {
    let server = with_conf("[other]\npath = @/o\n");
    setup(&server, &["--hosts", "127.0.0.1", "--write"]).exits(&[0]);
    let file = server.directory.join("etc/rsyncd.d/laptop.conf");
    let first = fs::read_to_string(&file).expect("a file");
    setup(&server, &["--hosts", "127.0.0.1", "--restore", "--write"]).exits(&[0]);
    let second = fs::read_to_string(&file).expect("a file");
    assert!(second.starts_with(&first) && second.contains("[laptop-snapshots]"), "{second}");
    let conf = fs::read_to_string(&server.rsyncd_conf).expect("a file");
    assert_eq!(conf.matches("&include").count(), 1, "{conf}");
    assert!(conf.starts_with("[other]\n"), "{conf}");
}

#[test]
fn a_module_without_login_and_hosts_is_a_warning() {
    let server = empty_server();
    setup(&server, &["--write"]).exits(&[4]).says("every machine that reaches this server");
    assert!(!server.directory.join("etc/rsyncd.secrets").exists());
}

#[test]
fn a_module_of_that_name_with_other_parameters_is_refused() {
    let server = with_conf("[laptop]\npath = @/o\n");
    assert_refused(&server, &[], "@/etc/rsyncd.conf:2: the module laptop is there already");
    let server = empty_server();
    setup(&server, &["--hosts", "127.0.0.1", "--write"]).exits(&[0]);
    let file = "@/etc/rsyncd.d/laptop.conf:";
    assert_refused(&server, &["--hosts", "127.0.0.2"], file);
}

#[test]
fn what_check_would_call_critical_is_refused() {
    // The snapshots of two modules in one root.
    let hook = "read only = no\nuse chroot = no\npost-xfer exec = /usr/bin/rsyncd-snapshot\n";
    let server = with_conf(&format!("[other]\npath = @/srv/laptop/other\n{hook}"));
    assert_refused(&server, &["--hosts", "127.0.0.1"], "other");
    // A root within another module.
    let server = with_conf(&format!("[other]\npath = @/srv\n{hook}"));
    fs::create_dir(server.directory.join("srv")).expect("a directory");
    assert_refused(&server, &["--hosts", "127.0.0.1"], "other");
    // A word of `hosts allow` that lets no client in.
    let server = empty_server();
    assert_refused(&server, &["--hosts", "192.0.2.0/99"], "stands for no client");
    // A secrets file that others can read.
    let server = empty_server();
    tree::write(&server.directory.join("etc/rsyncd.secrets"), "laptop:x\n");
    tree::set_mode(&server.directory.join("etc/rsyncd.secrets"), 0o644);
    assert_refused(&server, &["--user", "laptop"], "chmod 0600");
    // A root that others may write to.
    let server = empty_server();
    fs::create_dir_all(root_of(&server)).expect("a directory");
    tree::set_mode(&root_of(&server), 0o777);
    assert_refused(&server, &["--user", "laptop"], "is writable by others (mode 0777)");
}

#[test]
fn a_path_that_may_mean_something_else_is_refused() {
    let server = empty_server();
    let root = root_of(&server);
    let refused = |path: &Path, text: &str| {
        let path = path.to_str().expect("UTF-8");
        server.run(&["setup", "laptop", "--path", path, "--write"]).exits(&[2]).says(text);
    };
    refused(&root.join("latest"), "name the directory around it");
    refused(Path::new("srv/laptop"), "give an absolute path");
    fs::create_dir_all(root.join("etc")).expect("a directory");
    refused(&root, "has files in it, such as 'etc'");
    symlink("/tmp", root.join("latest")).expect("a link");
    refused(&root, "is a symbolic link");
    assert!(!server.rsyncd_conf.exists());
}

#[test]
fn secrets_that_are_there_stay() {
    for (conf, file) in [("", "etc/rsyncd.secrets"), ("secrets file = @/passwords\n", "passwords")]
    {
        let server = with_conf(conf);
        let secrets = server.directory.join(file);
        tree::write(&secrets, "# mine\nlaptop:known\nbob:y");
        tree::set_mode(&secrets, 0o600);
        let run = setup(&server, &["--user", "laptop", "--write"]).exits(&[0]);
        assert!(!run.stdout().contains("known"), "{run}");
        assert_eq!(fs::read(&secrets).expect("a file"), b"# mine\nlaptop:known\nbob:y");
        let root = server.directory.join("srv/desk");
        let words = ["setup", "desk", "--path", root.to_str().expect("UTF-8")];
        let words = [&words[..], &["--user", "desk", "--write"]].concat();
        server.run(&words).exits(&[0]).says("RSYNC_PASSWORD=");
        let text = fs::read_to_string(&secrets).expect("a file");
        assert!(text.starts_with("# mine\nlaptop:known\nbob:y\ndesk:"), "{text}");
        assert_eq!(mode_of(&secrets), 0o600);
    }
}

#[test]
fn modes_of_files_stay_and_a_symbolic_link_is_followed() {
    let server = empty_server();
    let real = server.directory.join("real.conf");
    tree::write(&real, "# mine\n");
    tree::set_mode(&real, 0o640);
    symlink(&real, &server.rsyncd_conf).expect("a link");
    setup(&server, &["--user", "laptop", "--write"]).exits(&[0]);
    assert!(server.rsyncd_conf.is_symlink());
    assert_eq!(mode_of(&real), 0o640);
    let text = fs::read_to_string(&real).expect("a file");
    assert!(text.starts_with("# mine\n") && text.contains("&include"), "{text}");
    fs::remove_file(&real).expect("removed");
    setup(&server, &["--user", "laptop", "--write"]).exits(&[1]).says("cannot find the file");
}

#[test]
fn drop_ins_are_written_for_each_unit_of_a_daemon() {
    let server = empty_server();
    let units = server.directory.join("units");
    fs::create_dir(&units).expect("a directory");
    tree::write(&units.join("rsync@.service"), "[Service]\n");
    tree::write(&units.join("rsyncd.service"), "[Service]\n");
    let units = units.to_str().expect("UTF-8").to_string();
    let options = ["--user", "laptop", "--systemd", "--unit-directory", &units, "--write"];
    let run = setup(&server, &options).exits(&[0]).says("systemctl daemon-reload");
    let drop_in = Path::new(&units).join("rsync@.service.d/rsyncd-snapshot.conf");
    let example =
        concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rsync.service.d/rsyncd-snapshot.conf");
    assert_eq!(fs::read(&drop_in).expect("written"), fs::read(example).expect("there"), "{run}");
    let run = run.says("systemctl restart rsyncd\n");
    assert!(!run.stdout().contains("restart rsync@"), "{run}");
    setup(&server, &options).exits(&[0]).says("Nothing had to be changed.");
    tree::write(&drop_in, "[Service]\nKillMode=mixed\n");
    setup(&server, &options).exits(&[2]).says("is there already with other content");
}

#[test]
fn a_directory_with_an_odd_name_is_served_or_refused() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let server = empty_server();
    let mut served = Vec::new();
    let names: [&[u8]; 14] = [
        b"a b",
        b"#a",
        b";a",
        b"a]",
        b"[a]",
        b"a%b",
        b"%USER%",
        b" a",
        b"a ",
        b"a\\",
        b"\xff",
        b"\xc3\xa9",
        b"a=b",
        b"a\nb",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let root = server.directory.join("srv").join(OsStr::from_bytes(name));
        let module = format!("m{number}");
        let mut command = server.command(&["setup", &module, "--restore", "--write", "--path"]);
        let run = Run::of(command.arg(&root).args(["--hosts", "127.0.0.1"]));
        match run.code() {
            Some(0) => served.push((module, root)),
            _ => {
                run.exits(&[2]);
                assert!(!root.exists(), "{}", root.display());
            }
        }
    }
    assert!(served.len() >= 8, "{served:?}");
    let daemon = Daemon::serve(&server);
    let source = server.directory.join("source");
    tree::small(&source);
    for (module, root) in &served {
        daemon.push(&source, module, &[]).exits(&[0]);
        let snapshots = await_snapshots(root, 1);
        let pulled = server.directory.join(module);
        let path = format!("{module}-snapshots/{}/", snapshots[0]);
        daemon.pull(&path, &pulled).exits(&[0]);
        assert_eq!(fingerprint::contents(&pulled), fingerprint::contents(&source), "{root:?}");
    }
}

#[test]
fn an_odd_name_of_a_module_or_user_is_refused() {
    let server = empty_server();
    let before = state(&server);
    let root = root_of(&server);
    for name in [&b"a b"[..], b"a]", b"\xff", b"%A%", b"#a", b" a", b"a ", b"a\nb", b"a/b", b""] {
        for words in [["setup", "--user", "x"], ["setup", "x", "--user"]] {
            let mut command = server.command(&["--quiet"]);
            let is_module = words[1] == "--user";
            command.args(words).arg(OsStr::from_bytes(name));
            command.arg("--path").arg(&root).arg("--write");
            let what = if is_module { "module" } else { "user" };
            Run::of(&mut command).exits(&[2]).says(&format!("setup makes no {what}"));
        }
    }
    assert_eq!(state(&server), before);
}

#[test]
fn a_full_disk_leaves_the_old_files_whole() {
    let Some(disk) = FileSystem::with(Kind::Tmpfs, 1, &[]) else { return };
    let mut server = empty_server();
    let etc = disk.mount_point.join("etc");
    fs::create_dir(&etc).expect("a directory");
    server.rsyncd_conf = etc.join("rsyncd.conf");
    server.write_rsyncd_conf("# mine\n");
    tree::write(&etc.join("rsyncd.secrets"), "bob:y\n");
    tree::set_mode(&etc.join("rsyncd.secrets"), 0o600);
    let filler = disk.mount_point.join("filler");
    let _ = tool("dd")
        .args(["if=/dev/zero", "bs=4096"])
        .arg(format!("of={}", filler.display()))
        .output();
    setup(&server, &["--user", "laptop", "--write"]).exits(&[1]).says("No space left");
    assert_eq!(fs::read(&server.rsyncd_conf).expect("a file"), b"# mine\n");
    assert_eq!(fs::read(etc.join("rsyncd.secrets")).expect("a file"), b"bob:y\n");
    let names = fs::read_dir(&etc).expect("listed").flatten().map(|entry| entry.file_name());
    assert!(names.into_iter().all(|name| !name.as_bytes().ends_with(b".tmp")));
    fs::remove_file(&filler).expect("removed");
    setup(&server, &["--user", "laptop", "--write"]).exits(&[0]);
}

#[test]
fn a_mount_point_cannot_become_the_module() {
    if !is_root() {
        return;
    }
    let Some(disk) = FileSystem::new(Kind::Tmpfs) else { return };
    let server = empty_server();
    let root = root_of(&server);
    fs::create_dir_all(root.join("latest")).expect("a directory");
    tree::set_mode(&root, 0o700);
    let latest = root.join("latest");
    Run::of(tool("mount").arg("--bind").args([&disk.mount_point, &latest])).exits(&[0]);
    let run = setup(&server, &["--user", "laptop", "--write"]);
    Run::of(tool("umount").arg(&latest)).exits(&[0]);
    assert!(!run.succeeded() && !server.rsyncd_conf.exists(), "{run}");
}
