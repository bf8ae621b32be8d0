//! `rsync-system-backup` over the wire: to a real rsync daemon with our hook, through a real SSH
//! tunnel, and to a real SSH server with and without our program.

use crate::support;

use std::fs;
use std::path::Path;

use support::client::{Machine, Stage};
use support::daemon::{Daemon, GOOD};
use support::module::Module;
use support::run::Run;
use support::sshd::{Sshd, install_snapshot_program};
use support::time::next_second;
use support::{fingerprint, have, may_mount, tree};

fn can_run() -> bool {
    may_mount() && have(&["rsync", "ssh", "sshd", "ssh-keygen"])
}

/// rsync that does its work and then, for the main transfer, ends with the status in a file.
const RSYNC_WITH_STATUS: &str = "/usr/bin/rsync \"$@\" || exit; case \"$*\" in *--stats*) exit \"$(cat \"$stage/status\" 2>/dev/null || echo 0)\" ;; esac";

/// rsync that does its work and kills the client after the main transfer.
const DYING_RSYNC: &str =
    "/usr/bin/rsync \"$@\"; case \"$*\" in *--stats*) kill -KILL $PPID; sleep 5 ;; esac";

/// How many pushes a backup is.
const HOOKS: usize = 3;

// -- A daemon --------------------------------------------------------------------------------------

#[test]
fn how_to_back_up_to_an_rsync_daemon() {
    if !have(&["rsync"]) {
        return;
    }
    let machine = Machine::new();
    let module = Module::new();
    // With pre-xfer, as docs/hooks.md has it: without, a hook that comes late may look while the
    // last push is at work.
    let daemon = Daemon::of_pair(&module);
    // Each backup is three pushes, and all run the hook; the first two find that more is to come.
    machine
        .back_up_to(&daemon.url("data"), &[])
        .exits(&[0])
        .says("the server makes and rotates snapshots");
    assert_eq!(daemon.await_hooks(HOOKS), [GOOD; HOOKS]);
    machine.verify(&module.latest);
    let names = module.snapshots();
    assert!(names.len() == 1 && names[0].ends_with('Z'), "{names:?}");
    module.assert_equals_module(&names[0]);
    machine.verify(&module.snapshot(&names[0]));

    // Nothing changed: no snapshot, down to the inodes.
    let before = fingerprint::of(&module.latest);
    next_second();
    machine.back_up_to(&daemon.url("data"), &[]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(2 * HOOKS), GOOD);
    assert_eq!(module.snapshots(), names);
    fingerprint::assert_equal(
        &before,
        &fingerprint::of(&module.latest),
        "the module before and after",
    );

    tree::write(&machine.source.join("more"), "more\n");
    machine.back_up_to(&daemon.url("data"), &["--backup"]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(3 * HOOKS), GOOD);
    assert_eq!(module.snapshots().len(), 2);

    // The snapshots of a daemon are its own business.
    machine
        .back_up_to(&daemon.url("data"), &["--snapshot"])
        .exits(&[2])
        .says("its server does both");
    // A dry run is one push, and changes nothing.
    tree::write(&machine.source.join("still more"), "more\n");
    machine.back_up_to(&daemon.url("data"), &["--dry-run"]).exits(&[0]);
    daemon.await_hooks(3 * HOOKS + 1);
    assert!(!module.latest.join("still more").exists());
    assert_eq!(module.snapshots().len(), 2);
}

#[test]
fn a_directory_in_a_module_is_a_destination_too() {
    if !have(&["rsync"]) {
        return;
    }
    let machine = Machine::new();
    let module = Module::new();
    fs::create_dir(module.latest.join("sub")).expect("a directory");
    let daemon = Daemon::of_module(&module);
    machine.back_up_to(&daemon.url("data/sub/"), &[]).exits(&[0]).says("1 file with 44 bytes");
    // The server looks for tokens in the module's root, so none is sent, and one push is all.
    daemon.await_hooks(1);
    machine.verify(&module.latest.join("sub"));
    assert_eq!(module.snapshots().len(), 1);
}

