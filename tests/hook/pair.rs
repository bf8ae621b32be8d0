//! Both hooks behind a real rsync daemon: what each of them knows because of the other.

use crate::support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::daemon::{Daemon, GOOD, await_snapshots, client, kill, paired, program, source};
use support::file_system::{FileSystem, Kind};
use support::module::{Module, ledger, visible};
use support::run::{Run, tool};
use support::server::Server;
use support::subvolumes::{are_subvolumes, remove_snapshot, snapshot_call, while_made};
use support::time::wait_until;
use support::{fingerprint, have, tree};

/// A client's own tree with a file that takes half a minute to push slowly.
fn large_source(module: &Module) -> PathBuf {
    source_of_size(module, 1 << 20)
}

fn source_of_size(module: &Module, bytes: usize) -> PathBuf {
    let source = module.directory.join("large source");
    fs::create_dir_all(source.join("b")).expect("a directory");
    tree::write(&source.join("b/arrives first"), "1");
    fs::write(source.join("b/zz large"), vec![b'x'; bytes]).expect("a large file");
    source
}

/// A push that is under way: its first file has arrived.
fn start_slow_push(daemon: &Daemon, module: &Module) -> Child {
    let client = daemon.push_slowly(&large_source(module), "data");
    wait_until("the first file has arrived", || module.latest.join("b/arrives first").exists());
    client
}

#[test]
fn what_changes_nothing_is_not_even_looked_at() {
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(1), GOOD);
    let before = (module.snapshots(), module.state());
    // Something that only a look would find.
    tree::write(&module.latest.join("by hand"), "x");

    daemon.list("data").exits(&[0]);
    daemon.pull("data/", &module.directory.join("pulled/")).exits(&[0]);
    daemon.push(&source, "data", &["--dry-run", "--delete"]).exits(&[0]);
    assert_eq!(daemon.await_hooks(4), [GOOD; 4]);

    assert_eq!((module.snapshots(), module.state()), before);
    assert_eq!(ledger(&module), [""; 0]);
    daemon.push(&source, "data", &[]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(5), GOOD);
    assert_eq!(module.snapshots().len(), 2, "a push looks");
    assert_eq!(ledger(&module), [""; 0]);
}

#[test]
fn a_push_that_would_rewrite_snapshots_is_turned_away_and_told_why() {
    slow!();
    only_hard_links!("options that write in place");
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    // There is nothing to rewrite yet.
    daemon.push(&source, "data", &["--inplace"]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(1), GOOD);
    let first = module.snapshots().remove(0);
    let before = fingerprint::of(&module.snapshot(&first));
    let state = module.state();

    tree::write(&source.join("documents/report"), "rewritten\n");
    for (count, options) in [["--inplace"], ["--append"], ["--append-verify"]]
        .into_iter()
        .enumerate()
        .map(|(n, o)| (n + 2, o))
    {
        let option = options[0];
        let told = format!(
            "{option} would rewrite 1 snapshot that shares these files; please drop the option"
        );
        let run = daemon.push(&source, "data", &options).says(&told);
        assert!(!run.succeeded(), "{run}");
        assert_eq!(daemon.await_last_hook(count).exit, 0, "{option}");
    }
    fingerprint::assert_equal(&before, &fingerprint::of(&module.snapshot(&first)), "the snapshot");
    assert_eq!(module.state(), state, "nothing was transferred, so nothing is torn");
    assert_eq!(ledger(&module), [""; 0]);

    // A client that only reads rewrites nothing.
    daemon.push(&source, "data", &["--inplace", "--dry-run"]).exits(&[0]);
    module.write_policy("[defaults]\nallow_options = [\"inplace\"]\n");
    daemon.push(&source, "data", &["--inplace", "--no-whole-file"]).exits(&[0]);
    module.write_policy("[defaults\n");
    let run = daemon.push(&source, "data", &["--inplace"]).says("--inplace would rewrite");
    assert!(!run.succeeded(), "a policy with a mistake allows nothing");
}

#[test]
fn only_pushes_wait_for_a_running_snapshot() {
    slow!();
    let Some((module, source)) = paired() else { return };
    if !have(&["strace"]) {
        return;
    }
    let first = slow_snapshots(&module, 4);
    let daemon = Daemon::start(&module, &first);
    daemon.push(&source, "data", &[]).exits(&[0]);
    wait_until("the tree is being read", || module.left_over("staging") > 0);

    let started = Instant::now();
    daemon.list("data").exits(&[0]);
    assert!(started.elapsed() < Duration::from_secs(2), "a listing waited");
    assert_eq!(module.snapshots(), [""; 0], "the snapshot is still being taken");
    tree::write(&source.join("second"), "2");
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(3);

    let names = module.snapshots();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.iter().all(|name| !name.ends_with("-partial")), "{names:?}");
    assert!(
        !module.snapshot(&names[0]).join("second").exists(),
        "it came after the first was taken"
    );
    module.assert_equals_module(&names[1]);
}

