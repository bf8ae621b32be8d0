//! Measures bare system calls, and the engine without a run, for `benches/engine`.
//!
//! * `bare_loop limits LIVE MIRROR` makes MIRROR a tree of hard links to LIVE and removes it again,
//!   with nothing but the calls themselves in the loops that are timed: names are listed and
//!   directories are opened outside of them. No clone and no removal that touches each entry can be
//!   faster.
//! * `bare_loop clone LIVE NEW` is the engine's fresh clone: not durable, no record, nothing
//!   compared.
//! * `bare_loop remove DIRECTORY...` is the engine's removal, one tree after the other.
//!
//! Each prints a JSON object.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rsyncd_snapshot::internals::{CloneContext, CloneTarget, clone_tree, remove_trees};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let answer = match words.split_first().map(|(command, rest)| (command.to_str(), rest)) {
        Some((Some("limits"), &[live, mirror])) => limits(Path::new(live), Path::new(mirror)),
        Some((Some("clone"), &[live, new])) => clone(Path::new(live), Path::new(new)),
        Some((Some("remove"), trees)) if !trees.is_empty() => remove(trees),
        _ => {
            Err("usage: bare_loop limits LIVE MIRROR | clone LIVE NEW | remove DIRECTORY...".into())
        }
    };
    match answer {
        Ok(text) => println!("{text}"),
        Err(error) => {
            eprintln!("bare_loop: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

// -- The engine --------------------------------------------------------------------------------

fn clone(live: &Path, new: &Path) -> Outcome<String> {
    let (parent_path, name) = split(new)?;
    let (live_directory, parent) = (File::open(live)?, File::open(parent_path)?);
    let stage = CloneTarget {
        parent: parent.as_fd(),
        parent_path,
        name: &name,
        is_recycled: false,
        drafts: parent.as_fd(),
    };
    let (cloned, _) = clone_tree((live_directory.as_fd(), live), &stage, CloneContext::default())?;
    Ok(format!("{{\"entries\": {}}}", cloned.entries))
}

fn remove(trees: &[&OsStr]) -> Outcome<String> {
    let mut entries = 0;
    for tree in trees {
        let (parent_path, name) = split(Path::new(tree))?;
        let (removed, remaining) =
            remove_trees(File::open(parent_path)?.as_fd(), parent_path, &[name])?;
        if let Some(remains) = remaining.into_iter().next() {
            return Err(remains.error.into());
        }
        entries += removed;
    }
    Ok(format!("{{\"entries\": {entries}}}"))
}

fn split(path: &Path) -> Outcome<(&Path, CString)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(format!("{} has no parent or no name", path.display()).into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    Ok((parent, c_string(name)?))
}

fn c_string(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(io::Error::other)
}

// -- The limits --------------------------------------------------------------------------------

/// A directory of the tree, relative to its root.
struct Directory {
    path: PathBuf,
    files: Vec<CString>,
    directories: Vec<CString>,
}

/// Measures with one thread, then with one per processor.
fn limits(live: &Path, mirror: &Path) -> Outcome<String> {
    let levels = list(live)?;
    let processors = thread::available_parallelism()?.get();
    let mut rounds = vec![round(live, mirror, &levels, 1)?];
    if processors > 1 {
        rounds.push(round(live, mirror, &levels, processors)?);
    }
    Ok(format!("[{}]", rounds.join(", ")))
}

/// The directories by depth, so that those of one level can be worked on in any order.
fn list(root: &Path) -> Outcome<Vec<Vec<Directory>>> {
    let mut levels = Vec::new();
    let mut paths = vec![PathBuf::new()];
    while !paths.is_empty() {
        let mut level = Vec::new();
        let mut below = Vec::new();
        for path in paths {
            let mut directory = Directory { path, files: Vec::new(), directories: Vec::new() };
            for entry in fs::read_dir(root.join(&directory.path))? {
                let entry = entry?;
                let name = c_string(&entry.file_name())?;
                if entry.file_type()?.is_dir() {
                    below.push(directory.path.join(entry.file_name()));
                    directory.directories.push(name);
                } else {
                    directory.files.push(name);
                }
            }
            level.push(directory);
        }
        levels.push(level);
        paths = below;
    }
    Ok(levels)
}

fn round(live: &Path, mirror: &Path, levels: &[Vec<Directory>], threads: usize) -> Outcome<String> {
    let open_live = |directory: &Directory| open(&live.join(&directory.path));
    let open_mirror = |directory: &Directory| open(&mirror.join(&directory.path));
    let open_both = |directory: &Directory| Ok((open_live(directory)?, open_mirror(directory)?));

    fs::create_dir(mirror)?;
    let mkdirat = time_levels(levels.iter(), threads, open_mirror, |at, directory| {
        each(&directory.directories, |name| rustix::fs::mkdirat(at, name, Mode::RWXU))
    })?;
    let linkat = time_levels(levels.iter(), threads, open_both, |(from, to), directory| {
        each(&directory.files, |name| rustix::fs::linkat(from, name, to, name, AtFlags::empty()))
    })?;
    let statx = |at: &OwnedFd, names: &[CString]| {
        let (flags, mask) = (AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
        each(names, |name| rustix::fs::statx(at, name, flags, mask).map(drop))
    };
    let statx_files = time_levels(levels.iter(), threads, open_mirror, |at, directory| {
        statx(at, &directory.files)
    })?;
    let statx_directories = time_levels(levels.iter(), threads, open_mirror, |at, directory| {
        statx(at, &directory.directories)
    })?;
    let unlinkat = time_levels(levels.iter(), threads, open_mirror, |at, directory| {
        each(&directory.files, |name| rustix::fs::unlinkat(at, name, AtFlags::empty()))
    })?;
    let rmdir = time_levels(levels.iter().rev(), threads, open_mirror, |at, directory| {
        each(&directory.directories, |name| rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR))
    })?;
    fs::remove_dir(mirror)?;

    let files: usize = levels.iter().flatten().map(|directory| directory.files.len()).sum();
    let directories: usize =
        levels.iter().flatten().map(|directory| directory.directories.len()).sum();
    let calls = [
        ("linkat", files, linkat),
        ("mkdirat", directories, mkdirat),
        ("unlinkat", files, unlinkat),
        ("rmdir", directories, rmdir),
        ("statx_files", files, statx_files),
        ("statx_directories", directories, statx_directories),
    ];
    let fields = calls.map(|(call, count, time)| {
        format!("\"{call}\": {{\"calls\": {count}, \"seconds\": {:.6}}}", time.as_secs_f64())
    });
    Ok(format!("{{\"threads\": {threads}, {}}}", fields.join(", ")))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn each(names: &[CString], call: impl Fn(&CString) -> rustix::io::Result<()>) -> io::Result<()> {
    for name in names {
        call(name)?;
    }
    Ok(())
}

/// The time of `calls` over all directories, level by level. Of each level the slowest thread
/// counts. The time of `open` does not count.
fn time_levels<'a, Opened>(
    levels: impl Iterator<Item = &'a Vec<Directory>>,
    threads: usize,
    open: impl Fn(&Directory) -> io::Result<Opened> + Sync,
    calls: impl Fn(&Opened, &Directory) -> io::Result<()> + Sync,
) -> io::Result<Duration> {
    let time_some = |some: &[Directory], first: usize, step: usize| -> io::Result<Duration> {
        let mut time = Duration::ZERO;
        for directory in some.iter().skip(first).step_by(step) {
            let opened = open(directory)?;
            let start = Instant::now();
            calls(&opened, directory)?;
            time += start.elapsed();
        }
        Ok(time)
    };
    let mut sum = Duration::ZERO;
    for level in levels {
        let time_some = &time_some;
        let workers = threads.min(level.len());
        sum += match workers {
            1 => time_some(level, 0, 1)?,
            _ => thread::scope(|scope| {
                let start = |first| scope.spawn(move || time_some(level, first, workers));
                let running: Vec<_> = (0..workers).map(start).collect();
                let times = running.into_iter().map(|worker| worker.join().expect("a worker"));
                times
                    .collect::<io::Result<Vec<_>>>()
                    .map(|times| times.into_iter().max().unwrap_or_default())
            })?,
        };
    }
    Ok(sum)
}
