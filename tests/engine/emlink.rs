//! Files that have as many links as their file system allows: each is in every snapshot all the
//! same, as a copy with everything that belongs to it, and comparing takes that for no change.

use crate::support;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use support::file_system::{FileSystem, Kind};
use support::module::{Module, NAME};
use support::run::{Run, tool};
use support::simulated::{Simulated, settle};
use support::{have, is_full_sweep, tree};

/// What ext4 allows.
const EXT4_LINKS: usize = 65_000;

/// `first` and more names of it, so many in all, in directories of 10,000.
fn link(first: &Path, directory: &Path, names: usize) {
    for number in 1..names {
        let parent = directory.join(format!("names {}", number / 10_000));
        if number == 1 || number % 10_000 == 0 {
            fs::create_dir_all(&parent).expect("a directory");
        }
        fs::hard_link(first, parent.join(number.to_string())).expect("a link");
    }
}

/// A sparse file with everything that a file can have.
fn make_rich_file(path: &Path) {
    let mut file = File::create(path).expect("a file");
    file.write_all(b"the beginning").expect("written");
    file.seek(SeekFrom::Start(8 << 20)).expect("a hole");
    file.write_all(b"the end").expect("written");
    chown(path, Some(1000), Some(1001)).expect("an owner");
    tree::set_mode(path, 0o4750);
    tree::set_attribute(path, "user.comment", b"a value\0with a null");
    tree::set_attribute(path, "system.posix_acl_access", &tree::acl(0o7, 0o5, 1002));
    tree::set_attribute(path, "trusted.secret", b"of root");
    tree::set_attribute(path, "security.capability", &net_raw());
    let times = fs::FileTimes::new()
        .set_accessed(UNIX_EPOCH + Duration::new(1_222_222_222, 222_222_222))
        .set_modified(UNIX_EPOCH + Duration::new(1_111_111_111, 111_111_111));
    file.set_times(times).expect("times");
}

