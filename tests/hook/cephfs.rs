//! Snapshots that CephFS makes, on a real cluster and behind a real rsync daemon.

use crate::support;

use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use support::ceph::{Client, Cluster, MAY_SNAPSHOT, cluster};
use support::daemon::{Daemon, GOOD, client, program, source};
use support::fingerprint::{self, Fingerprint};
use support::module::{Module, ledger, names_in};
use support::run::{Run, tool};
use support::sweep::{self, Call};
use support::time::{next_second, wait_until};
use support::{by_sweep, have, tree};

/// Each run expires all but the newest snapshot, and keeps what it retires for a day.
const RETIRING: &str = "[defaults]\nkeep = { daily = 1 }\nprefer = \"newest\"\nmin_keep = 1\n\
                        min_age = \"0s\"\ngrace = \"1d\"\nanomaly_share = \"100%\"\n";

/// An empty module on a CephFS.
fn on_cephfs() -> Option<Module> {
    if !have(&["rsync"]) {
        return None;
    }
    Some(Module::at(cluster()?.directory().join("root")))
}

/// The same, seen through a client of its own, which a test can let crash.
fn through(cluster: &Cluster, client: &Client) -> Module {
    let module = Module::at(client.sees(&cluster.directory()).join("root"));
    module.write_policy("[defaults]\nkeep = { hourly = 1000 }\nmin_keep = 90\n");
    module
}

/// A module as the administrator's mount shows it.
struct Seen {
    latest: PathBuf,
}

impl Seen {
    fn of(cluster: &Cluster, module: &Module) -> Seen {
        Seen { latest: cluster.sees(&module.latest) }
    }

    fn snapshots(&self) -> Vec<String> {
        let mut names = names_in(&self.latest.join(".snap"));
        names.retain(|name| name.starts_with("20"));
        names.sort();
        names
    }

    fn snapshot(&self, name: &str) -> PathBuf {
        self.latest.join(".snap").join(name)
    }
}

/// Everything that a snapshot has to preserve, content included. Inode numbers are not compared:
/// ceph-fuse gives each snapshot its own.
fn content_of(directory: &Path) -> Fingerprint {
    let mut content = fingerprint::without_inodes(&fingerprint::of(directory));
    for (path, line) in &mut content {
        let path = directory.join(std::ffi::OsStr::from_bytes(path));
        if path.symlink_metadata().expect("an entry").is_file() {
            let mut hasher = std::hash::DefaultHasher::new();
            fs::read(&path).expect("a file").hash(&mut hasher);
            line.push_str(&format!(" content {:x}", hasher.finish()));
        }
    }
    content
}

#[track_caller]
fn assert_is_module(module: &Module, name: &str) {
    let (live, snapshot) = (content_of(&module.latest), content_of(&module.snapshot(name)));
    fingerprint::assert_equal(&live, &snapshot, name);
}

/// Pushes, and returns the snapshot that is made of it, as it is then.
#[track_caller]
fn push(module: &Module, daemon: &Daemon, source: &Path) -> (String, Fingerprint) {
    let before = module.snapshots();
    daemon.push(source, "data", &["--delete"]).exits(&[0]);
    let is_new = |name: &String| !before.contains(name);
    wait_until("its snapshot", || module.snapshots().iter().any(is_new));
    let name = module.snapshots().into_iter().find(is_new).expect("a snapshot");
    assert_is_module(module, &name);
    let taken = content_of(&module.snapshot(&name));
    (name, taken)
}

fn stdout(run: &Run) -> String {
    run.stdout().to_string()
}

