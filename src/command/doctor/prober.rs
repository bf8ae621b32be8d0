//! A process that tries, for `check`, what needs rights that `check` gives up.
//!
//! `check` reads what clients made, so it gives up nearly all capabilities first. Whether the user
//! of a module can write into its directory, and whether a file system has hard links, shows only
//! to a process with other rights. The kernel also hides the environment, the mounts and the
//! written bytes of other processes from one that Landlock confines, root's as well. So
//! `check` starts this program once more before it gives anything up. The prober reads nothing but
//! the questions of its parent, one a line; it answers each with a line, and ends when its parent
//! ends. Of another process's environment it tells only whether one variable is there.
//!
//! The prober changes no file, with one exception: on a file system that may lack hard links, and
//! where no run has tried yet, it makes a directory in the place of the snapshots, makes a link in
//! it, and removes both at once.

use std::fs::{DirBuilder, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{
    AccessFlags, Gid, Uid, faccessat, getegid, geteuid, setegid, seteuid, setgroups,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use crate::store::dir::Dir;
use crate::store::link_trial::{self, LinkTrial};
use crate::system::process_io;
use crate::tell::escape::{escape_path, unescape};

/// The option of `check` that the prober is started with.
pub(crate) const PROBER: &str = "--prober";

/// A file system that answers its first question takes no longer for these.
const PATIENCE: Duration = Duration::from_secs(10);

/// The variable with which rsyncd runs no hooks, whatever its value.
pub(crate) const NO_HOOKS: &str = "RSYNC_NO_XFER_EXEC";

/// The name of the directory in which links are tried.
const TRIAL: &str = ".rsyncd-snapshot-trial";

/// What the prober needs: another user's identity, and to enter every directory.
const KEPT: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::SYS_PTRACE);

/// A question. Paths are escaped.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    /// Whether a user with these groups can make files in the directory.
    Write { path: String, uid: u32, gids: Vec<u32> },
    /// Whether a user with these groups can use a path, on which each directory has to let it in.
    Use { path: String, uid: u32, gids: Vec<u32>, how: PathUse },
    /// Whether the file system of the directory has hard links.
    Links { path: String },
    /// The mounts that a process sees, as the kernel lists them.
    Mounts { pid: u32 },
    /// The directory that a process works in.
    WorkingDirectory { pid: u32 },
    /// Whether a process was started with the variable that makes rsyncd run no hooks.
    RunsNoHooks { pid: u32 },
    /// How many bytes the children of a process have written.
    Written { pid: u32 },
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
enum Answer {
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
        let program = std::env::current_exe().ok()?;
        let mut process = Command::new(program)
            .args(["check", PROBER])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .inspect_err(|error| log::debug!("no prober: {error}"))
            .ok()?;
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
        let limit = Timespec::try_from(PATIENCE).ok()?;
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

/// The prober's own work: answers each question until its parent ends.
pub(crate) fn run() {
    give_up_rights();
    let mut output = std::io::stdout();
    for line in std::io::stdin().lines() {
        let Ok(line) = line else { return };
        let answer =
            serde_json::from_str(&line).map_or(Answer::Unknown, |question| tried(&question));
        let Ok(text) = serde_json::to_string(&answer) else { return };
        if writeln!(output, "{text}").and_then(|()| output.flush()).is_err() {
            return;
        }
    }
}

fn give_up_rights() {
    let given_up = rustix::thread::set_no_new_privs(true).and_then(|()| {
        let held = rustix::thread::capabilities(None)?;
        let sets = CapabilitySets {
            effective: held.effective & KEPT,
            permitted: held.permitted & KEPT,
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, sets)
    });
    if let Err(error) = given_up {
        log::debug!("the prober keeps its capabilities: {error}");
    }
}

fn path_of(escaped: &str) -> Option<PathBuf> {
    unescape(escaped).map(|bytes| PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)))
}