/// `cap_net_raw=ep` as the kernel stores it: version 2, effective, permitted, inheritable.
fn net_raw() -> Vec<u8> {
    [0x0200_0001u32, 1 << 13, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Everything of a file but its inode and what follows from that.
fn describe(path: &Path) -> String {
    let metadata = fs::symlink_metadata(path).expect("the file");
    let mut text = format!(
        "{:o} {}:{} {} bytes, accessed {}.{} modified {}.{}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.size(),
        metadata.atime(),
        metadata.atime_nsec(),
        metadata.mtime(),
        metadata.mtime_nsec()
    );
    for name in ["user.comment", "system.posix_acl_access", "trusted.secret", "security.capability"]
    {
        let mut value = [0; 256];
        let length = rustix::fs::getxattr(path, name, value.as_mut_slice());
        text += &format!(" {name}={:?}", length.map(|length| value[..length].to_vec()));
    }
    text
}

/// All names in a tree with what they share.
fn inodes(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(directory.join(&path)).expect("a directory").flatten() {
            let path = path.join(entry.file_name());
            match entry.file_type().expect("a type").is_dir() {
                true => pending.push(path),
                false => found.push((path, entry.metadata().expect("its state").ino())),
            }
        }
    }
    found.sort();
    found
}

/// Fails unless the snapshot has all names of the module, of which so many are copies.
#[track_caller]
fn assert_copied(module: &Simulated, name: &str, copies: usize) {
    let (live, copy) = (inodes(&module.latest), inodes(&module.snapshot(name)));
    assert_eq!(live.len(), copy.len(), "names");
    assert!(live.iter().zip(&copy).all(|(live, copy)| live.0 == copy.0), "the same names");
    assert_eq!(
        live.iter().zip(&copy).filter(|(live, copy)| live.1 != copy.1).count(),
        copies,
        "copies"
    );
    let shown = module.list().pop().expect("a snapshot");
    assert_eq!((&shown["name"], &shown["copies"]), (&name.into(), &copies.into()));
    let record = module.record(name);
    let recorded = record.get("copy").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let names = |copy: &toml::Value| copy["names"].as_integer().expect("a number");
    assert_eq!(recorded.iter().map(names).sum::<i64>(), i64::try_from(copies).expect("a number"));
}

/// An hour later the hook makes a snapshot with `copies` copies and one warning about them.
#[track_caller]
fn publish(module: &Simulated, copies: usize) -> String {
    settle();
    module.pass(1);
    let run = module.run().exits(&[if copies == 0 { 0 } else { 4 }]);
    let name = module.name();
    let warnings: Vec<_> =
        run.stderr().lines().filter(|line| line.contains("copied")).map(str::to_string).collect();
    if copies == 0 {
        assert!(warnings.is_empty(), "{run}");
    } else {
        assert_eq!(warnings.len(), 1, "{run}");
        assert!(warnings[0].contains(&format!("{copies} entries")), "{run}");
        assert!(warnings[0].contains("as many links as the file system allows"), "{run}");
    }
    assert_copied(module, &name, copies);
    name
}

/// Neither with the index nor without does a run find a change.
#[track_caller]
fn expect_unchanged(module: &Simulated) {
    settle();
    module.expect_unchanged();
    module.write_policy(&format!("{POLICY}full_comparison = \"0s\"\n"));
    module.expect_unchanged();
    module.write_policy(POLICY);
}

/// Each push expires the snapshot before the newest, however much it changes.
const POLICY: &str = "[defaults]\nkeep = { hourly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\ntime_zone = \"UTC\"\n\
                      lock_wait = \"20s\"\nanomaly_share = \"100%\"\n";

#[test]
fn a_file_at_the_link_limit_is_copied_with_everything() {
    let Some(file_system) = FileSystem::new(Kind::Ext4) else { return };
    let module = Simulated::new(Module::on(&file_system), POLICY);
    let first = module.latest.join("first");
    make_rich_file(&first);
    let before = describe(&first);
    link(&first, &module.latest, EXT4_LINKS);
    fs::hard_link(&first, module.latest.join("one more")).expect_err("the limit of ext4");

    let name = publish(&module, EXT4_LINKS);

    let some =
        ["first", "names 0/1", "names 6/64999"].map(|path| module.snapshot(&name).join(path));
    for path in some.iter().chain([&first]) {
        assert_eq!(describe(path), before, "{}", path.display());
        let blocks = |path: &Path| fs::metadata(path).expect("the file").blocks();
        assert!(blocks(path) <= blocks(&first), "{}: the hole is filled", path.display());
    }
    let content = |path: &Path| fs::read(path).expect("the content");
    assert!(some.iter().all(|path| content(path) == content(&first)), "other content");
    // One copy has as many names as it may, and what that lacks has another.
    let mut copies: Vec<u64> =
        inodes(&module.snapshot(&name)).into_iter().map(|(_, inode)| inode).collect();
    copies.sort_unstable();
    copies.dedup();
    println!("ext4: {EXT4_LINKS} names of one file are {} files in the snapshot", copies.len());
    assert!(copies.len() <= 2, "{copies:?}");
    let list = module.server.run(&["list", NAME]).exits(&[0]);
    assert!(list.stdout().contains("COPIES") && list.stdout().contains("65000"), "{list}");
    expect_unchanged(&module);

    // Something else changes, and the copies are made once more; the next test has fewer of them.
    if is_full_sweep() {
        tree::write(&module.latest.join("other"), "x");
        publish(&module, EXT4_LINKS);
        tree::write(&module.latest.join("other"), "y");
        let name = publish(&module, EXT4_LINKS);
        assert!(module.recycled(&name).is_some(), "made afresh");
        expect_unchanged(&module);
    }

    // The client makes the file anew: the old one loses its names one by one, and the new one can
    // be linked.
    fs::remove_file(&first).expect("removed");
    tree::write(&first, "a new file");
    for directory in 0..7 {
        fs::remove_dir_all(module.latest.join(format!("names {directory}"))).expect("removed");
    }
    publish(&module, 0);
    expect_unchanged(&module);
}

#[test]
fn names_are_linked_up_to_the_limit_and_copied_beyond() {
    let Some(file_system) = FileSystem::new(Kind::Ext4) else { return };
    let module = Simulated::new(Module::on(&file_system), POLICY);
    let first = module.latest.join("first");
    make_rich_file(&first);
    // With 4,000 names in the module, 2,500 more are possible. A copy takes long.
    link(&first, &module.root.with_file_name("elsewhere"), 58_501);
    link(&first, &module.latest, 4_000);

    publish(&module, 1_500);
    expect_unchanged(&module);

    tree::write(&module.latest.join("other"), "x");
    publish(&module, 4_000);
    expect_unchanged(&module);
    // Of the first snapshot, which is recycled, 2,500 names stay links.
    tree::write(&module.latest.join("other"), "y");
    publish(&module, 1_500);
    expect_unchanged(&module);
    // In place, as `rsync --inplace` writes: a copy shows the old content, so it is a change.
    File::options()
        .append(true)
        .open(&first)
        .and_then(|mut file| file.write_all(b"more"))
        .expect("written");
    settle();
    module.pass(1);
    module.run().exits(&[4]);
    let copy = fs::read(module.snapshot(&module.name()).join("first")).expect("the file");
    assert!(copy.ends_with(b"more"));
}

/// Fails unless all blocks of the file are those of another one, too.
#[track_caller]
fn assert_shared(path: &Path) {
    let extents = Run::of(tool("filefrag").arg("-v").arg(path)).exits(&[0]);
    // 0:        0..    6143:       3120..      9263:   6144:             last,shared,eof
    let is_extent =
        |line: &&str| line.trim_start().starts_with(|first: char| first.is_ascii_digit());
    let extents: Vec<_> = extents.stdout().lines().filter(is_extent).map(str::to_string).collect();
    assert!(
        !extents.is_empty() && extents.iter().all(|line| line.contains("shared")),
        "{extents:?}"
    );
}

/// The content of a file that takes room.
fn large_content() -> Vec<u8> {
    (0..1 << 20).flat_map(u32::to_le_bytes).collect()
}

/// A file that cannot be linked until this value is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: PathBuf) -> Immutable {
        fs::write(&path, large_content()).expect("a file");
        Run::of(tool("chattr").arg("+i").arg(&path)).exits(&[0]);
        Immutable(path)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = tool("chattr").arg("-i").arg(&self.0).status();
    }
}

