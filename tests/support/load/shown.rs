//! The content of trees on the server. Snapshots share most files, so each inode is read once.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) size: u64,
    pub(crate) checksum: u32,
}

impl Content {
    pub(crate) fn of(bytes: &[u8]) -> Content {
        Content { size: bytes.len() as u64, checksum: crc32fast::hash(bytes) }
    }
}

/// A cache of file contents by inode, valid while nothing changes on the server.
#[derive(Default)]
pub(crate) struct Shown {
    inodes: HashMap<(u64, u64), Content>,
}

/// What a tree shows: directories, whose paths end with a slash, and files, with their times of
/// modification.
pub(crate) type Tree = BTreeMap<String, (Content, SystemTime)>;

impl Shown {
    /// The contents of all files below `directory`, by path.
    pub(crate) fn contents(&mut self, directory: &Path) -> BTreeMap<String, Content> {
        let files = self.tree(directory).into_iter().filter(|(path, _)| !path.ends_with('/'));
        files.map(|(path, (content, _))| (path, content)).collect()
    }

    pub(crate) fn tree(&mut self, directory: &Path) -> Tree {
        let mut tree = Tree::new();
        let mut directories = vec![String::new()];
        while let Some(prefix) = directories.pop() {
            let entries = fs::read_dir(directory.join(&prefix))
                .unwrap_or_else(|error| panic!("{}/{prefix}: {error}", directory.display()));
            for entry in entries {
                let entry = entry.expect("an entry");
                let metadata = entry.metadata().expect("an inode");
                let modified = metadata.modified().expect("a time");
                let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if metadata.is_dir() {
                    let path = format!("{path}/");
                    tree.insert(path.clone(), (Content::of(b""), modified));
                    directories.push(path);
                } else {
                    tree.insert(path, (self.content(&entry.path(), &metadata), modified));
                }
            }
        }
        tree
    }

    fn content(&mut self, path: &Path, metadata: &Metadata) -> Content {
        let read = || {
            Content::of(
                &fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            )
        };
        *self.inodes.entry((metadata.dev(), metadata.ino())).or_insert_with(read)
    }
}
