//! `restore --to DIR`: what lands where, what is left alone, what is refused, and that the copy is
//! exact.

use crate::support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use support::file_system::{FileSystem, Kind};
use support::fingerprint::{self, Fingerprint};
use support::module::Module;
use support::run::{Run, tool};
use support::{exact, have, is_root, root, tree};

/// How the names of directories begin in which a restore makes files.
const STAGING: &str = ".rsyncd-snapshot-restore-";

fn to(module: &Module) -> PathBuf {
    module.directory.join("restored")
}

/// `restore` out of `snapshot` into the directory `to`, with more arguments.
fn restore(module: &Module, snapshot: &str, to: &Path, more: &[&str]) -> Run {
    let mut command = module.command(&["restore", "data", snapshot]);
    Run::of(command.args(more).arg("--to").arg(to))
}

fn names(directory: &Path) -> Vec<String> {
    let mut names = support::module::names_in(directory);
    names.sort();
    names
}

#[track_caller]
fn assert_is_clean(module: &Module) {
    module.run(&["verify", "data"]).exits(&[0]);
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn everything_comes_back_with_everything() {
    let module = Module::new();
    tree::every_type(&module.latest);
    if is_root() {
        let file = module.latest.join("attributes/file");
        tree::set_attribute(&file, "security.capability", tree::CAP_NET_RAW);
    }
    let name = module.expect_snapshot();
    let (snapshot, to) = (module.snapshot(&name), to(&module));
    let before = exact::of(&snapshot);

    restore(&module, &name, &to, &["."]).exits(&[0]).says("read again and is as in the snapshot");
    exact::assert_same(&snapshot, &to);
    assert_eq!(exact::of(&snapshot), before, "the snapshot");
    let shared = |path: &str| {
        let inode = |directory: &Path| fs::metadata(directory.join(path)).expect("a file").ino();
        inode(&to) == inode(&snapshot)
    };
    assert!(!shared("read me") && !shared("linked"), "the copy shares nothing");

    // The same once more finds it done.
    let state = |path: &str| fs::metadata(to.join(path)).expect("a file").ino();
    let inodes = (state("read me"), state("linked"));
    let run = restore(&module, &name, &to, &["--json"]).exits(&[0]).json();
    assert_eq!((&run["made"], &run["replaced"]), (&0.into(), &0.into()), "{run}");
    assert_eq!((state("read me"), state("linked")), inodes);
    exact::assert_same(&snapshot, &to);
    assert_is_clean(&module);
}

#[test]
fn a_copy_on_each_file_system_is_exact() {
    if !root() {
        return;
    }
    let module = Module::new();
    tree::every_type(&module.latest);
    let name = module.expect_snapshot();
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs, Kind::Tmpfs] {
        let Some(file_system) = FileSystem::new(kind) else { continue };
        let to = file_system.mount_point.join("new");
        if !has_every_attribute(&file_system.mount_point) {
            skipped!("needs all extended attributes on {}", kind.name());
            continue;
        }
        restore(&module, &name, &to, &[]).exits(&[0]);
        assert_is_exact(&module.snapshot(&name), &to);
        // The attributes of directories that are there already are set again.
        tree::set_mode(&to.join("with a default ACL"), 0o700);
        restore(&module, &name, &to, &[]).exits(&[0]);
        assert_is_exact(&module.snapshot(&name), &to);
    }
}

/// XFS shows an ACL under a second name.
#[track_caller]
fn assert_is_exact(original: &Path, copy: &Path) {
    let of = |directory: &Path| -> Fingerprint {
        let describe = |(path, line): (Vec<u8>, String)| {
            let mut attributes = exact::attributes(&directory.join(OsStr::from_bytes(&path)));
            attributes.retain(|name, _| !name.starts_with("trusted.SGI_ACL"));
            let begins = [" system.posix_acl", " user.", " trusted.", " security."];
            let end = begins.iter().filter_map(|begin| line.find(begin)).min();
            let rest = line.find(" content ").map_or("", |at| &line[at..]);
            let line = format!("{} {attributes:?}{rest}", &line[..end.unwrap_or(line.len())]);
            (path, line)
        };
        exact::of(directory).into_iter().map(describe).collect()
    };
    fingerprint::assert_equal(&of(original), &of(copy), &copy.display().to_string());
}

