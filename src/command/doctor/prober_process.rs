//! The prober's own work: answers the questions of its parent with the rights that it has kept.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{
    AccessFlags, Gid, Uid, faccessat, getegid, geteuid, setegid, seteuid, setgroups, setresgid,
    setresuid,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::command::doctor::prober::{
    Answer, NO_HOOKS, PathUse, Question, RunByUser, path_of, started,
};
use crate::decide::arguments::snapshot_words::SNAPSHOT_DIRECTORY;
use crate::store::dir::Dir;
use crate::store::link_trial::{self, LinkTrial};
use crate::system::process_io;
use crate::tell::escape::{escape, escape_path, unescape};

/// More output than this is none of ours.
const MAX_OUTPUT: u64 = 16 << 20;

/// The name of the directory in which links are tried.
const TRIAL: &str = ".rsyncd-snapshot-trial";

/// No snapshot of CephFS can have a name that begins so.
const SNAPSHOT_TRIAL: &str = "_rsyncd-snapshot-trial";

/// What the prober needs: another user's identity, and to enter every directory.
const KEPT: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::SYS_PTRACE);

/// Answers each question until the parent ends.
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
        Question::Snapshots { daemon, path, uid, gids } => path_of(path)
            .map_or(Answer::Unknown, |path| try_to_snapshot(*daemon, &path, *uid, gids)),
        Question::Mounts { pid } => match std::fs::read(format!("/proc/{pid}/mountinfo")) {
            Ok(text) => Answer::Text(escape(&text)),
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
        Question::Charset { name } => match unescape(name).and_then(|name| knows_charset(&name)) {
            Some(is_known) => yes_or_no(is_known),
            None => Answer::Unknown,
        },
        Question::Run(run) => output_of(run).map_or(Answer::Unknown, Answer::Text),
        Question::Become(run) => {
            become_and_run(run);
            std::process::exit(1);
        }
    }
}

/// Asks the program iconv, since rsync need not have been built with the C library of this program.
fn knows_charset(name: &[u8]) -> Option<bool> {
    let knows = |name: &[u8]| {
        let mut iconv = Command::new("iconv");
        iconv.arg("-f").arg(OsString::from_vec(name.to_vec())).args(["-t", "UTF-8"]);
        iconv.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Some(iconv.status().ok()?.success())
    };
    match knows(name)? {
        true => Some(true),
        // Otherwise it is that program which does not work.
        false => knows(b"UTF-8")?.then_some(false),
    }
}

/// A process of its own becomes the user, since that cannot be taken back.
fn output_of(run: &RunByUser) -> Option<String> {
    let mut process = started(&std::env::current_exe().ok()?)?;
    let line = serde_json::to_string(&Question::Become(run.clone())).ok()? + "\n";
    process.stdin.take()?.write_all(line.as_bytes()).ok()?;
    let mut text = String::new();
    process.stdout.take()?.take(MAX_OUTPUT).read_to_string(&mut text).ok()?;
    let _ = process.kill();
    process.wait().ok()?;
    Some(text)
}

/// Returns only if that fails.
fn become_and_run(run: &RunByUser) -> Option<()> {
    let groups: Vec<Gid> = run.gids.iter().copied().map(Gid::from_raw).collect();
    let (group, user) = (*groups.first()?, Uid::from_raw(run.uid));
    setgroups(&groups).ok()?;
    setresgid(group, group, group).ok()?;
    setresuid(user, user, user).ok()?;
    let text = |escaped: &String| Some(OsString::from_vec(unescape(escaped)?));
    let arguments = run.arguments.iter().map(text).collect::<Option<Vec<_>>>()?;
    // The user may not be able to reach the program by its path.
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).env_clear().stdin(Stdio::null());
    for (variable, value) in &run.environment {
        command.env(text(variable)?, text(value)?);
    }
    let error = command.exec();
    log::debug!("cannot run as that user: {error}");
    None
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

/// CephFS refuses the name in any case, but looks at the right first: without it the error is
/// EACCES. The directory's own mode gives that error, too, so only a user that may write into the
/// directory can tell.
fn try_to_snapshot(daemon: Option<u32>, path: &Path, uid: u32, gids: &[u32]) -> Answer {
    let seen = daemon.zip(path.strip_prefix("/").ok());
    let seen = seen.map(|(pid, below)| Path::new(&format!("/proc/{pid}/root")).join(below));
    let path = seen.filter(|seen| seen.is_dir()).unwrap_or(path.to_path_buf());
    if !matches!(try_to_write(&path, uid, gids), Answer::Yes) {
        return Answer::Unknown;
    }
    let snapshot = path.join(SNAPSHOT_DIRECTORY).join(SNAPSHOT_TRIAL);
    match as_user(uid, gids, || nix::unistd::mkdir(&snapshot, Mode::S_IRWXU)) {
        Answer::Refused(libc::EACCES) => Answer::No,
        Answer::Refused(libc::EINVAL | libc::EMLINK) => Answer::Yes,
        Answer::Yes => {
            let _ = std::fs::remove_dir(&snapshot);
            Answer::Yes
        }
        // Such as EPERM, where the file system lets no client make snapshots, but delete them.
        _ => Answer::Unknown,
    }
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
