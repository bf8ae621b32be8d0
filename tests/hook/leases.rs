//! Leases: what a client reads through a restore module stays as it is, or the client gets an
//! error.

use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::daemon::{Daemon, client, kill, program};
use support::file_system::{FileSystem, Kind};
use support::module::{Module, names_in};
use support::run::{Run, tool};
use support::subvolumes::are_subvolumes;
use support::time::{next_second, wait_until};
use support::{have, tree};

/// Each push expires the snapshot before, and recycles the one before that.
const EXPIRING: &str = "[defaults]\nkeep = { daily = 1 }\nprefer = \"newest\"\nmin_keep = 1\n\
                        min_age = \"0s\"\ngrace = \"0s\"\nanomaly_share = \"100%\"\nlock_wait = \"20s\"\n";

const DIRECTORIES: usize = 10;
const FILES: usize = 4;

/// Files that all say which state they are of.
fn write_state(source: &Path, state: u32) {
    next_second();
    for directory in 0..DIRECTORIES {
        let directory = source.join(format!("d{directory}"));
        fs::create_dir_all(&directory).expect("a directory");
        for file in 0..FILES {
            let text = format!("state {state:04} {}", "x".repeat(50_000));
            tree::write(&directory.join(format!("f{file}")), &text);
        }
    }
}

/// The states that the restored files are of, each once.
fn states(restored: &Path) -> Vec<String> {
    let mut states: Vec<String> = names_in(restored)
        .iter()
        .flat_map(|directory| {
            let directory = restored.join(directory);
            names_in(&directory).into_iter().map(move |file| directory.join(file))
        })
        .filter(|file| !file.file_name().expect("a name").to_string_lossy().starts_with('.'))
        .map(|file| {
            let text = fs::read(file).expect("a file");
            String::from_utf8_lossy(&text[..10.min(text.len())]).into_owned()
        })
        .collect();
    states.sort();
    states.dedup();
    states
}

/// A module with the two hooks, and one that lets clients read its root, with them, too.
struct Site<'a> {
    module: &'a Module,
    source: PathBuf,
    daemon: Daemon<'a>,
    state: std::cell::Cell<u32>,
}