fn has_every_attribute(directory: &Path) -> bool {
    let probe = directory.join("probe");
    fs::write(&probe, "").expect("a file");
    tree::set_attribute(&probe, "user.probe", b"x")
        && tree::set_attribute(&probe, "trusted.probe", b"x")
        && tree::set_attribute(&probe, "system.posix_acl_access", &tree::acl(6, 5, 1000))
}

#[test]
fn files_with_holes_keep_them_and_take_no_more_space() {
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
        let Some(file_system) = FileSystem::new(kind) else { continue };
        let module = Module::on(&file_system);
        let path = module.latest.join("sparse");
        let file = fs::File::create(&path).expect("a file");
        file.set_len(1 << 30).expect("a hole");
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 9_000], 500 << 20).expect("data");
        drop(file);
        let name = module.expect_snapshot();
        let elsewhere = to(&module);
        for to in [file_system.mount_point.join("restored"), elsewhere] {
            restore(&module, &name, &to, &["sparse"]).exits(&[0]);
            let restored = fs::metadata(to.join("sparse")).expect("the file");
            assert_eq!(restored.len(), 1 << 30);
            assert!(restored.blocks() < 4_096, "{} blocks on {}", restored.blocks(), kind.name());
            let same = tool("cmp").arg(&path).arg(to.join("sparse")).status().expect("cmp");
            assert!(same.success());
        }
        if kind != Kind::Ext4 {
            let to = file_system.mount_point.join("again");
            let run = restore(&module, &name, &to, &["sparse", "--json"]).exits(&[0]).json();
            assert_eq!(run["reflinked"], 1, "{}: {run}", kind.name());
        }
    }
}

#[test]
fn a_path_lands_as_cp_would_copy_it() {
    let (module, name) = Module::with_snapshot();
    let snapshot = module.snapshot(&name).display().to_string();
    let latest = module.latest.display().to_string();
    let (in_snapshot, in_module) = (format!("{snapshot}/documents"), format!("{latest}/link"));
    for (number, (paths, landed)) in [
        (&["read me"][..], &["read me"][..]),
        (&["documents"], &["documents", "documents/letters", "documents/letters/to you"]),
        (&["documents/"], &["documents"]),
        (&["documents/letters/to you"], &["to you"]),
        (&["documents/letters", "read me"], &["letters", "letters/to you", "read me"]),
        (&["documents/."], &["letters", "report"]),
        (&["."], &["documents", "link", "read me"]),
        (&[], &["documents", "link", "read me"]),
        (&["/read me"], &["read me"]),
        (&[&in_snapshot], &["documents"]),
        (&[&in_module], &["link"]),
        (&["./documents//report"], &["report"]),
    ]
    .into_iter()
    .enumerate()
    {
        let to = module.directory.join(format!("to {number}"));
        restore(&module, &name, &to, paths).exits(&[0]);
        for path in landed {
            assert!(to.join(path).symlink_metadata().is_ok(), "{paths:?}: no {path}");
        }
        let top = landed.iter().filter(|path| !path.contains('/')).count();
        assert_eq!(names(&to).len(), top, "{paths:?}: {:?}", names(&to));
    }
}

