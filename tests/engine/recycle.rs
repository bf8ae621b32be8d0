//! A snapshot that is made from a retired one cannot be told from one that is made afresh.
//!
//! Random edits of random trees, one seed for each sequence of pushes; a failure names it, and with
//! `RSYNCD_SNAPSHOT_SEED` only that sequence runs. `RSYNCD_SNAPSHOT_SWEEP=full` runs many more.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use support::edits::{Edits, is_immutable};
use support::file_system::{FileSystem, Kind};
use support::fingerprint::{self, Fingerprint};
use support::module::Module;
use support::random::Random;
use support::run::{Run, copy_program, tool};
use support::simulated::{EXPIRING, Simulated, entries, hook_at, settle};
use support::{ORDINARY_USER, have, is_root, root, tree};

/// Sequences on each file system, and pushes in each.
const SEQUENCES: u64 = 3;
const PUSHES: usize = 14;

// -- What a snapshot has to be ---------------------------------------------------------------------

/// What was there just before a push.
struct Before {
    live: Fingerprint,
    visible: BTreeMap<String, Fingerprint>,
    /// What in the newest snapshot is a copy.
    copies: BTreeSet<(u64, u64)>,
    /// Name and content of the snapshot that is retired and still there.
    retired: Option<(String, Fingerprint)>,
    /// What cannot be linked, and its content.
    immutable: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What `cp --archive --link` makes of the module, where it can.
    copy: Option<Fingerprint>,
}

impl Before {
    fn of(module: &Simulated) -> Before {
        let named = |directory: &Path, name: String| {
            let fingerprint = fingerprint::of(&directory.join(&name));
            (name, fingerprint)
        };
        let expired = module.private("expired");
        let retired = entries(&expired);
        assert!(retired.len() <= 1, "only the newest retired snapshot waits: {retired:?}");
        let live = fingerprint::of(&module.latest);
        let immutable = |path: &Vec<u8>| {
            let file = module.latest.join(OsStr::from_bytes(path));
            is_immutable(&file).then(|| (path.clone(), fs::read(file).expect("a file")))
        };
        let immutable: BTreeMap<_, _> = live.keys().filter_map(immutable).collect();
        // cp works on paths.
        let can_copy = immutable.is_empty() && live.keys().all(|path| path.len() < 3_500);
        Before {
            copies: module
                .snapshots()
                .last()
                .map(|newest| copies(module, newest))
                .unwrap_or_default(),
            copy: can_copy.then(|| copy(module)),
            visible: module.snapshots().into_iter().map(|name| named(&module.root, name)).collect(),
            retired: retired.into_iter().next().map(|name| named(&expired, name)),
            live,
            immutable,
        }
    }
}

/// What a fresh `cp --archive --link` of the module looks like.
fn copy(module: &Simulated) -> Fingerprint {
    let copy = module.root.with_file_name("copy");
    Run::of(tool("cp").args(["--archive", "--link"]).arg(&module.latest).arg(&copy)).exits(&[0]);
    let fingerprint = fingerprint::of(&copy);
    fs::remove_dir_all(&copy).expect("removed");
    fingerprint
}

/// Pairs of a live inode and the one that stands for it in the snapshot, as recorded.
fn copies(module: &Simulated, name: &str) -> BTreeSet<(u64, u64)> {
    let record = module.record(name);
    let copies = record.get("copy").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let number =
        |copy: &toml::Value, key: &str| copy[key].as_integer().expect("a number").cast_unsigned();
    copies.iter().map(|copy| (number(copy, "live_inode"), number(copy, "copy_inode"))).collect()
}

fn is_directory(description: &str) -> bool {
    description.starts_with("mode 4")
}

fn inode(description: &str) -> u64 {
    let (_, rest) = description.split_once(" inode ").expect("an inode");
    rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Everything but the inode.
fn looks(description: &str) -> String {
    description.replacen(&format!(" inode {}", inode(description)), "", 1)
}

/// What stays the same in a file that no client has written to.
fn size_and_time(description: &str) -> &str {
    description.split_once(" size ").expect("a size").1
}

/// Added, changed and removed entries, found by comparing the two trees path by path.
fn differences(
    old: &Fingerprint,
    new: &Fingerprint,
    copies: &BTreeSet<(u64, u64)>,
) -> (usize, usize, usize) {
    let is_same_file = |old: &str, new: &str| {
        inode(old) == inode(new)
            || (copies.contains(&(inode(new), inode(old)))
                && size_and_time(old) == size_and_time(new))
    };
    let (mut added, mut changed, mut removed) = (0, 0, 0);
    for path in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        match (old.get(path), new.get(path)) {
            (Some(old), Some(new)) if is_directory(old) != is_directory(new) => {
                (added, removed) = (added + 1, removed + 1);
            }
            (Some(old), Some(new)) if is_directory(old) => changed += usize::from(old != new),
            (Some(old), Some(new)) => changed += usize::from(!is_same_file(old, new)),
            (Some(_), None) => removed += 1,
            (None, _) => added += 1,
        }
    }
    (added, changed, removed)
}

