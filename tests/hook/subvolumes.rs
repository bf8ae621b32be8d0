//! What read-only btrfs subvolumes promise beyond hard links, behind a real rsync daemon: no client
//! changes an old snapshot, and a push waits at the gate for an instant only.

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::daemon::{Daemon, GOOD, source};
use support::file_system::FileSystem;
use support::fingerprint::{self, Fingerprint};
use support::module::Module;
use support::run::{Run, tool};
use support::subvolumes::{is_subvolume, make_subvolume, remove_snapshot};
use support::time::wait_until;
use support::{have, tree};

/// A module that is a subvolume of a btrfs of its own, and what a client has. `None` where that
/// cannot be mounted, or rsync is missing.
fn on_btrfs() -> Option<(FileSystem, Module, PathBuf)> {
    if !have(&["rsync", "btrfs"]) {
        return None;
    }
    let file_system = FileSystem::for_subvolumes()?;
    let module = Module::subvolume_on(&file_system);
    let source = source(&module);
    Some((file_system, module, source))
}

/// Pushes what the client has, and returns the snapshot that is made of it, as it is then.
#[track_caller]
fn push(module: &Module, daemon: &Daemon, source: &Path) -> (String, Fingerprint) {
    let before = module.snapshots().len();
    daemon.push(source, "data", &[]).exits(&[0]);
    wait_until("its snapshot", || module.snapshots().len() == before + 1);
    let name = module.snapshots().pop().expect("a snapshot");
    assert!(is_subvolume(&module.snapshot(&name)), "{name}");
    module.assert_equals_module(&name);
    let taken = fingerprint::of(&module.snapshot(&name));
    (name, taken)
}

#[track_caller]
fn assert_as_taken(module: &Module, (name, taken): &(String, Fingerprint), after: &str) {
    fingerprint::assert_equal(taken, &fingerprint::of(&module.snapshot(name)), after);
}

#[test]
fn a_client_that_changes_attributes_changes_no_older_snapshot() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_pair(&module);
    let first = push(&module, &daemon, &source);
    for (number, mode) in [0o600, 0o755].into_iter().enumerate() {
        // The content and its time stay, so rsync changes the file that is there.
        tree::set_mode(&source.join("documents/report"), mode);
        push(&module, &daemon, &source);
        assert_eq!(daemon.await_last_hook(number + 2), GOOD);
        assert_as_taken(&module, &first, &format!("after mode {mode:o}"));
    }
    assert_eq!(module.snapshots().len(), 3);
}

#[test]
fn a_push_that_writes_in_place_is_let_in_and_changes_no_snapshot() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_pair(&module);
    let report = source.join("documents/report");
    let mut taken = vec![push(&module, &daemon, &source)];
    let in_place = [
        &["--inplace", "--no-whole-file"][..],
        &["--append"],
        &["--append-verify"],
        &["--partial-dir=elsewhere"],
        &["--delay-updates"],
    ];
    for (number, options) in in_place.into_iter().enumerate() {
        let text = fs::read_to_string(&report).expect("the report");
        // rsync appends only to what is shorter.
        tree::write(&report, &format!("{text}line {number}\n"));
        support::time::next_second();
        daemon.push(&source, "data", options).exits(&[0]);
        assert_eq!(daemon.await_last_hook(number + 2), GOOD, "{options:?}");
        let name = module.snapshots().pop().expect("a snapshot");
        assert_eq!(module.snapshots().len(), number + 2, "{options:?}");
        module.assert_equals_module(&name);
        let copy = fs::read_to_string(module.snapshot(&name).join("documents/report"));
        assert_eq!(
            copy.expect("its report"),
            fs::read_to_string(&report).expect("the report"),
            "{options:?}"
        );
        taken.iter().for_each(|one| assert_as_taken(&module, one, &format!("after {options:?}")));
        taken.push((name.clone(), fingerprint::of(&module.snapshot(&name))));
    }
}