#[test]
fn a_snapshot_is_named_in_many_ways() {
    let (module, first) = Module::with_snapshot();
    module.date_back(&first, "2026-03-04T05-06-07Z");
    let first = "2026-03-04T05-06-07Z";
    tree::write(&module.latest.join("read me"), "changed\n");
    let newest = module.expect_snapshot();
    let path = module.snapshot(first).display().to_string();
    let (file, root) = (format!("{path}/read me"), module.root.display().to_string());
    let latest = module.latest.display().to_string();
    for (number, (arguments, expected)) in [
        (&["data", "newest", "read me"][..], "changed\n"),
        (&[&newest, "read me"], "changed\n"),
        (&["newest", "read me"], "changed\n"),
        (&[first, "read me"], "first\n"),
        (&["data", first, "read me"], "first\n"),
        (&[&latest, first, "read me"], "first\n"),
        (&[&root, first, "read me"], "first\n"),
        (&[&path, "read me"], "first\n"),
        (&[&file], "first\n"),
        (&["data", &path, "read me"], "first\n"),
        (&["data", &format!("{path}/"), "read me"], "first\n"),
        (&["data", &file], "first\n"),
        (&["data", &format!("{first}/"), "read me"], "first\n"),
        (&[&format!("{newest}/"), "read me"], "changed\n"),
        (&["data", first, &format!("{}//read me", module.latest.display())], "first\n"),
        (&["data", "--at", "2026-03-04", "read me"], "first\n"),
        (&["data", "--at", "2026-03-04T05:06:07Z", "read me"], "first\n"),
        (&["data", "--at", "2100-01-01", "read me"], "changed\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let to = module.directory.join(format!("to {number}"));
        let mut command = module.command(&["restore"]);
        Run::of(command.args(arguments).arg("--to").arg(&to)).exits(&[0]);
        let text = fs::read_to_string(to.join("read me")).expect("the file");
        assert_eq!(text, expected, "{arguments:?}");
    }
    for (arguments, words) in [
        (&["data", "--at", "2026-03-03", "read me"][..], "no complete snapshot is as old"),
        (&["data", "--at", "soon", "read me"], "the end of that day"),
        (&["data", "read me"], "comes the name of a snapshot"),
        (&["data"], "name the module and then its snapshot"),
        (&["2026-03-04T05-06-08Z", "read me"], "no module has a snapshot"),
        (&["data", "2026-03-04T05-06-08Z", "read me"], "there is no snapshot"),
        (&["nothing", "newest"], "no module 'nothing'"),
        (&["newest", "--at", "2026-03-03"], "give one of them"),
    ] {
        let to = module.directory.join("nothing");
        let mut command = module.command(&["restore"]);
        Run::of(command.args(arguments).arg("--to").arg(&to)).exits(&[2]).says(words);
        assert!(!to.exists(), "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_written() {
    let (module, name) = Module::with_snapshot();
    symlink("documents", module.latest.join("shortcut")).expect("a link");
    tree::write(&module.latest.join("documents/letters/report"), "another\n");
    let newest = module.expect_snapshot();
    let other = module.snapshot(&name).join("read me").display().to_string();
    let to = to(&module);
    for (paths, words) in [
        (&["nothing"][..], "has no nothing"),
        (
            &["read me", "documents/nothing/deep"],
            "does not contain documents/nothing/deep: it has no documents/nothing",
        ),
        (&["read me/x"], "read me is not a directory"),
        (&["read me/."], "read me is not a directory"),
        (&["shortcut/report"], "shortcut is a symbolic link to documents"),
        (&["documents/report", "documents/letters/report"], "would land under one name"),
        (&["documents/.", "read me"], "by itself"),
        (&["../documents"], "`..`"),
        (&[""], "a path is empty"),
        (&[&other], "lies in another snapshot"),
    ] {
        restore(&module, &newest, &to, paths).exits(&[2]).says(words);
        assert!(!to.exists(), "{paths:?}");
    }
    let inside = |path: &str| module.root.join(path);
    for (to, words) in [
        (module.root.clone(), "is a snapshot root"),
        (inside(&name), "lies in a snapshot"),
        (inside(&name).join("documents"), "lies in a snapshot"),
        (inside(&name).join("new"), "lies in a snapshot"),
        (inside("latest"), "--in-place"),
        (inside("latest/documents/new"), "--in-place"),
        (module.private("drafts"), "holds the files of rsyncd-snapshot"),
        (module.directory.join("missing/new"), "missing does not exist"),
        (module.policy.clone(), "is not a directory"),
    ] {
        restore(&module, &newest, &to, &["read me"]).exits(&[1, 2]).says(words);
    }
    // A directory of another name in the root is a place like any other.
    restore(&module, &newest, &inside("restored"), &["read me"]).exits(&[0]);
    module.assert_equals_module(&newest);
    assert_is_clean(&module);
}

/// Sets the modification time of a file by so many seconds from now.
fn date(path: &Path, seconds: i64) {
    let now = SystemTime::now();
    let shift = Duration::from_secs(seconds.unsigned_abs());
    tree::set_mtime(path, if seconds < 0 { now - shift } else { now + shift });
}

#[test]
fn what_is_newer_is_replaced_only_if_asked_for() {
    let (module, name) = Module::with_snapshot();
    let to = to(&module);
    fs::create_dir_all(to.join("documents/letters")).expect("directories");
    for (path, age) in [("read me", 60), ("documents/report", -86_400), ("beside", 60)] {
        fs::write(to.join(path), "mine\n").expect("a file");
        date(&to.join(path), age);
    }
    let before = exact::of(&to);
    let run = restore(&module, &name, &to, &["-n"]).exits(&[1]);
    let run = run.says("REFUSED  read me: what is there is newer");
    run.says("replace  documents/report").says("new      documents/letters/to you");
    assert_eq!(exact::of(&to), before, "a dry run writes nothing");

    let run = restore(&module, &name, &to, &[]).exits(&[1]).says("read me: what is there is newer");
    run.says("nothing was restored").says("--overwrite");
    assert_eq!(exact::of(&to), before, "nothing is written where anything is in the way");

    let run = restore(&module, &name, &to, &["--json"]).exits(&[1]).json();
    assert_eq!(run["conflicts"][0]["path"], "read me", "{run}");
    assert_eq!((&run["conflict_count"], &run["made"]), (&1.into(), &0.into()), "{run}");

    let run = restore(&module, &name, &to, &["--overwrite", "--json"]).exits(&[0]).json();
    assert_eq!((&run["replaced"], &run["made"]), (&2.into(), &2.into()), "{run}");
    assert_eq!(fs::read_to_string(to.join("beside")).expect("a file"), "mine\n");
    fs::remove_file(to.join("beside")).expect("removed");
    tree::set_mtime(&to, module.snapshot(&name).metadata().unwrap().modified().unwrap());
    exact::assert_same(&module.snapshot(&name), &to);
}

#[test]
fn a_directory_is_never_replaced_and_a_file_only_if_asked_for() {
    let (module, name) = Module::with_snapshot();
    let to = to(&module);
    fs::create_dir_all(to.join("read me")).expect("a directory");
    fs::write(to.join("read me/kept"), "mine\n").expect("a file");
    fs::write(to.join("documents"), "mine\n").expect("a file");
    for more in [&[][..], &["--overwrite"]] {
        let run = restore(&module, &name, &to, more).exits(&[1]);
        run.says("read me: a directory is there").says("move it away");
        assert_eq!(fs::read_to_string(to.join("read me/kept")).expect("a file"), "mine\n");
        assert!(to.join("documents").is_file());
    }
    restore(&module, &name, &to, &["documents"]).exits(&[1]).says("--overwrite");
    restore(&module, &name, &to, &["documents", "--overwrite"]).exits(&[0]);
    exact::assert_same(&module.snapshot(&name).join("documents"), &to.join("documents"));
}

#[test]
fn no_symbolic_link_at_the_destination_is_followed() {
    let (module, name) = Module::with_snapshot();
    let (to, outside) = (to(&module), module.directory.join("outside"));
    fs::create_dir_all(&to).expect("a directory");
    fs::create_dir_all(outside.join("letters")).expect("a directory");
    symlink(&outside, to.join("documents")).expect("a link");
    symlink(outside.join("file"), to.join("read me")).expect("a link");
    restore(&module, &name, &to, &[]).exits(&[1]).says("nothing was restored");
    restore(&module, &name, &to, &["--overwrite"]).exits(&[0]);
    exact::assert_same(&module.snapshot(&name), &to);
    assert_eq!(names(&outside), ["letters"]);
    assert!(names(&outside.join("letters")).is_empty());
    // The directory itself may be one: the administrator has named it.
    symlink(&to, module.directory.join("link")).expect("a link");
    restore(&module, &name, &module.directory.join("link"), &[]).exits(&[0]);
}

#[test]
fn what_is_mounted_is_entered_on_neither_side() {
    if !support::may_mount() {
        return;
    }
    let (module, name) = Module::with_snapshot();
    let to = to(&module);
    fs::create_dir_all(to.join("documents")).expect("a directory");
    let mount = |point: &Path| {
        Run::of(tool("mount").args(["-t", "tmpfs", "none"]).arg(point)).exits(&[0]);
    };
    let unmount = |point: &Path| {
        Run::of(tool("umount").arg(point)).exits(&[0]);
    };
    mount(&to.join("documents"));
    let run = restore(&module, &name, &to, &[]);
    let other = restore(&module, &name, &to, &["read me"]);
    let inside = restore(&module, &name, &to.join("documents"), &["documents/."]);
    unmount(&to.join("documents"));
    run.exits(&[1]).says("documents: another file system is mounted there").says("by itself");
    other.exits(&[0]);
    inside.exits(&[0]);

    let inside = module.snapshot(&name).join("documents");
    mount(&inside);
    let run = restore(&module, &name, &module.directory.join("part"), &[]);
    unmount(&inside);
    let run = run.exits(&[1]).says("another file system is mounted there");
    assert!(run.stdout().contains("1 error"), "{run}");
}

#[test]
fn equal_times_and_sizes_do_not_hide_another_content() {
    let (module, name) = Module::with_snapshot();
    let to = to(&module);
    restore(&module, &name, &to, &[]).exits(&[0]);
    let path = to.join("documents/report");
    let time = path.metadata().expect("a file").modified().expect("a time");
    fs::write(&path, "SECOND\n").expect("a file");
    tree::set_mtime(&path, time);
    let run = restore(&module, &name, &to, &["-n"]).exits(&[0]).says("replace  documents/report");
    assert!(!run.stdout().contains("read me"), "{run}");
    restore(&module, &name, &to, &[]).exits(&[0]);
    exact::assert_same(&module.snapshot(&name), &to);
}

#[test]
fn hard_links_are_linked_again_whatever_is_there() {
    let (module, _) = Module::with_snapshot();
    fs::write(module.latest.join("a"), "one file").expect("a file");
    for name in ["b", "documents/c"] {
        fs::hard_link(module.latest.join("a"), module.latest.join(name)).expect("a link");
    }
    let name = module.expect_snapshot();
    let (snapshot, to) = (module.snapshot(&name), to(&module));
    restore(&module, &name, &to, &[]).exits(&[0]);
    let inode = |name: &str| fs::metadata(to.join(name)).expect("a file").ino();
    assert!(inode("a") == inode("b") && inode("a") == inode("documents/c"));
    assert_eq!(fs::metadata(to.join("a")).expect("a file").nlink(), 3);

    // One of them became a file of its own that looks the same; another one is missing.
    for break_up in ["b", "a"] {
        let copy = to.join("copy");
        Run::of(tool("cp").arg("-p").arg(to.join(break_up)).arg(&copy)).exits(&[0]);
        fs::rename(&copy, to.join(break_up)).expect("renamed");
        let _ = fs::remove_file(to.join("documents/c"));
        restore(&module, &name, &to, &[]).exits(&[0]);
        exact::assert_same(&snapshot, &to);
    }
    // Of a part of the group, only that part is linked.
    let part = module.directory.join("part");
    restore(&module, &name, &part, &["a", "b"]).exits(&[0]);
    assert_eq!(fs::metadata(part.join("a")).expect("a file").nlink(), 2);
}

#[test]
fn odd_names_come_back_and_are_printed_harmlessly() {
    let module = Module::new();
    tree::odd_names(&module.latest.join("odd"));
    fs::write(module.latest.join(OsStr::from_bytes(b"bad \xff\n\x1b[31m")), "x").expect("a file");
    let name = module.expect_snapshot();
    let to = to(&module);
    let run = restore(&module, &name, &to, &["-n"]).exits(&[0]);
    assert!(!run.bytes().contains(&0x1b) && !run.bytes().contains(&0xff), "{run}");
    restore(&module, &name, &to, &[]).exits(&[0]);
    exact::assert_same(&module.snapshot(&name), &to);
    let one = module.directory.join("one");
    let mut command = module.command(&["restore", "data", &name]);
    command.arg(OsStr::from_bytes(b"bad \xff\n\x1b[31m")).arg("--to").arg(&one);
    Run::of(&mut command).exits(&[0]);
    assert!(one.join(OsStr::from_bytes(b"bad \xff\n\x1b[31m")).exists());
}

#[test]
fn a_full_disk_ends_the_restore_and_leaves_no_half_file() {
    let Some(file_system) = FileSystem::with(Kind::Tmpfs, 2, &[]) else { return };
    let module = Module::new();
    tree::numbered(&module.latest, 4, 10);
    fs::write(module.latest.join("d0002/large"), vec![7; 3 << 20]).expect("a file");
    let name = module.expect_snapshot();
    let to = file_system.mount_point.join("new");
    let run = restore(&module, &name, &to, &[]).exits(&[1]).says("No space left on device");
    run.says("not everything is as in the snapshot");
    for directory in names(&to) {
        for file in names(&to.join(&directory)) {
            let path = Path::new(&directory).join(file);
            assert_eq!(
                fs::read(to.join(&path)).expect("a file"),
                fs::read(module.snapshot(&name).join(&path)).expect("its original"),
                "{}",
                path.display()
            );
        }
    }
    assert!(!to.join("d0002/large").exists());
    assert!(names(&to).iter().all(|name| !name.starts_with(STAGING)), "{:?}", names(&to));
    let mut mount = tool("mount");
    Run::of(mount.args(["-o", "remount,size=32m"]).arg(&file_system.mount_point)).exits(&[0]);
    restore(&module, &name, &to, &[]).exits(&[0]);
    exact::assert_same(&module.snapshot(&name), &to);
}

#[test]
fn an_attribute_that_does_not_fit_costs_only_itself() {
    let Some(small) = FileSystem::with(Kind::Ext4, 32, &["-b", "1024"]) else { return };
    let module = Module::new();
    for file in ["a", "b", "c"] {
        tree::write(&module.latest.join(file), file);
    }
    if !tree::set_attribute(&module.latest.join("b"), "user.big", &[b'x'; 3_000]) {
        skipped!("needs large extended attributes in {}", module.latest.display());
        return;
    }
    let name = module.expect_snapshot();
    let to = small.mount_point.join("new");
    let run = restore(&module, &name, &to, &["--json"]).exits(&[1]).json();
    assert_eq!((&run["made"], &run["error_count"]), (&3.into(), &1.into()), "{run}");
    let error = run["errors"][0].as_str().expect("a text");
    assert!(error.contains("new/b ") && error.contains("extended attributes differ"), "{error}");
    for file in ["a", "b", "c"] {
        assert_eq!(fs::read_to_string(to.join(file)).expect("a file"), file);
    }
}

#[test]
fn what_a_killed_restore_leaves_is_removed_by_the_next() {
    if !have(&["strace"]) {
        return;
    }
    let (module, name) = Module::with_snapshot();
    let to = to(&module);
    let mut killed = module.command_through(
        &["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=renameat2:signal=SIGKILL:when=2"],
        &["restore", "data", &name],
    );
    let run = Run::of(killed.arg("--to").arg(&to));
    assert_eq!(run.signal(), Some(9), "{run}");
    let left: Vec<String> =
        names(&to).into_iter().filter(|name| name.starts_with(STAGING)).collect();
    assert_eq!(left.len(), 1, "{:?}", names(&to));
    // What only looks like it stays.
    let (alike, closed) =
        (to.join(format!("{STAGING}0123456789abcdef")), to.join(format!("{STAGING}notes")));
    for (path, mode) in [(&alike, 0o700), (&closed, 0o700)] {
        fs::create_dir(path).expect("a directory");
        fs::write(path.join("kept"), "mine").expect("a file");
        tree::set_mode(path, mode);
    }
    restore(&module, &name, &to, &[]).exits(&[0]);
    assert!(!to.join(&left[0]).exists(), "{:?}", names(&to));
    for path in [alike, closed] {
        fs::remove_file(path.join("kept")).expect("kept");
        fs::remove_dir(path).expect("kept");
    }
    restore(&module, &name, &to, &[]).exits(&[0]);
    exact::assert_same(&module.snapshot(&name), &to);
}

#[test]
fn two_restores_into_one_directory_do_not_harm_each_other() {
    let module = Module::new();
    tree::numbered(&module.latest, 20, 20);
    let name = module.expect_snapshot();
    let to = to(&module);
    fs::create_dir(&to).expect("a directory");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| restore(&module, &name, &to, &[]).exits(&[0]));
        }
    });
    restore(&module, &name, &to, &[]).exits(&[0]);
    exact::assert_same(&module.snapshot(&name), &to);
}

