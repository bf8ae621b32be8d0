//! Daemons in PID namespaces of their own, as in containers: what one side may say of another's
//! pushes.

use crate::support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::daemon::{Daemon, client};
use support::module::{Module, ledger, names_in};
use support::run::{Run, tool};
use support::time::wait_until;
use support::{have, root, tree};

const NAMESPACE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// A module with both hooks that daemons in containers are going to serve.
fn contained() -> Option<Module> {
    if !root() || !have(&["rsync", "unshare"]) {
        return None;
    }
    if !Run::of(tool(NAMESPACE[0]).args(&NAMESPACE[1..]).arg("true")).succeeded() {
        skipped!("needs PID namespaces");
        return None;
    }
    let module = Module::new();
    let section = Daemon::pair_section(&module, "data", &module.latest, "");
    module.write_rsyncd_conf(&format!("use chroot = no\nuid = root\ngid = root\n{section}"));
    tree::small(&module.latest);
    module.expect_snapshot();
    Some(module)
}

/// An rsync daemon that is the first process of a PID namespace.
struct Container {
    process: Child,
    port: u16,
}

impl Container {
    /// Two that are started so give equal numbers to the processes that serve their connections.
    fn start(module: &Module) -> Container {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|one| one.local_addr())
            .expect("a port")
            .port();
        let process = tool(NAMESPACE[0])
            .args(&NAMESPACE[1..])
            .args(["rsync", "--daemon", "--no-detach", "--address=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--config={}", module.rsyncd_conf.display()))
            .env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", module.state_directory())
            .env("RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY", module.runtime_directory())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare");
        wait_until("the daemon listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Container { process, port }
    }

    /// A push of 300 kB that takes about three seconds.
    fn push_slowly(&self, module: &Module, name: &str) -> Child {
        let source = source(module, name);
        let before = ledger(module).len();
        let client = client()
            .args(["--archive", "--bwlimit=100", "--whole-file"])
            .arg(format!("{}/", source.display()))
            .arg(format!("rsync://127.0.0.1:{}/data/{name}/", self.port))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a client");
        wait_until("the push is entered", || ledger(module).len() > before);
        wait_until("its first file has arrived", || {
            module.latest.join(name).join("a first").exists()
        });
        client
    }

    /// Kills the first process, and with it the kernel kills the others of the namespace. As long
    /// as the file is open, no later namespace gets its number.
    fn kill(mut self) -> fs::File {
        let namespace = format!("/proc/{}/ns/pid_for_children", self.process.id());
        let pinned = fs::File::open(namespace).expect("the namespace");
        self.kill_all();
        pinned
    }