#[test]
fn an_empty_source_does_not_empty_a_module() {
    if !have(&["rsync"]) {
        return;
    }
    let machine = Machine::new();
    let module = Module::new();
    tree::small(&module.latest);
    let before = fingerprint::contents(&module.latest);
    let daemon = Daemon::of_module(&module);
    let unmounted = machine.directory.join("unmounted");
    fs::create_dir(&unmounted).expect("a directory");
    let arguments = ["-u", unmounted.to_str().expect("UTF-8"), &daemon.url("data")];
    machine.backup(&arguments).exits(&[2]).says("is the source's disk mounted?");
    daemon.await_hooks(1);
    assert_eq!(fingerprint::contents(&module.latest), before);
}

#[test]
fn the_client_tells_the_server_that_its_backup_is_partial() {
    if !may_mount() || !have(&["rsync"]) {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    let module = Module::new();
    // Without pre-xfer, a late hook of the main push may make the snapshot, with its own status.
    let daemon = Daemon::of_pair(&module);
    let source = machine.source.to_str().expect("UTF-8");
    let url = daemon.url("data");
    let arguments = ["--disable-notifications", "--retries=0", source, &url];
    stage.script("rsync", RSYNC_WITH_STATUS);
    fs::write(stage.directory.join("status"), "23").expect("a status");
    stage.backup(&arguments).exits(&[4]).says("not everything could be transferred");
    daemon.await_hooks(HOOKS);
    let names = module.snapshots();
    assert!(names.len() == 1 && names[0].ends_with("-partial"), "{names:?}");
    assert_eq!(module.record(&names[0])["status"].as_integer(), Some(23));

    // A client that dies after its transfer leaves nothing that passes for whole.
    next_second();
    tree::write(&machine.source.join("more"), "more\n");
    stage.script("rsync", DYING_RSYNC);
    assert_eq!(stage.backup(&arguments).signal(), Some(9));
    daemon.await_hooks(2 * HOOKS - 1);
    assert_eq!(module.snapshots(), names);
    daemon.list("data").exits(&[0]);
    daemon.await_hooks(2 * HOOKS);
    assert_eq!(module.snapshots(), names, "nor does a listing make one");

    next_second();
    machine.back_up_to(&url, &[]).exits(&[0]);
    daemon.await_hooks(3 * HOOKS);
    let names = module.snapshots();
    let whole = &names[1..];
    assert!(!whole.is_empty() && whole.iter().all(|name| name.ends_with('Z')), "{names:?}");
    // A hook without its pair may still be at it when the client takes its token back; then there
    // is another one of that.
    whole.iter().for_each(|name| machine.verify(&module.snapshot(name)));
}

#[test]
fn a_wrong_password_is_not_tried_again() {
    if !have(&["rsync"]) {
        return;
    }
    let machine = Machine::new();
    let module = Module::new();
    let secrets = module.directory.join("secrets");
    fs::write(&secrets, "alice:wonderland\n").expect("secrets");
    tree::set_mode(&secrets, 0o600);
    let more = format!(
        "auth users = alice\n    secrets file = {}\n    refuse options = inplace append* write-devices partial-dir delay-updates",
        secrets.display()
    );
    let daemon = Daemon::start(&module, &Daemon::section(&module, "data", &module.latest, &more));
    let url = daemon.url("data").replace("rsync://", "rsync://alice@");
    let source = machine.source.to_str().expect("UTF-8");
    let run = |password: &str, options: &[&str]| {
        let mut command = machine.backup_command(&["--disable-notifications"]);
        Run::of(command.args(options).args([source, &url]).env("RSYNC_PASSWORD", password))
    };
    run("wrong", &[]).exits(&[1]).says("ended with status 5").says("auth failed");
    run("wrong", &["--check"]).exits(&[1]);
    let checked = run("wonderland", &["--check"]).exits(&[0]);
    for line in [
        "ok       connection",
        "ok       module",
        "ok       space and hook: not known",
        "ok       history",
    ] {
        assert!(checked.stdout().contains(line), "{checked}");
    }
    assert_eq!(fs::read_dir(&module.latest).expect("the module").count(), 0);
    run("wonderland", &[]).exits(&[0]);
    machine.verify(&module.latest);
    // A check is a listing, a dry run and a question that is asked twice, because no hook answers
    // it.
    daemon.await_hooks(4 + HOOKS);
    // A check tears nothing, though the module refuses some options.
    run("wonderland", &["--check"]).exits(&[0]);
    daemon.await_hooks(8 + HOOKS);
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn a_check_finds_a_module_that_cannot_be_written() {
    if !have(&["rsync"]) {
        return;
    }
    let machine = Machine::new();
    let module = Module::new();
    let sections = [
        format!("[read only]\n    path = {}\n    read only = yes\n", module.latest.display()),
        format!("[careless]\n    path = {}\n    read only = no\n", module.latest.display()),
    ];
    let daemon = Daemon::start(&module, &sections.concat());
    let checked = machine.back_up_to(&daemon.url("read only"), &["--check"]).exits(&[1]);
    assert!(checked.stdout().contains("FAILED   module"), "{checked}");
    let checked = machine.back_up_to(&daemon.url("careless"), &["--check"]).exits(&[0]);
    assert!(checked.stdout().contains("history: not known"), "{checked}");
    let checked = machine.back_up_to(&daemon.url("nothing"), &["--check"]).exits(&[1]);
    assert!(checked.stdout().contains("FAILED   connection"), "{checked}");
}

#[test]
fn with_both_hooks_a_backup_is_one_snapshot() {
    if !may_mount() || !have(&["rsync"]) {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    let module = Module::new();
    let daemon = Daemon::of_pair(&module);
    let url = daemon.url("data");
    machine.back_up_to(&url, &[]).exits(&[0]);
    assert_eq!(daemon.await_hooks(HOOKS), [GOOD; HOOKS]);
    let names = module.snapshots();
    assert!(names.len() == 1 && names[0].ends_with('Z'), "{names:?}");
    machine.verify(&module.snapshot(&names[0]));
    next_second();
    machine.back_up_to(&url, &[]).exits(&[0]);
    daemon.await_hooks(2 * HOOKS);
    assert_eq!(module.snapshots(), names, "nothing changed");

    let checked = machine.back_up_to(&url, &["--check"]).exits(&[0]);
    for line in [
        "ok       connection",
        "ok       module",
        "ok       space",
        "ok       hook",
        "ok       history",
    ] {
        assert!(checked.stdout().contains(line), "{line}: {checked}");
    }
    // A listing, a dry run and a question.
    daemon.await_hooks(2 * HOOKS + 3);
    assert_eq!(module.snapshots(), names);
    assert!(!module.is_marked("torn"), "{:?}", module.state());

    // A client that dies after its transfer: neither hook takes that for whole.
    tree::write(&machine.source.join("more"), "more\n");
    die_before_the_end(&machine, &stage, &url);
    daemon.await_hooks(3 * HOOKS + 2);
    assert_eq!(module.snapshots(), names);
    next_second();
    module.run(&["snapshot", "data"]).exits(&[0]);
    let names = module.snapshots();
    assert!(names.len() == 2 && names[1].ends_with("-partial"), "{names:?}");
    next_second();
    machine.back_up_to(&url, &[]).exits(&[0]);
    daemon.await_hooks(4 * HOOKS + 2);
    let names = module.snapshots();
    assert!(names.len() == 3 && names[2].ends_with('Z'), "{names:?}");
    // What is wrong on the server shows in the check.
    module.write_policy("[defaults]\nno_such_key = 1\n");
    let checked = machine.back_up_to(&url, &["--check"]).exits(&[4]);
    assert!(
        checked.stdout().contains("WARNING  hook") && checked.stdout().contains("CRITICAL"),
        "{checked}"
    );
}

/// A client that dies when it has sent everything and before it can say so.
fn die_before_the_end(machine: &Machine, stage: &Stage, url: &str) {
    stage.script("rsync", DYING_RSYNC);
    let source = machine.source.to_str().expect("UTF-8");
    assert_eq!(stage.backup(&["--disable-notifications", source, url]).signal(), Some(9));
}

#[test]
fn an_unfinished_backup_is_due_after_a_while() {
    if !may_mount() || !have(&["rsync"]) {
        return;
    }
    for is_paired in [true, false] {
        let machine = Machine::new();
        let stage = Stage::new(&machine);
        let module = Module::new();
        let daemon = if is_paired { Daemon::of_pair(&module) } else { Daemon::of_module(&module) };
        die_before_the_end(&machine, &stage, &daemon.url("data"));
        daemon.await_hooks(HOOKS - 1);
        assert!(module.is_marked("due"), "{:?}", module.state());
        let waits = module.json(&["snapshot", "data", "--due", "--json"]);
        assert_eq!(waits["outcome"], "deferred", "the client may still come");
        assert_eq!(module.snapshots(), [""; 0]);
        let checked = module.run(&["check", "data"]);
        assert!(!checked.stdout().contains("due since"), "{checked}");
        module.write_policy("[defaults]\nmax_defer = \"1s\"\n");
        next_second();
        next_second();
        let taken = module.json(&["snapshot", "data", "--due", "--json"]);
        assert_eq!(taken["outcome"], "published", "{:?}", module.state());
        let names = module.snapshots();
        assert!(names.len() == 1 && names[0].ends_with("-partial"), "{names:?}");
        assert!(!module.is_marked("due") && !module.is_marked("torn"), "{:?}", module.state());

        // A day later it is a case for a person.
        let touch = ["--date=25 hours ago", module.latest.to_str().expect("UTF-8")];
        let token = format!("{}/.rsync-system-backup-unfinished", touch[1]);
        Run::of(support::run::tool("touch").args([touch[0], &token])).exits(&[0]);
        module.run(&["check", "data"]).exits(&[1]).says("not finished it");

        // Another client, which does not know the completion files.
        let plain = machine.directory.join("plain");
        tree::small(&plain);
        next_second();
        daemon.push(&plain, "data", &[]).exits(&[0]);
        daemon.await_hooks(HOOKS);
        if !is_paired {
            // A push that may have been a listing.
            next_second();
            module.json(&["snapshot", "data", "--due", "--json"]);
        }
        let names = module.snapshots();
        assert!(names.len() == 2 && names[1].ends_with("-partial"), "{names:?}");

        next_second();
        machine.back_up_to(&daemon.url("data"), &[]).exits(&[0]);
        daemon.await_hooks(2 * HOOKS);
        let names = module.snapshots();
        // Without a pre-xfer hook, the hook of the data may start only when the last push has
        // removed the completion file: then each of the two makes a complete snapshot.
        let most = if is_paired { 3 } else { 4 };
        assert!((3..=most).contains(&names.len()), "{names:?}");
        assert!(names[2..].iter().all(|name| name.ends_with('Z')), "{names:?}");
        assert!(!module.is_marked("due"), "{:?}", module.state());
    }
}

#[test]
fn a_failure_of_the_network_is_tried_again_and_other_failures_are_not() {
    if !may_mount() || !have(&["rsync"]) {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    let module = Module::new();
    let daemon = Daemon::of_module(&module);
    let source = machine.source.to_str().expect("UTF-8");
    let url = daemon.url("data");
    let count =
        |stage: &Stage| stage.log().iter().filter(|line| line.starts_with("rsync ")).count();
    stage.script("rsync", "[ -e \"$stage/seen\" ] && exec /usr/bin/rsync \"$@\"; touch \"$stage/seen\"; echo 'connection reset' >&2; exit 12");
    stage
        .backup(&["--disable-notifications", source, &url])
        .exits(&[0])
        .says("trying again in 5 s");
    assert_eq!(count(&stage), 4);
    machine.verify(&module.latest);
    stage.script("rsync", "exit 12");
    stage.backup(&["--disable-notifications", "--retries=0", source, &url]).exits(&[1]);
    assert_eq!(count(&stage), 1);
    stage.script("rsync", "exit 5");
    stage.backup(&["--disable-notifications", source, &url]).exits(&[1]);
    assert_eq!(count(&stage), 1);
}

// -- A daemon behind an SSH server -----------------------------------------------------------------

#[test]
fn how_to_back_up_to_a_daemon_through_an_ssh_tunnel() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    // The account may forward ports and run nothing.
    let sshd = Sshd::start(&stage, "ForceCommand /usr/sbin/nologin\nLogLevel VERBOSE");
    let module = Module::new();
    // With pre-xfer: else a hook that comes late may look while the last push is at work, and make
    // a second snapshot.
    let daemon = Daemon::of_pair(&module);
    let url = daemon.url("data").replace("127.0.0.1", "localhost");
    let source = machine.source.to_str().expect("UTF-8");
    let run = |arguments: &[&str]| {
        let mut command = machine.backup_command(&["--disable-notifications", "--retries=0"]);
        Run::of(command.env("RSYNC_RSH", sshd.rsh()).args(arguments).args([source, &url]))
    };
    run(&["--tunnel=gate"]).exits(&[0]).says("opening a tunnel to the rsync daemon through gate");
    assert_eq!(daemon.await_hooks(HOOKS), [GOOD; HOOKS]);
    machine.verify(&module.latest);
    assert_eq!(module.snapshots().len(), 1);
    // One login for all pushes, and it is gone.
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1, "{}", sshd.log());
    let directories =
        fs::read_dir(machine.runtime_directory().join("client")).expect("our directory");
    let of_destinations: Vec<_> =
        directories.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(of_destinations.len(), 1, "{of_destinations:?}");
    let sockets = fs::read_dir(&of_destinations[0]).expect("the directory of the destination");
    let sockets = sockets.filter(|entry| {
        entry.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with("tunnel"))
    });
    assert_eq!(sockets.count(), 0);
    support::time::wait_until("the tunnel is closed", || {
        sshd.log().contains("Disconnected from user root")
    });

    let checked = run(&["--tunnel=root@gate", "--check"]);
    assert!(checked.stdout().contains("ok       connection"), "{checked}");
    // A gate that is not there: nothing is left behind either.
    run(&["--tunnel=gate:1"]).exits(&[1]).says("Connection refused");
}

// -- An SSH server ---------------------------------------------------------------------------------

/// Backs up to a directory of the SSH server.
fn back_up(machine: &Machine, sshd: &Sshd, options: &[&str], destination: &str) -> Run {
    let policy = machine.policy.to_str().expect("UTF-8");
    let mut command =
        machine.backup_command(&["--disable-notifications", "--retries=0", "--config", policy]);
    let source = machine.source.to_str().expect("UTF-8");
    Run::of(command.env("RSYNC_RSH", sshd.rsh()).args(options).args([source, destination]))
}

#[test]
fn snapshots_on_an_ssh_server_are_made_and_rotated_by_its_own_program() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    install_snapshot_program(&stage);
    let sshd = Sshd::start(&stage, "");
    let latest = machine.directory.join("it's a disk/latest");
    let root = latest.parent().expect("a parent").to_path_buf();
    let destination = format!("root@server:{}", latest.display());
    back_up(&machine, &sshd, &["--ionice=idle"], &destination)
        .exits(&[0])
        .says("making a snapshot of")
        .says("published");
    machine.verify(&latest);
    let names = support::module::visible(&root);
    assert!(names.len() == 1 && names[0].ends_with('Z'), "{names:?}");

    next_second();
    back_up(&machine, &sshd, &[], &destination).exits(&[0]).says("nothing changed since");
    assert_eq!(support::module::visible(&root), names);
    stage.log();
    back_up(&machine, &sshd, &["--dry-run"], &destination).exits(&[0]);
    back_up(&machine, &sshd, &["--snapshot"], &destination).exits(&[0]);
    back_up(&machine, &sshd, &["--rotate"], &destination).exits(&[0]);
    let latest = latest.display();
    let wanted = [
        format!("rsyncd-snapshot rotate --dry-run -- {latest}"),
        format!("rsyncd-snapshot snapshot --no-rotate -- {latest}"),
        format!("rsyncd-snapshot rotate -- {latest}"),
    ];
    assert_eq!(stage.log(), wanted);
    let checked = back_up(&machine, &sshd, &["--check"], &destination).exits(&[0]);
    assert!(
        checked.stdout().contains("ok       snapshots: the server has rsyncd-snapshot"),
        "{checked}"
    );
}

