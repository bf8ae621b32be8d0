//! Trees as extreme as a client can make them, under limits as tight as a service may have: 64
//! descriptors, 1 MiB of stack, and 64 MiB of address space besides what the program needs for an
//! empty module.
//!
//! That need is measured: it is the smallest limit under which a hook takes a snapshot of an empty
//! module. Address space is more than memory: the program itself, its libraries, and the stacks of
//! its threads all count.
//!
//! Under these limits every kind of run has to work: the first snapshot, the comparison with the
//! index and without, a snapshot made afresh and one made out of a retired one, one of which
//! everything has gone, and removal. `RSYNCD_SNAPSHOT_SWEEP=full` asks for a directory of a million
//! entries and for deeper trees.

use crate::support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Instant;

use rustix::fs::{FileType, Mode, OFlags, mkdirat, mknodat, openat, symlinkat};
use support::daemon::{Daemon, GOOD};
use support::file_system::{FileSystem, Kind};
use support::module::{Module, NAME};
use support::run::{Run, tool};
use support::simulated::{EXPIRING, Simulated, settle};
use support::{by_sweep, fingerprint, have, is_full_sweep, is_root, tree};

/// Each push expires the snapshot before the newest, however much it changes.
static POLICY: LazyLock<String> = LazyLock::new(|| format!("{EXPIRING}anomaly_share = \"100%\"\n"));

// -- Limits ---------------------------------------------------------------------------------------

/// What a run may have besides what one over an empty module needs.
const HEADROOM_KIBIBYTES: u64 = 64 << 10;

/// How exactly that need is measured.
const PRECISION_KIBIBYTES: u64 = 256;

/// Commands of a shell that limit itself.
fn limits(address_space_kibibytes: u64) -> String {
    format!("ulimit -n 64; ulimit -s 1024; ulimit -v {address_space_kibibytes};")
}

/// A program and arguments that start another one, which follows, under limits.
fn wrapper(limits: &str) -> [String; 3] {
    ["sh".into(), "-c".into(), format!("{limits} exec \"$0\" \"$@\"")]
}

/// The limits for a program with which `run` takes a snapshot of an empty module.
fn tight_limits(what: &str, run: impl Fn(&[String]) -> Run) -> String {
    let works = |kibibytes: u64| run(&wrapper(&limits(kibibytes))).code() == Some(0);
    let (mut too_little, mut enough) = (0, 1 << 20);
    assert!(works(enough), "{what} needs more than a GiB");
    while enough - too_little > PRECISION_KIBIBYTES {
        let middle = too_little.midpoint(enough);
        if works(middle) { enough = middle } else { too_little = middle }
    }
    println!("{what} needs {enough} KiB of address space for an empty module");
    limits(enough + HEADROOM_KIBIBYTES)
}

static LIMITS_OF_PROGRAM: LazyLock<String> = LazyLock::new(|| {
    let place = Place::new();
    tight_limits("the program", |wrapper| Run::of(&mut place.empty_module().hook_through(wrapper)))
});

/// Of the hook whose time passes as a test will have it.
static LIMITS_OF_SIMULATED: LazyLock<String> = LazyLock::new(|| {
    let place = Place::new();
    tight_limits("the simulated hook", |wrapper| {
        let words: Vec<_> = wrapper.iter().map(String::as_str).collect();
        Run::of(&mut Simulated::new(place.empty_module(), &POLICY).hook_through(&words))
    })
});

/// Where modules are: in memory where that can be, so that no run waits for a disk.
struct Place(Option<FileSystem>);

impl Place {
    fn new() -> Place {
        Place(FileSystem::with(Kind::Tmpfs, 512, &[]))
    }

    /// The one module there, afresh.
    fn empty_module(&self) -> Module {
        let Some(file_system) = &self.0 else { return Module::new() };
        let module = Module::on(file_system);
        fs::remove_dir_all(&module.root).expect("removed");
        Module::on(file_system)
    }
}

/// Whatever a tree is like, its record is small.
const RECORD_BYTES: u64 = 64 << 10;

// -- Trials ---------------------------------------------------------------------------------------

/// A module for extreme trees.
struct Trial {
    module: Simulated,
    _place: Place,
}