#[test]
fn a_snapshot_that_goes_away_meanwhile_is_told() {
    if !have(&["strace"]) {
        return;
    }
    let (module, name) = Module::with_snapshot();
    let to = to(&module);
    let mut slow = module.command_through(
        &["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=syncfs:delay_enter=2s"],
        &["restore", "data", &name],
    );
    slow.arg("--to").arg(&to);
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| Run::of(&mut slow));
        support::time::wait_until("it has written", || to.join("documents/report").exists());
        sleep(Duration::from_millis(200));
        fs::rename(module.snapshot(&name), module.root.join("aside")).expect("renamed");
        run.join().expect("a run")
    });
    run.exits(&[1]).says("was changed or removed while it was read");
}

/// One snapshot stays, and the one before can be recycled.
const EXPIRING: &str = "[defaults]\nkeep = { hourly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\n\
                        grace = \"0s\"\ntime_zone = \"UTC\"\nanomaly_share = \"100%\"\n";

#[test]
fn a_snapshot_does_not_expire_while_it_is_restored() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    let (module, old) = Module::with_snapshot();
    module.date_back(&old, "2001-02-03T04-05-06Z");
    let old = "2001-02-03T04-05-06Z";
    module.write_policy(EXPIRING);
    tree::write(&module.latest.join("read me"), "changed\n");
    module.run(&["snapshot", "data", "--no-rotate"]).exits(&[0]);
    let to = to(&module);
    let mut slow = module.command_through(
        &["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=syncfs:delay_enter=3s"],
        &["restore", "data", old],
    );
    slow.arg("--to").arg(&to);
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| Run::of(&mut slow));
        support::time::wait_until("it has written", || to.join("documents/report").exists());
        module.run(&["rotate", "data"]).exits(&[0, 4]);
        assert!(module.snapshots().contains(&old.to_string()), "{:?}", module.snapshots());
        run.join().expect("a run")
    });
    run.exits(&[0]);
    exact::assert_same(&module.snapshot(old), &to);
    module.run(&["rotate", "data"]).exits(&[0, 4]);
    assert!(!module.snapshots().contains(&old.to_string()), "{:?}", module.snapshots());
}

