//! No option of a stock rsync client rewrites a snapshot: a sweep over rsync's whole option table.
//!
//! A module whose snapshot shares its files is pushed to with every option that a client can have,
//! and with each of them at the server only (`-M`), alone, then in pairs of those that touch
//! writing, then in random combinations. After each push the snapshot is compared with what it was:
//! content, size, kind and names must be the same. Modes, owners and attributes of shared files may
//! differ, as SECURITY.md says, and times of symbolic links, and of files with `-c` and
//! `--size-only`. Over subvolumes nothing may differ. The module is reached by three names: with
//! munged symbolic links, without, and with the filter that `check` recommends. After some pushes
//! the module is put back, so that others build on what an earlier push has left.
//!
//! `RSYNCD_SNAPSHOT_SWEEP=full` sweeps all; by default a sample of it runs for fifteen seconds.
//! `RSYNCD_SNAPSHOT_RSYNC` names another rsync, whose daemon is used, `RSYNCD_SNAPSHOT_SWEEP_GATE`
//! another program for the pre-xfer hook, to see that the sweep finds the holes of an earlier
//! version, and `RSYNCD_SNAPSHOT_SWEEP_SEED` other random combinations.

use crate::support;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use support::daemon::{Daemon, program};
use support::module::Module;
use support::random::Random;
use support::run::{Run, tool};
use support::subvolumes::are_subvolumes;
use support::{BINARY, by_sweep, have, is_full_sweep, is_root, tree};

/// How many random combinations there are.
const RANDOM: usize = 10_000;

/// How long a sample takes.
const SAMPLE: Duration = Duration::from_secs(15);
const QUICK_SAMPLE: Duration = Duration::from_secs(4);

const WORKERS: usize = 4;

/// After so long a push is killed, whatever it waits for.
const LONGEST_PUSH: &str = "4s";

/// Directories that exist in the module, as the values of options that take one.
const DIRECTORIES: [&str; 13] = [
    "docs",
    "/docs",
    "a/docs",
    "/a/docs",
    "a",
    "../docs",
    ".",
    ".rsync-partial",
    "/.rsync-partial",
    "/a/.rsync-partial",
    ".~tmp~",
    "link",
    "into_partial",
];

/// Options without a value that a client takes in a push.
#[rustfmt::skip]
const SWITCHES: &[&str] = &[
    "-v", "-q", "--no-motd", "-c", "-a", "-r", "-R", "--no-implied-dirs", "-b", "-u", "--inplace", "--append",
    "--append-verify", "-d", "--old-dirs", "--mkpath", "-l", "-L", "--copy-unsafe-links", "--safe-links",
    "--munge-links", "-k", "-K", "-H", "-p", "-E", "-A", "-X", "-o", "-g", "--devices", "--specials", "-D",
    "--copy-devices", "--write-devices", "-t", "-U", "-N", "-O", "-J", "--open-noatime", "--super",
    "--no-super", "--fake-super", "-S", "--preallocate", "-n", "-W", "--no-whole-file", "-x", "--existing",
    "--ignore-existing", "--remove-source-files", "--del", "--delete", "--delete-before", "--delete-during",
    "--delete-delay", "--delete-after", "--delete-excluded", "--ignore-missing-args", "--delete-missing-args",
    "--ignore-errors", "--force", "--partial", "--delay-updates", "-m", "--numeric-ids", "-I", "--size-only", "-y",
    "-yy", "-z", "--new-compress", "--old-compress", "-C", "-0", "-s", "--no-s", "--old-args", "--trust-sender",
    "--stats", "-8", "-h", "--progress", "-P", "-i", "--fsync", "--list-only", "-4", "--qsort", "--no-r",
    "--no-inc-recursive", "--no-t", "--no-p", "--no-g", "--no-o", "--no-l", "--no-D", "--no-H", "--no-delay-updates",
    "--no-inplace", "--no-partial", "--no-O", "--no-bwlimit", "--drop-D", "--msgs2stderr", "--blocking-io",
];