/// Lets a client do something to an immutable file.
fn unlocked(path: &Path, work: impl FnOnce(&Path)) {
    Run::of(tool("chattr").arg("-i").arg(path)).exits(&[0]);
    work(path);
    Run::of(tool("chattr").arg("+i").arg(path)).exits(&[0]);
}

/// Puts `content` into the file without a sign of it but the change time.
fn rewrite_in_place(path: &Path, content: &[u8]) {
    let modified = fs::metadata(path).expect("the file").modified().expect("a time");
    let mut file = File::options().write(true).open(path).expect("the file");
    file.write_all(content).and_then(|()| file.set_modified(modified)).expect("written");
}

/// A change of an immutable file, and what it is called.
type Change = (&'static str, fn(&Path));

/// Each is one, though size and modification time stay what they were.
const CHANGES_OF_A_COPIED_FILE: &[Change] = &[
    ("mode", |file| tree::set_mode(file, 0o640)),
    ("owner", |file| chown(file, Some(12), None).expect("root may")),
    ("group", |file| chown(file, None, Some(34)).expect("root may")),
    ("a new attribute", |file| assert!(tree::set_attribute(file, "user.colour", b"red"))),
    ("another value", |file| assert!(tree::set_attribute(file, "user.colour", b"tan"))),
    ("no attribute", |file| rustix::fs::removexattr(file, "user.colour").expect("removed")),
    ("an ACL", |file| {
        assert!(tree::set_attribute(file, "system.posix_acl_access", &tree::acl(0o6, 0o4, 1002)));
    }),
    ("content in place", |file| rewrite_in_place(file, b"CONTENT")),
    ("another file", |file| {
        let modified = fs::metadata(file).expect("the file").modified().expect("a time");
        fs::remove_file(file).expect("removed");
        // The file system may well give it the same number.
        fs::write(file, "Content").expect("a file");
        tree::set_mtime(file, modified);
    }),
];

#[test]
fn whatever_changes_in_a_copied_file_is_a_change() {
    if !have(&["chattr"]) {
        return;
    }
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
        let Some(file_system) = FileSystem::new(kind) else { return };
        let module = Simulated::new(Module::on(&file_system), POLICY);
        let path = module.latest.join("immutable");
        fs::write(&path, "content").expect("a file");
        tree::set_mtime(&path, UNIX_EPOCH + Duration::from_secs(1_111_111_111));
        Run::of(tool("chattr").arg("+i").arg(&path)).exits(&[0]);
        let file = Immutable(path);
        let publish = |what: &str| {
            settle();
            module.pass(1);
            let run = module.run().exits(&[4]);
            let copy = module.snapshot(&module.name()).join("immutable");
            assert!(copy.exists(), "{kind:?}, {what}: no snapshot: {run}");
            assert_eq!(describe(&copy), describe(&file.0), "{kind:?}, {what}");
            assert_eq!(
                fs::read(&copy).expect("read"),
                fs::read(&file.0).expect("read"),
                "{kind:?}, {what}"
            );
        };
        publish("the first");
        expect_unchanged(&module);
        for (what, change) in CHANGES_OF_A_COPIED_FILE {
            unlocked(&file.0, change);
            publish(what);
            // A change time alone is no change: links that come and go elsewhere move it, too.
            unlocked(&file.0, |_| ());
            expect_unchanged(&module);
        }
    }
}