#[test]
fn what_would_delete_data_on_an_ssh_server_is_refused_as_on_a_disk() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    install_snapshot_program(&stage);
    let sshd = Sshd::start(&stage, "");
    let directory = machine.directory.display();
    let before = fingerprint::of(&machine.source);
    let refused = |destination: &str, part: &str| {
        for options in [&["-b"][..], &["-n"], &[]] {
            let destination = format!("server:{directory}/{destination}");
            back_up(&machine, &sshd, options, &destination).exits(&[2]).says(part);
        }
    };
    // The server is this machine, by another name.
    refused("source", "which would be deleted: are they swapped?");
    refused("", "which would be deleted: are they swapped?");
    refused("source/backup/latest", "each backup would hold all earlier ones");
    let website = machine.directory.join("www");
    tree::small(&website);
    refused("www", "no earlier backup went there");
    let destination = format!("server:{directory}/www");
    let checked = back_up(&machine, &sshd, &["--check"], &destination).exits(&[1]);
    assert!(checked.stdout().contains("no earlier backup went there"), "{checked}");

    fingerprint::assert_equal(
        &before,
        &fingerprint::of(&machine.source),
        "the source before and after",
    );

    let latest = format!("server:{directory}/disk/latest");
    back_up(&machine, &sshd, &[], &latest).exits(&[0]);
    fs::remove_file(machine.source.join("notes.txt")).expect("removed");
    next_second();
    // Known, as its snapshots are beside it; nothing else there is.
    back_up(&machine, &sshd, &[], &latest).exits(&[0]);
    fs::rename(&website, machine.directory.join("disk/www")).expect("moved");
    refused("disk/www", "no earlier backup went there");
    refused("disk/.rsyncd-snapshot", "keeps its records");
    assert!(machine.directory.join("disk/www/read me").exists());
}