impl<'a> Site<'a> {
    /// With one snapshot, of state 1.
    fn new(module: &'a Module, policy: &str) -> Site<'a> {
        module.write_policy(policy);
        let hooks = |path: &Path, more: &str| {
            format!(
                "path = {}\n{more}\npre-xfer exec = {program} pre-xfer\npost-xfer exec = {program}\n",
                path.display(),
                program = program(module)
            )
        };
        let sections = format!(
            "[data]\nread only = no\n{}[restore]\nexclude = /.rsyncd-snapshot\n{}",
            hooks(&module.latest, ""),
            hooks(&module.root, "read only = yes")
        );
        let daemon = Daemon::start(module, &sections);
        let source = module.directory.join("source");
        let site = Site { module, source, daemon, state: std::cell::Cell::new(0) };
        site.push();
        site
    }

    /// Pushes the next state, and waits for its snapshot.
    fn push(&self) -> String {
        let known = self.module.snapshots();
        self.state.set(self.state.get() + 1);
        write_state(&self.source, self.state.get());
        self.daemon.push(&self.source, "data", &["--delete"]).exits(&[0]);
        let mut new = Vec::new();
        wait_until("the push has its snapshot", || {
            new = self.module.snapshots();
            new.retain(|name| !known.contains(name));
            !new.is_empty() && is_idle(self.module)
        });
        new.remove(0)
    }

    /// A client that reads slowly: it takes some 7 seconds for a snapshot.
    fn read_slowly(&self, path: &str, to: &str) -> Child {
        let reader = client()
            .args(["-a", "--whole-file", "--bwlimit=300"])
            .arg(self.daemon.url(&format!("restore/{path}")))
            .arg(self.module.directory.join(to))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a client");
        wait_until("it has begun to read", || !names_in(&self.restored(to)).is_empty());
        reader
    }

    fn restored(&self, to: &str) -> PathBuf {
        self.module.directory.join(to)
    }
}

/// Whether no run is at work and no transfer runs.
fn is_idle(module: &Module) -> bool {
    let lock = fs::metadata(module.private("lock")).is_ok_and(|lock| lock.len() == 0);
    lock && names_in(&module.private("transfers")).is_empty()
}

fn leases(module: &Module) -> Vec<toml::Table> {
    names_in(&module.private("leases"))
        .iter()
        .filter(|name| !name.ends_with(".tmp"))
        .filter_map(|name| fs::read_to_string(module.private(&format!("leases/{name}"))).ok())
        .map(|text| text.parse().expect("a lease"))
        .collect()
}

fn process(lease: &toml::Table, which: &str) -> u32 {
    u32::try_from(lease[which]["pid"].as_integer().expect("a number")).expect("a process")
}

fn signal(signal: &str, pid: u32) {
    Run::of(tool("sh").args(["-c", &format!("kill -s {signal} {pid}")])).exits(&[0]);
}

#[test]
fn a_restore_during_three_pushes_is_never_a_mixture() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let site = Site::new(&module, EXPIRING);
    let first = module.snapshots().remove(0);
    let mut reader = site.read_slowly(&format!("{first}/"), "restored");
    for _ in 0..3 {
        let newest = site.push();
        assert_eq!(module.snapshots(), [&first, &newest].map(String::clone));
    }
    let shown = module.list();
    assert_eq!(shown[0]["reader"], "address 127.0.0.1");
    assert!(shown[0]["read_since"].is_string() && shown[1]["reader"].is_null(), "{shown:?}");
    for command in [&["plan", "data"][..], &["rotate", "data"], &["list", "data"]] {
        module.run(command).exits(&[0]).says("address 127.0.0.1 has been reading it since");
    }
    assert!(reader.try_wait().expect("a status").is_none(), "it reads for longer than the pushes");
    assert!(reader.wait().expect("its status").success());
    assert_eq!(states(&site.restored("restored")), ["state 0001"]);
    wait_until("the lease has ended", || names_in(&module.private("leases")).is_empty());
    let newest = site.push();
    assert_eq!(module.snapshots(), [newest], "then it expires");
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn two_readers_hold_a_snapshot_until_both_have_ended() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let site = Site::new(&module, EXPIRING);
    let first = module.snapshots().remove(0);
    let one = site.read_slowly(&format!("{first}/"), "one");
    let other = site.read_slowly(&format!("{first}/"), "other");
    assert_eq!(leases(&module).len(), 2);
    kill(one);
    site.push();
    assert!(module.snapshots().contains(&first));
    kill(other);
    wait_until("both leases have ended", || names_in(&module.private("leases")).is_empty());
    site.push();
    assert!(!module.snapshots().contains(&first));
}

/// The daemon's process that serves the connection waits for the one that transfers.
#[test]
fn a_lease_lasts_as_long_as_a_process_of_the_connection() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let site = Site::new(&module, EXPIRING);
    let first = module.snapshots().remove(0);
    let reader = site.read_slowly(&format!("{first}/"), "one");
    signal("KILL", process(&leases(&module)[0], "worker"));
    wait_until("the lease has ended", || names_in(&module.private("leases")).is_empty());
    kill(reader);

    let mut reader = site.read_slowly(&format!("{first}/"), "two");
    signal("KILL", process(&leases(&module)[0], "owner"));
    std::thread::sleep(Duration::from_millis(100));
    site.push();
    site.push();
    assert!(module.snapshots().contains(&first), "the transfer goes on");
    assert!(reader.wait().expect("its status").success());
    assert_eq!(states(&site.restored("two")), ["state 0001"]);
    site.push();
    assert!(!module.snapshots().contains(&first), "no hook followed, but its process has ended");
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(names_in(&module.private("leases")), [""; 0]);
}

/// The lease ends early, so the snapshot expires under its reader.
#[test]
fn after_max_lease_a_reader_gets_an_error() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let site = Site::new(&module, &format!("{EXPIRING}max_lease = \"1s\"\n"));
    let first = module.snapshots().remove(0);
    let mut reader = site.read_slowly(&format!("{first}/"), "restored");
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..3 {
        let made = site.push();
        assert_ne!(module.recycled_from(&made).as_ref(), Some(&first));
    }
    assert!(!module.snapshots().contains(&first));
    assert!(!reader.wait().expect("its status").success(), "an error, not a mixture");
    assert!(states(&site.restored("restored")).iter().all(|state| state == "state 0001"));
}