/// How many files of `new` are not, as the same files, in `old`.
fn missing_entries(old: &Fingerprint, new: &Fingerprint) -> usize {
    let is_missing = |(path, new): &(&Vec<u8>, &String)| {
        let same = |old: &String| match is_directory(new) {
            true => is_directory(old),
            false => !is_directory(old) && inode(old) == inode(new),
        };
        !old.get(*path).is_some_and(same)
    };
    new.iter().filter(is_missing).count()
}

/// Fails unless the snapshot `name` is what the module was, to the last attribute; what cannot be
/// linked is there as a recorded copy, and nothing else is.
fn assert_is_what_was(module: &Simulated, name: &str, before: &Before) {
    let mut snapshot = fingerprint::of(&module.snapshot(name));
    let copies = copies(module, name);
    for (path, content) in &before.immutable {
        let (live, copy) = (&before.live[path], snapshot.get(path).cloned().unwrap_or_default());
        let what = format!("{name}: {}: {live} and {copy}", path.escape_ascii());
        assert_eq!(looks(live), looks(&copy), "{what}");
        assert!(copies.contains(&(inode(live), inode(&copy))), "{what}, not among {copies:?}");
        let copied = fs::read(module.snapshot(name).join(OsStr::from_bytes(path)));
        assert_eq!(&copied.expect("a file"), content, "{what}");
        snapshot.insert(path.clone(), live.clone());
    }
    fingerprint::assert_equal(&before.live, &snapshot, &format!("the module and {name}"));
    if let Some(copy) = &before.copy {
        fingerprint::assert_equal(copy, &snapshot, &format!("a fresh copy and {name}"));
    }
    if before.immutable.is_empty() {
        assert_eq!(copies, BTreeSet::new(), "{name}: everything can be linked");
    }
}

// -- Any edits at all ------------------------------------------------------------------------------

/// What sequences of pushes came to.
#[derive(Debug, Default)]
struct Tally {
    unchanged: u64,
    published: u64,
    /// Snapshots made while a retired one was there, and those of them that were made from it.
    could_recycle: u64,
    recycled: u64,
    /// Snapshots made after one of a settled tree, and those of them that did not take reading
    /// every directory.
    could_skip: u64,
    skipped: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.unchanged += other.unchanged;
        self.published += other.published;
        self.could_recycle += other.could_recycle;
        self.recycled += other.recycled;
        self.could_skip += other.could_skip;
        self.skipped += other.skipped;
    }
}

struct Sequence {
    module: Simulated,
    edits: Edits,
    /// Whether the newest snapshot was made when the tree had settled.
    settled: bool,
    tally: Tally,
    seed: u64,
}

impl Sequence {
    fn new(module: Module, seed: u64) -> Sequence {
        let mut random = Random::new(seed);
        let hours = 1 + random.below(3);
        let policy =
            EXPIRING.replace("hourly = 1 }", &format!("hourly = {hours} }}\nstrict = false"));
        let module = Simulated::new(module, &policy);
        let mut edits = Edits::new(&module.latest, random);
        edits.make(60);
        Sequence { module, edits, settled: false, tally: Tally::default(), seed }
    }

    fn push(&mut self) {
        let settled = self.edits.random.once_in(2);
        let before = Before::of(&self.module);
        if settled {
            settle();
        }
        self.module.pass(1);
        let name = self.module.name();
        self.edits.log.push(format!("--- {name}{}", if settled { ", settled" } else { "" }));

        let run = self.module.run().exits(&[0, 4]);

        let count = if self.edits.random.once_in(9) { 0 } else { 1 + self.edits.random.below(6) };
        let hasty = self.edits.random.once_in(2);
        if hasty {
            // Nothing that would show in the snapshots, which are yet to be looked at.
            self.edits.spare_shared = true;
            self.edits.make(count);
            self.edits.spare_shared = false;
        } else {
            let after = fingerprint::of(&self.module.latest);
            fingerprint::assert_equal(&before.live, &after, "the module before and after");
        }
        if self.check(&name, &before, &run) {
            self.settled = settled;
        }
        if !hasty {
            self.edits.make(count);
        }
    }

