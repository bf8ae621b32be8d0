//! Trees to fill a module with.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags, makedev, mkdirat, mknodat, openat};

use super::is_root;

/// A few files in a few directories.
pub(crate) fn small(directory: &Path) {
    fs::create_dir_all(directory.join("documents/letters")).expect("directories");
    write(&directory.join("read me"), "first\n");
    write(&directory.join("documents/report"), "second\n");
    write(&directory.join("documents/letters/to you"), "third\n");
    symlink("documents/report", directory.join("link")).expect("a symlink");
}

/// `directories` directories of `files` files each.
pub(crate) fn numbered(directory: &Path, directories: usize, files: usize) {
    for d in 0..directories {
        let directory = directory.join(format!("d{d:04}"));
        fs::create_dir_all(&directory).expect("a directory");
        for f in 0..files {
            write(&directory.join(format!("f{f:04}")), &format!("{d} {f}"));
        }
    }
}

/// Makes or replaces a file the way rsync does: under another name first, so as a new inode.
pub(crate) fn write(path: &Path, text: &str) {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text).expect("a file");
    fs::rename(&temporary, path).expect("a rename");
}

/// Every type of entry and every attribute that a snapshot has to keep; devices and foreign
/// owners only for root.
pub(crate) fn every_type(directory: &Path) {
    let at = |name: &str| directory.join(name);
    small(directory);
    write(&at("empty"), "");
    fs::create_dir(at("empty directory")).expect("a directory");
    special_files(directory);
    hard_links(directory);
    odd_names(&at("odd names"));
    deep(&at("nested"), 30, 10);
    for (name, target) in [
        ("dangling", "nowhere/at all"),
        ("outside", "/etc/hostname"),
        ("upwards", "../../../.."),
        ("itself", "itself"),
        ("to a directory", "documents"),
        ("odd target", "new\nline \u{1b}[31m"),
    ] {
        symlink(target, at(name)).expect("a symlink");
    }
    for (name, mode) in [
        ("open", 0o777),
        ("closed", 0o700),
        ("read only", 0o555),
        ("sticky", 0o1777),
        ("set-gid", 0o2775),
        ("all bits", 0o7777),
        ("nothing", 0o000),
    ] {
        if mode == 0 && !is_root() {
            continue;
        }
        let path = at(name);
        fs::create_dir(&path).expect("a directory");
        write(&path.join("inside"), name);
        set_mode(&path, mode);
    }
    write(&at("set-uid file"), "x");
    set_mode(&at("set-uid file"), 0o6755);
    attributes(directory);
    if is_root() {
        owners(directory);
    }
    for (index, name) in
        ["documents", "documents/letters", "empty directory", "nested", "odd names"]
            .iter()
            .enumerate()
    {
        let time =
            UNIX_EPOCH + Duration::new(1_234_567_890 + index as u64, 123_456_789 + index as u32);
        set_mtime(&at(name), time);
    }
    set_mtime(&at("open"), UNIX_EPOCH - Duration::new(86_400, 5));
    set_mtime(directory, UNIX_EPOCH + Duration::new(999_999_999, 999_999_999));
}

/// One of each type of entry, and few of everything else: for sweeps that go through every call of
/// a run.
pub(crate) fn one_of_each(directory: &Path) {
    small(directory);
    special_files(directory);
    hard_links(directory);
    write(&directory.join("set-uid"), "x");
    set_mode(&directory.join("set-uid"), 0o6755);
    fs::create_dir(directory.join("empty")).expect("a directory");
    attributes(directory);
    let odd = directory.join(OsStr::from_bytes(b"odd \xff\n\x1b[31m"));
    fs::create_dir(&odd).expect("a directory");
    for name in [&[b'n'; 255][..], b"-rf", b"line\nbreak", b".f.AbCdEf"] {
        fs::write(odd.join(OsStr::from_bytes(name)), name).expect("a file");
    }
    if is_root() {
        let owned = directory.join("somebody's");
        fs::create_dir(&owned).expect("a directory");
        write(&owned.join("inside"), "x");
        chown(owned.join("inside"), Some(1000), Some(1000)).expect("chown");
        set_mode(&owned.join("inside"), 0o4711);
        chown(&owned, Some(1000), Some(1001)).expect("chown");
        set_mode(&owned, 0o2750);
    }
    set_mtime(directory, UNIX_EPOCH + Duration::new(999_999_999, 999_999_999));
}

fn special_files(directory: &Path) {
    make_node(&directory.join("fifo"), FileType::Fifo, 0);
    make_node(&directory.join("socket"), FileType::Socket, 0);
    if is_root() {
        make_node(&directory.join("null"), FileType::CharacterDevice, makedev(1, 3));
        make_node(&directory.join("disk"), FileType::BlockDevice, makedev(7, 201));
    }
}

fn make_node(path: &Path, kind: FileType, device: u64) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).expect("a special file");
}

