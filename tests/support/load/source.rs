//! What a client backs up: files that change from push to push, and their manifest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::manifest;
use super::shown::Content;
use crate::support::random::Random;

/// How a source changes before a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    Few,
    Removals,
    /// Enough bytes to be throttled, so that the push takes a while.
    Large,
}

pub(crate) struct Source {
    pub(crate) directory: PathBuf,
    owner: String,
    pub(crate) sequence: u64,
    files: BTreeMap<String, Content>,
    unlisted: u32,
    changes: u64,
}

impl Source {
    pub(crate) fn new(directory: PathBuf, owner: &str, random: &mut Random) -> Source {
        let mut source = Source {
            directory,
            owner: owner.to_string(),
            sequence: 0,
            files: BTreeMap::new(),
            unlisted: 0,
            changes: 0,
        };
        for _ in 0..20 {
            source.write_some_file(random, 2_000);
        }
        source.finish();
        source
    }

    /// Changes something, and lists it in a new manifest.
    pub(crate) fn change(&mut self, change: Change, random: &mut Random) {
        match change {
            Change::Nothing => return,
            Change::Few => {
                (0..1 + random.below(4)).for_each(|_| self.write_some_file(random, 4_000))
            }
            Change::Removals => {
                (0..1 + random.below(6)).for_each(|_| self.remove_some_file(random))
            }
            Change::Large => {
                (0..3 + random.below(8)).for_each(|_| self.write_some_file(random, 60_000))
            }
        }
        self.finish();
    }

    /// Adds a file that no manifest lists.
    pub(crate) fn litter(&mut self) {
        self.unlisted += 1;
        let path = format!("{}{}", manifest::UNLISTED, self.unlisted);
        self.write(&path, path.clone().as_bytes());
        self.date_directories();
    }

    /// Removes all of those.
    pub(crate) fn tidy(&mut self) {
        let litter = self.directory.join(manifest::UNLISTED);
        if litter.exists() {
            fs::remove_dir_all(&litter).expect("removed");
        }
        fs::create_dir_all(&litter).expect("a directory");
        self.date_directories();
    }

    fn write_some_file(&mut self, random: &mut Random, limit: usize) {
        let path = match random.below(5) {
            0 => format!("a{}", random.below(4)),
            1 => format!("d{}/e{}/f{}", random.below(6), random.below(3), random.below(4)),
            _ => format!("d{}/f{}", random.below(6), random.below(6)),
        };
        let size = limit / 4 + random.below(limit);
        let bytes = random.bytes(size);
        self.write(&path, &bytes);
        self.files.insert(path, Content::of(&bytes));
    }

    fn remove_some_file(&mut self, random: &mut Random) {
        let paths: Vec<String> = self.files.keys().cloned().collect();
        let Some(path) = random.of(&paths).filter(|_| paths.len() > 5) else { return };
        fs::remove_file(self.directory.join(path)).expect("a file");
        self.files.remove(path);
        // Fails where there are other files, and that is meant.
        let parents = Path::new(path).ancestors().skip(1).filter(|parent| *parent != Path::new(""));
        parents.for_each(|parent| drop(fs::remove_dir(self.directory.join(parent))));
    }

    fn finish(&mut self) {
        self.sequence += 1;
        let text = manifest::text(&self.owner, self.sequence, &self.files);
        self.write(manifest::PATH, text.as_bytes());
        self.date_directories();
    }

    /// Gives each directory that was changed another time of modification, too: one of this second
    /// could be that which a push has just left in the module, and then rsync leaves it alone.
    fn date_directories(&mut self) {
        let mut directories = vec![self.directory.clone()];
        while let Some(directory) = directories.pop() {
            let entries = fs::read_dir(&directory)
                .expect("a directory")
                .map(|entry| entry.expect("an entry"));
            let below = entries.filter(|entry| entry.file_type().expect("a type").is_dir());
            directories.extend(below.map(|entry| entry.path()));
            let opened = File::open(&directory).expect("a directory");
            let modified = opened.metadata().and_then(|data| data.modified()).expect("a time");
            if modified > UNIX_EPOCH + Duration::from_secs(1_500_000_000) {
                self.changes += 1;
                let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.changes);
                opened.set_modified(time).expect("a time");
            }
        }
    }

    /// Each time with another time of modification, in whole seconds, since rsync looks at these.
    fn write(&mut self, path: &str, bytes: &[u8]) {
        self.changes += 1;
        let path = self.directory.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(&path, bytes).expect("a file");
        let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.changes);
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(time))
            .expect("a time");
    }
}