    /// Whether the push made a snapshot, which has to be right, as everything else.
    fn check(&mut self, name: &str, before: &Before, run: &Run) -> bool {
        let module = &self.module;
        let visible = module.snapshots();
        for (old, fingerprint) in before.visible.iter().filter(|(old, _)| visible.contains(old)) {
            let now = fingerprint::of(&module.snapshot(old));
            fingerprint::assert_equal(fingerprint, &now, &format!("{old} before and after {name}"));
        }
        let retired = entries(&module.private("expired"));
        assert_eq!(module.left_over("staging"), 0, "{run}");
        for index in entries(&module.private("index")) {
            assert!(
                visible.contains(&index) || retired.contains(&index),
                "{index} has but an index: {run}"
            );
        }

        let newest = before.visible.values().next_back();
        let differences = match newest {
            Some(newest) => differences(newest, &before.live, &before.copies),
            None => (before.live.len() - 1, 0, 0),
        };
        let published = visible.contains(&name.to_string());
        if newest.is_some() && differences == (0, 0, 0) {
            assert!(!published, "{name} was made of nothing new: {run}");
            self.tally.unchanged += 1;
            return false;
        }
        assert!(published, "{name} is missing: {differences:?}, {visible:?}, {run}");
        self.tally.published += 1;
        assert_is_what_was(module, name, before);
        let record = module.record(name);
        let count = |key: &str| {
            usize::try_from(record[key].as_integer().expect("a number")).expect("a count")
        };
        assert_eq!(count("entries"), before.live.len() - 1, "{name}: entries");
        let counts = (count("added"), count("changed"), count("removed"));
        assert_eq!(counts, differences, "{name}: added, changed, removed");
        self.check_work(name, before);
        true
    }

    /// How the snapshot was made.
    fn check_work(&mut self, name: &str, before: &Before) {
        let recycled = self.module.recycled(name);
        if let Some((retired, _)) = &before.retired {
            self.tally.could_recycle += 1;
            self.tally.recycled += u64::from(recycled.is_some());
            assert!(
                recycled.is_none() || recycled.as_ref() == Some(retired),
                "{recycled:?}, not {retired}"
            );
        } else {
            assert_eq!(recycled, None, "{name}: there was nothing to recycle");
        }
        if !self.module.record(name).contains_key("work") {
            return;
        }
        let nothing = Fingerprint::new();
        let base = match (&recycled, &before.retired) {
            (Some(_), Some((_, retired))) => retired,
            _ => &nothing,
        };
        if before.immutable.is_empty() {
            let linked = self.module.figure(name, "linked");
            let unlinked = self.module.figure(name, "unlinked");
            let (missing, surplus) =
                (missing_entries(base, &before.live), missing_entries(&before.live, base));
            assert!(
                linked <= missing as u64,
                "{name}: {linked} linked, but {missing} were missing"
            );
            assert!(
                unlinked <= surplus as u64,
                "{name}: {unlinked} unlinked, but {surplus} had to go"
            );
        }
        if self.settled && recycled.is_some() {
            let directories =
                before.live.values().filter(|description| is_directory(description)).count();
            // Without an index each is read four times: live and snapshot, to compare and to align.
            self.tally.could_skip += 1;
            self.tally.skipped +=
                u64::from(self.module.figure(name, "directories_read") < 3 * directories as u64);
        }
    }
}

impl Drop for Sequence {
    /// Says how to come here again.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.edits.log.join("\n    ");
            eprintln!("RSYNCD_SNAPSHOT_SEED={} failed after\n    {log}", self.seed);
        }
    }
}

/// A module, and the file system of its own that it is on, if any.
type Place = (Module, Option<FileSystem>);

