//! Trees as extreme as a client can make them, under limits as tight as a service may have: 64 descriptors, 1 MiB of
//! stack, and 64 MiB more address space than the program needs for an empty module.
//!
//! Under these every kind of run has to work: the first snapshot, the comparison with the index and without,
//! one made afresh and one out of a retired one, one of which everything has gone, and removal. `RSYNCD_SNAPSHOT_SWEEP=full`
//! asks for a directory of a million entries and deeper trees.

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rustix::fs::{FileType, Mode, OFlags, mkdirat, mknodat, openat};
use support::daemon::{Daemon, GOOD};
use support::file_system::{FileSystem, Kind};
use support::module::{Module, NAME};
use support::run::{Run, tool};
use support::simulated::{Simulated, settle};
use support::{BINARY, fingerprint, have, is_root, tree};

/// Each push expires the snapshot before the newest, however much it changes.
const POLICY: &str = "[defaults]\nkeep = { hourly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ntime_zone = \"UTC\"\n\
                      lock_wait = \"20s\"\nanomaly_share = \"100%\"\n";

/// What a run may have besides what it has for an empty module.
const HEADROOM_BYTES: u64 = 64 << 20;

fn is_full() -> bool {
    std::env::var_os("RSYNCD_SNAPSHOT_SWEEP").is_some_and(|sweep| sweep == "full")
}

// -- Limits ----------------------------------------------------------------------------------------

/// `prlimit` and its arguments, to be followed by a program.
fn limits(address_space_bytes: u64) -> Vec<String> {
    let address_space = format!("--as={address_space_bytes}");
    ["prlimit", "--nofile=64", "--stack=1048576", &address_space].map(str::to_string).to_vec()
}

/// The limits for a program with which `run` takes a snapshot of an empty module.
fn tight_limits(what: &str, run: impl Fn(&[&str]) -> Run) -> Vec<String> {
    let works = |bytes: u64| run(&words(&limits(bytes))).code() == Some(0);
    let (mut too_little, mut enough) = (0, 1 << 30);
    assert!(works(enough), "{what} needs more than a GiB");
    while enough - too_little > 256 << 10 {
        let middle = (too_little + enough) / 2;
        if works(middle) { enough = middle } else { too_little = middle }
    }
    println!("{what} needs {} KiB of address space for an empty module", enough >> 10);
    limits(enough + HEADROOM_BYTES)
}

fn words(limits: &[String]) -> Vec<&str> {
    limits.iter().map(String::as_str).collect()
}

/// A module in memory, so that nobody waits for a disk, and the limits of its runs.
struct Trial {
    module: Simulated,
    limits: Vec<String>,
    _file_system: Option<FileSystem>,
}

impl Trial {
    /// `None`, with the reason said, where there can be no limits.
    fn new() -> Option<Trial> {
        if !have(&["prlimit", "find"]) {
            return None;
        }
        let limits = tight_limits("the hook", |wrapper| {
            Run::of(&mut Simulated::new(Module::new(), POLICY).hook_through(wrapper))
        });
        let file_system = FileSystem::with(Kind::Tmpfs, 512, &[]);
        let module = file_system.as_ref().map_or_else(Module::new, Module::on);
        Some(Trial { module: Simulated::new(module, POLICY), limits, _file_system: file_system })
    }

    /// An hour later the hook runs under the limits; with a snapshot, that is the module.
    #[track_caller]
    fn run(&self, what: &str, makes_one: bool) {
        settle();
        self.module.pass(1);
        let began = Instant::now();
        let run = Run::of(&mut self.module.hook_through(&words(&self.limits))).exits(&[0]);
        println!("{what}: {:.1?}", began.elapsed());
        let snapshot = self.module.snapshot(&self.module.name());
        assert_eq!(snapshot.exists(), makes_one, "{what}: {run}");
        if makes_one {
            assert_same_listing(&self.module.latest, &snapshot);
        }
    }

    #[track_caller]
    fn assert_recycled(&self) {
        assert!(self.module.recycled(&self.module.name()).is_some(), "made afresh");
    }