impl Trial {
    fn new() -> Trial {
        let place = Place::new();
        Trial { module: Simulated::new(place.empty_module(), &POLICY), _place: place }
    }

    /// An hour later the hook runs under the limits; if it makes a snapshot, that is the module.
    #[track_caller]
    fn run(&self, what: &str, makes_one: bool) {
        settle();
        self.module.pass(1);
        let began = Instant::now();
        let wrapper = wrapper(&LIMITS_OF_SIMULATED);
        let run = Run::of(&mut self.module.hook_through(&wrapper.each_ref().map(String::as_str)))
            .exits(&[0]);
        println!("{what}: {:.1?}", began.elapsed());
        let snapshot = self.module.snapshot(&self.module.name());
        assert_eq!(snapshot.exists(), makes_one, "{what}: {run}");
        if makes_one {
            fingerprint::assert_same_at_any_depth(&self.module.latest, &snapshot);
            let record = self.module.private(&format!("records/{}.toml", self.module.name()));
            assert!(fs::metadata(record).expect("the record").len() < RECORD_BYTES, "{what}");
        }
    }

    #[track_caller]
    fn run_recycling(&self, what: &str) {
        self.run(what, true);
        // Only root may recycle.
        assert_eq!(self.module.recycled(&self.module.name()).is_some(), is_root(), "{what}");
    }

    /// Every kind of run over the tree in the module, to which `change` can add a file of some
    /// name.
    #[track_caller]
    fn survive(&self, change: impl Fn(&str)) {
        self.run("first", true);
        self.run("unchanged", false);
        change("new 1");
        self.run("afresh", true);
        change("new 2");
        self.run_recycling("recycled");
        fs::remove_dir_all(self.module.private("index")).expect("the indexes");
        change("new 3");
        self.run_recycling("recycled without an index");
        self.module.write_policy(&format!("{}full_comparison = \"0s\"\n", *POLICY));
        self.run("compared", false);
        self.module.write_policy(&POLICY);
        fs::rename(&self.module.latest, self.module.root.with_file_name("aside")).expect("moved");
        fs::create_dir(&self.module.latest).expect("an empty module");
        self.run_recycling("emptied");
    }

    /// The program itself, to which years have passed, removes the last tree but one.
    #[track_caller]
    fn remove(&self) {
        let began = Instant::now();
        assert_removed(&self.module, &LIMITS_OF_PROGRAM, &[0, 4]);
        println!("removed: {:.1?}", began.elapsed());
    }
}

impl Drop for Trial {
    /// What std removes a directory with is no match for such a tree.
    fn drop(&mut self) {
        for path in [&self.module.root, &self.module.root.with_file_name("aside")] {
            let _ = tool("rm").arg("-rf").arg(path).status();
        }
    }
}

/// `rotate` leaves nothing of what is retired.
#[track_caller]
fn assert_removed(module: &Module, limits: &str, exits: &[i32]) {
    assert_eq!(module.left_over("expired"), 1, "there was nothing to remove");
    let mut rotation =
        module.command_through(&wrapper(limits), &["rotate", NAME, "--confirm", "--purge"]);
    Run::of(&mut rotation).exits(exits);
    assert_eq!((module.left_over("expired"), module.left_over("staging")), (0, 0));
}

// -- Trees ----------------------------------------------------------------------------------------

fn make_file(parent: &OwnedFd, name: impl rustix::path::Arg) {
    mknodat(parent, name, FileType::RegularFile, Mode::from_raw_mode(0o640), 0).expect("a file");
}

/// Directories called `name` in each other, with a file at every hundredth level; returns the last.
fn chain(top: &Path, name: &str, levels: usize) -> OwnedFd {
    let mut directory = OwnedFd::from(File::open(top).expect("the top"));
    for level in 0..levels {
        mkdirat(&directory, name, Mode::from_raw_mode(0o750)).expect("a directory");
        if level % 100 == 0 {
            make_file(&directory, "file");
        }
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        directory =
            openat(&directory, name, flags, Mode::empty()).expect("the directory just made");
    }
    directory
}