/// Runs sequences, two at a time, each in a place of its own. None where there can be none.
fn run_sequences(place: impl Fn() -> Option<Place> + Sync) -> Option<Tally> {
    let only = std::env::var("RSYNCD_SNAPSHOT_SEED").ok().map(|seed| seed.parse().expect("a seed"));
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 0..support::by_sweep(2, SEQUENCES, SEQUENCES * 80),
    };
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Tally::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return true;
            }
            let Some((module, _file_system)) = place() else { return false };
            let mut sequence = Sequence::new(module, seed);
            for _ in 0..PUSHES {
                sequence.push();
            }
            total.lock().expect("the tally").add(&sequence.tally);
        }
    };
    let ran = std::thread::scope(|scope| {
        let other = scope.spawn(work);
        work() & other.join().expect("sequences without a failure")
    });
    ran.then(|| total.into_inner().expect("the tally"))
}

fn assert_sequences_are_right(place: impl Fn() -> Option<Place> + Sync) {
    let Some(tally) = run_sequences(place) else { return };
    println!("{tally:?}");
    assert!(tally.could_recycle > 0 && tally.could_skip > 0, "the edits prove nothing: {tally:?}");
    assert!(tally.recycled * 10 >= tally.could_recycle * 8, "too little is recycled: {tally:?}");
    assert!(tally.skipped * 3 >= tally.could_skip, "the index saves too little: {tally:?}");
}

fn place_on(kind: Kind) -> Option<Place> {
    let file_system = FileSystem::new(kind)?;
    Some((Module::on(&file_system), Some(file_system)))
}

#[test]
fn after_any_edits_a_snapshot_equals_a_fresh_copy_in_the_temporary_directory() {
    if !support::may_recycle() {
        return;
    }
    assert_sequences_are_right(|| Some((Module::new(), None)));
}

#[test]
fn after_any_edits_a_snapshot_equals_a_fresh_copy_on_ext4() {
    assert_sequences_are_right(|| place_on(Kind::Ext4));
}

#[test]
fn after_any_edits_a_snapshot_equals_a_fresh_copy_on_xfs() {
    assert_sequences_are_right(|| place_on(Kind::Xfs));
}

#[test]
fn after_any_edits_a_snapshot_equals_a_fresh_copy_on_btrfs() {
    assert_sequences_are_right(|| place_on(Kind::Btrfs));
}

#[test]
fn after_any_edits_a_snapshot_equals_a_fresh_copy_on_tmpfs() {
    assert_sequences_are_right(|| place_on(Kind::Tmpfs));
}

/// There a change hides behind one that came up to a second before, and nothing settles in time to
/// rely on the index.
#[test]
fn after_any_edits_a_snapshot_equals_a_fresh_copy_where_times_are_whole_seconds() {
    let tally = run_sequences(|| {
        let file_system = FileSystem::whole_seconds()?;
        Some((Module::on(&file_system), Some(file_system)))
    });
    assert!(tally.is_none_or(|tally| tally.recycled > 0), "nothing was recycled");
}

// -- What becomes of retired snapshots -------------------------------------------------------------

/// A module with three directories of files, and no snapshot yet.
fn small_module() -> Simulated {
    let module = Simulated::new(Module::new(), EXPIRING);
    tree::numbered(&module.latest, 3, 4);
    module
}

/// A module with a snapshot and one that is retired, and a change since.
fn ready_to_recycle() -> (Simulated, String, String) {
    let module = small_module();
    let retired = module.publish();
    tree::write(&module.latest.join("d0000/f0000"), "changed");
    let newest = module.publish();
    tree::write(&module.latest.join("d0001/f0001"), "changed");
    (module, retired, newest)
}

fn expired(module: &Simulated) -> Vec<String> {
    entries(&module.private("expired"))
}

#[test]
fn a_retired_snapshot_waits_until_another_one_is_made_from_it() {
    if !support::may_recycle() {
        return;
    }
    let (module, first, second) = ready_to_recycle();
    fs::rename(module.latest.join("d0001/f0001"), module.directory.join("aside")).expect("renamed");
    assert_eq!(expired(&module), [first.as_str()]);
    let third = module.publish();
    assert_eq!(module.recycled(&third), Some(first.clone()));
    assert_eq!((module.snapshots(), expired(&module)), (vec![third.clone()], vec![second.clone()]));

    module.expect_unchanged();
    assert_eq!(expired(&module), [second.as_str()], "a run that makes no snapshot needs none");

    for of_the_first in [format!("records/{first}.toml"), format!("index/{first}")] {
        assert!(!module.private(&of_the_first).exists(), "{of_the_first} remains");
    }
    let listed: Vec<_> = module.list().iter().map(|snapshot| snapshot["name"].clone()).collect();
    assert_eq!(listed, [third.as_str()]);
}

