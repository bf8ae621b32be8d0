//! What a run costs grows with the change, not with the tree: in system calls and in memory.
//!
//! Calls are counted by strace, of runs over modules that differ only in their size. What the
//! larger one costs more is asserted to the call, so that nothing that is done for each directory
//! can hide among what every run does.
//!
//! Memory is what was resident at most. 64 MiB have to be enough for a million entries in any
//! shape, and for ten million in usual ones; to see that takes `RSYNCD_SNAPSHOT_SWEEP=full`, some
//! hours, some GiB of memory and 40 GiB of disk for the trees. Otherwise the trees have a tenth of
//! that or less and the limits are lower, but not as much, since some of the memory is the same for
//! all trees: a smaller proof, of fewer kinds of runs.

use crate::support;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{self, Command};
use std::sync::OnceLock;
use std::{env, fs};

use nix::sys::resource::{UsageWho, getrusage};
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};
use support::file_system::{FileSystem, Kind};
use support::module::{Module, NAME};
use support::run::{Run, tool};
use support::simulated::{EXPIRING, Simulated, settle};
use support::{BINARY, have, root, tree};

/// A module, and the file system of its own that it is on where there can be one.
struct Place {
    module: Simulated,
    _file_system: Option<FileSystem>,
}

impl Place {
    /// In memory, so that no run waits for a disk to sync.
    fn new() -> Place {
        let file_system = FileSystem::new(Kind::Tmpfs);
        let module = file_system.as_ref().map_or_else(Module::new, Module::on);
        Place { module: Simulated::new(module, EXPIRING), _file_system: file_system }
    }
}

/// After that the index is put to the proof.
const WEEK_HOURS: i64 = 7 * 24;

/// `rotate` by hand, which removes what is retired, run through another program.
fn rotation_through(module: &Simulated, wrapper: &[&str]) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(BINARY);
    module.server.prepare(&mut command);
    command.args(["rotate", NAME, "--confirm", "--purge"]);
    command
}

// -- Trees ----------------------------------------------------------------------------------------