#[test]
fn verify_says_that_nothing_has_to_be_compared() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_pair(&module);
    push(&module, &daemon, &source);
    // Where hard links would share the file, this is damage.
    fs::write(module.latest.join("documents/report"), "written in place").expect("written");
    let run = module.run(&["verify", "data"]).exits(&[0]);
    let run = run.says("1 read-only snapshot of btrfs not compared: nothing can be changed there");
    assert!(!run.stdout().contains("change times"), "{run}");
    let json = module.json(&["verify", "data", "--json"]);
    assert_eq!(json["altered_files"], 0, "{json:#}");
    module.run(&["check", "data"]).exits(&[0]).says("its snapshots are btrfs snapshots");
}

#[test]
fn root_itself_cannot_write_to_a_snapshot() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_pair(&module);
    let first = push(&module, &daemon, &source);
    let snapshot = module.snapshot(&first.0);
    for words in [
        &["touch", "new"][..],
        &["chmod", "0600", "documents/report"],
        &["rm", "documents/report"],
        &["mv", "documents", "elsewhere"],
        &["chmod", "0700", "."],
    ] {
        let run = Run::of(tool(words[0]).args(&words[1..]).current_dir(&snapshot));
        assert!(!run.succeeded() && run.stderr().contains("Read-only file system"), "{run}");
    }
    assert_as_taken(&module, &first, "after all of these");
}

#[test]
fn a_push_begins_while_the_snapshot_of_an_earlier_one_is_compared() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    if !have(&["strace"]) {
        return;
    }
    let slow = "strace -f -qq -o /dev/null -e inject=renameat2:delay_enter=4000000 '";
    let section = Daemon::pair_section(&module, "data", &module.latest, "")
        .replace("post-xfer exec = '", &format!("post-xfer exec = {slow}"));
    let daemon = Daemon::start(&module, &section);
    daemon.push(&source, "data", &[]).exits(&[0]);
    wait_until("the snapshot is made", || module.left_over("staging") > 0);

    tree::write(&source.join("documents/second"), "2");
    let began = Instant::now();
    daemon.push(&source, "data", &[]).exits(&[0]);
    assert!(module.latest.join("documents/second").exists());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?} at the gate", began.elapsed());
    assert_eq!(module.snapshots(), [""; 0], "the first snapshot is not visible yet");

    daemon.await_hooks(2);
    let names = module.snapshots();
    assert!(names.len() == 2 && names.iter().all(|name| !name.ends_with("-partial")), "{names:?}");
    assert!(!module.snapshot(&names[0]).join("documents/second").exists(), "it came later");
    module.assert_equals_module(&names[1]);
}

#[test]
fn an_unchanged_push_makes_no_snapshot_to_compare() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    if !have(&["strace"]) {
        return;
    }
    let daemon = Daemon::of_module(&module);
    push(&module, &daemon, &source);
    // The first comparison is what later runs rely on.
    module.expect_no_snapshot();
    let trace = module.directory.join("trace");
    let made = || {
        let trace_path = trace.to_str().expect("UTF-8");
        let strace = ["strace", "-f", "-qq", "-e", "trace=ioctl", "-o", trace_path];
        Run::of(&mut module.hook_through(&strace)).exits(&[0]);
        let calls = fs::read_to_string(&trace).expect("a trace");
        calls.lines().filter(|call| call.contains("SNAP_CREATE")).count()
    };
    assert_eq!(made(), 0, "nothing has changed");
    // A change back to what it was is seen, and compared.
    let report = module.latest.join("documents/report");
    let mode = |mode| tree::set_mode(&report, mode);
    mode(0o600);
    mode(0o644);
    assert_eq!(made(), 1, "something has changed");
}

#[test]
fn snapshots_lie_in_another_subvolume_of_the_same_btrfs() {
    let Some((file_system, module, source)) = on_btrfs() else { return };
    let elsewhere = file_system.mount_point.join("elsewhere");
    Run::of(tool("btrfs").args(["-q", "subvolume", "create"]).arg(&elsewhere)).exits(&[0]);
    tree::set_mode(&elsewhere, 0o700);
    module.write_policy(&format!(
        "[module.data]\nsnapshot_root = \"{}\"\nlock_wait = \"20s\"\n",
        elsewhere.display()
    ));
    let module = Module { root: elsewhere, ..module };
    let daemon = Daemon::of_pair(&module);
    let first = push(&module, &daemon, &source);
    tree::write(&source.join("documents/report"), "another\n");
    push(&module, &daemon, &source);
    assert_as_taken(&module, &first, "after another push");
    let expire = ["expire", "data", &first.0, "--below-min-keep", "--now"];
    module.run(&expire).exits(&[0]);
    assert_eq!(module.snapshots().len(), 1);
    assert_eq!((module.left_over("staging"), module.retired().len()), (0, 0));
}

