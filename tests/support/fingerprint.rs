//! Fingerprints of trees: everything that a snapshot has to preserve, as lines of text.
//!
//! Everything goes through directory descriptors, so a tree deeper than `PATH_MAX` can be read.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

/// One line for each path below a directory, `.` included.
pub(crate) type Fingerprint = BTreeMap<Vec<u8>, String>;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Type, owner, mode, times and the like of everything in `directory`: of all but directories
/// also the inode, of directories the extended attributes, which ACLs are among.
pub(crate) fn of(directory: &Path) -> Fingerprint {
    let top = rustix::fs::open(directory, DIRECTORY, Mode::empty())
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut fingerprint = Fingerprint::new();
    fingerprint.insert(b".".to_vec(), describe_directory(&top));
    walk(&top, b"", &mut fingerprint);
    fingerprint
}

/// A fingerprint in which a copy equals its original.
pub(crate) fn without_inodes(fingerprint: &Fingerprint) -> Fingerprint {
    let strip = |line: &String| match (line.find(" inode "), line.find(" owner ")) {
        (Some(start), Some(end)) => format!("{}{}", &line[..start], &line[end..]),
        _ => line.clone(),
    };
    fingerprint.iter().map(|(path, line)| (path.clone(), strip(line))).collect()
}

/// A fingerprint in which an empty file equals a device that could not be copied.
pub(crate) fn with_stand_ins(live: &Fingerprint, copy: &Fingerprint) -> Fingerprint {
    let stand_in = |(path, line): (&Vec<u8>, &String)| {
        let is_copied = copy.get(path).is_some_and(|copy| copy.starts_with("mode 100"));
        let mut words: Vec<&str> = line.split(' ').collect();
        // mode 20640 inode 7 owner 0:0 device 103 ...
        let mode = words[1].strip_prefix(['2', '6']).map(|bits| format!("10{bits}"));
        if let Some(mode) = mode.as_deref().filter(|_| is_copied) {
            (words[1], words[7]) = (mode, "0");
        }
        (path.clone(), words.join(" "))
    };
    live.iter().map(stand_in).collect()
}

/// A fingerprint without owners and extended attributes.
pub(crate) fn without_attributes(fingerprint: &Fingerprint) -> Fingerprint {
    let strip = |line: &String| match (line.find(" owner "), line.find(" mtime "), line.find('.')) {
        (Some(owner), Some(mtime), Some(point)) if !line.contains(" inode ") => {
            format!("{}{}", &line[..owner], &line[mtime..point + 10])
        }
        _ => line.clone(),
    };
    fingerprint.iter().map(|(path, line)| (path.clone(), strip(line))).collect()
}

/// Fails the test with the first differences unless both directories have equal fingerprints.
#[track_caller]
pub(crate) fn assert_same(left: &Path, right: &Path) {
    assert_equal(&of(left), &of(right), &format!("{} and {}", left.display(), right.display()));
}

/// Fails the test with the first differences unless both fingerprints are equal.
#[track_caller]
pub(crate) fn assert_equal(left: &Fingerprint, right: &Fingerprint, what: &str) {
    let paths: std::collections::BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
    let mut differences = String::new();
    let different = paths.into_iter().filter(|path| left.get(*path) != right.get(*path));
    for path in different.take(8) {
        let missing = String::from("(missing)");
        let _ = writeln!(
            differences,
            "  {}\n    {}\n    {}",
            path.escape_ascii(),
            left.get(path).unwrap_or(&missing),
            right.get(path).unwrap_or(&missing)
        );
    }
    assert!(differences.is_empty(), "{what} differ:\n{differences}");
}