#[test]
fn each_push_that_changed_something_brings_a_snapshot() {
    slow!();
    let Some(module) = on_cephfs() else { return };
    let source = source(&module);
    let daemon = Daemon::of_pair(&module);
    let mut taken = vec![push(&module, &daemon, &source)];
    assert_eq!(daemon.await_last_hook(1), GOOD);
    let registration = fs::read_to_string(module.private("root.toml")).expect("a registration");
    assert!(registration.contains("method = \"cephfs\""), "{registration}");
    // Nothing changed.
    daemon.push(&source, "data", &[]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(2), GOOD);
    assert_eq!(module.snapshots().len(), 1);
    // Content, a name that went, an attribute, and a file that is written to in place.
    tree::write(&source.join("documents/report"), "another text");
    taken.push(push(&module, &daemon, &source));
    fs::remove_file(source.join("documents/report")).expect("removed");
    taken.push(push(&module, &daemon, &source));
    tree::set_mode(&source.join("documents"), 0o711);
    taken.push(push(&module, &daemon, &source));
    let big = source.join("big");
    tree::write(&big, &"line\n".repeat(10_000));
    taken.push(push(&module, &daemon, &source));
    tree::write(&big, &"like\n".repeat(10_000));
    next_second();
    daemon.push(&source, "data", &["--inplace", "--no-whole-file"]).exits(&[0]);
    wait_until("its snapshot", || module.snapshots().len() == taken.len() + 1);
    for (name, before) in &taken {
        let now = content_of(&module.snapshot(name));
        fingerprint::assert_equal(before, &now, name);
    }
    let record = module.record(&taken[1].0);
    // The file and its directory.
    assert_eq!(record["changed"].as_integer(), Some(2), "{record}");
    let record = module.record(&taken[2].0);
    assert_eq!(record["removed"].as_integer(), Some(1), "{record}");
    let check = stdout(&Run::of(&mut module.command(&["verify", "data"])).exits(&[0]));
    assert!(check.contains("6 snapshots of CephFS not compared"), "{check}");
}

#[test]
fn snapshots_are_retired_brought_back_compared_and_restored() {
    slow!();
    let Some(module) = on_cephfs() else { return };
    module.write_policy(RETIRING);
    tree::small(&module.latest);
    let first = module.expect_snapshot();
    let taken = content_of(&module.snapshot(&first));
    tree::write(&module.latest.join("documents/report"), "2");
    let second = module.expect_snapshot();
    assert_eq!((module.snapshots(), module.retired()), (vec![second.clone()], vec![first.clone()]));
    // What is retired is seen, too.
    let run = |arguments: &[&str]| Run::of(&mut module.command(arguments)).exits(&[0]);
    let versions = stdout(&run(&["versions", "data", "documents/report"]));
    assert!(versions.contains("2 versions"), "{versions}");
    run(&["undelete", "data", &first]);
    assert_eq!(module.snapshots(), [first.clone(), second.clone()]);
    fingerprint::assert_equal(&taken, &content_of(&module.snapshot(&first)), "undelete");
    let diff = stdout(&run(&["diff", "data", &first, &second]));
    assert!(diff.contains("documents/report"), "{diff}");
    let to = module.directory.join("restored");
    let to_text = to.to_str().expect("UTF-8");
    run(&["restore", "data", &first, ".", "--to", to_text]);
    fingerprint::assert_equal(&taken, &content_of(&to), "restore");
    // A path in the directory of snapshots means the module, too.
    let path = module.snapshot(&first).join("documents");
    let listed = stdout(&run(&["versions", path.join("report").to_str().expect("UTF-8")]));
    assert!(listed.contains("2 versions"), "{listed}");
    run(&["restore", "data", &first, ".", "--in-place", "--overwrite"]);
    fingerprint::assert_equal(&taken, &content_of(&module.latest), "restore --in-place");
    let newest = module.snapshots().pop().expect("a snapshot");
    run(&["unpin", "data", &first]);
    run(&["expire", "data", &first, "--now"]);
    assert!(!module.snapshots().contains(&first) && !module.retired().contains(&first));
    run(&["list", "data", "--sizes"]);
    run(&["plan", "data"]);
    assert!(module.snapshots().contains(&newest));
}

