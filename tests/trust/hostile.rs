//! A client, or a user with an account on the server, exchanges what is in the tree while the
//! program works on it as root. Nothing outside may be linked, changed, read or removed, and no
//! pipe may be opened.
//!
//! Each run is tried again and again under the [`swapper`](support::swapper), for a few seconds in
//! memory, with `RSYNCD_SNAPSHOT_SWEEP=full` for a minute each on a larger tree there, on ext4, on
//! XFS and on btrfs. That the rig bites is shown by programs that go by path: `cp -al`, and a walk
//! as most libraries have it.

use crate::support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use support::file_system::{FileSystem, Kind};
use support::module::{Module, NAME};
use support::outside::Outside;
use support::run::{Run, tool};
use support::simulated::Simulated;
use support::subvolumes::{are_subvolumes, remove_snapshot};
use support::swapper::{Ground, Swapper};
use support::{BINARY, by_sweep, is_full_sweep, tree};

/// One snapshot stays, and the one before can be recycled.
const EXPIRING: &str = "[defaults]\nkeep = { hourly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\ntime_zone = \"UTC\"\n\
                        anomaly_share = \"100%\"\nlock_wait = \"20s\"\n";

/// A process that opens a pipe waits for ever.
const OR_HANGS: [&str; 4] = ["timeout", "--signal=KILL", "60", "env"];

/// They need both processors.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Where each kind of run is tried.
fn kinds() -> &'static [Kind] {
    if is_full_sweep() {
        &[Kind::Tmpfs, Kind::Ext4, Kind::Xfs, Kind::Btrfs]
    } else if are_subvolumes() {
        &[Kind::Btrfs]
    } else {
        &[Kind::Tmpfs]
    }
}

/// How long each kind of run is tried.
fn duration() -> Duration {
    Duration::from_secs(by_sweep(2, 4, 60))
}

/// A module, and the process that does that to it.
fn storm(kind: Kind) -> (Module, Storm) {
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let file_system = FileSystem::new(kind);
    let module = file_system.as_ref().map_or_else(Module::new, Module::on);
    let outside = Outside::new(&module.root.with_file_name("outside"));
    // With more than some 2,000 entries several workers share a walk.
    let groups = if is_full_sweep() { 10 } else { 3 };
    (module, Storm { outside, kind, groups, _file_system: file_system, _guard: guard })
}

struct Storm {
    outside: Outside,
    kind: Kind,
    groups: usize,
    _file_system: Option<FileSystem>,
    _guard: MutexGuard<'static, ()>,
}

impl Storm {
    /// Fills the module, which is still.
    fn fill(&mut self, module: &Module) -> Ground {
        let ground = Ground::new(&module.latest, &self.outside, self.groups, "live");
        ground.pipes.iter().for_each(|pipe| self.outside.forbid_opening(pipe));
        ground
    }

    /// Runs something over and over for as long as it takes, and says how often it did what it
    /// should.
    fn rage(&mut self, what: &str, ground: Ground, mut run: impl FnMut(&Outside, u64) -> bool) {
        let swapper = Swapper::start(ground);
        let began = Instant::now();
        let (mut runs, mut good) = (0, 0);
        // On a busy machine a few seconds are few runs.
        while began.elapsed() < duration() || runs < 16 {
            runs += 1;
            good += u64::from(run(&self.outside, runs));
            let violations = self.outside.violations();
            assert!(violations.is_empty(), "{what}, run {runs}: {violations:#?}");
        }
        let (swaps, seconds) = (swapper.stop(), began.elapsed().as_secs());
        let place = self.kind.name();
        println!(
            "{what} on {place}: nothing outside touched in {runs} runs in {seconds} s against {swaps} swaps; {good} without an error"
        );
        assert!(swaps > runs * 10, "{swaps} swaps for {runs} runs");
        assert!(good * 2 > runs, "{good} of {runs} runs");
    }

    /// Once it is over, all is well.
    fn assert_is_over(self, module: &Module) {
        module.write_policy("[defaults]\nlock_wait = \"20s\"\n");
        let made = module.json(&["snapshot", NAME, "--json"]);
        assert!(made["outcome"] == "published" || made["outcome"] == "unchanged", "{made}");
        module.assert_equals_module(made["name"].as_str().expect("a name"));
        assert_eq!(module.left_over("staging"), 0);
        self.outside.assert_untouched();
    }
}

