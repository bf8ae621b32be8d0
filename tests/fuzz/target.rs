//! What garbage is thrown at, and what must hold whatever it is: no panic, no hang, every message
//! on one printable line, and nothing deleted that a rule protects.
//!
//! `tests/trust/garbage.rs` gives these functions seeds and mutations of them; `sh tests/fuzz/run`
//! gives them what a coverage-guided fuzzer makes of the same seeds.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use chrono::{DateTime, Duration, Utc};
use rsyncd_snapshot::decide::arguments::Arguments;
use rsyncd_snapshot::decide::grade::Grade;
use rsyncd_snapshot::decide::name::SnapshotName;
use rsyncd_snapshot::decide::policy::Policy;
use rsyncd_snapshot::decide::rotation::decide;
use rsyncd_snapshot::decide::snapshot::Snapshot;
use rsyncd_snapshot::decide::snapshot_verdict::RotationHistory;
use rsyncd_snapshot::decide::zone::Zone;
use rsyncd_snapshot::internals::{
    Baseline, Destination, Dir, DirectoryIndex, FinishedTransfer, InodeLog, KeptBaselines,
    LedgerEntry, LinkWindow, LinkWindows, MachineMemory, Policies, Record, Recorder, Registration,
    RsyncdConf, State, escape, migrate, one_line, rewrite, unescape, wall_ns,
};

/// A target: its name, which is that of its seeds' directory, and what it does with garbage.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const TARGETS: [Target; 15] = [
    ("arguments", arguments),
    ("catalogue", catalogue),
    ("environment", environment),
    ("escape", escaped),
    ("import", import_policy),
    ("index", index),
    ("ledger", ledger),
    ("location", location),
    ("memory", memory),
    ("name", name),
    ("policy", policy),
    ("record", record),
    ("rsyncd_conf", rsyncd_conf),
    ("state", state),
    ("windows", windows),
];

/// A noon on which nothing special happens.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_780_800, 0).expect("a time")
}

/// Two years of snapshots: hours, days, weeks, a partial one and a pinned one among them.
fn snapshots() -> Vec<Snapshot> {
    let ages = (0..48).chain((2..60).map(|day| day * 24)).chain((9..104).map(|week| week * 168));
    let snapshot = |(number, hours): (usize, i64)| {
        let time = now() - Duration::hours(hours) - Duration::minutes(7);
        let grade = if number % 17 == 3 { Grade::Partial } else { Grade::Complete };
        Snapshot {
            name: SnapshotName::new(time, grade).text,
            time,
            verified_until: time,
            grade,
            recorded: true,
            pinned: (number == 40).then(|| "kept".to_string()),
            unreadable: false,
            sequence: None,
            taken_at: None,
            undated: None,
            obstacle: None,
            reader: None,
        }
    };
    ages.enumerate().map(snapshot).collect()
}

/// Decides about two years of snapshots; what is protected stays, whatever the policy and the
/// history say.
fn decide_safely(history: &RotationHistory, policy: &Policy) -> usize {
    let snapshots = snapshots();
    let decision = decide(&snapshots, history, policy, now());
    let complete = |expired: bool| {
        let verdicts = decision.verdicts.iter().filter(move |verdict| verdict.keep != expired);
        verdicts.filter(|verdict| verdict.snapshot.grade == Grade::Complete)
    };
    assert_eq!(decision.verdicts.len(), snapshots.len());
    assert!(decision.verdicts.iter().all(|verdict| !verdict.reasons.is_empty()));
    let newest = snapshots
        .iter()
        .filter(|snapshot| snapshot.grade == Grade::Complete)
        .max_by_key(|s| s.time);
    assert!(
        complete(true).all(|verdict| Some(&verdict.snapshot) != newest),
        "the newest one expires"
    );
    assert!(
        complete(false).count()
            >= policy.min_keep.min(complete(false).count() + complete(true).count())
    );
    assert!(decision.expired().count() <= policy.max_expire);
    for verdict in decision.expired() {
        assert!(verdict.snapshot.pinned.is_none(), "a pinned one expires");
        assert!(now() - verdict.snapshot.time >= policy.min_age.delta(), "a young one expires");
    }
    decision.expired().count()
}