fn open(parent: impl AsFd, name: &Path) -> OwnedFd {
    openat(parent, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("a directory")
}

fn make_directory(parent: &OwnedFd, name: &str) {
    mkdirat(parent, name, Mode::from_raw_mode(0o755)).expect("a directory");
}

fn make_and_open(parent: &OwnedFd, name: &str) -> OwnedFd {
    make_directory(parent, name);
    open(parent, Path::new(name))
}

fn make_files(directory: &OwnedFd, count: usize) {
    for number in 0..count {
        let name = format!("file {number:07}");
        mknodat(directory, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
            .expect("a file");
    }
}

/// `groups` directories, `levels` below each other in each, with `leaves` directories in the last.
fn grouped(live: &Path, groups: usize, levels: usize, leaves: usize) {
    for group in 0..groups {
        let mut directory = live.join(format!("g{group}"));
        directory.extend((1..levels).map(|level| format!("level {level}")));
        tree::numbered(&directory, leaves, 1);
    }
}

/// `levels` directories in each other; in each are `width` directories, one of which is the next.
fn chain_of_wide_directories(module: &OwnedFd, levels: usize, width: usize, files: usize) {
    let mut directory = open(module, Path::new("."));
    for _ in 0..levels {
        for number in 0..width {
            make_files(&make_and_open(&directory, &format!("{number:03}")), files);
        }
        directory = open(&directory, Path::new(&format!("{:03}", width / 2)));
    }
}

/// Replaces a file in each of `count` directories.
fn change_some(count: usize) -> impl Fn(&Path, &str) {
    move |live, text| {
        for number in 0..count {
            tree::write(&live.join(format!("d{number:04}/f0000")), text);
        }
    }
}

/// A new file in the module and in some directories below.
fn change_on_the_way_down(module: &Path, text: &str) {
    let mut directory = module.to_path_buf();
    for _ in 0..5 {
        fs::write(directory.join(text), text).expect("a file");
        let mut entries = fs::read_dir(&directory).expect("a directory").flatten();
        let Some(below) = entries.find(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        else {
            return;
        };
        directory = below.path();
    }
}

// -- System calls ---------------------------------------------------------------------------------

/// How often each call was made; the variants of one are one.
type Calls = BTreeMap<String, i64>;

/// The index is read in pieces; memory is asked for in pieces; a debug build looks at a descriptor
/// before it closes it.
const UNCOUNTED: [&str; 4] = ["read", "pread64", "mmap", "fcntl"];

/// What strace saw of a run: all calls that have to do with files.
struct Trace(String);

impl Trace {
    /// An hour later the hook runs, without a complaint.
    fn of_run(module: &Simulated) -> Trace {
        module.pass(1);
        Trace::of(module, |strace| module.hook_through(strace))
    }

    fn of_rotation(module: &Simulated) -> Trace {
        Trace::of(module, |strace| rotation_through(module, strace))
    }

    fn of(module: &Simulated, command: impl FnOnce(&[&str]) -> Command) -> Trace {
        let file = module.directory.join("trace");
        let path = file.to_str().expect("UTF-8");
        // With the paths of descriptors.
        let strace =
            ["strace", "-f", "-qq", "-y", "-s", "4096", "-e", "trace=%file,%desc", "-o", path];
        // The clock of the hooks is not the machine's, which is a warning.
        Run::of(&mut command(&strace)).exits(&[0, 4]);
        Trace(fs::read_to_string(file).expect("a trace"))
    }

    /// Each call's name and its arguments, as far as they were known when it was made.
    fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        // 1234 openat(AT_FDCWD, ...
        let calls =
            self.0.lines().filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('));
        calls.filter(|(name, _)| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
    }

    fn calls(&self) -> Calls {
        let mut calls = Calls::new();
        // The list of mounts is read again whenever another program mounts something.
        let counted = self.lines().filter(|(name, arguments)| {
            !UNCOUNTED.contains(name) && !arguments.contains("/mountinfo")
        });
        for (name, _) in counted {
            let name = match name {
                "newfstatat" | "fstatat64" | "fstat" | "statx" | "stat" | "lstat" => "stat",
                "openat" | "openat2" => "open",
                LISTXATTRAT | "listxattrat" => "llistxattr",
                name => name,
            };
            *calls.entry(name.to_string()).or_default() += 1;
        }
        calls
    }
}

/// What a strace that does not know listxattrat calls it.
const LISTXATTRAT: &str = "syscall_0x1d1";

/// What `large` has more than `small`.
fn more(large: &Calls, small: &Calls) -> Calls {
    let mut more = large.clone();
    for (name, count) in small {
        *more.entry(name.clone()).or_default() -= count;
    }
    more.retain(|_, count| *count != 0);
    more
}

fn calls<const N: usize>(counts: [(&str, usize); N]) -> Calls {
    counts.map(|(name, count)| (name.to_string(), i64::try_from(count).expect("a count"))).into()
}

/// A run over an unchanged module that `fill` has filled.
fn unchanged_run(fill: impl Fn(&Path)) -> Trace {
    let Place { module, _file_system } = Place::new();
    fill(&module.latest);
    let name = module.publish_settled();
    let trace = Trace::of_run(&module);
    assert_eq!(module.snapshots(), [name], "nothing has changed");
    trace
}

/// A run that makes a snapshot out of a retired one, from which it differs by twice `change`.
fn recycling_run(fill: impl Fn(&Path), change: impl Fn(&Path, &str)) -> Trace {
    let Place { module, _file_system } = Place::new();
    fill(&module.latest);
    for text in ["first", "second"] {
        change(&module.latest, text);
        module.publish_settled();
    }
    change(&module.latest, "third");
    settle();
    let trace = Trace::of_run(&module);
    module.assert_equals_module(&module.name());
    assert!(module.recycled(&module.name()).is_some(), "made afresh");
    trace
}

#[test]
fn an_unchanged_module_costs_one_call_for_each_directory_without_others() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let run = |directories, files| unchanged_run(|live| tree::numbered(live, directories, files));
    let [small, middle, large, full] =
        [(150, 2), (300, 2), (600, 2), (150, 11)].map(|(d, f)| run(d, f).calls());
    assert_eq!(more(&middle, &small), calls([("stat", 150)]));
    assert_eq!(more(&large, &middle), calls([("stat", 300)]));
    assert_eq!(more(&full, &small), calls([]), "files cost nothing");
}

#[test]
fn an_unchanged_module_is_not_read() {
    if !have(&["strace"]) {
        return;
    }
    let trace = unchanged_run(|live| grouped(live, 3, 2, 20));
    let seen = trace.lines().filter(|(_, arguments)| arguments.contains("/latest/g1>")).count();
    assert!(seen > 0, "nothing was traced");
    let forbidden =
        ["getdents64", "linkat", "unlinkat", "mkdirat", "fchmod", "fchown", "utimensat"];
    let found =
        trace.lines().filter(|(name, arguments)| forbidden.contains(name) && in_module(arguments));
    assert_eq!(found.collect::<Vec<_>>(), []);
}

#[test]
fn a_hook_looks_at_other_modules_only_before_it_registers_a_root() {
    if !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    let other = module.directory.join("other module/latest");
    fs::create_dir_all(&other).expect("a directory");
    let sections =
        [(NAME, &module.latest), ("other", &other)].map(|(n, p)| module.rsyncd_conf_section(n, p));
    module.write_rsyncd_conf(&sections.concat());
    let file = module.directory.join("trace");
    let path = file.to_str().expect("UTF-8");
    for is_new in [true, false] {
        let strace = ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=%file", "-o", path];
        Run::of(&mut module.hook_through(&strace)).exits(&[0]);
        let trace = fs::read_to_string(&file).expect("a trace");
        assert_eq!(trace.contains("other module"), is_new, "{trace}");
    }
}

/// Whether the call's descriptor is one of the module directory or of one below it.
fn in_module(arguments: &str) -> bool {
    arguments
        .split_once('>')
        .is_some_and(|(path, _)| path.ends_with("/latest") || path.contains("/latest/"))
}

#[test]
fn a_directory_with_others_costs_an_open_a_look_and_a_close() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    for (levels, leaves) in [(1, 1), (1, 5), (5, 3)] {
        let run = |groups| unchanged_run(|live| grouped(live, groups, levels, leaves)).calls();
        let (inner, leaves) = (20 * levels, 20 * leaves);
        let expected = calls([("open", inner), ("stat", inner + leaves), ("close", inner)]);
        assert_eq!(more(&run(40), &run(20)), expected, "{levels} levels");
    }
}

#[test]
fn a_level_deep_down_is_opened_twice() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let run = |levels| unchanged_run(|live| tree::deep(live, levels, 3)).calls();
    // It is closed on the way down and opened again on the way up, once it is certain to be the
    // same.
    let expected = calls([("open", 200), ("stat", 200), ("close", 200)]);
    assert_eq!(more(&run(160), &run(60)), expected);
}

#[test]
fn recycling_costs_two_calls_for_each_unchanged_directory_without_others() {
    if !have(&["strace"]) || !root() {
        return;
    }
    let run = |directories| {
        recycling_run(|live| tree::numbered(live, directories, 2), change_some(5)).calls()
    };
    let [small, middle, large] = [150, 300, 600].map(run);
    // The live one in the comparison, and the recycled one.
    assert_eq!(more(&middle, &small), calls([("stat", 300)]));
    assert_eq!(more(&large, &middle), calls([("stat", 600)]));
}

#[test]
fn recycling_opens_each_unchanged_directory_twice_at_most() {
    if !have(&["strace"]) || !root() {
        return;
    }
    for (levels, leaves) in [(1, 1), (1, 5), (5, 3)] {
        let run = |groups| {
            // One that is the same as before would be looked at as well, if it was linked in the
            // run's first tick of the kernel's clock.
            let change = |live: &Path, text: &str| tree::write(&live.join("changed"), text);
            recycling_run(|live| grouped(live, groups, levels, leaves), change).calls()
        };
        let (inner, leaves) = (20 * levels, 20 * leaves);
        let expected =
            calls([("open", 2 * inner), ("stat", 2 * (inner + leaves)), ("close", 2 * inner)]);
        assert_eq!(more(&run(40), &run(20)), expected, "{levels} levels");
    }
}

/// What a changed directory without others may cost. In the comparison the live one is opened for
/// lookups, then both are opened and read to the end. In the making the live one is opened for
/// lookups, and the recycled one is opened, read, and gets the new times. One file is another: it
/// is looked at before and after it is linked, and recorded with its extended attributes.
const CHANGED_DIRECTORY: [(&str, i64); 9] = [
    ("open", 5),
    ("close", 5),
    ("stat", 10),
    ("llistxattr", 1),
    ("getdents64", 6),
    ("linkat", 1),
    ("unlinkat", 1),
    ("flistxattr", 2),
    ("utimensat", 1),
];

#[test]
fn recycling_costs_a_constant_for_each_changed_directory() {
    if !have(&["strace"]) || !root() {
        return;
    }
    let run = |changed, files| {
        recycling_run(|live| tree::numbered(live, 100, files), change_some(changed)).calls()
    };
    let [few, many, full] = [(5, 2), (15, 2), (5, 15)].map(|(changed, files)| run(changed, files));
    let more_changes = more(&many, &few);
    for (name, count) in &more_changes {
        let known = CHANGED_DIRECTORY.iter().find(|(known, _)| known == name);
        let allowed = 10 * known.map_or(0, |(_, allowed)| *allowed);
        assert!(
            *count <= allowed,
            "{name}: {allowed} calls allowed for 10 directories: {more_changes:?}"
        );
    }
    for call in ["linkat", "unlinkat", "getdents64"] {
        assert!(
            more_changes.contains_key(call),
            "{call}: there was nothing to do: {more_changes:?}"
        );
    }
    assert_eq!(more(&full, &few), calls([]), "files that are the same cost nothing");
}

#[test]
fn snapshots_that_are_long_gone_cost_nothing() {
    if !have(&["strace"]) || !root() {
        return;
    }
    let run = |snapshots| {
        let Place { module, _file_system } = Place::new();
        tree::numbered(&module.latest, 5, 2);
        let change = |number: usize| change_some(1)(&module.latest, &number.to_string());
        for number in 0..snapshots {
            change(number);
            module.publish();
        }
        // The one that is compared, and the one that is recycled.
        for number in [snapshots, snapshots + 1] {
            change(number);
            module.publish_settled();
        }
        change(snapshots + 2);
        settle();
        Trace::of_run(&module).calls()
    };
    let [few, many] = [5, 105].map(run);
    assert_eq!(more(&many, &few), calls([]));
}

/// With more than some 2,000 entries there are several workers, and what they do depends on who is
/// faster.
#[test]
fn several_workers_read_link_and_remove_no_more_than_one() {
    if !have(&["strace"]) || !root() {
        return;
    }
    let run = |directories, changed| {
        recycling_run(|live| tree::numbered(live, directories, 9), change_some(changed)).calls()
    };
    let [small, large] = [250, 500].map(|directories| run(directories, 5));
    let more = more(&large, &small);
    for (name, count) in &more {
        // A worker looks at the two directories where it starts, and a leaf may be all that it gets
        // there.
        let allowed = if name == "stat" { 2 * 250 * 3 } else { 8 };
        assert!(*count <= allowed, "{name}: {allowed} calls allowed: {more:?}");
    }
}

/// Where there is always something to give away far above the worker who gives it.
#[test]
fn several_workers_cost_no_more_in_a_deep_tree() {
    if !have(&["strace"]) || !root() {
        return;
    }
    let run = |levels| {
        let Place { module, _file_system } = Place::new();
        chain_of_wide_directories(&open(CWD, &module.latest), levels, 20, 1);
        let first = Trace::of_run(&module).calls();
        fs::write(module.latest.join("new"), "x").expect("a file");
        module.publish();
        module.retired();
        let removal = Trace::of_rotation(&module).calls();
        assert_eq!(module.left_over("expired"), 0);
        [first, removal]
    };
    let (small, large) = (run(60), run(120));
    for (what, (large, small)) in ["first", "removal"].iter().zip(large.iter().zip(&small)) {
        let more = more(large, small);
        // For each directory, at most three if nothing has to be opened again.
        assert!(more["open"] <= 6 * 20 * 60, "{what}: for {} directories {more:?}", 20 * 60);
    }
}

// -- Files ----------------------------------------------------------------------------------------

/// Every fifth of the files named so is a hard link, every seventh a symbolic one.
const FILE: &str = "regular-";

fn files_in_directories(live: &Path) {
    for number in 0..300 {
        let directory = live.join(format!("directory-{}/below", number % 7));
        fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join(format!("{FILE}{number}"));
        match number {
            _ if number > 7 && number % 5 == 0 => {
                let other = live.join(format!("directory-0/below/{FILE}0"));
                fs::hard_link(other, file).expect("a link");
            }
            _ if number % 7 == 3 => symlink("nowhere", file).expect("a symbolic link"),
            _ => tree::write(&file, "x"),
        }
    }
}

/// Fails if a file was named in any call but one that makes or removes its name, or was open at
/// all. For each link that is made, the file may be looked at before and after it, and asked for
/// its extended attributes.
#[track_caller]
fn assert_no_file_is_touched(what: &str, trace: &Trace) {
    let seen = trace.lines().filter(|(_, arguments)| arguments.contains("directory-1")).count();
    assert!(seen > 0, "{what}: nothing was traced");
    let may = |call: &str, arguments: &str| {
        // Of the two descriptors none is that of a file.
        let is_open = arguments
            .split('>')
            .any(|word| word.rsplit('/').next().is_some_and(|name| name.starts_with(FILE)));
        ["llistxattr", "listxattrat"].contains(&call)
            || ["linkat", "unlinkat", "statx"].contains(&call) && !is_open
    };
    let count = |calls: &[&str]| {
        let named = trace
            .lines()
            .filter(|(call, arguments)| calls.contains(call) && arguments.contains(FILE));
        named.count()
    };
    let looks = count(&["statx", "llistxattr", "listxattrat"]);
    let links = count(&["linkat"]);
    assert!(looks <= 3 * links, "{what}: {looks} looks at files for {links} links");
    let touched: Vec<_> = trace
        .lines()
        .filter(|(call, arguments)| arguments.contains(FILE) && !may(call, arguments))
        .collect();
    assert_eq!(touched, [], "{what}");
}

#[test]
fn no_file_is_opened_nor_looked_at_unless_it_is_linked() {
    if !have(&["strace"]) || !root() {
        return;
    }
    let Place { module, _file_system } = Place::new();
    files_in_directories(&module.latest);
    settle();
    let assert_untouched = |what: &str, makes_one: bool| {
        let trace = Trace::of_run(&module);
        assert_eq!(module.snapshots().contains(&module.name()), makes_one, "{what}");
        assert_no_file_is_touched(what, &trace);
    };
    let change = |number: usize| {
        let directory = module.latest.join(format!("directory-{number}/below"));
        tree::write(&directory.join(format!("{FILE}{number}")), "changed");
        fs::rename(
            directory.join(format!("{FILE}{}", number + 7)),
            directory.join(format!("{FILE}renamed")),
        )
        .expect("renamed");
        fs::remove_dir_all(module.latest.join(format!("directory-{}", number + 1)))
            .expect("removed");
        settle();
    };
    let without_indexes = || fs::remove_dir_all(module.private("index")).expect("the indexes");

    assert_untouched("the first snapshot", true);
    assert_untouched("nothing new", false);
    change(1);
    assert_untouched("a second one, afresh", true);
    change(3);
    assert_untouched("made from a retired one", true);
    assert!(module.recycled(&module.name()).is_some());
    without_indexes();
    assert_untouched("nothing new, and no index", false);
    change(5);
    assert_untouched("made from a retired one without an index", true);
    assert!(module.recycled(&module.name()).is_some());
    module.pass(WEEK_HOURS);
    assert_untouched("everything compared", false);
    module.retired();
    assert_no_file_is_touched("the removal", &Trace::of_rotation(&module));
    assert_eq!(module.left_over("expired"), 0);
}

// -- Memory ---------------------------------------------------------------------------------------

/// What the first arguments of this very program have to be for it to run another one, which
/// follows, as [`measure`] does.
const MEASURE: [&str; 5] = ["--exact", "cost::measure", "--ignored", "--nocapture", "--"];

/// The kernel tells of the memory of all children together, so each run is the only child of a
/// process of its own. The others start it.
#[test]
#[ignore = "what other tests measure memory with"]
fn measure() {
    let mut words = env::args_os().skip_while(|word| word != "--").skip(1);
    let Some(program) = words.next() else { return };
    let status = Command::new(program).args(words).status().expect("a program");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the memory used");
    println!("{PEAK}{}", usage.max_rss());
    process::exit(status.code().unwrap_or(1));
}

const PEAK: &str = "peak KiB: ";

/// The most memory that a command had resident at once, in KiB.
fn peak_kibibytes(command: impl FnOnce(&[&str]) -> Command) -> u64 {
    let this = env::current_exe().expect("this program");
    let words: Vec<_> = [this.to_str().expect("UTF-8")].into_iter().chain(MEASURE).collect();
    let run = Run::of(&mut command(&words)).exits(&[0, 4]);
    let output = run.stdout();
    let peak = output.lines().find_map(|line| line.split_once(PEAK)?.1.parse().ok());
    peak.unwrap_or_else(|| panic!("no measure: {run}"))
}

#[test]
fn the_measure_shows_what_a_command_keeps_in_memory() {
    for mebibytes in [8, 70] {
        let peak = peak_kibibytes(|wrapper| {
            let mut command = tool(wrapper[0]);
            let hold = format!("head --bytes={mebibytes}M /dev/zero | tail --bytes={mebibytes}M");
            command.args(&wrapper[1..]).args(["sh", "-c", &format!("{hold} >/dev/null")]);
            command
        });
        let kept = mebibytes << 10;
        assert!((kept..2 * kept + 8_192).contains(&peak), "{peak} KiB, not {kept}");
    }
}

fn is_full() -> bool {
    support::is_full_sweep()
}

/// How many entries trees have where everything is asked for, and the KiB that have to be enough
/// for a run beyond what it takes for an empty module, which is at most 12 MiB in a release build.
const FULL: (usize, u64) = (1_000_000, 52 << 10);

/// The same otherwise, for trees of little else than files.
const FILES: (usize, u64) = (40_000, 8 << 10);

/// For trees of little else than directories, which take longer and more memory.
const DIRECTORIES: (usize, u64) = (15_000, 24 << 10);

/// Fills a module with about as many entries in some shape, runs whatever a run can be, and fails
/// if one of them takes too much memory.
fn assert_memory_is_bounded(usual: (usize, u64), fill: fn(&OwnedFd, usize)) {
    // What belongs to three trees is in the kernel's memory, but for the indexes.
    let size = if is_full() { FULL } else { usual };
    assert_memory_is_bounded_on(FileSystem::with(Kind::Tmpfs, 256, &[]), size, fill);
}

/// The same for ten million entries, which take too much memory for a file system there.
fn assert_memory_is_bounded_for_ten_million(usual: (usize, u64), fill: fn(&OwnedFd, usize)) {
    if !is_full() {
        return assert_memory_is_bounded(usual, fill);
    }
    let options = ["-N", "20000000", "-E", "lazy_itable_init=1"];
    let file_system = FileSystem::with(Kind::Ext4, 40 << 10, &options);
    assert_memory_is_bounded_on(file_system, (10_000_000, FULL.1), fill);
}

fn assert_memory_is_bounded_on(
    file_system: Option<FileSystem>,
    (entries, limit): (usize, u64),
    fill: fn(&OwnedFd, usize),
) {
    let Some(file_system) = file_system else { return };
    let module = Simulated::new(Module::on(&file_system), &removing_everything());
    fill(&open(CWD, &module.latest), entries);
    settle();
    let peaks = peaks_of_runs(&module);
    let of_empty = peaks_for_an_empty_module();
    println!("KiB of memory for {entries} entries: {peaks:?}, for none: {of_empty:?}");
    let excessive: Vec<_> =
        peaks.iter().filter(|(what, peak)| *peak >= of_empty[what] + limit).collect();
    assert!(
        excessive.is_empty(),
        "{limit} KiB more memory for {entries} entries than for none: {excessive:?}"
    );
}

/// That everything is removed at once is meant.
fn removing_everything() -> String {
    format!("{EXPIRING}anomaly_share = \"100%\"\n")
}

/// A build without optimisation has more of the program itself in memory.
fn peaks_for_an_empty_module() -> &'static BTreeMap<&'static str, u64> {
    static PEAKS: OnceLock<BTreeMap<&str, u64>> = OnceLock::new();
    PEAKS.get_or_init(|| {
        let file_system = FileSystem::with(Kind::Tmpfs, 256, &[]).expect("as before");
        let module = Simulated::new(Module::on(&file_system), &removing_everything());
        peaks_of_runs(&module).into_iter().collect()
    })
}

/// What each kind of run over a module takes.
fn peaks_of_runs(module: &Simulated) -> Vec<(&'static str, u64)> {
    let mut peaks = Vec::new();
    let mut run = |what: &'static str, hours: i64, makes_one: bool| {
        module.pass(hours);
        let peak = peak_kibibytes(|wrapper| module.hook_through(wrapper));
        assert_eq!(module.snapshots().contains(&module.name()), makes_one, "{what}");
        peaks.push((what, peak));
    };
    let change = |text: &str| {
        change_on_the_way_down(&module.latest, text);
        settle();
    };
    let assert_recycled = || assert!(module.recycled(&module.name()).is_some(), "made afresh");
    run("first", 1, true);
    run("unchanged", 1, false);
    change("new 1");
    run("afresh", 1, true);
    change("new 2");
    run("recycled", 1, true);
    assert_recycled();
    if is_full() {
        fs::remove_dir_all(module.private("index")).expect("the indexes");
        change("new 3");
        run("recycled without an index", 1, true);
        assert_recycled();
        run("compared", WEEK_HOURS, false);
        fs::rename(&module.latest, module.root.with_file_name("aside")).expect("moved");
        fs::create_dir(&module.latest).expect("an empty module");
        run("emptied", 1, true);
        assert_recycled();
    }
    module.retired();
    peaks.push(("removal", peak_kibibytes(|wrapper| rotation_through(module, wrapper))));
    assert_eq!(module.left_over("expired"), 0);
    peaks
}