/// Whether a run has ended as it should; the others must have failed with a word.
#[track_caller]
fn is_good(run: &Run) -> bool {
    assert_ne!(run.signal(), Some(9), "it hangs: {run}");
    assert!(matches!(run.code(), Some(0 | 1 | 4)), "{run}");
    assert!(run.code() != Some(1) || run.stderr().contains("cannot"), "{run}");
    if run.code() == Some(1) {
        println!("{}", run.stderr().trim());
    }
    run.code() != Some(1)
}

#[test]
fn nothing_outside_is_touched_while_snapshots_are_made_afresh() {
    slow!();
    for &kind in kinds() {
        let (module, mut storm) = storm(kind);
        let ground = storm.fill(&module);
        storm.rage("create", ground, |_, _| {
            for name in module.snapshots() {
                remove_snapshot(&module.snapshot(&name));
            }
            let _ = fs::remove_dir_all(module.private("."));
            is_good(&Run::of(&mut module.hook_through(&OR_HANGS))) && module.snapshots().len() == 1
        });
        storm.assert_is_over(&module);
    }
}

#[test]
fn nothing_outside_is_touched_while_the_module_is_compared() {
    slow!();
    for &kind in kinds() {
        let (module, mut storm) = storm(kind);
        let ground = storm.fill(&module);
        let first = module.expect_snapshot();
        // So that whatever has changed is found and left for later.
        module.write_policy("[defaults]\nmin_interval = \"1d\"\nfull_comparison = \"0s\"\n");
        storm
            .rage("compare", ground, |_, _| is_good(&Run::of(&mut module.hook_through(&OR_HANGS))));
        assert_eq!(module.snapshots(), [first]);
        storm.assert_is_over(&module);
    }
}

#[test]
fn nothing_outside_is_touched_while_snapshots_are_recycled() {
    only_hard_links!("recycling");
    if !support::may_recycle() {
        return;
    }
    for &kind in kinds() {
        let (module, mut storm) = storm(kind);
        let ground = storm.fill(&module);
        let module = Simulated::new(module, EXPIRING);
        for text in ["first", "second"] {
            tree::write(&module.latest.join("changing"), text);
            module.publish();
        }
        let mut recycled = 0;
        storm.rage("recycle", ground, |_, _| {
            module.pass(1);
            let is_good = is_good(&Run::of(&mut module.hook_through(&OR_HANGS)));
            let name = module.name();
            recycled +=
                u64::from(module.snapshot(&name).exists() && module.recycled(&name).is_some());
            is_good
        });
        println!("recycle: {recycled} snapshots were made out of retired ones");
        assert!(recycled > 10, "only {recycled} were");
        storm.assert_is_over(&module);
    }
}

/// The worst case: another process still has directories open that are in a snapshot.
#[test]
fn nothing_outside_is_touched_while_snapshots_are_removed() {
    slow!();
    for &kind in kinds() {
        let (module, mut storm) = storm(kind);
        let ground = storm.fill(&module);
        module.expect_snapshot();
        module.write_policy(EXPIRING);
        let groups = storm.groups;
        storm.rage("remove", ground, |outside, number| {
            // No name ever comes again; what a run could not remove lies in staging under its own.
            let (hour, minute, second) = (number / 3600 % 24, number / 60 % 60, number % 60);
            let victim = module.snapshot(&format!("2001-02-03T{hour:02}-{minute:02}-{second:02}Z"));
            let visitors = format!("of {number}");
            let swapper = Swapper::start(Ground::new(&victim, outside, groups, &visitors));
            let run = Run::of(&mut rotation_through(&module, &OR_HANGS));
            swapper.stop();
            clear(&outside.passage(), &visitors, groups);
            assert!(!victim.exists(), "{run}");
            is_good(&run)
        });
        module.run(&["rotate", NAME, "--confirm", "--purge"]).exits(&[0, 4]);
        // What the last run could not remove lies in staging, which a rotation leaves to the next
        // snapshot.
        assert_eq!(module.left_over("expired"), 0);
        storm.assert_is_over(&module);
    }
}

/// `rotate` by hand, which removes what is retired, run through another program.
fn rotation_through(module: &Module, wrapper: &[&str]) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(BINARY);
    module.server.prepare(&mut command);
    command.args(["rotate", NAME, "--confirm", "--purge"]);
    command
}

/// Removes visitors that did not come back, for their home is gone.
fn clear(passage: &Path, visitors: &str, groups: usize) {
    for group in 0..groups {
        let _ = fs::remove_dir_all(passage.join(format!("visitor {visitors} {group}")));
    }
}