/// Options with a value that is no directory.
#[rustfmt::skip]
const VALUES: &[&str] = &[
    "--suffix=.doc", "--suffix=~", "--chmod=F600", "--chmod=Du+w,Fo-r", "--chown=nobody", "--usermap=*:nobody",
    "--groupmap=*:nogroup", "--checksum-choice=md5", "--checksum-choice=md4", "--cc=none", "-B=700",
    "--block-size=512", "--max-delete=1", "--max-delete=0", "--max-size=100", "--min-size=100", "--max-alloc=1g",
    "--modify-window=-1", "--modify-window=100000000", "-@10", "--skip-compress=doc", "--compress-choice=zlib",
    "--compress-level=1", "--filter=- docs/", "--filter=P report.doc", "--exclude=a", "--include=.rsync-partial/",
    "--include=.~tmp~/", "--info=all0", "--debug=none", "--stderr=all", "--outbuf=L", "--out-format=%n",
    "--protocol=29", "--protocol=30", "--protocol=31", "--checksum-seed=1", "--stop-after=1", "--bwlimit=10000",
    "--sockopts=SO_KEEPALIVE", "--copy-as=root", "--iconv=utf-8,utf-8", "--contimeout=5", "--timeout=9",
    "--files-from={source}/list", "--log-file={scratch}/log", "--write-batch={scratch}/batch",
    "--only-write-batch={scratch}/batch", "--zl=1", "--partial-dir=", "--zc=none",
];

/// Options whose value is a directory.
const PLACES: [&str; 6] =
    ["--partial-dir", "--backup-dir", "--temp-dir", "--compare-dest", "--copy-dest", "--link-dest"];

/// The options that touch how files are written; pairs of them are tried.
const WRITING: [&str; 26] = [
    "-b",
    "-u",
    "--inplace",
    "--append",
    "--append-verify",
    "-K",
    "-H",
    "-L",
    "-S",
    "-W",
    "--no-whole-file",
    "-c",
    "-I",
    "--size-only",
    "-y",
    "--delay-updates",
    "--partial",
    "--preallocate",
    "--fake-super",
    "-R",
    "--delete",
    "--protocol=29",
    "--no-inc-recursive",
    "--write-devices",
    "--include=.rsync-partial/",
    "-n",
];

/// What is pushed, below the client's directory; files of one name meet in the module.
const SOURCES: [&[&str]; 7] = [
    &["one/"],
    &["two/"],
    &["one/", "two/"],
    &["one/report.doc"],
    &["one/report.doc", "one/a/docs/report.doc"],
    &["two", "one/docs"],
    &["links/"],
];

/// Pushes of `links/` in which a link leads rsync to files that the snapshot shares.
const LINKED: [&str; 4] = [
    "-a --partial-dir=.rsync-partial",
    "-a --delay-updates",
    "-a --partial-dir=.rsync-partial --backup-dir=into_partial -b",
    "-a --delay-updates --backup-dir=into_partial -b",
];

const DESTINATIONS: [&str; 6] = ["", "docs/", "a/", "a/docs/", ".rsync-partial/", "report.doc"];

fn options() -> Vec<String> {
    let mut all: Vec<String> = SWITCHES.iter().chain(VALUES).map(ToString::to_string).collect();
    for option in PLACES {
        all.extend(DIRECTORIES.iter().map(|directory| format!("{option}={directory}")));
    }
    let remote: Vec<String> = all.iter().map(|option| format!("-M{option}")).collect();
    all.extend(remote);
    all
}

fn writing() -> Vec<String> {
    let places = ["docs", ".rsync-partial", "/a/.rsync-partial"];
    let of = |option: &&str| places.map(|place| format!("{option}={place}"));
    WRITING.iter().map(ToString::to_string).chain(PLACES.iter().flat_map(of)).collect()
}

/// One push: what it is for the client, and whether the module is put back before it.
#[derive(Debug, Clone)]
struct Push {
    options: Vec<String>,
    sources: &'static [&'static str],
    destination: &'static str,
    is_fresh: bool,
    module: &'static str,
}