#[test]
fn memory_is_bounded_for_one_directory_of_files() {
    assert_memory_is_bounded(FILES, make_files);
}

#[test]
fn memory_is_bounded_for_one_directory_of_directories_with_short_names() {
    assert_memory_is_bounded(DIRECTORIES, |module, entries| {
        (0..entries).for_each(|number| make_directory(module, &format!("{number}")));
    });
}

#[test]
fn memory_is_bounded_for_one_directory_of_directories_with_long_names() {
    assert_memory_is_bounded(DIRECTORIES, |module, entries| {
        (0..entries).for_each(|number| make_directory(module, &format!("{number:0200}")));
    });
}

#[test]
fn memory_is_bounded_for_fifty_large_directories() {
    assert_memory_is_bounded(FILES, |module, entries| {
        (0..50).for_each(|number| {
            make_files(&make_and_open(module, &format!("{number}")), entries / 50)
        });
    });
}

/// Each worker has one of its own to read.
#[test]
fn memory_is_bounded_for_four_huge_directories() {
    assert_memory_is_bounded(FILES, |module, entries| {
        (0..4).for_each(|number| {
            make_files(&make_and_open(module, &format!("{number}")), entries / 4)
        });
    });
}

/// As many packages as there is room for; of nine entries one is a directory, as on Debian.
#[test]
fn memory_is_bounded_for_a_system() {
    assert_memory_is_bounded(FILES, |module, entries| {
        let usr = make_and_open(module, "usr");
        let [share, lib] = ["share", "lib"].map(|name| make_and_open(&usr, name));
        let doc = make_and_open(&share, "doc");
        for package in 0..entries / 36 {
            let name = format!("package-{package}");
            make_files(&make_and_open(&doc, &name), 3);
            let data = make_and_open(&share, &name);
            make_files(&data, 7);
            make_files(&make_and_open(&data, "locale"), 9);
            make_files(&make_and_open(&lib, &name), 13);
        }
    });
}

