//! Runs a command that is killed, or gets an error, at one of its system calls. strace injects
//! that.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::module::Module;
use super::run::Run;

/// A system call of a run: strace counts the calls of each name apart, and those of each thread.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// Its number among the calls of this name.
    pub(crate) number: usize,
    arguments: String,
}

/// The system calls that the undisturbed run of `command` makes from the first one on that names
/// the snapshot root; what goes before is the loader's and the policy's.
pub(crate) fn calls(module: &Module, command: impl FnOnce(&[&str]) -> Command) -> Vec<Call> {
    let trace = module.directory.join("trace");
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().expect("UTF-8")];
    Run::of(&mut command(&strace)).exits(&[0]);
    let trace = fs::read_to_string(&trace).expect("a trace");
    let calls = parse(&trace, &module.root);
    assert!(calls.len() > 50, "only {} calls were traced", calls.len());
    calls
}

/// Each call once, though several threads may have made one of its name and number.
fn parse(trace: &str, root: &Path) -> Vec<Call> {
    let begin = format!("\"{}", root.display());
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut known = BTreeSet::new();
    let mut calls = Vec::new();
    let mut has_begun = false;
    for line in trace.lines() {
        // 1234 openat(AT_FDCWD, ...
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        // An older strace has no name for a newer call, listxattrat, and cannot disturb it.
        if !name.chars().all(|c| c.is_alphanumeric() || c == '_') || name.starts_with("syscall_") {
            continue;
        }
        let number = counts.entry((thread, name)).or_insert(0);
        *number += 1;
        has_begun |= arguments.contains(&begin) && name != "execve";
        // A later thread's first calls have the numbers of those that were made while the program
        // was loaded.
        if known.insert((name, *number)) && has_begun {
            calls.push(Call {
                name: name.to_string(),
                number: *number,
                arguments: arguments.to_string(),
            });
        }
    }
    calls
}

impl Call {
    /// The run that is killed as it makes this call.
    pub(crate) fn killed(&self, command: impl FnOnce(&[&str]) -> Command) -> Run {
        self.injected("signal=SIGKILL", command)
    }

    /// The run in which this call, and nothing else, fails with `error`.
    pub(crate) fn failed(&self, error: &str, command: impl FnOnce(&[&str]) -> Command) -> Run {
        self.injected(&format!("error={error}"), command)
    }

    /// Whether it opens a file that is made if it does not exist.
    pub(crate) fn creates(&self) -> bool {
        self.name.starts_with("open") && self.arguments.contains("O_CREAT")
    }

    /// Whether its arguments contain `name`.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.arguments.contains(name)
    }

    fn injected(&self, what: &str, command: impl FnOnce(&[&str]) -> Command) -> Run {
        let Call { name, number, .. } = self;
        let inject = format!("inject={name}:{what}:when={number}");
        let trace = format!("trace={name}");
        let strace = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        Run::of(&mut command(&strace))
    }

    /// The errors that a file system, a quota or the kernel may answer this call with, of those
    /// that the sweep is about.
    pub(crate) fn errors(&self) -> &'static [&'static str] {
        match self.name.as_str() {
            "open" | "openat" | "openat2" if self.creates() => {
                &["ENOSPC", "EIO", "EDQUOT", "EPERM", "EINTR"]
            }
            "open" | "openat" | "openat2" => &["EIO", "EPERM", "EINTR"],
            "mkdir" | "mkdirat" | "link" | "linkat" | "symlinkat" | "mknodat" | "rename"
            | "renameat" | "renameat2" => &["ENOSPC", "EIO", "EDQUOT", "EPERM", "EMLINK"],
            "unlink" | "unlinkat" | "rmdir" => &["ENOSPC", "EIO", "EDQUOT", "EPERM"],
            // Writes to the terminal or to the client are not file-system calls.
            "write" if self.arguments.starts_with("1,") || self.arguments.starts_with("2,") => &[],
            "write" | "pwrite64" => &["ENOSPC", "EIO", "EDQUOT", "EINTR"],
            "fsync" | "fdatasync" | "syncfs" => &["ENOSPC", "EIO", "EDQUOT", "EINTR"],
            "read" | "pread64" | "getdents64" => &["EIO", "EINTR"],
            "ftruncate" => &["ENOSPC", "EIO", "EPERM", "EINTR"],
            "fchmod" | "fchmodat" | "fchown" | "fchownat" | "fsetxattr" | "fremovexattr"
            | "utimensat" => &["ENOSPC", "EIO", "EDQUOT", "EPERM"],
            "fstat" | "newfstatat" | "statx" | "statfs" | "fstatfs" | "readlink" | "readlinkat"
            | "flistxattr" | "fgetxattr" => &["EIO", "EPERM"],
            "flock" => &["EINTR"],
            _ => &[],
        }
    }
}

/// Does `work` for half as many of `things` as `bound` says, spread over all of them, for a fifth
/// of `bound` in a quick run, or for each in a full sweep, in a few threads; all of them, though
/// some fail. Returns how many that were.
#[track_caller]
pub(crate) fn spread<T: Sync>(
    things: &[T],
    bound: usize,
    work: impl Fn(usize, &T) + Sync,
) -> usize {
    let usual = bound.min(things.len());
    let count = super::by_sweep(usual.div_ceil(5), usual.div_ceil(2), things.len());
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let run = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let thing = &things[number * things.len() / count];
            if catch_unwind(AssertUnwindSafe(|| work(number, thing))).is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    // More than processors: they wait for the disk, or for the next second's name, most of the
    // time.
    std::thread::scope(|scope| (0..12).for_each(|_| drop(scope.spawn(run))));
    let failed = failed.into_inner();
    assert_eq!(failed, 0, "so many of {count} failed, as told above");
    count
}
