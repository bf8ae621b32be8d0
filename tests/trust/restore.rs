//! A restore that is killed, or of which something fails, at any system call: no snapshot changes,
//! no half file gets a name, and the same restore finishes the work. And a restore into a tree that
//! its owner is changing meanwhile: nothing outside is touched.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::exact;
use support::fingerprint::{self, Fingerprint};
use support::module::{Module, NAME, ledger, names_in};
use support::outside::Outside;
use support::run::Run;
use support::subvolumes::{make_module_directory, remove_snapshot};
use support::swapper::{Ground, Swapper};
use support::sweep::{Call, calls, spread};
use support::time::next_second;
use support::{by_sweep, have, root, tree};

/// Where a restore goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Directory,
    InPlace,
}

/// A module with a snapshot, and a destination that has other files.
struct Site {
    module: Module,
    form: Form,
    snapshot: String,
    /// The snapshot, with its inodes.
    before: Fingerprint,
    /// The contents of the destination before the restore.
    present: BTreeMap<PathBuf, Vec<u8>>,
}

impl Site {
    fn new(form: Form) -> Site {
        let module = Module::new();
        tree::one_of_each(&module.latest);
        let snapshot = module.expect_snapshot();
        let before = fingerprint::of(&module.snapshot(&snapshot));
        let to = match form {
            Form::InPlace => module.latest.clone(),
            Form::Directory => module.directory.join("restored"),
        };
        next_second();
        fs::create_dir_all(&to).expect("a directory");
        let _ = fs::remove_dir_all(to.join("documents"));
        for name in ["read me", "linked"] {
            tree::write(&to.join(name), "spoiled\n");
        }
        let _ = fs::remove_file(to.join("fifo"));
        let present = fingerprint::contents(&to);
        Site { module, form, snapshot, before, present }
    }

    fn to(&self) -> PathBuf {
        match self.form {
            Form::InPlace => self.module.latest.clone(),
            Form::Directory => self.module.directory.join("restored"),
        }
    }

    fn original(&self) -> PathBuf {
        self.module.snapshot(&self.snapshot)
    }

    fn restore(&self, wrapper: &[&str]) -> Command {
        let arguments = ["restore", NAME, &self.snapshot, ".", "--overwrite"];
        let mut command = self.module.command_through(wrapper, &arguments);
        match self.form {
            Form::InPlace => command.arg("--in-place"),
            Form::Directory => command.arg("--to").arg(self.to()),
        };
        command
    }

    /// Whatever has happened: the snapshot is what it was, and each file at the destination is the
    /// old one or the snapshot's.
    fn assert_nothing_is_half(&self, what: &str) {
        let now = fingerprint::of(&self.original());
        fingerprint::assert_equal(&self.before, &now, &format!("{what}: the snapshot"));
        let wanted = fingerprint::contents(&self.original());
        for (path, content) in fingerprint::contents(&self.to()) {
            if is_in_staging(&path) {
                continue;
            }
            let is_old = self.present.get(&path) == Some(&content);
            assert!(is_old || wanted.get(&path) == Some(&content), "{what}: {}", path.display());
        }
    }

    fn assert_is_exact(&self, what: &str) {
        let (original, copy) = (exact::of(&self.original()), exact::of(&self.to()));
        fingerprint::assert_equal(&original, &copy, &format!("{what}: the copy"));
    }

    fn assert_the_next_restore_finishes(&self, what: &str) {
        let run = Run::of(&mut self.restore(&[]));
        // It warns of the one that it finds dead.
        assert!(matches!(run.code(), Some(0 | 4)), "{what}: {run}");
        self.assert_nothing_is_half(what);
        self.assert_is_exact(what);
        let module = &self.module;
        assert!(names_in(&self.to()).iter().all(|name| !is_in_staging(Path::new(name))), "{what}");
        assert_eq!(module.left_over("restoring"), 0, "{what}");
        assert_eq!(ledger(module), [""; 0], "{what}");
        assert!(!module.is_marked("torn"), "{what}: {:?}", module.state());
        let run = module.run(&["snapshot", NAME, "--due"]);
        assert_eq!(run.code(), Some(0), "{what}: {run}");
        for command in ["verify", "check"] {
            let run = module.run(&[command, NAME]);
            assert_eq!(run.code(), Some(0), "{what}: {run}");
        }
    }
}

fn is_in_staging(path: &Path) -> bool {
    path.to_string_lossy().starts_with(".rsyncd-snapshot-restore-")
}

fn killed_anywhere(form: Form, bound: usize) {
    if !root() || !have(&["strace"]) {
        return;
    }
    let calls = {
        let site = Site::new(form);
        calls(&site.module, |strace| site.restore(strace))
    };
    let killed = Mutex::new(0);
    let tried = spread(&calls, bound, |_, call| {
        let what = format!("{form:?}, killed at {} number {}", call.name, call.number);
        let site = Site::new(form);
        let run = call.killed(|strace| site.restore(strace));
        if run.signal() == Some(9) {
            *killed.lock().expect("no panic") += 1;
        } else {
            assert_eq!(run.code(), Some(0), "{what}: {run}");
        }
        site.assert_nothing_is_half(&what);
        site.assert_the_next_restore_finishes(&what);
    });
    let killed = killed.into_inner().expect("no panic");
    println!("{form:?}: killed {killed} times in {tried} runs at {} calls", calls.len());
    assert!(killed * 10 >= tried * 9, "only {killed} of {tried} runs were killed");
}