#[test]
fn patterns_in_a_servers_path_are_refused() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    let sshd = Sshd::start(&stage, "");
    let directory = machine.directory.display();
    let neighbours = ["disk/a1", "disk/ab"].map(|name| machine.directory.join(name));
    neighbours.iter().for_each(|neighbour| tree::small(neighbour));
    fs::create_dir(machine.directory.join("disk/a?")).expect("what is meant");
    for name in ["disk/a?", "disk/a[1]", "disk/a*", "disk/a\nb"] {
        back_up(&machine, &sshd, &["-b"], &format!("server:{directory}/{name}")).exits(&[2]);
    }
    // Such a home is root's, whatever it is called here.
    back_up(&machine, &sshd, &["-b"], &format!("server:~root/..{directory}/disk/a1")).exits(&[2]);
    let mut server = support::server::Server::new();
    server.rsyncd_conf = machine.directory.join("rsyncd.conf");
    let text = format!(
        "use chroot = no\nuid = root\ngid = root\n[disk]\n    path = {directory}/disk\n    read only = no\n"
    );
    server.write_rsyncd_conf(&text);
    let daemon = Daemon::serve(&server);
    for name in ["disk/a?", "disk/a[1]"] {
        machine.back_up_to(&daemon.url(name), &[]).exits(&[2]).says("a pattern of names");
    }
    neighbours.iter().for_each(|neighbour| assert!(neighbour.join("read me").exists()));

    // All else means itself.
    let odd = "disk/it's $x `y` !{a,b} \\d #;&|<>()\t\"";
    back_up(&machine, &sshd, &["-b"], &format!("server:{directory}/{odd}")).exits(&[0]);
    machine.verify(&machine.directory.join(odd));
}