// -- pre-xfer alone -------------------------------------------------------------------------------

/// pre-xfer before a client reads `words` through the module at `path`, in a connection that the
/// process `pid` serves.
fn read(module: &Module, path: &Path, words: &[&str], pid: u32) -> Command {
    let mut command = module.command(&["pre-xfer"]);
    command.env("RSYNC_MODULE_NAME", "restore").env("RSYNC_MODULE_PATH", path);
    command.env("RSYNC_HOST_ADDR", "192.0.2.7").env("RSYNC_HOST_NAME", "x");
    command.env("RSYNC_USER_NAME", "anna").env("RSYNC_PID", pid.to_string());
    command.env("RSYNC_REQUEST", "restore/x");
    for (number, word) in ["rsyncd", "--server", "--sender"].iter().chain(words).enumerate() {
        command.env(format!("RSYNC_ARG{number}"), word);
    }
    command
}

/// What is leased after that: nothing, all, or the names. The lease is removed.
fn leased(module: &Module, path: &Path, words: &[&str]) -> Option<Vec<String>> {
    let section = format!("[restore]\npath = {}\nread only = yes\n", path.display());
    module.write_rsyncd_conf(&section);
    Run::of(&mut read(module, path, words, std::process::id())).exits(&[0]);
    let found = leases(module);
    for file in names_in(&module.private("leases")) {
        fs::remove_file(module.private(&format!("leases/{file}"))).expect("removed");
    }
    assert!(found.len() <= 1, "{found:?}");
    let names = found.first()?.get("snapshots").map(|names| {
        let names = names.as_array().expect("a list").iter();
        names.map(|name| name.as_str().expect("a name").to_string()).collect::<Vec<_>>()
    });
    Some(names.unwrap_or_else(|| vec!["ALL".to_string()]))
}

/// The last is the newest complete one, which stays.
const OLD: [&str; 4] = [
    "2020-01-01T00-00-00Z",
    "2020-01-02T00-00-00Z-partial",
    "2019-08-02 12:00:00",
    "2021-01-01T00-00-00Z",
];

fn with_old() -> Module {
    let module = Module::new();
    module.write_policy(EXPIRING);
    OLD.iter().for_each(|name| module.make_old_snapshot(name));
    module
}

#[test]
fn a_lease_is_on_what_the_arguments_name_or_on_all() {
    let module = with_old();
    let root = module.root.clone();
    let above = module.directory.clone();
    symlink(OLD[0], root.join("current")).expect("a link");
    symlink(&root, above.join("linked")).expect("a link");
    fs::create_dir(root.join("notes")).expect("a directory");
    fs::create_dir(above.join("elsewhere")).expect("a directory");
    let all = Some(vec!["ALL".to_string()]);
    let one = Some(vec![OLD[0].to_string()]);
    let archive = "-logDtpre.iLsfxCIvu";
    let in_first = format!("{}/etc/", OLD[0]);
    let (in_root, in_link) = (format!("root/{in_first}"), format!("linked/{in_first}"));
    let lower = root.join(OLD[0]).join("sub");
    for (path, words, expected) in [
        // A module that is the root.
        (&root, &[archive, ".", in_first.as_str()][..], one.clone()),
        (&root, &[archive, ".", &format!("./{in_first}")], one.clone()),
        (&root, &[archive, ".", &in_first, OLD[2]], Some(vec![OLD[2].into(), OLD[0].into()])),
        (&root, &[archive, ".", OLD[1]], Some(vec![OLD[1].into()])),
        (&root, &["-de.LsfxCIvu", ".", "."], all.clone()),
        (&root, &[archive, "--files-from=-", "--from0", ".", "."], all.clone()),
        (&root, &["-logDtprL", ".", &in_first], all.clone()),
        (&root, &[archive, ".", "2020-*"], all.clone()),
        (&root, &[archive, ".", "2020-01-01T00-00-00Z/../x"], all.clone()),
        (&root, &[archive, "--unheard-of", ".", &in_first], all.clone()),
        (&root, &[archive, ".", "current/etc"], all.clone()),
        (&root, &[archive, ".", ".rsyncd-snapshot/expired"], all.clone()),
        (&root, &[archive, ".", "latest/etc"], None),
        (&root, &[archive, ".", "notes"], None),
        (&root, &[archive, ".", "nothing"], None),
        (&root, &[archive, ".", "2020-01-09T00-00-00Z"], Some(vec!["2020-01-09T00-00-00Z".into()])),
        // A path that is written in another way.
        (&root.join("."), &[archive, ".", &in_first], one.clone()),
        (&above.join("linked/"), &[archive, ".", &in_first], one.clone()),
        (&above.join("./root"), &[archive, ".", &in_first], one.clone()),
        // A module above the root.
        (&above, &[archive, ".", &in_root], one.clone()),
        (&above, &[archive, ".", "root"], all.clone()),
        (&above, &["-de.LsfxCIvu", ".", "."], all.clone()),
        (&above, &[archive, ".", "root/latest"], None),
        (&above, &[archive, ".", "elsewhere"], None),
        (&above, &[archive, ".", "policy.toml"], None),
        (&above, &[archive, ".", &in_link], all.clone()),
        // A module within a snapshot.
        (&root.join(OLD[0]), &[archive, ".", "etc"], one.clone()),
        (&lower, &[archive, ".", "."], one.clone()),
        (&root.join("current"), &[archive, ".", "etc"], one.clone()),
        // The module itself.
        (&module.latest, &[archive, ".", "etc"], None),
        (&above.join("elsewhere"), &[archive, ".", "."], None),
    ] {
        let found = leased(&module, path, words);
        assert_eq!(found, expected, "{} {words:?}", path.display());
    }
}