/// The names of the module, with what `rsyncd.conf` says of each.
const MODULES: [(&str, &str); 3] = [
    ("data", ""),
    ("unmunged", "munge symlinks = no"),
    (
        "filtered",
        "munge symlinks = no\n    filter = + .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~",
    ),
];

fn pushes() -> Vec<Push> {
    let options = options();
    let one = |options: Vec<String>, number: usize| Push {
        options,
        sources: SOURCES[number % SOURCES.len()],
        destination: "",
        is_fresh: true,
        module: MODULES[number / 2 % MODULES.len()].0,
    };
    let base = || "-a".to_string();
    // First what the sample must not miss: links that come with the push, through each of the
    // modules.
    let mut all: Vec<Push> = Vec::new();
    for options in LINKED {
        let options: Vec<String> = options.split(' ').map(String::from).collect();
        all.extend(MODULES.map(|(module, _)| Push { module, ..one(options.clone(), 6) }));
    }
    // With the sources that collide, then without -a with others.
    all.extend(options.iter().map(|option| one(vec![base(), option.clone()], 2)));
    let writing = writing();
    for (number, first) in writing.iter().enumerate() {
        let pair = |second: &String| one(vec![base(), first.clone(), second.clone()], 2);
        all.extend(writing[number + 1..].iter().map(pair));
    }
    let seed = std::env::var("RSYNCD_SNAPSHOT_SWEEP_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut random = Random::new(seed.unwrap_or(1));
    for _ in 0..RANDOM {
        let mut chosen =
            vec![random.of(&["-a", "-a", "-rlt", "-rI", "-aH", "-r"]).expect("one").to_string()];
        for _ in 0..1 + random.below(5) {
            let list = if random.once_in(2) { &writing } else { &options };
            chosen.extend(random.of(list).cloned());
        }
        all.push(Push {
            options: chosen,
            sources: random.of(&SOURCES).expect("one"),
            destination: if random.once_in(2) {
                ""
            } else {
                random.of(&DESTINATIONS).expect("one")
            },
            is_fresh: random.once_in(3),
            module: random.of(&MODULES).expect("one").0,
        });
    }
    all
}

/// What is compared of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    kind: u32,
    content: Vec<u8>,
    mtime: (i64, i64),
    /// Mode, owner and group.
    attributes: (u32, u32, u32),
}

type Tree = BTreeMap<PathBuf, State>;

fn state(path: &Path) -> State {
    let metadata = fs::symlink_metadata(path).expect("an entry");
    let content = match metadata.file_type() {
        kind if kind.is_file() => fs::read(path).expect("a file"),
        kind if kind.is_symlink() => {
            fs::read_link(path).expect("a link").into_os_string().into_encoded_bytes()
        }
        _ => Vec::new(),
    };
    State {
        kind: metadata.mode() & 0o170_000,
        content,
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        attributes: (metadata.mode() & 0o7_777, metadata.uid(), metadata.gid()),
    }
}

fn read_tree(directory: &Path, prefix: &Path, tree: &mut Tree) {
    tree.insert(prefix.to_path_buf(), state(directory));
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let (path, name) = (entry.path(), prefix.join(entry.file_name()));
        match entry.file_type().expect("a type").is_dir() {
            true => read_tree(&path, &name, tree),
            false => drop(tree.insert(name, state(&path))),
        }
    }
}

fn tree_of(directory: &Path) -> Tree {
    let mut tree = Tree::new();
    read_tree(directory, Path::new(""), &mut tree);
    tree
}