#[test]
fn a_partial_backup_is_a_partial_snapshot_on_an_ssh_server_too() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    install_snapshot_program(&stage);
    let sshd = Sshd::start(&stage, "");
    let local = Stage { machine: &machine, directory: machine.directory.join("client stage") };
    for name in ["etc", "sbin", "dev", "mapper"] {
        fs::create_dir_all(local.directory.join(name)).expect("a directory");
    }
    for name in ["passwd", "hosts", "nsswitch.conf"] {
        fs::copy(Path::new("/etc").join(name), local.directory.join("etc").join(name))
            .expect("a copy");
    }
    local.script("rsync", RSYNC_WITH_STATUS);
    fs::write(local.directory.join("status"), "23").expect("a status");
    let latest = machine.directory.join("disk/latest");
    let destination = format!("server:{}", latest.display());
    let source = machine.source.to_str().expect("UTF-8");
    let mut command = local.backup_command(&["--disable-notifications", source, &destination]);
    Run::of(command.env("RSYNC_RSH", sshd.rsh())).exits(&[4]);
    let names = support::module::visible(latest.parent().expect("a parent"));
    assert!(names.len() == 1 && names[0].ends_with("-partial"), "{names:?}");
}

#[test]
fn a_server_without_our_program_gets_plain_links() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    machine.write_policy("[defaults]\nkeep = { hourly = 2 }\nmin_keep = 1\n");
    let stage = Stage::new(&machine);
    let sshd = Sshd::start(&stage, "");
    let root = machine.directory.join("disk");
    let latest = root.join("latest");
    for hour in 10..20 {
        fs::create_dir_all(root.join(format!("2020-01-01T{hour}-00-00Z")))
            .expect("an old snapshot");
    }
    fs::create_dir(root.join("2020-01-01 foreign")).expect("a foreign directory");
    let destination = format!("server:{}", latest.display());
    let run = back_up(&machine, &sshd, &[], &destination).exits(&[4]);
    run.says("install it there as /usr/bin/rsyncd-snapshot").says("nothing is rotated");
    let names = support::module::visible(&root);
    let newest = names.last().expect("a snapshot");
    machine.verify(&root.join(newest));
    assert!(names.contains(&"2020-01-01 foreign".to_string()), "{names:?}");
    assert_eq!(names.len(), 12, "{names:?}");
    let inode =
        |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("a file"));
    assert_eq!(inode(&latest.join("notes.txt")), inode(&root.join(newest).join("notes.txt")));
    let checked = back_up(&machine, &sshd, &["--check"], &destination).exits(&[4]);
    assert!(checked.stdout().contains("WARNING  snapshots"), "{checked}");
    back_up(&machine, &sshd, &["--rotate"], &destination).exits(&[2]).says("nothing is rotated");

    // What another client has left unfinished is no complete snapshot.
    next_second();
    tree::write(&latest.join(".rsync-system-backup-unfinished"), "left over\n");
    back_up(&machine, &sshd, &["--snapshot"], &destination).exits(&[4]);
    let names = support::module::visible(&root);
    assert!(names.last().is_some_and(|name| name.ends_with("Z-partial")), "{names:?}");
    // Where the engine has been, it is missed.
    fs::create_dir(root.join(".rsyncd-snapshot")).expect("a directory");
    next_second();
    back_up(&machine, &sshd, &["--snapshot"], &destination).exits(&[2]).says("is gone");
    assert_eq!(support::module::visible(&root), names);
}

