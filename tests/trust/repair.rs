//! A repair that is killed, or of which something fails, at any system call: the module stays as
//! its client made it, no snapshot loses anything, and the next repair finishes the work.

use crate::support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::Duration;

use support::fingerprint::{self, Fingerprint, contents, without_inodes};
use support::module::{Module, NAME};
use support::run::Run;
use support::sweep::{Call, calls, spread};
use support::{have, root, tree};

const COLOURED: &str = "documents/report";

/// What is altered, of every type.
const ALTERED: [&str; 9] = [
    COLOURED,
    "attributes/file",
    "linked",
    "set-uid",
    "somebody's/inside",
    "fifo",
    "socket",
    "null",
    "disk",
];

/// A module some of whose files were altered in place after its snapshot.
struct Site {
    module: Module,
    snapshot: String,
    /// The snapshot before that.
    good: Fingerprint,
    /// The module as its client has made it.
    live: Fingerprint,
}

impl Site {
    fn new() -> Site {
        let module = Module::new();
        tree::one_of_each(&module.latest);
        tree::set_attribute(&module.latest.join(COLOURED), "user.colour", b"red");
        let snapshot = module.expect_snapshot();
        let good = fingerprint::of(&module.snapshot(&snapshot));
        sleep(Duration::from_millis(50));
        tree::set_attribute(&module.latest.join(COLOURED), "user.colour", b"blue");
        for name in ALTERED {
            tree::set_mode(&module.latest.join(name), 0o612);
        }
        let live = fingerprint::of(&module.latest);
        Site { module, snapshot, good, live }
    }

    fn repair(&self, wrapper: &[&str]) -> std::process::Command {
        self.module.command_through(wrapper, &["verify", "--repair-attributes", NAME])
    }

    fn past(&self) -> Fingerprint {
        fingerprint::of(&self.module.snapshot(&self.snapshot))
    }

    /// Whatever has happened: no file is missing or another one.
    fn assert_nothing_is_lost(&self, what: &str) {
        let what_of_it = if what.contains("utimensat") { without_times } else { without_inodes };
        let (was, is) = (what_of_it(&self.live), what_of_it(&fingerprint::of(&self.module.latest)));
        fingerprint::assert_equal(&was, &is, &format!("{what}: the module"));
        assert_eq!(colour(&self.module.latest), "blue", "{what}: the module");
        assert!(self.past().keys().eq(self.good.keys()), "{what}: the snapshot");
        let snapshot = self.module.snapshot(&self.snapshot);
        assert_eq!(contents(&snapshot), contents(&self.module.latest), "{what}: the snapshot");
    }

    fn is_repaired(&self) -> bool {
        self.past() == self.good && colour(&self.module.snapshot(&self.snapshot)) == "red"
    }

    fn assert_the_next_repair_finishes(&self, what: &str) {
        let run = Run::of(&mut self.repair(&[]));
        // If the run before could not record that it made links, change times prove nothing until
        // the next snapshot, and each verification says so.
        let lost = "since it is not known when earlier runs made links";
        let has_lost_windows = run.stdout().contains(lost);
        assert_eq!(run.code(), Some(if has_lost_windows { 4 } else { 0 }), "{what}: {run}");
        self.assert_nothing_is_lost(what);
        fingerprint::assert_equal(
            &self.good,
            &self.past(),
            &format!("{what}: the snapshot is what it was"),
        );
        assert!(self.is_repaired(), "{what}");
        assert_eq!(self.module.left_over("staging") + self.module.left_over("drafts"), 0, "{what}");
        if has_lost_windows {
            std::fs::write(self.module.latest.join("next"), "next").expect("written");
            let run = self.module.run(&["snapshot", NAME]);
            assert_eq!(run.code(), Some(0), "{what}: {run}");
        }
        let run = self.module.run(&["verify", NAME]);
        assert_eq!(run.code(), Some(0), "{what}: {run}");
    }
}

/// Whether a message says what could not be done, or the report says so with the path of a file of
/// ours.
fn says_why(run: &Run) -> bool {
    let names_file = |line: &str| line.split("cannot ").skip(1).any(|rest| rest.contains(" /"));
    run.stderr().contains("cannot ") || run.stdout().lines().any(names_file)
}

/// For the fault that a directory of the module does not get its time back.
fn without_times(fingerprint: &Fingerprint) -> Fingerprint {
    let strip = |line: &String| {
        let words = line.split(' ').collect::<Vec<_>>();
        let time = words.iter().position(|word| *word == "mtime");
        time.map_or(line.clone(), |time| [&words[..time], &words[time + 2..]].concat().join(" "))
    };
    without_inodes(fingerprint).iter().map(|(path, line)| (path.clone(), strip(line))).collect()
}

fn colour(directory: &Path) -> String {
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(directory.join(COLOURED), "user.colour", &mut value[..])
        .expect("a colour");
    String::from_utf8_lossy(&value[..length]).into_owned()
}

#[test]
fn the_next_repair_finishes_one_killed_at_any_call() {
    if !root() || !have(&["strace"]) {
        return;
    }
    let calls = {
        let site = Site::new();
        calls(&site.module, |strace| site.repair(strace))
    };
    let killed = Mutex::new(0);
    let tried = spread(&calls, 40, |_, call| {
        let what = format!("killed at {} number {}", call.name, call.number);
        let site = Site::new();
        let run = call.killed(|strace| site.repair(strace));
        if run.signal() == Some(9) {
            *killed.lock().expect("no panic") += 1;
        } else {
            assert_eq!(run.code(), Some(0), "{what}: {run}");
        }
        site.assert_nothing_is_lost(&what);
        site.assert_the_next_repair_finishes(&what);
    });
    let killed = killed.into_inner().expect("no panic");
    println!("repair: killed {killed} times in {tried} runs at {} calls", calls.len());
    assert!(killed * 10 >= tried * 9, "only {killed} of {tried} runs were killed");
}

#[test]
fn whatever_fails_in_a_repair_is_told_and_costs_nothing() {
    if !root() || !have(&["strace"]) {
        return;
    }
    let calls = {
        let site = Site::new();
        calls(&site.module, |strace| site.repair(strace))
    };
    let mut faults: Vec<(&Call, &str)> = calls
        .iter()
        .flat_map(|call| call.errors().iter().map(move |error| (call, *error)))
        .collect();
    // Where statx is forbidden it always is, and no birth time was ever recorded.
    faults.retain(|(call, error)| (call.name.as_str(), *error) != ("statx", "EPERM"));
    let ends = Mutex::new(BTreeMap::<i32, usize>::new());
    let tried = spread(&faults, 60, |_, (call, error)| {
        let what = format!("{error} from {} number {}", call.name, call.number);
        let site = Site::new();
        let run = call.failed(error, |strace| site.repair(strace));
        let code = run.code().unwrap_or_else(|| panic!("{what}: {run}"));
        *ends.lock().expect("no panic").entry(code).or_default() += 1;
        site.assert_nothing_is_lost(&what);
        match code {
            0 => assert!(site.is_repaired(), "{what}: not all is repaired, and exit 0: {run}"),
            1 | 4 => assert!(says_why(&run), "{what}: no message says why: {run}"),
            code => panic!("{what}: exit {code}: {run}"),
        }
        site.assert_the_next_repair_finishes(&what);
    });
    let ends = ends.into_inner().expect("no panic");
    println!(
        "repair: {tried} faults of {} at {} calls; exit statuses {ends:?}",
        faults.len(),
        calls.len()
    );
}