#[test]
fn a_client_that_reads_through_a_restore_module_holds_the_snapshot() {
    slow!();
    let Some(module) = on_cephfs() else { return };
    module.write_policy(RETIRING);
    let source = source(&module);
    tree::write(&source.join("large"), &"x".repeat(2_000_000));
    let hooks = |path: &Path| {
        let program = program(&module);
        let path = path.display();
        format!("path = {path}\npre-xfer exec = {program} pre-xfer\npost-xfer exec = {program}\n")
    };
    let restore = module.latest.join(".snap");
    let sections = format!(
        "[data]\nread only = no\n{}[restore]\nread only = yes\n{}",
        hooks(&module.latest),
        hooks(&restore)
    );
    let daemon = Daemon::start(&module, &sections);
    let (first, taken) = push(&module, &daemon, &source);
    let to = module.directory.join("restored");
    let mut reader = client()
        .args(["--archive", "--bwlimit=400"])
        .args([daemon.url(&format!("restore/{first}/")), to.display().to_string()])
        .stdout(Stdio::null())
        .spawn()
        .expect("a client");
    wait_until("its lease", || !names_in(&module.private("leases")).is_empty());
    tree::write(&source.join("documents/report"), "2");
    let (second, _) = push(&module, &daemon, &source);
    wait_until("the run is over", || {
        Run::of(&mut module.command(&["rotate", "data"])).code() == Some(0)
    });
    // Without the lease it would be retired by now.
    assert_eq!(module.snapshots(), [first.clone(), second.clone()]);
    assert!(reader.wait().expect("it ends").success());
    let mut restored = content_of(&to);
    // rsyncd takes back what it has done to symbolic links that clients push.
    restored.insert(b"link".to_vec(), taken[&b"link".to_vec()].clone());
    fingerprint::assert_equal(&taken, &restored, "the restored tree");
    wait_until("the lease ends", || names_in(&module.private("leases")).is_empty());
    Run::of(&mut module.command(&["rotate", "data"])).exits(&[0]);
    assert_eq!(module.snapshots(), [second]);
}

#[test]
fn the_limit_of_snapshots_is_told_before_and_when_it_is_met() {
    slow!();
    let Some(module) = on_cephfs() else { return };
    module.write_policy("[defaults]\nkeep = { hourly = 90, daily = 20 }\nmin_age = \"0s\"\n");
    tree::small(&module.latest);
    module.expect_snapshot();
    let plan = Run::of(&mut module.command(&["plan", "data"])).exits(&[4]).to_string();
    assert!(plan.contains("CephFS allows 100"), "{plan}");
    let check = Run::of(&mut module.command(&["check", "data"])).to_string();
    assert!(check.contains("CephFS allows 100"), "{check}");
    let foreign = |number: usize| module.latest.join(format!(".snap/foreign-{number}"));
    for number in 1..100 {
        fs::create_dir(foreign(number)).expect("a snapshot");
    }
    tree::write(&module.latest.join("documents/report"), "2");
    let before = module.snapshots();
    let run = module.run_hook().exits(&[1]).to_string();
    assert!(run.contains("mds_max_snaps_per_dir") && run.contains("keep fewer"), "{run}");
    assert_eq!(module.snapshots(), before);
    // Once there is room, the next run makes it.
    fs::remove_dir(foreign(1)).expect("removed");
    module.expect_snapshot();
    // Retired snapshots give way.
    module.write_policy(&RETIRING.replace("grace = \"1d\"\n", ""));
    fs::create_dir(foreign(100)).expect_err("the limit is met again");
    Run::of(&mut module.command(&["rotate", "data"])).exits(&[0]);
    assert_eq!(module.retired().len(), 1);
    tree::write(&module.latest.join("documents/report"), "3");
    module.expect_snapshot();
    for number in 2..100 {
        fs::remove_dir(foreign(number)).expect("removed");
    }
    // Names that directories above have given count, and are never taken for snapshots.
    fs::create_dir(module.root.join(".snap/2026-11-01T00-00-00Z")).expect("a snapshot");
    assert_eq!(
        names_in(&module.latest.join(".snap")).iter().filter(|it| it.starts_with('_')).count(),
        1
    );
    tree::write(&module.latest.join("documents/report"), "4");
    module.expect_snapshot();
    let listed = module.list();
    let visible = module.snapshots();
    let own = visible.iter().filter(|name| name.starts_with("20"));
    assert_eq!(listed.len(), own.count(), "{listed:?} {visible:?}");
    assert!(listed.iter().all(|item| item["name"] != "2026-11-01T00-00-00Z"), "{listed:?}");
    fs::remove_dir(module.root.join(".snap/2026-11-01T00-00-00Z")).expect("removed");
}