#[test]
fn a_push_that_has_waited_long_enough_is_told_when_to_come_back() {
    slow!();
    let Some((module, source)) = paired() else { return };
    if !have(&["strace"]) {
        return;
    }
    module.write_policy("[defaults]\npush_wait = \"1s\"\n");
    let daemon = Daemon::start(&module, &slow_snapshots(&module, 4));
    daemon.push(&source, "data", &[]).exits(&[0]);
    wait_until("the tree is being read", || module.left_over("staging") > 0);

    let run = daemon
        .push(&source, "data", &[])
        .says("a snapshot of this module is being taken; please come back in 1 minute");
    assert!(!run.succeeded(), "{run}");
    daemon.await_hooks(2);
    assert_eq!(module.snapshots().len(), 1);
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

/// A section whose post-xfer takes seconds over its links.
fn slow_snapshots(module: &Module, seconds: usize) -> String {
    let slow = format!("strace -f -qq -o /dev/null -e {} '", slow_making(seconds));
    Daemon::pair_section(module, "data", &module.latest, "")
        .replace("post-xfer exec = '", &format!("post-xfer exec = {slow}"))
}

/// An option of strace with which the gate of a first push stays closed for about so many `seconds`
/// while its snapshot is made, and a tree is in staging then.
fn slow_making(seconds: usize) -> String {
    if !are_subvolumes() {
        // It makes six links, in up to two threads.
        return format!("inject=linkat:delay_enter={}", seconds * 175_000);
    }
    // One call makes the snapshot. How many calls of that kind come before it?
    let module = Module::new();
    tree::small(&module.latest);
    let connection = std::process::id().to_string();
    Run::of(module.gate_through(&[""; 0]).env("RSYNC_PID", connection)).exits(&[0]);
    let call = snapshot_call(&module);
    format!("inject=ioctl:delay_exit={seconds}000000:when={call}")
}

#[test]
fn of_pushes_that_overlap_the_last_one_takes_the_snapshot() {
    slow!();
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    let slow = start_slow_push(&daemon, &module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(1), GOOD);
    assert_eq!(module.snapshots(), [""; 0], "a client is still writing");
    assert_eq!(module.state()["due"]["reason"].as_str(), Some("deferred"));
    assert_eq!(ledger(&module).len(), 1);
    module.run(&["check", "data"]).exits(&[0]);
    assert_eq!(module.json(&["snapshot", "data", "--due", "--json"])["outcome"], "deferred");

    let mut slow = slow;
    assert!(slow.wait().expect("its end").success());
    assert_eq!(daemon.await_last_hook(2), GOOD);
    let names = module.snapshots();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(!names[0].ends_with("-partial"), "{names:?}");
    module.assert_equals_module(&names[0]);
    assert!(!module.is_marked("due"), "{:?}", module.state());
    assert_eq!(ledger(&module), [""; 0]);
}

#[test]
fn a_failed_last_push_makes_the_snapshot_partial() {
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    let slow = start_slow_push(&daemon, &module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);

    kill(slow);
    let hook = daemon.await_last_hook(2);
    assert_ne!(hook.transfer, 0);
    let names = module.snapshots();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].ends_with("-partial"), "{names:?}");
    assert!(module.snapshot(&names[0]).join("documents/report").exists());
    assert!(module.is_marked("torn") && !module.is_marked("due"), "{:?}", module.state());
    assert_eq!(ledger(&module), [""; 0]);
}