/// Fails unless `message` is one line that a terminal and a log can bear.
fn assert_is_one_line(message: &str) {
    assert_eq!(one_line(message), message, "a message is not printable");
}

fn policy(garbage: &[u8]) {
    let text = String::from_utf8_lossy(garbage);
    match Policies::parse(Path::new("/etc/rsyncd-snapshot.toml"), &text) {
        Ok(policies) => {
            let named = policies.modules().map(|name| Some(name.as_bytes()));
            for module in named.chain([None, Some(b"data".as_slice())]) {
                decide_safely(&RotationHistory::default(), &policies.for_module(module));
            }
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            mistakes.iter().for_each(|mistake| assert_is_one_line(mistake));
        }
    }
}

fn rsyncd_conf(garbage: &[u8]) {
    // What lies on this machine is not to be included.
    if garbage.contains(&b'&') && garbage.contains(&b'/') {
        return;
    }
    in_scratch(&[("rsyncd.conf", garbage)], |dir| {
        match RsyncdConf::read(&dir.path.join("rsyncd.conf")) {
            Err(error) => assert_is_one_line(&error.to_string()),
            Ok(conf) => {
                for module in &conf.modules {
                    assert!(conf.module(&module.name).is_some());
                    module.runs_this_program("post-xfer exec");
                    match module.path() {
                        Ok(path) => {
                            assert!(path.is_absolute());
                            assert!(path.iter().all(|name| name != ".."), "{path:?}");
                        }
                        Err(error) => assert_is_one_line(&error.to_string()),
                    }
                }
            }
        }
    });
}

/// `NAME=VALUE`, ended by NUL, as the kernel gives an environment.
fn environment(garbage: &[u8]) {
    let variables: HashMap<&[u8], &[u8]> = garbage
        .split(|byte| *byte == 0)
        .filter_map(|variable| {
            let at = variable.iter().position(|byte| *byte == b'=')?;
            Some((&variable[..at], &variable[at + 1..]))
        })
        .collect();
    match FinishedTransfer::read(&|name| variables.get(name.as_bytes()).map(|value| value.to_vec()))
    {
        Ok(transfer) => {
            assert!(transfer.connection.module_path.is_absolute());
            assert_is_one_line(&transfer.connection.client.identity());
            assert_is_one_line(&transfer.connection.request);
        }
        Err(error) => assert_is_one_line(&error.to_string()),
    }
}

/// Arguments ended by NUL. What may write is never taken for a pull because of what follows `.`.
fn arguments(garbage: &[u8]) {
    let arguments: Vec<Vec<u8>> = garbage.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let parsed = Arguments::parse(&arguments);
    assert!(parsed.rewriting.is_sorted());
    if !arguments.iter().any(|argument| argument.starts_with(b"-")) {
        assert!(parsed.kind.writes(), "without any option it is a push");
    }
}

fn ledger(garbage: &[u8]) {
    let Ok(text) = std::str::from_utf8(garbage) else { return };
    let Ok(entry) = toml::from_str::<LedgerEntry>(text) else { return };
    drop(entry.client.identity());
    let written = toml::to_string(&entry).expect("what was read can be written");
    assert_eq!(toml::from_str::<LedgerEntry>(&written).as_ref(), Ok(&entry));
}

fn record(garbage: &[u8]) {
    in_scratch(&[("a.toml", garbage)], |dir| match Record::read(dir, "a") {
        Ok(record) => drop(record.expect("the file is there").known()),
        Err(error) => assert_is_one_line(&error.to_string()),
    });
}

