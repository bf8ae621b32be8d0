//! Whatever file-system call of a command fails, and with whatever error: its exit status and its
//! messages tell it, old snapshots are as they were, nothing expires without a newer snapshot, and
//! the next run finishes the work.
//!
//! A run that says nothing and ends with 0 has to have done all that an undisturbed one does.
//! `RSYNCD_SNAPSHOT_SWEEP=full` lets each call fail with each error that it can have; otherwise
//! some do.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Mutex;

use support::aftermath::{OLD, ROTATING, assert_nothing_is_half};
use support::module::Module;
use support::run::Run;
use support::scene::{
    DUE, EXPIRE, EXPIRE_NOW, FIRST, GATE, LATER, PAIR, PAST, PIN, READ, ROTATE, Scene, Site,
    UNDELETE, entries,
};
use support::subvolumes::{are_subvolumes, snapshot_call};
use support::sweep::{Call, calls, spread};
use support::{have, root, tree};

/// What a command leaves behind, as far as it does not differ from run to run.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    visible: Vec<String>,
    retired: Vec<String>,
    /// How much is in each room.
    rooms: BTreeMap<&'static str, usize>,
    /// What the state says, but for times.
    marks: Vec<String>,
    pins: Vec<String>,
}

impl Outcome {
    fn of(site: &Site) -> Outcome {
        let module = &site.module;
        let has_state = module.private("state.toml").exists();
        let state = if has_state { module.state() } else { toml::Table::new() };
        let pins = state.get("pins").and_then(|pins| pins.as_table());
        let room = |name| (name, entries(module, name));
        Outcome {
            visible: timeless(module.snapshots()),
            retired: timeless(module.retired()),
            rooms: ["records", "index", "staging", "transfers"].into_iter().map(room).collect(),
            marks: state.keys().cloned().collect(),
            pins: pins.map(|pins| pins.keys().cloned().collect()).unwrap_or_default(),
        }
    }
}

/// Names of snapshots, of which a new one may have that of any moment.
fn timeless(names: Vec<String>) -> Vec<String> {
    let is_old = |name: &String| OLD.contains(&name.as_str()) || name == PAST;
    names
        .into_iter()
        .map(|name| if is_old(&name) { name } else { format!("new{}", &name[20..]) })
        .collect()
}

/// How the system words an error.
fn wording(error: &str) -> &'static str {
    match error {
        "ENOSPC" => "No space left on device",
        "EIO" => "Input/output error",
        "EDQUOT" => "Disk quota exceeded",
        "EPERM" => "Operation not permitted",
        "EINTR" => "Interrupted system call",
        "EMLINK" => "Too many links",
        _ => panic!("{error}?"),
    }
}

/// Lets calls of the command of `scene` fail, so many of them in a bounded sweep.
fn sweep(scene: &Scene, bound: usize) {
    if !have(&["strace"]) {
        return;
    }
    let calls = {
        let site = scene.prepare();
        calls(&site.module, |strace| scene.command(&site, strace))
    };
    let usual = {
        let site = scene.prepare();
        Run::of(&mut scene.command(&site, &[])).exits(&[0]);
        Outcome::of(&site)
    };
    let faults: Vec<(&Call, &str)> = calls
        .iter()
        .flat_map(|call| call.errors().iter().map(move |error| (call, *error)))
        .collect();
    let ends = Mutex::new(BTreeMap::<i32, usize>::new());
    let tried = spread(&faults, bound, |number, (call, error)| {
        let what = format!("{}, {error} from {} number {}", scene.name, call.name, call.number);
        let site = scene.prepare();
        let run = call.failed(error, |strace| scene.command(&site, strace));
        let code = run.code().unwrap_or_else(|| panic!("{what}: {run}"));
        *ends.lock().expect("no panic").entry(code).or_default() += 1;
        assert_the_end_is_told(scene, &site, &run, &usual, (*error, &what));
        assert_history_is_whole(&site, &run, &what);
        scene.assert_the_next_run_finishes(&site, number, &what);
    });
    let ends = ends.into_inner().expect("no panic");
    println!(
        "{}: {tried} faults of {} at {} calls; exit statuses {ends:?}",
        scene.name,
        faults.len(),
        calls.len()
    );
}