    /// Every kind of run over the tree in the module, which `change` can change.
    #[track_caller]
    fn survive(&self, change: impl Fn(&str)) {
        self.run("first", true);
        self.run("unchanged", false);
        change("new 1");
        self.run("afresh", true);
        change("new 2");
        self.run("recycled", true);
        self.assert_recycled();
        fs::remove_dir_all(self.module.private("index")).expect("the indexes");
        change("new 3");
        self.run("recycled without an index", true);
        self.assert_recycled();
        self.module.write_policy(&format!("{POLICY}full_comparison = \"0s\"\n"));
        self.run("compared", false);
        self.module.write_policy(POLICY);
        fs::rename(&self.module.latest, self.module.root.with_file_name("aside")).expect("moved");
        fs::create_dir(&self.module.latest).expect("an empty module");
        self.run("emptied", true);
        self.assert_recycled();
        let began = Instant::now();
        let mut rotation = Command::new(&self.limits[0]);
        rotation.args(&self.limits[1..]).arg(BINARY);
        self.module.prepare(&mut rotation);
        Run::of(rotation.args(["rotate", NAME, "--confirm", "--purge"])).exits(&[0, 4]);
        println!("removed: {:.1?}", began.elapsed());
        assert_eq!((self.module.left_over("expired"), self.module.left_over("staging")), (0, 0));
    }
}

/// Fails unless both trees have the same entries, and files in both are the same.
#[track_caller]
fn assert_same_listing(live: &Path, snapshot: &Path) {
    let (live, snapshot) = (listing(live), listing(snapshot));
    assert_eq!(live.len(), snapshot.len(), "entries");
    let different = live.iter().zip(&snapshot).find(|(live, snapshot)| live != snapshot);
    assert!(
        different.is_none(),
        "{:?}",
        different
            .map(|(live, snapshot)| [live.escape_ascii().to_string(), snapshot.escape_ascii().to_string()])
    );
}

/// Depth, name, type, mode, owner and time of everything, and the inode of all but directories. `find` goes as deep as need be.
fn listing(directory: &Path) -> Vec<Vec<u8>> {
    let common = "%d %f\\t%y %m %U:%G %T@";
    let format = format!("{common} %i\\0");
    let directories = format!("{common}\\0");
    let mut find = tool("find");
    find.current_dir(directory).args([".", "-mindepth", "1"]);
    find.args(["(", "-type", "d", "-printf", &directories, ")", "-o", "-printf", &format]);
    let run = Run::of(&mut find).exits(&[0]);
    let mut entries: Vec<Vec<u8>> = run.bytes().split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    entries.sort_unstable();
    entries
}

// -- Trees -----------------------------------------------------------------------------------------