/// What of a snapshot has changed though no push may change it, and whether anything has changed at
/// all.
fn damage(before: &Tree, after: &Tree, options: &[String]) -> (Option<String>, bool) {
    // With these, alone or in a cluster, files of other times pass for equal, and get the times.
    let sets_times = options.iter().any(|option| {
        let option = option.trim_start_matches("-M");
        let cluster = option.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
        option == "--size-only"
            || option.starts_with("--modify-window")
            || option.starts_with("-@")
            || cluster.is_some_and(|letters| letters.contains('c'))
    });
    if before == after {
        return (None, false);
    }
    if before.keys().ne(after.keys()) {
        return (Some("its names".to_string()), true);
    }
    for (path, was) in before {
        let is = &after[path];
        let is_regular = was.kind == 0o100_000;
        // A subvolume shares nothing that a client can change.
        let is_shared = was.kind != 0o040_000 && !are_subvolumes();
        let what = if was.kind != is.kind {
            "the kind"
        } else if was.content != is.content {
            "the content"
        } else if was.mtime != is.mtime && !(is_shared && (sets_times || !is_regular)) {
            "the time"
        } else if was.attributes != is.attributes && !is_shared {
            "the attributes"
        } else {
            continue;
        };
        return (Some(format!("{what} of {}", path.display())), true);
    }
    (None, true)
}

/// A server with one module, its snapshot, and the client's files.
struct Bench<'a> {
    module: &'a Module,
    daemon: Daemon<'a>,
    snapshot: PathBuf,
    before: Tree,
    /// Files of the module that the snapshot has as copies, and everything else of it.
    pristine: PathBuf,
    source: PathBuf,
    killed: usize,
    turned_away: usize,
}

fn write(path: &Path, content: &[u8], hours: u64) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, content).expect("a file");
    tree::set_mtime(
        path,
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + hours * 3_600),
    );
}

/// Fills the module: one name in many places, partial directories, links.
fn fill_module(latest: &Path) {
    let mut random = Random::new(7);
    for (number, name) in [
        "report.doc",
        "docs/report.doc",
        "a/docs/report.doc",
        "a/report.doc",
        "docs/other",
        "a/docs/old~",
    ]
    .iter()
    .enumerate()
    {
        write(&latest.join(name), &random.bytes(3_000 + number), 1);
    }
    for name in [".rsync-partial/report.doc", "a/.rsync-partial/report.doc", "a/.~tmp~/report.doc"]
    {
        write(&latest.join(name), &random.bytes(1_500), 1);
    }
    symlink("docs", latest.join("link")).expect("a link");
    symlink("report.doc", latest.join("docs/link.doc")).expect("a link");
    fs::hard_link(latest.join("docs/other"), latest.join("a/hard")).expect("a hard link");
}

fn fill_source(source: &Path) {
    let mut random = Random::new(8);
    // Of other size and time, then of the same ones.
    write(&source.join("one/report.doc"), &random.bytes(4_000), 2);
    write(&source.join("one/docs/report.doc"), &random.bytes(3_001), 1);
    write(&source.join("one/a/docs/report.doc"), &random.bytes(2_000), 2);
    write(&source.join("two/report.doc"), &random.bytes(3_000), 3);
    write(&source.join("two/a/report.doc"), &random.bytes(5_000), 3);
    write(&source.join("two/docs/other"), &random.bytes(3_004), 1);
    write(&source.join("links/report.doc"), &random.bytes(3_500), 2);
    write(&source.join("links/docs/report.doc"), &random.bytes(3_500), 2);
    for (from, to) in
        [("docs/report.doc", "a/.rsync-partial/report.doc"), ("report.doc", ".~tmp~/x")]
    {
        fs::create_dir_all(source.join("links").join(to).parent().expect("a parent"))
            .expect("a directory");
        fs::hard_link(source.join("links").join(from), source.join("links").join(to))
            .expect("a hard link");
    }
    symlink("docs", source.join("links/.rsync-partial")).expect("a link");
    symlink("../a/docs", source.join("links/docs/.rsync-partial")).expect("a link");
    symlink("../a/docs", source.join("links/docs/.~tmp~")).expect("a link");
    symlink("docs/.rsync-partial", source.join("links/into_partial")).expect("a link");
    symlink("../docs/report.doc", source.join("links/a/report.doc")).expect("a link");
    fs::write(source.join("list"), "report.doc\ndocs/report.doc\na\n").expect("a list");
}