/// Exit status and messages say what has become of the work.
fn assert_the_end_is_told(
    scene: &Scene,
    site: &Site,
    run: &Run,
    usual: &Outcome,
    (error, what): (&str, &str),
) {
    let said = run.stderr();
    let tells = |level: &str| {
        said.lines().any(|line| {
            line.contains(&format!("{level}: "))
                && line.contains("cannot ")
                && line.contains('/')
                && (line.contains(wording(error)) || line.contains("cannot use /proc"))
        })
    };
    let is_gate = scene.name == GATE.name;
    // A person sees these fail; a daemon or a timer may run the others.
    let of_persons = [PIN.name, UNDELETE.name, EXPIRE.name, EXPIRE_NOW.name];
    let is_of_person = of_persons.contains(&scene.name);
    match run.code() {
        // pre-xfer lets in whom it cannot enter, and says so.
        Some(0) if is_gate => assert!(site.is_entered() || tells("error"), "{what}: {run}"),
        Some(0) if scene.name == READ.name => {
            assert!(entries(&site.module, "leases") > 0 || tells("warning"), "{what}: {run}")
        }
        Some(0) => assert_eq!(
            &Outcome::of(site),
            usual,
            "{what}: something was not done, and exit 0: {run}"
        ),
        Some(4) if !is_gate => {
            // Of these there may be a million, so one line is for all.
            let is_summed_up = said.contains("could not be linked and were copied")
                || said.contains("could not be kept");
            assert!(
                tells("warning") || tells("error") || is_summed_up,
                "{what}: no clear warning: {run}"
            );
            if !is_of_person {
                assert_it_shows_in_check(site, &run.to_string(), what);
            }
        }
        Some(1) if !is_gate => {
            assert!(tells("error"), "{what}: no clear error: {run}");
            if !is_of_person {
                assert_it_shows_in_check(site, &run.to_string(), what);
            }
        }
        code => panic!("{what}: exit {code:?}: {run}"),
    }
}

fn assert_it_shows_in_check(site: &Site, run: &str, what: &str) {
    let check = site.module.run(&["check", "data"]);
    // A copy in place of one more link is whole, so `check` names it without a warning.
    let is_only_copied = run.contains("it has as many links as the file system allows")
        && check.stdout().contains("could not be linked and were copied");
    match check.code() {
        Some(1 | 2) => {}
        Some(0) if is_only_copied => {}
        _ => panic!("{what}: a failure has to show: {check}\nafter {run}"),
    }
}

/// What there was is there, or retired after a newer snapshot was safe; and what is new is
/// complete.
fn assert_history_is_whole(site: &Site, run: &Run, what: &str) {
    let module = &site.module;
    assert_nothing_is_half(module, &site.before, what);
    let visible = module.snapshots();
    let has_new = site.new_snapshots().iter().any(|name| !name.ends_with("-partial"));
    let gone: Vec<&String> =
        site.visible_before.iter().filter(|name| !visible.contains(name)).collect();
    let newest = site.visible_before.last();
    assert!(
        has_new || gone.is_empty() || newest.is_some_and(|newest| visible.contains(newest)),
        "{what}: {gone:?} expired: {run}"
    );
}

#[test]
fn whatever_fails_in_a_first_run_is_told_and_costs_nothing() {
    slow!();
    sweep(&FIRST, 40);
}

#[test]
fn whatever_fails_in_a_later_run_is_told_and_costs_nothing() {
    slow!();
    sweep(&LATER, 70);
}

#[test]
fn whatever_fails_in_pre_xfer_turns_no_push_away() {
    slow!();
    sweep(&GATE, 40);
}

#[test]
fn whatever_fails_before_a_restore_is_told_and_turns_no_client_away() {
    slow!();
    sweep(&READ, 30);
}

#[test]
fn whatever_fails_after_a_push_it_gets_its_snapshot() {
    slow!();
    sweep(&PAIR, 50);
}

#[test]
fn whatever_fails_in_a_rotation_is_told_and_costs_nothing() {
    slow!();
    sweep(&ROTATE, 40);
}

#[test]
fn whatever_fails_in_a_run_that_is_due_it_stays_due() {
    slow!();
    sweep(&DUE, 30);
}

#[test]
fn whatever_fails_in_an_undelete_the_snapshot_is_retired_or_back() {
    slow!();
    sweep(&UNDELETE, 30);
}

#[test]
fn whatever_fails_in_an_expiry_costs_only_what_was_named() {
    slow!();
    sweep(&EXPIRE, 30);
    sweep(&EXPIRE_NOW, 50);
}

#[test]
fn whatever_fails_as_a_snapshot_is_pinned_is_told() {
    slow!();
    sweep(&PIN, 30);
}

// -- Calls that no sweep lets fail in the right moment --------------------------------------------

/// Runs a command of `module` in which what `faults` say goes wrong, those options of strace.
fn disturbed(
    module: &Module,
    faults: &[&str],
    command: impl Fn(&Module, &[&str]) -> Command,
) -> Run {
    let strace = [&["strace", "-f", "-qqq", "-o", "/dev/null"], faults].concat();
    Run::of(&mut command(module, &strace))
}