/// [`assert_same`] for trees of any depth: both are walked at once, without paths.
#[track_caller]
pub(crate) fn assert_same_at_any_depth(left: &Path, right: &Path) {
    let top = |path: &Path| {
        let directory = rustix::fs::open(path, DIRECTORY, Mode::empty());
        directory.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let step = |directory: &OwnedFd, name: &CStr| {
        let next = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty());
        next.unwrap_or_else(|error| panic!("{name:?}: {error}"))
    };
    let mut at = (top(left), top(right));
    let mut pending = vec![assert_same_entries(&at, 0)];
    while let Some(names) = pending.last_mut() {
        if let Some(name) = names.pop() {
            at = (step(&at.0, &name), step(&at.1, &name));
            pending.push(assert_same_entries(&at, pending.len()));
        } else {
            pending.pop();
            at = (step(&at.0, c".."), step(&at.1, c".."));
        }
    }
}

/// Fails unless two directories have the same attributes and entries; returns the names of those
/// that are directories.
#[track_caller]
fn assert_same_entries((left, right): &(OwnedFd, OwnedFd), depth: usize) -> Vec<CString> {
    let (left, names) = entries(left);
    assert_equal(&left, &entries(right).0, &format!("two directories, {depth} levels down,"));
    names
}

/// A directory and what is in it, but for what is in its subdirectories; and the names of these.
fn entries(directory: &OwnedFd) -> (Fingerprint, Vec<CString>) {
    let mut fingerprint = Fingerprint::from([(b".".to_vec(), describe_directory(directory))]);
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).expect("reads") {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let description = match entry.file_type() {
            FileType::Directory => {
                names.push(name.to_owned());
                String::from("directory")
            }
            _ => describe_file(directory, name),
        };
        fingerprint.insert(name.to_bytes().to_vec(), description);
    }
    (fingerprint, names)
}

fn walk(directory: &OwnedFd, prefix: &[u8], fingerprint: &mut Fingerprint) {
    let mut entries = Dir::read_from(directory).expect("reads");
    while let Some(entry) = entries.read() {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let path = [prefix, name.to_bytes()].concat();
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).expect("a stat");
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let child = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty())
                .unwrap_or_else(|error| panic!("{}: {error}", path.escape_ascii()));
            fingerprint.insert(path.clone(), describe_directory(&child));
            walk(&child, &[&path, b"/".as_slice()].concat(), fingerprint);
        } else {
            fingerprint.insert(path, describe_file(directory, name));
        }
    }
}

fn describe_directory(directory: &OwnedFd) -> String {
    let stat = rustix::fs::fstat(directory).expect("a stat");
    format!(
        "mode {:o} owner {}:{} mtime {}.{:09}{}",
        stat.st_mode,
        stat.st_uid,
        stat.st_gid,
        stat.st_mtime,
        stat.st_mtime_nsec,
        describe_attributes(directory)
    )
}

fn describe_file(directory: &OwnedFd, name: &CStr) -> String {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).expect("a stat");
    let target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => rustix::fs::readlinkat(directory, name, Vec::new()).expect("a target"),
        _ => c"".to_owned(),
    };
    format!(
        "mode {:o} inode {} owner {}:{} device {:x} size {} mtime {}.{:09} -> {}",
        stat.st_mode,
        stat.st_ino,
        stat.st_uid,
        stat.st_gid,
        stat.st_rdev,
        stat.st_size,
        stat.st_mtime,
        stat.st_mtime_nsec,
        target.to_bytes().escape_ascii()
    )
}

fn describe_attributes(file: impl AsFd) -> String {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::flistxattr(&file, names.as_mut_slice()).unwrap_or(0);
    let mut names: Vec<&[u8]> =
        names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut text = String::new();
    for name in names {
        let mut value = vec![0; 65_536];
        let length =
            rustix::fs::fgetxattr(&file, name, value.as_mut_slice()).expect("an attribute");
        let _ = write!(text, " {}={}", name.escape_ascii(), value[..length].escape_ascii());
    }
    text
}

/// The contents of all regular files below `directory`, by path.
pub(crate) fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut contents = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(path) = directories.pop() {
        for entry in fs::read_dir(directory.join(&path)).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = path.join(entry.file_name());
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                contents.insert(path, fs::read(entry.path()).expect("a file"));
            }
        }
    }
    contents
}