#[test]
fn a_restore_killed_at_any_call_is_finished_by_the_next() {
    killed_anywhere(Form::Directory, 40);
}

#[test]
fn a_restore_in_place_killed_at_any_call_is_finished_by_the_next() {
    killed_anywhere(Form::InPlace, 50);
}

fn failing_anywhere(form: Form, bound: usize) {
    failing_at(form, bound, |_| true);
}

/// Restores fail at the calls that `is_meant` accepts.
fn failing_at(form: Form, bound: usize, is_meant: impl Fn(&Call) -> bool) {
    if !root() || !have(&["strace"]) {
        return;
    }
    let mut calls = {
        let site = Site::new(form);
        calls(&site.module, |strace| site.restore(strace))
    };
    calls.retain(is_meant);
    assert!(!calls.is_empty(), "no such call");
    let faults: Vec<(&Call, &str)> = calls
        .iter()
        .flat_map(|call| call.errors().iter().map(move |error| (call, *error)))
        .collect();
    let ends = Mutex::new(BTreeMap::<i32, usize>::new());
    let tried = spread(&faults, bound, |_, (call, error)| {
        let what = format!("{form:?}, {error} from {} number {}", call.name, call.number);
        let site = Site::new(form);
        let run = call.failed(error, |strace| site.restore(strace));
        let code = run.code().unwrap_or_else(|| panic!("{what}: {run}"));
        *ends.lock().expect("no panic").entry(code).or_default() += 1;
        site.assert_nothing_is_half(&what);
        let said = run.stderr();
        match code {
            0 => site.assert_is_exact(&what),
            // The restore is done, and something else is not.
            4 => {
                assert!(said.contains("warning: "), "{what}: {run}");
                site.assert_is_exact(&what);
            }
            1 | 2 => assert!(said.contains("error: ") && said.contains('/'), "{what}: {run}"),
            _ => panic!("{what}: {run}"),
        }
        site.assert_the_next_restore_finishes(&what);
    });
    let ends = ends.into_inner().expect("no panic");
    println!("{form:?}: {tried} faults of {}; exit statuses {ends:?}", faults.len());
}

#[test]
fn whatever_fails_in_a_restore_is_told_and_the_next_finishes_it() {
    failing_anywhere(Form::Directory, 60);
}

#[test]
fn whatever_fails_in_a_restore_in_place_is_told_and_the_next_finishes_it() {
    failing_anywhere(Form::InPlace, 60);
}

/// The entry is written to this machine's memory, in a directory that is made for it.
#[test]
fn a_restore_in_place_is_entered_elsewhere_if_the_disk_of_the_root_is_full() {
    let namespace = fs::metadata("/proc/self/ns/pid").expect("/proc").ino();
    let entry = format!("-{namespace}-");
    failing_at(Form::InPlace, 100, |call| call.creates() && call.names(&entry));
}

/// A process that opens a pipe waits for ever.
const OR_HANGS: [&str; 4] = ["timeout", "--signal=KILL", "60", "env"];

/// The module has each name of the snapshot, and its owner exchanges what is there as fast as the
/// kernel can.
#[test]
fn nothing_outside_is_touched_while_a_tree_is_restored() {
    slow!();
    for form in [Form::InPlace, Form::Directory] {
        let module = Module::new();
        let mut outside = Outside::new(&module.directory.join("outside"));
        // What is linked into the snapshot may be read.
        let elsewhere = Outside::new(&module.directory.join("elsewhere"));
        let to = match form {
            Form::InPlace => module.latest.clone(),
            Form::Directory => module.directory.join("restored"),
        };
        // The snapshot is of the tree at rest.
        Ground::new(&module.latest, &elsewhere, 3, "at rest");
        let snapshot = module.expect_snapshot();
        next_second();
        remove_snapshot(&module.latest);
        make_module_directory(&module.latest);
        let ground = Ground::new(&to, &outside, 3, "live");
        ground.pipes.iter().for_each(|pipe| outside.forbid_opening(pipe));
        // Processes that other tests have just started may have had a sentinel open.
        sleep(Duration::from_millis(300));
        outside.violations();
        let swapper = Swapper::start(ground);
        let (began, mut runs) = (Instant::now(), 0);
        let seconds = by_sweep(1, 4, 60);
        while began.elapsed() < Duration::from_secs(seconds) {
            let arguments = ["restore", NAME, &snapshot, ".", "--overwrite"];
            let mut command = module.command_through(&OR_HANGS, &arguments);
            match form {
                Form::InPlace => command.arg("--in-place"),
                Form::Directory => command.arg("--to").arg(&to),
            };
            let run = Run::of(&mut command);
            assert!(matches!(run.code(), Some(0 | 1 | 4)), "it hangs: {run}");
            let mut violations = outside.violations();
            // A pipe that the restore has replaced is gone, and was not opened.
            violations.retain(|event| !event.ends_with("ReadFlags(IGNORED)"));
            assert!(violations.is_empty(), "{form:?}, run {runs}: {violations:#?}");
            runs += 1;
        }
        let swaps = swapper.stop();
        println!("{form:?}: nothing outside touched in {runs} runs against {swaps} swaps");
        assert!(swaps > runs * 10, "{swaps} swaps for {runs} runs");
        outside.assert_untouched();
    }
}