#[test]
fn what_an_earlier_version_recorded_of_a_copy_is_compared_once_more() {
    if !have(&["chattr"]) || !support::root() {
        return;
    }
    let module = Simulated::new(Module::new(), POLICY);
    let _file = Immutable::new(module.latest.join("immutable"));
    settle();
    module.pass(1);
    module.run().exits(&[4]);
    module.expect_unchanged();
    let record = module.private(&format!("records/{}.toml", module.snapshots()[0]));
    let text = fs::read_to_string(&record).expect("a record");
    let (before, _) = text.split_once("[copy.original]").expect("what it looked like");
    fs::write(&record, before).expect("written");
    settle();
    module.pass(1);
    module.run().exits(&[4]);
    assert_eq!(
        module.snapshots().last(),
        Some(&module.name()),
        "the mode may have changed meanwhile"
    );
    module.expect_unchanged();
}

/// Takes a snapshot of a file that can only be copied.
fn assert_the_copy_of_an_immutable_file_is_shared(module: &Simulated) {
    let file = Immutable::new(module.latest.join("immutable"));
    settle();
    module.pass(1);
    module.run().exits(&[4]).says("immutable: it is immutable or append-only");
    let copy = module.snapshot(&module.name()).join("immutable");
    assert_eq!(describe(&copy), describe(&file.0));
    assert!(fs::read(&copy).expect("the copy") == large_content(), "other content");
    assert_shared(&copy);
    module.expect_unchanged();
}

#[test]
fn a_copy_on_btrfs_shares_the_content() {
    if !have(&["chattr", "filefrag"]) {
        return;
    }
    let Some(file_system) = FileSystem::new(Kind::Btrfs) else { return };
    let module = Simulated::new(Module::on(&file_system), POLICY);
    assert_the_copy_of_an_immutable_file_is_shared(&module);
}

#[test]
fn a_copy_on_xfs_shares_the_content_and_no_limit_is_met() {
    if !have(&["chattr", "filefrag"]) {
        return;
    }
    let Some(file_system) = FileSystem::new(Kind::Xfs) else { return };
    let module = Simulated::new(Module::on(&file_system), POLICY);
    // More than ext4 would allow, if there is time for that.
    let names = if is_full_sweep() { 70_000 } else { 5_000 };
    let first = module.latest.join("first");
    fs::write(&first, "x").expect("a file");
    link(&first, &module.latest, names);
    publish(&module, 0);
    assert_eq!(fs::metadata(&first).expect("the file").nlink(), 2 * names as u64);
    assert_the_copy_of_an_immutable_file_is_shared(&module);
}