/// Security modules deny, and so do servers of network file systems.
#[test]
fn what_even_root_is_denied_is_told_and_done_by_a_later_run() {
    if !root() || !have(&["strace"]) {
        return;
    }
    let purge = |module: &Module, strace: &[&str]| {
        module.command_through(strace, &["rotate", "data", "--purge"])
    };
    let cases = [
        (&["-e", "inject=renameat2:error=EACCES:when=1"][..], "cannot retire", true),
        (&["-P", "sub", "-e", "inject=openat2:error=EACCES"], "cannot open the directory", false),
    ];
    // A subvolume is removed without a look at its directories.
    let count = if are_subvolumes() { 1 } else { 2 };
    for (faults, told, stays) in cases.into_iter().take(count) {
        let (module, newest) = Module::with_snapshot();
        module.make_old_snapshot(OLD[0]);
        module.write_policy(ROTATING);
        let run =
            disturbed(&module, faults, purge).exits(&[4]).says(told).says("Permission denied");
        assert_eq!(module.snapshots().contains(&OLD[0].to_string()), stays, "{run}");
        assert_eq!(
            (module.left_over("expired"), module.left_over("staging")),
            (0, usize::from(!stays)),
            "{run}"
        );
        module.run(&["check", "data"]).exits(&[1, 2]);

        module.run_hook().exits(&[0]);
        module.run(&["rotate", "data", "--purge"]).exits(&[0]);
        assert_eq!((module.snapshots(), module.left_over("staging")), (vec![newest], 0), "{told}");
    }
}

#[test]
fn hashes_that_cannot_be_kept_cost_no_snapshot_and_are_told() {
    only_hard_links!("content hashes in the log of inodes");
    if !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    module.write_policy("[defaults]\ncontent_hashes = true\n");
    let run = disturbed(&module, &["-e", "inject=fdatasync:error=ENOSPC"], |module, strace| {
        module.hook_through(strace)
    });
    let name = module.snapshots().remove(0);
    let run =
        run.exits(&[4]).says(&format!("not all new files of {name} are hashed: cannot write"));
    assert!(run.stderr().contains(wording("ENOSPC")), "{run}");
    module.assert_equals_module(&name);
    module.run(&["check", "data"]).exits(&[1, 2]);
    tree::write(&module.latest.join("new"), "x");
    module.expect_snapshot();
}

#[test]
fn a_snapshot_that_cannot_be_removed_waits_in_staging() {
    if !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    module.write_policy("[defaults]\nlog_level = \"debug\"\n");
    let (faults, told) = match are_subvolumes() {
        true => {
            let other = Module::new();
            tree::small(&other.latest);
            let later = snapshot_call(&other) + 1;
            (["renameat2:error=EIO".into(), format!("ioctl:error=EIO:when={later}+")], "")
        }
        false => (["linkat:error=EIO:when=3", "unlinkat:error=EIO"].map(String::from), "link"),
    };
    let faults = faults.map(|fault| format!("inject={fault}"));
    let faults = ["-e", &faults[0], "-e", &faults[1]];
    let run = disturbed(&module, &faults, |module, strace| module.hook_through(strace));
    let run = run.exits(&[1]).says(&format!("cannot {told}"));
    let run = run.says("and the next run removes it: cannot remove");
    assert_eq!((module.snapshots().len(), module.left_over("staging")), (0, 1), "{run}");
    module.run_hook().exits(&[0]).says("cleaned up");
    assert_eq!((module.snapshots().len(), module.left_over("staging")), (1, 0));
}

/// So deep down that the level which the work would be given away from has to be opened again, and
/// is not.
#[test]
fn a_worker_that_cannot_give_work_away_does_it_itself() {
    if !have(&["strace"]) {
        return;
    }
    let (module, newest) = Module::with_snapshot();
    module.make_old_snapshot(OLD[0]);
    let old = module.snapshot(OLD[0]);
    // What is first has no end; the workers that wait for work soon do the others.
    fs::create_dir_all(old.join("0/".repeat(100))).expect("a deep directory");
    (0..500).for_each(|number| {
        fs::create_dir(old.join(format!("wide {number}"))).expect("a directory")
    });
    module.write_policy(ROTATING);
    let faults = ["-P", OLD[0], "-e", "inject=openat2:error=EIO:when=2..3"];
    let run = disturbed(&module, &faults, |module, strace| {
        module.command_through(strace, &["rotate", "data", "--purge"])
    });
    // Unless no worker waited for work: then it is the removal itself that cannot open it.
    let is_left = module.left_over("staging") > 0;
    let run = run.exits(if is_left { &[4] } else { &[0] });
    assert_eq!(
        run.stderr().contains("a retired snapshot could not be removed: cannot open"),
        is_left,
        "{run}"
    );
    module.run_hook().exits(&[0]);
    assert_eq!((module.snapshots(), module.left_over("staging")), (vec![newest], 0), "{run}");
}
