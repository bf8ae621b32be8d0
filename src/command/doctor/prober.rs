//! A process that tries, for `check`, what needs rights that `check` gives up.
//!
//! `check` reads what clients made, so it gives up nearly all capabilities first. Whether the user
//! of a module can write into its directory, and whether a file system has hard links, shows only
//! to a process with other rights. The kernel also hides the environment, the mounts and the
//! written bytes of other processes from one that Landlock confines, root's as well, and such a
//! process can run no program. So `check` starts this program once more before it gives anything
//! up. The prober reads nothing but the questions of its parent, one a line; it answers each with a
//! line, and ends when its parent ends. Of another process's environment it tells only whether one
//! variable is there. It runs iconv to learn whether the system knows a character set. A history of
//! another user is checked by that user: a prober of its own becomes the user for good, and then
//! runs `check`.
//!
//! The prober changes no file, with one exception: on a file system that may lack hard links, and
//! where no run has tried yet, it makes a directory in the place of the snapshots, makes a link in
//! it, and removes both at once. On CephFS it asks for a snapshot of a name that no snapshot can
//! have.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::tell::escape::{escape, escape_path, unescape};

/// The option of `check` that the prober is started with.
pub(crate) const PROBER: &str = "--prober";

/// A file system that answers its first question takes no longer for these.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a `check` by another user may take.
const PATIENCE_WITH_RUN: Duration = Duration::from_secs(60);

/// The variable with which rsyncd runs no hooks, whatever its value.
pub(crate) const NO_HOOKS: &str = "RSYNC_NO_XFER_EXEC";

/// A question. Paths are escaped.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    /// Whether a user with these groups can make files in the directory.
    Write { path: String, uid: u32, gids: Vec<u32> },
    /// Whether a user with these groups can use a path, on which each directory has to let it in.
    Use { path: String, uid: u32, gids: Vec<u32>, how: PathUse },
    /// Whether the file system of the directory has hard links.
    Links { path: String },
    /// Whether a user with these groups may make snapshots of a directory on CephFS. `daemon`: the
    /// process whose mounts count, if there is one.
    Snapshots { daemon: Option<u32>, path: String, uid: u32, gids: Vec<u32> },
    /// The mounts that a process sees, as the kernel lists them.
    Mounts { pid: u32 },
    /// The directory that a process works in.
    WorkingDirectory { pid: u32 },
    /// Whether a process was started with the variable that makes rsyncd run no hooks.
    RunsNoHooks { pid: u32 },
    /// How many bytes the children of a process have written.
    Written { pid: u32 },
    /// What this program prints to a user.
    Run(RunByUser),
    /// Whether the system knows a character set, escaped.
    Charset { name: String },
    /// Become that user and run it, which is asked of a prober of its own.
    Become(RunByUser),
}

/// A run of this program by another user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunByUser {
    pub(crate) uid: u32,
    /// At least one; the first is that of new files.
    pub(crate) gids: Vec<u32>,
    /// Escaped.
    pub(crate) arguments: Vec<String>,
    /// Variables and their values, both escaped.
    pub(crate) environment: Vec<(String, String)>,
}

/// What a path is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PathUse {
    Read,
    /// Read and write.
    Write,
    /// Make files in a directory.
    WriteIn,
    /// Execute a file, or enter a directory.
    Execute,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Yes,
    No,
    /// The system's error number.
    Refused(i32),
    /// Escaped.
    Text(String),
    Number(u64),
    Unknown,
}

/// Whether a user can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteTrial {
    Can,
    /// The system's error number.
    Cannot(i32),
    Unknown,
}

/// Whether the Ceph user of a mount may make and delete snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotRight {
    Held,
    Lacking,
    Unknown,
}