/// A chain in the module is survived, though its first and its last directory change each time.
fn assert_a_chain_is_survived(name: &str, levels: usize) -> Trial {
    let trial = Trial::new();
    let bottom = chain(&trial.module.latest, name, levels);
    // As rsync would call them while it writes them. Such files are recorded.
    (0..20).for_each(|number| make_file(&bottom, format!(".f.{number:06}")));
    trial.survive(|text| {
        make_file(&bottom, text);
        fs::write(trial.module.latest.join(text), text).expect("a file");
    });
    trial
}

/// A run keeps about half a kilobyte for each level of the way down: 100,000 would be too many
/// under these limits.
#[test]
fn a_tree_of_ten_thousand_levels_is_no_obstacle() {
    assert_a_chain_is_survived("d", by_sweep(3_000, 10_000, 50_000));
}

#[test]
fn a_deep_tree_with_the_longest_of_names_is_no_obstacle() {
    assert_a_chain_is_survived(&"n".repeat(255), if is_full_sweep() { 20_000 } else { 1_000 })
        .remove();
}

/// The simulated hook does not confine itself, but the program does. Then the kernel asks at each
/// call about each directory above, so that the time grows with the square of the depth.
#[test]
fn a_confined_program_survives_a_deep_tree() {
    slow!();
    let place = Place::new();
    let module = place.empty_module();
    module.write_policy(ONE_OF_A_YEAR);
    chain(&module.latest, "d", if is_full_sweep() { 20_000 } else { 1_000 });
    for year in [2001, 2002, 2003] {
        tree::write(&module.latest.join("year"), &year.to_string());
        let began = Instant::now();
        let run = Run::of(
            &mut module.hook_through(&wrapper(&LIMITS_OF_PROGRAM).each_ref().map(String::as_str)),
        );
        println!("{year}: {:.1?}", began.elapsed());
        run.exits(&[0]);
        let name = module.snapshots().pop().expect("a snapshot");
        fingerprint::assert_same_at_any_depth(&module.latest, &module.snapshot(&name));
        module.date_back(&name, &format!("{year}-02-03T04-05-06Z"));
    }
    assert_removed(&module, &LIMITS_OF_PROGRAM, &[0]);
    tool("rm").arg("-rf").arg(&module.root).status().expect("rm");
}

#[test]
fn a_directory_of_very_many_entries_is_no_obstacle() {
    let trial = Trial::new();
    let directory = OwnedFd::from(File::open(&trial.module.latest).expect("the module"));
    for number in 0..by_sweep(5_000, 20_000, 1_000_000) {
        let name = format!("entry {number:07}");
        // A few directories, links and pipes among the files.
        match number % 1_000 {
            0 => mkdirat(&directory, &name, Mode::from_raw_mode(0o755)).expect("a directory"),
            1 => symlinkat("nowhere", &directory, &name).expect("a link"),
            2 => mknodat(&directory, &name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                .expect("a pipe"),
            _ => make_file(&directory, &name),
        }
    }
    trial.survive(|text| make_file(&directory, text));
    trial.remove();
}

// -- A real client --------------------------------------------------------------------------------

/// For each byte that a name can hold, a directory of that name and one of the greatest length,
/// with a file of the same name.
fn every_name(directory: &Path) {
    for byte in (1..=255u8).filter(|byte| *byte != b'/') {
        for length in [1, 255] {
            let name = vec![byte; length];
            // `.` has a meaning of its own.
            let name = OsStr::from_bytes(if name == b"." { b"..." } else { &name });
            fs::create_dir_all(directory.join(name)).expect("a directory");
            fs::write(directory.join(name).join(name), byte.to_string()).expect("a file");
        }
    }
}

/// About as deep as each stock rsync goes: 3.5 refuses 1,024 levels from `/` on, and its effort
/// grows with the square of the depth; others go on until a path has 4,095 bytes.
const RSYNC_LEVELS: usize = 1_000;

fn rsync_levels() -> usize {
    if is_full_sweep() { RSYNC_LEVELS } else { RSYNC_LEVELS / 8 }
}

const SPARSE_BYTES: u64 = 16 << 20;

/// What a client can push: every type and attribute, every name, a deep tree, and a file of nothing
/// but a hole.
fn source(module: &Module) -> PathBuf {
    let source = module.directory.join("source");
    tree::every_type(&source);
    every_name(&source.join("all names"));
    fs::create_dir(source.join("deep")).expect("a directory");
    // This one is counted, too.
    chain(&source.join("deep"), "d", rsync_levels() - 1);
    File::create(source.join("sparse"))
        .and_then(|file| file.set_len(SPARSE_BYTES))
        .expect("a sparse file");
    source
}

/// Each snapshot expires the one before, if that is dated back to another year.
const ONE_OF_A_YEAR: &str = "[defaults]\nkeep = { yearly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\nanomaly_share = \"100%\"\n";

/// A module whose daemon runs both hooks under the limits, and its client.
struct Server<'a> {
    module: &'a Module,
    daemon: Daemon<'a>,
    pushes: std::cell::Cell<usize>,
}