/// As mail in one file each has, or what `npm` installs.
#[test]
fn memory_is_bounded_for_small_directories() {
    assert_memory_is_bounded(FILES, |module, entries| {
        for group in 0..entries / 500 {
            let group = make_and_open(module, &format!("group {group}"));
            (0..100).for_each(|number| make_files(&make_and_open(&group, &format!("{number}")), 4));
        }
    });
}

#[test]
fn memory_is_bounded_for_ten_million_entries_in_small_directories() {
    const TOPS: usize = 100;
    const FILES_AND_DIRECTORY: usize = 11;
    // The index of so many directories does not fit into the memory that is kept for it.
    assert_memory_is_bounded_for_ten_million((240_000, 12 << 10), |module, entries| {
        for top in 0..TOPS {
            let top = make_and_open(module, &format!("{top}"));
            for number in 0..entries / TOPS / FILES_AND_DIRECTORY {
                make_files(&make_and_open(&top, &format!("directory {number}")), 10);
            }
        }
    });
}

#[test]
fn memory_is_bounded_for_ten_million_entries_in_large_directories() {
    assert_memory_is_bounded_for_ten_million(FILES, |module, entries| {
        let files = if is_full() { 10_000 } else { 1_000 };
        for number in 0..entries / files {
            make_files(&make_and_open(module, &format!("{number}")), files);
        }
    });
}