#[test]
fn nothing_outside_is_touched_while_diff_compares() {
    slow!();
    for &kind in kinds() {
        let (module, mut storm) = storm(kind);
        let ground = storm.fill(&module);
        module.expect_snapshot();
        storm.rage("diff", ground, |_, _| {
            is_good(&Run::of(&mut module.command_through(&OR_HANGS, &["diff", NAME, "newest"])))
        });
        storm.assert_is_over(&module);
    }
}

#[test]
fn nothing_outside_is_touched_while_versions_looks() {
    slow!();
    for &kind in kinds() {
        let (module, mut storm) = storm(kind);
        let ground = storm.fill(&module);
        let snapshot = module.snapshot(&module.expect_snapshot());
        // Copies, whose content is compared.
        let old = module.snapshot("2001-02-03T04-05-06Z");
        fs::create_dir(&old).expect("a snapshot");
        for name in ["d0", "linked0"] {
            Run::of(tool("cp").arg("-a").arg(snapshot.join(name)).arg(&old)).exits(&[0]);
        }
        // Names, names in one directory, and names at any depth.
        let paths =
            ["d0/f1", "d0/sub/f2", "linked0/level/level/f0", "d?/f*", "d*/**/f?", "l*d1/**/f1"];
        let words = [&["versions", NAME][..], &paths].concat();
        storm.rage("versions", ground, |_, _| {
            is_good(&Run::of(&mut module.command_through(&OR_HANGS, &words)))
        });
        fs::remove_dir_all(&old).expect("removed");
        storm.assert_is_over(&module);
    }
}

// -- That the rig bites ---------------------------------------------------------------------------

/// Runs something until it has touched what is outside and has said that it did what this is about,
/// and for a while longer.
fn count_victims(
    what: &str,
    storm: &mut Storm,
    ground: Ground,
    mut run: impl FnMut(&Outside) -> bool,
) {
    let swapper = Swapper::start(ground);
    let began = Instant::now();
    let (mut runs, mut bad, mut is_done) = (0, 0, false);
    while began.elapsed() < duration() / 2
        || ((bad == 0 || !is_done) && began.elapsed() < Duration::from_secs(60))
    {
        is_done |= run(&storm.outside);
        runs += 1;
        bad += u64::from(!storm.outside.violations().is_empty());
    }
    swapper.stop();
    println!("{what}: touched what is outside in {bad} of {runs} runs");
    assert!(bad > 0, "{what} did not fall for it in {runs} runs");
}

#[test]
fn cp_links_what_is_outside_into_its_copy() {
    slow!();
    let (module, mut storm) = storm(Kind::Tmpfs);
    let ground = storm.fill(&module);
    let copy = module.root.with_file_name("copy");
    let sentinel = storm.outside.target().join("f1");
    let mut linked = 0;
    count_victims("cp -al", &mut storm, ground, |_| {
        let mut cp = tool("cp");
        let _ = cp
            .args(["--archive", "--link"])
            .args([&module.latest, &copy])
            .stderr(Stdio::null())
            .status();
        linked += u64::from(fs::metadata(&sentinel).expect("a sentinel").nlink() > 1);
        let _ = fs::remove_dir_all(&copy);
        linked > 0
    });
    println!("cp -al: linked a file from outside into its copy in {linked} of them");
    assert!(linked > 0);
}

#[test]
fn a_walk_by_path_reads_what_is_outside() {
    let (module, mut storm) = storm(Kind::Tmpfs);
    let ground = storm.fill(&module);
    count_victims("a walk by path", &mut storm, ground, |_| {
        walk_by_path(&module.latest, &|_| ());
        true
    });
}

#[test]
fn a_walk_by_path_removes_what_is_outside() {
    let (module, mut storm) = storm(Kind::Tmpfs);
    let (victim, groups) = (module.root.join("victim"), storm.groups);
    let sentinel = storm.outside.target().join("f1");
    let still = Ground::new(&module.latest, &storm.outside, 0, "none");
    count_victims("a removal by path", &mut storm, still, |outside| {
        let swapper = Swapper::start(Ground::new(&victim, outside, groups, "of none"));
        walk_by_path(&victim, &|path| drop(fs::remove_file(path)));
        swapper.stop();
        let _ = fs::remove_dir_all(&victim);
        clear(&outside.passage(), "of none", groups);
        !sentinel.exists()
    });
    assert!(!sentinel.exists(), "nothing was removed");
}

/// As most libraries do it.
fn walk_by_path(directory: &Path, file: &dyn Fn(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk_by_path(&entry.path(), file),
            _ => file(&entry.path()),
        }
    }
}