    fn kill_all(&mut self) {
        kill_namespace(&mut self.process);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Kills a process. If it is `unshare`, this waits until the first process of its namespace is gone
/// too, which the kernel kills a little after its parent.
fn kill_namespace(process: &mut Child) {
    let id = process.id();
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    let children = match name.trim() {
        "unshare" => {
            fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("children")
        }
        _ => String::new(),
    };
    let _ = process.kill();
    let _ = process.wait();
    for child in children.split_whitespace() {
        wait_until("the namespace is gone", || !Path::new(&format!("/proc/{child}")).exists());
    }
}

fn source(module: &Module, name: &str) -> PathBuf {
    let source = module.directory.join("sources").join(name);
    fs::create_dir_all(&source).expect("a directory");
    tree::write(&source.join("a first"), name);
    fs::write(source.join("zz large"), vec![b'x'; 300 << 10]).expect("a large file");
    source
}

fn entry(module: &Module) -> PathBuf {
    let names = ledger(module);
    assert_eq!(names.len(), 1, "{names:?}");
    module.private("transfers").join(&names[0])
}

fn number(name: &str) -> &str {
    name.rsplit('-').next().expect("a number")
}

/// A command of ours in a PID namespace of its own.
fn elsewhere(module: &Module, arguments: &[&str]) -> Run {
    Run::of(&mut module.command_through(&NAMESPACE, arguments))
}

/// Says that a push began so many hours before it did.
fn make_older(entry: &Path, hours: i64) {
    let text = fs::read_to_string(entry).expect("an entry");
    let mut table: toml::Table = text.parse().expect("an entry");
    let nanoseconds = &mut table["began_at"]["nanoseconds"];
    *nanoseconds = (nanoseconds.as_integer().expect("a number") - hours * 3_600_000_000_000).into();
    fs::write(entry, toml::to_string(&table).expect("an entry")).expect("written");
}

/// Runs pre-xfer for a process of the namespace that `wrapper` makes, and keeps that process until
/// it is dropped.
struct Connection(Child);

impl Connection {
    fn enter(module: &Module, wrapper: &[&str]) -> Connection {
        let script = "sleep 60 & export RSYNC_PID=$!; \"$@\"; wait";
        let wrapper = [wrapper, &["sh", "-c", script, "sh"]].concat();
        let process =
            module.gate_through(&wrapper).env_remove("RSYNC_PID").spawn().expect("a gate");
        wait_until("it is entered", || !ledger(module).is_empty());
        Connection(process)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        kill_namespace(&mut self.0);
    }
}

#[test]
fn two_daemons_with_equal_process_numbers_keep_two_entries() {
    let Some(module) = contained() else { return };
    let (one, other) = (Container::start(&module), Container::start(&module));
    let mut first = one.push_slowly(&module, "one");
    let mut second = other.push_slowly(&module, "other");
    let names = ledger(&module);
    assert!(names.len() == 2 && number(&names[0]) == number(&names[1]), "{names:?}");
    assert!(first.wait().expect("its end").success() && second.wait().expect("its end").success());
    wait_until("both hooks have ended", || ledger(&module).is_empty());
    assert!(!module.is_marked("torn") && !module.is_marked("due"), "{:?}", module.state());
    let newest = module.snapshots().pop().expect("a snapshot");
    assert!(!newest.ends_with("-partial"), "{newest}");
    module.assert_equals_module(&newest);
}

#[test]
fn the_host_sees_a_containers_push_run_and_die() {
    let Some(module) = contained() else { return };
    let container = Container::start(&module);
    let mut push = container.push_slowly(&module, "one");
    module.run(&["snapshot", "--all", "--due"]).exits(&[0]);
    assert_eq!(ledger(&module).len(), 1);
    assert!(!module.is_marked("torn"), "{:?}", module.state());
    assert!(!module.run(&["check", "data"]).stdout().contains("cannot be seen"));
    let _pinned = container.kill();
    assert!(!push.wait().expect("its end").success());
    wait_until("the push counts as ended", || module.run(&["check", "data"]).code() == Some(1));
    module.run(&["check", "data"]).exits(&[1]).says("snapshot data --due");
    module.run(&["snapshot", "--all", "--due"]).exits(&[4]);
    assert_eq!(ledger(&module), [""; 0]);
    assert!(module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn a_killed_containers_push_is_unknown_to_its_successor_until_it_expires() {
    let Some(module) = contained() else { return };
    let container = Container::start(&module);
    let mut push = container.push_slowly(&module, "one");
    let left = entry(&module);
    let _pinned = container.kill();
    let _ = push.wait();

    // The process that serves this push has the number of the one that was killed.
    let container = Container::start(&module);
    let mut push = container.push_slowly(&module, "other");
    let names = ledger(&module);
    assert!(names.len() == 2 && number(&names[0]) == number(&names[1]), "{names:?}");
    assert!(push.wait().expect("its end").success());
    wait_until("its hook has ended", || ledger(&module).len() == 1);
    assert!(left.exists() && !module.is_marked("torn"), "{:?}", module.state());
    elsewhere(&module, &["check", "data"])
        .exits(&[1])
        .says("cannot be seen from here")
        .says("its daemon runs");

    make_older(&left, 23);
    elsewhere(&module, &["snapshot", "data", "--due"]).exits(&[0]);
    assert!(left.exists() && !module.is_marked("torn"), "{:?}", module.state());
    make_older(&left, 2);
    elsewhere(&module, &["snapshot", "data", "--due"]).exits(&[4]).says("counts as killed now");
    assert!(!left.exists() && module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn a_removed_containers_push_is_ended_by_command() {
    let Some(module) = contained() else { return };
    let container = Container::start(&module);
    let mut push = container.push_slowly(&module, "one");
    let left = entry(&module);
    let _pinned = container.kill();
    let _ = push.wait();
    let release = |status, words: &str| {
        elsewhere(&module, &["release", "data", "--unseen"]).exits(&[status]).says(words)
    };
    release(4, "1 push counts as ended");
    assert!(!left.exists() && module.is_marked("torn"), "{:?}", module.state());
    release(0, "no push");
}

#[test]
fn a_removed_containers_reader_is_ended_by_command() {
    let Some(module) = contained() else { return };
    let name = module.snapshots().remove(0);
    let held = ["hold", "data", &name, "--", "sleep", "1000"];
    let mut reader = module.command_through(&NAMESPACE, &held);
    let mut reader = reader.stdout(Stdio::null()).spawn().expect("it starts");
    let leases = || names_in(&module.private("leases"));
    wait_until("it holds", || !leases().is_empty());
    // As long as the file is open, no later namespace gets its number.
    let namespace = format!("/proc/{}/ns/pid_for_children", reader.id());
    let _pinned = fs::File::open(namespace).expect("the namespace");
    kill_namespace(&mut reader);
    let read = "`hold sleep` (process";
    elsewhere(&module, &["list", "data"]).exits(&[0]).says(read);
    let run = elsewhere(&module, &["release", "data"]).exits(&[0]);
    run.says("1 reader cannot be seen from here: `list` says which, `release --unseen` ends that");
    let run = elsewhere(&module, &["release", "data", "--unseen"]).exits(&[0, 4]);
    run.says("1 reader counts as ended");
    assert!(leases().is_empty(), "{:?}", leases());
    let list = elsewhere(&module, &["list", "data"]).exits(&[0]);
    assert!(!list.stdout().contains(read), "{list}");
    elsewhere(&module, &["release", "data", "--unseen"]).exits(&[0]).says("no such reader");
}

#[test]
fn a_process_is_found_through_another_time_namespace() {
    let Some(module) = contained() else { return };
    let shifted = [&NAMESPACE[..], &["--time", "--boottime", "100000"]].concat();
    if !Run::of(tool(shifted[0]).args(&shifted[1..]).arg("true")).succeeded() {
        return skipped!("needs time namespaces");
    }
    let connection = Connection::enter(&module, &shifted);
    module.run(&["snapshot", "data", "--due"]).exits(&[0]);
    assert_eq!(ledger(&module).len(), 1);
    assert!(!module.run(&["check", "data"]).stdout().contains("cannot be seen"));
    drop(connection);
    module.run(&["snapshot", "data", "--due"]).exits(&[4]);
    assert_eq!(ledger(&module), [""; 0]);
}

#[test]
fn another_machines_push_is_unknown_here() {
    let Some(module) = contained() else { return };
    let connection = Connection::enter(&module, &[]);
    let here = entry(&module);
    let name = here.file_name().expect("a name").to_string_lossy().into_owned();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
    let text = fs::read_to_string(&here).expect("an entry");
    let text = text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    drop(connection);
    let there = here
        .with_file_name(format!("00000000-00000000-{}", name.splitn(3, '-').last().expect("more")));
    fs::rename(&here, &there).expect("renamed");
    fs::write(&there, text).expect("written");
    let run = module.run(&["snapshot", "data", "--json"]).exits(&[0, 4]);
    assert!(there.exists() && !module.is_marked("torn"), "{run}");
    run.says("still running");
    module.run(&["check", "data"]).exits(&[1]).says("cannot be seen from here");
    // A clock that is far ahead there is no reason to wait for ever.
    let text = fs::read_to_string(&there).expect("an entry");
    let mut table: toml::Table = text.parse().expect("an entry");
    tree::write(&module.latest.join("half"), "a file");
    table.insert("began".to_string(), "2199-01-01T00:00:00Z".into());
    fs::write(&there, toml::to_string(&table).expect("an entry")).expect("written");
    module.run(&["snapshot", "data", "--due"]).exits(&[4]).says("counts as killed now");
    assert!(!there.exists() && module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn without_proc_running_pushes_do_not_pass_for_dead() {
    let Some(module) = contained() else { return };
    let connection = Connection::enter(&module, &[]);
    let left = entry(&module);
    let without =
        ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"];
    let foreign = ["unshare", "--pid", "--fork", "--kill-child"];
    let run_in = |wrapper: &[&str], arguments: &[&str]| {
        Run::of(&mut module.command_through(wrapper, arguments))
    };
    for (wrapper, problem) in
        [(&without[..], "no /proc is mounted"), (&foreign[..], "another PID namespace")]
    {
        let gate = Run::of(module.gate_through(wrapper).env("RSYNC_PID", "1"));
        gate.exits(&[0]).says("will be partial").says(problem).says("mount -t proc proc /proc");
        run_in(wrapper, &["snapshot", "data", "--due"]).exits(&[0]);
        assert!(left.exists() && !module.is_marked("torn"), "{problem}: {:?}", module.state());
        run_in(wrapper, &["check", "data"]).exits(&[1]).says(problem);
        // The hook of a push that could not be entered makes a partial snapshot.
        tree::write(&module.latest.join("changed"), problem);
        let hook = Run::of(module.hook_through(wrapper).env("RSYNC_PID", "1"));
        hook.exits(&[0, 4]).says("mount -t proc proc /proc");
        assert!(left.exists() && !module.is_marked("torn"), "{problem}: {:?}", module.state());
    }
    let complete =
        module.snapshots().into_iter().filter(|name| !name.ends_with("-partial")).count();
    assert_eq!(complete, 1, "the first one: {:?}", module.snapshots());
    drop(connection);
}

#[test]
fn a_running_push_that_an_earlier_version_entered_is_still_found() {
    let Some(module) = contained() else { return };
    let mut sleep: Command = tool("sleep");
    let mut process = sleep.arg("60").spawn().expect("a process");
    let pid = process.id().to_string();
    Run::of(module.gate_through(&[] as &[&str]).env("RSYNC_PID", &pid)).exits(&[0]);
    let new = entry(&module);
    let text = fs::read_to_string(&new).expect("an entry");
    let kept = text.lines().filter(|line| !line.starts_with("sequence"));
    let old = new.with_file_name(&pid);
    fs::write(&old, kept.map(|line| format!("{line}\n")).collect::<String>()).expect("written");
    fs::remove_file(&new).expect("removed");
    module.run(&["snapshot", "data", "--due"]).exits(&[0]);
    assert!(old.exists() && !module.is_marked("torn"), "{:?}", module.state());
    tree::write(&module.latest.join("changed"), "2");
    Run::of(module.hook().env("RSYNC_PID", &pid)).exits(&[0]);
    assert_eq!(ledger(&module), [""; 0]);
    let newest = module.snapshots().pop().expect("a snapshot");
    assert!(!newest.ends_with("-partial"), "{newest}");
    process.kill().expect("killed");
    process.wait().expect("gone");
}

#[test]
fn numbers_grow_although_all_entries_are_struck_out() {
    let Some(module) = contained() else { return };
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let connection = Connection::enter(&module, &[]);
        let text = fs::read_to_string(entry(&module)).expect("an entry");
        let table: toml::Table = text.parse().expect("an entry");
        numbers.push(table["sequence"].as_integer().expect("a number"));
        fs::remove_file(entry(&module)).expect("removed");
        drop(connection);
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}
