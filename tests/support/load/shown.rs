//! What trees on the server hold. Snapshots share most files, so each inode is read once.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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

/// The contents of inodes as they were read; only while nothing changes on the server.
#[derive(Default)]
pub(crate) struct Shown {
    inodes: HashMap<(u64, u64), Content>,
}

impl Shown {
    /// The contents of all files below `directory`, by path.
    pub(crate) fn contents(&mut self, directory: &Path) -> BTreeMap<String, Content> {
        let mut tree = self.tree(directory);
        tree.retain(|path, _| !path.ends_with('/'));
        tree
    }

    /// The same with the directories, whose paths end with a slash.
    pub(crate) fn tree(&mut self, directory: &Path) -> BTreeMap<String, Content> {
        let mut contents = BTreeMap::new();
        let mut directories = vec![String::new()];
        while let Some(prefix) = directories.pop() {
            let entries = fs::read_dir(directory.join(&prefix))
                .unwrap_or_else(|error| panic!("{}/{prefix}: {error}", directory.display()));
            for entry in entries {
                let entry = entry.expect("an entry");
                let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
                match entry.file_type().expect("a type").is_dir() {
                    true => {
                        let path = format!("{path}/");
                        contents.insert(path.clone(), Content::of(b""));
                        directories.push(path);
                    }
                    false => drop(contents.insert(path, self.content(&entry.path()))),
                }
            }
        }
        contents
    }

    fn content(&mut self, path: &Path) -> Content {
        let metadata = fs::symlink_metadata(path).expect("a file");
        let read =
            || Content::of(&fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        *self.inodes.entry((metadata.dev(), metadata.ino())).or_insert_with(read)
    }
}