#[test]
fn of_several_that_are_retired_at_once_the_newest_waits() {
    if !support::may_recycle() {
        return;
    }
    let module = small_module();
    module.write_policy(&EXPIRING.replace("hourly = 1 }", "hourly = 4 }"));
    let mut names = Vec::new();
    for text in ["a", "b", "c", "d"] {
        tree::write(&module.latest.join("d0001/f0001"), text);
        names.push(module.publish());
    }
    assert_eq!((module.snapshots(), expired(&module)), (names.clone(), Vec::new()));

    module.pass(10);
    tree::write(&module.latest.join("d0001/f0001"), "e");
    let newest = module.publish();
    assert_eq!((module.snapshots(), expired(&module)), (vec![newest], names.clone()));

    module.expect_unchanged();
    assert_eq!(expired(&module), [names[3].as_str()], "the time of the others is over");
}

#[test]
fn a_failed_transfer_and_a_purge_leave_nothing_that_is_retired() {
    slow!();
    type Work = fn(&Simulated) -> Run;
    let works: [Work; 2] = [
        |module| module.run_after(12).exits(&[0]),
        // The hook's clock is not the machine's.
        |module| module.server.run(&["rotate", "data", "--confirm", "--purge"]).exits(&[0, 4]),
    ];
    for work in works {
        let (module, first, second) = ready_to_recycle();
        assert_eq!(expired(&module), [first.as_str()]);
        let run = work(&module);
        assert_eq!(expired(&module), [""; 0], "{run}");
        assert_eq!(module.snapshots(), [second], "{run}");
    }
}

#[test]
fn counts_are_against_the_newest_snapshot() {
    if !support::may_recycle() {
        return;
    }
    let module = small_module();
    module.publish();
    fs::write(module.latest.join("d0000/new"), "1").expect("a file");
    fs::remove_file(module.latest.join("d0000/f0000")).expect("removed");
    module.publish();
    fs::write(module.latest.join("d0001/new"), "2").expect("a file");
    tree::write(&module.latest.join("d0001/f0001"), "changed");

    let name = module.publish();

    let listed = &module.list()[0];
    let counts = ["added", "changed", "removed"].map(|key| listed[key].as_u64());
    // The directory's time has changed with its entries.
    assert_eq!(counts, [Some(1), Some(2), Some(0)], "{listed}");
    assert_eq!(module.recycled(&name).as_deref(), Some("2025-03-01T01-17-00Z"));
    let figures = ["linked", "unlinked"].map(|key| module.figure(&name, key));
    assert_eq!(figures, [3, 2], "linked and unlinked");
}

#[test]
fn a_snapshot_can_be_made_from_one_that_it_has_nothing_in_common_with() {
    if !support::may_recycle() {
        return;
    }
    let module = small_module();
    let first = module.publish();
    tree::write(&module.latest.join("d0001/f0001"), "changed");
    module.publish();
    fs::remove_dir_all(&module.latest).expect("removed");
    fs::create_dir(&module.latest).expect("a module");
    // What were directories are files and the other way round, and there is all that there can be.
    for name in ["d0000", "d0001/f0000/deep", "d0002/f0001"] {
        let path = module.latest.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, name).expect("a file");
    }
    tree::every_type(&module.latest);
    let name = module.publish();
    assert_eq!(module.recycled(&name), Some(first));

    fs::remove_dir_all(&module.latest).expect("removed");
    fs::create_dir(&module.latest).expect("a module");
    module.publish();
    tree::every_type(&module.latest);
    module.publish();
    tree::set_mode(&module.latest, 0o700);
    let name = module.publish();
    assert!(module.recycled(&name).is_some(), "made from an empty one");
}