impl<'a> Bench<'a> {
    fn new(module: &'a Module) -> Self {
        module.write_policy("[defaults]\nlog_level = \"error\"\n");
        fill_module(&module.latest);
        let name = module.expect_snapshot();
        let gate = std::env::var("RSYNCD_SNAPSHOT_SWEEP_GATE").unwrap_or(BINARY.to_string());
        let command = program(module).replace(BINARY, &gate);
        let account = if is_root() { "uid = root\ngid = root\n" } else { "" };
        // Without post-xfer, which would take a snapshot for each push.
        let sections = MODULES.map(|(name, settings)| {
            let path = module.latest.display();
            format!(
                "[{name}]\n    path = {path}\n    read only = no\n    pre-xfer exec = {command} pre-xfer\n    {settings}\n"
            )
        });
        module.write_rsyncd_conf(&format!("use chroot = no\n{account}{}", sections.concat()));
        let pristine = module.directory.join("pristine");
        let copy = Run::of(tool("cp").arg("-a").arg(&module.latest).arg(&pristine));
        copy.exits(&[0]);
        let source = module.directory.join("client");
        fill_source(&source);
        let snapshot = module.snapshot(&name);
        let before = tree_of(&snapshot);
        let daemon = Daemon::serve(module);
        Bench { module, daemon, snapshot, before, pristine, source, killed: 0, turned_away: 0 }
    }

    /// Makes the module what it was, sharing what it shared.
    fn restore(&self) {
        let latest = &self.module.latest;
        for entry in fs::read_dir(latest).expect("the module") {
            let path = entry.expect("an entry").path();
            let is_directory = path.symlink_metadata().expect("metadata").is_dir();
            if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
                .expect("removed");
        }
        if are_subvolumes() {
            let mut copy = tool("cp");
            copy.arg("-a").arg(self.pristine.join(".")).arg(latest);
            Run::of(&mut copy).exits(&[0]);
        }
        let linked = self.before.iter().filter(|_| !are_subvolumes());
        for (name, was) in linked.filter(|(name, _)| !name.as_os_str().is_empty()) {
            let (to, shared) = (latest.join(name), self.snapshot.join(name));
            let is_partial = name.components().any(|part| {
                [".rsync-partial", ".~tmp~"].iter().any(|partial| part.as_os_str() == *partial)
            });
            match was.kind {
                0o040_000 => fs::create_dir(&to).expect("a directory"),
                _ if is_partial => drop(fs::copy(self.pristine.join(name), &to).expect("a copy")),
                _ => fs::hard_link(&shared, &to).expect("a link"),
            }
        }
        fs::set_permissions(latest, fs::Permissions::from_mode(0o755)).expect("a mode");
        let _ = fs::remove_dir_all(&self.source);
        fill_source(&self.source);
    }

    /// Gives the files of the snapshot the attributes that they had.
    fn reset_attributes(&self) {
        for (name, was) in self.before.iter().filter(|(_, was)| was.kind == 0o100_000) {
            let path = self.snapshot.join(name);
            let (mode, user, group) = was.attributes;
            let _ = std::os::unix::fs::chown(&path, Some(user), Some(group));
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            let since = Duration::new(was.mtime.0.cast_unsigned(), was.mtime.1 as u32);
            tree::set_mtime(&path, SystemTime::UNIX_EPOCH + since);
        }
    }

    /// Pushes, and returns what it has damaged.
    fn push(&mut self, push: &Push) -> Option<String> {
        if push.is_fresh {
            self.restore();
        }
        let fill = |text: &String| {
            let text = text.replace("{source}", self.source.to_str().expect("UTF-8"));
            OsString::from(
                text.replace("{scratch}", self.module.directory.to_str().expect("UTF-8")),
            )
        };
        // An option at one side only can leave both waiting for each other, and then no timeout
        // ends it.
        let mut command = tool("timeout");
        command.args(["--signal=KILL", LONGEST_PUSH, "rsync", "--timeout=20"]).stdin(Stdio::null());
        command.args(push.options.iter().map(fill));
        command.args(push.sources.iter().map(|source| self.source.join(source)));
        command.arg(self.daemon.url(&format!("{}/{}", push.module, push.destination)));
        let run = Run::of(&mut command);
        self.killed += usize::from(run.signal().is_some() || run.code() == Some(137));
        self.turned_away += usize::from(run.stderr().contains("pre-xfer exec returned failure"));
        self.await_server();
        let after = tree_of(&self.snapshot);
        let (damage, has_changed) = damage(&self.before, &after, &push.options);
        if has_changed && damage.is_none() {
            self.reset_attributes();
            self.before = tree_of(&self.snapshot);
        }
        damage
    }