/// The prober, as its parent sees it.
pub(crate) struct Prober {
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Prober {
    /// Starts the prober, before this process gives up its rights. None if it cannot be started.
    /// That of an ordinary user is of use, too: it is not confined by Landlock.
    pub(crate) fn start() -> Option<Self> {
        let mut process = started(&std::env::current_exe().ok()?)?;
        let questions = process.stdin.take();
        let answers = BufReader::new(process.stdout.take()?);
        Some(Prober { process, questions, answers })
    }

    /// Whether a user with these groups can make files in the directory.
    pub(crate) fn can_write(&mut self, path: &Path, uid: u32, gids: &[u32]) -> WriteTrial {
        let path = escape_path(path);
        match self.ask(&Question::Write { path, uid, gids: gids.to_vec() }) {
            Answer::Yes => WriteTrial::Can,
            Answer::Refused(errno) => WriteTrial::Cannot(errno),
            _ => WriteTrial::Unknown,
        }
    }

    /// Whether a user with these groups can use the path.
    pub(crate) fn can_use(
        &mut self,
        path: &Path,
        uid: u32,
        gids: &[u32],
        how: PathUse,
    ) -> WriteTrial {
        let path = escape_path(path);
        match self.ask(&Question::Use { path, uid, gids: gids.to_vec(), how }) {
            Answer::Yes => WriteTrial::Can,
            Answer::Refused(errno) => WriteTrial::Cannot(errno),
            _ => WriteTrial::Unknown,
        }
    }

    /// Whether the file system of a directory, in which a snapshot root is or will be, has hard
    /// links; none if that cannot be tried.
    pub(crate) fn has_links(&mut self, path: &Path) -> Option<bool> {
        match self.ask(&Question::Links { path: escape_path(path) }) {
            Answer::Yes => Some(true),
            Answer::No => Some(false),
            _ => None,
        }
    }

    /// Whether a user with these groups may make snapshots of a directory on CephFS, as the process
    /// `daemon` sees it, if there is one.
    pub(crate) fn snapshot_right(
        &mut self,
        daemon: Option<u32>,
        path: &Path,
        uid: u32,
        gids: &[u32],
    ) -> SnapshotRight {
        let path = escape_path(path);
        match self.ask(&Question::Snapshots { daemon, path, uid, gids: gids.to_vec() }) {
            Answer::Yes => SnapshotRight::Held,
            Answer::No => SnapshotRight::Lacking,
            _ => SnapshotRight::Unknown,
        }
    }

    /// `/proc/PID/mountinfo` of a process.
    pub(crate) fn mounts_of(&mut self, pid: u32) -> Option<Vec<u8>> {
        match self.ask(&Question::Mounts { pid }) {
            Answer::Text(text) => unescape(&text),
            _ => None,
        }
    }

    /// The directory that a process works in.
    pub(crate) fn working_directory(&mut self, pid: u32) -> Option<PathBuf> {
        match self.ask(&Question::WorkingDirectory { pid }) {
            Answer::Text(text) => path_of(&text),
            _ => None,
        }
    }

    /// Whether the daemon `pid` was started with the variable that makes it run no hooks.
    pub(crate) fn runs_no_hooks(&mut self, pid: u32) -> Option<bool> {
        match self.ask(&Question::RunsNoHooks { pid }) {
            Answer::Yes => Some(true),
            Answer::No => Some(false),
            _ => None,
        }
    }

    /// How many bytes the children of the process `pid` have written so far.
    pub(crate) fn bytes_written_below(&mut self, pid: u32) -> Option<u64> {
        match self.ask(&Question::Written { pid }) {
            Answer::Number(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Whether this system knows the character set; none if that cannot be found out.
    pub(crate) fn knows_charset(&mut self, name: &[u8]) -> Option<bool> {
        match self.ask(&Question::Charset { name: escape(name) }) {
            Answer::Yes => Some(true),
            Answer::No => Some(false),
            _ => None,
        }
    }

    /// What this program prints to a user.
    pub(crate) fn output_to(&mut self, run: RunByUser) -> Option<String> {
        match self.ask(&Question::Run(run)) {
            Answer::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A prober that does not answer in time is asked nothing more.
    fn ask(&mut self, question: &Question) -> Answer {
        self.answer(question).unwrap_or_else(|| {
            self.questions = None;
            Answer::Unknown
        })
    }

    fn answer(&mut self, question: &Question) -> Option<Answer> {
        let line = serde_json::to_string(question).ok()? + "\n";
        self.questions.as_mut()?.write_all(line.as_bytes()).ok()?;
        let patience = match question {
            Question::Run(_) => PATIENCE_WITH_RUN,
            _ => PATIENCE,
        };
        let limit = Timespec::try_from(patience).ok()?;
        let mut polled = [PollFd::new(self.answers.get_ref(), PollFlags::IN)];
        if !matches!(poll(&mut polled, Some(&limit)), Ok(1..)) {
            return None;
        }
        let mut answer = String::new();
        self.answers.read_line(&mut answer).ok()?;
        serde_json::from_str(&answer).ok()
    }
}

impl Drop for Prober {
    /// Ends the prober. One that hangs in a call of a dead file system is left behind.
    fn drop(&mut self) {
        self.questions = None;
        let _ = self.process.kill();
        let _ = self.process.try_wait();
    }
}

/// A process of this program that answers questions.
pub(super) fn started(program: &Path) -> Option<Child> {
    Command::new(program)
        .args(["check", PROBER])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .inspect_err(|error| log::debug!("no prober: {error}"))
        .ok()
}

pub(super) fn path_of(escaped: &str) -> Option<PathBuf> {
    unescape(escaped).map(|bytes| PathBuf::from(OsStr::from_bytes(&bytes)))
}