#[test]
fn a_file_that_the_disk_returns_differently_is_told() {
    if !have(&["strace"]) {
        return;
    }
    let (module, name) = Module::with_snapshot();
    let to = to(&module);
    let mut slow = module.command_through(
        &["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=syncfs:delay_exit=2s"],
        &["restore", "data", &name],
    );
    slow.arg("--to").arg(&to);
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| Run::of(&mut slow));
        let path = to.join("documents/report");
        support::time::wait_until("it has written", || path.exists());
        sleep(Duration::from_millis(200));
        let time = path.metadata().expect("a file").modified().expect("a time");
        fs::write(&path, "SECOND\n").expect("written");
        tree::set_mtime(&path, time);
        tree::set_mode(&to.join("read me"), 0o604);
        fs::remove_file(to.join("documents/letters/to you")).expect("removed");
        run.join().expect("a run")
    });
    let run =
        run.exits(&[1]).says("documents/report is not as in the snapshot: its content differs");
    run.says("read me is not as in the snapshot: its mode differs").says("it is missing");
}

#[test]
fn json_says_what_was_done() {
    let (module, name) = Module::with_snapshot();
    let to = to(&module);
    let run = restore(&module, &name, &to, &["--json"]).exits(&[0]).json();
    for (key, value) in [
        ("module", "data".into()),
        ("snapshot", name.clone().into()),
        ("destination", to.display().to_string().into()),
        ("in_place", false.into()),
        ("dry_run", false.into()),
        ("entries", 6.into()),
        ("made", 4.into()),
        ("replaced", 0.into()),
        ("kept", 0.into()),
        ("directories", 2.into()),
        ("bytes", 19.into()),
        ("verified", 6.into()),
        ("conflict_count", 0.into()),
        ("error_count", 0.into()),
        ("snapshot_taken", serde_json::Value::Null),
    ] {
        assert_eq!(run[key], value, "{key}: {run}");
    }
    let run = restore(&module, &name, &to, &["-q"]).exits(&[0]);
    assert!(run.bytes().is_empty(), "{run}");
}