#[test]
fn twenty_clients_push_at_once() {
    slow!();
    let Some(module) = on_cephfs() else { return };
    let daemon = Daemon::of_pair(&module);
    let sources: Vec<PathBuf> = (0..20)
        .map(|number| {
            let source = module.directory.join(format!("source-{number}"));
            tree::small(&source);
            tree::write(&source.join("who"), &number.to_string());
            source
        })
        .collect();
    let clients = sources.iter().enumerate().map(|(number, source)| {
        client()
            .args(["--archive", "--mkpath"])
            .arg(format!("{}/", source.display()))
            .arg(daemon.url(&format!("data/client-{number}/")))
            .spawn()
            .expect("a client")
    });
    let clients: Vec<_> = clients.collect();
    for mut client in clients {
        assert!(client.wait().expect("it ends").success());
    }
    daemon.await_hooks(20);
    Run::of(&mut module.command(&["snapshot", "data"])).exits(&[0]);
    let newest = module.snapshots().pop().expect("a snapshot");
    assert_is_module(&module, &newest);
    for (number, source) in sources.iter().enumerate() {
        let pushed = module.snapshot(&newest).join(format!("client-{number}/who"));
        let sent = fs::read_to_string(source.join("who")).expect("a file");
        assert_eq!(fs::read_to_string(pushed).expect("a file"), sent);
    }
    assert!(ledger(&module).is_empty());
}

#[test]
fn what_another_mount_wrote_is_in_the_snapshot() {
    slow!();
    let Some(module) = on_cephfs() else { return };
    tree::small(&module.latest);
    module.expect_snapshot();
    let Some(cluster) = cluster() else { return };
    let other = cluster.client(MAY_SNAPSHOT, &[]);
    let directory = module.root.parent().expect("the directory of the test");
    let new = other.sees(directory).join("root/latest/documents/new");
    // Nothing syncs it on that mount.
    tree::write(&new, "by another mount");
    let name = module.expect_snapshot();
    let text = fs::read_to_string(module.snapshot(&name).join("documents/new")).expect("a file");
    assert_eq!(text, "by another mount");
    assert_is_module(&module, &name);
    // A file that is written to in place, with its size and modification time as they were.
    let before = fs::metadata(&new).expect("a file").modified().expect("a time");
    let file = fs::OpenOptions::new().write(true).open(&new).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&file, b"BY", 0).expect("written");
    file.set_modified(before).expect("set");
    drop(file);
    let name = module.expect_snapshot();
    assert_is_module(&module, &name);
    module.expect_no_snapshot();
}

