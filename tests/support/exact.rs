//! What a restore has to keep of a tree: the fingerprint, contents, extended attributes of files,
//! and which names are hard links of each other.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::fingerprint::{self, Fingerprint};

/// One line for each path below a directory, `.` included. Equal of a tree and its restored copy.
pub(crate) fn of(directory: &Path) -> Fingerprint {
    let mut lines = fingerprint::without_inodes(&fingerprint::of(directory));
    let mut groups: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let paths: Vec<Vec<u8>> = lines.keys().cloned().collect();
    for path in paths {
        let full = directory.join(Path::new(std::ffi::OsStr::from_bytes(&path)));
        let metadata = full.symlink_metadata().expect("an entry");
        if metadata.is_dir() {
            continue;
        }
        let first = groups.entry(metadata.ino()).or_insert_with(|| path.clone());
        let mut more = format!(" first name {}", first.escape_ascii());
        for (name, value) in attributes(&full) {
            let _ = write!(more, " {name}={}", value.escape_ascii());
        }
        if metadata.is_file() {
            let content = fs::read(&full).expect("a file");
            let _ = write!(more, " content {}", hash(&content));
        }
        lines.get_mut(&path).expect("its line").push_str(&more);
    }
    lines
}

/// Fails unless `copy` is what `original` is.
#[track_caller]
pub(crate) fn assert_same(original: &Path, copy: &Path) {
    let what = format!("{} and {}", original.display(), copy.display());
    fingerprint::assert_equal(&of(original), &of(copy), &what);
}

/// The extended attributes of an entry, without following it.
pub(crate) fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65_536];
            let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).expect("a value");
            (name.escape_ascii().to_string(), value[..length].to_vec())
        })
        .filter(|(name, _)| name != "security.selinux")
        .collect()
}

fn hash(content: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}