#[test]
fn a_file_that_could_not_be_linked_is_linked_as_soon_as_it_can_be() {
    if !root() || !have(&["chattr"]) {
        return;
    }
    let (module, ..) = ready_to_recycle();
    let file = module.latest.join("d0002/immutable");
    fs::write(&file, "x").expect("a file");
    Run::of(tool("chattr").arg("+i").arg(&file)).exits(&[0]);
    let inode = |root: &Path| fs::metadata(root.join("d0002/immutable")).expect("the file").ino();
    for number in 0..3 {
        tree::write(&module.latest.join("d0001/f0001"), &number.to_string());
        settle();
        module.pass(1);
        let run = module.run();
        // Before anything else, so that the directory can be removed whatever fails.
        if number == 2 {
            Run::of(tool("chattr").arg("-i").arg(&file)).exits(&[0]);
        }
        let run = run.exits(&[4]);
        let snapshot = module.snapshot(&module.name());
        assert_ne!(inode(&module.latest), inode(&snapshot), "{run}");
        assert_eq!(fs::read_to_string(snapshot.join("d0002/immutable")).expect("a copy"), "x");
        assert_eq!(module.list()[0]["copies"], 1, "{run}");
    }
    // Its directory has not changed since long.
    for number in 0..2 {
        tree::write(&module.latest.join("d0001/f0001"), &format!("and {number}"));
        let name = module.publish_settled();
        assert_eq!(inode(&module.latest), inode(&module.snapshot(&name)));
        assert_eq!(module.list()[0]["copies"], 0);
    }
}