#[test]
fn a_second_gateway_is_refused() {
    slow!();
    let Some(module) = on_cephfs() else { return };
    let source = source(&module);
    let daemon = Daemon::of_pair(&module);
    push(&module, &daemon, &source);
    assert_eq!(daemon.await_last_hook(1), GOOD);
    // As the hook of another machine enters a push: MACHINE-BOOT-NAMESPACE-PID.
    let mut slow = daemon.push_slowly(&source_of_size(&module), "data");
    wait_until("its entry", || ledger(&module).len() == 1);
    let own = ledger(&module).pop().expect("an entry");
    let parts: Vec<&str> = own.split('-').collect();
    let foreign = format!("0badcafe-0badb007-{}-{}", parts[2], parts[3]);
    let text = fs::read(module.private("transfers").join(&own)).expect("an entry");
    slow.kill().expect("killed");
    slow.wait().expect("gone");
    daemon.await_hooks(2);
    fs::write(module.private("transfers").join(&foreign), text).expect("an entry");
    tree::write(&source.join("documents/report"), "2");
    let refused = daemon.push(&source, "data", &[]).to_string();
    assert!(refused.contains("another machine serves this module"), "{refused}");
    let run = Run::of(&mut module.command(&["snapshot", "data"])).exits(&[2]).to_string();
    assert!(run.contains("another machine serves this module, too"), "{run}");
    assert!(run.contains("release --unseen"), "{run}");
    Run::of(&mut module.command(&["release", "data", "--unseen"])).exits(&[4]);
    daemon.push(&source, "data", &[]).exits(&[0]);
}

/// A source that takes a slow client some seconds.
fn source_of_size(module: &Module) -> PathBuf {
    let source = module.directory.join("large-source");
    fs::create_dir(&source).expect("a directory");
    tree::write(&source.join("large"), &"x".repeat(1_000_000));
    source
}

#[test]
fn a_history_stays_with_its_method() {
    slow!();
    let Some(module) = on_cephfs() else { return };
    module.write_policy("[defaults]\nmethod = \"hardlink\"\n");
    tree::small(&module.latest);
    let linked = module.expect_snapshot();
    assert!(module.root.join(&linked).is_dir());
    module.write_policy("[defaults]\nmethod = \"cephfs\"\n");
    tree::write(&module.latest.join("documents/report"), "2");
    let run = module.run_hook().exits(&[2]).to_string();
    assert!(run.contains("its snapshots were made with `method = \"hardlink\"`"), "{run}");
    assert!(
        Run::of(&mut module.command(&["list", "data"])).exits(&[0]).to_string().contains(&linked)
    );
    module.write_policy("[defaults]\n");
    module.expect_snapshot();
    assert!(names_in(&module.latest.join(".snap")).is_empty());
}

/// What dies in the middle of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The run itself.
    Process,
    /// The client of Ceph that it works through, with what that has not written.
    Client,
    /// The metadata server, which comes back.
    Server,
}

/// The calls of a run that change something, and so the moments between which it can be cut.
fn changing_calls(module: &Module) -> Vec<Call> {
    const CHANGING: [&str; 9] = [
        "mkdirat",
        "fsync",
        "fdatasync",
        "syncfs",
        "rename",
        "renameat",
        "renameat2",
        "unlinkat",
        "pwrite64",
    ];
    let mut calls = sweep::calls(module, |strace| hook_through(module, strace));
    let is_changing = |call: &Call| CHANGING.contains(&call.name.as_str()) || call.creates();
    // What failed has changed nothing.
    calls.retain(|call| is_changing(call) && !call.names("= -1"));
    calls
}

fn hook_through(module: &Module, strace: &[&str]) -> Command {
    let mut hook = module.hook_through(strace);
    hook.env("RSYNC_PID", std::process::id().to_string());
    hook
}

/// Of the calls that make, move or remove a snapshot, `count` spread over all of them; each call in
/// a full sweep.
fn some(calls: &[Call], count: usize) -> Vec<&Call> {
    let moving: Vec<&Call> =
        calls.iter().filter(|call| call.names("\".rsyncd-snapshot-")).collect();
    assert!(moving.len() >= 4, "only {} calls move a snapshot", moving.len());
    let count = by_sweep(count.div_ceil(2), count, usize::MAX);
    match count < moving.len() {
        true => (0..count).map(|number| moving[number * moving.len() / count]).collect(),
        false if count == usize::MAX => calls.iter().collect(),
        false => moving,
    }
}

