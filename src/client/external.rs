//! Running other programs: looked up in fixed directories, in a clean environment, without a shell,
//! and reported with command line, status and the end of what they said.
//!
//! Each leads a process group of its own, so that a Ctrl-C for us does not tear it down in passing
//! and a signal that we hand on reaches all of it. The exception is a command that may ask
//! something, such as rsync over ssh, sudo or cryptsetup, while there is a terminal: a background
//! group cannot read from it. That one shares our group, and the shell's job control works as for
//! any program.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::client::failure::{Failure, Result};
use crate::client::programs::DIRECTORIES;
use crate::client::rsync::output::{Complaints, Kept, Output, last_lines};
use crate::client::signals::{self, Running};
use crate::tell::escape::escape;

/// What programs may need to know of our environment: languages, terminals and desktops, agents,
/// and what rsync and ssh read for themselves. Nothing else reaches them.
const INHERITED: [&str; 25] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "KRB5CCNAME",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LOGNAME",
    "RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY",
    "RSYNCD_SNAPSHOT_STATE_DIRECTORY",
    "RSYNC_PASSWORD",
    "RSYNC_PROXY",
    "SSH_AGENT_PID",
    "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE",
    "SSH_AUTH_SOCK",
    "SUDO_ASKPASS",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
];

/// A program to run.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// Variables that are set for it, over those that are inherited.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether it may ask a person something.
    pub may_ask: bool,
    /// Its standard output.
    pub output: Output,
    /// Its standard error.
    pub complaints: Complaints,
    /// The account that it runs as, if not ours: user and group.
    pub account: Option<(u32, u32)>,
    /// When it is killed if it has not ended.
    pub limit: Option<Duration>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its status; none if a signal ended it.
    pub status: Option<i32>,
    signal: Option<i32>,
    line: String,
    /// Its standard output, or the end of it.
    pub output: Vec<u8>,
    /// The end of its standard error, escaped.
    pub said: String,
}

impl Call {
    /// A call of `words`, the first of which is the program.
    pub(crate) fn new<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Self {
        Call {
            words: words.into_iter().map(|word| word.as_ref().to_os_string()).collect(),
            environment: Vec::new(),
            may_ask: false,
            output: Output::Capture,
            complaints: Complaints::Quote,
            account: None,
            limit: None,
        }
    }

    /// The command line as a person would type it, escaped.
    pub(crate) fn line(&self) -> String {
        let quoted = |word: &OsString| shell_quote(escape(word.as_bytes()).as_bytes());
        let words: Vec<Vec<u8>> = self.words.iter().map(quoted).collect();
        String::from_utf8_lossy(&words.join(&b' ')).into_owned()
    }

    /// Runs the program to its end, whatever that is.
    ///
    /// # Errors
    /// If it cannot be started, or a signal has come.
    pub(crate) fn run(&self) -> Result<Ended> {
        if !signals::is_undoing() {
            signals::check()?;
        }
        let shares_terminal = self.may_ask && stdin().is_terminal();
        let mut child = self.start(shares_terminal)?;
        let running = Running { pid: child.id().cast_signed(), leads_group: !shares_terminal };
        signals::begin(running);
        let output = child.stdout.take().map(|pipe| Kept::output(pipe, self.output));
        let said = child.stderr.take().map(|pipe| Kept::complaints(pipe, self.complaints));
        let status = self.wait(&mut child, running)?;
        let said = said.map(Kept::collect).unwrap_or_default();
        let output = output.map(Kept::collect).unwrap_or_default();
        let line = self.line();
        Ok(Ended {
            status: status.code(),
            signal: status.signal(),
            line,
            output,
            said: last_lines(&said),
        })
    }

    /// Runs the program, which has to succeed, and returns its standard output.
    ///
    /// # Errors
    /// If it ends with another status than 0.
    pub(crate) fn succeed(&self) -> Result<Vec<u8>> {
        let ended = self.run()?;
        match ended.status {
            Some(0) => Ok(ended.output),
            _ => Err(ended.failure()),
        }
    }

    /// Runs the program, which answers yes with 0 and no with 1.
    ///
    /// # Errors
    /// If it ends otherwise.
    pub(crate) fn answers_yes(&self, no: i32) -> Result<bool> {
        let ended = self.run()?;
        match ended.status {
            Some(0) => Ok(true),
            Some(status) if status == no => Ok(false),
            _ => Err(ended.failure()),
        }
    }