#[test]
fn deep_trees_are_recycled_with_few_descriptors() {
    if !support::may_recycle() {
        return;
    }
    let module = small_module();
    module.write_policy(&format!("{EXPIRING}anomaly_share = \"100%\"\n"));
    let deep = module.latest.join("deep");
    tree::deep(&deep, 1_100, 3);
    let limited = ["sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""];
    let below = [deep.join("000/001/002/003/new"), deep.join("000/new"), module.latest.join("new")];
    for file in &below {
        fs::write(file, "x").expect("a file");
        module.pass(1);
        Run::of(&mut module.hook_through(&limited)).exits(&[0]);
    }
    let name = module.name();
    assert!(module.recycled(&name).is_some());
    // Read with as many descriptors as levels, which this process may not have.
    let list = |directory: &Path| {
        let format = ["-printf", "%y %m %T@ %P\n"];
        let find = Run::of(tool("find").arg(directory).args(format)).exits(&[0]).stdout();
        let mut lines: Vec<_> = find.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    let (live, snapshot) = (list(&module.latest), list(&module.snapshot(&name)));
    assert!(live.len() > 2_200, "{}", live.len());
    assert!(live == snapshot, "the snapshot differs");

    // From one that is deep into one that is not, and back.
    Run::of(tool("mv").arg(&deep).arg(&module.directory)).exits(&[0]);
    for _ in 0..2 {
        fs::write(module.latest.join("d0000/more"), "x").expect("a file");
        module.pass(1);
        Run::of(&mut module.hook_through(&limited)).exits(&[0]);
        module.assert_equals_module(&module.name());
        fs::remove_file(module.latest.join("d0000/more")).expect("removed");
    }
    // The standard library cannot remove it.
    Run::of(tool("rm").arg("-rf").arg(module.directory.join("deep"))).exits(&[0]);
}

#[test]
fn an_ordinary_user_makes_read_only_directories_afresh() {
    if is_root() && !have(&["setpriv"]) {
        return;
    }
    let module = Simulated::new(Module::new(), EXPIRING);
    // The build directory may be closed to others.
    let program = module.directory.join("program");
    copy_program(hook_at(), &program);
    let (user, group) = (format!("--reuid={ORDINARY_USER}"), format!("--regid={ORDINARY_USER}"));
    let mut ordinary_user = vec!["setpriv", &user, &group, "--clear-groups"];
    if is_root() {
        for path in [&module.root, &module.state_directory(), &module.runtime_directory()] {
            Run::of(
                tool("chown").args(["-R", &format!("{ORDINARY_USER}:{ORDINARY_USER}")]).arg(path),
            )
            .exits(&[0]);
        }
    } else {
        ordinary_user.clear();
    }
    let hook = format!("exec '{}' \"$@\"", program.display());
    let hook: Vec<&str> = ordinary_user.iter().copied().chain(["sh", "-c", &hook]).collect();
    for edit in [
        "mkdir -p ro/ro/ro private deep/er; echo > ro/ro/ro/file; echo > ro/file; echo > deep/er/file; \
         chmod 555 ro/ro/ro ro/ro ro; chmod 700 private; chmod 511 deep/er; chmod 555 .",
        "chmod 755 ro ro/ro; rm -f ro/file; echo > ro/ro/new; chmod 555 ro ro/ro",
        "chmod 755 . deep/er; echo > deep/er/new; echo > new; chmod 500 deep/er .",
        "chmod 755 ro/ro/ro; echo > ro/ro/ro/file2; rm -f ro/ro/ro/file; chmod 555 ro/ro/ro",
        "chmod 755 . ro ro/ro ro/ro/ro; rmdir private; mv ro/ro/ro private; chmod 555 . ro ro/ro private",
        "chmod 755 . ro ro/ro; rm -rf ro; mkdir ro; echo > ro/file; chmod 555 . ro",
        "chmod 755 deep/er",
    ] {
        let mut words = ordinary_user.iter().copied().chain(["sh", "-ec", edit]);
        let mut shell = tool(words.next().expect("a word"));
        Run::of(shell.args(words).current_dir(&module.latest)).exits(&[0]);
        module.pass(1);
        let run = Run::of(&mut module.hook_through(&hook)).exits(&[0]);
        let name = module.name();
        assert_eq!(module.snapshots(), [name.as_str()], "{edit}: {run}");
        module.assert_equals_module(&name);
        assert_eq!(module.left_over("staging"), 0, "{edit}");
        // It may not be able to move what it has to change.
        assert_eq!(module.recycled(&name), None, "{edit}");
    }
}

// -- Runs that die -----------------------------------------------------------------------------

/// Calls that change something on disk, and how manieth of them to die at or to fail.
const CALLS: [&str; 10] = [
    "renameat2",
    "unlinkat",
    "linkat",
    "mkdirat",
    "fchmod",
    "fchown",
    "utimensat",
    "syncfs",
    "fsync",
    "renameat",
];

fn traced(module: &Simulated, expression: &str) -> Run {
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", expression];
    Run::of(&mut module.hook_through(&strace))
}

/// Interferes with a run that recycles, at `when` of each of [`CALLS`], and expects nothing to be
/// half and the next run to end it. Returns how many runs did not get to their end.
fn interfere(how: &str, when: &[usize]) -> usize {
    let cases: Vec<_> = when.iter().flat_map(|when| CALLS.map(|call| (call, when))).collect();
    let next = AtomicU64::new(0);
    let stopped = AtomicU64::new(0);
    let work = || {
        while let Some((call, when)) = cases.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let what = format!("{call} number {when}");
            let (module, _, newest) = ready_to_recycle();
            tree::every_type(&module.latest.join("d0002"));
            fs::remove_dir_all(module.latest.join("d0001")).expect("removed");
            let (live, old) =
                (fingerprint::of(&module.latest), fingerprint::of(&module.snapshot(&newest)));
            module.pass(1);
            let run = traced(&module, &format!("inject={call}:{how}:when={when}"));
            if !run.succeeded() {
                stopped.fetch_add(1, Ordering::Relaxed);
            }
            let visible = module.snapshots();
            assert!(!visible.is_empty(), "{what}: every snapshot is gone: {run}");
            for name in visible {
                let expected = if name == newest { &old } else { &live };
                let what = format!("{what}: {name}: {run}");
                fingerprint::assert_equal(
                    expected,
                    &fingerprint::of(&module.snapshot(&name)),
                    &what,
                );
            }
            // The next run is undisturbed.
            tree::write(&module.latest.join("d0000/f0003"), "later");
            module.publish();
            assert_eq!(module.left_over("staging"), 0, "{what}");
            tree::write(&module.latest.join("d0000/f0003"), "and later");
            let last = module.publish();
            assert_eq!(module.snapshots(), std::slice::from_ref(&last), "{what}");
            assert!(module.recycled(&last).is_some(), "{what}: recycling goes on");
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(work);
        }
    });
    stopped.into_inner() as usize
}

fn sweep() -> Vec<usize> {
    let full = support::is_full_sweep();
    if full { (1..40).collect() } else { vec![1, 3] }
}

#[test]
fn a_run_killed_while_it_recycles_leaves_nothing_half() {
    if !support::may_recycle() {
        return;
    }
    if have(&["strace"]) {
        let killed = interfere("signal=SIGKILL", &sweep());
        assert!(killed >= CALLS.len(), "only {killed} runs were killed");
    }
}

#[test]
fn a_call_that_fails_while_a_run_recycles_leaves_nothing_half() {
    if !support::may_recycle() {
        return;
    }
    if have(&["strace"]) {
        let failed = interfere("error=EIO", &sweep());
        assert!(failed >= CALLS.len() / 2, "only {failed} runs failed");
    }
}