#[test]
fn memory_is_bounded_for_a_deep_chain() {
    const FILES_AND_DIRECTORY: usize = 50;
    assert_memory_is_bounded(FILES, |module, entries| {
        let mut directory = open(module, Path::new("."));
        for level in 0..entries / FILES_AND_DIRECTORY {
            make_files(&directory, FILES_AND_DIRECTORY - 1);
            directory = make_and_open(&directory, &format!("{level}"));
        }
    });
}

#[test]
fn memory_is_bounded_for_wide_directories_in_wide_directories() {
    assert_memory_is_bounded(DIRECTORIES, |module, entries| {
        let width = entries.isqrt().isqrt();
        fill_with_directories(module, width, 4);
    });
}

fn fill_with_directories(directory: &OwnedFd, width: usize, levels: usize) {
    for number in 0..width {
        let name = format!("directory {number}");
        match levels {
            1 => make_directory(directory, &name),
            _ => fill_with_directories(&make_and_open(directory, &name), width, levels - 1),
        }
    }
}

/// Wherever the walk is, half of each directory above it waits to be visited.
#[test]
fn memory_is_bounded_for_a_deep_chain_of_wide_directories() {
    const LEVELS: usize = 1_000;
    assert_memory_is_bounded(DIRECTORIES, |module, entries| {
        chain_of_wide_directories(module, LEVELS, entries / LEVELS, 0);
    });
}