    fn start(&self, shares_terminal: bool) -> Result<Child> {
        let program = self.words.first().cloned().unwrap_or_default();
        let path = find(&program).ok_or_else(|| Failure::NoProgram {
            program: escape(program.as_bytes()),
            remedy: "install it".into(),
        })?;
        let mut command = Command::new(path);
        command.args(&self.words[1..]).env_clear().env("PATH", DIRECTORIES).current_dir("/");
        let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.envs(inherited).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(if shares_terminal { Stdio::inherit() } else { Stdio::null() });
        command.stdout(Stdio::piped());
        let prompts = self.complaints == Complaints::Terminal && shares_terminal;
        command.stderr(if prompts { Stdio::inherit() } else { Stdio::piped() });
        if !shares_terminal {
            command.process_group(0);
        }
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        log::debug!("running {}", self.line());
        command.spawn().map_err(|cause| Failure::Start { line: self.line(), cause })
    }

    /// Waits until it has ended, kills it at its limit, and only then lets its number go.
    fn wait(&self, child: &mut Child, running: Running) -> Result<std::process::ExitStatus> {
        let failed = |cause: std::io::Error| {
            Failure::Failed(format!("cannot wait for `{}`: {cause}", self.line()))
        };
        let deadline = self.limit.map(|limit| Instant::now() + limit);
        let pid = Pid::from_raw(running.pid).map(WaitId::Pid).unwrap_or(WaitId::All);
        let mut options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        options.set(WaitIdOptions::NOHANG, deadline.is_some());
        loop {
            match waitid(pid.clone(), options) {
                Ok(Some(_)) => break,
                Ok(None) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    running.send(Signal::KILL);
                    break;
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(failed(cause.into())),
            }
        }
        signals::end();
        child.wait().map_err(failed)
    }
}

impl Ended {
    /// The failure that this end is.
    pub(crate) fn failure(self) -> Failure {
        let ending = match (self.status, self.signal) {
            (Some(status), _) => format!("ended with status {status}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_string(),
        };
        // Some complain on standard output, as cryptdisks_start does.
        let said = if self.said.is_empty() { last_lines(&self.output) } else { self.said };
        // What ended it may have been a signal for us.
        match signals::is_undoing() {
            false if signals::check().is_err() => signals::check().expect_err("just seen"),
            _ => Failure::Command { line: self.line, ending, status: self.status, said },
        }
    }
}

/// The path of a program; one with a slash in it is a path itself.
pub(crate) fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return is_program(&path).then_some(path);
    }
    DIRECTORIES
        .split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// A word as a POSIX shell reads it back.
pub(crate) fn shell_quote(word: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) {
        return word.to_vec();
    }
    let mut quoted = vec![b'\''];
    for &byte in word {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// Whether a person is there to read and to answer.
pub(crate) fn is_interactive() -> bool {
    stdin().is_terminal() || stdout().is_terminal() || stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_so_that_a_shell_reads_them_back() {
        for (word, quoted) in [
            ("plain/path-1.0:x", "plain/path-1.0:x"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            ("$HOME `id` \"x\"", "'$HOME `id` \"x\"'"),
            ("~root", "'~root'"),
        ] {
            assert_eq!(shell_quote(word.as_bytes()), quoted.as_bytes());
        }
    }

    #[test]
    fn a_failure_quotes_command_status_and_the_end_of_standard_error() {
        let script = "echo first >&2; printf 'a\\033[1mb' >&2; exit 7";
        let failure = Call::new(["sh", "-c", script]).succeed().expect_err("status 7");
        let text = failure.to_string();
        assert!(text.contains("ended with status 7: first; a\\x1b[1mb"), "{text}");
        assert!(text.starts_with("`sh -c 'echo first"), "{text}");
    }

    #[test]
    fn the_environment_holds_nothing_but_what_was_meant() {
        let mut call = Call::new(["env"]);
        call.environment.push(("HOME".into(), "".into()));
        let output = String::from_utf8(call.succeed().expect("env")).expect("UTF-8");
        assert!(
            output.contains(&format!("PATH={DIRECTORIES}\n")) && output.contains("HOME=\n"),
            "{output}"
        );
        assert!(!output.contains("CARGO"), "{output}");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_at_its_limit() {
        let mut call = Call::new(["sleep", "60"]);
        call.limit = Some(Duration::from_millis(100));
        assert!(call.succeed().expect_err("killed").to_string().contains("was ended by signal 9"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let failure = Call::new(["no-such-program-anywhere"]).succeed().expect_err("missing");
        assert!(
            failure.to_string().contains("no program no-such-program-anywhere in /usr/local/sbin:")
        );
    }
}