#[test]
fn a_push_is_not_put_off_for_ever() {
    slow!();
    let Some((module, source)) = paired() else { return };
    module.write_policy("[defaults]\nmax_defer = \"1s\"\n");
    let daemon = Daemon::of_pair(&module);
    let slow = start_slow_push(&daemon, &module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    assert_eq!(module.snapshots(), [""; 0]);
    std::thread::sleep(Duration::from_millis(2_100));

    let run = module.run(&["snapshot", "--all", "--due", "--json"]).exits(&[4]);
    assert_eq!(run.json()[0]["outcome"], "published", "{run}");
    let names = module.snapshots();
    assert!(names.len() == 1 && names[0].ends_with("-partial"), "{names:?}");
    assert!(module.is_marked("due"), "a complete one is still due: {:?}", module.state());
    kill(slow);
    daemon.await_hooks(2);
}

#[test]
fn a_person_gets_a_partial_snapshot_at_once() {
    let Some((module, _)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    let slow = start_slow_push(&daemon, &module);
    module.run(&["snapshot", "data"]).exits(&[4]).says("still running");
    let names = module.snapshots();
    assert!(names.len() == 1 && names[0].ends_with("-partial"), "{names:?}");
    kill(slow);
    daemon.await_hooks(1);
}

/// The number of the process that serves the one push that is running.
fn connection(module: &Module) -> u32 {
    let names = ledger(module);
    assert_eq!(names.len(), 1, "{names:?}");
    names[0].rsplit('-').next().and_then(|pid| pid.parse().ok()).expect("a running push")
}

fn signal(pid: u32, name: &str) {
    let sent = Run::of(tool("kill").args(["-s", name, &pid.to_string()]));
    sent.exits(&[0]);
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_push_without_its_connection_is_due_once_over() {
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    // It would take over a minute: a loaded machine must not let it end before the look at it.
    let slow = daemon.push_slowly(&source_of_size(&module, 8 << 20), "data");
    wait_until("the first file has arrived", || module.latest.join("b/arrives first").exists());
    let pid = connection(&module);
    signal(pid, "TERM");
    wait_until("the connection's process is gone", || is_gone(pid));

    daemon.push(&source, "data", &[]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(1), GOOD);
    assert_eq!(module.snapshots(), [""; 0], "the transfer goes on");
    assert!(!module.is_marked("torn"), "{:?}", module.state());

    kill(slow);
    wait_until("the transfer is noticed to be over", || {
        module.json(&["snapshot", "data", "--due", "--json"])["outcome"] == "published"
    });
    let names = module.snapshots();
    assert!(names.len() == 1 && names[0].ends_with("-partial"), "{names:?}");
    assert!(module.is_marked("torn") && !module.is_marked("due"), "{:?}", module.state());
    assert_eq!(ledger(&module), [""; 0]);
}

#[test]
fn a_push_whose_hook_was_killed_is_snapshotted_by_the_timer() {
    let Some((module, source)) = paired() else { return };
    let killed = Daemon::pair_section(&module, "data", &module.latest, "")
        .replace("post-xfer exec = ", "post-xfer exec = kill -s KILL $$; ");
    let daemon = Daemon::start(&module, &killed);
    daemon.push(&source, "data", &[]).exits(&[0]);
    wait_until("the hook is dead", || {
        let names = ledger(&module);
        names.len() == 1
            && names[0].rsplit('-').next().and_then(|pid| pid.parse().ok()).is_some_and(is_gone)
    });
    module.run(&["check", "data"]).exits(&[1]).says("snapshot data --due");

    // The hook had not even begun, so how the push ended is unknown.
    assert_eq!(module.json(&["snapshot", "data", "--due", "--json"])["outcome"], "published");
    let names = module.snapshots();
    assert!(names.len() == 1 && names[0].ends_with("-partial"), "{names:?}");
    assert_eq!(ledger(&module), [""; 0]);
}

#[test]
fn the_next_run_takes_over_from_a_killed_hook() {
    let Some((module, source)) = paired() else { return };
    if !have(&["strace"]) {
        return;
    }
    let killed = format!("strace -f -qq -o /dev/null -e {} '", while_made("signal=KILL"));
    let section = Daemon::pair_section(&module, "data", &module.latest, "")
        .replace("post-xfer exec = '", &format!("post-xfer exec = {killed}"));
    let daemon = Daemon::start(&module, &section);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    assert_eq!(module.snapshots(), [""; 0]);
    let names = ledger(&module);
    assert!(names.len() == 1 && names[0].ends_with(".0"), "{names:?}");

    assert_eq!(module.json(&["snapshot", "data", "--due", "--json"])["outcome"], "published");
    let names = module.snapshots();
    assert!(names.len() == 1 && !names[0].ends_with("-partial"), "{names:?}");
    module.assert_equals_module(&names[0]);
    assert_eq!(ledger(&module), [""; 0]);
}

#[test]
fn an_entry_of_another_boot_counts_as_dead() {
    slow!();
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    let slow = start_slow_push(&daemon, &module);
    let pid = connection(&module);
    let entry = fs::read_to_string(module.private("transfers").join(&ledger(&module)[0]))
        .expect("an entry");
    kill(slow);
    daemon.await_hooks(2);
    module.run(&["release", "data", "--torn"]).exits(&[0]);
    let own = std::process::id();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
    let of_another_boot = entry.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    let of_another_process = entry.replace(&format!("pid = {pid}"), &format!("pid = {own}"));
    assert_ne!(of_another_boot, entry);
    assert_ne!(of_another_process, entry);

    let texts = [of_another_boot.as_str(), of_another_process.as_str(), "garbage", ""];
    for (text, hooks) in texts.into_iter().zip(3..) {
        tree::write(&source.join("again"), text);
        daemon.push(&source, "data", &[]).exits(&[0]);
        daemon.await_hooks(hooks);
        assert!(!module.is_marked("torn"), "{text}: {:?}", module.state());
        // What it had written before it died.
        fs::write(module.latest.join(format!("half {hooks}")), text).expect("a file");
        fs::write(module.private(&format!("transfers/{own}")), text).expect("an entry");
        module.run(&["check", "data"]).exits(&[1]).says("snapshot data --due");
        let run = module.run(&["snapshot", "data", "--due"]).exits(&[4]);
        assert_eq!(ledger(&module), [""; 0], "{text}: {run}");
        assert!(module.is_marked("torn"), "{text}: {:?}", module.state());
        module.run(&["release", "data", "--torn"]).exits(&[0]);
    }
}

#[test]
fn an_entry_that_a_power_cut_left_unwritten_tears_nothing() {
    let Some((module, _)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    let slow = start_slow_push(&daemon, &module);
    let name = ledger(&module).remove(0);
    kill(slow);
    daemon.await_hooks(1);
    module.run(&["release", "data", "--torn"]).exits(&[0]);
    let mut parts: Vec<&str> = name.split('-').collect();
    parts[1] = "00000000";
    let of_another_boot = module.private("transfers").join(parts.join("-"));
    // pre-xfer lets a push in only after its entry was synced, so the entry is whole then.
    let cases = [
        ("", 0, false),
        ("\0\0\0", 0, false),
        ("what was in that block before", 0, false),
        ("format = 1\nkind = \"of another version\"\n", 4, true),
    ];
    for (text, exit, is_torn) in cases {
        fs::write(&of_another_boot, text).expect("an entry");
        let run = module.run(&["snapshot", "data", "--due"]).exits(&[exit]);
        assert_eq!(ledger(&module), [""; 0], "{run}");
        assert_eq!(module.is_marked("torn"), is_torn, "{run}");
    }
}

#[test]
fn what_one_client_tore_another_one_does_not_mend() {
    let Some((module, source)) = paired() else { return };
    let secrets = module.directory.join("secrets");
    fs::write(&secrets, "alice:a\nbob:b\n").expect("secrets");
    tree::set_mode(&secrets, 0o600);
    let more = format!("auth users = alice bob\n    secrets file = {}", secrets.display());
    let daemon =
        Daemon::start(&module, &Daemon::pair_section(&module, "data", &module.latest, &more));
    let push = |user: &str, source: &Path| {
        let mut client = client();
        client.env("RSYNC_PASSWORD", &user[..1]).args(["--archive", "--bwlimit=500"]);
        let url = daemon.url("data/").replace("rsync://", &format!("rsync://{user}@"));
        client.arg(format!("{}/", source.display())).arg(url);
        client
    };
    let mut slow = push("alice", &large_source(&module)).spawn().expect("a client");
    wait_until("the first file has arrived", || module.latest.join("b/arrives first").exists());
    slow.kill().expect("killed");
    slow.wait().expect("gone");
    daemon.await_hooks(1);
    module.run(&["check", "data"]).exits(&[1]).says("user alice");

    Run::of(&mut push("bob", &source)).exits(&[0]);
    daemon.await_hooks(2);
    let names = module.snapshots();
    assert!(names.len() == 1 && names[0].ends_with("-partial"), "{names:?}");
    assert!(module.is_marked("torn"), "{:?}", module.state());

    // rsync compares times to the second, and leaves a directory's alone that is right already.
    support::time::next_second();
    let small = module.directory.join("small source");
    fs::create_dir_all(small.join("b")).expect("a directory");
    tree::write(&small.join("b/arrives first"), "1");
    Run::of(&mut push("alice", &small)).exits(&[0]);
    daemon.await_hooks(3);
    let names = module.snapshots();
    assert!(names.len() == 2 && !names[1].ends_with("-partial"), "{names:?}");
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

/// A daemon on a file system that is full whenever pre-xfer comes, as long as `filler.wanted`
/// exists there; and whether there is room elsewhere.
fn full_at_the_gate(file_system: &FileSystem, module: &Module, has_room_elsewhere: bool) -> String {
    let filler = format!("'{}'", file_system.mount_point.join("filler").display());
    let fill = format!("test -e {filler}.wanted && cp /dev/zero {filler} 2>/dev/null;");
    let elsewhere = if has_room_elsewhere {
        String::new()
    } else {
        "RSYNCD_SNAPSHOT_STATE_DIRECTORY=/dev/null RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY=/dev/null"
            .to_string()
    };
    Daemon::pair_section(module, "data", &module.latest, "")
        .replace("pre-xfer exec = ", &format!("pre-xfer exec = {fill} {elsewhere} "))
        .replace(" pre-xfer\n", &format!(" pre-xfer; answer=$?; rm -f {filler}; exit $answer\n"))
}

#[test]
fn a_push_mends_nothing_beside_the_place_where_it_went() {
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data/a", &[]).exits(&[0]);
    daemon.await_hooks(1);
    let mut slow = daemon.push_slowly(&large_source(&module).join("b"), "data/b");
    wait_until("the first file has arrived", || module.latest.join("b/arrives first").exists());
    slow.kill().expect("killed");
    slow.wait().expect("gone");
    daemon.await_hooks(2);
    module.run(&["check", "data"]).exits(&[1]).says("address 127.0.0.1 to data/b/");

    tree::write(&source.join("second"), "2");
    daemon.push(&source, "data/a", &[]).exits(&[0]);
    daemon.await_hooks(3);
    assert!(module.snapshots().pop().expect("a snapshot").ends_with("-partial"));
    let small = module.directory.join("small source");
    fs::create_dir_all(&small).expect("a directory");
    daemon.push(&small, "data/b", &["--delete"]).exits(&[0]);
    daemon.await_hooks(4);
    assert!(!module.snapshots().pop().expect("a snapshot").ends_with("-partial"));
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn pre_xfer_tells_of_a_lost_history() {
    let (module, _) = Module::with_snapshot();
    for name in module.snapshots() {
        remove_snapshot(&module.snapshot(&name));
    }
    fs::remove_dir_all(module.private("")).expect("removed");
    let connection = std::process::id().to_string();
    let lost = "was used before, but holds no history now";
    Run::of(module.gate_through(&[] as &[&str]).env("RSYNC_PID", &connection))
        .exits(&[0])
        .says(lost);
    Run::of(module.hook().env("RSYNC_PID", &connection)).exits(&[0]);
    assert_eq!(module.snapshots().len(), 1);
}

#[test]
fn a_push_whose_connection_ends_while_it_waits_is_turned_away() {
    let (module, _) = Module::with_snapshot();
    let staging = fs::File::open(module.private("staging")).expect("staging");
    fs2::FileExt::lock_exclusive(&staging).expect("the gate is closed");
    let mut connection = tool("sleep").arg("60").spawn().expect("a process");
    let mut gate = module.command(&["pre-xfer"]);
    gate.env("RSYNC_MODULE_NAME", "data").env("RSYNC_MODULE_PATH", &module.latest);
    gate.env("RSYNC_HOST_ADDR", "192.0.2.7").env("RSYNC_REQUEST", "data/");
    gate.env("RSYNC_PID", connection.id().to_string());
    for (number, word) in
        ["rsyncd", "--server", "-logDtpre.iLsfxCIvu", ".", "data/"].iter().enumerate()
    {
        gate.env(format!("RSYNC_ARG{number}"), word);
    }
    let mut waiting = gate.stdout(Stdio::null()).spawn().expect("it starts");
    // Until it waits; there is no sign of that from outside.
    std::thread::sleep(Duration::from_millis(500));
    assert!(waiting.try_wait().expect("a status").is_none(), "it does not wait");
    connection.kill().expect("killed");
    connection.wait().expect("gone");
    drop(staging);

    assert_eq!(waiting.wait().expect("its end").code(), Some(1));
    assert_eq!(ledger(&module), [""; 0]);
}

#[test]
fn what_a_client_that_hangs_up_at_once_has_torn_any_good_push_mends() {
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    let address = daemon.url("").trim_start_matches("rsync://").trim_end_matches('/').to_string();
    // rsyncd runs no pre-xfer for the one, and one that is told of no request for the other.
    let said = ["@RSYNCD: 31.0 md5 md4\ndata\n", "@RSYNCD: 31.0 md5 md4\ndata\n--server\n"];
    for (words, hooks) in said.into_iter().zip([2, 4]) {
        // So that the tree is not that of the newest snapshot.
        tree::write(&module.latest.join(format!("by hand {hooks}")), "x");
        let mut connection = std::net::TcpStream::connect(&address).expect("a connection");
        connection.write_all(words.as_bytes()).expect("said");
        drop(connection);
        daemon.await_hooks(hooks);
        assert_eq!(ledger(&module), [""; 0]);

        tree::write(&source.join("next"), &"x".repeat(hooks));
        daemon.push(&source, "data/elsewhere", &[]).exits(&[0]);
        daemon.await_hooks(hooks + 1);
        assert!(!module.is_marked("torn"), "{:?}", module.state());
        assert!(!module.snapshots().pop().expect("a snapshot").ends_with("-partial"));
    }
}

#[test]
fn a_later_client_that_hangs_up_costs_no_snapshot() {
    let (module, first) = Module::with_snapshot();
    let connection = std::process::id().to_string();
    let begin =
        || Run::of(module.gate_through(&[] as &[&str]).env("RSYNC_PID", &connection)).exits(&[0]);
    let end = || Run::of(module.hook().env("RSYNC_PID", &connection)).exits(&[0]);
    begin();
    tree::write(&module.latest.join("pushed"), "x");
    // A tick of the clock that the kernel stamps changes with.
    std::thread::sleep(Duration::from_millis(30));
    // A client that pre-xfer has not seen.
    let mut hook = module.hook();
    Run::of(hook.env("RSYNC_PID", "1").env("RSYNC_EXIT_STATUS", "12")).exits(&[0, 4]);
    assert!(module.is_marked("torn"));
    assert_eq!(module.snapshots(), [first]);

    end();
    let partial = module.snapshots().pop().expect("a snapshot");
    assert!(partial.ends_with("-partial"), "{partial}");
    module.assert_equals_module(&partial);

    begin();
    tree::write(&module.latest.join("pushed later"), "x");
    end();
    let complete = module.snapshots().pop().expect("a snapshot");
    assert!(!complete.ends_with("-partial"), "{complete}");
    module.assert_equals_module(&complete);
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn a_push_without_an_entry_gets_a_partial_snapshot() {
    if !have(&["rsync"]) {
        return;
    }
    let Some(file_system) = FileSystem::with(Kind::Tmpfs.or_btrfs(), 4, &[]) else { return };
    let module = Module::on(&file_system);
    let source = source(&module);
    let daemon = Daemon::start(&module, &full_at_the_gate(&file_system, &module, false));
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);

    fs::write(file_system.mount_point.join("filler.wanted"), "").expect("a file");
    tree::write(&source.join("second"), "2");
    daemon.push(&source, "data", &[]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(2).exit, 4);
    module.run(&["check", "data"]).exits(&[1]).says("overlap");
    let names = module.snapshots();
    assert!(names.len() == 2 && names[1].ends_with("-partial"), "{names:?}");
    let in_place = daemon.push(&source, "data", &["--inplace"]);
    match are_subvolumes() {
        true => assert!(in_place.succeeded(), "{in_place}"),
        false => {
            let refused = in_place.says("--inplace would rewrite");
            assert!(!refused.succeeded(), "{refused}");
        }
    }
    daemon.await_hooks(3);

    fs::remove_file(file_system.mount_point.join("filler.wanted")).expect("removed");
    tree::write(&source.join("third"), "3");
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(4);
    let names = module.snapshots();
    assert!(names.len() >= 3 && !names[names.len() - 1].ends_with("-partial"), "{names:?}");
}

#[test]
fn on_a_full_disk_a_push_is_entered_elsewhere() {
    if !have(&["rsync"]) {
        return;
    }
    let Some(file_system) = FileSystem::with(Kind::Tmpfs.or_btrfs(), 8, &[]) else { return };
    let module = Module::on(&file_system);
    let source = source(&module);
    let daemon = Daemon::start(&module, &full_at_the_gate(&file_system, &module, true));
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    fs::write(file_system.mount_point.join("filler.wanted"), "").expect("a file");
    let mut slow = start_slow_push(&daemon, &module);
    fs::remove_file(file_system.mount_point.join("filler.wanted")).expect("removed");
    assert_eq!(ledger(&module), [""; 0]);

    tree::write(&source.join("second"), "2");
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(2);
    assert_eq!(module.snapshots().len(), 1, "the other push is known");
    assert!(slow.wait().expect("its end").success());
    daemon.await_hooks(3);
    let names = module.snapshots();
    assert!(names.len() == 2 && !names[1].ends_with("-partial"), "{names:?}");
    module.assert_equals_module(&names[1]);
}

#[test]
fn damaged_files_of_ours_let_no_client_rewrite_history() {
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    let name = module.snapshots().remove(0);
    let before = fingerprint::of(&module.snapshot(&name));
    tree::write(&source.join("documents/report"), "rewritten\n");
    let state = fs::read_to_string(module.private("state.toml")).expect("the state");
    let of_a_newer_version = state.replace("format = 1", "format = 3");
    let spoilers: [&dyn Fn(); 3] = [
        &|| fs::write(module.private("state.toml"), &of_a_newer_version).expect("written"),
        &|| fs::write(module.private("root.toml"), "format = 3\n").expect("written"),
        &|| fs::rename(module.private("transfers"), module.private("elsewhere")).expect("renamed"),
    ];
    for spoil in spoilers {
        spoil();
        let run = daemon.push(&source, "data", &["--inplace"]);
        // Where it would not rewrite snapshots, it may be let in.
        let is_refused = !run.succeeded() && run.stderr().contains("rewrite");
        assert!(is_refused || are_subvolumes(), "{run}");
    }
    fingerprint::assert_equal(&before, &fingerprint::of(&module.snapshot(&name)), "the snapshot");
}

#[test]
fn a_failed_transfer_that_changed_nothing_leaves_nothing_torn() {
    let Some((module, source)) = paired() else { return };
    let secrets = module.directory.join("secrets");
    fs::write(&secrets, "alice:a\nbob:b\n").expect("secrets");
    tree::set_mode(&secrets, 0o600);
    let more = format!("auth users = alice:rw bob:ro\n    secrets file = {}", secrets.display());
    let daemon =
        Daemon::start(&module, &Daemon::pair_section(&module, "data", &module.latest, &more));
    let push = |user: &str| {
        let url = daemon.url("data/").replace("rsync://", &format!("rsync://{user}@"));
        let mut client = client();
        client.env("RSYNC_PASSWORD", &user[..1]).arg("--archive");
        Run::of(client.arg(format!("{}/", source.display())).arg(url))
    };
    push("alice").exits(&[0]);
    daemon.await_hooks(1);
    tree::write(&source.join("second"), "2");
    assert!(!push("bob").succeeded());
    assert_ne!(daemon.await_last_hook(2).transfer, 0);
    assert!(!module.is_marked("torn"), "{:?}", module.state());
    push("alice").exits(&[0]);
    daemon.await_hooks(3);
    let names = module.snapshots();
    assert!(names.len() == 2 && !names[1].ends_with("-partial"), "{names:?}");
}

#[test]
fn after_a_crash_of_the_machine_no_push_counts_as_good_however_it_ended() {
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    let slow = start_slow_push(&daemon, &module);
    let entry =
        fs::read_to_string(module.private("transfers").join(&ledger(&module)[0])).expect("one");
    kill(slow);
    daemon.await_hooks(1);
    module.run(&["release", "data", "--torn"]).exits(&[0]);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(2);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
    let before = entry.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    for (number, text) in [before.as_str(), ""].into_iter().enumerate() {
        let count = module.snapshots().len();
        tree::write(&module.latest.join("unsynced"), &"x".repeat(number + 1));
        fs::write(module.private("transfers/4711.0"), text).expect("an entry");
        let run = module.run(&["snapshot", "data", "--due", "--json"]).exits(&[4]);
        assert_eq!(run.json()["outcome"], "published", "{run}");
        let names = module.snapshots();
        assert!(names.len() == count + 1 && names[count].ends_with("-partial"), "{names:?}");
        assert!(module.is_marked("torn") && !module.is_marked("due"), "{:?}", module.state());
        module.run(&["release", "data", "--torn"]).exits(&[0]);
    }

    // Nor does a mark of that time.
    tree::write(&module.latest.join("unsynced"), "xxx");
    module.write_policy("[defaults]\nmin_interval = \"1h\"\n");
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(3);
    assert!(module.is_marked("due"), "{:?}", module.state());
    let state = fs::read_to_string(module.private("state.toml")).expect("the state");
    let state = state.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    fs::write(module.private("state.toml"), state).expect("written");
    module.write_policy("[defaults]\n");
    assert_eq!(module.json(&["snapshot", "data", "--due", "--json"])["outcome"], "published");
    assert!(module.snapshots().pop().expect("a snapshot").ends_with("-partial"));
    assert!(!module.is_marked("due"), "{:?}", module.state());
}

#[test]
fn a_client_that_tries_again_at_once_mends_what_it_tore() {
    slow!();
    let Some((module, _)) = paired() else { return };
    // The hook of the first try comes when the second one has begun.
    let late = Daemon::pair_section(&module, "data", &module.latest, "")
        .replace("post-xfer exec = ", "post-xfer exec = test $RSYNC_EXIT_STATUS = 0 || sleep 2; ");
    let daemon = Daemon::start(&module, &late);
    kill(start_slow_push(&daemon, &module));
    let small = module.directory.join("small source");
    fs::create_dir_all(small.join("b")).expect("a directory");
    fs::write(small.join("b/zz large"), vec![b'x'; 300 << 10]).expect("a file");
    let mut again = daemon.push_slowly(&small, "data");
    assert!(again.wait().expect("its end").success());
    daemon.await_hooks(2);
    assert!(!module.is_marked("torn"), "{:?}", module.state());
    let newest = module.snapshots().pop().expect("a snapshot");
    assert!(!newest.ends_with("-partial"), "{newest}");
    module.assert_equals_module(&newest);
}

#[test]
fn a_first_push_in_place_gets_a_partial_snapshot_by_hand() {
    let Some((module, _)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    let source = large_source(&module);
    let mut slow = client()
        .args(["--archive", "--inplace", "--bwlimit=500", "--whole-file"])
        .arg(format!("{}/", source.display()))
        .arg(daemon.url("data/"))
        .spawn()
        .expect("a client");
    wait_until("the first file has arrived", || module.latest.join("b/arrives first").exists());
    // A timer leaves it to the push; a person gets it at once.
    assert_eq!(module.json(&["snapshot", "data", "--due", "--json"])["outcome"], "not-due");
    // No snapshot shares files with a subvolume.
    let why = if are_subvolumes() {
        "1 push that is still running"
    } else {
        "writes into files in place"
    };
    module.run(&["snapshot", "data"]).exits(&[4]).says(why);
    let names = module.snapshots();
    assert!(names.len() == 1 && names[0].ends_with("-partial"), "{names:?}");
    assert!(slow.wait().expect("its end").success());
    daemon.await_hooks(1);
    let names = module.snapshots();
    assert!(names.len() == 2 && !names[1].ends_with("-partial"), "{names:?}");
}

#[test]
fn without_pre_xfer_everything_is_as_before() {
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(1);
    assert_eq!(module.state()["paired"].as_bool(), Some(true));
    drop(daemon);

    let daemon = Daemon::of_module(&module);
    tree::write(&source.join("second"), "2");
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_hooks(2);
    let names = module.snapshots();
    assert!(names.len() == 2 && !names[1].ends_with("-partial"), "{names:?}");
    assert!(!module.is_marked("paired"), "{:?}", module.state());
    module.run(&["check", "data"]).says("pre-xfer exec").says("recommended");
}

#[test]
fn a_detached_hook_frees_the_connection_and_works_on() {
    let Some((module, source)) = paired() else { return };
    for paired in [true, false] {
        let module = if paired { &module } else { &Module::new() };
        module.write_policy("[defaults]\nmax_parallel = 1\nlock_wait = \"30s\"\n");
        let pre = if paired {
            format!("pre-xfer exec = {} pre-xfer\n", program(module))
        } else {
            String::new()
        };
        let section = format!(
            "[data]\npath = {}\nread only = no\nmax connections = 1\nlock file = {}\n{pre}post-xfer exec = {} post-xfer --detach\n",
            module.latest.display(),
            module.directory.join("rsyncd.lock").display(),
            program(module),
        );
        let daemon = Daemon::start(module, &section);
        tree::write(&source.join("second"), "1");
        daemon.push(&source, "data", &[]).exits(&[0]);
        let first = await_snapshots(&module.root, 1);
        wait_until("nothing is due", || ledger(module).is_empty() && !module.is_marked("due"));

        // Another job's turn, as long as this is locked.
        let queue = module.runtime_directory().join("queue");
        fs::write(queue.join("0"), "").expect("a ticket");
        let ticket = fs::File::open(queue.join("0")).expect("a ticket");
        fs2::FileExt::lock_exclusive(&ticket).expect("locked");
        tree::write(&source.join("second"), "two");
        wait_until("the slot is free", || daemon.push(&source, "data", &[]).succeeded());
        wait_until("the slot is free while the work waits", || daemon.list("data").succeeded());
        // With all its connections and hooks.
        drop(daemon);
        drop(ticket);
        wait_until("the second snapshot is there", || module.snapshots().len() == 2);
        let second = module.snapshots().remove(1);
        assert!(second > first[0] && !second.ends_with("-partial"), "{second}");
        module.assert_equals_module(&second);
        assert_eq!(module.record(&second)["client"]["address"].as_str(), Some("127.0.0.1"));
        wait_until("nothing is due", || ledger(module).is_empty() && !module.is_marked("due"));
    }
}

#[test]
fn max_parallel_modules_are_worked_on_in_order_of_arrival() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let server = Server::new();
    server.write_policy("[defaults]\nmax_parallel = 1\n");
    let names = ["a", "b", "c", "d"];
    for name in names {
        tree::numbered(&server.directory.join(name).join("latest"), 1, 4);
        tree::set_mode(&server.directory.join(name), 0o700);
    }
    // Another job goes before all of them, so that none is done before the last one has come.
    let queue = server.runtime_directory().join("queue");
    fs::create_dir_all(&queue).expect("the queue");
    fs::write(queue.join("0"), "").expect("a ticket");
    let first = fs::File::open(queue.join("0")).expect("a ticket");
    fs2::FileExt::lock_exclusive(&first).expect("locked");
    let mut runs = Vec::new();
    for name in names {
        let slow =
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=linkat:delay_enter=400000"];
        let mut command = tool(slow[0]);
        command.args(&slow[1..]).arg(&server.program);
        server.prepare(&mut command);
        command.arg("snapshot").arg(server.directory.join(name).join("latest"));
        runs.push(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
        wait_until("its ticket is drawn", || tickets(&server) == 1 + runs.len());
    }
    drop(first);
    for run in &mut runs {
        assert!(run.wait().expect("its end").success());
    }
    assert_eq!(tickets(&server), 0);
    // Each took nearly a second, so one after the other they have names of their own.
    let snapshots: Vec<String> =
        names.iter().map(|name| visible(&server.directory.join(name)).remove(0)).collect();
    assert!(snapshots.is_sorted(), "{snapshots:?}");
    assert!(snapshots[0] < snapshots[3], "{snapshots:?}");
    server.write_policy("[defaults]\nmax_parallel = 1\nlock_wait = \"0s\"\n");
    fs::write(queue.join("0"), "").expect("a ticket");
    let ticket = fs::File::open(queue.join("0")).expect("a ticket");
    fs2::FileExt::lock_exclusive(&ticket).expect("locked");
    let root = server.directory.join("a");
    let module = root.join("latest").display().to_string();
    server
        .run(&["snapshot", &module])
        .exits(&[3])
        .says("1 job is still ahead of this one (max_parallel = 1)");

    // One that has worked for a minute no longer counts.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("this boot");
    let uptime = fs::read_to_string("/proc/uptime").expect("the uptime");
    let seconds =
        uptime.split('.').next().and_then(|text| text.parse::<i64>().ok()).expect("seconds");
    let begun = |ago: i64| {
        format!("{} {} {}\n", boot.trim(), (seconds - ago) * 1_000_000_000, root.display())
    };
    fs::write(queue.join("0"), begun(30)).expect("what it says");
    server.run(&["snapshot", &module]).exits(&[3]);
    fs::write(queue.join("0"), begun(90)).expect("what it says");
    server.run(&["snapshot", &module]).exits(&[0]);
    server.run(&["check", &module]).says("no longer counts for max_parallel");
}

fn tickets(server: &Server) -> usize {
    fs::read_dir(server.runtime_directory().join("queue")).map_or(0, Iterator::count)
}

#[test]
fn the_gate_waits_no_longer_than_the_client_or_the_module_allows() {
    slow!();
    let Some((module, source)) = paired() else { return };
    if !have(&["strace"]) {
        return;
    }
    // Two clients are turned away in this time.
    let section = slow_snapshots(&module, 10);
    let daemon = Daemon::start(&module, &section);
    daemon.push(&source, "data", &[]).exits(&[0]);
    wait_until("the tree is being read", || module.left_over("staging") > 0);
    let is_told = |options: &[&str]| {
        let run = daemon.push(&source, "data", options);
        assert_eq!(run.code(), Some(4), "{run}");
        run.says("a snapshot of this module is being taken; please come back in 1 minute");
    };
    is_told(&["--timeout=2"]);
    // rsyncd reads its configuration for each connection.
    module.write_rsyncd_conf(&format!("use chroot = no\n{}    timeout = 2\n", section));
    is_told(&[]);
    daemon.await_hooks(3);
    assert_eq!(module.snapshots().len(), 1);
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn a_client_that_hangs_up_at_the_gate_is_not_waited_for() {
    slow!();
    let Some((module, source)) = paired() else { return };
    if !have(&["strace"]) {
        return;
    }
    let daemon = Daemon::start(&module, &slow_snapshots(&module, 4));
    daemon.push(&source, "data", &[]).exits(&[0]);
    wait_until("the tree is being read", || module.left_over("staging") > 0);
    let waiting = start_waiting(&daemon, &source);
    let gate = format!("/proc/{}/task/{}/children", daemon.process_id(), daemon.process_id());
    let served = || fs::read_to_string(&gate).map_or(0, |pids| pids.split_whitespace().count());
    wait_until("the client waits at the gate", || served() == 2);
    std::thread::sleep(Duration::from_millis(300));
    kill(waiting);
    let hung_up = Instant::now();
    wait_until("its connection has ended", || served() == 1);
    assert!(hung_up.elapsed() < Duration::from_secs(1), "{:?}", hung_up.elapsed());
    assert!(module.left_over("staging") > 0, "the snapshot is still being taken");
    daemon.await_hooks(2);
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

/// A push that will have to wait.
fn start_waiting(daemon: &Daemon, source: &Path) -> Child {
    let mut command = client();
    command.arg("--archive").arg(format!("{}/", source.display())).arg(daemon.url("data/"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a client")
}