#[test]
fn only_the_leases_of_a_restore_module_are_written() {
    let module = with_old();
    Run::of(&mut read(&module, &module.root, &["-r", ".", OLD[0]], std::process::id())).exits(&[0]);
    let lease = leases(&module).remove(0);
    assert_eq!(lease["reader"].as_str(), Some("user anna"));
    assert_eq!(names_in(&module.private("transfers")), [""; 0]);
    assert!(!module.private("state.toml").exists());
    assert!(!module.directory.join(".rsyncd-snapshot").exists(), "no root above the root");
}

/// A process whose lease is on `OLD[0]`.
fn reader(module: &Module) -> Child {
    let mut sleep = tool("sleep").arg("1000").spawn().expect("a process");
    let run = Run::of(&mut read(module, &module.root, &["-r", ".", OLD[0]], sleep.id()));
    if run.code() != Some(0) {
        let _ = sleep.kill();
        panic!("{run}");
    }
    sleep
}

#[test]
fn what_is_read_is_neither_retired_nor_recycled_until_its_reader_ends() {
    let module = with_old();
    tree::small(&module.latest);
    let reader = reader(&module);
    let run = module.run(&["rotate", "data", "--json"]).exits(&[0, 4]);
    let shown = run.json();
    let one = shown["snapshots"].as_array().expect("a list").iter().find(|it| it["name"] == OLD[0]);
    let reasons = one.expect("it is there")["reasons"].to_string();
    assert!(reasons.contains("user anna has been reading it since"), "{reasons}");
    assert!(module.snapshots().contains(&OLD[0].to_string()));
    kill(reader);
    module.run(&["rotate", "data"]).exits(&[0, 4]);
    assert!(!module.snapshots().contains(&OLD[0].to_string()));
    assert_eq!(names_in(&module.private("leases")), [""; 0], "and the lease's file is removed");
}

/// The lease as it is a day later, by both clocks.
fn age_the_lease(module: &Module) {
    let file = module.private("leases").join(&names_in(&module.private("leases"))[0]);
    let mut lease: toml::Table = fs::read_to_string(&file).expect("a lease").parse().expect("TOML");
    let boot = lease["began_at"].as_table_mut().expect("a moment");
    let now = boot["nanoseconds"].as_integer().expect("a number");
    boot.insert("nanoseconds".into(), (now - 86_400_000_000_001).into());
    fs::write(&file, lease.to_string()).expect("written");
}