impl Server<'_> {
    fn new(module: &Module) -> Server<'_> {
        module.write_policy(ONE_OF_A_YEAR);
        let section = Daemon::pair_section(module, NAME, &module.latest, "");
        let section = section.replace("exec = ", &format!("exec = {} ", *LIMITS_OF_PROGRAM));
        Server { module, daemon: Daemon::start(module, &section), pushes: 0.into() }
    }

    /// Pushes all of `source`, with whatever stock rsync can keep.
    #[track_caller]
    fn push(&self, source: &Path) {
        let options = ["-HAX", "--sparse", "--numeric-ids", "--delete"];
        let push = self.daemon.push(source, NAME, &options);
        // A user may not make devices, nor keep what is another's.
        push.exits(if is_root() { &[0] } else { &[0, 23] });
        self.pushes.set(self.pushes.get() + 1);
        assert_eq!(self.daemon.await_last_hook(self.pushes.get()), GOOD);
    }

    /// Pushes `source`, from which a snapshot is made that is the module; it becomes one of another
    /// year, so that the next one expires it.
    #[track_caller]
    fn publish(&self, source: &Path, year: u32) -> PathBuf {
        let before = self.module.snapshots();
        self.push(source);
        let mut new = self.module.snapshots();
        new.retain(|name| !before.contains(name));
        assert_eq!(new.len(), 1, "{new:?}");
        fingerprint::assert_same_at_any_depth(&self.module.latest, &self.module.snapshot(&new[0]));
        let name = format!("{year}-02-03T04-05-06Z");
        self.module.date_back(&new[0], &name);
        self.module.snapshot(&name)
    }
}

#[test]
fn what_a_stock_client_pushes_is_no_obstacle() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let place = Place::new();
    let module = place.empty_module();
    let source = source(&module);
    let server = Server::new(&module);

    assert_all_has_come(&source, &server.publish(&source, 2001));
    fs::write(source.join("new"), "new").expect("a file");
    server.publish(&source, 2002);
    assert_eq!((module.snapshots().len(), module.left_over("expired")), (1, 1));
    fs::write(source.join("newer"), "newer").expect("a file");
    assert_all_has_come(&source, &server.publish(&source, 2003));
    let work = module.record("2003-02-03T04-05-06Z")["work"].clone();
    assert_eq!(work.get("recycled").is_some(), is_root(), "{work:?}");
    assert_removed(&module, &LIMITS_OF_PROGRAM, &[0]);

    server.push(&source);
    assert_eq!(module.snapshots().len(), 1, "nothing has changed");
    let empty = module.directory.join("empty");
    fs::create_dir(&empty).expect("a directory");
    server.publish(&empty, 2004);
}

/// The tree is what the client had, and not something that the two ends agreed to leave out.
#[track_caller]
fn assert_all_has_come(source: &Path, snapshot: &Path) {
    for name in ["all names", "odd names"] {
        assert!(
            fingerprint::contents(&source.join(name))
                == fingerprint::contents(&snapshot.join(name)),
            "{name}"
        );
    }
    let inspect = |name: &str| fs::symlink_metadata(snapshot.join(name)).expect(name);
    assert!(inspect(&format!("deep{}", "/d".repeat(rsync_levels() - 1))).is_dir());
    assert!(inspect("socket").file_type().is_socket() && inspect("fifo").file_type().is_fifo());
    assert!(!is_root() || inspect("disk").file_type().is_block_device());
    let sparse = inspect("sparse");
    assert_eq!((sparse.size(), sparse.blocks()), (SPARSE_BYTES, 0));
    assert_eq!((inspect("empty").size(), inspect("set-uid file").mode() & 0o7777), (0, 0o6755));
}
