//! A disk without free blocks or inodes, or with a quota that is used up: no snapshot, but none
//! lost either, what is known of transfers is kept, and all is well again once there is space.

use crate::support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};
use support::aftermath::{
    OLD, ROTATING, assert_nothing_is_half, assert_the_next_run_finishes, fingerprints,
};
use support::daemon::{Daemon, GOOD, kill, source};
use support::file_system::{FileSystem, Kind};
use support::fingerprint::Fingerprint;
use support::module::Module;
use support::run::{Run, tool};
use support::time::wait_until;
use support::{have, tree};

/// A small file system, on which everything, metadata too, comes out of one supply of blocks.
fn small(kind: Kind) -> Option<FileSystem> {
    match kind {
        Kind::Ext4 => FileSystem::with(kind, 16, &["-m", "0", "-b", "1024"]),
        Kind::Btrfs => FileSystem::with(kind, 32, &["--mixed"]),
        Kind::Xfs | Kind::Tmpfs => FileSystem::new(kind),
    }
}

/// Takes all the space there is, until nothing can be made any more; returns what has to go for
/// there to be space again.
fn fill(file_system: &FileSystem) -> PathBuf {
    let fillers = file_system.mount_point.join("fillers");
    fs::create_dir(&fillers).expect("a directory");
    let mut paths = (0..).map(|number| fillers.join(number.to_string()));
    // What is written back or committed meanwhile gives some of it back.
    while fill_once(&mut paths) > 0 {
        let _ = tool("sync").arg("--file-system").arg(&fillers).status();
    }
    fillers
}

/// Makes files, large ones before small ones, and empty directories as long as that goes; returns
/// how many.
fn fill_once(paths: &mut impl Iterator<Item = PathBuf>) -> usize {
    let mut make = |make: &dyn Fn(&Path) -> io::Result<()>| {
        paths.by_ref().take_while(|path| make(path).is_ok()).count()
    };
    let allocate = |bytes: u64| {
        move |path: &Path| Ok(fallocate(File::create(path)?, FallocateFlags::empty(), 0, bytes)?)
    };
    let large = [64 << 20, 4 << 20, 1 << 18, 1 << 14, 1 << 10].map(|bytes| make(&allocate(bytes)));
    let small = make(&|path| File::create(path)?.write_all(&[b'x'; 512]));
    let directories = make(&|path| fs::create_dir(path));
    large.iter().sum::<usize>() + small + directories
}

fn says_why(run: &Run) -> bool {
    let told = format!("{}{}", run.stdout(), run.stderr()).to_lowercase();
    told.contains("no space left") || told.contains("quota exceeded")
}

fn assert_a_full_disk_harms_nothing(module: &Module, before: &[(String, Fingerprint)]) {
    let run = module.run_hook().exits(&[1]);
    assert!(says_why(&run), "{run}");
    assert_eq!(module.snapshots(), OLD);
    assert_nothing_is_half(module, before, "a full disk");
    assert_eq!(module.left_over("staging"), 0, "staging is cleaned up at once");
    // And again, since a hook runs after every push.
    module.run_hook().exits(&[1]);
    assert_eq!(module.snapshots(), OLD);
    let check = module.run(&["check", "data"]);
    assert!(matches!(check.code(), Some(1 | 2)), "a failure has to show: {check}");
}

