//! What a client's pushes do to a module, as rsync does it: each file is written under a temporary
//! name, never synced, and renamed. Most names are new ones, since file systems take more care
//! of a file that replaces another.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::random::Random;

pub(crate) struct Pusher {
    module: PathBuf,
    random: Random,
    /// How many names there have been; each is used once.
    names: usize,
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Pusher {
    pub(crate) fn new(module: &Path, seed: u64) -> Pusher {
        Pusher {
            module: module.to_path_buf(),
            random: Random::new(seed),
            names: 0,
            files: Vec::new(),
            directories: vec![PathBuf::new()],
        }
    }

    /// The changes of one push.
    pub(crate) fn push(&mut self) {
        for _ in 0..1 + self.random.below(2) {
            self.make_directory();
        }
        for _ in 0..6 + self.random.below(10) {
            let path = self.new_path("file");
            self.write(&path);
            self.files.push(path);
        }
        for _ in 0..self.random.below(4) {
            if let Some(path) = self.random.of(&self.files).cloned() {
                self.write(&path);
            }
        }
        if let Some(path) = self.random.of(&self.files).cloned() {
            let link = self.new_path("link");
            fs::hard_link(self.module.join(path), self.module.join(&link)).expect("a hard link");
            self.files.push(link);
        }
        let link = self.new_path("symlink");
        symlink(format!("target {}", self.names), self.module.join(link)).expect("a symlink");
        self.remove_files();
        if self.directories.len() > 8 {
            self.remove_directory();
        }
    }

    fn new_path(&mut self, what: &str) -> PathBuf {
        self.names += 1;
        let name = format!("{what} {}", self.names);
        self.random.of(&self.directories).expect("the module itself").join(name)
    }

    fn make_directory(&mut self) {
        let path = self.new_path("directory");
        let absolute = self.module.join(&path);
        fs::create_dir(&absolute).expect("a directory");
        let mode = [0o755, 0o700, 0o2775, 0o1777][self.random.below(4)];
        fs::set_permissions(absolute, fs::Permissions::from_mode(mode)).expect("a mode");
        self.directories.push(path);
    }

    fn write(&mut self, path: &Path) {
        let size = [0, 100, 4096, 20_000, 90_000][self.random.below(5)];
        let size = size + self.random.below(size + 1);
        let target = self.module.join(path);
        let name = path.file_name().expect("a name").to_string_lossy();
        let temporary =
            target.with_file_name(format!(".{name}.{:06}", self.random.below(1_000_000)));
        fs::write(&temporary, self.random.bytes(size)).expect("a file");
        fs::rename(&temporary, &target).expect("renamed");
    }

    fn remove_files(&mut self) {
        let surplus = self.files.len().saturating_sub(80);
        for _ in 0..surplus + self.random.below(3) {
            if !self.files.is_empty() {
                let path = self.files.swap_remove(self.random.below(self.files.len()));
                fs::remove_file(self.module.join(path)).expect("removed");
            }
        }
    }

    /// Removes a directory with all that is in it.
    fn remove_directory(&mut self) {
        let path = self.directories[1 + self.random.below(self.directories.len() - 1)].clone();
        fs::remove_dir_all(self.module.join(&path)).expect("removed");
        self.directories.retain(|other| !other.starts_with(&path));
        self.files.retain(|other| !other.starts_with(&path));
    }
}