/// Garbage in place of the state lets nothing expire; a state that can be read, nothing that is
/// protected.
fn state(garbage: &[u8]) {
    in_scratch(&[("state.toml", garbage)], |dir| {
        let (understood, policy) = (State::read(dir), Policy::default());
        match understood {
            Ok(state) => drop(decide_safely(&state.history(None), &policy)),
            Err(error) => {
                assert_is_one_line(&error.to_string());
                if let Ok(state) = State::update(dir, |_| {}) {
                    assert_eq!(
                        decide_safely(&state.history(None), &policy),
                        0,
                        "garbage lets snapshots expire"
                    );
                    let aside = fs::read(dir.path.join("state.toml.damaged"));
                    assert_eq!(aside.expect("it is set aside"), garbage);
                }
            }
        }
    });
}

fn memory(garbage: &[u8]) {
    let module = Path::new("/srv/latest");
    let registered = garbage;
    in_scratch(&[("%2fsrv%2flatest.toml", garbage), ("root.toml", registered)], |dir| {
        let dirs = MachineMemory::new(vec![dir.path.to_path_buf()]);
        drop(dirs.recall(module));
        if let Err(error) = Registration::read(dir) {
            assert_is_one_line(&error.to_string());
        }
    });
}

/// A name that is taken for ours is one that we or our predecessor could have written.
fn name(garbage: &[u8]) {
    let zone = Zone::utc();
    let Some(name) = SnapshotName::parse(garbage, &zone) else { return };
    assert_eq!(name.text.as_bytes(), garbage);
    assert!(name.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-: ".contains(&byte)));
    assert!(!name.text.starts_with(['.', '-', ' ']));
    let adopted = name.time.format("%Y-%m-%d %H:%M:%S").to_string();
    assert!(name.text == SnapshotName::new(name.time, name.grade).text || name.text == adopted);
}

/// An index whose only block passes its checksum, with nothing else to be relied on: garbage before
/// the root's record, whose last subdirectory the last bytes of the garbage choose.
fn index(garbage: &[u8]) {
    const HEADER: &[u8] = b"rsyncd-snapshot index 2 a\n";
    const ROOT_BYTES: usize = 55;
    const MAX_BYTES: usize = (16 << 10) - 4 - ROOT_BYTES - HEADER.len();
    let garbage = garbage.get(..MAX_BYTES).unwrap_or(garbage);
    let chosen = garbage.iter().rev().take(2).fold(0, |sum, byte| sum * 256 + usize::from(*byte));
    let last_child = chosen.checked_rem(garbage.len()).map_or(0, |at| HEADER.len() + at);
    let mut root = [0; ROOT_BYTES];
    root[44..48].copy_from_slice(&(last_child as u32).to_le_bytes());
    root[52] = 1;
    let mut block = [HEADER, garbage, &root].concat();
    let checksum = crc32fast::hash(&[HEADER, &[0; 4], &block].concat());
    block.extend(checksum.to_le_bytes());
    in_scratch(&[("index", &block), ("garbage", garbage)], |dir| {
        let open = |name| DirectoryIndex::open(File::open(dir.path.join(name)).expect("it"), "a");
        assert!(open("garbage").is_none_or(|_| garbage.starts_with(HEADER)));
        let index = open("index").expect("the root is whole");
        let reader = index.reader();
        let (mut seen, mut positions) = (HashSet::new(), vec![index.root()]);
        while let Some(position) = positions.pop() {
            if !seen.insert(position) {
                continue;
            }
            let mut last: Option<std::ffi::CString> = None;
            reader.for_each_child(position, |name, child| {
                assert!(child < position, "it leads back");
                assert!(last.as_deref().is_none_or(|last| name < last), "the names descend");
                let bytes = name.to_bytes();
                assert!(!bytes.is_empty() && !bytes.contains(&b'/') && bytes != b"..");
                last = Some(name.to_owned());
                positions.push(child);
            });
        }
        assert!(seen.len() <= block.len());
    });
}

/// An inode log of any bytes, and one whose blocks pass their checksums: each a kind, a length and
/// as many bytes.
fn catalogue(garbage: &[u8]) {
    let mut rest = garbage;
    let mut blocks = Vec::new();
    while let Some(([kind, length], more)) = rest.split_first_chunk() {
        let (payload, next) = more.split_at(more.len().min(usize::from(*length)));
        let start = blocks.len();
        blocks.extend(b"RSinode\x01");
        for number in [u32::from(kind % 4), payload.len() as u32, crc32fast::hash(payload)] {
            blocks.extend(number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&blocks[start..]);
        blocks.extend(checksum.to_le_bytes());
        blocks.extend(payload);
        rest = next;
    }
    for file in [garbage, &blocks] {
        in_scratch(&[("catalogue", file)], |dir| {
            let read = || InodeLog::read(dir).expect("a file").expect("the file");
            let before = read();
            let baselines = |catalogue: &InodeLog| {
                let of_one = |index| catalogue.baseline(index).map(|(_, baseline)| baseline);
                (0..catalogue.len()).filter_map(of_one).collect::<Vec<_>>()
            };
            for index in 0..before.len() {
                let inode = before.inode(index);
                assert!(before.find(inode).contains(&index));
                let birth_ns =
                    before.baseline(index).map_or(0, |(_, baseline)| baseline.inode.birth_ns);
                drop((before.baselines(inode, birth_ns), before.hashes(inode, birth_ns)));
            }
            drop(Recorder::open(dir, |name| name.is_ascii()).expect("it is cut to what is whole"));
            let cut = read();
            rewrite(dir, &cut, KeptBaselines { keep: &|_| true, oldest: 0 })
                .expect("it is written anew");
            let (all, kept) = (baselines(&cut), baselines(&read()));
            assert!(kept.iter().all(|baseline| all.contains(baseline)));
            let last_of = |baselines: &[Baseline]| -> HashMap<u64, Baseline> {
                baselines.iter().map(|baseline| (baseline.inode.number, baseline.clone())).collect()
            };
            assert_eq!(last_of(&kept), last_of(&all), "of each inode the last is kept");
        });
    }
}

/// Records that pass their checksums, with nothing else to be relied on: what we do next is known
/// all the same.
fn windows(garbage: &[u8]) {
    let with_checksum = |record: &[u8]| [record, &crc32fast::hash(record).to_le_bytes()].concat();
    let records: Vec<u8> = garbage.chunks_exact(28).flat_map(with_checksum).collect();
    for file in [garbage, &records] {
        in_scratch(&[("windows", file)], |dir| {
            drop(LinkWindows::read(dir));
            let window = LinkWindow::open(dir).expect("a window");
            let within_ns = wall_ns();
            drop(window);
            assert!(LinkWindows::read(dir).cover(within_ns));
        });
    }
}

fn import_policy(garbage: &[u8]) {
    match migrate::read(Path::new("/etc/rotate-backups.ini"), garbage) {
        Ok(sections) => assert!(!sections.is_empty()),
        Err(error) => assert_is_one_line(&error.to_string()),
    }
}

fn location(garbage: &[u8]) {
    match Destination::parse(OsStr::from_bytes(garbage)) {
        // The command line makes it absolute.
        Ok(Destination::Local(_)) => {}
        Ok(destination) => {
            let argument = destination.argument(None);
            assert!(!argument.starts_with(b"-"), "rsync would take the destination for an option");
        }
        Err(message) => assert_is_one_line(&message),
    }
}

fn escaped(garbage: &[u8]) {
    let text = escape(garbage);
    assert_is_one_line(&text);
    assert_eq!(unescape(&text).as_deref(), Some(garbage));
    drop(unescape(&String::from_utf8_lossy(garbage)));
}

/// Calls `act` on a new directory with `files` in it.
fn in_scratch(files: &[(&str, &[u8])], act: impl FnOnce(Dir)) {
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let scratch = scratch.expect("a scratch directory");
    for (name, content) in files {
        fs::write(scratch.path().join(name), content).expect("a file");
    }
    let directory = File::open(scratch.path()).expect("the scratch directory");
    act(Dir { directory: directory.as_fd(), path: scratch.path() });
}
