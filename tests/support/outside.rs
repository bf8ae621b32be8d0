//! What lies beside a module and is no run's business, and how to see that none touched it.
//!
//! Each sentinel is watched by inotify, which tells of every open, read, write, link and removal,
//! by whatever name; and its state is compared with what it was: the change time, which no program
//! can set, tells of a link that was made and removed again, and the access time, which is older
//! than anything, of a read.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// The names that files have in each directory, here and in the module.
pub(crate) const FILES: [&str; 4] = ["f0", "f1", "f2", "f3"];

/// The name that a directory has in each directory.
pub(crate) const BELOW: &str = "sub";

/// How many files are also linked into the module.
pub(crate) const LINKED: usize = 4;

/// What may happen to something that is watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Right {
    /// Nothing.
    None,
    /// Its names may become more or fewer.
    Links,
    /// Others may move things in and out, and those may be read.
    Passage,
}

pub(crate) struct Outside {
    directory: PathBuf,
    inotify: OwnedFd,
    watched: HashMap<i32, (PathBuf, Right)>,
    before: BTreeMap<PathBuf, (Right, String)>,
}

impl Outside {
    /// Sentinels in `directory`, which is made.
    pub(crate) fn new(directory: &Path) -> Outside {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("inotify");
        let mut outside = Outside {
            directory: directory.to_path_buf(),
            inotify,
            watched: HashMap::new(),
            before: BTreeMap::new(),
        };
        for directory in [outside.target(), outside.passage()] {
            fs::create_dir_all(directory.join(BELOW)).expect("a directory");
            for parent in [directory.join(BELOW), directory] {
                FILES.iter().for_each(|name| make_sentinel(&parent.join(name)));
            }
        }
        fs::create_dir(directory.join("linked")).expect("a directory");
        (0..LINKED).for_each(|number| make_sentinel(&outside.linked(number)));
        for directory in [outside.target(), outside.passage()] {
            let right = if directory == outside.passage() { Right::Passage } else { Right::None };
            for name in FILES {
                outside.guard(directory.join(name), Right::None);
                outside.guard(directory.join(BELOW).join(name), Right::None);
            }
            outside.guard(directory.join(BELOW), Right::None);
            outside.guard(directory, right);
        }
        (0..LINKED).for_each(|number| outside.guard(outside.linked(number), Right::Links));
        outside
    }

    /// What symbolic links of the module lead to.
    pub(crate) fn target(&self) -> PathBuf {
        self.directory.join("target")
    }

    /// Where directories of the module go and come back from.
    pub(crate) fn passage(&self) -> PathBuf {
        self.directory.join("passage")
    }

    /// A file that has names in the module, too.
    pub(crate) fn linked(&self, number: usize) -> PathBuf {
        self.directory.join("linked").join(format!("s{number}"))
    }

    fn guard(&mut self, path: PathBuf, right: Right) {
        let time = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let times = fs::FileTimes::new()
            .set_accessed(time(1_000_000_000))
            .set_modified(time(1_100_000_000));
        File::open(&path).and_then(|file| file.set_times(times)).expect("times");
        let flags = match right {
            Right::None => WatchFlags::ALL_EVENTS,
            _ => WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::MODIFY | WatchFlags::CLOSE,
        };
        self.watch(&path, flags, right);
        self.before.insert(path.clone(), (right, describe(&path, right)));
    }

    /// No process may open the file at `path`, which may be in the module and go elsewhere.
    pub(crate) fn forbid_opening(&mut self, path: &Path) {
        self.watch(path, WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::MODIFY, Right::None);
    }

    fn watch(&mut self, path: &Path, flags: WatchFlags, right: Right) {
        let watch = inotify::add_watch(&self.inotify, path, flags).expect("a watch");
        self.watched.insert(watch, (path.to_path_buf(), right));
    }

    /// What has happened since the last look that must not.
    pub(crate) fn violations(&mut self) -> Vec<String> {
        let mut found = self.events();
        for (path, (right, before)) in &mut self.before {
            let now = describe(path, *right);
            if now != *before {
                found.push(format!("{}: was {before}, is {now}", path.display()));
                *before = now;
            }
        }
        found
    }

    fn events(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 16_384];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut found = Vec::new();
        while let Ok(event) = reader.next() {
            assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW), "events were lost");
            let Some((path, right)) = self.watched.get(&event.wd()) else { continue };
            // What is on its way through the passage is the module's; sentinels in it are watched
            // on their own.
            if *right != Right::Passage || event.file_name().is_none() {
                let name = event.file_name().map(|name| format!(" {name:?}")).unwrap_or_default();
                found.push(format!("{}{name}: {:?}", path.display(), event.events()));
            }
        }
        found
    }

    /// Fails if anything was touched or holds anything else; the last look, since it reads all of
    /// it.
    #[track_caller]
    pub(crate) fn assert_untouched(mut self) {
        let violations = self.violations();
        assert!(
            violations.is_empty(),
            "{} violations: {:#?}",
            violations.len(),
            &violations[..violations.len().min(20)]
        );
        for path in self.before.keys().filter(|path| path.is_file()) {
            assert_eq!(fs::read_to_string(path).expect("a sentinel"), content(path));
        }
        for directory in [self.target(), self.target().join(BELOW), self.passage().join(BELOW)] {
            let names = fs::read_dir(&directory).expect("a directory").count();
            assert_eq!(
                names,
                FILES.len() + usize::from(directory == self.target()),
                "{}",
                directory.display()
            );
        }
    }
}

fn content(path: &Path) -> String {
    format!("the secret of {}", path.display())
}

fn make_sentinel(path: &Path) {
    fs::write(path, content(path)).expect("a sentinel");
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("a mode");
}

/// What must stay as it is.
fn describe(path: &Path, right: Right) -> String {
    let Ok(metadata) = fs::symlink_metadata(path) else { return "missing".to_string() };
    let mut text = format!(
        "inode {} mode {:o} owner {}:{} accessed {}.{:09}",
        metadata.ino(),
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.atime(),
        metadata.atime_nsec()
    );
    if right != Right::Passage {
        text += &format!(
            " size {} modified {}.{:09}",
            metadata.size(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
    }
    if right == Right::None {
        let (seconds, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
        text += &format!(" links {} changed {seconds}.{nanoseconds:09}", metadata.nlink());
    }
    text
}