#[test]
fn a_failure_is_remembered_even_where_the_usual_place_for_that_is_full() {
    let Some(file_system) = small(Kind::Ext4) else { return };
    let (module, _) = demanding_module(&file_system);
    let state = file_system.mount_point.join("state");
    fs::create_dir(&state).expect("a directory");
    fill(&file_system);

    Run::of(module.hook().env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", &state)).exits(&[1]);

    let check =
        Run::of(module.command(&["check", "data"]).env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", &state));
    assert!(matches!(check.code(), Some(1 | 2)), "a failure has to show: {check}");
}

/// Directories cost blocks and inodes, files only names.
fn demanding_module(file_system: &FileSystem) -> (Module, Vec<(String, Fingerprint)>) {
    let module = Module::on(file_system);
    module.write_policy(ROTATING);
    for name in OLD {
        module.make_old_snapshot(name);
    }
    tree::numbered(&module.latest, 120, 1);
    let before = fingerprints(&module);
    (module, before)
}

fn assert_a_full_file_system_harms_nothing(file_system: &FileSystem) {
    let (module, before) = demanding_module(file_system);
    let fillers = fill(file_system);

    assert_a_full_disk_harms_nothing(&module, &before);

    fs::remove_dir_all(&fillers).expect("removed");
    assert_the_next_run_finishes(&module, "space is free again");
}

#[test]
fn a_disk_without_free_blocks_harms_nothing_and_recovers() {
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
        let Some(file_system) = small(kind) else { continue };
        assert_a_full_file_system_harms_nothing(&file_system);
    }
}

#[test]
fn a_quota_that_is_used_up_harms_nothing_and_recovers() {
    let Some(file_system) = FileSystem::new(Kind::Btrfs) else { return };
    let btrfs = |words: &[&str]| Run::of(tool("btrfs").args(words).arg(&file_system.mount_point));
    let enabled = btrfs(&["quota", "enable"]);
    if !enabled.succeeded() {
        skipped!("needs quotas of btrfs: {}", enabled.stderr().trim());
        return;
    }
    btrfs(&["qgroup", "limit", "8M"]).exits(&[0]);
    assert_a_full_file_system_harms_nothing(&file_system);
}

#[test]
fn a_disk_without_free_inodes_harms_nothing_and_recovers() {
    let Some(file_system) = FileSystem::with(Kind::Ext4, 16, &["-m", "0", "-N", "512"]) else {
        return;
    };
    let (module, before) = demanding_module(&file_system);
    let fillers = file_system.mount_point.join("fillers");
    fs::create_dir(&fillers).expect("a directory");
    let made =
        (0..).take_while(|number| File::create(fillers.join(number.to_string())).is_ok()).count();
    // Enough for our own files, not for a hundred directories.
    for number in made - 40..made {
        fs::remove_file(fillers.join(number.to_string())).expect("removed");
    }

    assert_a_full_disk_harms_nothing(&module, &before);

    fs::remove_dir_all(&fillers).expect("removed");
    assert_the_next_run_finishes(&module, "inodes are free again");
}

// -- Transfers -------------------------------------------------------------------------------------

/// The files that hold what is known of transfers, with their contents: the state with its torn and
/// due marks, and the ledger, both in the root and where it goes when there is no room for it
/// there.
fn known_of_transfers(module: &Module) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = vec![module.private("state.toml")];
    let elsewhere = fs::read_dir(module.state_directory().join("transfers"));
    let elsewhere = elsewhere.into_iter().flatten().map(|entry| entry.expect("an entry").path());
    for room in elsewhere.chain([module.private("transfers")]) {
        files.extend(
            fs::read_dir(room).expect("a ledger").map(|entry| entry.expect("an entry").path()),
        );
    }
    files.into_iter().map(|file| (file.clone(), fs::read(file).expect("it"))).collect()
}

/// A push that has begun: its first file, whose name is `name`, has arrived, and no more comes.
fn start_push(daemon: &Daemon, module: &Module, name: &str) -> Child {
    let source = module.directory.join(name);
    fs::create_dir_all(source.join("b")).expect("a directory");
    tree::write(&source.join("b").join(name), "1");
    fs::write(source.join("b/zz large"), vec![b'x'; 1 << 20]).expect("a large file");
    let client = daemon.push_slowly(&source, "data");
    wait_until("the first file has arrived", || module.latest.join("b").join(name).exists());
    Run::of(tool("kill").args(["-s", "STOP", &client.id().to_string()])).exits(&[0]);
    client
}

/// A module behind a daemon with both hooks, on a file system that is full now and then.
struct Trial<'a> {
    file_system: &'a FileSystem,
    module: &'a Module,
    source: PathBuf,
    daemon: Daemon<'a>,
}