fn hard_links(directory: &Path) {
    let first = directory.join("linked");
    write(&first, "linked");
    fs::hard_link(&first, directory.join("documents/linked again")).expect("a link");
    fs::hard_link(&first, directory.join("documents/letters/linked thrice")).expect("a link");
    fs::hard_link(directory.join("fifo"), directory.join("fifo again")).expect("a link");
    fs::hard_link(directory.join("link"), directory.join("link again")).expect("a link");
}

/// Names with all allowed bytes, of the greatest length, and names that other programs misread.
pub(crate) fn odd_names(directory: &Path) {
    fs::create_dir(directory).expect("a directory");
    for byte in (1..=255).filter(|byte| *byte != b'/' && *byte != b'.') {
        fs::write(directory.join(OsStr::from_bytes(&[byte])), [byte]).expect("a file");
    }
    let all: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    for name in [
        &all[..],
        &[b'n'; 255],
        b"-rf",
        b"...",
        b"..\n",
        b" ",
        b"\\x0a",
        b"a\xff\xfeb",
        b".f.AbCdEf",
        b"*",
    ] {
        fs::write(directory.join(OsStr::from_bytes(name)), name).expect("a file");
    }
    let control = directory.join("directory\n\u{1b}[31m\r");
    fs::create_dir(&control).expect("a directory");
    fs::write(control.join("line\nbreak"), "x").expect("a file");
}

/// Directories in directories, `levels` deep, each with a file; the names are `length` long.
pub(crate) fn deep(directory: &Path, levels: usize, length: usize) {
    fs::create_dir_all(directory).expect("a directory");
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut parent = openat(CWD, directory, flags, Mode::empty()).expect("the directory");
    for level in 0..levels {
        let name = format!("{level:0length$}");
        mkdirat(&parent, &name, Mode::from_raw_mode(0o755)).expect("a directory");
        let file = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        openat(&parent, "file", file, Mode::from_raw_mode(0o644)).expect("a file");
        parent = openat(&parent, &name, flags, Mode::empty()).expect("the directory just made");
    }
}

/// ACLs and extended attributes, where the file system has them.
fn attributes(directory: &Path) {
    let path = directory.join("attributes");
    fs::create_dir(&path).expect("a directory");
    write(&path.join("file"), "x");
    for (file, owner) in [(path.join("file"), 0o6), (path.clone(), 0o7)] {
        set_attribute(&file, "user.comment", b"a value\0with a null");
        set_attribute(&file, "user.empty", b"");
        set_attribute(&file, "system.posix_acl_access", &acl(owner, 0o5, 1000));
    }
    if is_root() {
        // Directories do not keep them.
        set_attribute(&path.join("file"), "trusted.secret", b"of root");
    }
    let inherited = directory.join("with a default ACL");
    fs::create_dir(&inherited).expect("a directory");
    set_attribute(&inherited, "system.posix_acl_default", &acl(0o7, 0o5, 1001));
    fs::create_dir(inherited.join("below")).expect("a directory");
    fs::create_dir(inherited.join("cleared")).expect("a directory");
    let _ = rustix::fs::removexattr(inherited.join("cleared"), "system.posix_acl_default");
    let _ = rustix::fs::removexattr(inherited.join("cleared"), "system.posix_acl_access");
}

fn owners(directory: &Path) {
    for (name, owner, group, mode) in [
        ("somebody's", 1000, 1000, 0o755),
        ("a group's", 0, 1001, 0o2750),
        ("another's", 4_000_000_000, 3_000_000_000, 0o700),
    ] {
        let path = directory.join(name);
        fs::create_dir(&path).expect("a directory");
        write(&path.join("inside"), name);
        chown(path.join("inside"), Some(owner), Some(group)).expect("chown");
        set_mode(&path.join("inside"), 0o4711);
        chown(&path, Some(owner), Some(group)).expect("chown");
        set_mode(&path, mode);
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

pub(crate) fn set_mtime(path: &Path, time: std::time::SystemTime) {
    let file = File::open(path).expect("a file or directory");
    file.set_times(FileTimes::new().set_modified(time)).expect("a modification time");
}

/// CAP_NET_RAW, permitted and effective, as `security.capability` holds it.
pub(crate) const CAP_NET_RAW: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Sets an extended attribute; says so where the file system has none of that kind.
pub(crate) fn set_attribute(path: &Path, name: &str, value: &[u8]) -> bool {
    match rustix::fs::setxattr(path, name, value, XattrFlags::empty()) {
        Ok(()) => true,
        Err(rustix::io::Errno::NOTSUP) => {
            eprintln!("no {name} on the file system of {}", path.display());
            false
        }
        Err(error) => panic!("{name} of {}: {error}", path.display()),
    }
}

/// A POSIX ACL as the kernel stores it: `user` may do what the owning group may.
pub(crate) fn acl(owner: u16, group: u16, user: u32) -> Vec<u8> {
    const NOBODY_IN_PARTICULAR: u32 = u32::MAX;
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (0x01u16, owner, NOBODY_IN_PARTICULAR),
        (0x02, group, user),
        (0x04, group, NOBODY_IN_PARTICULAR),
        (0x10, group, NOBODY_IN_PARTICULAR),
        (0x20, 0, NOBODY_IN_PARTICULAR),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}