#[test]
fn a_disk_of_an_ssh_server_is_mounted_and_unmounted_there() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    install_snapshot_program(&stage);
    let mount_point = stage.path("mnt");
    stage.write("fstab", &format!("/dev/null {mount_point} ext4 noauto 0 0\n"));
    stage.script("mountpoint", "[ -e \"$stage/mounted\" ]");
    stage.script("mount", "touch \"$stage/mounted\"");
    stage.script("umount", "rm \"$stage/mounted\"");
    let sshd = Sshd::start(&stage, "");
    let destination = format!("server:{mount_point}/latest");
    back_up(&machine, &sshd, &["--backup", "-m", &mount_point], &destination).exits(&[0]);
    machine.verify(&stage.directory.join("mnt/latest"));
    let steps: Vec<String> =
        stage.log().into_iter().filter(|line| !line.starts_with("mountpoint")).collect();
    assert_eq!(steps, [format!("mount {mount_point}"), format!("umount {mount_point}")]);
}

// -- IPv6 ------------------------------------------------------------------------------------------

/// Whether this machine has the address `::1`.
fn has_ipv6() -> bool {
    let bound = std::net::TcpListener::bind("[::1]:0");
    if let Err(cause) = &bound {
        skipped!("needs the address ::1: {cause}");
    }
    bound.is_ok()
}