/// A run that strace has stopped before one of its calls.
struct StoppedRun {
    strace: Child,
    process: String,
}

impl StoppedRun {
    /// `None` if the run has ended without that call.
    fn before(module: &Module, call: &Call) -> Option<StoppedRun> {
        let log = module.directory.join("stopped");
        let _ = fs::remove_file(&log);
        let Call { name, number, .. } = call;
        let (trace, inject) =
            (format!("trace={name}"), format!("inject={name}:signal=STOP:when={number}"));
        let strace = [
            "strace",
            "-f",
            "-qq",
            "-o",
            log.to_str().expect("UTF-8"),
            "-e",
            &trace,
            "-e",
            &inject,
        ];
        let mut hook = hook_through(module, &strace);
        let mut strace = hook.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a hook");
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some(line) = text.lines().find(|line| line.contains("stopped by SIGSTOP")) {
                let process = line.split_whitespace().next().expect("a process id").to_string();
                return Some(StoppedRun { strace, process });
            }
            if strace.try_wait().expect("a process").is_some() {
                return None;
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn end_with(mut self, signal: &str) -> ExitStatus {
        Run::of(tool("kill").args(["-s", signal, &self.process])).exits(&[0]);
        self.strace.wait().expect("it ends")
    }
}

#[test]
fn whatever_dies_at_any_step_leaves_whole_snapshots() {
    slow!();
    let Some(cluster) = cluster() else { return };
    if !have(&["strace"]) {
        return;
    }
    let client = cluster.client(MAY_SNAPSHOT, &[]);
    let module = through(cluster, &client);
    let seen = Seen::of(cluster, &module);
    // Each run retires a snapshot, and removes the one before.
    module.write_policy(&RETIRING.replace("1d", "0s"));
    let change = |what: &str| {
        for file in 0..20 {
            tree::write(
                &module.latest.join(format!("new/{file}")),
                &format!("{what} {file}").repeat(500),
            );
        }
    };
    fs::create_dir_all(module.latest.join("new")).expect("a directory");
    for number in 0..3 {
        change(&format!("at first {number}"));
        module.expect_snapshot();
    }
    change("traced");
    let calls = changing_calls(&module);
    assert!(calls.len() > 20, "only {} calls", calls.len());
    let mut known: Vec<(String, Fingerprint)> = Vec::new();
    let note = |known: &mut Vec<(String, Fingerprint)>| {
        for name in seen.snapshots() {
            if !known.iter().any(|(one, _)| *one == name) {
                known.push((name.clone(), content_of(&seen.snapshot(&name))));
            }
        }
    };
    note(&mut known);
    let counts = [(Victim::Process, 5), (Victim::Client, 3), (Victim::Server, 1)];
    for (victim, call) in counts
        .iter()
        .flat_map(|(victim, count)| some(&calls, *count).into_iter().map(|it| (*victim, it)))
    {
        let what = format!("{victim:?} dies at {call:?}");
        change(&what);
        let wanted = content_of(&module.latest);
        let stopped = StoppedRun::before(&module, call);
        let has_stopped = stopped.is_some();
        match (victim, stopped) {
            (_, None) => {}
            (Victim::Process, Some(run)) => drop(run.end_with("KILL")),
            (Victim::Client, Some(run)) => {
                cluster.crash(&client);
                run.end_with("KILL");
            }
            (Victim::Server, Some(mut run)) => {
                cluster.kill_metadata_server();
                Run::of(tool("kill").args(["-s", "CONT", &run.process])).exits(&[0]);
                cluster.start_metadata_server();
                assert!(run.strace.wait().expect("it ends").success(), "{what}");
            }
        }
        // What was visible is as it was, and what is new is whole.
        for name in seen.snapshots() {
            let now = content_of(&seen.snapshot(&name));
            let before = known.iter().find(|(one, _)| *one == name).map_or(&wanted, |(_, it)| it);
            fingerprint::assert_equal(before, &now, &format!("{what}: {name}"));
        }
        note(&mut known);
        if victim == Victim::Server || !has_stopped {
            let newest = seen.snapshots().pop().expect("a snapshot");
            fingerprint::assert_equal(&wanted, &content_of(&seen.snapshot(&newest)), &what);
        }
        if victim == Victim::Client && has_stopped {
            cluster.mount_again(&client, &[]);
        }
        // The next run goes on.
        change(&format!("after {what}"));
        let name = module.expect_snapshot();
        assert_is_module(&module, &name);
        assert_eq!(module.left_over("staging"), 0, "{what}");
        note(&mut known);
    }
}

#[test]
fn what_a_crash_of_the_client_leaves_of_a_snapshot_is_whole() {
    slow!();
    let Some(cluster) = cluster() else { return };
    for options in [&[][..], &["--client_oc=false"]] {
        let client = cluster.client(MAY_SNAPSHOT, options);
        let module = through(cluster, &client);
        fs::create_dir_all(module.latest.join("many")).expect("a directory");
        for round in 0..2 {
            // Without the program's syncs, up to two thirds of these are lost.
            for file in 0..300 {
                let text = format!("{round} {file}").repeat(2_000);
                tree::write(&module.latest.join(format!("many/{file}")), &text);
            }
            let name = module.expect_snapshot();
            cluster.crash(&client);
            let seen = Seen::of(cluster, &module);
            for file in 0..300 {
                let path = seen.snapshot(&name).join(format!("many/{file}"));
                let text = fs::read_to_string(&path).expect("a file");
                assert_eq!(text, format!("{round} {file}").repeat(2_000), "{}", path.display());
            }
            cluster.mount_again(&client, options);
        }
    }
}

#[test]
fn another_directory_in_the_place_of_the_module_is_refused() {
    slow!();
    let Some(module) = on_cephfs() else { return };
    tree::small(&module.latest);
    let name = module.expect_snapshot();
    let record = module.record(&name);
    let away = module.root.join("away");
    fs::rename(&module.latest, &away).expect("moved");
    let list = Run::of(&mut module.command(&["list", "data"])).exits(&[2]).to_string();
    assert!(list.contains("which is not there"), "{list}");
    fs::create_dir(&module.latest).expect("another directory");
    let run = module.run_hook().exits(&[2]).to_string();
    assert!(run.contains("another one than its snapshots were made of"), "{run}");
    let check = Run::of(&mut module.command(&["check", "data"])).exits(&[2]).to_string();
    assert!(check.contains("another one than its snapshots were made of"), "{check}");
    fs::remove_dir(&module.latest).expect("removed");
    fs::rename(&away, &module.latest).expect("moved back");
    module.expect_no_snapshot();
    assert_eq!(module.snapshots(), std::slice::from_ref(&name));
    let mut now = module.record(&name);
    // Only the time until which it was verified has changed.
    now["verified_until"] = record["verified_until"].clone();
    assert_eq!(now, record);
}

#[test]
fn an_ordinary_user_gets_snapshots_of_files_that_it_may_not_read() {
    slow!();
    let Some(module) = on_cephfs() else { return };
    if !have(&["setpriv"]) {
        return;
    }
    tree::small(&module.latest);
    for path in [module.root.clone(), module.latest.clone(), module.directory.clone()] {
        Run::of(tool("chown").args(["-R", "65534:65534"]).arg(path)).exits(&[0]);
    }
    let closed = module.latest.join("documents/closed");
    tree::write(&closed, "only root reads it");
    Run::of(tool("chown").arg("0:0").arg(&closed)).exits(&[0]);
    tree::set_mode(&closed, 0o600);
    let as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let run = Run::of(&mut module.command_through(&as_user, &["snapshot", "data"]));
    let text = run.to_string();
    assert_eq!(module.snapshots().len(), 1, "{text}");
    assert!(text.contains("1 new file") && text.contains("may not be opened"), "{text}");
}