#[test]
fn an_outlasted_lease_keeps_nothing_but_prevents_recycling() {
    if !support::may_recycle() {
        return;
    }
    let module = with_old();
    tree::small(&module.latest);
    let reader = reader(&module);
    age_the_lease(&module);
    module.run(&["check", "data"]).says("longer than max_lease (24h)");
    module.run(&["rotate", "data"]).exits(&[0, 4]);
    assert_eq!(module.retired(), ["2019-08-02 12:00:00", OLD[0]]);
    // The newest retired one whose grace is over would be recycled.
    let made = module.expect_snapshot();
    let expected = (!are_subvolumes()).then(|| "2019-08-02 12:00:00".to_string());
    assert_eq!(module.recycled_from(&made), expected);
    kill(reader);
}

#[test]
fn a_reader_gives_way_when_space_is_short() {
    let Some(file_system) = FileSystem::with(Kind::Ext4.or_btrfs(), 96, &[]) else { return };
    let module = Module::on(&file_system);
    let policy = "[defaults]\nkeep = { daily = \"always\" }\nmin_keep = 1\nmin_age = \"0s\"\n";
    module.write_policy(policy);
    for name in ["2020-01-01T00-00-00Z", "2020-01-02T00-00-00Z", "2020-01-02T12-00-00Z"] {
        module.make_old_snapshot(name);
        let mut random = support::random::Random::new(7);
        fs::write(module.snapshot(name).join("data"), random.bytes(4 << 20)).expect("data");
    }
    // The second of two in a day is one that only its reader keeps.
    let mut sleep = tool("sleep").arg("1000").spawn().expect("a process");
    let words = ["-r", ".", "2020-01-02T12-00-00Z", "2020-01-01T00-00-00Z"];
    Run::of(&mut read(&module, &module.root, &words, sleep.id())).exits(&[0]);
    tree::small(&module.latest);
    module.expect_snapshot();
    assert_eq!(module.snapshots().len(), 4);
    let facts = rustix::fs::statvfs(&module.root).expect("the file system");
    let free = (facts.f_bavail * facts.f_frsize) >> 20;
    module.write_policy(&format!("{policy}free_space = \"{}M\"\n", free + 2));
    let run = module.run(&["rotate", "data"]).exits(&[4]);
    let run =
        run.says("2020-01-02T12-00-00Z is expired although user anna has been reading it since");
    assert_eq!(module.snapshots().len(), 3, "{run}");
    assert!(module.snapshots().contains(&"2020-01-01T00-00-00Z".to_string()), "{run}");
    module.run(&["check", "data"]).exits(&[1]).says("although user anna has been reading it");
    let _ = sleep.kill();
    let _ = sleep.wait();
}

#[test]
fn a_client_reads_without_a_lease_where_none_can_be_written() {
    let module = with_old();
    tree::small(&module.latest);
    module.expect_snapshot();
    fs::remove_dir_all(module.private("leases")).expect("removed");
    fs::write(module.private("leases"), "no directory").expect("a file");
    Run::of(&mut read(&module, &module.root, &["-r", ".", OLD[0]], std::process::id()))
        .exits(&[0])
        .says("user anna reads snapshots in")
        .says("without a lease");
    // What cannot be read may hold anything: nothing expires.
    module.make_old_snapshot("2020-03-01T00-00-00Z");
    let before = module.snapshots();
    module.run(&["rotate", "data"]).exits(&[1]).says("leases");
    assert_eq!(module.snapshots(), before);
}

#[test]
fn a_lease_that_cannot_be_read_is_one_on_all_for_a_day() {
    let module = with_old();
    tree::small(&module.latest);
    fs::create_dir_all(module.private("leases")).expect("a directory");
    let reader = reader(&module);
    let file = module.private("leases").join(&names_in(&module.private("leases"))[0]);
    for text in ["", "format = 99\n", "\0"] {
        fs::write(&file, text).expect("written");
        module.run(&["rotate", "data"]).exits(&[0, 4]);
        assert!(OLD.iter().all(|name| module.snapshots().contains(&name.to_string())), "{text}");
        module.run(&["plan", "data"]).exits(&[0]).says("an unknown reader has been reading it");
    }
    Run::of(tool("touch").args(["-d", "2 days ago"]).arg(&file)).exits(&[0]);
    module.run(&["rotate", "data"]).exits(&[0, 4]);
    assert!(!module.snapshots().contains(&OLD[0].to_string()));
    kill(reader);
}