#[test]
fn an_rsync_daemon_and_a_gate_to_it_are_reached_by_ipv6_addresses() {
    if !can_run() || !has_ipv6() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    let sshd = Sshd::start_at(&stage, "::1", "");
    let module = Module::new();
    let section = Daemon::pair_section(&module, "data", &module.latest, "");
    module.write_rsyncd_conf(&format!("use chroot = no\nuid = root\ngid = root\n{section}"));
    let daemon = Daemon::serve_at(&module, "::1");
    let url = daemon.url("data");
    assert!(url.starts_with("rsync://[::1]:"), "{url}");
    machine.back_up_to(&url, &[]).exits(&[0]);
    assert_eq!(daemon.await_hooks(HOOKS), [GOOD; HOOKS]);
    machine.verify(&module.latest);
    assert_eq!(module.snapshots().len(), 1);

    // The gate's localhost would be 127.0.0.1, where no server listens.
    let mut command =
        machine.backup_command(&["--disable-notifications", "--retries=0", "--tunnel=root@[::1]"]);
    let far = url.replace("[::1]", "[0:0:0:0:0:0:0:1]");
    Run::of(command.env("RSYNC_RSH", sshd.rsh()).arg(&machine.source).arg(&far)).exits(&[0]);
    assert_eq!(daemon.await_last_hook(2 * HOOKS), GOOD);
}

#[test]
fn an_ssh_server_is_reached_by_its_ipv6_address() {
    if !can_run() || !has_ipv6() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    install_snapshot_program(&stage);
    let sshd = Sshd::start_at(&stage, "::1", "");
    let latest = machine.directory.join("disk/latest");
    let directory = latest.display();
    back_up(&machine, &sshd, &["--check"], &format!("[::1]:{directory}")).exits(&[0]);
    back_up(&machine, &sshd, &[], &format!("root@[::1]:{directory}")).exits(&[0]);
    machine.verify(&latest);
    assert_eq!(support::module::visible(latest.parent().expect("a parent")).len(), 1);
}

#[test]
fn an_ssh_server_that_refuses_is_named_with_its_reason() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    let sshd = Sshd::start(&stage, "DenyUsers root");
    back_up(&machine, &sshd, &[], "server:/nowhere/latest")
        .exits(&[1])
        .says("status 255")
        .says("Permission denied");
    let checked = back_up(&machine, &sshd, &["--check"], "server:/nowhere/latest").exits(&[1]);
    assert!(checked.stdout().contains("FAILED   connection"), "{checked}");
}