/// Exchanges the module's directory for one that is a subvolume, or is none, with the same content:
/// as the remedy of `check` says.
fn exchange(module: &Module, for_subvolume: bool) {
    let (new, old) = (module.root.join("latest.new"), module.root.join("latest.old"));
    match for_subvolume {
        true => make_subvolume(&new),
        false => fs::create_dir(&new).expect("a directory"),
    }
    let content = module.latest.join(".");
    Run::of(tool("cp").args(["-a", "--reflink=always"]).arg(content).arg(&new)).exits(&[0]);
    fs::rename(&module.latest, &old).expect("moved away");
    fs::rename(&new, &module.latest).expect("moved there");
    remove_snapshot(&old);
}

#[test]
fn a_history_stays_usable_where_no_snapshot_can_be_made_in_its_way() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_module(&module);
    let mut taken = vec![push(&module, &daemon, &source)];
    let conversions = [
        (false, "the module DIR is no subvolume", "hardlink"),
        (true, "hard links cannot lead out of the module DIR, a btrfs subvolume", "btrfs"),
    ];
    for (number, (for_subvolume, problem, method)) in conversions.into_iter().enumerate() {
        let problem = problem.replace("DIR", &module.latest.to_string_lossy());
        exchange(&module, for_subvolume);
        let file = module.latest.join("documents/report");
        let file = file.to_str().expect("UTF-8");
        for words in [
            &["list", "data"][..],
            &["status", "data"],
            &["versions", file],
            &["verify", "data"],
            &["pin", "data", &taken[0].0],
            &["rotate", "data"],
            &["restore", "data", &taken[0].0, "documents", "--to", "/nowhere/at/all", "--dry-run"],
        ] {
            let run = module.run(words);
            assert!(!run.stderr().contains(&problem), "{run}");
        }
        module.run(&["list", "data"]).exits(&[0]).says(&taken[number].0);
        module.run(&["check", "data"]).exits(&[2]).says(&problem);
        let plan = module.run(&["plan", "data"]).exits(&[4]);
        assert!(plan.stderr().contains(&problem), "{plan}");
        for run in [module.run_hook(), module.run(&["snapshot", "data", "--due"])] {
            assert!(!run.succeeded() && run.stderr().contains(&problem), "{run}");
        }
        assert_eq!(module.snapshots().len(), number + 1);

        module.write_policy(&format!("[module.data]\nmethod = \"{method}\"\n"));
        tree::write(&module.latest.join("later"), method);
        let name = module.expect_snapshot();
        assert_eq!(is_subvolume(&module.snapshot(&name)), for_subvolume);
        module.assert_equals_module(&name);
        taken.iter().for_each(|one| assert_as_taken(&module, one, method));
        taken.push((name.clone(), fingerprint::of(&module.snapshot(&name))));
        module.run(&["check", "data"]).exits(&[0, 1]);
    }
    // Snapshots of both kinds go.
    module.run(&["unpin", "data", &taken[0].0]).exits(&[0]);
    let names = taken.iter().map(|(name, _)| name.as_str());
    let expire: Vec<&str> = ["expire", "data"]
        .into_iter()
        .chain(names.take(2))
        .chain(["--below-min-keep", "--now"])
        .collect();
    module.run(&expire).exits(&[0]);
    assert_eq!(module.snapshots(), [taken[2].0.as_str()]);
    assert_eq!((module.left_over("staging"), module.retired().len()), (0, 0));
}