fn open(parent: &OwnedFd, name: impl rustix::path::Arg) -> OwnedFd {
    openat(parent, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("a directory")
}

fn make_file(parent: &OwnedFd, name: impl rustix::path::Arg) {
    mknodat(parent, name, FileType::RegularFile, Mode::from_raw_mode(0o640), 0).expect("a file");
}

/// Directories called `name` in each other, with a file at every hundredth level; returns the last.
fn chain(top: &Path, name: &str, levels: usize) -> OwnedFd {
    let mut directory = OwnedFd::from(File::open(top).expect("the module"));
    for level in 0..levels {
        mkdirat(&directory, name, Mode::from_raw_mode(0o750)).expect("a directory");
        if level % 100 == 0 {
            make_file(&directory, "file");
        }
        directory = open(&directory, name);
    }
    directory
}

#[test]
fn a_tree_of_tens_of_thousands_of_levels_is_no_obstacle() {
    let Some(trial) = Trial::new() else { return };
    let bottom = chain(&trial.module.latest, "d", if is_full() { 100_000 } else { 25_000 });
    trial.survive(|text| {
        make_file(&bottom, text);
        fs::write(trial.module.latest.join(text), text).expect("a file");
    });
}

#[test]
fn a_deep_tree_with_the_longest_of_names_is_no_obstacle() {
    let Some(trial) = Trial::new() else { return };
    let bottom = chain(&trial.module.latest, &"n".repeat(255), if is_full() { 20_000 } else { 5_000 });
    trial.survive(|text| {
        make_file(&bottom, text);
        fs::write(trial.module.latest.join(text), text).expect("a file");
    });
}

#[test]
fn a_directory_of_very_many_entries_is_no_obstacle() {
    let Some(trial) = Trial::new() else { return };
    let directory = OwnedFd::from(File::open(&trial.module.latest).expect("the module"));
    let entries = if is_full() { 1_000_000 } else { 100_000 };
    for number in 0..entries {
        let name = format!("entry {number:07}");
        // A few directories, links and pipes among the files.
        match number % 1_000 {
            0 => mkdirat(&directory, &name, Mode::from_raw_mode(0o755)).expect("a directory"),
            1 => rustix::fs::symlinkat("nowhere", &directory, &name).expect("a link"),
            2 => mknodat(&directory, &name, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe"),
            _ => make_file(&directory, &name),
        }
    }
    println!("{entries} entries in one directory");
    trial.survive(|text| make_file(&directory, text));
}

#[test]
fn names_of_all_bytes_and_of_the_greatest_length_are_no_obstacle() {
    let Some(trial) = Trial::new() else { return };
    let live = &trial.module.latest;
    every_name(&live.join("names"));
    trial.survive(|text| fs::write(live.join("names").join(text), text).expect("a file"));
}

/// For each byte that a name can hold a file and a directory of that name, and of the greatest length.
fn every_name(directory: &Path) {
    for byte in (1..=255u8).filter(|byte| *byte != b'/') {
        for length in [1, 255] {
            let name = vec![byte; length];
            // These have a meaning of their own.
            let name = if name == b"." { b"..." } else { &name[..] };
            let below = directory.join(OsStr::from_bytes(name));
            fs::create_dir_all(&below).expect("a directory");
            fs::write(below.join(OsStr::from_bytes(name)), name).expect("a file");
        }
    }
}

// -- A real client ---------------------------------------------------------------------------------

/// As deep as rsync goes, whose paths may have 4,095 bytes.
const RSYNC_LEVELS: usize = 1_900;

/// What stock rsync can transfer with `-aHAX --sparse`.
fn source(module: &Module) -> PathBuf {
    let source = module.directory.join("source");
    tree::every_type(&source);
    every_name(&source.join("all names"));
    fs::create_dir(source.join("deep")).expect("a directory");
    chain(&source.join("deep"), "d", RSYNC_LEVELS);
    let sparse = File::create(source.join("sparse")).expect("a file");
    sparse.set_len(16 << 20).expect("a hole");
    source
}

#[test]
fn what_a_stock_client_pushes_is_no_obstacle() {
    if !have(&["rsync", "prlimit", "find"]) {
        return;
    }
    let limits = tight_limits("the program", |wrapper| Run::of(&mut Module::new().hook_through(wrapper)));
    let module = Module::new();
    let source = source(&module);
    module.write_policy(POLICY);
    let section = Daemon::pair_section(&module, NAME, &module.latest, "");
    // Both hooks under the limits.
    let section = section.replace("exec = ", &format!("exec = {} ", limits.join(" ")));
    let daemon = Daemon::start(&module, &section);
    let options = ["-HAX", "--sparse", "--numeric-ids", "--delete"];
    let options = if is_root() { &options[..] } else { &options[1..] };

    let push = daemon.push(&source, NAME, options);
    // A user may not make devices, nor keep what is another's.
    push.exits(if is_root() { &[0] } else { &[0, 23] });
    assert_eq!(daemon.await_last_hook(1), GOOD);
    let names = module.snapshots();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_same_listing(&module.latest, &module.snapshot(&names[0]));
    let levels = listing(&module.snapshot(&names[0]).join("deep")).len();
    assert_eq!(levels, RSYNC_LEVELS + RSYNC_LEVELS / 100);
    let sparse = fs::metadata(module.snapshot(&names[0]).join("sparse")).expect("the sparse file");
    assert_eq!((sparse.size(), sparse.blocks()), (16 << 20, 0));
    assert_eq!(
        fs::metadata(module.snapshot(&names[0]).join("set-uid file")).expect("it").mode() & 0o7777,
        0o6755
    );
    for name in ["all names", "odd names"] {
        let pushed = fingerprint::contents(&source.join(name));
        assert!(pushed == fingerprint::contents(&module.snapshot(&names[0]).join(name)), "{name}");
    }

    // Nothing has changed.
    daemon.push(&source, NAME, options).exits(if is_root() { &[0] } else { &[0, 23] });
    assert_eq!(daemon.await_last_hook(2), GOOD);
    assert_eq!(module.snapshots(), names);

    // All of it goes, and so does its snapshot.
    module.rename_to_the_past(&names[0], "2001-02-03T04-05-06Z");
    let empty = module.directory.join("empty");
    fs::create_dir(&empty).expect("a directory");
    daemon.push(&empty, NAME, options).exits(&[0]);
    assert_eq!(daemon.await_last_hook(3), GOOD);
    assert_eq!(module.snapshots().len(), 1, "{:?}", module.snapshots());
    let mut rotation = Command::new(&limits[0]);
    rotation.args(&limits[1..]).arg(BINARY);
    module.prepare(&mut rotation);
    Run::of(rotation.args(["rotate", NAME, "--confirm", "--purge"])).exits(&[0]);
    assert_eq!((module.left_over("expired"), module.left_over("staging")), (0, 0));
}