fn tried(question: &Question) -> Answer {
    match question {
        Question::Write { path, uid, gids } => {
            path_of(path).map_or(Answer::Unknown, |path| try_to_write(&path, *uid, gids))
        }
        Question::Use { path, uid, gids, how } => {
            path_of(path).map_or(Answer::Unknown, |path| try_to_use(&path, *uid, gids, *how))
        }
        Question::Links { path } => {
            path_of(path).map_or(Answer::Unknown, |path| try_to_link(&path))
        }
        Question::Mounts { pid } => match std::fs::read(format!("/proc/{pid}/mountinfo")) {
            Ok(text) => Answer::Text(crate::tell::escape::escape(&text)),
            Err(_) => Answer::Unknown,
        },
        Question::WorkingDirectory { pid } => {
            match std::fs::read_link(format!("/proc/{pid}/cwd")) {
                Ok(path) => Answer::Text(escape_path(&path)),
                Err(_) => Answer::Unknown,
            }
        }
        Question::RunsNoHooks { pid } => match std::fs::read(format!("/proc/{pid}/environ")) {
            Ok(variables) => yes_or_no(is_set(&variables, NO_HOOKS)),
            Err(_) => Answer::Unknown,
        },
        Question::Written { pid } => {
            process_io::bytes_written_below(*pid).map_or(Answer::Unknown, Answer::Number)
        }
    }
}

fn yes_or_no(is_so: bool) -> Answer {
    if is_so { Answer::Yes } else { Answer::No }
}

/// Whether an environment, each of whose variables ends with a zero byte, has the variable `name`.
fn is_set(variables: &[u8], name: &str) -> bool {
    let mut variables = variables.split(|byte| *byte == 0);
    variables
        .any(|one| one.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")))
}

/// rsyncd enters the directory with its own rights, and becomes the module's user then.
fn try_to_write(path: &Path, uid: u32, gids: &[u32]) -> Answer {
    const FLAGS: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
    let Ok(directory) = open(path, FLAGS, Mode::empty()) else { return Answer::Unknown };
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    as_user(uid, gids, || faccessat(directory.as_fd(), c".", wanted, AtFlags::AT_EACCESS))
}

/// The user finds the whole way to the path.
fn try_to_use(path: &Path, uid: u32, gids: &[u32], how: PathUse) -> Answer {
    let wanted = match how {
        PathUse::Read => AccessFlags::R_OK,
        PathUse::Write => AccessFlags::R_OK | AccessFlags::W_OK,
        PathUse::WriteIn => AccessFlags::W_OK | AccessFlags::X_OK,
        PathUse::Execute => AccessFlags::X_OK,
    };
    as_user(uid, gids, || faccessat(AT_FDCWD, path, wanted, AtFlags::AT_EACCESS))
}

/// The answer of a trial with the rights of a user, which are this process's own or replace them
/// for the time of the trial.
fn as_user(uid: u32, gids: &[u32], attempt: impl FnOnce() -> nix::Result<()>) -> Answer {
    let answer = |tried: nix::Result<()>| match tried {
        Ok(()) => Answer::Yes,
        Err(errno) => Answer::Refused(errno as i32),
    };
    let (own_uid, own_gid) = (geteuid(), getegid());
    if uid == own_uid.as_raw() && !own_uid.is_root() {
        return answer(attempt());
    }
    let groups: Vec<Gid> = gids.iter().copied().map(Gid::from_raw).collect();
    let Some(first) = groups.first() else { return Answer::Unknown };
    // An ordinary user may not, and then nothing has to be taken back.
    if setgroups(&groups).is_err() {
        return Answer::Unknown;
    }
    let became = setegid(*first).and_then(|()| seteuid(Uid::from_raw(uid)));
    let answer = became.map_or(Answer::Unknown, |()| answer(attempt()));
    let returned = seteuid(own_uid).and_then(|()| setegid(own_gid)).and_then(|()| setgroups(&[]));
    // With another user's rights, no further answer would be true.
    if returned.is_err() {
        std::process::exit(1);
    }
    answer
}

fn try_to_link(parent: &Path) -> Answer {
    let path = parent.join(format!("{TRIAL}-{}", std::process::id()));
    if DirBuilder::new().mode(0o700).create(&path).is_err() {
        return Answer::Unknown;
    }
    let trial = File::open(&path).ok().and_then(|opened| {
        link_trial::of_links(Dir { directory: opened.as_fd(), path: &path }).ok()
    });
    let _ = std::fs::remove_dir(&path);
    match trial {
        Some(LinkTrial::Links | LinkTrial::NoInodeNumbers) => Answer::Yes,
        Some(LinkTrial::NoLinks) => Answer::No,
        None => Answer::Unknown,
    }
}