#[test]
fn a_path_in_a_retired_subvolume_has_versions() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_module(&module);
    let (first, _) = push(&module, &daemon, &source);
    tree::write(&source.join("documents/report"), "another\n");
    push(&module, &daemon, &source);
    module.run(&["expire", "data", &first, "--below-min-keep"]).exits(&[0]);
    let retired = module.retired_snapshot(&first).join("documents/report");
    assert!(retired.exists());
    let found = module.json(&["versions", retired.to_str().expect("UTF-8"), "--json"]);
    let by_name = module.json(&["versions", "data", "documents/report", "--json"]);
    assert_eq!(found["paths"], by_name["paths"], "{found:#}");
}

#[test]
fn a_subvolume_that_is_being_sent_goes_with_a_later_run() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_module(&module);
    // More than what fits into a pipe, so that the command which sends it waits.
    fs::write(source.join("large"), vec![7; 4 << 20]).expect("a file");
    let (first, _) = push(&module, &daemon, &source);
    tree::write(&source.join("documents/report"), "another\n");
    push(&module, &daemon, &source);
    let mut send = tool("btrfs");
    send.args(["send", "-q"]).arg(module.snapshot(&first)).stdout(std::process::Stdio::piped());
    let mut sending = send.spawn().expect("it is sent");
    std::thread::sleep(Duration::from_millis(500));
    let run = module.run(&["expire", "data", &first, "--below-min-keep", "--now"]);
    assert!(run.stderr().contains("btrfs send"), "{run}");
    assert_eq!(module.left_over("unremovable"), 0);
    drop(sending.stdout.take());
    let _ = sending.wait();
    tree::write(&module.latest.join("later"), "");
    module.expect_snapshot();
    assert_eq!((module.snapshots().len(), module.left_over("staging")), (2, 0));
}

/// Lets the newest snapshot say that it was made `later`, as if the clock was set back since.
fn set_clock_back(module: &Module, name: &str, later: Duration) {
    let path = module.private("records").join(format!("{name}.toml"));
    let text = fs::read_to_string(&path).expect("a record");
    let mut record: toml::Table = text.parse().expect("TOML");
    let frozen: u128 = record["frozen_ns"].as_str().expect("text").parse().expect("a number");
    record.insert("frozen_ns".into(), (frozen + later.as_nanos()).to_string().into());
    fs::write(&path, record.to_string()).expect("written");
}

#[test]
fn a_change_before_which_the_clock_was_set_back_is_found() {
    let Some((_file_system, module, _)) = on_btrfs() else { return };
    tree::small(&module.latest);
    let later = Duration::from_secs(3);
    let mut name = module.expect_snapshot();
    let changes: [&dyn Fn(&Path); 3] = [
        &|file| fs::write(file, "in place").expect("written"),
        &|file| tree::set_mode(file, 0o600),
        &|file| fs::remove_file(file).expect("removed"),
    ];
    for change in changes {
        // The first full comparison is over, so this run would trust the clock.
        let began = Instant::now();
        set_clock_back(&module, &name, later);
        change(&module.latest.join("documents/report"));
        std::thread::sleep(later.saturating_sub(began.elapsed()));
        name = module.expect_snapshot();
        module.assert_equals_module(&name);
        let record = module.record(&name);
        let count = |key: &str| record.get(key).and_then(toml::Value::as_integer).unwrap_or(0);
        assert!(count("added") + count("changed") + count("removed") >= 1, "{record:#?}");
    }
}

#[test]
fn what_a_rollback_has_changed_is_counted() {
    let Some((_file_system, module, source)) = on_btrfs() else { return };
    let daemon = Daemon::of_module(&module);
    let (first, _) = push(&module, &daemon, &source);
    tree::write(&source.join("documents/report"), "another\n");
    push(&module, &daemon, &source);
    fs::rename(&module.latest, module.root.join("before")).expect("moved away");
    let mut snapshot = tool("btrfs");
    snapshot.args(["-q", "subvolume", "snapshot"]).arg(module.snapshot(&first));
    Run::of(snapshot.arg(&module.latest)).exits(&[0]);
    tree::write(&module.latest.join("new"), "");
    let record = module.record(&module.expect_snapshot());
    // The two directories, and the report.
    assert_eq!(record["changed"].as_integer(), Some(3), "{record:#?}");
    assert_eq!(record["added"].as_integer(), Some(1), "{record:#?}");
}