    /// Waits until no process serves a client any more.
    fn await_server(&self) {
        let pid = self.daemon.process_id();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let until = Instant::now() + Duration::from_secs(30);
        while fs::read_to_string(&children).is_ok_and(|pids| !pids.is_empty())
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn no_option_of_a_stock_client_rewrites_a_snapshot() {
    slow!();
    if !have(&["rsync", "cp", "timeout"]) {
        return;
    }
    let pushes = pushes();
    let is_full = is_full_sweep();
    let (next, ran, damaged) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let (killed, turned_away) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let began = Instant::now();
    // In chunks, since a push may build on the one before; a sample takes chunks from all of the
    // list.
    const CHUNK: usize = 12;
    let chunks: Vec<&[Push]> = pushes.chunks(CHUNK).collect();
    let stride = if is_full { 1 } else { 7 };
    let work = || {
        let module = Module::new();
        let mut bench = Some(Bench::new(&module));
        let mut spare: Vec<&'static Module> = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number % 100 == 99 {
                let so_far = ran.load(Ordering::Relaxed);
                eprintln!("{so_far} pushes after {:.0} s", began.elapsed().as_secs_f64());
            }
            if number >= chunks.len()
                || (!is_full && began.elapsed() > by_sweep(QUICK_SAMPLE, SAMPLE, SAMPLE))
            {
                let bench = bench.as_ref().expect("a bench");
                killed.fetch_add(bench.killed, Ordering::Relaxed);
                turned_away.fetch_add(bench.turned_away, Ordering::Relaxed);
                return;
            }
            // A stride that has no divisor in common with the number of chunks comes to each once.
            let chunk = chunks[if is_full { number } else { number * stride % chunks.len() }];
            for (at, push) in chunk.iter().enumerate() {
                let push = Push { is_fresh: push.is_fresh || at == 0, ..push.clone() };
                ran.fetch_add(1, Ordering::Relaxed);
                let Some(what) = bench.as_mut().expect("a bench").push(&push) else { continue };
                let since = chunk[..=at].iter().rposition(|earlier| earlier.is_fresh).unwrap_or(0);
                let told: Vec<String> = chunk[since..=at].iter().map(tell).collect();
                let told = format!("{what}: {}", told.join("\n    after which "));
                eprintln!("{told}");
                damaged.lock().expect("a lock").push(told);
                // What is damaged is of no more use.
                drop(bench.take());
                spare.push(Box::leak(Box::new(Module::new())));
                bench = Some(Bench::new(spare.last().expect("a module")));
            }
        }
    };
    std::thread::scope(|scope| (0..WORKERS).for_each(|_| drop(scope.spawn(work))));
    let (count, seconds) = (ran.into_inner(), began.elapsed().as_secs_f64());
    eprintln!(
        "{count} of {} pushes in {seconds:.0} s, {:.1} a second",
        pushes.len(),
        count as f64 / seconds
    );
    eprintln!(
        "{} turned away, {} killed since they hung",
        turned_away.into_inner(),
        killed.into_inner()
    );
    let damaged = damaged.into_inner().expect("a lock");
    assert!(
        damaged.is_empty(),
        "{} pushes changed a snapshot:\n{}",
        damaged.len(),
        damaged.join("\n")
    );
}

fn tell(push: &Push) -> String {
    let (options, sources) = (push.options.join(" "), push.sources.join(" "));
    format!("rsync {options} {sources} {}/{}", push.module, push.destination)
}