impl Trial<'_> {
    /// A good push that neither needs room nor makes any: `name` is gone. Its hook, the one with
    /// that number, has no room for what it has to do, and it is the push alone that is known more
    /// than before.
    #[track_caller]
    fn push_in_vain(&self, name: &str, hooks: usize) {
        let before = (known_of_transfers(self.module), fingerprints(self.module));
        let fillers = fill(self.file_system);
        fs::remove_file(self.source.join(name)).expect("removed");
        // A directory of the very second is left with the kernel's time, as a push that is cut off
        // leaves it.
        std::thread::sleep(Duration::from_secs(1));
        self.daemon.push(&self.source, "data", &["--delete", "--exclude=/b"]).exits(&[0]);
        let hook = self.daemon.await_last_hook(hooks);
        assert_eq!((hook.transfer, hook.exit), (0, 1));
        assert!(says_why(&self.module.run(&["check", "data"]).exits(&[2])));
        let known = known_of_transfers(self.module);
        for (file, content) in &before.0 {
            assert_eq!(known.get(file), Some(content), "{}", file.display());
        }
        assert_eq!(known.len(), before.0.len() + 1, "{:?}", known.keys());
        assert_nothing_is_half(self.module, &before.1, "a full disk");
        fs::remove_dir_all(fillers).expect("removed");
    }

    /// The newest snapshot is complete, and nothing is left to do.
    #[track_caller]
    fn assert_recovered(&self) {
        let names = self.module.snapshots();
        let newest = names.last().expect("a snapshot");
        assert!(!newest.ends_with("-partial"), "{names:?}");
        self.module.assert_equals_module(newest);
        assert!(
            !self.module.is_marked("torn") && !self.module.is_marked("due"),
            "{:?}",
            self.module.state()
        );
        assert_eq!(known_of_transfers(self.module).len(), 1, "the state alone");
        self.module.run(&["check", "data"]).exits(&[0]);
    }
}

/// A push whose snapshot there was no room for gets it later.
fn assert_a_push_is_remembered(trial: &Trial) {
    trial.daemon.push(&trial.source, "data", &[]).exits(&[0]);
    assert_eq!(trial.daemon.await_last_hook(1), GOOD);
    trial.push_in_vain("read me", 2);
    trial.module.run(&["snapshot", "--all"]).exits(&[4]).says("a snapshot is due");
    assert_eq!(trial.module.snapshots().len(), 2);
    trial.assert_recovered();
}

/// What is torn stays so, and who is still writing is still known, though a push that would have
/// mended the module finds no room for saying so.
fn assert_marks_and_running_pushes_are_remembered(trial: &Trial) {
    let Trial { module, daemon, .. } = trial;
    kill(start_push(daemon, module, "torn"));
    assert_eq!(daemon.await_last_hook(3).exit, 0);
    assert!(module.is_marked("torn"), "{:?}", module.state());
    let under_way = start_push(daemon, module, "under way");
    assert_eq!(known_of_transfers(module).len(), 2, "the state and a push");

    trial.push_in_vain("documents/report", 4);
    kill(under_way);
    assert_eq!(daemon.await_last_hook(5).exit, 0);
    assert_eq!(known_of_transfers(module).len(), 1, "both pushes are marks in the state now");
    assert!(module.is_marked("torn") && module.is_marked("due"), "{:?}", module.state());
    module.run(&["snapshot", "--all", "--due"]).exits(&[0]);
    let newest = module.snapshots().pop().expect("a snapshot");
    assert!(
        newest.ends_with("-partial") && module.is_marked("torn"),
        "{newest}: {:?}",
        module.state()
    );

    daemon.push(&trial.source, "data", &["--delete"]).exits(&[0]);
    assert_eq!(daemon.await_last_hook(6), GOOD);
    trial.assert_recovered();
}

#[test]
fn what_is_known_of_transfers_is_kept_when_there_is_no_room() {
    if !have(&["rsync"]) {
        return;
    }
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
        let Some(file_system) = small(kind) else { continue };
        println!("{}", kind.name());
        let module = Module::on(&file_system);
        let source = source(&module);
        let daemon = Daemon::of_pair(&module);
        let trial = Trial { file_system: &file_system, module: &module, source, daemon };
        assert_a_push_is_remembered(&trial);
        assert_marks_and_running_pushes_are_remembered(&trial);
    }
}
